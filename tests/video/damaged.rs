//! Truncated, empty and changing inputs: everything before the damage is written, and the exit code is 1.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use super::*;

#[test]
fn truncated_and_empty_streams_are_errors_after_their_complete_frames() {
    let whole = y4m(31, 17, 4);
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&[u8], usize, &str); 4] = [
        (&whole, 4, ""),
        (&whole[..whole.len() - 100], 3, "bytes of frame 4"),
        (&whole[..40], 0, "is truncated"),
        (&[], 0, "is empty"),
    ];
    for (n, (bytes, frames, want)) in cases.into_iter().enumerate() {
        let out = folder.path().join(format!("{n}.y4m"));
        let mut child = video("-").arg("-o").arg(&out).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), i32::from(!want.is_empty()), "{}", stderr(&output));
        assert!(stderr(&output).contains(want), "{}", stderr(&output));
        let written = fs::read(&out).map_or(0, |bytes| bytes.windows(6).filter(|w| w == b"FRAME\n").count());
        assert_eq!(written, frames);
    }
}

#[test]
fn damaged_files_are_quoted() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mkv");
    clip(&file, 12, &["-c:v", "ffv1"]);
    let whole = fs::read(&file).unwrap();
    let truncated = folder.path().join("truncated.mkv");
    fs::write(&truncated, &whole[..whole.len() / 2]).unwrap();
    let out = folder.path().join("out.mp4");
    let output = run(video(text(&truncated)).arg("-o").arg(&out));
    assert!(
        code(&output) == 1 && stderr(&output).contains("truncated.mkv: is damaged or incomplete"),
        "{}",
        stderr(&output)
    );
    let frames: u32 = probe(&out, "stream=nb_read_frames")[0].parse().unwrap();
    assert!((3..10).contains(&frames), "{frames} frames can be played");

    let cases: [(&str, &[u8], &str); 3] = [
        ("empty.mp4", b"", "empty.mp4: is empty"),
        ("text.mp4", b"no video", "Invalid data found"),
        ("sound.wav", b"", "does not contain any stream|matches no streams|no streams"),
    ];
    for (name, bytes, want) in cases {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        if name == "sound.wav" {
            ffmpeg(&["-f", "lavfi", "-i", "sine=duration=0.1", text(&path)]);
        }
        let output = run(video(text(&path)).arg("--json"));
        assert!(
            code(&output) == 1 && want.split('|').any(|want| stderr(&output).contains(want)),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_change_of_size_is_handled_or_explained() {
    let folder = tempfile::tempdir().unwrap();
    for (n, side) in [(1, 40), (2, 24)] {
        image::RgbImage::new(side, 24).save(folder.path().join(format!("{n}.png"))).unwrap();
    }
    let out = folder.path().join("masks");
    assert_eq!(code(&run(video(text(folder.path())).arg("-o").arg(&out))), 0, "each mask has its frame's size");
    let sizes: Vec<_> = masks(&out).iter().map(|(_, mask)| mask.width()).collect();
    assert_eq!(sizes, [40, 24]);
    let output = run(video(text(folder.path())).args(["-o"]).arg(folder.path().join("out.y4m")));
    assert!(
        code(&output) == 1 && stderr(&output).contains("24x24 pixels, but the video started with 40x24"),
        "{}",
        stderr(&output)
    );
    if !has_ffmpeg() {
        return;
    }
    // FFmpeg scales frames of a changed size to the first one.
    let both = folder.path().join("both.h264");
    let mut bytes = Vec::new();
    for size in ["96x72", "64x48"] {
        let source = format!("testsrc=size={size}:rate=10:duration=0.4");
        bytes.extend(
            ffmpeg(&["-f", "lavfi", "-i", &source, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-f", "h264", "-"]).stdout,
        );
    }
    fs::write(&both, bytes).unwrap();
    let output = run(video(text(&both)).arg("--json"));
    assert_eq!((code(&output), lines(&output).len()), (0, 8), "{}", stderr(&output));
    assert!(lines(&output).iter().all(|line| line["size"] == serde_json::json!([96, 72])));
}
