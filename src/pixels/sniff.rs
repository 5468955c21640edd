//! Detects what a file is by its first bytes and its name.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use image::ImageFormat;

pub(super) mod tiff;

/// The maximum number of bytes that [`kind`] needs.
pub const HEAD: usize = 4096;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A picture in a format that can be decoded.
    Picture(ImageFormat),
    /// A photo in a format that cannot be decoded. The text says what it is and what to do.
    Unreadable(String),
    /// Not a photo. The text says what it is, if that is known, and what to do.
    Other(String),
}

/// Detects what a file is by its first [`HEAD`] bytes, or all bytes if it has fewer.
///
/// The name decides only between formats that begin with the same bytes: many cameras' raw files begin like a TIFF.
///
/// ```
/// use rtformer::pixels::sniff::{Kind, kind};
///
/// let phone = b"\0\0\0\x24ftypheic\0\0\0\0mif1heic";
/// let Kind::Unreadable(reason) = kind(phone, "IMG_0001.HEIC".as_ref()) else { panic!() };
/// assert_eq!(reason, "is a HEIC image, which is not supported; convert it to JPEG or PNG");
/// assert!(matches!(kind(b"\xff\xd8\xff\xe0", "a.jpg".as_ref()), Kind::Picture(_)));
/// assert!(matches!(kind(b"Dear all", "notes.txt".as_ref()), Kind::Other(_)));
/// ```
pub fn kind(start: &[u8], path: &Path) -> Kind {
    let start = &start[..start.len().min(HEAD)];
    if start.is_empty() {
        return Kind::Other("is empty; copy or save it again".into());
    }
    if let Ok(format) = image::guess_format(start)
        && !name(format).is_empty()
    {
        return match raw_tiff(start, path) {
            Some(what) if format == ImageFormat::Tiff => unreadable(what),
            _ if is_damaged(start, format) => Kind::Unreadable(format!(
                "this {} file is damaged: its signature is there, but no header follows it; copy it again",
                name(format)
            )),
            _ => Kind::Picture(format),
        };
    }
    if start.starts_with(b"II+\0") || start.starts_with(b"MM\0+") {
        return Kind::Picture(ImageFormat::Tiff); // BigTIFF
    }
    if let Some(what) = photo(start) {
        return unreadable(what);
    }
    Kind::Other(match document(start) {
        Some((what, hint)) => format!("is {what}, not a photo; {hint}"),
        None => "is not an image in a supported format (JPEG, PNG, WebP, BMP, TIFF, GIF, PNM or PAM)".into(),
    })
}

/// Whether no decoder could read a file that starts like this, however long it is.
fn is_damaged(start: &[u8], format: ImageFormat) -> bool {
    match (format, start) {
        // A marker, and a length that is less than its own two bytes. The start marker, fill bytes and `FF 01` have no length.
        (ImageFormat::Jpeg, &[_, _, 0xff, 0x02..=0xcf | 0xda..=0xfe, 0, 0 | 1, ..]) => true,
        (ImageFormat::Png, start) => start.get(12..16).is_some_and(|first| first != b"IHDR"),
        _ => false,
    }
}

fn unreadable(what: &str) -> Kind {
    Kind::Unreadable(format!("is {what}, which is not supported; convert it to JPEG or PNG"))
}

/// Whether a file in a folder is a photo, including photos that cannot be decoded.
///
/// Known extensions of image formats and of other documents decide alone. A file with an unknown extension, or without one,
/// is opened, and [its first bytes](kind) decide.
///
/// ```
/// use rtformer::pixels::sniff::is_photo;
///
/// assert!(is_photo("IMG_0001.HEIC".as_ref())?); // cannot be decoded, but must not be skipped silently
/// assert!(!is_photo("notes.txt".as_ref())?);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// If the file must be opened and cannot be read.
pub fn is_photo(path: &Path) -> io::Result<bool> {
    if is_photo_name(path) {
        return Ok(true);
    }
    let extension = extension(path);
    // Opening a pipe would block until its other end is opened.
    if NO_PHOTOS.contains(&extension.as_str()) || !fs::metadata(path)?.is_file() {
        return Ok(false);
    }
    let mut start = Vec::with_capacity(HEAD);
    File::open(path)?.take(HEAD as u64).read_to_end(&mut start)?;
    Ok(!matches!(kind(&start, path), Kind::Other(_)))
}

/// Whether a name has the extension of a photo, including photos that cannot be decoded. For files that would have to be downloaded to
/// look at their first bytes.
///
/// ```
/// use rtformer::pixels::sniff::is_photo_name;
///
/// assert!(is_photo_name("a/IMG_0001.HEIC".as_ref()));
/// assert!(!is_photo_name("a/photos".as_ref()));
/// ```
pub fn is_photo_name(path: &Path) -> bool {
    let extension = extension(path);
    EXTENSIONS.contains(&extension.as_str()) || UNREADABLE.contains(&extension.as_str())
}

/// Extensions of images that can be decoded, in lower case.
pub const EXTENSIONS: [&str; 17] = [
    "bmp", "dib", "gif", "jfif", "jpe", "jpeg", "jpg", "mpo", "pam", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff",
    "webp",
];

/// Extensions of photos that cannot be decoded.
const UNREADABLE: [&str; 39] = [
    "3fr", "arw", "avif", "avifs", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "heic", "heics", "heif", "hif",
    "iiq", "j2c", "j2k", "jp2", "jpf", "jpm", "jpx", "jxl", "jxr", "kdc", "mef", "mrw", "nef", "nrw", "orf", "pef",
    "raf", "rw2", "rwl", "sr2", "srf", "srw", "wdp", "x3f",
];

