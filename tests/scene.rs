//! Uses the library as a user does: photos in, scenes out.

use std::path::{Path, PathBuf};

use image::{DynamicImage, RgbImage};
use rtformer::pixels::{Image, Mask, PixelFormat, Pixels, Size};
use rtformer::weights::{Checkpoint, Store, Weights, save};
use rtformer::{Augmentation, Builder, Decision, Device, Error, ErrorKind, Segmenter};
use safetensors::SafeTensors;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The goldens' random network.
fn tiny() -> Builder {
    Segmenter::builder().weights(data("golden/tiny.safetensors"))
}

fn photo() -> RgbImage {
    Image::open(data("golden/photo.png")).unwrap().into_rgb()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// From a file to logits and mask, compared with PaddleSeg's own transforms and network: at native size, stretched, and
/// with the aspect ratio kept.
#[test]
fn a_photo_gives_the_same_result_as_paddleseg() {
    let bytes = std::fs::read(data("golden/photo.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let photo = photo();
    assert_eq!(photo.as_raw().as_slice(), golden.tensor("photo").unwrap().data());
    let ways = [
        ("plain", Size::Native),
        ("stretch", Size::Exact { width: 75, height: 83 }),
        ("fit", Size::Within { width: 120, height: 51 }),
    ];
    for device in [Device::Cpu, Device::Reference] {
        for (way, size) in ways {
            let segmenter = tiny().device(device).size(size).logits(true).build().unwrap();
            let scene = segmenter.segment(&photo).unwrap();
            let want = floats(golden.tensor(&format!("{way}.logits")).unwrap().data());
            let got = scene.logits().unwrap();
            assert_eq!(got.len(), want.len(), "{device} {way}");
            let greatest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
            let worst = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= 1e-4 * greatest, "{device} {way}: off by {worst:e} of {greatest}");
            let mask = golden.tensor(&format!("{way}.mask")).unwrap();
            assert_eq!(scene.mask().ids_u8().unwrap(), mask.data(), "{device} {way}");
        }
    }
}

/// Mirrored and scaled versions, compared with PaddleSeg's `aug_inference`.
#[test]
fn augmented_photos_give_the_same_result_as_paddleseg() {
    let bytes = std::fs::read(data("golden/photo_augmented.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let photo = photo();
    let ways = [
        ("flip", Size::Native, true, vec![]),
        ("scales", Size::Native, false, vec![0.75, 1.0, 1.25]),
        ("fit", Size::Within { width: 120, height: 51 }, true, vec![0.75, 1.25]),
    ];
    for device in [Device::Cpu, Device::Reference] {
        for (way, size, flip, scales) in ways.clone() {
            let builder = tiny().device(device).size(size).augment(Augmentation { flip, scales });
            let scene = builder.clone().logits(true).confidence(true).build().unwrap().segment(&photo).unwrap();
            let mask = golden.tensor(&format!("{way}.mask")).unwrap();
            assert_eq!(scene.mask().ids_u8().unwrap(), mask.data(), "{device} {way}");
            let mut reused = Mask::new(1, 1, 5);
            builder.build().unwrap().segment_into(&photo, &mut reused).unwrap();
            assert_eq!(&reused, scene.mask(), "{device} {way}");
            let got = scene.logits().unwrap();
            if let Ok(want) = golden.tensor(&format!("{way}.logits")) {
                let want = floats(want.data());
                let greatest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
                let worst = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(
                    got.len() == want.len() && worst <= 1e-4 * greatest,
                    "{device} {way}: off by {worst:e} of {greatest}"
                );
            }
            // The confidence is the softmax of these logits.
            let pixels = photo.width() as usize * photo.height() as usize;
            for pixel in [0, 777, pixels - 1] {
                let all: Vec<f64> = (0..5).map(|class| f64::from(got[class * pixels + pixel]).exp()).collect();
                let want = all[scene.mask().iter().nth(pixel).unwrap() as usize] / all.iter().sum::<f64>();
                assert!((f64::from(scene.confidence().unwrap()[pixel]) - want).abs() < 1e-5, "{device} {way}");
            }
        }
    }
}

#[test]
fn every_pixel_format_and_stride_gives_the_same_mask() {
    let segmenter = tiny().build().unwrap();
    let photo = photo();
    let (width, height) = photo.dimensions();
    let want = segmenter.segment(&photo).unwrap().into_mask();
    let formats = [(PixelFormat::Rgb8, 0), (PixelFormat::Bgr8, 5), (PixelFormat::Rgba8, 0), (PixelFormat::Bgra8, 12)];
    for (format, slack) in formats {
        let mut buffer = Vec::new();
        for row in photo.rows() {
            for pixel in row {
                let [r, g, b] = pixel.0;
                match format {
                    PixelFormat::Rgb8 => buffer.extend([r, g, b]),
                    PixelFormat::Bgr8 => buffer.extend([b, g, r]),
                    PixelFormat::Rgba8 => buffer.extend([r, g, b, 77]),
                    _ => buffer.extend([b, g, r, 0]),
                }
            }
            buffer.extend(vec![200; slack]);
        }
        let stride = width as usize * format.channels() + slack;
        let pixels = Pixels::new(&buffer, width, height, stride, format).unwrap();
        assert_eq!(segmenter.segment(pixels).unwrap().mask(), &want, "{format:?}");
    }
    let dynamic = DynamicImage::ImageRgb8(photo.clone());
    assert_eq!(segmenter.segment(&dynamic).unwrap().mask(), &want);
    let grey = dynamic.to_luma8();
    let replicated = DynamicImage::ImageLuma8(grey.clone()).to_rgb8();
    assert_eq!(segmenter.segment(&grey).unwrap().mask(), segmenter.segment(&replicated).unwrap().mask());
}

#[test]
fn batches_and_reused_masks_equal_single_photos() {
    let segmenter = tiny().confidence(true).build().unwrap();
    let whole = photo();
    let part = image::imageops::crop_imm(&whole, 7, 3, 61, 41).to_image();
    let photos = [&whole, &whole, &part, &whole];
    let scenes = segmenter.segment_batch(photos).unwrap();
    let mut mask = Mask::new(1, 1, 2);
    for (scene, photo) in scenes.iter().zip(photos) {
        let alone = segmenter.segment(photo).unwrap();
        assert_eq!(scene.mask(), alone.mask());
        assert_eq!(scene.confidence(), alone.confidence());
        assert_eq!((scene.mask().width(), scene.mask().height()), photo.dimensions());
        segmenter.segment_into(photo, &mut mask).unwrap();
        assert_eq!(&mask, scene.mask());
    }
}

#[test]
fn an_error_names_its_photo_and_spares_the_others() {
    // At this size a line is a line, and any other photo has more pixels than the network takes.
    let segmenter = tiny().size(Size::Within { width: 65_535, height: 65_535 }).build().unwrap();
    let (line, large) = (RgbImage::new(1, 65_535), photo());
    let photos = [Pixels::from(&large).named("camera 1"), (&line).into(), (&large).into()];
    let results = segmenter.segment_each(&photos);
    let [Err(named), Ok(scene), Err(unnamed)] = &results[..] else { panic!("{results:?}") };
    assert_eq!(scene.mask().height(), 65_535);
    assert!(named.to_string().starts_with("camera 1: "), "{named}");
    assert!(matches!(unnamed, Error::Input(_)), "{unnamed}");
    assert_eq!((named.kind(), unnamed.kind()), (ErrorKind::Input, ErrorKind::Input));
    assert_eq!(segmenter.segment_batch(&photos).unwrap_err().to_string(), named.to_string());
    let mut mask = Mask::new(1, 1, 2);
    assert_eq!(segmenter.segment_into(&photos[0], &mut mask).unwrap_err().to_string(), named.to_string());
    let file = segmenter.segment(&Image::open(data("golden/photo.png")).unwrap()).unwrap_err().to_string();
    assert!(file.contains("photo.png: "), "{file}");
}

#[test]
fn one_segmenter_serves_many_threads() {
    let segmenter = tiny().build().unwrap();
    let photo = photo();
    let want = segmenter.segment(&photo).unwrap().into_mask();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(segmenter.segment(&photo).unwrap().mask(), &want);
                }
            });
        }
    });
}

