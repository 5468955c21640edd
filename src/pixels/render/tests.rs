//! Writes files and reads them back with other crates.

use std::fs;
use std::io::Cursor;

use super::*;
use crate::error::Error;
use crate::pixels::mask::IdsMut;

fn mask(width: u32, height: u32, classes: usize, ids: &[u16]) -> Mask {
    let mut mask = Mask::new(width, height, classes);
    match mask.ids_mut() {
        IdsMut::U8(out) => out.iter_mut().zip(ids).for_each(|(out, &id)| *out = id as u8),
        IdsMut::U16(out) => out.copy_from_slice(ids),
    }
    mask
}

/// The colour type, depth, palette and samples of a PNG as stored.
fn stored(file: &[u8]) -> (ColorType, BitDepth, Option<Vec<u8>>, Vec<u8>) {
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().unwrap();
    let mut samples = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut samples).unwrap();
    let info = reader.info();
    (info.color_type, info.bit_depth, info.palette.as_ref().map(|palette| palette.to_vec()), samples)
}

fn written(mask: &Mask, palette: &Palette) -> Vec<u8> {
    let mut file = Vec::new();
    IndexedPicture::new(mask, palette).write_to(&mut file).unwrap();
    file
}

#[test]
fn an_indexed_picture_holds_the_ids_and_the_colours() {
    let colors: Vec<[u8; 3]> = (0..19).map(|id| [id, 2 * id, 255 - id]).collect();
    let palette = Palette::new(colors.clone());
    let cases: [(&str, u32, u32, &[u16]); 4] = [
        ("one pixel", 1, 1, &[18]),
        ("a row with ignored pixels", 5, 1, &[0, 255, 7, 255, 18]),
        ("a column", 1, 4, &[3, 3, 3, 0]),
        ("similar rows", 3, 3, &[1, 2, 3, 1, 2, 3, 1, 2, 255]),
    ];
    for (why, width, height, ids) in cases {
        let (color, depth, table, samples) = stored(&written(&mask(width, height, 19, ids), &palette));
        assert_eq!((color, depth), (ColorType::Indexed, BitDepth::Eight), "{why}");
        assert_eq!(samples.iter().map(|&id| u16::from(id)).collect::<Vec<_>>(), ids, "{why}");
        let table = table.unwrap();
        assert_eq!(table.len(), 3 * 256, "{why}: the ignore id has a colour too");
        assert_eq!(&table[..57], colors.as_flattened(), "{why}");
        assert!(table[57..].iter().all(|&value| value == 0), "{why}: the rest is black");
    }
    // The colours that a viewer shows.
    let seen = image::load_from_memory(&written(&mask(2, 1, 19, &[18, 255]), &palette)).unwrap().to_rgb8();
    assert_eq!(seen.as_raw(), &[18, 36, 237, 0, 0, 0]);
}

#[test]
fn with_more_than_256_classes_a_picture_is_16_bit_grey() {
    let ids = [0, 255, 256, 299, 0x1234, 65535];
    let (color, depth, table, samples) = stored(&written(&mask(3, 2, 300, &ids), &Palette::default()));
    assert_eq!((color, depth, table), (ColorType::Grayscale, BitDepth::Sixteen, None));
    let numbers: Vec<u16> = samples.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
    assert_eq!(numbers, ids);
}

#[test]
fn alpha_is_the_weight_of_the_colour() {
    let photo = RgbImage::from_fn(3, 1, |x, _| image::Rgb([10 * x as u8, 255, 100]));
    let palette = Palette::new(vec![[200, 0, 101], [1, 2, 3]]);
    let mask = mask(3, 1, 2, &[0, 255, 1]);
    let untouched = [10, 255, 100];
    let half = [[100, 128, 101], untouched, [11, 129, 52]];
    let cases = [
        ("only the photo", 0.0, [[0, 255, 100], untouched, [20, 255, 100]]),
        ("half", 0.5, half),
        ("only the colour", 1.0, [[200, 0, 101], untouched, [1, 2, 3]]),
        ("NaN is 0", f32::NAN, [[0, 255, 100], untouched, [20, 255, 100]]),
        ("below 0", -3.0, [[0, 255, 100], untouched, [20, 255, 100]]),
        ("above 1", f32::INFINITY, [[200, 0, 101], untouched, [1, 2, 3]]),
    ];
    for (why, alpha, want) in cases {
        let got = overlay(&(&photo).into(), &mask, &palette, alpha);
        assert_eq!(got.as_raw().as_chunks::<3>().0, want, "{why}");
    }
}

