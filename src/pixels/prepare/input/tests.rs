//! Compares with PaddleSeg's own numbers, and with a scalar `cv2.resize` of one pixel.

use std::path::Path;

use image::{DynamicImage, RgbImage};
use safetensors::SafeTensors;

use super::super::{PixelFormat, Size};
use super::*;

const IMAGENET: Normalization = Normalization { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/// A picture of noise; the same in every run.
fn noise(width: u32, height: u32) -> RgbImage {
    let mut state = u64::from(width) << 32 | u64::from(height);
    RgbImage::from_fn(width, height, |_, _| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [.., r, g, b] = state.to_be_bytes().map(|byte| byte ^ (state >> 59) as u8);
        image::Rgb([r, g, b])
    })
}

fn sized(size: Size) -> Preparation {
    Preparation { size, ..Preparation::new(IMAGENET) }
}

fn prepared(photo: &RgbImage, size: Size) -> Input {
    Input::prepare(&photo.into(), &sized(size)).unwrap()
}

/// One pixel by the definitions of OpenCV's bilinear interpolation of floats and numpy's normalization.
fn scalar(photo: &RgbImage, (to_width, to_height): (u32, u32), (x, y, channel): (u32, u32, usize)) -> f32 {
    let (width, height) = photo.dimensions();
    let position = |at: u32, from: u32, to: u32| {
        let scale = 1.0 / (f64::from(to) / f64::from(from));
        let at = ((f64::from(at) + 0.5) * scale - 0.5) as f32;
        (at.floor() as i32, at - at.floor())
    };
    let ((mut left, mut across), (top, down)) = (position(x, width, to_width), position(y, height, to_height));
    if left < 0 {
        (left, across) = (0, 0.0);
    }
    if left >= width as i32 - 1 {
        (left, across) = (width as i32 - 1, 0.0);
    }
    let sample = |x: i32, y: i32| {
        let (x, y) = (x.clamp(0, width as i32 - 1), y.clamp(0, height as i32 - 1));
        f32::from(photo.get_pixel(x as u32, y as u32)[channel])
    };
    let row = |y: i32| sample(left, y) * (1.0 - across) + sample(left + 1, y) * across;
    let value = row(top) * (1.0 - down) + row(top + 1) * down;
    let centred = (f64::from(value / 255.0) - IMAGENET.mean[channel]) as f32;
    (f64::from(centred) / IMAGENET.std[channel]) as f32
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn a_photo_becomes_paddlesegs_input() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/photo.safetensors");
    let bytes = std::fs::read(golden).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let photo = RgbImage::from_raw(96, 64, golden.tensor("photo").unwrap().data().to_vec()).unwrap();
    // OpenCV's wheel resizes small pictures with Intel's IPP, which rounds differently: 1e-5 of the range of 4.4.
    let ways = [
        ("plain", Size::Native, 0.0),
        ("stretch", Size::Exact { width: 75, height: 83 }, 4.4e-5),
        ("fit", Size::Within { width: 120, height: 51 }, 4.4e-5),
    ];
    for (way, size, tolerance) in ways {
        let want = golden.tensor(&format!("{way}.input")).unwrap();
        let got = prepared(&photo, size);
        assert_eq!(want.shape(), [1, 3, got.height, got.width], "{way}");
        let want: Vec<f32> = want.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if tolerance == 0.0 {
            assert_eq!(bits(&got.data), bits(&want), "{way}: to the last bit");
        }
        let worst = got.data.iter().zip(&want).fold(0_f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst <= tolerance, "{way}: off by {worst:e}");
    }
}

