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

/// Width, parameters and FLOPs of a crop of 256x192, as `weights/train/sweep.py` counts them.
const NETWORKS: [(u32, f64, f64); 5] = [
    (8, 341_134.0, 391_790_592.0),
    (12, 764_026.0, 835_909_632.0),
    (16, 1_355_142.0, 1_445_511_168.0),
    (24, 3_042_046.0, 3_161_161_728.0),
    (32, 5_401_846.0, 5_538_742_272.0),
];

fn loss(params: f64, crops: f64) -> f64 {
    0.25 + 3e3 / params.powf(0.7) + 40.0 / crops.powf(0.5)
}

/// Runs of these networks as `sweep.py` writes them, which follow a law with repetitions worth as much as new photos.
fn study() -> String {
    let mut csv = "width,params,crops,epochs,unique,flops,seed,lr,cross_entropy,miou,seconds\n".to_owned();
    for budget in [1e13, 2e13, 4e13, 8e13] {
        for (width, params, per_crop) in NETWORKS {
            let crops = 12.0 * (budget / per_crop / 12.0).round();
            let (epochs, flops, loss) = (crops / 367.0, crops * per_crop, loss(params, crops));
            let _ = writeln!(csv, "{width},{params},{crops},{epochs:.2},367,{flops},1,0.0015,{loss},0.5,100");
        }
    }
    csv
}

#[test]
fn plan_recommends_what_to_train() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.csv");
    fs::write(&path, study()).unwrap();
    let args = ["plan", "--train", "--sweep", text(&path)];
    let json = |more: &[&str]| -> serde_json::Value {
        let (code, out, err) = run(&mut rtformer(&[&args[..], more, &["--json"]].concat()));
        assert_eq!((code, err.as_str()), (0, ""), "{more:?}");
        serde_json::from_str(&out).unwrap()
    };
    let value = |json: &serde_json::Value, name: &str| json[name]["value"].as_f64().unwrap();

    let flops = json(&["--flops", "1.6e14"]);
    // The best of the widths whose cost is known, and its neighbours: the law is recovered nearly exactly.
    let crops = value(&flops, "crops");
    let want = loss(value(&flops, "params"), crops);
    assert!((value(&flops, "cross_entropy") / want - 1.0).abs() < 0.01, "{flops}");
    for (_, params, per_crop) in NETWORKS {
        assert!(want <= 1.001 * loss(params, 1.6e14 / per_crop), "{params} is better than {flops}");
    }
    assert!((value(&flops, "iterations") * 12.0 / crops - 1.0).abs() < 1e-9, "{flops}");
    assert!((value(&flops, "epochs") * 367.0 / crops - 1.0).abs() < 1e-9, "{flops}");
    assert!((flops["flops"].as_f64().unwrap() / 1.6e14 - 1.0).abs() < 1e-6 && flops["extrapolated"] == true, "{flops}");
    let [half, twice] = ["half", "twice"].map(|name| value(&flops[name], "cross_entropy"));
    assert!(half > want && want > twice, "{flops}");
    let command = flops["command"].as_str().unwrap();
    let trained = format!("--width {} --iterations {:.0} --batch 12 ", value(&flops, "width"), crops / 12.0);
    assert!(
        command.contains(&trained) && command.ends_with("--crops 256x192 256x192 256x192 --lr 0.0015"),
        "{command}"
    );

    // 4e10 FLOPs per second for an hour are 1.44e14.
    let (hours, same) = (json(&["--hours", "1", "--rate", "4e10"]), json(&["--flops", "1.44e14"]));
    assert_eq!(
        ["width", "crops", "cross_entropy"].map(|name| &hours[name]),
        ["width", "crops", "cross_entropy"].map(|name| &same[name])
    );
    assert_eq!((&hours["budget"]["hours"], &hours["rates"][0]["flops_per_second"]), (&1.0.into(), &4e10.into()));
    assert_eq!(
        (&same["crop"], &same["batch"], &same["speed"]),
        (&"256x192".into(), &12.into(), &serde_json::Value::Null)
    );
    let batched = json(&["--flops", "1.44e14", "--batch", "24", "--frames", "100"]);
    assert!((value(&batched, "iterations") * 2.0 / value(&same, "iterations") - 1.0).abs() < 1e-9);
    assert!((value(&batched, "epochs") * 100.0 / value(&batched, "crops") - 1.0).abs() < 1e-9);

    let (code, out, _) = run(&mut rtformer(&[&args[..], &["--flops", "4e13", "--frames", "100"]].concat()));
    assert!(code == 0 && out.contains("twice") && out.contains("does not say what repeated photos are worth"), "{out}");
}

