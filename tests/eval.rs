//! `rtformer eval` as a person types it, on a data set whose answers are known.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use image::{GrayImage, RgbImage};
use png::{BitDepth, ColorType};
use rtformer::pixels::{Image, IndexedPicture};
use rtformer::{Device, Segmenter};
use serde_json::Value;

/// The tiny network's classes.
const CLASSES: usize = 5;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Photos, and the masks that the tiny network gives them.
struct Set {
    folder: tempfile::TempDir,
    masks: Vec<GrayImage>,
}

impl Set {
    /// Photos at these places under `images/`, of two sizes; no labels yet.
    fn new(places: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let segmenter = Segmenter::open(data("golden/tiny.safetensors"), Device::Cpu).unwrap();
        let photo = Image::open(data("golden/photo.png")).unwrap().into_rgb();
        let mut masks = Vec::new();
        for (number, place) in (0..).zip(places) {
            let (width, height) = if number % 2 == 0 { (64, 48) } else { (50, 33) };
            let part: RgbImage = image::imageops::crop_imm(&photo, 7 * number, 3 * number, width, height).to_image();
            let path = folder.path().join("images").join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            part.save(&path).unwrap();
            let part = Image::open(&path).unwrap(); // a JPEG is another photo than the one that was saved
            masks.push(segmenter.segment(&part).unwrap().mask().to_image().into_luma8());
        }
        Self { folder, masks }
    }

    fn path(&self, place: &str) -> PathBuf {
        self.folder.path().join(place)
    }

    fn label(&self, place: &str, ids: &GrayImage) {
        let path = self.path("labels").join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        ids.save(path).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtformer"));
        command.args(["eval", "--device", "cpu", "--threads", "2", "--weights"]).arg(data("golden/tiny.safetensors"));
        command.arg("--images").arg(self.path("images")).arg("--labels").arg(self.path("labels"));
        command
    }

    /// The JSON of a run, which ends with this exit code, and what it says on standard error.
    fn json(&self, code: i32) -> (Value, String) {
        let output = self.command().args(["--json", "-q"]).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        (serde_json::from_slice(&output.stdout).unwrap(), errors)
    }
}

fn fraction(json: &Value, key: &str) -> f64 {
    json[key].as_f64().unwrap_or_else(|| panic!("{key} is {}", json[key]))
}

/// Pencil and paper: the `IoU` of every class, from two lists of ids.
fn ious(truth: &[u8], seen: &[u8]) -> Vec<Option<f64>> {
    let counted: Vec<_> = truth.iter().zip(seen).filter(|(truth, _)| **truth != 255).collect();
    let iou = |class: u8| {
        let both = counted.iter().filter(|(t, s)| **t == class && **s == class).count();
        let either = counted.iter().filter(|(t, s)| **t == class || **s == class).count();
        (either > 0).then(|| both as f64 / either as f64)
    };
    (0..CLASSES as u8).map(iou).collect()
}

#[test]
fn labels_that_agree_give_one_in_every_layout() {
    // A photo's place, and its label's.
    let layouts = [
        [("a.png", "a.png"), ("sub/b.jpg", "sub/b.png")],
        [("0001TP_006690.png", "0001TP_006690_L.png"), ("0001TP_006720.png", "0001TP_006720_L.png")],
        [
            ("ulm/ulm_0_leftImg8bit.png", "ulm/ulm_0_gtFine_labelTrainIds.png"),
            ("bonn/bonn_0_leftImg8bit.png", "bonn/bonn_0_gtFine_labelTrainIds.png"),
        ],
    ];
    for layout in layouts {
        let set = Set::new(&layout.map(|(photo, _)| photo));
        for ((_, label), mask) in layout.iter().zip(&set.masks) {
            set.label(label, mask);
        }
        let (json, errors) = set.json(0);
        assert!(errors.is_empty(), "{errors}");
        assert_eq!((fraction(&json, "miou"), fraction(&json, "pixel_accuracy")), (1.0, 1.0), "{layout:?}");
        assert_eq!((&json["images"], &json["failed"]), (&2.into(), &0.into()));
        assert_eq!(json["pixels"], 64 * 48 + 50 * 33);
    }
}

