//! `rtformer bench --compare`.

use std::fs;

use serde_json::Value;

use super::{golden, rtformer, run};

/// A report with these quartiles and medians of the stages, and these milliseconds of the operations.
fn report(stages: &[(&str, [f64; 3])], lines: &[(&str, f64)], changes: &[(&str, Value)]) -> Value {
    let figures = |[p25, median, p75]: [f64; 3]| {
        serde_json::json!({"median_ms": median, "p25_ms": p25, "p75_ms": p75, "p90_ms": p75, "p99_ms": p75, "min_ms": p25,
            "fps": 1000.0 / median, "runs": 9})
    };
    let stages: serde_json::Map<_, _> = stages.iter().map(|(name, of)| ((*name).to_owned(), figures(*of))).collect();
    let lines: Vec<_> = lines
        .iter()
        .map(|(name, ms)| serde_json::json!({"name": name, "ms": ms, "share": 0.1, "gflops": 0.0, "peak_share": null}))
        .collect();
    let mut report = serde_json::json!({
        "stages": stages, "model": "RTFormer-Slim", "variant": "slim", "size": [64, 48], "classes": 19,
        "machine": {"cpu": "a CPU", "cores": 2, "os": "linux", "arch": "x86_64"},
        "threads": 2, "instruction_set": "avx2", "precision": "f32", "device": "cpu", "commit": "0123456789ab",
        "version": "0.1.0", "runs": 9, "warmup": 1,
        "profile": {"frames": 5, "frame_ms": 10.0, "between_ms": 0.5, "gflops": 1.0, "peak_share": null,
            "peak_gflops": null, "lines": lines},
    });
    for (key, value) in changes {
        report[key] = value.clone();
    }
    report
}

#[test]
fn compare_tells_a_change_from_noise() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, report: &Value| {
        let path = folder.path().join(name);
        fs::write(&path, report.to_string()).unwrap();
        path
    };
    let small: Vec<_> = (0..20).map(|i| (format!("layer{i}"), 0.01 * f64::from(i))).collect();
    let mut lines: Vec<(&str, f64)> = small.iter().map(|(name, ms)| (name.as_str(), *ms)).collect();
    lines.extend([("relu", 1.0), ("conv", 4.0), ("relu", 1.0), ("gone", 2.0)]);
    let stages =
        [("paper", [9.0, 10.0, 11.0]), ("mask", [9.0, 10.0, 11.0]), ("frame", [19.0, 20.0, 21.0]), ("file", [30.0; 3])];
    let a = write("a.json", &report(&stages, &lines, &[]));
    let stages = [("paper", [10.0, 10.5, 12.0]), ("mask", [4.0, 5.0, 6.0]), ("frame", [29.0, 30.0, 31.0])];
    let b = write("b.json", &report(&stages, &[("conv", 2.0), ("relu", 2.5), ("new", 3.0)], &[]));

    let (code, out, error) = run(rtformer(&["bench", "--compare"]).arg(&a).arg(&b));
    assert_eq!((code, error.as_str()), (0, ""), "no warning expected");
    let row = |name: &str| {
        let line = out.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("no `{name}` in {out}"))
    };
    for (name, want) in [
        ("paper", "1.050  within the spread: half of A's runs took 9.00 to 11.00, of B's 10.00 to 12.00"),
        ("mask", "0.500  B is 2.00 times faster"),
        ("frame", "1.500  B is 1.50 times slower"),
    ] {
        assert!(row(name).ends_with(want), "{}", row(name));
    }
    assert!(!out.contains("file "), "the stage is only in A: {out}");
    let cells = |name: &str| row(name).split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(cells("relu"), ["2.000", "2.500", "+0.500", "1.250"], "both operations with this name share a line");
    assert_eq!(cells("conv"), ["4.000", "2.000", "-2.000", "0.500"]);
    assert_eq!(cells("new"), ["-", "3.000", "+3.000", "-"]);
    assert_eq!(cells("gone"), ["2.000", "-", "-2.000", "-"]);
    let order: Vec<_> =
        ["new", "conv", "gone", "relu", "layer19", "others"].map(|name| out.find(&format!("\n{name} "))).into();
    assert!(order.is_sorted() && order[0].is_some(), "{order:?} in {out}");
    // 12 of the 24 names are shown. The others, layer0 to layer11, share a line.
    assert_eq!(cells("others"), ["0.660", "0.000", "-0.660", "0.000"]);
    assert_eq!(cells("between"), ["0.500", "0.500", "+0.000", "1.000"]);
}

#[test]
fn compare_warns_of_different_settings() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let stages = [("mask", [9.0, 10.0, 11.0])];
    fs::write(path("a.json"), report(&stages, &[], &[]).to_string()).unwrap();
    let machine = serde_json::json!({"cpu": "another CPU", "cores": 2, "os": "linux", "arch": "x86_64"});
    let cases = [
        ("machine", machine, "machine: a CPU, 2 cores; linux x86_64, and another CPU, 2 cores; linux x86_64"),
        ("threads", 4.into(), "threads: 2, and 4"),
        ("size", serde_json::json!([48, 64]), "size: 64x48, and 48x64"),
        ("model", "RTFormer-Base".into(), "model: RTFormer-Slim, and RTFormer-Base"),
        ("weights", "mine".into(), "weights: random, and mine"),
        ("precision", "bf16".into(), "precision: f32, and bf16"),
        ("instruction_set", "avx512".into(), "instruction set: avx2, and avx512"),
        ("photo", "street.jpg".into(), "frame: noise, and street.jpg"),
    ];
    for (key, value, want) in cases {
        fs::write(path("b.json"), report(&stages, &[], &[(key, value)]).to_string()).unwrap();
        let (code, out, error) = run(rtformer(&["bench", "--compare"]).arg(path("a.json")).arg(path("b.json")));
        assert_eq!(code, 0, "{error}");
        assert!(
            error.starts_with("warning: A and B differ in ") && error.contains(want) && error.lines().count() == 1,
            "{key}: {error}"
        );
        assert!(out.contains("mask"), "the reports are compared despite the difference: {out}");
    }
}

#[test]
fn compare_reads_what_bench_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (file, tiny) = (folder.path().join("a.json"), golden("tiny.safetensors"));
    let args = ["bench", "--size", "32x32", "--runs", "1", "--warmup", "0", "--profile", "--weights"];
    let (code, _, error) = run(rtformer(&args).arg(&tiny).arg("--json").arg(&file));
    assert_eq!(code, 0, "{error}");
    let (code, out, error) = run(rtformer(&["bench", "--compare"]).arg(&file).arg(&file));
    assert_eq!((code, error.as_str()), (0, ""));
    for word in ["paper", "file", "within the spread", "others", "between"] {
        assert!(out.contains(word), "no `{word}` in {out}");
    }
}