#[test]
fn an_overlay_keeps_pixels_outside_the_mask() {
    let photo = RgbImage::from_pixel(3, 2, image::Rgb([9, 9, 9]));
    let palette = Palette::new(vec![[255; 3]]);
    let got = overlay(&(&photo).into(), &mask(2, 1, 1, &[0, 0]), &palette, 1.0);
    let drawn: Vec<bool> = got.pixels().map(|pixel| pixel.0 == [255; 3]).collect();
    assert_eq!(drawn, [true, true, false, false, false, false]);
    // A larger mask is cropped, and an id without a colour is black.
    let got = overlay(&(&photo).into(), &mask(4, 3, 3, &[2; 12]), &palette, 1.0);
    assert!(got.pixels().all(|pixel| pixel.0 == [0; 3]));
    let wide = mask(3, 2, 300, &[65535, 0, 299, 0, 0, 0]);
    assert_eq!(overlay(&(&photo).into(), &wide, &palette, 1.0).get_pixel(0, 0).0, [9; 3], "the wide ignore id");
}

#[test]
fn confidence_is_grey() {
    let cases: [(&str, &[f32], [u8; 4]); 4] = [
        ("from black to white", &[0.0, 0.25, 0.5, 1.0], [0, 64, 128, 255]),
        ("out of range", &[-1.0, 1.5, f32::INFINITY, f32::NEG_INFINITY], [0, 255, 255, 0]),
        ("too few, and a NaN", &[f32::NAN, 1.0], [0, 255, 0, 0]),
        ("too many", &[1.0; 9], [255; 4]),
    ];
    for (why, confidence, want) in cases {
        assert_eq!(confidence_picture(confidence, 2, 2).as_raw(), &want, "{why}");
    }
    assert!(confidence_picture(&[1.0], 0, 5).is_empty());
}

#[test]
fn label_ids_are_cityscapes_own() {
    // Source: cityscapesScripts, helpers/labels.py, the 19 labels used for training.
    let labels = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33];
    let ids: Vec<u16> = (0..19).chain([255, 19]).collect();
    let got = label_ids(&mask(21, 1, 19, &ids), &labels);
    assert_eq!(got.as_raw()[..19].iter().map(|&id| u16::from(id)).collect::<Vec<_>>(), labels);
    assert_eq!(got.as_raw()[19..], [0, 0], "ignored pixels and unknown ids are unlabeled");
    let wide = label_ids(&mask(4, 1, 300, &[0, 1, 299, 65535]), &[5, 256]);
    assert_eq!(wide.as_raw(), &[5, 0, 0, 0], "a label above 255 is unlabeled");
}

#[test]
fn an_array_is_a_numpy_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/in/logits.npy");
    let data: Vec<f32> = (0..24).map(|i| i as f32 - 11.5).chain([f32::MIN_POSITIVE, -0.0, 1e30, f32::NAN]).collect();
    for (shape, data) in [([4, 2, 3], &data[..24]), ([1, 1, 28], &data), ([0, 5, 5], &[])] {
        write_npy(&path, data, shape).unwrap();
        let bytes = fs::read(&path).unwrap();
        let (header, numbers) = bytes.split_at(128);
        let [a, b, c] = shape;
        assert!(String::from_utf8_lossy(header).contains(&format!("'shape': ({a}, {b}, {c})")));
        assert_eq!(numbers, data.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>());
    }
    let before = fs::read(&path).unwrap();
    for shape in [[4, 2, 4], [0, 2, 3], [usize::MAX, 2, 1], [usize::MAX, usize::MAX, usize::MAX]] {
        let text = write_npy(&path, &data[..24], shape).unwrap_err().to_string();
        assert!(text.contains("logits.npy") && text.contains("24 numbers do not fill an array of shape"), "{text}");
    }
    assert_eq!(fs::read(&path).unwrap(), before, "a failed write leaves the old file");
}

