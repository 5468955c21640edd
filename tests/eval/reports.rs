//! Comparisons with another network, pictures of errors, and the report.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Rgb, RgbImage};
use rtformer::eval::Figure;
use safetensors::SafeTensors;
use serde_json::Value;

use super::measures::uneven;
use super::{CLASSES, Set, data, fraction};

/// The tiny network with another bias for the first class.
fn other(set: &Set) -> PathBuf {
    let mut file = fs::read(data("golden/tiny.safetensors")).unwrap();
    let bias = {
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let (_, bias) = tensors.tensors().into_iter().find(|(name, _)| name == "seghead.conv2.bias").unwrap();
        bias.data().as_ptr() as usize - file.as_ptr() as usize
    };
    let value = f32::from_le_bytes(file[bias..bias + 4].try_into().unwrap()) + 0.5;
    file[bias..bias + 4].copy_from_slice(&value.to_le_bytes());
    let path = set.path("other.safetensors");
    fs::write(&path, file).unwrap();
    path
}

#[test]
fn a_comparison_has_the_other_networks_figures_and_the_differences() {
    let set = uneven();
    let other = other(&set);
    let other = other.to_str().unwrap();
    let (json, _) = set.json_with(&["--against", other], 0);
    let against = &json["against"];
    let mut command = super::command_of(other);
    command.args(["--json", "-q", "--images"]).arg(set.path("images")).arg("--labels").arg(set.path("labels"));
    let output = command.output().unwrap();
    let second: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(fraction(&second, "miou") < fraction(&json, "miou"), "the bias changes masks");
    for figure in Figure::ALL {
        let key = figure.key();
        assert_eq!(against[key], second[key], "{key}");
        let difference = fraction(&json, key) - fraction(&second, key);
        assert!((fraction(&against["difference"], key) - difference).abs() < 1e-12, "{key}: {against}");
        let range = &against["difference_intervals"][key];
        let (low, high) = (range[0].as_f64().unwrap(), range[1].as_f64().unwrap());
        assert!(low <= difference + 1e-12 && difference <= high + 1e-12, "{key}: {difference} in {range}");
    }
    assert_eq!((&against["images"], &against["failed"]), (&3.into(), &0.into()));

    let own = data("golden/tiny.safetensors");
    let (json, _) = set.json_with(&["--against", own.to_str().unwrap()], 0);
    let (without, _) = set.json_with(&["--against", own.to_str().unwrap(), "--bootstrap", "0"], 0);
    assert_eq!(without["against"]["difference_intervals"]["miou"], Value::Null);
    assert_eq!(json["against"]["difference"]["miou"], 0.0);
    assert_eq!(json["against"]["difference_intervals"]["kappa"], serde_json::json!([0.0, 0.0]));
    let output = set.command().args(["--against", other]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("other.safetensors") && text.contains("other %"), "{text}");
}

#[test]
fn networks_with_other_classes_are_not_compared() {
    let set = uneven();
    let output = set.command().arg("--against").arg(data("golden/thirds.safetensors")).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("7 classes") && errors.contains("5 of"), "{errors}");
}

#[test]
fn pictures_of_errors_are_red_exactly_where_the_mask_is_wrong() {
    let set = uneven();
    let folder = set.path("errors");
    let save = ["--save-errors", folder.to_str().unwrap()];
    set.json_with(&save, 0);
    for (number, place) in ["a", "sub/b", "c"].iter().enumerate() {
        let picture: RgbImage = image::open(folder.join(format!("{place}.errors.png"))).unwrap().into_rgb8();
        let labels = image::open(set.path("labels").join(format!("{place}.png"))).unwrap().into_luma8();
        let mask = &set.masks[number];
        assert_eq!(picture.dimensions(), mask.dimensions());
        for ((Rgb([r, g, b]), label), seen) in picture.pixels().zip(labels.as_raw()).zip(mask.as_raw()) {
            match label {
                255 => assert_eq!((r, g, b), (&0, &0, &0)),
                _ if label == seen => assert!(r == g && g == b && *r >= 32),
                _ => assert!(*r > 190 && *g < 64 && *b < 64),
            }
        }
    }
    let output = set.command().args(save).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && errors.contains("--overwrite") && output.stdout.is_empty(), "{errors}");
    set.json_with(&[save[0], save[1], "--overwrite"], 0);
}

#[test]
fn a_report_contains_all_that_it_shows() {
    let set = uneven();
    let path = set.path("report.html");
    let other = other(&set);
    let (json, _) =
        set.json_with(&["--report", path.to_str().unwrap(), "--against", other.to_str().unwrap(), "--worst", "2"], 0);
    let page = fs::read_to_string(&path).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert!(!page.contains("http://") && !page.contains("https://"), "a page that requests something");
    let figures: Vec<_> = page.split("<figure class=\"photo\">").skip(1).collect();
    assert_eq!(figures.len(), 2, "as many photos as --worst says");
    assert!(figures[0].contains("b.png") && figures[1].contains("c.png"), "worst first");
    let miou = format!("<th scope=\"row\">mean IoU</th><td>{:.2}</td>", 100.0 * fraction(&json, "miou"));
    assert!(page.contains(&miou) && page.contains("other.safetensors") && page.contains("<polyline"), "{miou}");
    for class in json["classes"].as_array().unwrap() {
        assert!(page.matches(class.as_str().unwrap()).count() >= 3, "{class}: bars, rows and columns");
    }

    // The second photo is not scaled, so its pictures are the labels and the mask.
    let pictures: Vec<_> = figures[0].split("base64,").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let [photo, label, mask, wrong] = pictures[..] else { panic!("{} pictures", pictures.len()) };
    let open = |text: &str| image::load_from_memory(&STANDARD.decode(text).unwrap()).unwrap();
    let colors = |text: &str| open(text).into_rgb8();
    let labels = image::open(set.path("labels/sub/b.png")).unwrap().into_luma8();
    assert_eq!(open(photo).into_rgb8().dimensions(), labels.dimensions());
    let color = |id: u8| if id == 255 { [0; 3] } else { PALETTE.with(|palette| palette[usize::from(id)]) };
    assert!(colors(label).pixels().zip(labels.as_raw()).all(|(pixel, id)| pixel.0 == color(*id)));
    assert!(colors(mask).pixels().zip(set.masks[1].as_raw()).all(|(pixel, id)| pixel.0 == color(*id)));
    let wrong = open(wrong).into_rgba8();
    for ((pixel, label), seen) in wrong.pixels().zip(labels.as_raw()).zip(set.masks[1].as_raw()) {
        assert_eq!(pixel.0[3] > 0, *label != 255 && label != seen);
    }
}

thread_local! {
    /// The colours of the tiny network's classes.
    static PALETTE: Vec<[u8; 3]> = {
        let segmenter = rtformer::Segmenter::open(data("golden/tiny.safetensors"), rtformer::Device::Cpu).unwrap();
        (0..CLASSES as u16).map(|id| segmenter.palette().color(id)).collect()
    };
}