/// The table of this version: `weights/train/sweep.csv`.
#[test]
fn plan_knows_runs_of_its_own() {
    let args = ["plan", "--train", "--flops", "4e13"];
    let (code, out, err) = run(&mut rtformer(&[&args[..], &["--json"]].concat()));
    assert_eq!((code, err.as_str()), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(json["sweep"].is_null() && json["photos"] == 367.0, "{out}");
    let [width, low, high] = ["value", "low", "high"].map(|part| json["width"][part].as_f64().unwrap());
    assert!(low <= width && width <= high && (4.0..=48.0).contains(&width), "{out}");
    let command = json["command"].as_str().unwrap();
    assert!(
        command.contains(" --data CAMVID --also-val --fold 0006R0 ") && command.ends_with(" --lr 0.003"),
        "{command}"
    );
    let (code, out, _) = run(&mut rtformer(&args));
    assert!(code == 0 && out.contains("predicted from trainings on CamVid"), "{out}");
}

#[test]
fn plan_trains_as_the_runs_of_the_table_were_trained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.csv");
    let add = |crop: &str| -> String {
        let line = |(i, line): (usize, &str)| {
            if i == 0 { format!("{line},crop,batch\n") } else { format!("{line},{crop},8\n") }
        };
        study().lines().enumerate().map(line).collect()
    };
    fs::write(&path, add("320x240")).unwrap();
    let args = ["plan", "--train", "--flops", "4e13", "--sweep", text(&path)];
    let (code, out, err) = run(&mut rtformer(&[&args[..], &["--json"]].concat()));
    assert_eq!(code, 0, "{err}");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["crop"], &json["batch"]), (&"320x240".into(), &8.into()));
    let command = json["command"].as_str().unwrap();
    assert!(command.contains("--batch 8 --crops 320x240 320x240 320x240"), "{command}");
    let [crops, iterations] = ["crops", "iterations"].map(|name| json[name]["value"].as_f64().unwrap());
    assert!((iterations * 8.0 / crops - 1.0).abs() < 1e-9, "{out}");
    let (code, _, err) = run(&mut rtformer(&[&args[..], &["--batch", "12"]].concat()));
    assert!(code == 2 && err.contains("sweep.csv: --batch is 12, but the table's runs have 8"), "{err}");
}

