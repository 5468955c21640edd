//! `calibrate`: a threshold and its guarantee, from a table of losses and from photos.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{golden, rtformer, run, text};

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

/// A folder with three frames of a street.
fn photos(folder: &Path) -> PathBuf {
    let street = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/street");
    let photos = folder.join("photos");
    fs::create_dir_all(&photos).unwrap();
    for name in ["0016E5_07959.jpg", "0016E5_08007.jpg", "0016E5_08055.jpg"] {
        fs::copy(street.join(name), photos.join(name)).unwrap();
    }
    photos
}

/// The JSON of a command that must succeed, and what it wrote to standard error.
fn json(args: &[&str]) -> (serde_json::Value, String) {
    let (code, out, err) = run(&mut rtformer(args));
    assert_eq!(code, 0, "{args:?}: {err}");
    (serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}")), err)
}

#[test]
fn photos_are_calibrated_and_the_rule_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path());
    let (photos, out) = (text(&photos), folder.path().join("calibrated.safetensors"));
    let table = folder.path().join("losses.csv");
    let calibrate =
        ["calibrate", "--images", photos, "--epsilon", "0.9", "--delta", "0.2", "--bound", "hb", "-o", text(&out)];
    let (report, err) = json(&[&calibrate[..], &["--json", "--write-losses", text(&table)]].concat());
    assert!(err.contains("suggest frames of the same clips"), "{err}");
    assert_eq!((&report["n"], &report["groups"], &report["bound"]), (&3.into(), &3.into(), &"hb".into()));
    let columns = report["columns"].as_array().unwrap();
    for list in ["p_values", "empirical_risk", "compute_share", "certified", "needed", "smallest_epsilon"] {
        assert_eq!(report[list].as_array().unwrap().len(), columns.len(), "{list}");
    }
    // Fewer tiles are computed at smaller thresholds, and fewer multiplications at smaller sizes. (One tile less may merge worse.)
    let shares: Vec<f64> = report["compute_share"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect();
    let sizes = columns.iter().position(|name| name.as_str().unwrap().starts_with("size")).unwrap();
    for family in [&shares[..sizes], &shares[sizes..]] {
        let falls = family.windows(2).all(|pair| pair[0] > pair[1] - 0.03);
        assert!(falls && family[0] > family[family.len() - 1], "{family:?}");
    }
    let rows = fs::read_to_string(&table).unwrap();
    assert_eq!(rows.lines().count(), 4);
    assert!(rows.starts_with("tiles:0.95,") && rows.lines().next().unwrap().ends_with("size:0.5"));
    // The same statistics on the table give the same p-values.
    let half = ["calibrate", "--losses", text(&table), "--epsilon", "0.9", "--delta", "0.1", "--json"];
    assert_eq!(json(&half).0["p_values"], report["p_values"]);

    // An existing file is not replaced, unless asked for.
    let (code, _, err) = run(&mut rtformer(&calibrate));
    assert!(code == 2 && err.contains("exists already"), "{err}");
    let again = [&calibrate[..], &["--overwrite", "--group-by", "folder"]].concat();
    let (code, shown, err) = run(&mut rtformer(&again));
    assert!(code == 0 && shown.contains("3 photos, 1 unit") && !err.contains("clips"), "{shown}{err}");

    let photo = folder.path().join("photos/0016E5_07959.jpg");
    let (line, _) = json(&["segment", text(&photo), "--weights", text(&out), "--adaptive", "0.9", "--json"]);
    assert!(line["compute_share"].as_f64().is_some_and(|share| share > 0.2 && share < 1.05), "{line}");
    let (code, _, err) =
        run(&mut rtformer(&["segment", text(&photo), "--weights", text(&out), "--adaptive", "0.5", "--json"]));
    assert!(code == 1 && err.contains("calibrated for a risk of at most 0.9, not 0.5"), "{err}");

    // `info` shows what is stored: the last one that was written.
    let (info, _) = json(&["info", "--json", text(&out)]);
    let stored = &info["adaptive"];
    let fixed =
        ["epsilon", "delta", "bound", "n", "groups", "risk", "size", "precision", "pad_multiple", "own_tensors"];
    assert_eq!(
        fixed.map(|key| stored[key].to_string()),
        ["0.9", "0.2", "\"hb\"", "3", "1", "\"consistency\"", "\"native\"", "\"f32\"", "32", "true"],
        "{stored}"
    );
    let chosen = shown.lines().find_map(|line| line.strip_prefix("chosen: ")).unwrap();
    let policy = if chosen == "the full network" { "full" } else { chosen };
    assert_eq!(stored["policy"], policy);
    let (_, shown, _) = run(&mut rtformer(&["info", text(&out)]));
    let words = ["for a risk (consistency) of at most 0.9, delta 0.2", "hb on 3 photos in 1 unit"];
    assert!(words.iter().all(|words| shown.contains(words)), "{shown}");
    let (info, _) = json(&["info", "--json", "embedded"]);
    assert!(info["adaptive"].is_null() && info.as_object().unwrap().contains_key("adaptive"), "{info}");
}

