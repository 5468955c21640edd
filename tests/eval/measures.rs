//! The figures equal those of other implementations, recorded in `tests/data/masks/measures.json`.

use std::fs;

use rtformer::eval::{
    Area, Areas, Boundaries, Confusion, Counted, Figure, Figures, Interval, LabelImage, intervals, paired_intervals,
};
use rtformer::pixels::Mask;
use serde_json::Value;

use super::{CLASSES, Set, data, fraction};

const PHOTOS: usize = 4;

type Measure = fn(Area) -> Option<f64>;

fn recorded() -> Value {
    serde_json::from_slice(&fs::read(data("masks/measures.json")).unwrap()).unwrap()
}

/// The labels and the mask of a photo, the mask moved down by some rows.
fn pictures(number: usize, moved: usize) -> (LabelImage, Mask) {
    let open = |kind: &str| image::open(data(&format!("masks/{number}_{kind}.png"))).unwrap().into_luma8();
    let (labels, mask) = (open("labels"), open("mask"));
    let (width, height) = labels.dimensions();
    let mut mask = mask.into_raw();
    mask.rotate_right(moved * width as usize);
    let labels = LabelImage::new("labels.png", width, height, labels.into_raw().into_iter().map(u16::from).collect());
    (labels.unwrap(), Mask::from_ids(width, height, CLASSES, mask).unwrap())
}

fn counted(number: usize, moved: usize, width: f64) -> Counted {
    let (labels, mask) = pictures(number, moved);
    let (mut regions, mut boundaries) = (Areas::new(CLASSES), Boundaries::new(CLASSES, width).unwrap());
    let ignored = regions.count(&labels, &mask).unwrap();
    boundaries.count(&labels, &mask).unwrap();
    Counted::new(format!("{number}.jpg"), "labels.png", &regions, boundaries.areas(), ignored)
}

fn all(moved: usize, width: f64) -> Vec<Counted> {
    (0..PHOTOS).map(|number| counted(number, moved, width)).collect()
}

/// The figures and the areas of a number of photos.
fn figures(photos: usize, width: f64) -> (Figures, Areas, Boundaries) {
    let mut confusion = Confusion::new(CLASSES).unwrap();
    let mut boundaries = Boundaries::new(CLASSES, width).unwrap();
    for (labels, mask) in (0..photos).map(|number| pictures(number, 0)) {
        confusion.count(&labels, &mask).unwrap();
        boundaries.count(&labels, &mask).unwrap();
    }
    let regions = Areas::of(&confusion);
    (Figures::of(&regions, boundaries.areas(), &all(0, width)[..photos]), regions, boundaries)
}

#[track_caller]
fn close(got: Option<f64>, want: &Value, what: &str) {
    let near = got.zip(want.as_f64()).is_some_and(|(got, want)| (got - want).abs() < 1e-12);
    assert!(near || got.is_none() && want.is_null(), "{what}: got {got:?}, expected {want}");
}

fn check(of: &str, photos: usize, singles: &[Figure]) {
    let want = &recorded()[of];
    let (figures, regions, _) = figures(photos, Boundaries::WIDTH);
    for &figure in singles {
        close(figures.get(figure), &want[figure.key()], figure.key());
    }
    let each: [(&str, Measure); 3] = [("iou", Area::iou), ("dice", Area::dice), ("accuracy", Area::accuracy)];
    for ((key, measure), class) in each.into_iter().flat_map(|each| (0..CLASSES).map(move |class| (each, class))) {
        close(measure(regions.get(class)), &want[key][class], &format!("{of}: {key} of class {class}"));
    }
}

#[test]
fn figures_equal_those_of_paddleseg() {
    check("paddleseg", PHOTOS, &[Figure::Miou, Figure::Mdice, Figure::PixelAccuracy, Figure::Kappa]);
}

#[test]
fn figures_equal_those_of_mmsegmentation_also_if_a_class_does_not_occur() {
    let singles = [Figure::Miou, Figure::Mdice, Figure::PixelAccuracy, Figure::MeanAccuracy];
    check("mmsegmentation", PHOTOS, &singles);
    check("mmsegmentation_first_photo", 1, &singles);
}

#[test]
fn figures_equal_their_papers_definitions() {
    let want = recorded();
    let (figures, ..) = figures(PHOTOS, Boundaries::WIDTH);
    for figure in [Figure::Fwiou, Figure::ImageMiou, Figure::ImageMdice] {
        close(figures.get(figure), &want[figure.key()], figure.key());
    }
}

#[test]
fn boundary_ious_equal_those_of_step_by_step_erosion() {
    for (width, want) in recorded()["boundary_iou"].as_object().unwrap() {
        let (figures, _, boundaries) = figures(PHOTOS, width.parse().unwrap());
        close(figures.get(Figure::BoundaryMiou), &want["mean"], width);
        for class in 0..CLASSES {
            close(boundaries.areas().get(class).iou(), &want["each"][class], &format!("{width}: class {class}"));
        }
    }
}