/// The confidence is the softmax of the logits divided by the file's temperature. The mask does not depend on the
/// temperature.
#[test]
fn the_confidence_uses_the_files_temperature() {
    let source = Weights::open(data("golden/tiny.safetensors")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let photo = photo();
    for temperature in [None, Some(0.5), Some(1.0), Some(2.5)] {
        let checkpoint = Checkpoint { temperature, ..Checkpoint::of(&source).unwrap() };
        let path = folder.path().join("tiny.safetensors");
        save(&path, &checkpoint, &source.dataset().unwrap(), source.metadata("config").unwrap(), Store::F32).unwrap();
        for device in [Device::Cpu, Device::Reference] {
            let segmenter =
                Segmenter::builder().weights(&path).device(device).confidence(true).logits(true).build().unwrap();
            assert_eq!(segmenter.temperature(), temperature.unwrap_or(1.0));
            let scene = segmenter.segment(&photo).unwrap();
            let (logits, pixels) = (scene.logits().unwrap(), scene.mask().iter().count());
            for (pixel, (&got, class)) in scene.confidence().unwrap().iter().zip(scene.mask().iter()).enumerate() {
                let logit = |class: usize| f64::from(logits[class * pixels + pixel] / temperature.unwrap_or(1.0));
                let others: f64 = (0..5).map(|other| (logit(other) - logit(class.into())).exp()).sum();
                assert!((f64::from(got) - 1.0 / others).abs() < 2e-5, "{device} at {temperature:?}, pixel {pixel}");
            }
        }
    }
}

#[test]
fn unsure_pixels_are_rejected_and_belong_to_no_class() {
    let photo = photo();
    let sure = tiny().confidence(true).build().unwrap().segment(&photo).unwrap();
    let mut sorted = sure.confidence().unwrap().to_vec();
    sorted.sort_by(f32::total_cmp);
    let below = sorted[sorted.len() / 3];
    let scene = tiny().reject_below(below).build().unwrap().segment(&photo).unwrap();
    assert!(scene.confidence().is_none(), "the confidence was not requested");
    let ignore = scene.mask().ignore_id();
    for ((id, p), kept) in scene.mask().iter().zip(sure.confidence().unwrap()).zip(sure.mask().iter()) {
        assert_eq!(id, if *p < below { ignore } else { kept });
    }
    let share: f64 = scene.classes().iter().map(|class| class.share).sum();
    assert!((share - 2.0 / 3.0).abs() < 0.01, "{share}");
    assert!(matches!(tiny().reject_below(1.5).build(), Err(Error::Input(_))));
}

#[test]
fn the_smallest_photos_have_masks_too() {
    let segmenter = tiny().build().unwrap();
    for (width, height) in [(1, 1), (32, 32), (33, 1), (5, 70)] {
        let photo = image::imageops::crop_imm(&photo(), 0, 0, width, height.min(64)).to_image();
        let scene = segmenter.segment(&photo).unwrap();
        assert_eq!((scene.mask().width(), scene.mask().height()), photo.dimensions());
    }
}

#[test]
fn the_embedded_weights_recognize_a_street() {
    let segmenter = Segmenter::embedded(Device::Cpu).unwrap();
    let street = Image::open(data("street/0016E5_07959.jpg")).unwrap();
    let scene = segmenter.segment(&street).unwrap();
    let share = |name: &str| scene.classes().iter().find(|class| class.name == name).map_or(0.0, |class| class.share);
    assert!(share("road") > 0.15 && share("road") < 0.6, "{:?}", scene.classes());
    assert!(share("building") + share("tree") + share("sky") > 0.2, "{:?}", scene.classes());
    assert!(scene.timings().decode > 0.0);
}

/// Another decision changes few pixels, keeps the logits, and its confidence is the probability of the class that was chosen.
#[test]
fn decisions_for_a_measure_choose_by_the_same_logits() {
    let photo = Image::open(data("street/0016E5_07959.jpg")).unwrap();
    let open =
        |decision| Segmenter::builder().device(Device::Cpu).decide(decision).logits(true).confidence(true).build();
    let most_probable = open(Decision::Argmax).unwrap().segment(&photo).unwrap();
    let pixels = (photo.width() * photo.height()) as usize;
    for decision in [Decision::Iou, Decision::Dice] {
        let segmenter = open(decision).unwrap();
        let scene = segmenter.segment(&photo).unwrap();
        assert_eq!(scene.logits(), most_probable.logits(), "{decision}");
        let changed = scene.mask().iter().zip(most_probable.mask().iter()).filter(|(a, b)| a != b).count();
        assert!(changed > 0 && changed < pixels / 20, "{decision}: {changed} of {pixels}");
        let logits = scene.logits().unwrap();
        for (pixel, id) in scene.mask().iter().enumerate().step_by(97) {
            let weight =
                |class: usize| (f64::from(logits[class * pixels + pixel]) / f64::from(segmenter.temperature())).exp();
            let all: f64 = (0..logits.len() / pixels).map(weight).sum();
            let confidence = f64::from(scene.confidence().unwrap()[pixel]);
            assert!((confidence - weight(usize::from(id)) / all).abs() < 1e-5, "{decision}, {pixel}");
        }
    }
    let both = Segmenter::builder().decide(Decision::Dice).tile("200x200+40".parse().unwrap()).build().unwrap();
    assert_eq!(both.segment(&photo).unwrap().mask().width(), photo.width());
}
