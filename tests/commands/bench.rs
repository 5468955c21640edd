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
    for key in ["cpu", "cores", "os", "arch"] {
        assert!(!report["machine"][key].is_null(), "machine.{key}");
    }
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