#[test]
fn every_size_is_opencvs_bilinear_to_the_last_bit() {
    let cases = [
        ((1, 1), (1, 1)),       // one pixel
        ((1, 1), (7, 5)),       // one pixel repeated
        ((7, 5), (1, 1)),       // many pixels to one
        ((2, 2), (4, 4)),       // doubled
        ((8, 6), (4, 3)),       // halved: every weight is one half
        ((13, 9), (31, 17)),    // odd and larger
        ((31, 17), (13, 9)),    // odd and smaller
        ((5, 40), (40, 5)),     // wider and lower
        ((1, 9), (3, 4)),       // one column
        ((9, 1), (4, 3)),       // one row
        ((97, 33), (96, 33)),   // only the width
        ((33, 97), (33, 98)),   // only the height
        ((1500, 2), (1499, 3)), // so wide that the rounding of a position matters
    ];
    for (from, to) in cases {
        let photo = noise(from.0, from.1);
        let got = prepared(&photo, Size::Exact { width: to.0, height: to.1 });
        assert_eq!((got.width, got.height), (to.0 as usize, to.1 as usize));
        let mut numbers = got.data.iter();
        for channel in 0..3 {
            for (y, x) in (0..to.1).flat_map(|y| (0..to.0).map(move |x| (y, x))) {
                let (got, want) = (numbers.next().unwrap(), scalar(&photo, to, (x, y, channel)));
                assert_eq!(got.to_bits(), want.to_bits(), "{from:?} to {to:?}: ({x}, {y}), {channel}: {got}, {want}");
            }
        }
        assert!(numbers.next().is_none());
    }
}

#[test]
fn the_photos_own_size_is_not_resized_whichever_way_it_is_requested() {
    for (width, height) in [(1, 1), (3, 2), (64, 33), (65, 31)] {
        let photo = noise(width, height);
        let native = prepared(&photo, Size::Native);
        assert_eq!(native, prepared(&photo, Size::Exact { width, height }));
        assert_eq!(native, prepared(&photo, Size::Within { width, height }));
        for (channel, plane) in native.data.chunks_exact((width * height) as usize).enumerate() {
            for (number, pixel) in plane.iter().zip(photo.pixels()) {
                let centred = (f64::from(f32::from(pixel[channel]) / 255.0) - IMAGENET.mean[channel]) as f32;
                assert_eq!(number.to_bits(), ((f64::from(centred) / IMAGENET.std[channel]) as f32).to_bits());
            }
        }
    }
}

#[test]
fn a_uniform_picture_stays_uniform() {
    let photo = RgbImage::from_pixel(17, 11, image::Rgb([255, 0, 128]));
    let even = prepared(&photo, Size::Native);
    let input = prepared(&photo, Size::Exact { width: 5, height: 29 });
    for (plane, want) in input.data.chunks_exact(5 * 29).zip(even.data.chunks_exact(17 * 11)) {
        // Only the sum of a row's two weighted values may round.
        assert!(plane.iter().all(|number| (number - want[0]).abs() <= 1e-6), "{plane:?}, {}", want[0]);
    }
}

#[test]
fn every_pixel_format_and_padding_is_the_same_picture() {
    type Bytes = fn([u8; 3]) -> Vec<u8>;
    let formats: [(PixelFormat, Bytes); 4] = [
        (PixelFormat::Rgb8, |[r, g, b]| vec![r, g, b]),
        (PixelFormat::Bgr8, |[r, g, b]| vec![b, g, r]),
        (PixelFormat::Rgba8, |[r, g, b]| vec![r, g, b, 0]),
        (PixelFormat::Bgra8, |[r, g, b]| vec![b, g, r, 99]),
    ];
    for (width, height) in [(1, 1), (2, 1), (1, 2), (19, 7)] {
        let photo = noise(width, height);
        let grey = DynamicImage::ImageRgb8(photo.clone()).into_luma8();
        let repeated = DynamicImage::ImageLuma8(grey.clone()).into_rgb8();
        let mut cases: Vec<_> = formats
            .iter()
            .map(|(format, bytes)| (*format, &photo, photo.pixels().map(|p| bytes(p.0)).collect::<Vec<_>>()))
            .collect();
        cases.push((PixelFormat::Gray8, &repeated, grey.pixels().map(|p| p.0.to_vec()).collect()));
        for (format, photo, pixels) in cases {
            for padding in [0, 1, 13] {
                let rows = pixels.chunks(width as usize).map(|row| [row.concat(), vec![201; padding]].concat());
                let mut buffer = rows.collect::<Vec<_>>().concat();
                buffer.truncate(buffer.len() - padding); // The last row needs no padding.
                let stride = width as usize * format.channels() + padding;
                let view = Pixels::new(&buffer, width, height, stride, format).unwrap();
                for size in [Size::Native, Size::Exact { width: 11, height: 4 }] {
                    let got = Input::prepare(&view, &sized(size)).unwrap();
                    assert_eq!(bits(&got.data), bits(&prepared(photo, size).data), "{format:?}, {padding}, {size}");
                }
                assert_eq!(view.rgb(width - 1, height - 1), photo.get_pixel(width - 1, height - 1).0, "{format:?}");
            }
        }
    }
}

