//! `rtformer video` from the command line. Clips are made by `ffmpeg`; without it, the tests that need it print SKIPPED.

mod colors;
mod damaged;
mod live;
#[cfg(target_os = "linux")]
mod processes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const STREET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/street");
/// Random weights of a tiny, fast network with five classes.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/tiny.safetensors");

/// `rtformer video` with the tiny weights.
fn video(input: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtformer"));
    command.args(["video", "--weights", TINY, "--threads", "1", input]).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {}", stderr(output)))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Whether `ffmpeg` is installed.
fn has_ffmpeg() -> bool {
    let found = Command::new("ffmpeg").arg("-version").stdin(Stdio::null()).output().is_ok();
    if !found {
        eprintln!("SKIPPED: no ffmpeg");
    }
    found
}

fn ffmpeg(arguments: &[&str]) -> Output {
    let output = Command::new("ffmpeg").args(["-v", "error", "-nostdin", "-y"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "ffmpeg {arguments:?}: {}", stderr(&output));
    output
}

/// The entries that `ffprobe` finds, one line each.
fn probe(path: &Path, entries: &str) -> Vec<String> {
    let arguments =
        ["-v", "error", "-count_frames", "-select_streams", "v", "-show_entries", entries, "-of", "csv=p=0"];
    let output = Command::new("ffprobe").args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{}: {}", path.display(), stderr(&output));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.trim_matches(',').to_owned()).collect()
}

/// A clip of the street photos, 96x72, ten frames per second.
fn clip(path: &Path, frames: u32, more: &[&str]) {
    let (count, pattern) = (frames.to_string(), format!("{STREET}/*.jpg"));
    let filter = "scale=96:72,loop=loop=-1:size=4,setpts=N/10/TB";
    let mut arguments =
        vec!["-framerate", "10", "-pattern_type", "glob", "-i", &pattern, "-vf", filter, "-frames:v", &count];
    arguments.extend(["-r", "10", "-pix_fmt", "yuv420p"]);
    arguments.extend(more);
    arguments.push(text(path));
    ffmpeg(&arguments);
}

/// A y4m stream of noise, without FFmpeg.
fn y4m(width: usize, height: usize, frames: u8) -> Vec<u8> {
    let mut bytes = format!("YUV4MPEG2 W{width} H{height} F10:1 C420\n").into_bytes();
    let chroma = 2 * width.div_ceil(2) * height.div_ceil(2);
    for frame in 0..frames {
        bytes.extend(b"FRAME\n");
        bytes.extend((0..width * height).map(|i| 30 + ((i * 7 + usize::from(frame) * 31) % 180) as u8));
        bytes.extend((0..chroma).map(|i| 90 + (i % 70) as u8));
    }
    bytes
}

/// The mask files in a folder, sorted, with their pixels.
fn masks(folder: &Path) -> Vec<(String, image::RgbImage)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let named = paths
        .into_iter()
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), image::open(&path).unwrap().to_rgb8()));
    named.collect()
}

#[test]
fn masks_equal_those_of_the_same_frames_as_pictures() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, png, out) = (folder.path().join("clip.mp4"), folder.path().join("png"), folder.path().join("masks"));
    clip(&file, 9, &[]);
    fs::create_dir(&png).unwrap();
    ffmpeg(&["-i", text(&file), text(&png.join("%06d.png"))]);
    let from_video = run(video(text(&file)).arg("-o").arg(&out).arg("--json"));
    assert_eq!(code(&from_video), 0, "{}", stderr(&from_video));
    let pictures = run(Command::new(env!("CARGO_BIN_EXE_rtformer"))
        .args(["segment", "--weights", TINY, "--json", "--emit", "mask", "-o"])
        .args([&folder.path().join("segmented"), &png]));
    assert_eq!(code(&pictures), 0, "{}", stderr(&pictures));
    let digests = |output: &Output| lines(output).iter().map(|line| line["digest"].clone()).collect::<Vec<_>>();
    assert_eq!(digests(&from_video).len(), 9);
    assert_eq!(digests(&from_video), digests(&pictures));
    assert_eq!(masks(&out), masks(&folder.path().join("segmented")));
    assert_eq!(masks(&out)[8].0, "000009.mask.png");
    // The pictures as a video: the same again.
    for input in [text(&png).to_owned(), format!("{}/*.png", text(&png))] {
        let again = run(video(&input).arg("--json"));
        assert_eq!(digests(&again), digests(&pictures), "{input}: {}", stderr(&again));
    }
    let refused = run(video(text(&file)).arg("-o").arg(&out));
    assert!(code(&refused) == 2 && stderr(&refused).contains("use --overwrite"), "{}", stderr(&refused));
}

