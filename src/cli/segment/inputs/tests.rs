use std::fs;

use super::super::record::{Record, Settings};
use super::*;

type Names<'a> = &'a [&'a str];

/// The places of what is found, and how many failures there are.
fn places(arguments: &[&Path], out: Option<&Path>) -> (Vec<String>, usize) {
    let arguments: Vec<_> = arguments.iter().map(|path| path.to_path_buf()).collect();
    let found = find(&arguments, &[], out);
    let places = found.inputs.iter().map(|input| input.place.to_string_lossy().replace('\\', "/"));
    (places.collect(), found.failures.len())
}

fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    folder
}

#[test]
fn arguments_are_files_folders_globs_and_standard_input() {
    let files = ["b.png", "a.JPG", "sub/c.webp", "notes.txt", ".hidden.png", "sub/.git/d.png", "[x].png"];
    let folder = folder(&files);
    let root = folder.path();
    let cases: [(&[&Path], &[&str], usize); 10] = [
        (&[root], &["[x].png", "a.JPG", "b.png", "sub/c.webp"], 0), // sorted, recursive; no hidden file, no text
        (&[&root.join("notes.txt")], &["notes.txt"], 0),            // named explicitly: used, whatever it is
        (&[&root.join("*.png")], &["[x].png", "b.png"], 0),         // a glob, as in a shell
        (&[&root.join("s*")], &["c.webp"], 0),                      // a glob that matches a folder
        (&[&root.join("[x].png")], &["[x].png"], 0),                // an existing file takes precedence over a pattern
        (&[&root.join("b.png"), root], &["b.png", "[x].png", "a.JPG", "sub/c.webp"], 0), // each once, in the first place
        (&[&root.join("none.png")], &[], 1),
        (&[&root.join("*.bmp")], &[], 1),
        (&[&root.join("sub/.git")], &["d.png"], 0), // hidden, but named explicitly
        (&[Path::new("-"), Path::new("-")], &["stdin"], 0),
    ];
    for (arguments, want, failures) in cases {
        let want: Vec<String> = want.iter().map(ToString::to_string).collect();
        assert_eq!(places(arguments, None), (want, failures), "{arguments:?}");
    }
}

#[test]
fn outputs_of_a_run_are_not_inputs_of_the_next() {
    let files = [
        "a.png",
        "a.mask.png",
        "A.JPG",
        "A.overlay.png", // beside their photos
        "b.jpg.mask.png",
        "b.jpg",
        "c.mask.png",
        "c.logits.npy", // full file names; two outputs
        "holiday.mask.png",
        "mask.png", // photos, despite their names
        "out/d.png",
        "old/e.mask.png",
    ];
    let folder = folder(&files);
    let root = folder.path();
    let (keyword, text) = Record::new(Path::new("e.jpg"), b"", &Settings::plain()).text();
    let mut png = Vec::new();
    rtformer::pixels::render::write_gray(&mut png, &image::GrayImage::new(1, 1), Some((keyword, &text))).unwrap();
    fs::write(root.join("old/e.mask.png"), png).unwrap();
    let photos = ["A.JPG", "a.png", "b.jpg", "holiday.mask.png", "mask.png"];
    assert_eq!(places(&[root], Some(&root.join("out"))).0, photos);
    let found = find(&[root.to_path_buf()], &[], Some(root));
    assert_eq!((found.inputs.len(), found.outputs, found.other), (6, 5, 1), "{found:?}");
    assert_eq!(places(&[&root.join("old/e.mask.png")], None).0, ["e.mask.png"], "taken where it is named");
    let found = find(&[root.join("old")], &[], None);
    assert!(found.failures[0].reason.contains("but 1 output of earlier runs"), "{found:?}");
}

#[test]
fn a_folder_without_images_is_a_failure() {
    let folder = folder(&["notes.txt"]);
    let found = find(&[folder.path().to_path_buf()], &[], None);
    assert!(found.failures[0].reason.contains("holds no images"), "{found:?}");
    assert_eq!(found.other, 1);
}

#[test]
fn lists_name_photos() {
    let folder = folder(&["in/a.png", "in/sub/b.png", "c.png", "list.txt", "notes.txt", "bare", "empty.txt"]);
    let root = folder.path();
    let absolute = root.join("in/a.png");
    let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
    write("list.txt", &format!("in/sub/b.png in/sub/b_L.png\n{}\nin/../c.png\nin/a.png\n", absolute.display()));
    write("notes.txt", "taken in spring\nwith a phone\n");
    write("bare", "c.png\nnone.png\n");
    let cases: [(Names<'_>, Names<'_>, Names<'_>, usize); 6] = [
        // Mirrored below the list's folder, unless the path leaves it; each path once.
        (&["list.txt"], &[], &["in/sub/b.png", "in/a.png", "c.png"], 0),
        (&["c.png", "list.txt"], &[], &["c.png", "in/sub/b.png", "in/a.png"], 0),
        (&["notes.txt"], &[], &[], 1),         // not a list; one error, not one per line
        (&[], &["bare"], &["c.png"], 1),       // a list with any name; a missing photo fails
        (&[], &["notes.txt"], &[], 2),         // named by the flag, so it is a list
        (&[], &["empty.txt", "none"], &[], 2), // each reports its own error
    ];
    for (arguments, lists, want, failures) in cases {
        let paths = |names: &[&str]| names.iter().map(|name| root.join(name)).collect::<Vec<_>>();
        let found = find(&paths(arguments), &paths(lists), None);
        let places: Vec<_> = found.inputs.iter().map(|input| input.place.clone()).collect();
        let want: Vec<_> = want.iter().map(PathBuf::from).collect();
        assert_eq!((places, found.failures.len()), (want, failures), "{arguments:?} {lists:?} {found:?}");
    }
}

#[cfg(unix)]
#[test]
fn each_name_of_a_file_is_a_separate_photo() {
    let folder = folder(&["a.png", "sub/x"]);
    let root = folder.path();
    fs::hard_link(root.join("a.png"), root.join("b.png")).unwrap();
    std::os::unix::fs::symlink("a.png", root.join("c.png")).unwrap();
    assert_eq!(places(&[root], None), (["a.png", "b.png", "c.png"].map(String::from).into(), 0));
    let one = ["a.png", "./a.png", "sub/../a.png"].map(|name| root.join(name));
    let one: Vec<_> = one.iter().map(PathBuf::as_path).collect();
    assert_eq!(places(&one, None).0, ["a.png"], "all three are the same path");
}

/// Opening a pipe would wait for a writer.
#[cfg(unix)]
#[test]
fn pipes_and_sockets_in_folders_are_skipped() {
    let folder = folder(&["a.png"]);
    let root = folder.path();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("s.png")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(root.join("p.jpg")).status().unwrap();
    assert!(made.success());
    std::os::unix::fs::symlink("/dev/zero", root.join("z.jpg")).unwrap();
    let found = find(&[root.to_path_buf()], &[], None);
    assert_eq!((found.inputs.len(), found.special, found.failures.len()), (1, 3, 0), "{found:?}");
    assert_eq!(places(&[&root.join("p.jpg")], None).0, ["p.jpg"], "taken where it is named");
}
