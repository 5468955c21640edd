//! Which photo an output was made from: `--resume`, links, and folders with outputs of earlier runs.

use std::fs;
use std::path::Path;

use super::{code, lines, photo, photos, segment, stderr, tree};

#[test]
fn resume_gives_the_same_outputs_as_a_new_run() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    photo(&root.join("x/a.png"), 1);
    photo(&root.join("y/a.png"), 2);
    photo(&root.join("x/a.bmp"), 3);
    photo(&root.join("x/b.png"), 4);
    let cases: [(&[&str], &[&str]); 5] = [
        (&["x/a.png"], &["y/a.png"]), // a photo of the same name in another folder
        (&["x/a.png", "y/a.png"], &["y/a.png", "x/a.png"]), // another order, so the numbers change
        (&["x/a.png"], &["x/a.bmp", "x/a.png", "x/b.png"]), // more arguments, so the names get longer
        (&["x/a.png", "x/a.bmp"], &["x/a.bmp"]), // fewer arguments
        (&["x"], &["y", "x"]),
    ];
    for (number, (before, after)) in cases.into_iter().enumerate() {
        let paths = |names: &[&str]| names.iter().map(|name| root.join(name)).collect::<Vec<_>>();
        let run = |names: &[&str], out: &Path, flags: &[&str]| {
            let paths = paths(names);
            let done = segment(&paths.iter().map(AsRef::as_ref).collect::<Vec<_>>(), out, flags);
            assert_eq!(code(&done), 0, "{}", stderr(&done));
            done
        };
        let (out, fresh) = (root.join(format!("out{number}")), root.join(format!("fresh{number}")));
        run(before, &out, &[]);
        run(after, &out, &["--resume"]);
        run(after, &fresh, &[]);
        let (out_files, fresh_files) = (tree(&out), tree(&fresh));
        for (name, bytes) in &fresh_files {
            assert!(out_files.get(name) == Some(bytes), "{name} after {before:?}, then {after:?}");
        }
        let again = run(after, &out, &["--resume"]);
        assert!(stderr(&again).contains("nothing left to do"), "{}", stderr(&again));
        assert!(tree(&out) == out_files);
    }
}

#[test]
fn every_kind_of_output_records_its_photo_and_settings() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for emit in ["mask", "overlay", "confidence", "logits", "json", "mask,json"] {
        let (photos, out) = (root.join(format!("{emit}-in")), root.join(emit));
        photo(&photos.join("a.png"), 1);
        photo(&photos.join("b.png"), 2);
        let redone = |flags: &[&str]| {
            let done = segment(&[&photos], &out, &[&["--json", "--emit", emit, "--resume"], flags].concat());
            assert_eq!(code(&done), 0, "{emit}: {}", stderr(&done));
            let name = |line: &serde_json::Value| line["source"]["photo"].as_str().unwrap().to_owned();
            lines(&done).iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(redone(&[]), ["a.png", "b.png"], "{emit}");
        assert!(redone(&[]).is_empty(), "{emit}: everything is done");
        photo(&photos.join("a.png"), 3);
        assert_eq!(redone(&[]), ["a.png"], "{emit}: the photo was replaced");
        assert_eq!(redone(&["--size", "32x32"]).len(), 2, "{emit}: other settings");
        assert!(redone(&["--size", "32x32", "--threads", "1", "--batch", "2"]).is_empty(), "{emit}: the same result");
        if emit == "mask" {
            assert!(redone(&["--size", "32x32", "--alpha", "0.1"]).is_empty(), "alpha is for overlays");
            let kept = segment(&[&photos], &out, &["--emit", emit, "--resume", "--dry-run", "--size", "32x32"]);
            assert!(kept.stdout.is_empty(), "nothing would be written");
        }
    }
}

/// Annotation tools also write `a.json` beside `a.png`.
#[test]
fn resume_does_not_replace_files_of_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), 2);
    fs::write(folder.path().join("0000.json"), "{\"shapes\": []}").unwrap();
    fs::write(folder.path().join("0001.json"), "").unwrap(); // as after a system crash
    let done = segment(&[folder.path()], folder.path(), &["--emit", "json", "--resume"]);
    assert_eq!(code(&done), 1);
    assert!(stderr(&done).contains("0000.json: does not say which photo"), "{}", stderr(&done));
    assert_eq!(fs::read(folder.path().join("0000.json")).unwrap(), b"{\"shapes\": []}");
    assert!(fs::read(folder.path().join("0001.json")).unwrap().len() > 100);
}

#[test]
fn outputs_of_earlier_runs_are_not_photos() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    photo(&root.join("a.png"), 1);
    photo(&root.join("sub/b.png"), 2);
    let emit = ["--emit", "mask,overlay,confidence,logits,json"];
    for out in ["out", "sub/masks", ".", "out"] {
        let done = segment(&[root], &root.join(out), &[&emit[..], &["--json", "--overwrite", "-v"]].concat());
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        assert_eq!(lines(&done).len(), 2, "{out}: {}", stderr(&done));
    }
    // A mask without its photo beside it, and a photo that is named like a mask.
    let masks = root.join("sub/masks");
    for name in ["a.overlay.png", "a.confidence.png", "a.json", "a.logits.npy"] {
        fs::remove_file(masks.join(name)).unwrap();
    }
    photo(&masks.join("holiday.mask.png"), 3);
    let done = segment(&[&masks], &root.join("new"), &["--json"]);
    assert_eq!(lines(&done).len(), 1);
    assert!(lines(&done)[0]["path"].as_str().unwrap().ends_with("holiday.mask.png"));
}

#[cfg(unix)]
#[test]
fn three_names_of_one_file_are_three_photos() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("in");
    photo(&root.join("a.png"), 1);
    fs::hard_link(root.join("a.png"), root.join("b.png")).unwrap();
    std::os::unix::fs::symlink("a.png", root.join("c.png")).unwrap();
    let out = folder.path().join("out");
    let done = segment(&[&root, &root.join("./a.png")], &out, &["--emit", "mask", "-v"]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(tree(&out).into_keys().collect::<Vec<_>>(), ["a.mask.png", "b.mask.png", "c.mask.png"]);
    assert!(stderr(&done).contains("1 path named twice"), "{}", stderr(&done));
}

#[test]
fn a_list_names_photos_and_missing_ones_fail() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    photo(&root.join("val/my photo.png"), 1);
    photo(&root.join("val/b.png"), 2);
    fs::write(root.join("val.txt"), "\u{feff}# PaddleSeg\r\nval/my photo.png val/l.png\r\nval/b.png\r\nval/c.png\r\n")
        .unwrap();
    for (inputs, flags) in [(&[root.join("val.txt")][..], vec![]), (&[], vec!["--list", "val.txt"])] {
        let out = tempfile::tempdir().unwrap();
        let mut command = super::rtformer(&["segment", "--weights", super::TINY, "--emit", "mask", "--json", "-o"]);
        let done = command.arg(out.path()).args(inputs).args(flags).current_dir(root).output().unwrap();
        assert_eq!(code(&done), 1);
        assert!(
            stderr(&done).contains("c.png: does not exist (") && stderr(&done).contains("line 4)"),
            "{}",
            stderr(&done)
        );
        assert_eq!(tree(out.path()).into_keys().collect::<Vec<_>>(), ["val/b.mask.png", "val/my photo.mask.png"]);
        assert_eq!(lines(&done).len(), 3, "the failure has a line too");
    }
}