#[test]
fn videos_keep_frames_times_and_sound() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clip.mkv");
    clip(&file, 12, &[]);
    let with_sound = folder.path().join("sound.mp4");
    let sound =
        ["-f", "lavfi", "-i", "sine=duration=1.2", "-i", text(&file), "-c:a", "aac", "-c:v", "copy", text(&with_sound)];
    ffmpeg(&sound);
    for (view, ending, size) in [
        ("overlay", "mp4", "96,72"),
        ("mask", "mp4", "96,72"),
        ("mask", "mkv", "96,72"),
        ("side-by-side", "mkv", "192,72"),
    ] {
        let out = folder.path().join(format!("{view}.{ending}"));
        let output = run(video(text(&with_sound)).args(["--view", view, "-o"]).arg(&out));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let found = probe(&out, "stream=width,height,nb_read_frames");
        assert_eq!(found, [format!("{size},12")], "{view}.{ending}");
        let duration: f64 = probe(&out, "format=duration").last().unwrap().parse().unwrap();
        assert!((duration - 1.2).abs() <= 0.1, "{view}.{ending}: {duration} s");
        let packets = |file: &Path| {
            let copy = ["-i", text(file), "-map", "0:a", "-c", "copy", "-f", "md5", "-"];
            String::from_utf8(ffmpeg(&copy).stdout).unwrap()
        };
        assert_eq!(packets(&out), packets(&with_sound), "{view}.{ending}: the sound is copied");
    }
    // A part of it: from 0.4 to 0.9 seconds, every second frame.
    let part = run(video(text(&file)).args(["--start", "0.4", "--duration", "0.5", "--every", "2", "--json"]));
    let times: Vec<_> =
        lines(&part).iter().map(|line| (line["frame"].as_u64().unwrap(), line["time"].as_f64().unwrap())).collect();
    assert_eq!(times, [(1, 0.0), (3, 0.2), (5, 0.4)], "{}", stderr(&part));
}

#[test]
fn masks_of_a_video_are_lossless() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("odd.mkv");
    let source = "testsrc=size=95x71:rate=10:duration=0.5";
    ffmpeg(&["-f", "lavfi", "-i", source, "-c:v", "ffv1", "-pix_fmt", "bgr0", text(&file)]);
    let out = folder.path().join("masks");
    assert_eq!(code(&run(video(text(&file)).arg("-o").arg(&out))), 0);
    let want = masks(&out);
    for ending in ["mp4", "mkv"] {
        let (movie, png) = (folder.path().join(format!("mask.{ending}")), folder.path().join(ending));
        let output = run(video(text(&file)).args(["--view", "mask", "-o"]).arg(&movie));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        fs::create_dir(&png).unwrap();
        ffmpeg(&["-i", text(&movie), text(&png.join("%06d.mask.png"))]);
        assert_eq!(masks(&png), want, "{ending}");
    }
}

