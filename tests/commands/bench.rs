//! `rtformer bench`.

use std::fs;

use serde_json::Value;

use super::{golden, rtformer, run, text};

#[test]
fn bench_writes_four_stages_and_their_conditions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures/bench.json");
    let args = ["bench", "--size", "64x48", "--runs", "2", "--warmup", "0", "--threads", "1", "--profile", "--json"];
    let (code, table, error) = run(rtformer(&args).arg(&file));
    assert_eq!(code, 0, "{error}");
    for word in ["RTFormer-Slim", "64x48 of noise", "commit", "median", "FPS", "paper", "frame", "conv1.0", "between"] {
        assert!(table.contains(word), "no `{word}` in {table}");
    }
    let report: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for stage in ["paper", "mask", "frame", "file"] {
        let figure = |key: &str| report["stages"][stage][key].as_f64().unwrap_or_else(|| panic!("{stage}: no {key}"));
        assert!(figure("min_ms") > 0.0 && figure("min_ms") <= figure("median_ms"), "{stage}");
        assert!(figure("median_ms") <= figure("p90_ms") && figure("p90_ms") <= figure("p99_ms"), "{stage}");
        assert!((figure("fps") * figure("median_ms") - 1000.0).abs() < 1.0, "{stage}");
        assert_eq!(report["stages"][stage]["runs"], 2);
    }
    assert_eq!(report["size"], serde_json::json!([64, 48]));
    assert_eq!((&report["variant"], &report["classes"], &report["threads"]), (&"slim".into(), &19.into(), &1.into()));
    assert_eq!((&report["runs"], &report["warmup"]), (&2.into(), &0.into()));
    for key in ["model", "instruction_set", "precision", "device", "commit", "version"] {
        assert!(report[key].as_str().is_some_and(|text| !text.is_empty()), "{key}");
    }
    for key in ["cpu", "cores", "caches", "os", "arch"] {
        assert!(!report["machine"][key].is_null(), "machine.{key}");
    }
}

#[test]
fn the_size_of_the_l2_cache_changes_block_sizes_but_no_mask() {
    let folder = tempfile::tempdir().unwrap();
    let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/street/0016E5_07959.jpg");
    let mut masks = Vec::new();
    for (l2, bytes) in [("64K", 64 << 10), ("512K", 512 << 10), ("64M", 64 << 20)] {
        let (_, json, _) = run(rtformer(&["info", "--json"]).env("RTFORMER_L2", l2));
        let info: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(info["caches"]["blocks_for_l2_bytes"], bytes, "{json}");
        let output = folder.path().join(l2);
        let args = ["segment", photo, "--device", "cpu", "--threads", "2", "-o"];
        let (code, _, error) = run(rtformer(&args).arg(&output).env("RTFORMER_L2", l2));
        assert_eq!(code, 0, "{error}");
        masks.push(fs::read(output.join("0016E5_07959.mask.png")).unwrap());
    }
    assert!(masks.iter().all(|mask| *mask == masks[0]), "block sizes change the mask");
    for wrong in ["", "0", "512", "1G", "half"] {
        let args = ["segment", photo, "--device", "cpu", "-o"];
        let (code, _, error) = run(rtformer(&args).arg(folder.path()).env("RTFORMER_L2", wrong));
        assert!(code != 0 && error.contains("RTFORMER_L2"), "{wrong}: {error}");
    }
}

#[test]
fn info_shows_the_threads_and_their_reason() {
    let (_, text, _) = run(&mut rtformer(&["info"]));
    assert!(text.contains("  threads  ") && text.contains("  caches  ") && text.contains(" L2 "), "{text}");
    let (_, json, _) = run(rtformer(&["info", "--json"]).env("RAYON_NUM_THREADS", "3"));
    let info: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(info["threads"], serde_json::json!({"number": 3, "reason": "RAYON_NUM_THREADS"}));
}

/// A process that may run on one CPU only starts one thread.
#[cfg(target_os = "linux")]
#[test]
fn the_affinity_mask_limits_the_threads() {
    let taskset = std::process::Command::new("taskset")
        .args(["-c", "0"])
        .arg(env!("CARGO_BIN_EXE_rtformer"))
        .args(["info", "--json"])
        .output();
    let Ok(output) = taskset.as_ref().map(|output| &output.stdout).map(|json| serde_json::from_slice::<Value>(json))
    else {
        eprintln!("SKIPPED: there is no taskset");
        return;
    };
    assert_eq!(output.unwrap()["threads"]["number"], 1);
}

#[test]
fn a_profile_accounts_for_the_whole_frame() {
    let tiny = golden("tiny.safetensors");
    let args = [
        "bench",
        "--size",
        "128x96",
        "--runs",
        "5",
        "--stages",
        "frame",
        "--profile",
        "--json",
        "-",
        "-q",
        "--weights",
    ];
    let (code, json, error) = run(rtformer(&args).arg(&tiny));
    assert_eq!((code, error.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&json).unwrap();
    let profile = &report["profile"];
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"));
    let lines = profile["lines"].as_array().unwrap();
    assert!(lines.len() > 50, "{} operations", lines.len());
    for want in ["prepare", "conv1.0", "seghead.conv2", "argmax"] {
        assert!(lines.iter().any(|line| line["name"] == want), "no {want}");
    }
    let (frame, between) = (number(&profile["frame_ms"]), number(&profile["between_ms"]));
    let sum: f64 = lines.iter().map(|line| number(&line["ms"])).sum();
    assert!((sum + between - frame).abs() < 1e-3, "{sum} and {between} between are not the frame's {frame} ms");
    assert!(between > -1e-3 && frame > 0.0, "{between} of {frame} ms between the operations");
    let shares: f64 = lines.iter().map(|line| number(&line["share"])).sum();
    assert!((shares - sum / frame).abs() < 0.01, "shares come to {shares}, {sum} of {frame} ms");
    assert!(number(&profile["peak_gflops"]) > 0.0 && number(&profile["gflops"]) > 0.0);
    let conv = lines.iter().find(|line| line["name"] == "conv1.0").unwrap();
    assert!(number(&conv["gflops"]) > 0.0 && number(&conv["peak_share"]) > 0.0);
    let stages: Vec<_> = report["stages"].as_object().unwrap().keys().collect();
    assert_eq!(stages, ["frame"], "only the requested stage");
}

#[test]
fn bench_measures_on_a_photo() {
    let (photo, tiny) = (golden("photo.png"), golden("tiny.safetensors"));
    let args = ["bench", "--runs", "1", "--warmup", "0", "--json", "-", "-q", "--weights"];
    let (code, json, error) = run(rtformer(&args).arg(&tiny).arg("--photo").arg(&photo));
    assert_eq!((code, error.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&report["photo"], &report["size"]), (&text(&photo).into(), &serde_json::json!([96, 64])));
}

#[test]
fn bench_of_a_weights_file_prints_only_json_on_request() {
    let tiny = golden("tiny.safetensors");
    let args = ["bench", "--size", "64x64", "--runs", "2", "--warmup", "1", "--json", "-", "-q", "--weights"];
    let (code, json, error) = run(rtformer(&args).arg(&tiny));
    assert_eq!((code, error.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["weights"], text(&tiny));
    assert_eq!(report["classes"], 5);
    assert!(report.get("variant").is_none() && report.get("profile").is_none());
}
