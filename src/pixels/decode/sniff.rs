//! What the bytes of a file are, whatever its name says.

use image::ImageFormat;

/// The format, when it is one that we decode; else what the file looks like, and what to do.
pub(in crate::pixels) fn format(bytes: &[u8]) -> Result<ImageFormat, String> {
    if bytes.is_empty() {
        return Err("is empty; copy or save it again".into());
    }
    match image::guess_format(bytes) {
        Ok(format) if !name(format).is_empty() => Ok(format),
        _ => Err(match stranger(bytes) {
            Some(name) => format!("looks like {name}, which is not supported; convert it to JPEG or PNG"),
            None => "is no image that can be read here (JPEG, PNG, WebP, BMP, TIFF, GIF, PNM)".into(),
        }),
    }
}

/// What people call a format that we decode; empty for another.
pub(super) fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Gif => "GIF",
        ImageFormat::Pnm => "PNM",
        _ => "",
    }
}

/// What people call a file that we do not decode, by its first bytes.
fn stranger(bytes: &[u8]) -> Option<&'static str> {
    // ISO media: a box of type `ftyp`, whose brand says which.
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some(match bytes.get(8..12)? {
            b"avif" | b"avis" => "an AVIF image",
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => "a HEIC image",
            b"crx " => "a camera's raw file",
            _ => "a video",
        });
    }
    let known: [(&[u8], &str); 22] = [
        (b"\xff\x0a", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
        (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
        (b"\0\0\x01\0", "a Windows icon"),
        (b"II+\0", "a BigTIFF image"),
        (b"MM\0+", "a BigTIFF image"),
        (b"8BPS", "a Photoshop document"),
        (b"\x76\x2f\x31\x01", "an OpenEXR image"),
        (b"#?RADIANCE", "a Radiance HDR image"),
        (b"qoif", "a QOI image"),
        (b"farbfeld", "a farbfeld image"),
        (b"DDS ", "a DirectDraw texture"),
        (b"FUJIFILM", "a camera's raw file"),
        (b"%PDF", "a PDF document"),
        (b"<svg", "an SVG drawing"),
        (b"<?xml", "an XML document"),
        (b"<!DOCTYPE", "a web page"),
        (b"<html", "a web page"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"\x1aE\xdf\xa3", "a video"),
    ];
    known.iter().find(|(start, _)| bytes.starts_with(start)).map(|&(_, name)| name)
}
