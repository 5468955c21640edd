//! Decodes files to 8-bit RGB, as PaddleSeg does with `cv2.imread(path, IMREAD_COLOR)`.
//!
//! Reads JPEG, PNG, WebP, BMP, TIFF, PNM, PAM and the first frame of a GIF. The content decides the format, not the file
//! name. Grey is repeated in the three channels, alpha is dropped (not blended), 16-bit samples keep their high byte, and
//! the EXIF orientation is applied. Colour profiles are ignored.
//!
//! Differences from OpenCV: a damaged file is an error, not a partly grey picture; PNM samples are scaled by their maximum
//! value; and pixels of a JPEG may differ by a few steps, because this decoder rounds the inverse cosine transform and
//! interpolates the chroma differently.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, RgbImage};

use super::sniff::{self, Kind, tiff as fields};
use crate::error::{Error, Result};
use crate::memory;
use crate::timing::timed;

mod exif;
mod guard;
pub(super) mod jpeg;
pub(super) mod samples;
pub(super) mod tiff;

pub(crate) use guard::guarded;
pub use guard::hide_decoder_panics;
pub use samples::Depth;
pub(super) use samples::to_rgb;

/// The largest image that is decoded. Checked before anything of that size is allocated.
///
/// ```
/// use rtformer::pixels::{Image, Limits};
///
/// let header = b"P6 40000 40000 255\n";
/// let refused = Image::decode(header, "huge.ppm", &Limits::default()).unwrap_err();
/// assert!(refused.to_string().starts_with("huge.ppm: 40000x40000"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum width times height.
    pub max_pixels: u64,
    /// Maximum width, and maximum height, in pixels.
    pub max_side: u32,
    /// Maximum number of bytes that decoding may hold at once, without the file itself; also the maximum file length.
    pub max_alloc: u64,
}

impl Default for Limits {
    /// 256 megapixels, sides up to 65,535, 2 GiB.
    fn default() -> Self {
        Self { max_pixels: 256 << 20, max_side: 65_535, max_alloc: 2 << 30 }
    }
}

/// A decoded photo: 8-bit RGB, upright.
///
/// ```
/// use rtformer::pixels::{Image, Limits};
///
/// let file = b"P6 2 1 255\n\x01\x02\x03\x04\x05\x06";
/// let image = Image::decode(file, "-", &Limits::default())?;
/// assert_eq!((image.width(), image.height()), (2, 1));
/// assert_eq!(image.rgb().get_pixel(1, 0).0, [4, 5, 6]);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Image {
    rgb: RgbImage,
    name: PathBuf,
    decode_ms: f64,
    likely_depth: Option<u8>,
}

impl Image {
    /// File name extensions of images, in lower case. Decoding ignores the extension; use [`sniff::is_photo`] to scan folders.
    pub const EXTENSIONS: [&str; 17] = sniff::EXTENSIONS;

