//! Photos with an EXIF orientation.

use super::*;

/// An EXIF block with one entry: the orientation.
fn exif(orientation: u16, little: bool) -> Vec<u8> {
    let (two, four) = if little {
        (u16::to_le_bytes as fn(u16) -> [u8; 2], u32::to_le_bytes as fn(u32) -> [u8; 4])
    } else {
        (u16::to_be_bytes as fn(u16) -> [u8; 2], u32::to_be_bytes as fn(u32) -> [u8; 4])
    };
    let mut block = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
    block.extend(four(8)); // the offset of the directory
    block.extend(two(1)); // one entry: a tag, the type SHORT, a count of 1, the value and two unused bytes
    [two(0x0112), two(3)].iter().for_each(|number| block.extend_from_slice(number));
    block.extend(four(1));
    [two(orientation), two(0)].iter().for_each(|number| block.extend_from_slice(number));
    block.extend(four(0)); // no further directory
    block
}

/// Inserts an APP1 segment directly after the start marker.
fn jpeg_with(exif: &[u8], file: &[u8]) -> Vec<u8> {
    let length = (2 + 6 + exif.len()) as u16;
    [&file[..2], b"\xff\xe1", &length.to_be_bytes(), b"Exif\0\0", exif, &file[2..]].concat()
}

pub(super) fn crc(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1))))
}

pub(super) fn png_chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind, data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
}

/// Inserts an `eXIf` chunk directly before the chunk named `before`.
fn png_with(exif: &[u8], file: &[u8], before: &[u8]) -> Vec<u8> {
    let at = file.windows(4).position(|name| name == before).unwrap() - 4;
    [&file[..at], &png_chunk(*b"eXIf", exif), &file[at..]].concat()
}

fn webp_with(exif: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut file);
    encoder.set_exif_metadata(exif.to_vec()).unwrap();
    encoder.write_image(&rgb(), SIZE.0, SIZE.1, image::ExtendedColorType::Rgb8).unwrap();
    file
}

/// Adds the orientation to the TIFF's own directory, whose format EXIF shares.
fn tiff_with(orientation: u16) -> Vec<u8> {
    let mut file = encoded(rgb(), ImageFormat::Tiff);
    assert!(file.starts_with(b"II*\0"), "the encoder writes little endian");
    let word = |file: &[u8], at: usize| u32::from_le_bytes(*file[at..].first_chunk().unwrap()) as usize;
    let directory = word(&file, 4);
    let count = usize::from(u16::from_le_bytes([file[directory], file[directory + 1]]));
    let mut entries: Vec<Vec<u8>> = file[directory + 2..][..12 * count].chunks(12).map(<[u8]>::to_vec).collect();
    entries.push([&0x0112_u16.to_le_bytes()[..], &[3, 0, 1, 0, 0, 0], &orientation.to_le_bytes(), &[0, 0]].concat());
    entries.sort_by_key(|entry| [entry[1], entry[0]]);
    let end = file.len() as u32;
    file[4..8].copy_from_slice(&end.to_le_bytes());
    file.extend((count as u16 + 1).to_le_bytes());
    file.extend(entries.concat());
    file.extend([0; 4]);
    file
}

/// The upright picture, pixel by pixel from the table in the EXIF standard.
fn upright(stored: &RgbImage, orientation: u16) -> RgbImage {
    let (w, h) = stored.dimensions();
    let size = if orientation < 5 { (w, h) } else { (h, w) };
    RgbImage::from_fn(size.0, size.1, |x, y| {
        let (x, y) = match orientation {
            1 => (x, y),
            2 => (w - 1 - x, y),
            3 => (w - 1 - x, h - 1 - y),
            4 => (x, h - 1 - y),
            5 => (y, x),
            6 => (y, h - 1 - x),
            7 => (w - 1 - y, h - 1 - x),
            _ => (w - 1 - y, x),
        };
        *stored.get_pixel(x, y)
    })
}

#[test]
fn every_orientation_in_every_format_is_applied() {
    let jpeg = encoded(rgb(), ImageFormat::Jpeg);
    let (lossy, png) = (decode_all(&jpeg).unwrap().into_rgb(), encoded(rgb(), ImageFormat::Png));
    for orientation in 1..=8 {
        let (little, big) = (exif(orientation, true), exif(orientation, false));
        let cases = [
            ("JPEG", jpeg_with(&little, &jpeg), &lossy),
            ("JPEG, big endian", jpeg_with(&big, &jpeg), &lossy),
            ("PNG", png_with(&little, &png, b"IDAT"), &rgb()),
            ("PNG, big endian", png_with(&big, &png, b"IDAT"), &rgb()),
            ("PNG with its metadata at the end", png_with(&big, &png, b"IEND"), &rgb()),
            ("WebP", webp_with(&little), &rgb()),
            ("TIFF", tiff_with(orientation), &rgb()),
        ];
        for (format, file, stored) in cases {
            let got = decode_all(&file).unwrap_or_else(|e| panic!("{format}, {orientation}: {e}"));
            assert_eq!(got.rgb(), &upright(stored, orientation), "{format}, orientation {orientation}");
        }
    }
}

#[test]
fn an_invalid_orientation_is_ignored() {
    let (jpeg, png) = (encoded(rgb(), ImageFormat::Jpeg), encoded(rgb(), ImageFormat::Png));
    let lossy = decode_all(&jpeg).unwrap().into_rgb();
    let whole = exif(6, true);
    let mut elsewhere = whole.clone();
    elsewhere[4..8].fill(0xff);
    let mut blocks: Vec<(String, Vec<u8>)> =
        [0, 9, 255, 256 + 6, 65535].map(|number| (format!("orientation {number}"), exif(number, false))).into();
    blocks.push(("a directory past the end".into(), elsewhere));
    blocks.push(("neither endian".into(), [b"XX", &whole[2..]].concat()));
    // The two bytes of the value are the last needed ones.
    blocks.extend((0..20).map(|end| (format!("truncated to {end} bytes"), whole[..end].to_vec())));
    for (why, block) in blocks {
        for (format, file, want) in [
            ("JPEG", jpeg_with(&block, &jpeg), &lossy),
            ("PNG", png_with(&block, &png, b"IDAT"), &rgb()),
            ("PNG, at the end", png_with(&block, &png, b"IEND"), &rgb()),
        ] {
            assert_eq!(decode_all(&file).unwrap().rgb(), want, "{format}: {why}");
        }
    }
}

#[test]
fn rotation_counts_towards_the_memory_limit() {
    let sideways = png_with(&exif(6, true), &encoded(rgb(), ImageFormat::Png), b"IDAT");
    for (max_alloc, fits) in [(44, false), (89, false), (1 << 20, true)] {
        let limits = Limits { max_alloc, ..Limits::default() };
        assert_eq!(Image::decode(&sideways, "a file", &limits).is_ok(), fits, "{max_alloc} bytes");
    }
}