#[test]
fn variable_rates_and_rotations_are_kept() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, varying, rotated) =
        (folder.path().join("clip.mp4"), folder.path().join("varying.mkv"), folder.path().join("rotated.mp4"));
    clip(&file, 8, &[]);
    ffmpeg(&["-i", text(&file), "-vf", "setpts='if(lt(N,4),N,4+(N-4)*3)/10/TB'", "-c:v", "ffv1", text(&varying)]);
    let out = folder.path().join("varying.mp4");
    let output = run(video(text(&varying)).arg("-o").arg(&out));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let times: Vec<f64> = probe(&out, "packet=pts_time").iter().map(|time| time.parse().unwrap()).collect();
    let want = [0.0, 0.1, 0.2, 0.3, 0.4, 0.7, 1.0, 1.3];
    assert!(times.len() == 8 && times.iter().zip(want).all(|(a, b)| (a - b).abs() < 2e-3), "{times:?}");

    // Newer versions replaced the metadata by an option.
    let copy = ["-c", "copy", text(&rotated)];
    let newer = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-display_rotation", "90", "-i", text(&file)])
        .args(copy)
        .output();
    if !newer.unwrap().status.success() {
        ffmpeg(&["-i", text(&file), "-metadata:s:v", "rotate=90", "-c", "copy", text(&rotated)]);
    }
    let out = folder.path().join("upright.mp4");
    assert_eq!(code(&run(video(text(&rotated)).arg("-o").arg(&out))), 0);
    assert_eq!(
        probe(&out, "stream=width,height:stream_side_data=rotation"),
        ["72,96"],
        "upright, and not to be rotated again"
    );
}

#[test]
fn pictures_and_raw_frames_need_no_ffmpeg() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = |command: &mut Command| run(command.env("PATH", folder.path()));
    let pixel = |n: u32, x: u32, y: u32| image::Rgb([(x * 3 + n * 40) as u8, (y * 5) as u8, (x + y) as u8]);
    let pictures: Vec<_> = (0..3).map(|n| image::RgbImage::from_fn(33, 17, |x, y| pixel(n, x, y))).collect();
    let frames = folder.path().join("frames");
    fs::create_dir(&frames).unwrap();
    for (n, picture) in pictures.iter().enumerate() {
        picture.save(frames.join(format!("{}.png", n + 9))).unwrap(); // 9, 10, 11
    }
    let raw = folder.path().join("frames.rgb");
    fs::write(&raw, pictures.iter().flat_map(|picture| picture.as_raw().clone()).collect::<Vec<_>>()).unwrap();
    let of_pictures = nowhere(video(text(&frames)).args(["--json", "--fps", "5"]));
    let of_raw = nowhere(video(text(&raw)).args(["--json", "--raw", "33x17:rgb24@5"]));
    let rows = |output: &Output| {
        lines(output).iter().map(|line| (line["time"].clone(), line["digest"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(rows(&of_pictures).len(), 3, "{}", stderr(&of_pictures));
    assert_eq!(rows(&of_pictures)[2].0, 0.4);
    assert_eq!(rows(&of_pictures), rows(&of_raw), "{}", stderr(&of_raw));
    // A video of them as y4m.
    let out = folder.path().join("out.y4m");
    let output = nowhere(video(text(&frames)).args(["--view", "side-by-side", "-o"]).arg(&out));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let bytes = fs::read(&out).unwrap();
    assert!(bytes.starts_with(b"YUV4MPEG2 W66 H17 F25:1 XCOLORRANGE=LIMITED C444\nFRAME\n"));
    assert_eq!(bytes.len(), 49 + 3 * (6 + 3 * 66 * 17));
    let missing = nowhere(video("clip.mp4").arg("--json"));
    assert!(code(&missing) == 1 && stderr(&missing).contains("clip.mp4: cannot be read"), "{}", stderr(&missing));
    let file = folder.path().join("clip.mp4");
    fs::write(&file, "not empty").unwrap();
    let missing = nowhere(video(text(&file)).arg("--json"));
    assert!(code(&missing) == 1 && stderr(&missing).contains("apt install ffmpeg"), "{}", stderr(&missing));
}

#[test]
fn contradicting_flags_are_refused() {
    let cases: [(&[&str], &str); 6] = [
        (&["-", "-o", "-", "--json"], "both write to standard output"),
        (&["-", "--json", "--view", "mask"], "--view is for videos"),
        (&["-", "--json", "--smooth", "1"], "from 0 to below 1"),
        (&["-", "--json", "--raw", "640x480:nv12"], "such as 640x480:nv12@30"),
        (&["-", "--json", "--start", "x"], "expected seconds, MM:SS or HH:MM:SS"),
        (&["-"], "--out"),
    ];
    for (arguments, want) in cases {
        let output = run(video(arguments[0]).args(&arguments[1..]));
        assert!(code(&output) == 2 && stderr(&output).contains(want), "{arguments:?}: {}", stderr(&output));
    }
}