    /// Reads and decodes a file, within the default [`Limits`].
    ///
    /// ```no_run
    /// let street = rtformer::pixels::Image::open("street.jpg")?;
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read; [`Error::Image`] if it is not an image, is damaged, or is too large.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &Limits::default())
    }

    /// Reads and decodes a file, within `limits`.
    ///
    /// ```
    /// use rtformer::pixels::{Image, Limits};
    ///
    /// let small = Limits { max_pixels: 96 * 64, ..Limits::default() };
    /// let photo = Image::open_with("tests/data/golden/photo.png", &small)?;
    /// assert_eq!((photo.width(), photo.height()), (96, 64));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        Decoder { limits: *limits, ..Decoder::default() }.open(path)
    }

    /// Reads a file to decode later, within `limits`. Stops after the first bytes if they are not those of an image.
    ///
    /// ```
    /// use rtformer::pixels::{Image, Limits};
    ///
    /// let (path, limits) = ("tests/data/golden/photo.png", Limits::default());
    /// let photo = Image::decode(&Image::read(path, &limits)?, path, &limits)?;
    /// assert_eq!((photo.width(), photo.height()), (96, 64));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read; [`Error::Image`] if it is not an image or is longer than the limits allow.
    pub fn read(path: impl AsRef<Path>, limits: &Limits) -> Result<Vec<u8>> {
        read(path.as_ref(), limits.max_alloc)
    }

    /// Decodes a file in memory. Errors name it `name`; by convention, `-` is standard input.
    ///
    /// ```
    /// use rtformer::pixels::{Image, Limits};
    ///
    /// let refused = Image::decode(b"no image", "-", &Limits::default()).unwrap_err();
    /// assert!(refused.to_string().starts_with("-: "));
    /// ```
    ///
    /// # Errors
    /// [`Error::Image`] if the bytes are not an image, are damaged, or the image is too large.
    pub fn decode(bytes: &[u8], name: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        Decoder { limits: *limits, ..Decoder::default() }.decode(bytes, name)
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.rgb.width()
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.rgb.height()
    }

    /// The pixels.
    pub fn rgb(&self) -> &RgbImage {
        &self.rgb
    }

    /// Returns the pixels and drops the rest.
    ///
    /// ```
    /// # use rtformer::pixels::Image;
    /// let photo = Image::from(image::RgbImage::new(2, 1));
    /// assert_eq!(photo.into_rgb().dimensions(), (2, 1));
    /// ```
    pub fn into_rgb(self) -> RgbImage {
        self.rgb
    }

    /// The file's path or given name; empty if the image was made from decoded pixels.
    ///
    /// ```
    /// # use rtformer::pixels::Image;
    /// let photo = Image::open("tests/data/golden/photo.png")?;
    /// assert!(photo.name().ends_with("photo.png"));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The time for reading and decoding, in milliseconds; 0 if the image was made from decoded pixels.
    ///
    /// ```
    /// # use rtformer::pixels::Image;
    /// assert!(Image::open("tests/data/golden/photo.png")?.decode_ms() > 0.0);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn decode_ms(&self) -> f64 {
        self.decode_ms
    }

    /// The [`Depth`] that the file probably has: the number of bits that its 16-bit samples need, if that is so small that
    /// the picture is dark.
    ///
    /// 8, 10, 12 or 14. `None` if the samples use more than the lower quarter of their range, or if the depth is known.
    ///
    /// ```
    /// use rtformer::pixels::{Decoder, Depth, Limits, Image};
    ///
    /// let file = b"P5 2 1 65535\n\x0f\xa0\x00\x10"; // 4000 and 16 of 65535
    /// let dark = Image::decode(file, "camera.pgm", &Limits::default())?;
    /// assert_eq!((dark.likely_depth(), dark.rgb().get_pixel(0, 0).0), (Some(12), [15; 3]));
    ///
    /// let decoder = Decoder { depth: Depth::Bits(12), ..Decoder::default() };
    /// assert_eq!(decoder.decode(file, "camera.pgm")?.rgb().get_pixel(0, 0).0, [250; 3]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn likely_depth(&self) -> Option<u8> {
        self.likely_depth
    }
}

impl From<RgbImage> for Image {
    fn from(rgb: RgbImage) -> Self {
        Self { rgb, name: PathBuf::new(), decode_ms: 0.0, likely_depth: None }
    }
}

/// Decoding options, for files that need other settings than the defaults of [`Image::open`].
///
/// ```
/// use rtformer::pixels::{Decoder, Depth};
///
/// let thermal = Decoder { depth: Depth::Bits(14), ..Decoder::default() };
/// let photo = thermal.open("tests/data/golden/photo.png")?; // 8 bits: not affected
/// assert_eq!(photo.width(), 96);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decoder {
    /// The largest image that is decoded.
    pub limits: Limits,
    /// The range of 16-bit and floating-point samples.
    pub depth: Depth,
    /// The bands of a TIFF that become red, green and blue, counted from 1. `None` for a picture in colour or grey. Other formats have no bands.
    pub bands: Option<[u16; 3]>,
}

impl Decoder {
    /// Reads and decodes a file. Stops after the first bytes if they are not those of an image.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Image> {
        let path = path.as_ref();
        let (bytes, read_ms) = timed(|| Image::read(path, &self.limits));
        let mut image = self.decode(&bytes?, path)?;
        image.decode_ms += read_ms;
        Ok(image)
    }

    /// Decodes a file in memory. Errors name it `name`.
    ///
    /// # Errors
    /// As [`Image::decode`].
    pub fn decode(&self, bytes: &[u8], name: impl AsRef<Path>) -> Result<Image> {
        let name = name.as_ref();
        let (decoded, decode_ms) = timed(|| guarded(|| decode(bytes, name, self)));
        let decoded =
            decoded.unwrap_or_else(|| Err("the decoder failed on this file; save it again as JPEG or PNG".into()));
        let (rgb, likely_depth) = decoded.map_err(|reason| Error::image(name, reason))?;
        Ok(Image { rgb, name: name.to_path_buf(), decode_ms, likely_depth })
    }
}

