//! `rtformer explain` and `eval --by-rules`, with a small explainer that the tests make themselves.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use image::RgbImage;
use rtformer::eval::LabelImage;
use rtformer::explain::{Atoms, Explainer, Explanation, Kind, MOST_ATOMS, Table};
use rtformer::pixels::Image;
use rtformer::weights::Weights;
use rtformer::{Device, Error, Scene, Segmenter};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

/// The tiny network's classes and features.
const CLASSES: usize = 5;
const CHANNELS: usize = 16;
const SUPPORT: usize = 3;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn tiny() -> PathBuf {
    data("golden/tiny.safetensors")
}

/// Numbers in -1 .. 1 that look random.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Photos with their scenes, and the table of their regions.
struct Set {
    folder: tempfile::TempDir,
    photos: Vec<(String, RgbImage, Scene)>,
    table: Table,
    atoms: Atoms,
}

impl Set {
    fn new() -> Self {
        let segmenter = Segmenter::builder().weights(tiny()).device(Device::Cpu).features(true).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let picture = Image::open(data("golden/photo.png")).unwrap().into_rgb();
        let mut table = Table::new(segmenter.dataset().classes.iter().map(|class| class.name.clone()).collect());
        let mut photos = Vec::new();
        for (number, name) in (0..).zip(["a", "b", "sub/c"]) {
            let large =
                image::imageops::resize(&picture, 200 + 40 * number, 160, image::imageops::FilterType::Triangle);
            let path = folder.path().join(format!("photos/{name}.png"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            large.save(&path).unwrap();
            let scene = segmenter.segment(&large).unwrap();
            // Labels that often differ from the mask, and are missing at the top.
            let (width, height) = large.dimensions();
            let ids: Vec<u16> = (0..width * height)
                .map(|i| match (i % width / 40, i / width) {
                    (_, 0..=7) => 255,
                    (stripe, _) if stripe % 2 == 0 => scene.mask().get(i % width, i / width),
                    (stripe, _) => stripe as u16 % CLASSES as u16,
                })
                .collect();
            let path = folder.path().join(format!("labels/{name}.png"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::GrayImage::from_raw(width, height, ids.iter().map(|id| *id as u8).collect())
                .unwrap()
                .save(&path)
                .unwrap();
            let labels = LabelImage::new(&path, width, height, ids).unwrap();
            table.add(name, &large, &scene, Some(&labels)).unwrap();
            photos.push((name.to_owned(), large, scene));
        }
        let atoms = table.atoms(None).unwrap();
        Self { folder, photos, table, atoms }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The rows as maps from the columns' names.
    fn rows(&self) -> Vec<HashMap<String, String>> {
        let header = self.table.header(&self.atoms);
        self.table.rows(&self.atoms).map(|row| header.iter().cloned().zip(row).collect()).collect()
    }

    /// The rows that have a label: the training regions.
    fn training(&self) -> Vec<HashMap<String, String>> {
        self.rows().into_iter().filter(|row| !row["label"].is_empty()).collect()
    }

    /// Writes the tiny network with an explainer whose generator is noise. `change` edits the metadata and the tensors.
    fn explainer(&self, name: &str, change: impl Fn(&mut Value, &mut Vec<Stored>)) -> PathBuf {
        let training = self.training();
        let n = training.len();
        let names: Vec<_> = self.atoms.names().map(str::to_owned).collect();
        let derived = ["below_q1", "below_q2", "below_q3", "q1_to_q2", "q2_to_q3", "q1_to_q3"];
        let is_derived = |name: &str| {
            let features = Atoms::features().find(|feature| name.starts_with(&format!("{feature}_")));
            features.is_some() && derived.iter().any(|ending| name.ends_with(ending))
        };
        let mut bits = Vec::new();
        let stored: Vec<_> = names.iter().filter(|name| !is_derived(name)).collect();
        for name in &stored {
            let mut row = vec![0_u8; n.div_ceil(64) * 8];
            let holds = training.iter().enumerate().filter(|(_, region)| region[&format!("a_{name}")] == "1");
            holds.for_each(|(i, _)| row[i / 8] |= 1 << (i % 8));
            bits.extend(row);
        }
        let classes: Vec<_> = (0..CLASSES).map(|class| format!("class {class}")).collect();
        let labels = training.iter().map(|row| classes.iter().position(|class| *class == row["label"]).unwrap() as u8);
        let ids = training.iter().flat_map(|row| row["region"].parse::<u16>().unwrap().to_le_bytes());
        let count = |photo: &str| training.iter().filter(|row| row["photo"] == photo).count();
        let atoms = names.len();
        let floats = |name: &str, shape: &[usize], scale: f32| {
            let values = noise(shape.iter().product(), name.len() as u64 * 77 + shape[0] as u64);
            let bytes = values.iter().flat_map(|v| (v * scale).to_le_bytes()).collect();
            (format!("explainer.{name}"), Dtype::F32, shape.to_vec(), bytes)
        };
        let mut tensors: Vec<Stored> = vec![
            floats("mean", &[CHANNELS], 0.1),
            (
                "explainer.std".into(),
                Dtype::F32,
                vec![CHANNELS],
                [1.0_f32; CHANNELS].iter().flat_map(|v| v.to_le_bytes()).collect(),
            ),
            floats("encoder.weight", &[128, CHANNELS], 0.5),
            floats("encoder.bias", &[128], 0.5),
            floats("gru.weight_ih", &[384, 128], 0.2),
            floats("gru.weight_hh", &[384, 128], 0.2),
            floats("gru.bias_ih", &[384], 0.1),
            floats("gru.bias_hh", &[384], 0.1),
            floats("head.weight", &[atoms + 1, 128], 0.5),
            floats("head.bias", &[atoms + 1], 0.1),
            floats("embedding.weight", &[atoms, 128], 0.5),
            ("explainer.bits".into(), Dtype::U8, vec![stored.len(), n.div_ceil(64) * 8], bits),
            ("explainer.labels".into(), Dtype::U8, vec![n], labels.collect()),
            ("explainer.region_ids".into(), Dtype::U8, vec![n, 2], ids.collect()),
        ];
        let weights = Weights::open(tiny()).unwrap();
        let mut description = json!({
            "format": 1,
            "digest": weights.tensors_digest(),
            "regions": n,
            "minimum_support": SUPPORT,
            "channels": CHANNELS,
            "classes": classes,
            "thresholds": Atoms::features().zip(self.atoms.thresholds()).collect::<Vec<_>>(),
            "atoms": names,
            "photos": self.photos.iter().map(|(name, ..)| (name, count(name))).collect::<Vec<_>>(),
        });
        change(&mut description, &mut tensors);

        let file = fs::read(tiny()).unwrap();
        let network = SafeTensors::deserialize(&file).unwrap();
        let mut views: Vec<(String, TensorView<'_>)> = network.tensors();
        for (name, dtype, shape, bytes) in &tensors {
            views.push((name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        }
        let (_, header) = SafeTensors::read_metadata(&file).unwrap();
        let mut metadata = header.metadata().clone().unwrap();
        metadata.insert("explainer".into(), description.to_string());
        let path = self.path(name);
        fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
        path
    }

    fn explained(&self) -> (Explainer, Vec<Explanation>) {
        let explainer =
            Explainer::of(&Weights::open(self.explainer("explained.safetensors", |_, _| {})).unwrap()).unwrap();
        let explanations =
            self.photos.iter().map(|(_, photo, scene)| explainer.explain(photo, scene).unwrap()).collect();
        (explainer, explanations)
    }
}

type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

#[test]
fn rules_hold_and_counts_are_those_of_the_table() {
    let set = Set::new();
    let (rows, training) = (set.rows(), set.training());
    let (explainer, explanations) = set.explained();
    assert_eq!(explainer.regions(), training.len());
    let (mut rules, mut lengths) = (0, [0; MOST_ATOMS + 1]);
    for ((photo, ..), explanation) in set.photos.iter().zip(&explanations) {
        for (region, rule) in explanation.all() {
            let row = rows.iter().find(|row| row["photo"] == *photo && row["region"] == region.id.to_string()).unwrap();
            assert_eq!(row["pixels"], region.pixels.to_string());
            let Some(rule) = rule else { continue };
            rules += 1;
            lengths[rule.atoms.len()] += 1;
            let column = |atom: &usize| format!("a_{}", explainer.atoms().name(*atom));
            assert!(
                rule.atoms.iter().all(|atom| row[&column(atom)] == "1"),
                "{photo}/{}: an atom does not hold",
                region.id
            );
            let matching: Vec<_> =
                training.iter().filter(|other| rule.atoms.iter().all(|atom| other[&column(atom)] == "1")).collect();
            let of = |class: usize| matching.iter().filter(|other| other["label"] == format!("class {class}")).count();
            let by_class: Vec<_> = (0..CLASSES).map(of).collect();
            assert_eq!((rule.matches, &rule.by_class), (matching.len(), &by_class));
            assert_eq!(Some(&rule.matches_of_class), by_class.iter().max());
            assert_eq!(rule.matches_of_class, by_class[usize::from(rule.class)]);
            assert!(rule.matches >= SUPPORT && rule.precision() > 0.0);
            let likelihoods: f64 = (0..CLASSES as u16).map(|class| rule.likelihood(class)).sum();
            assert!((likelihoods - 1.0).abs() < 1e-9);
            // Each atom excludes regions that match the atoms before it, so none is repeated or implied.
            for length in 1..rule.atoms.len() {
                let matches = |length: usize| {
                    let first = &rule.atoms[..length];
                    training.iter().filter(|other| first.iter().all(|atom| other[&column(atom)] == "1")).count()
                };
                assert!(matches(length + 1) < matches(length));
            }
            for &other in &rule.nearest {
                let name = explainer.name(other);
                assert!(matching.iter().any(|row| format!("{}/{}", row["photo"], row["region"]) == name), "{name}");
            }
        }
    }
    assert!(rules > 10 && lengths[2..].iter().sum::<usize>() > 5, "{rules} rules of the lengths {lengths:?}");
}

#[test]
fn a_mask_by_rules_has_the_classes_of_the_rules() {
    let set = Set::new();
    let (_, explanations) = set.explained();
    for ((_, _, scene), explanation) in set.photos.iter().zip(&explanations) {
        let mut mask = scene.mask().clone();
        let relabelled = explanation.relabel(&mut mask).unwrap();
        let mut from_rules = 0;
        for (y, x) in (0..mask.height()).flat_map(|y| (0..mask.width()).map(move |x| (y, x))) {
            let rules = explanation.regions.at(x, y).filter_map(|region| explanation.rules[region].as_ref());
            let classes: Vec<_> = rules.map(|rule| rule.class).collect();
            let want = classes.first().copied().unwrap_or(scene.mask().get(x, y));
            assert_eq!(mask.get(x, y), want, "({x}, {y})");
            from_rules += usize::from(!classes.is_empty());
        }
        assert_eq!(relabelled, from_rules);
    }
    let mut other = rtformer::pixels::Mask::new(3, 3, CLASSES);
    assert!(matches!(explanations[0].relabel(&mut other), Err(Error::Input(_))));
}

#[test]
fn an_explainer_that_does_not_belong_to_the_file_is_refused() {
    type Change = fn(&mut Value, &mut Vec<Stored>);
    let set = Set::new();
    let cases: [(Change, &str); 9] = [
        (|d, _| d["digest"] = "0".repeat(64).into(), "was trained for the network 000000000000"),
        (|d, _| d["format"] = 2.into(), "has format 2; this version reads 1"),
        (|d, _| d["classes"][0] = "car".into(), "is for the classes"),
        (|d, _| d["atoms"][3] = "y_is_odd".into(), "the first other one is `y_is_odd`"),
        (|d, _| d["thresholds"][0][0] = "z".into(), "measures [\"z\""),
        (|d, _| d["regions"] = 1.into(), "explainer.labels"),
        (|d, _| d["photos"] = json!([]), "names 0 regions"),
        (
            |_, tensors| tensors.retain(|(name, ..)| name != "explainer.head.bias"),
            "tensor `explainer.head.bias` is missing",
        ),
        (
            |_, tensors| tensors.iter_mut().filter(|t| t.0 == "explainer.labels").for_each(|t| t.3[0] = 9),
            "has the label 9",
        ),
    ];
    for (i, (change, want)) in cases.into_iter().enumerate() {
        let path = set.explainer(&format!("broken{i}.safetensors"), change);
        let error = Explainer::of(&Weights::open(&path).unwrap()).err().expect(want);
        assert!(error.to_string().contains(want) && error.to_string().contains("broken"), "{error}");
        assert_eq!(error.kind(), rtformer::ErrorKind::Weights);
        // The network itself still opens.
        Segmenter::open(&path, Device::Cpu).unwrap();
    }
    let error = Explainer::of(&Weights::open(tiny()).unwrap()).err().unwrap();
    assert!(error.to_string().contains("weights/train/explain.py"), "{error}");
}

#[test]
fn converting_leaves_the_explainer_out() {
    let set = Set::new();
    let path = set.explainer("explained.safetensors", |_, _| {});
    let converted = set.path("converted.safetensors");
    command().arg("convert").arg(&path).arg("-o").arg(&converted).args(["--store", "f16"]).assert().success();
    let weights = Weights::open(&converted).unwrap();
    assert!(weights.metadata("explainer").is_none() && weights.names().all(|name| !name.starts_with("explainer.")));
    let with = Weights::open(&path).unwrap();
    assert_eq!(
        with.parameters(),
        Weights::open(tiny()).unwrap().parameters(),
        "the explainer is no part of the network"
    );
    assert_eq!(with.tensors_digest(), Weights::open(tiny()).unwrap().tensors_digest());
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtformer"));
    command.env_remove("RTFORMER_ISA");
    command
}

fn explain(set: &Set, weights: &Path, out: &str) -> Command {
    let mut command = command();
    command.arg("explain").arg(set.path("photos")).arg("-o").arg(set.path(out)).arg("--weights").arg(weights);
    command.args(["--device", "cpu", "-q"]);
    command
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn regions(report: &Value) -> &Vec<Value> {
    report["regions"].as_array().unwrap()
}

#[test]
fn the_program_writes_every_output() {
    let set = Set::new();
    let weights = set.explainer("explained.safetensors", |_, _| {});
    let labels = set.path("labels");
    explain(&set, &weights, "out")
        .args(["--emit", "json,png,html,table", "--by-rules", "--labels"])
        .arg(&labels)
        .assert()
        .success();
    for name in ["a", "b", "sub/c"] {
        let report = read(&set.path(&format!("out/{name}.rules.json")));
        for region in regions(&report) {
            for key in [
                "id",
                "class",
                "pixels",
                "bbox",
                "rule",
                "matches",
                "matches_of_class",
                "precision",
                "coverage",
                "agrees",
                "nearest",
            ] {
                assert!(region.get(key).is_some(), "{key} is missing: {region}");
            }
            for atom in region["rule"].as_array().unwrap() {
                assert!(atom["atom"].is_string() && atom["text"].is_string(), "{atom}");
            }
        }
        let page = fs::read_to_string(set.path(&format!("out/{name}.rules.html"))).unwrap();
        assert!(!page.contains("{{") && !page.contains("http"), "the page needs other files");
        let picture = image::open(set.path(&format!("out/{name}.rules.png"))).unwrap();
        assert!(picture.width() >= 960);
        image::open(set.path(&format!("out/superpixels/{name}.png"))).unwrap();
    }
    assert!(set.path("out/a.rules.mask.png").exists());

    // The table is that of the library, and the labels' contradictions are sorted.
    let table = fs::read_to_string(set.path("out/regions.csv")).unwrap();
    let header = set.table.header(&set.atoms).join(",");
    assert_eq!(table.lines().next(), Some(header.as_str()));
    assert_eq!(table.lines().count() - 1, set.table.len());
    let suspicious = read(&set.path("out/suspicious.json"));
    let suspicious = suspicious.as_array().unwrap();
    assert!(!suspicious.is_empty() && suspicious.iter().all(|entry| entry["label"] != entry["consequent"]));
    let likelihood =
        |entry: &serde_json::Value| entry["likelihood"].as_f64().unwrap() * entry["network"].as_f64().unwrap();
    assert!(suspicious.iter().map(likelihood).is_sorted() && suspicious.iter().any(|entry| entry["network"] != 1.0));

    // Nothing is replaced unless the user says so.
    explain(&set, &weights, "out").args(["--emit", "json"]).assert().code(1);
    explain(&set, &weights, "out").args(["--emit", "json", "--overwrite"]).assert().success();
}

#[test]
fn regions_are_chosen_by_class_and_place() {
    let set = Set::new();
    let weights = set.explainer("explained.safetensors", |_, _| {});
    let class = set.photos[0].2.classes()[0].name.clone();
    explain(&set, &weights, "class").args(["--emit", "json", "--class", &class]).assert().success();
    let report = read(&set.path("class/a.rules.json"));
    assert!(!regions(&report).is_empty() && regions(&report).iter().all(|region| region["class"] == class.as_str()));

    explain(&set, &weights, "at").args(["--emit", "json", "--at", "100,80"]).assert().success();
    let (_, explanations) = set.explained();
    let ids = |report: &Value| {
        regions(report).iter().map(|region| region["id"].as_u64().unwrap() as usize).collect::<Vec<_>>()
    };
    let want: Vec<_> = explanations[0].regions.at(100, 80).map(|i| explanations[0].regions.all()[i].id).collect();
    assert_eq!(ids(&read(&set.path("at/a.rules.json"))), want);
    assert!(explanations[0].of_kind(Kind::Superpixel).count() > 5);

    let failed = explain(&set, &weights, "outside").args(["--emit", "json", "--at", "210,20"]).assert().code(1);
    let error = String::from_utf8_lossy(&failed.get_output().stderr).into_owned();
    assert!(error.contains("a.png: --at 210,20 is outside of the photo, which has 200x160 pixels"), "{error}");
    assert!(set.path("outside/b.rules.json").exists(), "the wider photos have that pixel");
    for (flags, want) in
        [(["--class", "tram"], "unknown class `tram`: expected one of class 0"), (["--at", "5"], "expected X,Y")]
    {
        let failed = explain(&set, &weights, "none").args(flags).assert().code(2);
        let error = String::from_utf8_lossy(&failed.get_output().stderr).into_owned();
        assert!(error.contains(want), "{error}");
    }
    let failed = explain(&set, &tiny(), "none").assert().code(1);
    let error = String::from_utf8_lossy(&failed.get_output().stderr).into_owned();
    assert!(error.contains("has no explainer; make one with weights/train/explain.py"), "{error}");
}

#[test]
fn eval_by_rules_measures_the_masks_of_the_rules() {
    let set = Set::new();
    let weights = set.explainer("explained.safetensors", |_, _| {});
    let mut command = command();
    command.arg("eval").arg("--images").arg(set.path("photos")).arg("--labels").arg(set.path("labels"));
    command.arg("--weights").arg(&weights).args(["--device", "cpu", "--by-rules", "--json", "-q"]);
    let printed = command.assert().success().get_output().stdout.clone();
    let report: Value = serde_json::from_slice(&printed).unwrap();
    let (_, explanations) = set.explained();
    let mut confusion = rtformer::eval::Confusion::new(CLASSES).unwrap();
    for ((name, _, scene), explanation) in set.photos.iter().zip(&explanations) {
        let path = set.path(&format!("labels/{name}.png"));
        let ids = image::open(&path).unwrap().into_luma8();
        let (width, height) = ids.dimensions();
        let labels = LabelImage::new(&path, width, height, ids.iter().map(|id| u16::from(*id)).collect()).unwrap();
        let mut mask = scene.mask().clone();
        explanation.relabel(&mut mask).unwrap();
        confusion.count(&labels, &mask).unwrap();
    }
    assert_eq!(report["miou"].as_f64(), confusion.miou());
    assert_eq!((&report["by_rules"], report["images"].as_u64()), (&json!(true), Some(3)));
}

/// Rules are learned for the network's own classes, which labels would no longer have.
#[test]
fn rules_cannot_be_combined_with_other_classes() {
    let set = Set::new();
    let weights = set.explainer("explained.safetensors", |_, _| {});
    let mut eval = command();
    eval.arg("eval").arg("--images").arg(set.path("photos")).arg("--labels").arg(set.path("labels"));
    eval.arg("--weights").arg(&weights).args(["--device", "cpu", "--by-rules"]);
    for mut refused in [eval, explain(&set, &weights, "out")] {
        let error = refused.args(["--merge", "x=class 0,class 1"]).assert().code(2).get_output().stderr.clone();
        let error = String::from_utf8_lossy(&error).into_owned();
        assert!(error.contains("omit --classes and --merge"), "{error}");
    }
}

/// The independent computation in Python, if NumPy and Pillow are installed.
#[test]
fn python_computes_the_same_atoms_and_counts() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let has = std::process::Command::new(&python).args(["-c", "import numpy, PIL"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: no {python} with numpy and pillow");
        return;
    }
    let set = Set::new();
    let weights = set.explainer("explained.safetensors", |_, _| {});
    explain(&set, &weights, "out")
        .args(["--emit", "json,table", "--labels"])
        .arg(set.path("labels"))
        .assert()
        .success();
    let mut segment = command();
    segment.arg("segment").arg(set.path("photos")).arg("-o").arg(set.path("masks")).args(["--emit", "mask", "-q"]);
    segment.arg("--weights").arg(tiny()).args(["--device", "cpu"]).assert().success();
    let check = |out: &str| {
        let mut check = std::process::Command::new(&python);
        check.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain.py"));
        for (flag, path) in
            [("--table", "out"), ("--training", "out"), ("--out", out), ("--photos", "photos"), ("--masks", "masks")]
        {
            check.arg(flag).arg(set.path(path));
        }
        check.args(["--extension", ".png"]).output().unwrap()
    };
    let found = check("out");
    let text = String::from_utf8_lossy(&found.stdout).into_owned() + &String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success(), "{text}");

    // A wrong count and a wrong atom are found.
    let path = set.path("out/a.rules.json");
    let report = read(&path);
    for key in ["matches", "rule"] {
        let mut wrong = report.clone();
        let region = wrong["regions"].as_array_mut().unwrap().iter_mut().find(|r| r["rule"] != json!([])).unwrap();
        if key == "matches" {
            region["matches"] = (region["matches"].as_u64().unwrap() + 1).into();
        } else {
            region["rule"][0]["atom"] = "surrounded_class 4".into();
        }
        fs::write(&path, wrong.to_string()).unwrap();
        assert!(!check("out").status.success(), "a wrong {key} was not found");
    }
}
