//! Photos that are read row by row, and TIFFs with bands.

use std::fs;
use std::path::PathBuf;

use image::{DynamicImage, ImageFormat};
use rtformer::Result;
use rtformer::pixels::{Decoder, Depth, Image, Limits, RowReader};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// All rows, read a few at a time.
fn read(reader: &mut RowReader, at_once: usize) -> Result<Vec<u8>> {
    let length = 3 * reader.width() as usize;
    let mut all = vec![0; length * reader.height() as usize];
    all.chunks_mut(at_once * length).try_for_each(|rows| reader.read(rows)).map(|()| all)
}

/// Every file that can be decoded at once gives the same pixels by rows.
#[test]
fn rows_are_those_of_the_decoded_picture() {
    let folder = tempfile::tempdir().unwrap();
    let photo = image::open(data("golden/photo.png")).unwrap();
    let mut files = vec![data("golden/photo.png"), data("field/gray12in16.png")];
    let kinds = [
        ("rgb8", DynamicImage::from(photo.to_rgb8())),
        ("rgba8", photo.to_rgba8().into()),
        ("grey8", photo.to_luma8().into()),
        ("greya8", photo.to_luma_alpha8().into()),
        ("rgb16", photo.to_rgb16().into()),
        ("rgba16", photo.to_rgba16().into()),
        ("grey16", photo.to_luma16().into()),
    ];
    for (name, picture) in kinds {
        for format in [ImageFormat::Png, ImageFormat::Tiff] {
            let path = folder.path().join(format!("{name}.{}", format.extensions_str()[0]));
            if picture.save_with_format(&path, format).is_ok() {
                files.push(path); // `image` writes no TIFF with grey and alpha
            }
        }
    }
    for format in ["jpg", "bmp", "webp", "gif", "ppm"] {
        let path = folder.path().join(format!("photo.{format}"));
        photo.to_rgb8().save(&path).unwrap();
        files.push(path);
    }
    assert_eq!(files.len(), 2 + 13 + 5);
    for path in files {
        let decoder = Decoder::default();
        let want = decoder.open(&path).unwrap();
        for at_once in [1, 7, 1000] {
            let mut reader = RowReader::open(&path, &decoder).unwrap();
            assert_eq!((reader.width(), reader.height()), (want.width(), want.height()), "{path:?}");
            assert_eq!(read(&mut reader, at_once).unwrap(), *want.rgb().as_raw(), "{path:?}");
            assert_eq!(reader.likely_depth(), want.likely_depth(), "{path:?}");
            assert!(reader.read(&mut vec![0; 3 * want.width() as usize]).is_err(), "{path:?}: no row is left");
        }
        let mut memory = RowReader::decode(fs::read(&path).unwrap(), &path, &decoder).unwrap();
        assert!(memory.held() >= fs::metadata(&path).unwrap().len(), "{path:?}");
        assert_eq!(read(&mut memory, 5).unwrap(), *want.rgb().as_raw(), "{path:?}");
        for depth in [Depth::Bits(16), Depth::Range { low: 1000.0, high: 60_000.0 }] {
            let decoder = Decoder { depth, ..decoder };
            let want = decoder.open(&path).unwrap();
            let mut reader = RowReader::open(&path, &decoder).unwrap();
            assert_eq!(read(&mut reader, 9).unwrap(), *want.rgb().as_raw(), "{path:?} at {depth}");
        }
    }
}