/// Reads the file, unless its first bytes show that it cannot be decoded.
fn read(path: &Path, longest: u64) -> Result<Vec<u8>> {
    let refused = |reason| Err(Error::image(path, reason));
    let mut file = File::open(path).map_err(Error::reading(path))?;
    let mut bytes = Vec::new();
    file.by_ref().take(sniff::HEAD as u64).read_to_end(&mut bytes).map_err(Error::reading(path))?;
    if let Kind::Unreadable(reason) | Kind::Other(reason) = sniff::kind(&bytes, path) {
        return refused(reason);
    }
    // A pipe has no length until it is read.
    let known = file.metadata().map_or(0, |metadata| metadata.len());
    if known <= longest {
        let room = usize::try_from(known).unwrap_or(usize::MAX).saturating_sub(bytes.len());
        bytes.try_reserve(room).map_err(|_| Error::reading(path)(ErrorKind::OutOfMemory.into()))?;
        let rest = longest.saturating_add(1).saturating_sub(bytes.len() as u64);
        file.take(rest).read_to_end(&mut bytes).map_err(Error::reading(path))?;
    }
    if known.max(bytes.len() as u64) > longest {
        return refused(format!("is longer than {longest} bytes, which is the limit; scale it down first"));
    }
    Ok(bytes)
}

/// Returns the pixels and their likely depth, or a message that says what is wrong and what to do.
fn decode(bytes: &[u8], name: &Path, with: &Decoder) -> Result<(RgbImage, Option<u8>), String> {
    let Decoder { limits, depth, bands } = with;
    let format = match sniff::kind(bytes, name) {
        Kind::Picture(format) => format,
        Kind::Unreadable(reason) | Kind::Other(reason) => return Err(reason),
    };
    if bands.is_some() && format != ImageFormat::Tiff {
        return Err(format!("has no bands, because it is a {}; --bands is for TIFFs", sniff::name(format)));
    }
    if format == ImageFormat::Tiff && (bands.is_some() || tiff::is_special(bytes)) {
        return by_rows(bytes, with);
    }
    let mut bytes = Cow::Borrowed(bytes);
    let mut budget = limits.max_alloc;
    match format {
        ImageFormat::Jpeg => {
            let outline = jpeg::outline(&bytes)?;
            budget = budget.saturating_sub(outline.coefficients);
            if outline.lacks_tables {
                bytes = jpeg::with_standard_tables(&bytes).into();
            }
        }
        // The decoder panics on these.
        ImageFormat::Tiff
            if fields::field(&bytes, fields::PLANAR_CONFIGURATION) == Some(2)
                && fields::field(&bytes, fields::TILE_WIDTH).is_some() =>
        {
            return Err(
                "is a tiled TIFF with separate colour planes, which is not supported; convert it to JPEG or PNG, or \
                        to a TIFF with interleaved colours"
                    .into(),
            );
        }
        _ => {}
    }
    let bytes: &[u8] = &bytes;

    let mut within = image::Limits::no_limits();
    within.max_alloc = Some(limits.max_alloc);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(within.clone());
    let failed = |error| explain(&error, format);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    let color = decoder.color_type();
    let is_float = matches!(color, ColorType::Rgb32F | ColorType::Rgba32F);
    if is_float && !matches!(depth, Depth::Range { .. }) {
        return Err(samples::no_range("floating-point"));
    }
    // Ignore an invalid orientation.
    let orientation = match format {
        ImageFormat::Png => exif::png_orientation(bytes),
        _ => decoder.orientation().ok(),
    };
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);

    let converted = if color == ColorType::Rgb8 { 0 } else { 3 * u64::from(width) * u64::from(height) };
    let turned = if orientation == Orientation::NoTransforms { 0 } else { 3 * u64::from(width) * u64::from(height) };
    let after = converted.max(turned);
    let needed = decoder.total_bytes().saturating_add(after);
    if needed > budget {
        let needed = needed + (limits.max_alloc - budget);
        return Err(format!(
            "{width}x{height} needs {} MiB to decode, the limit is {} MiB; scale it down first",
            needed >> 20,
            limits.max_alloc >> 20
        ));
    }
    within.max_image_width = Some(limits.max_side);
    within.max_image_height = Some(limits.max_side);
    within.max_alloc = Some(budget - after);
    decoder.set_limits(within).map_err(failed)?;

    let what = || format!("decoding {width}x{height} pixels");
    // The decoders and the conversions allocate their own memory, so check first that there is enough.
    memory::probe(usize::try_from(needed).unwrap_or(usize::MAX), what).map_err(|e| e.to_string())?;
    let pixels = || {
        let decoded = if color == ColorType::Rgb8 {
            let mut pixels = memory::filled(decoder.total_bytes() as usize, 0, what).map_err(|e| e.to_string())?;
            decoder.read_image(&mut pixels).map_err(failed)?;
            RgbImage::from_raw(width, height, pixels).map(DynamicImage::from)
        } else {
            DynamicImage::from_decoder(decoder).map(Some).map_err(failed)?
        };
        decoded.ok_or_else(|| format!("the decoder returned too few bytes for {width}x{height} pixels"))
    };
    let decoded = if format == ImageFormat::Jpeg { jpeg::checked(bytes, pixels)? } else { pixels()? };
    let (bits, likely_depth) = depth_of(&decoded, *depth, format, bytes)?;
    let rgb = match *depth {
        Depth::Range { low, high } if samples::is_deep(&decoded) && !states_range(format, bytes) => {
            samples::ranged(&decoded, low, high)
        }
        _ => into_rgb(decoded, bits),
    };
    let mut upright = DynamicImage::ImageRgb8(rgb);
    upright.apply_orientation(orientation);
    Ok((into_rgb(upright, 16), likely_depth))
}

