//! `eval --video` and `bench --video`.

use std::fs;

use super::{golden, rtformer, run, text};
use serde_json::Value;

/// A y4m clip of one grey level per frame.
fn clip(levels: &[u8]) -> Vec<u8> {
    let mut bytes = b"YUV4MPEG2 W32 H24 F10:1 Cmono\n".to_vec();
    for level in levels {
        bytes.extend(b"FRAME\n");
        bytes.extend(vec![*level; 32 * 24]);
    }
    bytes
}

#[test]
fn eval_measures_flips_and_the_frames_with_labels() {
    let folder = tempfile::tempdir().unwrap();
    let (video, masks, labels) =
        (folder.path().join("clip.y4m"), folder.path().join("masks"), folder.path().join("labels"));
    fs::write(&video, clip(&[60, 61, 200, 61])).unwrap();
    let tiny = golden("tiny.safetensors");
    let (code, _, stderr) = run(&mut rtformer(&["video", text(&video), "-o", text(&masks), "--weights", text(&tiny)]));
    assert_eq!(code, 0, "{stderr}");
    // The masks of two frames as labels: those frames are all right.
    fs::create_dir(&labels).unwrap();
    for name in ["000002.mask.png", "000004.mask.png"] {
        fs::copy(masks.join(name), labels.join(name)).unwrap();
    }
    let eval = |more: &[&str]| run(rtformer(&["eval", "--video", text(&video), "--weights", text(&tiny)]).args(more));
    let (code, stdout, stderr) = eval(&["--labels", text(&labels), "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["images"], &report["frames"], &report["pixel_accuracy"]), (&2.into(), &4.into(), &1.0.into()));
    // Only the step from 60 to 61 leaves the colours as they are.
    let ids = |n: u32| image::open(masks.join(format!("{n:06}.mask.png"))).unwrap().to_rgb8();
    let flips = ids(1).pixels().zip(ids(2).pixels()).filter(|(a, b)| a != b).count();
    let want = flips as f64 / f64::from(3 * 32 * 24);
    assert!((report["flip_rate"].as_f64().unwrap() - want).abs() < 1e-12, "{report}");
    let (code, stdout, _) = eval(&["--smooth", "0.5"]);
    assert!(code == 0 && stdout.starts_with("flip rate ") && stdout.contains("over 4 frames"), "{stdout}");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let (code, _, stderr) = eval(&["--labels", text(&empty)]);
    assert!(code == 1 && stderr.contains("none of 4 frames has labels"), "{stderr}");
    let (code, _, stderr) = run(&mut rtformer(&["eval", "--images", "a", "--labels", "b", "--smooth", "0.5"]));
    assert!(code == 2 && stderr.contains("--video"), "{stderr}");
}

#[test]
fn bench_measures_a_stream() {
    let tiny = golden("tiny.safetensors");
    let arguments = ["bench", "--size", "64x48", "--stages", "mask", "--runs", "4", "--warmup", "1", "--video"];
    let (code, stdout, stderr) = run(rtformer(&arguments).args(["--weights", text(&tiny), "--json", "-"]));
    assert_eq!(code, 0, "{stderr}");
    let video = &serde_json::from_str::<Value>(&stdout).unwrap()["video"];
    let number = |key: &str| video[key].as_f64().unwrap_or_else(|| panic!("{key}: {video}"));
    assert!(number("fps") > 0.0 && (number("source_fps") - 2.0 * number("fps")).abs() < 1e-3, "{video}");
    assert!(number("age_median_ms") > 0.0 && number("age_median_ms") <= number("age_p95_ms"), "{video}");
    assert!(number("age_p95_ms") <= number("age_p99_ms") && number("masks") == 4.0, "{video}");
    assert!(
        (0.0..1.0).contains(&number("dropped_share")) && stderr.contains("frames per second, sustained"),
        "{stderr}"
    );
}
