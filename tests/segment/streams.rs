//! Streams of pictures on standard input, and an output on standard output.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use image::ImageFormat;

use super::{TINY, code, lines, photo, photos, rtformer, segment, stderr, tree};

/// The bytes of a small picture that differs for every seed.
fn picture(seed: u8, format: ImageFormat) -> Vec<u8> {
    let pixel = |x: u32, y: u32| image::Rgb([(x * 5) as u8 ^ seed, (y * 3) as u8, (x * y) as u8 + seed]);
    let mut bytes = Cursor::new(Vec::new());
    image::RgbImage::from_fn(48, 32, |x, y| pixel(x % 8, y % 8)).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Runs `segment -` with these bytes on standard input.
fn piped(stream: &[u8], more: &[&str]) -> std::process::Output {
    let mut running = start(more);
    let mut input = running.stdin.take().unwrap();
    let stream = stream.to_vec();
    let writer = std::thread::spawn(move || _ = input.write_all(&stream));
    let done = running.wait_with_output().unwrap();
    writer.join().unwrap();
    done
}

/// Starts `segment -`, which waits for its input.
fn start(more: &[&str]) -> Child {
    let mut command = rtformer(&["segment", "-", "--weights", TINY]);
    command.args(more).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a condition holds.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn every_picture_of_a_stream_is_segmented() {
    let folder = tempfile::tempdir().unwrap();
    for (format, ending) in [(ImageFormat::Jpeg, "jpg"), (ImageFormat::Png, "png"), (ImageFormat::Pnm, "ppm")] {
        let pictures: Vec<_> = (1..=3).map(|seed| picture(seed, format)).collect();
        let files = folder.path().join(ending);
        fs::create_dir(&files).unwrap();
        for (number, picture) in (1..).zip(&pictures) {
            fs::write(files.join(format!("stdin-{number:06}.{ending}")), picture).unwrap();
        }
        let (alone, together) = (folder.path().join(format!("{ending}-a")), folder.path().join(format!("{ending}-t")));
        assert_eq!(code(&segment(&[&files], &alone, &["--emit", "mask,logits"])), 0);
        let done = piped(&pictures.concat(), &["--json", "--emit", "mask,logits", "-o", together.to_str().unwrap()]);
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        // The records name different photos, so only the logits are compared.
        let logits = |folder: &Path| {
            let files = tree(folder).into_iter().filter(|(name, _)| name.contains(".npy"));
            files.map(|(name, bytes)| (name, bytes[..4 * 5 * 48 * 32].to_vec())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(logits(&alone).len(), 3);
        assert!(logits(&alone) == logits(&together), "{ending}");
        let names: Vec<_> = lines(&done).iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["stdin-000001", "stdin-000002", "stdin-000003"], "{ending}");
    }
}

#[test]
fn a_broken_picture_of_a_stream_does_not_affect_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = [1, 2].map(|seed| picture(seed, ImageFormat::Png));
    let cases: [(&str, Vec<u8>, &[&str], i32); 3] = [
        ("cut", [&one[..], &two[..two.len() / 2]].concat(), &["stdin-000001.mask.png"], 1), // the sender died
        ("junk", [&one[..], b"the end\n"].concat(), &["stdin.mask.png"], 0),                // not a second picture
        ("empty", Vec::new(), &[], 1),
    ];
    for (name, stream, want, status) in cases {
        let out = folder.path().join(name);
        let done = piped(&stream, &["--emit", "mask", "-o", out.to_str().unwrap()]);
        assert_eq!(code(&done), status, "{name}: {}", stderr(&done));
        assert_eq!(tree(&out).into_keys().collect::<Vec<_>>(), want, "{name}");
        assert!(name != "cut" || stderr(&done).contains("error: stdin-000002: "), "{}", stderr(&done));
    }
}

/// Only a few pictures of a stream are in memory, because a camera's stream never ends.
#[test]
fn a_stream_is_segmented_as_it_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut running = start(&["-q", "--emit", "mask", "-o", out.to_str().unwrap()]);
    let mut input = running.stdin.take().unwrap();
    for number in 1..=5_u8 {
        input.write_all(&picture(number, ImageFormat::Jpeg)).unwrap();
        input.flush().unwrap();
        // The name of the first picture is known only when the second begins.
        let before = out.join(format!("stdin-{:06}.mask.png", number - 1));
        wait_for("the previous picture", || number == 1 || before.exists());
    }
    drop(input);
    assert_eq!(code(&running.wait_with_output().unwrap()), 0);
    assert_eq!(tree(&out).len(), 5);
}

#[cfg(unix)]
#[test]
fn one_signal_ends_a_wait_for_input() {
    for (signal, arrived) in [("TERM", 0), (super::interrupt(), 2)] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut running = start(&["--emit", "mask", "-o", out.to_str().unwrap()]);
        let mut input = running.stdin.take().unwrap();
        for seed in 0..arrived {
            input.write_all(&picture(seed, ImageFormat::Png)).unwrap();
        }
        // The folder is created after the signal handlers.
        let first = out.join("stdin-000001.mask.png");
        wait_for("the start", || if arrived > 0 { first.exists() } else { out.exists() });
        super::kill(signal, &running);
        wait_for("the end", || running.try_wait().unwrap().is_some());
        assert_eq!(running.wait().unwrap().code(), Some(130), "{signal}");
        drop(input);
    }
}

