//! `rtformer plan --images`: the ways to run a network.

use std::fs;
use std::path::{Path, PathBuf};

use image::GrayImage;
use rtformer::pixels::Image;
use rtformer::weights::Weights;
use rtformer::{Calibrated, Device, Segmenter};
use serde_json::Value;

use super::{golden, rtformer, run, text};

/// Photos of the tiny network, and labels: its masks, with every fifth column changed.
fn data(folder: &Path) -> (PathBuf, PathBuf) {
    let (images, labels) = (folder.join("images"), folder.join("labels"));
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&labels).unwrap();
    let segmenter = Segmenter::open(golden("tiny.safetensors"), Device::Cpu).unwrap();
    let photo = Image::open(golden("photo.png")).unwrap().into_rgb();
    for number in 0..3 {
        let part = image::imageops::crop_imm(&photo, 9 * number, 5 * number, 64, 48).to_image();
        part.save(images.join(format!("{number}.png"))).unwrap();
        let mask = segmenter.segment(&part).unwrap().mask().to_image().into_luma8();
        let label = GrayImage::from_fn(64, 48, |x, y| {
            let id = mask.get_pixel(x, y).0[0];
            image::Luma([if x % 5 == 0 { (id + 1) % 5 } else { id }])
        });
        label.save(labels.join(format!("{number}.png"))).unwrap();
    }
    (images, labels)
}

fn json(args: &[&str]) -> Value {
    let (code, out, err) = run(&mut rtformer(args));
    assert_eq!(code, 0, "{args:?}: {err}");
    serde_json::from_str(&out).unwrap()
}

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {value}"))
}

#[test]
fn plan_measures_time_and_quality_of_every_combination() {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = data(folder.path());
    let tiny = golden("tiny.safetensors");
    let copy = folder.path().join("my copy.safetensors");
    fs::copy(&tiny, &copy).unwrap();
    let weights = format!("{},{}", text(&tiny), text(&copy));
    let sizes = "native,within:48x36,32x32";
    let plots = folder.path().join("plots");
    let args = ["plan", "--images", text(&images), "--labels", text(&labels), "--size", sizes, "--runs", "3"];
    let args =
        [&args[..], &["--weights", &weights, "--precision", "f32", "--device", "cpu", "--threads", "1", "--json"]]
            .concat();
    let answer = json(&[&args[..], &["--plot", text(&plots), "--miou", "0.1"]].concat());
    let points = answer["points"].as_array().unwrap();
    assert_eq!((points.len(), &answer["quality"]), (6, &"miou".into()), "{answer}");
    assert_eq!((&answer["width"], &answer["height"], &answer["failed"]), (&64.into(), &48.into(), &0.into()));

    for (point, (file, size)) in
        points.iter().zip([&tiny, &copy].into_iter().flat_map(|file| sizes.split(',').map(move |size| (file, size))))
    {
        assert_eq!(
            (&point["weights"], &point["size"], &point["precision"]),
            (&text(file).into(), &size.into(), &"f32".into())
        );
        // The quality is that of `eval`.
        let eval =
            ["eval", "--images", text(&images), "--labels", text(&labels), "--weights", text(file), "--size", size];
        let eval = json(&[&eval[..], &["--device", "cpu", "--json"]].concat());
        assert_eq!(
            (number(point, "miou"), number(point, "pixel_accuracy")),
            (number(&eval, "miou"), number(&eval, "pixel_accuracy"))
        );
        assert_eq!((&point["images"], &point["runs"], &point["consistency"]), (&3.into(), &3.into(), &Value::Null));
        assert!(number(point, "min_ms") > 0.0 && number(point, "min_ms") <= number(point, "latency_ms"), "{point}");
        assert!((number(point, "fps") * number(point, "latency_ms") - 1e3).abs() < 1.0, "{point}");
        // By definition: no other point is at least as fast and at least as good, and better in one of both.
        let beats = |other: &&Value| {
            let (faster, better) = (
                number(other, "latency_ms") - number(point, "latency_ms"),
                number(other, "miou") - number(point, "miou"),
            );
            faster <= 0.0 && better >= 0.0 && (faster < 0.0 || better > 0.0)
        };
        assert_eq!(point["optimal"], !points.iter().any(|other| beats(&other)), "{point} of {answer}");
    }
    // Four of five columns have the network's own class.
    assert!((number(&points[0], "pixel_accuracy") - 51.0 / 64.0).abs() < 1e-9, "{}", points[0]);

    let chosen = &answer["chosen"];
    let fastest = points.iter().filter(|point| number(point, "miou") >= 0.1).map(|point| number(point, "latency_ms"));
    assert_eq!(number(chosen, "latency_ms"), fastest.fold(f64::MAX, f64::min), "{answer}");
    assert_eq!(answer["goal"]["miou"], 0.1);
    // The command that the answer names measures the same network again.
    let bench = chosen["bench"].as_str().unwrap();
    assert!(bench.starts_with("rtformer bench --photo "), "{bench}");
    let command: Vec<_> =
        bench.replace(&format!("'{}'", text(&copy)), "COPY").split(' ').skip(1).map(str::to_owned).collect();
    let command: Vec<_> = command.iter().map(|word| if word == "COPY" { text(&copy) } else { word }).collect();
    let again = folder.path().join("bench.json");
    let (code, _, err) = run(&mut rtformer(&[&command[..], &["--runs", "2", "--json", text(&again)]].concat()));
    assert_eq!(code, 0, "{err}");
    let bench: Value = serde_json::from_slice(&fs::read(&again).unwrap()).unwrap();
    let seen = chosen["size"].as_str().filter(|size| *size != "native");
    assert_eq!((bench["network_size"].as_str(), &bench["size"]), (seen, &serde_json::json!([64, 48])));
    assert!(number(&bench["stages"]["frame"], "median_ms") > 0.0);

    let picture = image::open(plots.join("front.png")).unwrap().to_rgb8();
    let coloured =
        picture.pixels().filter(|pixel| pixel.0.iter().max().unwrap() - pixel.0.iter().min().unwrap() > 100).count();
    assert!(picture.dimensions() == (960, 640) && coloured > 300, "{coloured}");
    let (code, _, err) = run(&mut rtformer(&[&args[..], &["--plot", text(&plots)]].concat()));
    assert!(code == 2 && err.contains("front.png: exists already; use --overwrite"), "{err}");
}

