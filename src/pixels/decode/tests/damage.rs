//! Truncated files, files with wrong bytes and files that claim a huge size: an error or the right pixels, never a panic.

use super::orientation::png_chunk;
use super::*;

/// A small file of every format.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let mut files: Vec<_> = exact().into_iter().map(|(why, file, _)| (why, file)).collect();
    files.push(("JPEG of RGB", encoded(rgb(), ImageFormat::Jpeg)));
    files.push(("JPEG of grey", encoded(grey(), ImageFormat::Jpeg)));
    files
}

/// Selects the bytes to change; the same in every run: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// The error for a panic in a decoder.
const PANIC: &str = "the decoder failed on this file";

#[test]
fn a_truncated_file_is_an_error_or_the_whole_picture() {
    for (why, file) in files() {
        let whole = decode_all(&file).unwrap();
        for end in 0..file.len() {
            match decode_all(&file[..end]) {
                // The end of the last number is not marked.
                Ok(_) if why.starts_with("plain ") && end >= file.len() - 4 => {}
                // The missing bytes may not affect pixels: a trailer, a checksum, padding, a second frame.
                Ok(image) => assert!(
                    image.rgb() == whole.rgb() && !why.starts_with("JPEG"),
                    "{why}: {end} of {} bytes gave another picture",
                    file.len()
                ),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.starts_with("a file: ") && text.len() > 20, "{why}, {end} bytes: {text}");
                    assert!(!text.contains(PANIC), "{why}, {end} bytes: {text}");
                }
            }
        }
    }
}

#[test]
fn wrong_bytes_are_an_error_or_other_pixels_and_never_a_panic() {
    let limits = Limits { max_pixels: 1 << 16, max_side: 1 << 12, max_alloc: 1 << 20 };
    let mut random = Random(2024);
    let (mut errors, mut pictures) = (0, 0);
    for (why, file) in files() {
        for round in 0..400 {
            let mut bytes = file.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] = random.below(256) as u8,
                    1 => bytes[at] ^= 1 << random.below(8),
                    2 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, [0, 0xff][random.below(2)]),
                }
            }
            match Image::decode(&bytes, "a file", &limits) {
                Ok(image) => {
                    pictures += 1;
                    let pixels = u64::from(image.width()) * u64::from(image.height());
                    assert!((1..=limits.max_pixels).contains(&pixels), "{why}, round {round}: {pixels} pixels");
                }
                Err(error) => {
                    errors += 1;
                    assert!(!error.to_string().contains(PANIC), "{why}, round {round}: {error}\n{bytes:02x?}");
                }
            }
        }
    }
    assert!(errors > 1000 && pictures > 1000, "{errors} errors and {pictures} pictures: are the files damaged at all?");
}

/// Files whose header claims the size, and that end after the header.
fn claims(width: u32, height: u32) -> Vec<(&'static str, Vec<u8>)> {
    let (w16, h16) = (width as u16, height as u16);
    let png = {
        let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
        [b"\x89PNG\r\n\x1a\n", &png_chunk(*b"IHDR", &header)[..], &png_chunk(*b"IDAT", &[0x78, 0x9c])].concat()
    };
    let mut jpeg = encoded(rgb(), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&h16.to_be_bytes());
    jpeg[frame + 7..frame + 9].copy_from_slice(&w16.to_be_bytes());
    let mut progressive = jpeg.clone();
    progressive[frame + 1] = 0xc2;
    let mut bmp = encoded(rgb(), ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&width.to_le_bytes());
    bmp[22..26].copy_from_slice(&height.to_le_bytes());
    let mut gif = gif();
    gif[6..8].copy_from_slice(&w16.to_le_bytes());
    gif[8..10].copy_from_slice(&h16.to_le_bytes());
    let mut tiff = encoded(rgb(), ImageFormat::Tiff);
    let directory = u32::from_le_bytes(*tiff[4..].first_chunk().unwrap()) as usize;
    for entry in (directory + 2..tiff.len() - 11).step_by(12) {
        let side = match u16::from_le_bytes([tiff[entry], tiff[entry + 1]]) {
            0x0100 => width,
            0x0101 | 0x0116 => height,
            _ => continue,
        };
        tiff[entry + 8..entry + 12].copy_from_slice(&side.to_le_bytes());
    }
    vec![
        ("PNG", png),
        ("JPEG", jpeg),
        ("progressive JPEG", progressive),
        ("BMP", bmp),
        ("GIF", gif),
        ("TIFF", tiff),
        ("PPM", format!("P6 {width} {height} 255\n").into_bytes()),
        ("PAM", {
            let header =
                format!("P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH 4\nMAXVAL 65535\nTUPLTYPE RGB_ALPHA\nENDHDR\n");
            header.into_bytes()
        }),
    ]
}

#[test]
fn a_huge_claimed_size_is_rejected_before_anything_is_allocated() {
    let all = Limits::default();
    // 65,535 x 65,535 pixels would be 12 GiB, so an attempt to allocate them would be noticed.
    for (format, file) in claims(65_535, 65_535) {
        let text = Image::decode(&file, "a file", &all).unwrap_err().to_string();
        assert!(
            text.contains("65535x65535 is too large, the limit is 268435456 pixels; scale it down"),
            "{format}: {text}"
        );
    }
    for (format, file) in claims(40_000, 20) {
        let text = Image::decode(&file, "a file", &Limits { max_side: 39_999, ..all }).unwrap_err().to_string();
        assert!(text.contains("40000x20 is too large, the limit is 39999 pixels per side"), "{format}: {text}");
        let text = Image::decode(&file, "a file", &Limits { max_alloc: 2_399_999, ..all }).unwrap_err().to_string();
        assert!(text.contains("MiB") || text.contains("memory"), "{format}: {text}");
    }
    // WebP stores a side as 24 bits, minus one.
    let extended = |side: u32| {
        let side = &(side - 1).to_le_bytes()[..3];
        let header = riff(*b"VP8X", &[&[0; 4], side, side].concat());
        riff(*b"RIFF", &[&b"WEBP"[..], &header, &encoded(rgb(), ImageFormat::WebP)[12..]].concat())
    };
    for side in [1 << 24, 65_536, 30_000] {
        assert!(Image::decode(&extended(side), "a file", &all).is_err(), "WebP of {side}");
    }
}

#[test]
fn the_coefficients_of_a_progressive_jpeg_count_towards_the_memory_limit() {
    let file = claims(8_000, 8_000).into_iter().find(|(format, _)| *format == "progressive JPEG").unwrap().1;
    // 183 MiB of pixels, and 366 MiB of coefficients at two bytes each.
    let limits = Limits { max_alloc: 500 << 20, ..Limits::default() };
    let text = Image::decode(&file, "a file", &limits).unwrap_err().to_string();
    assert!(text.contains("8000x8000 needs 549 MiB to decode, the limit is 500 MiB"), "{text}");
}
