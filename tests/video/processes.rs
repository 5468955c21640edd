//! Child processes that are killed, and signals.

use std::time::{Duration, Instant};

use super::*;

/// The children of a process that run `ffmpeg`.
fn children(id: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().map(|child| child.parse::<u32>().unwrap()));
    }
    let named = found.into_iter().map(|child| {
        let command = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        (child, String::from_utf8_lossy(&command).replace('\0', " "))
    });
    named.filter(|(_, command)| command.starts_with("ffmpeg")).collect()
}

fn kill(signal: &str, id: u32) {
    assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
}

/// Waits until some frames are in the output, kills one process, and returns the output and the children that had been running.
fn killed(out: &Path, signal: &str, victim: impl Fn(u32, &[(u32, String)]) -> u32) -> (Output, Vec<u32>) {
    // An endless source at 20 frames per second.
    let mut command = video("lavfi:testsrc=size=96x72:rate=20,realtime");
    let child = command.arg("-o").arg(out).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while fs::metadata(out).map_or(0, |file| file.len()) < 3000 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::sleep(Duration::from_millis(20));
    }
    let found = children(child.id());
    assert_eq!(found.len(), 2, "{found:?}");
    kill(signal, victim(child.id(), &found));
    let output = child.wait_with_output().unwrap();
    (output, found.into_iter().map(|(id, _)| id).collect())
}

fn gone(ids: &[u32]) {
    for id in ids {
        assert!(!Path::new(&format!("/proc/{id}")).exists(), "a child is left");
    }
}

#[test]
fn a_killed_child_leaves_a_playable_file_and_no_process() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (ending, decoder) in [("mp4", true), ("mp4", false), ("mkv", false)] {
        let out = folder.path().join(format!("{decoder}.{ending}"));
        let (output, ids) = killed(&out, "-KILL", |_, found| {
            let decodes = |command: &str| command.contains("showinfo");
            found.iter().find(|(_, command)| decodes(command) == decoder).unwrap().0
        });
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        assert!(stderr(&output).contains("ffmpeg was killed by signal 9"), "{}", stderr(&output));
        gone(&ids);
        let frames: u32 = probe(&out, "stream=nb_read_frames")[0].parse().unwrap();
        assert!(frames > 0, "{ending}: {frames} frames can be played");
    }
}

#[test]
fn a_signal_completes_the_file() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.mp4");
    let (output, ids) = killed(&out, "-TERM", |own, _| own);
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    gone(&ids);
    assert!(probe(&out, "stream=nb_read_frames")[0].parse::<u32>().unwrap() > 0);
}

#[test]
fn a_signal_ends_a_wait_for_input() {
    let mut child = video("-").arg("--json").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let input = child.stdin.take();
    std::thread::sleep(Duration::from_millis(300));
    kill("-TERM", child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    drop(input);
}