#[test]
fn plan_compares_masks_without_labels() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = data(folder.path());
    fs::write(images.join("broken.png"), "no picture").unwrap();
    let tiny = golden("tiny.safetensors");
    let args = [
        "plan",
        "--images",
        text(&images),
        "--weights",
        text(&tiny),
        "--size",
        "native,32x32",
        "--runs",
        "1",
        "--device",
        "cpu",
        "--precision",
        "f32",
    ];
    let (code, out, err) = run(&mut rtformer(&[&args[..], &["--json", "--fps", "1e-3"]].concat()));
    assert!(code == 1 && err.matches("broken.png").count() == 1, "one photo failed, and is named once: {err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&answer["failed"], &answer["quality"]), (&1.into(), &"consistency".into()));
    let [plain, small] = &answer["points"].as_array().unwrap()[..] else { panic!("{answer}") };

    // Independently: the pixels that are equal.
    let masks = [rtformer::Size::Native, "32x32".parse().unwrap()].map(|size| {
        let segmenter = Segmenter::builder().weights(&tiny).device(Device::Cpu).size(size).build().unwrap();
        let photos = (0..3).map(|number| Image::open(images.join(format!("{number}.png"))).unwrap());
        photos
            .flat_map(|photo| segmenter.segment(&photo).unwrap().mask().iter().collect::<Vec<_>>())
            .collect::<Vec<_>>()
    });
    let same = masks[0].iter().zip(&masks[1]).filter(|(a, b)| a == b).count() as f64 / masks[0].len() as f64;
    assert_eq!((number(plain, "consistency"), number(small, "consistency")), (1.0, same));
    assert!(same < 1.0 && small["miou"].is_null());
    // Any point is fast enough, so the most consistent one is chosen.
    assert_eq!(answer["chosen"]["size"], "native");

    let (code, out, err) = run(&mut rtformer(&[&args[..], &["--latency", "1e-6"]].concat()));
    assert!(code == 1 && err.contains("no point needs at most 0.000001 ms per frame; the fastest needs"), "{err}");
    assert!(out.contains("same %") && out.contains("no other point is both faster and better"), "{out}");
    let args: Vec<_> = args.iter().map(|arg| arg.strip_suffix(",32x32").unwrap_or(arg)).collect();
    let (_, out, _) = run(&mut rtformer(&args));
    assert!(out.contains("The front is flat: use the plain network"), "{out}");
}

/// The tiny network with the rule to see photos at this share of their size, for a risk of at most 0.1.
fn calibrated(path: &Path, scale: Option<f32>) {
    let weights = Weights::open(golden("tiny.safetensors")).unwrap();
    let rule = Calibrated {
        rungs: vec!["size".into()],
        confidence: Calibrated::CONFIDENCE.into(),
        tile: Calibrated::TILE,
        threshold: None,
        scale,
        risk: "consistency".into(),
        epsilon: 0.1,
        delta: 0.05,
        bound: "wsr".into(),
        n: 500,
        groups: 500,
        empirical_risk: 0.05,
        p_value: Some(0.01),
        compute_share: 0.3,
        time_share: 0.4,
        size: "native".into(),
        pad_multiple: 1,
        precision: "f32".into(),
        tensors: weights.tensors_digest(),
    };
    rule.save(&weights, path).unwrap();
}

