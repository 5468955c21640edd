//! Interaction with the operating system: permissions, signals, closed pipes, and file names.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{TINY, code, photo, photos, rtformer, segment, stderr, tree};

/// Runs `segment FOLDER -o OUT` in a shell. `before` is a command that runs first; `behind` holds more flags and redirections.
fn shell(before: &str, folder: &Path, out: &Path, behind: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_rtformer");
    let (folder, out) = (folder.display(), out.display());
    let script = format!("{before} '{program}' segment --weights '{TINY}' --emit mask -o '{out}' '{folder}' {behind}");
    Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn permissions_follow_the_umask_or_the_file_that_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("in"), folder.path().join("out"));
    photo(&photos.join("a.png"), 1);
    let mode = || fs::metadata(out.join("a.mask.png")).unwrap().permissions().mode() & 0o7777;
    for (umask, want) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
        let _ = fs::remove_dir_all(&out);
        assert_eq!(code(&shell(&format!("umask {umask};"), &photos, &out, "-q")), 0);
        assert_eq!(mode(), want, "umask {umask}");
    }
    assert_eq!(code(&shell("umask 022;", &photos, &out, "-q --overwrite")), 0);
    assert_eq!(mode(), 0o664, "the mode is kept");
}

#[test]
fn a_closed_or_full_standard_error_does_not_end_a_run() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("in"), 3);
    fs::write(folder.path().join("in/junk.png"), "junk").unwrap();
    for (number, behind) in ["-v 2>&-", "-v 2>/dev/full", "-v >&- 2>&-", "-v </dev/null 2>/dev/null"].iter().enumerate()
    {
        if behind.contains("full") && !Path::new("/dev/full").exists() {
            continue; // macOS does not have it
        }
        let out = folder.path().join(number.to_string());
        assert_eq!(code(&shell("", &folder.path().join("in"), &out, behind)), 1, "{behind}: junk.png fails");
        assert_eq!(tree(&out).len(), 3, "{behind}");
    }
}

/// `rtformer segment --json | head -1`
#[test]
fn files_are_finished_if_the_reader_of_standard_output_exits() {
    let folder = tempfile::tempdir().unwrap();
    let photos_folder = folder.path().join("in");
    photos(&photos_folder, 40);
    for failing in [false, true] {
        let out = folder.path().join(if failing { "some" } else { "all" });
        if failing {
            fs::write(photos_folder.join("0005.png"), "junk").unwrap();
        }
        let mut command = rtformer(&["segment", "--weights", TINY, "--json", "-o"]);
        command.arg(&out).arg(&photos_folder).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(1, running.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("0000.png"), "{line}");
        let done = running.wait_with_output().unwrap();
        assert_eq!(code(&done), i32::from(failing), "{}", stderr(&done));
        assert_eq!(tree(&out).len(), 2 * (40 - usize::from(failing)));
        assert!(!stderr(&done).contains("standard output"), "{}", stderr(&done));
    }
    // If standard output is on a full disk, it is an error, but the files are written.
    if Path::new("/dev/full").exists() {
        let out = folder.path().join("full");
        let done = shell("", &photos_folder, &out, "--json >/dev/full");
        assert_eq!((code(&done), tree(&out).len()), (1, 39));
        assert!(stderr(&done).contains("standard output cannot be written"), "{}", stderr(&done));
    }
}

/// As with `nohup`, and for background jobs of a shell.
#[cfg(target_os = "linux")]
#[test]
fn signals_that_were_ignored_stay_ignored() {
    use std::io::Write;

    use super::kill;

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let program = env!("CARGO_BIN_EXE_rtformer");
    let script = format!("trap '' HUP INT; exec '{program}' segment - --weights '{TINY}' -o '{}' -q", out.display());
    let mut command = Command::new("sh");
    let mut running = command.args(["-c", &script]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = running.stdin.take().unwrap();
    while !out.exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    for signal in ["HUP", "INT", "INT"] {
        kill(signal, &running);
    }
    photo(&folder.path().join("a.png"), 1);
    input.write_all(&fs::read(folder.path().join("a.png")).unwrap()).unwrap();
    drop(input);
    let done = running.wait_with_output().unwrap();
    assert_eq!((code(&done), stderr(&done)), (0, String::new()));
    assert_eq!(tree(&out).len(), 2);
}

#[test]
fn a_name_that_is_too_long_leaves_no_output() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("in"), folder.path().join("out"));
    photo(&root.join("a.png"), 1);
    // With `.mask.png` and `.overlay.png`, the names have 252 and 255, 253 and 256, and 260 and 263 bytes. File systems allow 255.
    for length in [243, 244, 251] {
        fs::copy(root.join("a.png"), root.join("x".repeat(length) + ".png")).unwrap();
    }
    let done = segment(&[&root], &out, &["--json"]);
    assert_eq!(code(&done), 1, "{}", stderr(&done));
    assert_eq!(stderr(&done).matches("cannot be written").count(), 2, "{}", stderr(&done));
    let files: Vec<_> = tree(&out).into_keys().collect();
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(files.contains(&("x".repeat(243) + ".overlay.png")));
}

#[test]
fn control_characters_of_names_are_escaped_in_messages() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("in"), folder.path().join("out"));
    photo(&root.join("a\nerror: all is lost.png"), 1);
    fs::write(root.join("\u{1b}[2Jb.png"), "junk").unwrap();
    for flags in [&["--dry-run"][..], &["-v"]] {
        let done = segment(&[&root], &out, flags);
        let said = [done.stdout.clone(), done.stderr.clone()].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(!said.contains('\u{1b}') && !said.contains("\nerror: all"), "{said:?}");
        assert!(said.contains("a\\nerror: all is lost") && said.contains("\\u{1b}[2Jb.png"), "{said:?}");
    }
    assert_eq!(tree(&out).len(), 2, "the photo's own name is kept");
}
