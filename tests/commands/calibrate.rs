//! `calibrate --losses`: a threshold and its guarantee.

use std::fmt::Write as _;
use std::fs;

use crate::{rtformer, run, text};

/// 200 units: no loss at `never`, one loss of 1 at `0.9`, ten at `0.8`, and none at `0.7`, which comes after a failure.
fn table() -> String {
    let mut table = "never,0.9,0.8,0.7\n".to_owned();
    for unit in 0..200 {
        let _ = writeln!(table, "0,{},{},0", u8::from(unit == 7), u8::from(unit % 20 == 7));
    }
    table
}

#[test]
fn the_last_certified_threshold_is_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("losses.csv");
    fs::write(&path, table()).unwrap();
    let cases = [
        ("hb", "0.05", "0.9".into()),
        ("wsr", "0.05", "0.9".into()),
        ("crc", "0.056", "0.7".into()),          // (10 + 1) / 201 = 0.0547
        ("hb", "0.01", serde_json::Value::Null), // 0.99^200 = 0.13
    ];
    for (bound, epsilon, chosen) in cases {
        let args = ["calibrate", "--losses", text(&path), "--epsilon", epsilon, "--delta", "0.05", "--bound", bound];
        let (code, out, err) = run(rtformer(&args).arg("--json"));
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &report["chosen"], &report["bound"]), (0, &chosen, &bound.into()), "{out}");
        assert_eq!(err.contains("some losses fall"), bound == "crc", "{err}"); // from 0.8 to 0.7
        let p_values = report["p_values"].as_array().unwrap();
        assert_eq!((p_values.len(), &report["n"]), (4, &200.into()), "{out}");
        assert!(p_values.iter().all(|p| p.is_f64() == (bound != "crc")), "{out}");
        assert_eq!(report["empirical_risk"], serde_json::json!([0.0, 0.005, 0.05, 0.0]), "{out}");
    }

    let (code, out, _) = run(&mut rtformer(&["calibrate", "--losses", text(&path), "--epsilon", "0.01"]));
    assert_eq!(code, 0);
    let wanted = ["chosen: none", "needs about 299 units", "not tested"];
    assert!(wanted.iter().all(|words| out.contains(words)), "{out}");
}

#[test]
fn a_faulty_table_or_limit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("losses.csv");
    fs::write(&path, "never,0.9\n0,0.1\n0,1.5\n").unwrap();
    let cases = [
        ("0.05", 1, vec!["losses.csv: line 3, column `0.9`", "`1.5`"]), // the file's fault
        ("-0.05", 2, vec!["epsilon is -0.05", "from 0 to 1"]),          // the command's
    ];
    for (epsilon, expected, wanted) in cases {
        let (code, out, err) = run(&mut rtformer(&["calibrate", "--losses", text(&path), "--epsilon", epsilon]));
        assert_eq!((code, out.as_str()), (expected, ""), "{err}");
        assert!(wanted.iter().all(|words| err.contains(words)), "{err}");
    }
}