#[test]
fn the_numbers_are_those_of_pencil_and_paper() {
    let set = Set::new(&["a.png", "b.png", "c.png"]);
    let (mut truth, mut seen) = (Vec::new(), Vec::new());
    for (name, mask) in ["a.png", "b.png", "c.png"].iter().zip(&set.masks) {
        let mut labels = mask.clone();
        for (i, id) in labels.iter_mut().enumerate() {
            match i % 11 {
                0 => *id = (*id + 1) % CLASSES as u8, // wrong
                1 => *id = 255,                       // ignored
                _ => {}
            }
        }
        set.label(name, &labels);
        truth.extend(labels.into_raw());
        seen.extend(mask.as_raw());
    }
    let (json, _) = set.json(0);
    let want = ious(&truth, &seen);
    let classes = json["classes"].as_array().unwrap();
    assert_eq!(classes.len(), CLASSES);
    for (name, want) in classes.iter().zip(&want) {
        let got = json["iou"][name.as_str().unwrap()].as_f64();
        assert!((got.unwrap_or(-1.0) - want.unwrap_or(-1.0)).abs() < 1e-12, "{name}: {got:?}, not {want:?}");
    }
    let some: Vec<f64> = want.into_iter().flatten().collect();
    assert!((fraction(&json, "miou") - some.iter().sum::<f64>() / some.len() as f64).abs() < 1e-12, "{json}");
    let counted = truth.iter().filter(|id| **id != 255).count();
    let right = truth.iter().zip(&seen).filter(|(t, s)| t == s).count();
    assert_eq!(json["pixels"], counted);
    assert!((fraction(&json, "pixel_accuracy") - right as f64 / counted as f64).abs() < 1e-12);

    assert!((0.0..=1.0).contains(&fraction(&json, "ece")), "{json}");
    assert_eq!(json["temperature"], 1.0);

    let rows = json["confusion"].as_array().unwrap().iter().map(|row| row.as_array().unwrap());
    let sums: Vec<u64> = rows.map(|row| row.iter().map(|count| count.as_u64().unwrap()).sum()).collect();
    let labelled = |class: usize| truth.iter().filter(|id| usize::from(**id) == class).count() as u64;
    assert_eq!(sums, (0..CLASSES).map(labelled).collect::<Vec<_>>(), "a row is a true class");

    for key in ["model", "weights", "dataset", "device", "instruction_set", "precision", "size"] {
        assert!(json[key].as_str().is_some_and(|text| !text.is_empty()), "{key} is {}", json[key]);
    }
    assert_eq!((&json["device"], &json["size"], &json["threads"]), (&"cpu".into(), &"native".into(), &2.into()));

    // A batch changes nothing.
    let batched = set.command().args(["--json", "-q", "--batch", "3"]).output().unwrap();
    let batched: Value = serde_json::from_slice(&batched.stdout).unwrap();
    assert_eq!(batched["confusion"], json["confusion"]);
}

#[test]
fn an_indexed_label_is_its_indices() {
    let set = Set::new(&["a.png"]);
    let segmenter = Segmenter::open(data("golden/tiny.safetensors"), Device::Cpu).unwrap();
    let scene = segmenter.segment(&Image::open(set.path("images/a.png")).unwrap()).unwrap();
    fs::create_dir(set.path("labels")).unwrap();
    // What `segment` writes can be measured against: any colours, the same classes.
    let palette = rtformer::pixels::Palette::new(vec![[9, 9, 9]; CLASSES]);
    IndexedPicture::new(scene.mask(), &palette).save(set.path("labels/a.png")).unwrap();
    assert_eq!(fraction(&set.json(0).0, "miou"), 1.0);

    // And the same in four bits a pixel, as some programs save so few classes.
    let mask = &set.masks[0];
    let packed: Vec<u8> = mask.as_raw().as_chunks::<2>().0.iter().map(|[left, right]| left << 4 | right).collect();
    let mut encoder = png::Encoder::new(fs::File::create(set.path("labels/a.png")).unwrap(), 64, 48);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Four);
    encoder.set_palette(vec![0; 48]);
    encoder.write_header().unwrap().write_image_data(&packed).unwrap();
    assert_eq!(fraction(&set.json(0).0, "miou"), 1.0);
}