/// Files of tifffile, whose samples follow from a formula; see `tests/data/bands.py`.
#[test]
fn bands_and_samples_of_every_width_are_read() {
    let value = |band: u32, x: u32, y: u32| ((37 * (band - 1) + 5 * y + 3 * x) % 256) as u8;
    let (auto, unit) = (Depth::Auto, Depth::Range { low: -1.0, high: 1.0 });
    let cases = [
        ("u16_strips.tif", auto, Some([4, 3, 2])),
        ("u16_strips.tif", Depth::Range { low: 99.0, high: 99.0 + 256.0 * 255.0 }, Some([6, 1, 1])),
        ("u16_big_tiff.tif", auto, Some([6, 5, 4])),
        ("u8_planes_tiles.tif", auto, Some([5, 1, 6])),
        ("u8_rgb_and_two.tif", auto, Some([5, 4, 1])), // the extra samples of a picture in colour
        ("u8_rgb_and_two.tif", auto, None),            // its colours
        ("u8_rgb_tiles.tif", auto, None),
        ("u8_rgb_tiles.tif", auto, Some([3, 2, 1])),
        ("f32_deflate_tiles.tif", unit, Some([2, 4, 6])),
        ("f32_grey.tif", unit, None),
        ("f64_grey.tif", unit, None),
        ("i16_grey.tif", Depth::Range { low: -128.0, high: 127.0 }, None),
    ];
    for (name, depth, bands) in cases {
        let path = data("bands").join(name);
        let decoder = Decoder { depth, bands, ..Decoder::default() };
        let shown = bands.unwrap_or(if name.contains("grey") { [1; 3] } else { [1, 2, 3] });
        let want = image::RgbImage::from_fn(20, 15, |x, y| image::Rgb(shown.map(|band| value(u32::from(band), x, y))));
        assert_eq!(*decoder.open(&path).unwrap().rgb(), want, "{name} {bands:?}");
        let mut reader = RowReader::open(&path, &decoder).unwrap();
        assert_eq!(read(&mut reader, 4).unwrap(), *want.as_raw(), "{name} {bands:?} by rows");
        assert!(reader.held() < 300_000, "{name}: {}", reader.held());
    }
    let refused = [
        (
            "bands/u16_strips.tif",
            auto,
            None,
            "has 6 bands; choose those for red, green and blue, such as --bands 3,2,1",
        ),
        ("bands/u16_strips.tif", auto, Some([1, 2, 7]), "has no band 7; it has 6, counted from 1"),
        ("bands/u16_strips.tif", Depth::Bits(12), Some([1, 2, 3]), "12 bits hold at most 4095"),
        ("bands/f32_grey.tif", auto, None, "has floating-point samples, whose range is unknown"),
        ("bands/i16_grey.tif", auto, None, "has signed or 32-bit samples, whose range is unknown"),
        ("golden/photo.png", auto, Some([1, 2, 3]), "has no bands, because it is a PNG; --bands is for TIFFs"),
    ];
    for (name, depth, bands, want) in refused {
        let decoder = Decoder { depth, bands, ..Decoder::default() };
        let error = decoder.open(data(name)).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
        let error = RowReader::open(data(name), &decoder).and_then(|mut reader| read(&mut reader, 3)).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn pictures_that_cannot_be_read_by_rows_are_decoded_at_once_within_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let photo = Image::open(data("golden/photo.png")).unwrap().into_rgb();
    let path = folder.path().join("photo.jpg");
    photo.save(&path).unwrap();
    let length = photo.len() as u64;
    assert_eq!(RowReader::open(&path, &Decoder::default()).unwrap().held(), length);
    assert!(RowReader::open(data("golden/photo.png"), &Decoder::default()).unwrap().held() > 0);
    let small =
        Decoder { limits: Limits { max_alloc: length, max_pixels: 1, ..Limits::default() }, ..Decoder::default() };
    let error = RowReader::open(&path, &small).unwrap_err().to_string();
    assert!(error.contains("photo.jpg: 96x64 needs") && error.contains("decoded at once"), "{error}");
    assert!(RowReader::open(data("golden/photo.png"), &small).is_ok(), "rows need no limit on the number of pixels");
    let side = Decoder { limits: Limits { max_side: 95, ..Limits::default() }, ..Decoder::default() };
    assert!(RowReader::open(data("golden/photo.png"), &side).unwrap_err().to_string().contains("95 pixels per side"));
}

#[test]
fn a_file_that_ends_early_fails_at_the_missing_row() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["golden/photo.png", "bands/u8_rgb_tiles.tif", "bands/u16_strips.tif"] {
        let bytes = fs::read(data(name)).unwrap();
        let decoder = Decoder { bands: name.contains("u16").then_some([1, 2, 3]), ..Decoder::default() };
        for keep in [0, 9, 60, bytes.len() / 2, bytes.len() - 400] {
            let path = folder.path().join("cut");
            fs::write(&path, &bytes[..keep]).unwrap();
            let failed = RowReader::open(&path, &decoder).and_then(|mut reader| read(&mut reader, 2));
            let error = failed.expect_err(&format!("{name} of {keep} bytes")).to_string();
            assert!(error.contains("cut: ") && !error.contains("failed on this file"), "{name}, {keep}: {error}");
        }
    }
}