#[test]
fn intervals_equal_those_of_numpy() {
    let want = &recorded()["intervals"];
    let resamples = want["resamples"].as_u64().unwrap() as usize;
    let (own, other) = (all(0, Boundaries::WIDTH), all(1, Boundaries::WIDTH));
    let cases = [
        ("miou", intervals(&own, CLASSES, resamples)),
        ("paired_miou", paired_intervals(&own, &other, CLASSES, resamples)),
    ];
    for (key, got) in cases {
        let Interval(low, high) = got.get(Figure::Miou).unwrap();
        close(Some(low), &want[key][0], key);
        close(Some(high), &want[key][1], key);
    }
}

/// A data set whose photos have different shares of wrong labels: every tenth, every second and every fifth pixel.
pub(super) fn uneven() -> Set {
    let set = Set::new(&["a.png", "sub/b.png", "c.png"]);
    for ((label, step), mask) in ["a.png", "sub/b.png", "c.png"].iter().zip([10, 2, 5]).zip(&set.masks) {
        let mut labels = mask.clone();
        labels.iter_mut().step_by(step).for_each(|id| *id = (*id + 1) % CLASSES as u8);
        labels.iter_mut().take(20).for_each(|id| *id = 255);
        set.label(label, &labels);
    }
    set
}

#[test]
fn the_table_has_the_figures_of_each_photo_and_the_worst_are_listed_first() {
    let set = uneven();
    let (csv_path, json_path) = (set.path("photos.csv"), set.path("photos.json"));
    let (csv_name, json_name) = (csv_path.to_str().unwrap(), json_path.to_str().unwrap());
    let (json, _) = set.json_with(&["--per-image", csv_name], 0);
    set.json_with(&["--per-image", json_name], 0);

    let rows: Vec<Value> = serde_json::from_slice(&fs::read(&json_path).unwrap()).unwrap();
    let photos: Vec<_> = rows.iter().map(|row| row["photo"].as_str().unwrap()).collect();
    assert!(photos[0].ends_with("a.png") && photos[1].ends_with("c.png") && photos[2].ends_with("b.png"), "{photos:?}");
    assert_eq!((&rows[0]["pixels"], &rows[0]["ignored"]), (&(64 * 48 - 20).into(), &20.into()));
    let wrong = (64 * 48_u32).div_ceil(10) - 2; // two of them are ignored
    close(Some(1.0 - f64::from(wrong) / f64::from(64 * 48 - 20)), &rows[0]["pixel_accuracy"], "pixel_accuracy");
    let mean = rows.iter().map(|row| fraction(row, "miou")).sum::<f64>() / 3.0;
    close(Some(mean), &json["image_miou"], "image_miou");

    let mut table = csv::Reader::from_path(&csv_path).unwrap();
    let names: Vec<_> = table.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!((names[0].as_str(), names[4].as_str(), names.len()), ("photo", "miou", 4 + 7 + CLASSES));
    for (line, row) in table.records().zip(&rows) {
        let line = line.unwrap();
        assert_eq!((&line[0], &line[2]), (row["photo"].as_str().unwrap(), &*row["pixels"].to_string()));
        assert_eq!(line[4].parse::<f64>().unwrap(), fraction(row, "miou"));
    }

    let worst: Vec<_> = json["worst"].as_array().unwrap().iter().map(|row| fraction(row, "miou")).collect();
    assert!(worst.len() == 3 && worst.is_sorted(), "{worst:?}");
    let output = set.command().args(["--worst", "2"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<_> = text.lines().skip_while(|line| !line.starts_with("worst photos")).skip(1).collect();
    assert!(listed.len() == 2 && listed[0].contains("b.png") && listed[1].contains("c.png"), "{text}");
}

#[test]
fn intervals_contain_their_figures_and_can_be_omitted() {
    let set = uneven();
    let (json, _) = set.json_with(&["--bootstrap", "300"], 0);
    assert_eq!(
        (&json["confidence_intervals"]["level"], &json["confidence_intervals"]["resamples"]),
        (&0.95.into(), &300.into())
    );
    for figure in Figure::ALL {
        let range = &json["confidence_intervals"][figure.key()];
        let (low, high, value) =
            (range[0].as_f64().unwrap(), range[1].as_f64().unwrap(), fraction(&json, figure.key()));
        assert!(low <= value && value <= high && low < high, "{}: {value} in {range}", figure.key());
    }
    let (json, _) = set.json_with(&["--bootstrap", "0"], 0);
    assert!(json.get("confidence_intervals").is_none() && json.get("worst").is_none(), "{json}");
}

#[test]
fn flags_of_measures_are_checked_before_any_photo_is_read() {
    let set = Set::new(&["a.png"]);
    let table = set.path("table.csv");
    fs::write(&table, "mine").unwrap();
    let cases: [(&[&str], &str); 5] = [
        (&["--per-image", "table.txt"], ".csv or .json"),
        (&["--per-image", table.to_str().unwrap()], "--overwrite"),
        (&["--boundary-width", "0"], "share of the diagonal"),
        (&["--boundary-width", "1.5"], "share of the diagonal"),
        (&["--overwrite"], "--overwrite"),
    ];
    for (flags, want) in cases {
        let output = set.command().args(flags).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && errors.contains(want), "{flags:?}: {errors}");
    }
    assert_eq!(fs::read_to_string(&table).unwrap(), "mine");
}
