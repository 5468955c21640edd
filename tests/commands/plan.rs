//! `rtformer plan`.

use std::fmt::Write as _;
use std::fs;

use crate::{rtformer, run, text};

/// Twenty runs that follow `0.25 + 40 / N^0.45 + 60 / D^0.55` at 6000 FLOPs for each parameter and crop.
fn sweep() -> String {
    let mut csv = "width,params,crops,flops,cross_entropy\n".to_owned();
    for flops in [1e13, 2e13, 4e13, 8e13] {
        for params in [5e4, 1e5, 2e5, 4e5, 8e5] {
            let crops = flops / (6e3 * params);
            let loss = 0.25 + 40.0 / f64::powf(params, 0.45) + 60.0 / f64::powf(crops, 0.55);
            let _ = writeln!(csv, "8,{params},{crops},{flops:e},{loss}");
        }
    }
    csv
}

#[test]
fn plan_fits_a_law_and_predicts_the_best_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.csv");
    fs::write(&path, sweep()).unwrap();
    let args = ["plan", "--fit", text(&path), "--flops", "8e14"];

    let (code, out, err) = run(&mut rtformer(&[&args[..], &["--json"]].concat()));
    assert_eq!((code, err.as_str()), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    for (name, want) in [("E", 0.25), ("A", 40.0), ("alpha", 0.45), ("B", 60.0), ("beta", 0.55)] {
        for part in ["value", "low", "high"] {
            let got = json[name][part].as_f64().unwrap();
            assert!((got / want - 1.0).abs() < 0.01, "{name}.{part}: {got}, expected {want}");
        }
    }
    assert!(json["repeats"].is_null());
    let optima = json["optimum"].as_array().unwrap();
    let flops: Vec<_> = optima.iter().map(|optimum| optimum["flops"].as_f64().unwrap()).collect();
    assert_eq!(flops, [1e13, 2e13, 4e13, 8e13, 8e14]);
    let best = (0.45 * 40.0 / (0.55 * 60.0) * f64::powf(8e14 / 6e3, 0.55)).powf(1.0 / (0.45 + 0.55));
    let got = optima[4]["params"]["value"].as_f64().unwrap();
    assert!((got / best - 1.0).abs() < 0.01 && optima[4]["crops"]["high"].is_number(), "{got}, expected {best}");

    let (code, out, _) = run(&mut rtformer(&args));
    assert!(code == 0 && out.contains("alpha") && out.contains("8.00e14"), "{out}");
}

#[test]
fn plan_refuses_runs_that_do_not_determine_the_law() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.csv");
    let one_budget: Vec<_> = sweep().lines().take(6).map(ToOwned::to_owned).collect();
    let cases = [
        (
            one_budget.join("\n"),
            &[][..],
            1,
            "sweep.csv: the runs do not determine the fit: found 5 of at least 8 runs; found 1 of",
        ),
        (sweep().replace("1e13", "many"), &[], 1, "sweep.csv: line 2: `flops` is `many`, expected a positive number"),
        (sweep(), &["--flops", "0"], 2, "expected a positive number of FLOPs"),
    ];
    for (table, more, want_code, want) in cases {
        fs::write(&path, table).unwrap();
        let (code, out, err) = run(&mut rtformer(&[&["plan", "--fit", text(&path)], more].concat()));
        assert!(code == want_code && out.is_empty() && err.contains(want), "{want}: {code} {err}");
    }
}