/// The extensions in [`UNREADABLE`] of cameras' raw files with the structure of a TIFF.
const RAW_TIFFS: [&str; 17] = [
    "3fr", "arw", "cr2", "dcr", "dng", "erf", "fff", "iiq", "kdc", "mef", "nef", "nrw", "pef", "rwl", "sr2", "srf",
    "srw",
];

/// Extensions of files that often accompany photos but are not photos. Their content is not checked.
const NO_PHOTOS: [&str; 41] = [
    "aae",
    "avi",
    "bin",
    "csv",
    "db",
    "doc",
    "docx",
    "gz",
    "htm",
    "html",
    "ico",
    "ini",
    "json",
    "jsonl",
    "log",
    "lrv",
    "m4v",
    "md",
    "mkv",
    "mov",
    "mp3",
    "mp4",
    "npy",
    "npz",
    "pdf",
    "psd",
    "py",
    "rar",
    "safetensors",
    "svg",
    "tar",
    "thm",
    "tsv",
    "txt",
    "wav",
    "webm",
    "xml",
    "xmp",
    "yaml",
    "yml",
    "zip",
];

fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

/// The usual name of a format that can be decoded; empty for other formats.
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

const RAW: &str = "a camera's raw file";

/// Detects a camera's raw file with the structure of a TIFF. The first picture of such a file is at best a thumbnail.
fn raw_tiff(start: &[u8], path: &Path) -> Option<&'static str> {
    let canon = start.get(8..10) == Some(b"CR");
    let dng = tiff::field(start, tiff::DNG_VERSION).is_some();
    let thumbnail =
        tiff::field(start, tiff::NEW_SUBFILE_TYPE) == Some(1) && tiff::field(start, tiff::SUB_IFDS).is_some();
    (canon || dng || thumbnail || RAW_TIFFS.contains(&extension(path).as_str())).then_some(RAW)
}

/// The usual name of an image format that cannot be decoded, by its first bytes.
fn photo(start: &[u8]) -> Option<&'static str> {
    // ISO media: a box of type `ftyp` with the major brand, a version, and all compatible brands.
    if start.get(4..8) == Some(b"ftyp") {
        let length = u32::from_be_bytes(*start.first_chunk()?) as usize;
        let brands = start.get(8..length.clamp(8, start.len()))?.as_chunks::<4>().0;
        let of = |names: &[&[u8; 4]]| brands.iter().any(|brand| names.contains(&brand));
        return match start.get(8..12)? {
            b"crx " => Some(RAW),
            b"avif" | b"avis" => Some("an AVIF image"),
            b"mif1" | b"msf1" if of(&[b"avif", b"avis"]) => Some("an AVIF image"),
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"hevm" | b"hevs" | b"mif1" | b"msf1" => {
                Some("a HEIC image")
            }
            _ => None,
        };
    }
    let known: [(&[u8], &str); 18] = [
        (b"\xff\x0a", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
        (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
        (b"II\xbc\x01", "a JPEG XR image"),
        (b"\x76\x2f\x31\x01", "an OpenEXR image"),
        (b"#?RADIANCE", "a Radiance HDR image"),
        (b"#?RGBE", "a Radiance HDR image"),
        (b"qoif", "a QOI image"),
        (b"farbfeld", "a farbfeld image"),
        (b"FUJIFILM", RAW),
        (b"IIU\0", RAW),
        (b"IIRO", RAW),
        (b"IIRS", RAW),
        (b"MMOR", RAW),
        (b"II\x1a\0\0\0HEAP", RAW),
        (b"\0MRM", RAW),
        (b"FOVb", RAW),
    ];
    known.iter().find(|(signature, _)| start.starts_with(signature)).map(|&(_, name)| name)
}

/// The usual name of a file that is not a photo, and what to do, by its first bytes.
fn document(start: &[u8]) -> Option<(&'static str, &'static str)> {
    const AGAIN: &str = "download it again";
    const NAME: &str = "name a photo";
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let text = String::from_utf8_lossy(&text[..text.len().min(1024)]).to_ascii_lowercase();
    let begins = |with: &str| text.starts_with(with);
    if begins("version https://git-lfs") {
        return Some(("a Git LFS pointer", "fetch the photo with `git lfs pull`"));
    }
    if begins("<svg") || begins("<?xml") && text.contains("<svg") {
        return Some(("an SVG drawing", "convert it to PNG"));
    }
    if begins("<!doctype html") || begins("<html") || begins("<head") || begins("<?xml") && text.contains("<html") {
        return Some(("a web page (a server's error page?)", AGAIN));
    }
    if begins("<?xml") || begins("<error") {
        return Some(("an XML document (a server's error message?)", AGAIN));
    }
    if begins("{") && text.contains('"') {
        return Some(("a JSON document (a server's error message?)", AGAIN));
    }
    if start.get(4..8) == Some(b"ftyp") || start.starts_with(b"RIFF") && start.get(8..12) == Some(b"AVI ") {
        return Some(("a video", "extract its frames first"));
    }
    let known: [(&[u8], &str, &str); 8] = [
        (b"\x1aE\xdf\xa3", "a video", "extract its frames first"),
        (b"\0\0\x01\0", "a Windows icon", "convert it to PNG"),
        (b"8BPS", "a Photoshop document", "export it as JPEG or PNG"),
        (b"DDS ", "a DirectDraw texture", "convert it to PNG"),
        (b"%PDF", "a PDF document", "export its pages as PNG"),
        (b"PK\x03\x04", "a ZIP archive", "unpack it first"),
        (b"\x1f\x8b", "a gzip archive", "unpack it first"),
        (b"\xd0\xcf\x11\xe0", "a Microsoft Office document", NAME),
    ];
    known.iter().find(|(signature, ..)| start.starts_with(signature)).map(|&(_, what, hint)| (what, hint))
}

#[cfg(test)]
mod tests;
