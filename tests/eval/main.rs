//! `rtformer eval` from the command line, on a data set with known results.

mod measures;
mod reports;

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

/// Photos, and the tiny network's masks of them.
struct Set {
    folder: tempfile::TempDir,
    masks: Vec<GrayImage>,
}

impl Set {
    /// Creates photos of two sizes at these paths under `images/`, without labels.
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
            let part = Image::open(&path).unwrap(); // a JPEG differs from the photo that was saved
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
        let mut command = bare_command();
        command.arg("--images").arg(self.path("images")).arg("--labels").arg(self.path("labels"));
        command
    }

    /// Runs the command, checks its exit code, and returns its JSON and its standard error.
    fn json(&self, code: i32) -> (Value, String) {
        self.json_with(&[], code)
    }

    fn json_with(&self, flags: &[&str], code: i32) -> (Value, String) {
        let output = self.command().args(["--json", "-q"]).args(flags).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        (serde_json::from_slice(&output.stdout).unwrap(), errors)
    }
}

/// The command without photos and labels.
fn bare_command() -> Command {
    command_of(data("golden/tiny.safetensors"))
}

/// The same with other weights.
fn command_of(weights: impl AsRef<Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtformer"));
    command.args(["eval", "--device", "cpu", "--threads", "2", "--weights"]).arg(weights.as_ref());
    command
}

fn fraction(json: &Value, key: &str) -> f64 {
    json[key].as_f64().unwrap_or_else(|| panic!("{key} is {}", json[key]))
}