#[test]
fn a_buffer_that_is_too_small_is_refused() {
    let buffer = [0; 24];
    let cases = [
        ("no columns", (0, 2, 6, PixelFormat::Rgb8), Some("has no pixels")),
        ("no rows", (2, 0, 6, PixelFormat::Rgb8), Some("has no pixels")),
        ("a short stride", (2, 2, 5, PixelFormat::Rgb8), Some("a row is 6 bytes")),
        ("alpha needs one more byte", (2, 2, 7, PixelFormat::Bgra8), Some("a row is 8 bytes")),
        ("the whole buffer", (2, 4, 6, PixelFormat::Bgr8), None),
        ("the last row without padding", (2, 3, 9, PixelFormat::Rgb8), None),
        ("unused bytes at the end", (2, 3, 10, PixelFormat::Gray8), None),
        ("one row too many", (2, 5, 6, PixelFormat::Rgb8), Some("needs 30 bytes, the buffer has 24")),
        ("a stride beyond memory", (2, 3, usize::MAX, PixelFormat::Rgb8), Some("more bytes than fit in memory")),
        (
            "the largest possible size",
            (u32::MAX, u32::MAX, usize::MAX, PixelFormat::Rgba8),
            Some("more bytes than fit in memory"),
        ),
    ];
    for (why, (width, height, stride, format), want) in cases {
        match (Pixels::new(&buffer, width, height, stride, format), want) {
            (Ok(_), None) => {}
            (Err(error), Some(want)) => assert!(error.to_string().contains(want), "{why}: {error}"),
            (got, want) => panic!("{why}: {got:?}, wanted {want:?}"),
        }
    }
}

#[test]
fn a_failed_refill_leaves_the_input_unchanged() {
    let photo = noise(6, 4);
    let mut input = prepared(&photo, Size::Exact { width: 20, height: 20 });
    let before = input.clone();
    let with = |mean: f64, std: f64| Normalization { mean: [0.5, mean, 0.5], std: [0.5, 0.5, std] };
    let cases = [
        ("std 0", with(0.5, 0.0), Size::Native, "no std may be 0"),
        ("std -0", with(0.5, -0.0), Size::Native, "no std may be 0"),
        ("std NaN", with(0.5, f64::NAN), Size::Native, "must be finite"),
        ("an infinite mean", with(f64::INFINITY, 1.0), Size::Native, "must be finite"),
        ("no columns", IMAGENET, Size::Exact { width: 0, height: 5 }, "size 0x5 turns 6x4 pixels into 0x5"),
        ("too many pixels", IMAGENET, Size::Exact { width: 65_535, height: 65_535 }, "1 pixel to 64 megapixels"),
        (
            "too many when scaled",
            IMAGENET,
            Size::Within { width: u32::MAX, height: u32::MAX },
            "1 pixel to 64 megapixels",
        ),
    ];
    for (why, normalization, size, want) in cases {
        let text = input
            .refill(&(&photo).into(), &Preparation { normalization, size, pad_multiple: 1 })
            .unwrap_err()
            .to_string();
        assert!(text.contains(want), "{why}: {text}");
        assert_eq!(input, before, "{why}");
    }
    input.refill(&(&photo).into(), &sized(Size::Native)).unwrap();
    assert_eq!(input, prepared(&photo, Size::Native), "the memory of a larger photo has no effect");
}