#[test]
fn pictures_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.png");
    let rgb = RgbImage::from_fn(7, 5, |x, y| image::Rgb([x as u8 * 30, y as u8 * 50, 9]));
    save_rgb(&path, &rgb).unwrap();
    assert_eq!(image::open(&path).unwrap(), rgb.into());
    let gray = GrayImage::from_fn(5, 7, |x, y| Luma([(x * y) as u8]));
    save_gray(&path, &gray).unwrap();
    assert_eq!(image::open(&path).unwrap(), gray.into());
    let mask = mask(2, 2, 3, &[0, 1, 2, 255]);
    IndexedPicture::new(&mask, &Palette::default()).save(&path).unwrap();
    assert_eq!(stored(&fs::read(&path).unwrap()).3, [0, 1, 2, 255]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn a_failed_write_names_the_file_and_leaves_nothing() {
    type Write = fn(&Path) -> Result<()>;
    let writers: [(&str, Write); 4] = [
        ("a mask", |path| IndexedPicture::new(&Mask::new(2, 2, 3), &Palette::default()).save(path)),
        ("an overlay", |path| save_rgb(path, &RgbImage::new(2, 2))),
        ("a confidence", |path| save_gray(path, &GrayImage::new(2, 2))),
        ("logits", |path| write_npy(path, &[1.0; 4], [1, 2, 2])),
    ];
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::write(root.join("file"), b"in the way").unwrap();
    fs::create_dir(root.join("folder")).unwrap();
    let mut places = vec![
        ("a file in place of the folder", root.join("file/out.png")),
        ("a folder in place of the file", root.join("folder")),
        ("no name", std::path::PathBuf::new()),
    ];
    if cfg!(target_os = "linux") {
        places.push(("a folder without write permission", "/proc/self/out.png".into()));
    }
    for (what, write) in writers {
        for (why, path) in &places {
            match write(path) {
                Err(Error::Write { path: named, .. }) => assert_eq!(&named, path, "{what}: {why}"),
                other => panic!("{what}: {why}: {other:?}"),
            }
        }
        let mut left: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["file", "folder"], "{what}");
    }
    assert_eq!(fs::read(root.join("file")).unwrap(), b"in the way");
    assert_eq!(fs::read_dir(root.join("folder")).unwrap().count(), 0);
    // A PNG cannot be empty.
    let path = root.join("nothing.png");
    for (width, height) in [(0, 0), (0, 4), (4, 0)] {
        assert!(IndexedPicture::new(&Mask::new(width, height, 3), &Palette::default()).save(&path).is_err());
        assert!(save_rgb(&path, &RgbImage::new(width, height)).is_err());
        assert!(!path.exists());
    }
}

#[test]
fn an_overlay_is_the_rounded_mean_of_photo_and_colour() {
    // Every value of a channel, under every colour, in rows that end within the mask and beyond it.
    let photo = RgbImage::from_fn(256, 8, |x, y| image::Rgb([x as u8, 255 - x as u8, (x * 7 + y) as u8]));
    let palette = Palette::new(vec![[0, 128, 255], [255, 1, 77]]);
    let ids: Vec<u16> = (0..256 * 7).map(|i| [0, 1, 2, 255][i as usize / 256 % 4]).collect(); // 2 has no colour: black
    let mask = mask(256, 7, 3, &ids);
    for alpha in [0.0, 0.1, 0.25, 0.5, 0.7, 1.0, f32::NAN] {
        let picture = overlay(&(&photo).into(), &mask, &palette, alpha);
        let alpha = if alpha.is_nan() { 0.0 } else { alpha };
        for (x, y, pixel) in picture.enumerate_pixels() {
            let below = photo.get_pixel(x, y).0;
            let want = match (y, ids.get((y * 256 + x) as usize)) {
                (7, _) | (_, Some(255) | None) => below,
                (_, Some(&id)) => std::array::from_fn(|i| {
                    let color = palette.color(id)[i];
                    (f32::from(below[i]) * (1.0 - alpha) + f32::from(color) * alpha).round() as u8
                }),
            };
            assert_eq!(pixel.0, want, "({x}, {y}), alpha {alpha}");
        }
    }
    let bgr: Vec<u8> = photo.pixels().flat_map(|pixel| [pixel[2], pixel[1], pixel[0], 9]).collect();
    let bgr = Pixels::new(&bgr, 256, 8, 4 * 256, super::super::PixelFormat::Bgra8).unwrap();
    assert_eq!(overlay(&bgr, &mask, &palette, 0.3), overlay(&(&photo).into(), &mask, &palette, 0.3));
}