#[test]
fn a_file_that_cannot_be_written_costs_only_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path());
    let (photo, out) = (photos.join("0016E5_07959.jpg"), folder.path().join("calibrated.safetensors"));
    // A photo is no folder.
    let below = [photo.join("losses.csv"), photo.join("calibrated.safetensors")];
    for (table, weights) in [(&below[0], &out), (&folder.path().join("losses.csv"), &below[1])] {
        let (tiny, files) = (golden("tiny.safetensors"), [text(table), text(weights)]);
        let args = ["calibrate", "--images", text(&photos), "--epsilon", "0.9", "--weights", text(&tiny)];
        let (code, shown, err) =
            run(&mut rtformer(&[&args[..], &["--write-losses", files[0], "-o", files[1]]].concat()));
        assert!(code == 1 && err.contains("cannot be written") && shown.contains("chosen: "), "{shown}{err}");
        assert!(table.exists() != weights.exists(), "the other file is written");
    }
}

#[test]
fn without_a_saving_the_full_network_runs() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path());
    let (photos, out) = (text(&photos), folder.path().join("calibrated.safetensors"));
    let (report, _) = json(&["calibrate", "--images", photos, "--epsilon", "0.001", "-o", text(&out), "--json"]);
    assert_eq!((&report["chosen"], &report["saving"]), (&serde_json::Value::Null, &false.into()));
    assert!(report["message"].as_str().unwrap().starts_with("no saving found"), "{report}");

    let photo = folder.path().join("photos/0016E5_07959.jpg");
    let segment = |weights: &str, more: &[&str]| {
        json(&[&["segment", text(&photo), "--weights", weights, "--json"][..], more].concat()).0
    };
    let (full, never) = (segment("embedded", &[]), segment(text(&out), &["--adaptive", "0.001"]));
    assert_eq!(full["digest"], never["digest"]);
    assert_eq!((&full["compute_share"], &never["compute_share"]), (&1.0.into(), &1.0.into()));

    // The frame is measured with the rule.
    let bench = [
        "bench",
        "--weights",
        text(&out),
        "--photo",
        text(&photo),
        "--adaptive",
        "0.001",
        "--runs",
        "1",
        "--warmup",
        "0",
    ];
    let (report, _) = json(&[&bench[..], &["--stages", "frame,mask", "--json", "-"]].concat());
    assert_eq!((&report["adaptive"]["policy"], &report["adaptive"]["compute_share"]), (&"full".into(), &1.0.into()));
    assert_eq!(report["stages"].as_object().unwrap().keys().collect::<Vec<_>>(), ["frame"]);

    // Labels: masks of the full network, so its accuracy is 100 %.
    let labels = folder.path().join("labels");
    let (code, _, err) = run(&mut rtformer(&["segment", photos, "-o", text(&labels), "--emit", "mask"]));
    assert_eq!(code, 0, "{err}");
    let eval = [
        "eval",
        "--images",
        photos,
        "--labels",
        text(&labels),
        "--weights",
        text(&out),
        "--adaptive",
        "0.001",
        "--json",
    ];
    let (report, _) = json(&eval);
    assert_eq!((&report["miou"], &report["adaptive"]["risk"]), (&1.0.into(), &0.0.into()));
    let risk = [
        "--images",
        photos,
        "--labels",
        text(&labels),
        "--risk",
        "accuracy",
        "--epsilon",
        "0.001",
        "--overwrite",
        "--json",
    ];
    let (report, _) = json(&[&["calibrate"][..], &risk, &["-o", text(&out)]].concat());
    assert_eq!((&report["risk"], &report["saving"]), (&"accuracy".into(), &false.into()));
}

#[test]
fn unclear_requests_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path());
    let (photos, out) = (text(&photos), folder.path().join("calibrated.safetensors"));
    let cases: [(&[&str], &str); 8] = [
        (&["--epsilon", "0.1"], "--losses"),
        (&["--images", photos, "--epsilon", "0.1"], "--out"),
        (&["--images", photos, "--epsilon", "0.1", "-o", text(&out), "--risk", "accuracy"], "needs --labels"),
        (&["--images", photos, "--epsilon", "0.1", "-o", text(&out), "--labels", photos], "does not use labels"),
        (&["--images", photos, "--epsilon", "0.1", "-o", text(&out), "--group-by", "("], "regular expression"),
        (&["--images", photos, "--epsilon", "0.1", "-o", text(&out), "--group-by", "^ulm"], "does not match"),
        (&["--images", photos, "--epsilon", "1.5", "-o", text(&out)], "epsilon is 1.5"),
        (&["--images", photos, "--epsilon", "0.1", "-o", text(&out), "--merge", "way=road,sidewalk"], "own classes"),
    ];
    for (args, wanted) in cases {
        let (code, _, err) = run(&mut rtformer(&[&["calibrate"][..], args].concat()));
        assert!(code == 2 && err.contains(wanted), "{args:?}: {code}: {err}");
    }
    assert!(!out.exists());
}