/// The `IoU` of every class, calculated independently from two lists of ids.
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
fn labels_equal_to_the_masks_give_an_iou_of_one_in_every_layout() {
    // The paths of a photo and its label.
    let layouts = [
        [("a.png", "a.png"), ("sub/b.jpg", "sub/b.png")],
        [("a.png", "a.mask.png"), ("sub/b.jpg", "sub/b.mask.png")],
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
fn the_measures_match_a_calculation_by_hand() {
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
        assert!((got.unwrap_or(-1.0) - want.unwrap_or(-1.0)).abs() < 1e-12, "{name}: got {got:?}, expected {want:?}");
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
    assert_eq!(sums, (0..CLASSES).map(labelled).collect::<Vec<_>>(), "each row is a true class");

    for key in ["model", "weights", "dataset", "device", "instruction_set", "precision", "size"] {
        assert!(json[key].as_str().is_some_and(|text| !text.is_empty()), "{key} is {}", json[key]);
    }
    assert_eq!((&json["device"], &json["size"], &json["threads"]), (&"cpu".into(), &"native".into(), &2.into()));

    // The batch size does not change the result.
    let batched = set.command().args(["--json", "-q", "--batch", "3"]).output().unwrap();
    let batched: Value = serde_json::from_slice(&batched.stdout).unwrap();
    assert_eq!(batched["confusion"], json["confusion"]);
}

#[test]
fn an_indexed_label_holds_class_ids() {
    let set = Set::new(&["a.png"]);
    let segmenter = Segmenter::open(data("golden/tiny.safetensors"), Device::Cpu).unwrap();
    let scene = segmenter.segment(&Image::open(set.path("images/a.png")).unwrap()).unwrap();
    fs::create_dir(set.path("labels")).unwrap();
    // Masks like those of `segment` can be labels: the colours do not matter if the indices are the classes.
    let palette = rtformer::pixels::Palette::new(vec![[9, 9, 9]; CLASSES]);
    IndexedPicture::new(scene.mask(), &palette).save(set.path("labels/a.png")).unwrap();
    assert_eq!(fraction(&set.json(0).0, "miou"), 1.0);

    // The same with four bits per pixel, as some programs save a small number of classes.
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
fn a_bad_pair_does_not_affect_the_others() {
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
        &["labels/size.png", "64x47", "images/size.png", "50x33"],
        &["labels/range.png", "id 5 at (5, 2)", "0 to 4"],
        &["images/alone.png", "no labels", "_L.png", "_gtFine_labelIds.png"],
        &["labels/broken.png", "damaged"],
        &["labels/text.png", "not a PNG"],
        &["images/photo.png"],
        &["labels/empty.png", "not a PNG"],
    ];
    let lines: Vec<_> = errors.lines().map(|line| line.replace('\\', "/")).collect();
    assert_eq!(lines.len(), wanted.len(), "{errors}");
    for words in wanted {
        assert!(lines.iter().any(|line| words.iter().all(|word| line.contains(word))), "{words:?} in {errors}");
    }

    // If all pairs are bad, there is still one object, without numbers.
    fs::write(set.path("labels/good.png"), "").unwrap();
    let (json, _) = set.json(1);
    assert_eq!((&json["miou"], &json["pixel_accuracy"], &json["images"]), (&Value::Null, &Value::Null, &0.into()));
}

#[test]
fn label_ids_need_classes_with_label_ids() {
    let set = Set::new(&["ulm_0_leftImg8bit.png"]);
    set.label("ulm_0_gtFine_labelIds.png", &set.masks[0]);
    let (_, errors) = set.json(1);
    assert!(errors.contains("ulm_0_gtFine_labelIds.png") && errors.contains("_labelTrainIds"), "{errors}");
}

#[test]
fn without_any_pair_the_error_names_the_expected_files() {
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
fn eval_prints_a_table_and_draws_a_picture() {
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
    assert!(!table.contains("ignored"), "{table}");

    // The picture is replaced only on request.
    fs::write(&plot, "mine").unwrap();
    let output = set.command().arg("--plot").arg(&plot).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("confusion.png") && errors.contains("--overwrite") && output.stdout.is_empty(), "{errors}");
    assert_eq!(fs::read(&plot).unwrap(), b"mine");
    set.command().arg("--plot").arg(&plot).arg("--overwrite").assert().code(0);
    assert!(Image::open(&plot).unwrap().width() > 300);
}

#[test]
fn a_list_names_photos_and_labels() {
    let set = Set::new(&["a.png", "sub/b.jpg", "c.png"]);
    for (place, mask) in ["other.png", "sub/b.png", "c.png"].iter().zip(&set.masks) {
        set.label(place, mask);
    }
    // PaddleSeg's two columns, a comment, a photo without a label. Paths are relative to the list.
    let (all, labelled) = ("images/a.png labels/other.png\n# b\nimages/sub/b.jpg\n", "images/c.png\tlabels/c.png\n");
    fs::write(set.path("all.txt"), all.to_owned() + labelled).unwrap();
    fs::write(set.path("labelled"), labelled).unwrap();
    fs::write(set.path("empty.txt"), "# none\n").unwrap();
    let (list, labels) = (|name| set.path(name).into_os_string(), set.path("labels").into_os_string());
    // Arguments, exit code, number of photos, and a part of standard error.
    let cases = [
        (vec!["--images".into(), list("all.txt"), "--labels".into(), labels], 0, 3, ""),
        (vec!["--list".into(), list("labelled")], 0, 1, ""), // any name, no folder
        (vec!["--list".into(), list("all.txt")], 1, 2, "all.txt: line 3 names"),
        (vec!["--list".into(), list("empty.txt")], 1, 0, "lists no photo"),
        (vec!["--images".into(), list("none.txt")], 1, 0, "none.txt: cannot be read"),
        (vec!["--images".into(), list("images")], 2, 0, "--labels is missing"),
    ];
    for (args, code, photos, want) in cases {
        let output = bare_command().args(["--json", "-q"]).args(&args).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(errors.contains(want) && (want.is_empty() == errors.is_empty()), "{args:?}: {errors}");
        if photos > 0 {
            let json: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!((fraction(&json, "miou"), &json["images"]), (1.0, &photos.into()), "{args:?}");
        }
    }
}

#[test]
fn flags_set_the_names_and_numbers_of_labels() {
    let set = Set::new(&["a.png"]);
    let mut labels = set.masks[0].clone();
    for (i, id) in labels.iter_mut().enumerate() {
        *id = if i % 5 == 0 { 77 } else { *id + 1 };
    }
    set.label("a_gt.png", &labels);
    let flags = ["--label-suffix", "_gt", "--first-id", "1", "--ignore-id", "77"];
    let (json, _) = set.json_with(&flags, 0);
    assert_eq!((fraction(&json, "miou"), fraction(&json, "ignored_share")), (1.0, 615.0 / 3072.0));

    let table = String::from_utf8(set.command().args(flags).output().unwrap().stdout).unwrap();
    assert!(table.contains("20.02 % of the labels' pixels are ignored"), "{table}");

    let (_, errors) = set.json_with(&flags[..2], 1);
    assert!(
        errors.contains("id 77 at (0, 0)") && errors.contains("the first id") && errors.contains("ignore the id 77"),
        "{errors}"
    );

    // Contradictions and unknown kinds are misuse: nothing is measured.
    for (flags, want) in [
        (&["--label-kind", "train-id", "--first-id", "1"][..], "cannot be combined"),
        (&["--label-kind", "colour"], "train-id"),
    ] {
        let output = set.command().args(flags).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(want) && output.stdout.is_empty(), "{errors}");
    }
}