/// The largest width that is fast enough depends on the machine; what follows from it does not.
#[test]
fn plan_recommends_only_networks_that_are_fast_enough() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.csv");
    fs::write(&path, study()).unwrap();
    let args = [
        "plan",
        "--train",
        "--flops",
        "1.6e14",
        "--sweep",
        text(&path),
        "--json",
        "--device",
        "cpu",
        "--size",
        "64x48",
    ];
    let json = |more: &[&str]| -> serde_json::Value {
        let (code, out, err) = run(&mut rtformer(&[&args[..], more].concat()));
        assert_eq!(code, 0, "{err}");
        serde_json::from_str(&out).unwrap()
    };
    // Any network has a minute for a frame.
    let (slow, free) = (json(&["--fps", "0.016"]), json(&["--fps", "1e-4"]));
    assert_eq!((&slow["width"], &slow["cross_entropy"]), (&free["width"], &free["cross_entropy"]));
    assert_eq!(slow["speed"]["size"], "64x48");

    // What half of the time of the narrowest measured networks leaves.
    let times = slow["widths"].as_array().unwrap();
    assert!(times.len() > 2 && times.iter().all(|row| row["cross_entropy"]["low"].is_number()), "{slow}");
    let [(narrow, _), (wide, fps)] =
        [&times[0], &times[times.len() - 1]].map(|row| (row["width"].as_f64().unwrap(), row["fps"].as_f64().unwrap()));
    assert!(narrow < wide);
    let fast = json(&["--fps", &format!("{}", 3.0 * fps)]);
    let widest = fast["speed"]["widest"].as_f64().unwrap();
    let width = fast["width"]["value"].as_f64().unwrap();
    assert!(widest < wide && width <= widest && fast["width"]["high"].as_f64().unwrap() <= widest, "{fast}");
    for row in fast["widths"].as_array().unwrap() {
        let reaches = row["fps"].as_f64().unwrap() >= 3.0 * fps;
        assert_eq!(reaches, row["width"].as_f64().unwrap() <= widest, "{fast}");
    }
    assert!(fast["cross_entropy"]["value"].as_f64() >= slow["cross_entropy"]["value"].as_f64());

    let (code, out, err) = run(&mut rtformer(&[&args[..], &["--fps", "1e9"]].concat()));
    assert!(code == 2 && out.is_empty() && err.contains("not even width 4 reaches it at 64x48"), "{err}");
}

/// A script that prints what it was called with and what `sweep.py --measure` would print.
#[cfg(unix)]
#[test]
fn plan_measures_the_training_rate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.csv");
    fs::write(&path, study()).unwrap();
    let recipe = folder.path().join("recipe");
    fs::create_dir(&recipe).unwrap();
    let args = [
        "plan",
        "--train",
        "--sweep",
        text(&path),
        "--hours",
        "2",
        "--json",
        "--recipe",
        text(&recipe),
        "--python",
        "sh",
    ];
    let (code, out, err) = run(&mut rtformer(&args));
    assert!(code == 2 && out.is_empty() && err.contains("sweep.py: no such file") && err.contains("--rate"), "{err}");

    let script = r#"echo "$@" > "$0.args"; for width in 8 16 32; do echo "{\"width\": $width, \"flops_per_second\": ${width}e9}"; done"#;
    fs::write(recipe.join("sweep.py"), script).unwrap();
    let (code, out, err) = run(&mut rtformer(&args));
    assert!(code == 0 && err.contains("measuring the training rate"), "{code} {err}");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["rates"].as_array().unwrap().len(), 3);
    // The rate of the recommended width, for two hours.
    let width = json["width"]["value"].as_f64().unwrap().min(32.0);
    let want = 7200.0 * 1e9 * width;
    assert!((json["flops"].as_f64().unwrap() / want - 1.0).abs() < 1e-6, "{json}");
    let called = fs::read_to_string(recipe.join("sweep.py.args")).unwrap();
    assert_eq!(called.trim(), "--measure --crop 256x192 --batch 12 --widths 8 16 32");

    fs::write(recipe.join("sweep.py"), "echo \"No module named 'torch'\" >&2; exit 1").unwrap();
    let (code, out, err) = run(&mut rtformer(&args));
    assert!(code == 2 && out.is_empty() && err.contains("failed: No module named 'torch'"), "{err}");
}