#[test]
fn a_bad_pair_costs_that_pair_alone() {
    let names = ["good.png", "size.png", "range.png", "alone.png", "broken.png", "text.png", "photo.png", "empty.png"];
    let set = Set::new(&names);
    for (name, mask) in names.iter().zip(&set.masks).filter(|(name, _)| **name != "alone.png") {
        set.label(name, mask);
    }
    set.label("size.png", &GrayImage::new(64, 47));
    let mut range = set.masks[2].clone();
    range.put_pixel(5, 2, image::Luma([CLASSES as u8]));
    set.label("range.png", &range);
    let whole = fs::read(set.path("labels/broken.png")).unwrap();
    fs::write(set.path("labels/broken.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(set.path("labels/text.png"), "road, road, car").unwrap();
    fs::write(set.path("images/photo.png"), "no photo").unwrap();
    fs::write(set.path("labels/empty.png"), "").unwrap();

    let (json, errors) = set.json(1);
    assert_eq!((fraction(&json, "miou"), &json["images"], &json["failed"]), (1.0, &1.into(), &7.into()));
    let wanted: [&[&str]; 7] = [
        &["labels/size.png", "64x47", "50x33"],
        &["labels/range.png", "id 5 at (5, 2)", "0 to 4"],
        &["images/alone.png", "no labels", "_L.png", "_gtFine_labelIds.png"],
        &["labels/broken.png", "damaged"],
        &["labels/text.png", "no PNG"],
        &["images/photo.png"],
        &["labels/empty.png", "no PNG"],
    ];
    let lines: Vec<_> = errors.lines().map(|line| line.replace('\\', "/")).collect();
    assert_eq!(lines.len(), wanted.len(), "{errors}");
    for words in wanted {
        assert!(lines.iter().any(|line| words.iter().all(|word| line.contains(word))), "{words:?} in {errors}");
    }

    // All pairs bad: still one object, without numbers.
    fs::write(set.path("labels/good.png"), "").unwrap();
    let (json, _) = set.json(1);
    assert_eq!((&json["miou"], &json["pixel_accuracy"], &json["images"]), (&Value::Null, &Value::Null, &0.into()));
}

#[test]
fn label_ids_need_classes_that_have_some() {
    let set = Set::new(&["ulm_0_leftImg8bit.png"]);
    set.label("ulm_0_gtFine_labelIds.png", &set.masks[0]);
    let (_, errors) = set.json(1);
    assert!(errors.contains("ulm_0_gtFine_labelIds.png") && errors.contains("_labelTrainIds"), "{errors}");
}

#[test]
fn no_pair_at_all_says_what_is_looked_for() {
    let set = Set::new(&["a.png"]);
    fs::create_dir(set.path("labels")).unwrap();
    let output = set.command().output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = ["images", "labels", "_L.png", "_leftImg8bit.png", "_gtFine_labelTrainIds.png"];
    assert!(words.iter().all(|word| errors.contains(word)), "{errors}");
    assert!(output.stdout.is_empty());

    fs::remove_dir(set.path("labels")).unwrap();
    let errors = String::from_utf8(set.command().output().unwrap().stderr).unwrap();
    assert!(errors.contains("labels") && errors.contains("cannot be read"), "{errors}");
}

#[test]
fn a_person_gets_a_table_and_a_picture() {
    let set = Set::new(&["a.png"]);
    set.label("a.png", &set.masks[0]);
    let plot = set.path("out/confusion.png");
    let output = set.command().arg("--plot").arg(&plot).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    for words in ["class 0", "mean IoU", "100.00", "3072", "\n1 photo\n"] {
        assert!(table.contains(words), "{words} in\n{table}");
    }
    assert!(Image::open(&plot).unwrap().width() > 300);
}