#[test]
fn padding_is_zeros_at_the_bottom_and_on_the_right() {
    for (from, size, multiple) in [
        ((7, 5), Size::Native, 8),                           // both sides
        ((8, 5), Size::Native, 8),                           // only the bottom
        ((7, 16), Size::Native, 8),                          // only the right side
        ((16, 8), Size::Native, 8),                          // already a multiple
        ((7, 5), Size::Native, 1),                           // no padding
        ((1, 1), Size::Native, 32),                          // almost all padding
        ((17, 11), Size::Exact { width: 10, height: 6 }, 4), // after resizing
    ] {
        let photo = noise(from.0, from.1);
        let plain = prepared(&photo, size);
        let padded = Input::prepare(&(&photo).into(), &Preparation { pad_multiple: multiple, ..sized(size) }).unwrap();
        let (height, width) = (plain.height, plain.width);
        let multiple = multiple as usize;
        assert_eq!(
            (padded.height, padded.width),
            (height.next_multiple_of(multiple), width.next_multiple_of(multiple))
        );
        assert_eq!((padded.kept, plain.kept), ((height, width), (height, width)));
        let planes = padded.data.chunks(padded.height * padded.width).zip(plain.data.chunks(height * width));
        for (padded_plane, plane) in planes {
            for (y, row) in padded_plane.chunks(padded.width).enumerate() {
                let photo = if y < height { &plane[y * width..][..width] } else { &[] };
                assert_eq!(bits(&row[..photo.len()]), bits(photo), "{from:?}, row {y}");
                assert!(row[photo.len()..].iter().all(|v| v.to_bits() == 0), "{from:?}, row {y}");
            }
        }
    }
    let too_large = Preparation { pad_multiple: 65_535, ..sized(Size::Native) }.extent(5, 5).unwrap_err().to_string();
    assert!(too_large.contains("padded to a multiple of 65535") && too_large.contains("64 megapixels"), "{too_large}");
    assert!(Preparation { pad_multiple: 0, ..sized(Size::Native) }.extent(5, 5).is_err());
}

#[test]
fn a_size_is_parsed_or_rejected() {
    let exact = |width, height| Some(Size::Exact { width, height });
    let within = |width, height| Some(Size::Within { width, height });
    let cases = [
        ("native", Some(Size::Native)),
        ("2048x1024", exact(2048, 1024)),
        ("1024X512", exact(1024, 512)),
        ("1x1", exact(1, 1)),
        ("65535x65535", exact(65_535, 65_535)),
        ("within:1024x512", within(1024, 512)),
        ("007x08", exact(7, 8)),
        ("", None),
        ("x", None),
        ("5", None),
        ("5x", None),
        ("x5", None),
        ("0x5", None),
        ("5x0", None),
        ("65536x1", None),
        ("99999999999x1", None),
        ("-5x5", None),
        ("+5x5", None),
        ("5x+5", None),
        ("5 x 5", None),
        ("5x5 ", None),
        ("5x5x5", None),
        ("5.5x5", None),
        ("5,5", None),
        ("Native", None),
        ("within:", None),
        ("within:5", None),
        ("within:native", None),
        ("within:within:5x5", None),
        ("Within:5x5", None),
        ("٥x٥", None), // Arabic-Indic digits
    ];
    for (text, want) in cases {
        match (text.parse::<Size>(), want) {
            (Ok(got), Some(want)) => {
                assert_eq!(got, want, "{text}");
                assert_eq!(got.to_string().parse::<Size>().unwrap(), got, "what is printed can be parsed");
            }
            (Err(error), None) => {
                let error = error.to_string();
                assert!(error.contains(&format!("`{text}`")) && error.contains("WIDTHxHEIGHT"), "{error}");
            }
            (got, want) => panic!("{text}: {got:?}, wanted {want:?}"),
        }
    }
}

#[test]
fn sizes_within_round_like_python() {
    let cases = [
        ("the golden photo", (96, 64), (120, 51), (76, 51)),
        ("a half rounds down to the even number", (5, 10), (5, 5), (2, 5)),
        ("a half rounds up to the even number", (7, 10), (5, 5), (4, 5)),
        ("a tall photo in a wide target", (720, 960), (1024, 512), (512, 683)),
        ("enlarged", (10, 10), (100, 60), (60, 60)),
        ("its own size", (640, 480), (640, 480), (640, 480)),
        ("a side is at least 1", (10_000, 1), (100, 100), (100, 1)),
        ("a side is at least 1 in an empty target", (10, 10), (0, 0), (1, 1)),
    ];
    for (why, (width, height), (w, h), want) in cases {
        assert_eq!(Size::Within { width: w, height: h }.of(width, height), want, "{why}");
    }
}