#[test]
fn plan_says_what_a_recommendation_needs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.csv");
    let narrow = study()
        .lines()
        .filter(|line| !line.starts_with("16,") && !line.starts_with("24,") && !line.starts_with("32,"))
        .collect::<Vec<_>>()
        .join("\n");
    let cases = [
        (study(), &["--train"][..], 2, "use --flops C or --hours H"),
        (study(), &["--train", "--sweep", "FILE"], 2, "use --flops C or --hours H"),
        (study(), &["--train", "--sweep", "FILE", "--hours", "0"], 2, "expected a positive number of hours"),
        (study(), &["--train", "--sweep", "FILE", "--flops", "1e14", "--hours", "1"], 2, "cannot be used with"),
        (study(), &["--train", "--fit", "FILE", "--flops", "1e14"], 2, "cannot be used with"),
        (study(), &["--flops", "1e14"], 2, "--fit"),
        (study(), &["--fit", "FILE", "--hours", "3"], 2, "--hours needs --train"),
        (study(), &["--fit", "FILE", "--sweep", "none.csv"], 2, "--sweep needs --train"),
        (study(), &["--train", "--sweep", "FILE", "--flops", "1e14", "--rate", "4e10"], 2, "use it with --hours"),
        (
            study(),
            &["--train", "--sweep", "FILE", "--flops", "1e14", "--crop", "250x192"],
            2,
            "multiples of 32 from 64",
        ),
        (study(), &["--train", "--sweep", "FILE", "--flops", "1e14", "--batch", "5"], 2, "expected an even number"),
        (study(), &["--train", "--flops", "1e14", "--crop", "512x384"], 2, "but the table's runs have 256x192"),
        (study(), &["--train", "--sweep", "FILE", "--flops", "1e9"], 2, "expected at least 20; raise the budget"),
        (study(), &["--train", "--sweep", "FILE", "--flops", "1e31"], 2, "expected a positive number of FLOPs"),
        (
            sweep().replace("width", "w"),
            &["--train", "--sweep", "FILE", "--flops", "1e14"],
            1,
            "column width is missing",
        ),
        (narrow, &["--train", "--sweep", "FILE", "--flops", "1e14"], 1, "found 2 of at least 3 widths"),
    ];
    for (table, args, want_code, want) in cases {
        fs::write(&path, table).unwrap();
        let args: Vec<_> = args.iter().map(|arg| if *arg == "FILE" { text(&path) } else { arg }).collect();
        let (code, out, err) = run(&mut rtformer(&[&["plan"], &args[..]].concat()));
        assert!(code == want_code && out.is_empty() && err.contains(want), "{want}: {code} {err}");
    }
}

#[test]
fn plan_draws_the_study_and_cross_checks_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.csv");
    fs::write(&path, study()).unwrap();
    let plots = folder.path().join("plots");
    let args = ["plan", "--fit", text(&path), "--plot", text(&plots), "--json"];
    let (code, out, err) = run(&mut rtformer(&args));
    assert_eq!(code, 0, "{err}");
    for name in ["isoflop.png", "frontier.png", "loss.png"] {
        let picture = image::open(plots.join(name)).unwrap().to_rgb8();
        let coloured = picture
            .pixels()
            .filter(|pixel| pixel.0.iter().max().unwrap() - pixel.0.iter().min().unwrap() > 100)
            .count();
        assert!(picture.dimensions() == (960, 640) && coloured > 500, "{name}: {coloured}");
    }
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(
        json["isoflop"]["params_exponent"]["value"].is_number()
            && json["isoflop"]["optimum"].as_array().is_some_and(|all| !all.is_empty()),
        "{out}"
    );
    assert!(json["envelope"]["params_exponent"]["low"].is_number(), "{out}");
    let (code, _, err) = run(&mut rtformer(&args));
    assert!(code == 2 && err.contains("isoflop.png: exists already; use --overwrite"), "{err}");
    assert_eq!(run(&mut rtformer(&[&args[..], &["--overwrite"]].concat())).0, 0);

    // Sizes that differ between the budgets have no envelope; the law can be fitted all the same.
    let other: String = sweep()
        .lines()
        .enumerate()
        .map(
            |(i, line)| {
                if i == 0 { format!("{line}\n") } else { line.replacen("0000,", &format!("000{i},"), 1) + "\n" }
            },
        )
        .collect();
    fs::write(&path, other).unwrap();
    let (code, out, err) = run(&mut rtformer(&["plan", "--fit", text(&path)]));
    assert!(code == 0 && out.contains("found 0 of at least 2 sizes with runs at several budgets"), "{out} {err}");
}