#[cfg(unix)]
#[test]
fn a_named_pipe_is_a_stream() {
    let folder = tempfile::tempdir().unwrap();
    let (pipe, out) = (folder.path().join("camera"), folder.path().join("out"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let writer = std::thread::spawn({
        let (pipe, stream) = (pipe.clone(), [1, 2].map(|seed| picture(seed, ImageFormat::Jpeg)).concat());
        move || fs::write(pipe, stream).unwrap()
    });
    let done = segment(&[&pipe], &out, &["--emit", "mask"]);
    writer.join().unwrap();
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(tree(&out).into_keys().collect::<Vec<_>>(), ["camera-000001.mask.png", "camera-000002.mask.png"]);
}

#[test]
fn one_output_goes_to_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    photo(&root.join("a.png"), 1);
    assert_eq!(code(&segment(&[&root.join("a.png")], &root.join("out"), &["--emit", "mask,overlay"])), 0);
    let files = tree(&root.join("out"));
    let cases: [(&[&str], &str); 3] =
        [(&[], "a.mask.png"), (&["--emit", "mask"], "a.mask.png"), (&["--emit", "overlay", "-v"], "a.overlay.png")];
    for (flags, want) in cases {
        let done = segment(&[&root.join("a.png")], Path::new("-"), flags);
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        assert!(done.stdout == files[want], "{flags:?}");
    }
    let from_stream = piped(&fs::read(root.join("a.png")).unwrap(), &["-o", "-", "--emit", "json"]);
    assert_eq!(lines(&from_stream)[0]["size"], serde_json::json!([64, 48]));

    // For a stream of several pictures, or a file that is not a picture, nothing is printed.
    let several = piped(&[1, 2].map(|seed| picture(seed, ImageFormat::Png)).concat(), &["-o", "-"]);
    assert_eq!((code(&several), several.stdout.len()), (1, 0));
    assert!(stderr(&several).contains("several pictures"), "{}", stderr(&several));
    let junk = piped(b"junk", &["-o", "-"]);
    assert_eq!((code(&junk), junk.stdout.len()), (1, 0));
}

#[test]
fn standard_output_accepts_only_one_output() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), 2);
    let path = |name: &str| folder.path().join(name);
    let (one, two) = (path("0000.png"), path("0001.png"));
    let cases: [(&[&Path], &[&str], &str); 9] = [
        (&[&one], &["--emit", "mask,overlay"], "one output"),
        (&[&one], &["--json"], "--json"),
        (&[&one], &["--resume"], "--resume"),
        (&[&one], &["--overwrite"], "--overwrite"),
        (&[&one], &["--dry-run"], "--dry-run"),
        (&[&one, &two], &[], "one photo"),
        (&[&one, Path::new("-")], &[], "one photo"),
        (&[&path("*.png")], &[], "one photo"),
        (&[folder.path()], &[], "one photo"),
    ];
    for (inputs, flags, why) in cases {
        let done = segment(inputs, Path::new("-"), flags);
        assert_eq!((code(&done), done.stdout.len()), (2, 0), "{inputs:?} {flags:?}");
        assert!(stderr(&done).contains(why), "{flags:?}: {}", stderr(&done));
    }
    assert!(!Path::new("-").exists());
}

#[test]
fn a_photo_and_a_picture_of_a_stream_must_not_share_a_name() {
    let folder = tempfile::tempdir().unwrap();
    photo(&folder.path().join("stdin-000001.png"), 1);
    let done = segment(&[Path::new("-"), folder.path()], &folder.path().join("out"), &[]);
    assert_eq!(code(&done), 2);
    assert!(stderr(&done).contains("stdin-000001.png"), "{}", stderr(&done));
}
