//! `--shard`: the tasks of an array job divide the photos among them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{code, lines, photo, photos, segment, stderr, tree};

/// The paths that `--dry-run --json` prints for one shard, and the number of its failures.
fn listed(inputs: &[&Path], root: &Path, shard: &str) -> (BTreeSet<String>, usize) {
    let flags = ["--dry-run", "--json", "--emit", "mask", "--shard", shard];
    let done = segment(inputs, Path::new("out"), &flags);
    let name = |path: &str| Path::new(path).strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
    let lines = lines(&done);
    let (failed, planned): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.get("error").is_some());
    assert_eq!(code(&done), i32::from(!failed.is_empty()), "{}", stderr(&done));
    (planned.iter().map(|line| name(line["path"].as_str().unwrap())).collect(), failed.len())
}

#[test]
fn shards_do_not_depend_on_the_order_of_inputs_or_on_where_a_folder_is() {
    let folder = tempfile::tempdir().unwrap();
    let [here, elsewhere] = ["data", "mnt/other"].map(|name| folder.path().join(name));
    for root in [&here, &elsewhere] {
        photos(&root.join("day"), 20);
        photos(&root.join("night"), 30); // names of `day` again
    }
    let list = here.join("list.txt");
    let missing: Vec<_> = (0..40).map(|i| format!("missing{i}.png")).collect();
    fs::write(&list, format!("day/0001.png\n{}", missing.join("\n"))).unwrap();
    let mut seen = BTreeSet::new();
    let mut failures = 0;
    for shard in ["1/3", "2/3", "3/3"] {
        let [day, night] = ["day", "night"].map(|name| here.join(name));
        let (names, failed) = listed(&[&day, &night], &here, shard);
        assert_eq!((names.clone(), failed), listed(&[&night, &day], &here, shard), "{shard}: another order");
        assert!(names.len() > 5, "{shard}: {names:?}");
        // The shards of a folder are those of its copy elsewhere.
        assert_eq!(listed(&[&here], &here, shard), listed(&[&elsewhere], &elsewhere, shard), "{shard}: elsewhere");
        for name in names {
            assert!(seen.insert(name.clone()), "{name} is in two shards");
        }
        assert_eq!(failed, 0);
        failures += listed(&[&list], &here, shard).1;
    }
    assert_eq!((seen.len(), failures), (50, 40), "each missing photo of a list is reported by one task");
}

#[test]
fn shards_write_what_one_run_writes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("in");
    photos(&root, 9);
    photo(&root.join("0001.bmp"), 99); // shares its stem with 0001.png, so both outputs have full names
    fs::write(root.join("bad.jpg"), "no photo").unwrap();
    let (whole, divided) = (folder.path().join("whole"), folder.path().join("divided"));
    assert_eq!(code(&segment(&[&root], &whole, &["--emit", "mask"])), 1);
    let mut codes = Vec::new();
    for shard in ["2/3", "1/3", "3/3", "1/3"] {
        let resume = ["--emit", "mask", "--resume", "--shard", shard];
        let flags = if codes.len() < 3 { &["--emit", "mask", "--shard", shard][..] } else { &resume };
        let done = segment(&[&root], &divided, flags);
        assert!(stderr(&done).contains(&format!("shard {shard}: ")), "{}", stderr(&done));
        codes.push(code(&done));
    }
    assert_eq!(codes[..3].iter().sum::<i32>(), 1, "one task reports the bad photo: {codes:?}");
    assert_eq!(codes[3], codes[1], "a repeated task");
    assert!(tree(&whole) == tree(&divided));

    // More tasks than photos: some have nothing to do, which is no error.
    let empty = (1..=100).map(|i| {
        segment(&[&root.join("0000.png")], &divided, &["--dry-run", "--overwrite", "--shard", &format!("{i}/100")])
    });
    let listed: Vec<_> =
        empty.map(|done| (code(&done), done.stdout.is_empty())).filter(|done| *done != (0, true)).collect();
    assert_eq!(listed, [(0, false)]);
}

#[test]
fn every_task_reports_what_may_be_missing_on_its_machine() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("in"), 4);
    for shard in ["1/2", "2/2"] {
        let [photos, missing] = ["in", "not_mounted"].map(|name| folder.path().join(name));
        let done = segment(&[&photos, &missing], Path::new("out"), &["--dry-run", "--shard", shard]);
        assert_eq!(code(&done), 1);
        assert!(stderr(&done).contains("not_mounted: does not exist"), "{}", stderr(&done));
    }
    let cases: [(&[&str], &str, &str); 4] = [
        (&["--shard", "0/2"], "in", "I from 1 to N"),
        (&["--shard", "3/2"], "in", "I from 1 to N"),
        (&["--shard", "1/2"], "-", "name files or folders"),
        (&["--shard", "1/2", "-o", "-"], "in/0000.png", "--shard"),
    ];
    for (flags, input, why) in cases {
        let input = if input == "-" { input.into() } else { folder.path().join(input) };
        let done = super::rtformer(&["segment", "--weights", super::TINY, "--emit", "mask"])
            .arg(&input)
            .args(flags)
            .args(if flags.contains(&"-o") { &[][..] } else { &["-o", "out", "--dry-run"] })
            .output()
            .unwrap();
        assert_eq!(code(&done), 2, "{flags:?}: {}", stderr(&done));
        assert!(stderr(&done).contains(why), "{flags:?}: {}", stderr(&done));
    }
}