/// Decodes a TIFF row by row.
fn by_rows(bytes: &[u8], with: &Decoder) -> Result<(RgbImage, Option<u8>), String> {
    let mut rows = tiff::TiffRows::new(Cursor::new(bytes), with.depth, with.bands)?;
    let (width, height) = rows.size;
    check_size(width, height, &with.limits)?;
    let length = 3 * u64::from(width) * u64::from(height);
    let needed = rows.held().saturating_add(length.saturating_mul(2)); // turning it upright takes a copy
    if needed > with.limits.max_alloc {
        let (needed, limit) = (needed >> 20, with.limits.max_alloc >> 20);
        return Err(format!(
            "{width}x{height} needs {needed} MiB to decode, the limit is {limit} MiB; scale it down first"
        ));
    }
    let what = || format!("decoding {width}x{height} pixels");
    memory::probe(needed as usize, what).map_err(|e| e.to_string())?;
    let mut rgb = RgbImage::new(width, height);
    for (y, row) in (0..).zip(rgb.chunks_exact_mut(3 * width as usize)) {
        rows.row(y, row)?;
    }
    let mut upright = DynamicImage::ImageRgb8(rgb);
    upright.apply_orientation(rows.orientation);
    Ok((into_rgb(upright, 16), rows.likely_depth()))
}

/// The number of significant bits in 16-bit samples, and the likely number if `depth` does not state it.
fn depth_of(image: &DynamicImage, depth: Depth, format: ImageFormat, bytes: &[u8]) -> Result<(u8, Option<u8>), String> {
    if matches!(depth, Depth::Range { .. }) {
        return Ok((16, None)); // the range is used instead
    }
    let highest = samples::highest(image).filter(|_| !states_range(format, bytes));
    match (depth, highest) {
        (Depth::Bits(bits), Some(highest)) => samples::check(bits, highest).map(|()| (bits, None)),
        (Depth::Auto, Some(highest)) => Ok((16, samples::likely_depth(highest))),
        (Depth::Range { .. }, _) | (_, None) => Ok((16, None)),
    }
}

/// Whether a PNM file states the range of its samples; the decoder has scaled them. But a range of 16 bits may be the writer's default.
fn states_range(format: ImageFormat, bytes: &[u8]) -> bool {
    format == ImageFormat::Pnm && pnm_maximum(bytes) != Some(u32::from(u16::MAX))
}

/// The largest sample value that the header of a PNM or PAM file allows.
fn pnm_maximum(bytes: &[u8]) -> Option<u32> {
    let header = String::from_utf8_lossy(&bytes[..bytes.len().min(sniff::HEAD)]);
    let mut words = header.lines().flat_map(|line| line.split('#').next().unwrap_or(line).split_ascii_whitespace());
    if words.next()? == "P7" { words.skip_while(|&word| word != "MAXVAL").nth(1) } else { words.nth(2) }?.parse().ok()
}

pub(super) fn check_size(width: u32, height: u32, limits: &Limits) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    let limit = if pixels == 0 {
        return Err(format!("{width}x{height} has no pixels"));
    } else if width.max(height) > limits.max_side {
        format!("{} pixels per side", limits.max_side)
    } else if pixels > limits.max_pixels {
        format!("{} pixels", limits.max_pixels)
    } else {
        return Ok(());
    };
    Err(format!("{width}x{height} is too large, the limit is {limit}; scale it down first"))
}

fn into_rgb(image: DynamicImage, bits: u8) -> RgbImage {
    match image {
        DynamicImage::ImageRgb8(rgb) => rgb,
        other => samples::to_rgb_of(&other, bits),
    }
}

/// Rewords the decoder's error: what is wrong, and what to do.
fn explain(error: &ImageError, format: ImageFormat) -> String {
    let kind = sniff::name(format);
    match error {
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            format!("this {kind} file is truncated; copy it again")
        }
        ImageError::Limits(_) => format!("this {kind} file needs more memory than the limit; scale it down first"),
        ImageError::Unsupported(what) => {
            format!("this kind of {kind} is not supported ({what}); convert it to JPEG or PNG")
        }
        other => format!("this {kind} file is damaged ({other}); copy it again, or save it again"),
    }
}

#[cfg(test)]
mod tests;