#[test]
fn plan_compares_the_rules_of_calibrated_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = data(folder.path());
    let [half, none] = ["half.safetensors", "none.safetensors"].map(|name| folder.path().join(name));
    calibrated(&half, Some(0.5));
    calibrated(&none, None);
    let tiny = golden("tiny.safetensors");
    let weights = [&tiny, &half, &none].map(|path| text(path)).join(",");
    let plan = |weights: &str, more: &[&str]| {
        let args = ["plan", "--images", text(&images), "--weights", weights, "--precision", "f32", "--threads", "1"];
        let (code, out, err) = run(&mut rtformer(&[&args[..], &["--device", "cpu", "--runs", "3"], more].concat()));
        assert_eq!(code, 0, "{err}");
        (out, err)
    };
    let (out, err) =
        plan(&weights, &["--size", "32x24,native", "--epsilon", "0.05,0.1,0.2", "--json", "--fps", "1e-3"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    let points = answer["points"].as_array().unwrap();
    // Two sizes of three files, and the rule of one of them for the two risks that it was calibrated for.
    let epsilons: Vec<_> = points.iter().map(|point| point["epsilon"].as_f64()).collect();
    assert_eq!(epsilons, [&[None; 6][..], &[Some(0.1), Some(0.2)]].concat(), "{answer}");
    for point in &points[6..] {
        assert_eq!((&point["weights"], &point["size"]), (&text(&half).into(), &"native".into()));
        // On photos of 64x48, the rule is the size 32x24, which is also the first point.
        assert_eq!((number(&points[0], "consistency"), number(point, "consistency")), (1.0, 1.0), "{answer}");
        assert!(
            number(point, "latency_ms") > 0.0 && point["bench"].as_str().unwrap().contains(" --adaptive 0."),
            "{point}"
        );
    }
    for (name, reason) in [
        (text(&tiny), "no points with --adaptive: it is not calibrated"),
        (text(&half), "it was calibrated for a risk of at most 0.1, not 0.05"),
        (text(&none), "no points with --adaptive: no saving was found"),
    ] {
        let said = err.lines().filter(|line| line.contains(name) && line.contains(reason)).count();
        assert_eq!(said, 1, "{name}: {reason}: {err}");
    }

    // The command for the point uses the rule.
    let bench = points[6]["bench"].as_str().unwrap().split(' ').skip(1).collect::<Vec<_>>();
    let report = folder.path().join("bench.json");
    let (code, _, err) = run(&mut rtformer(&[&bench[..], &["--runs", "1", "--json", text(&report)]].concat()));
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!((&report["adaptive"]["policy"], &report["adaptive"]["epsilon"]), (&"size:0.5".into(), &0.1.into()));

    let (out, _) = plan(text(&half), &["--size", "native", "--epsilon", "0.1"]);
    let column: Vec<_> = out.lines().filter_map(|line| line.split_whitespace().rev().nth(3)).collect();
    assert!(out.contains("precision  epsilon") && column.contains(&"0.1") && column.contains(&"-"), "{out}");
    let (out, err) = plan(text(&half), &["--size", "32x24", "--epsilon", "0.1"]);
    assert!(err.contains("its rule is for the size native and the precision f32; compare these as well"), "{err}");
    assert!(out.contains("The front is flat: use the plain network"), "{out}");
}

#[test]
fn plan_refuses_what_it_cannot_compare() {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = data(folder.path());
    let [images, labels] = [text(&images), text(&labels)];
    let (tiny, embedded) = (golden("tiny.safetensors"), "embedded");
    let other = format!("{},{embedded}", text(&tiny));
    let cases = [
        (&["--images", images, "--miou", "0.5"][..], 2, "--labels"),
        (&["--images", images, "--labels", labels, "--miou", "65"], 2, "such as 0.65 for 65 %"),
        (&["--images", images, "--fps", "30", "--latency", "30"], 2, "cannot be used with"),
        (&["--images", images, "--epsilon", "2"], 2, "`2` is not a risk from 0 to 1"),
        (&["--fit", "a.csv", "--epsilon", "0.1"], 2, "need --images"),
        (&["--train", "--flops", "1e14", "--latency", "30"], 2, "need --images"),
        (&["--images", images, "--fps", "0"], 2, "expected a positive number of frames per second"),
        (&["--images", images, "--train", "--flops", "1e14"], 2, "cannot be used with"),
        (&["--images", images, "--fit", "a.csv"], 2, "cannot be used with"),
        (&["--images", images, "--first-id", "1"], 2, "need --labels"),
        (&["--fit", "a.csv", "--threads", "1"], 2, "use them with --images"),
        (&["--train", "--flops", "1e14", "--size", "64x48"], 2, "use them with --images or with --train --fps"),
        (
            &["--images", images, "--weights", &other, "--size", "native", "--precision", "f32", "--runs", "1"],
            1,
            "its classes are not those of the first weights",
        ),
        (&["--images", images, "--weights", "none.safetensors"], 1, "none.safetensors: cannot be read"),
        (&["--images", images, "--weights", text(&tiny), "--precision", "f16", "--device", "cpu"], 2, "f16"),
        (&["--images", "nowhere"], 1, "nowhere: cannot be read"),
    ];
    for (args, want_code, want) in cases {
        let (code, out, err) = run(&mut rtformer(&[&["plan"], args].concat()));
        assert!(code == want_code && out.is_empty() && err.contains(want), "{args:?}: {code} {err}");
    }
}
