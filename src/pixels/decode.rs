//! Files become 8-bit RGB, as PaddleSeg sees them through `cv2.imread(path, IMREAD_COLOR)`.
//!
//! JPEG, PNG, WebP, BMP, TIFF, PNM and the first frame of GIF, recognised by what is in them, whatever they are called.
//! Grey is repeated in the three channels, alpha is dropped (not blended), 16-bit samples keep their high byte, and the
//! EXIF orientation is applied. Colour profiles are ignored. Where this differs from OpenCV: a damaged file is an error,
//! not a picture with grey in it; PNM samples are scaled by their maximum value; and a JPEG's pixels may be off by a few
//! steps, because its decoder rounds the inverse cosine transform and interpolates the chroma in its own way.

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, RgbImage};

use crate::error::{Error, Result};
use crate::memory;
use crate::timing::timed;

mod exif;
pub(super) mod jpeg;
pub(super) mod sniff;

/// How large an image may be before its decoding is refused. Checked before anything of that size is allocated.
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
    /// Width times height.
    pub max_pixels: u64,
    /// Width, and height.
    pub max_side: u32,
    /// Bytes that decoding may hold at once, the file not counted; also the longest file that is read.
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
}

impl Image {
    /// What the names of images end in, in lower case. Decoding goes by content; this is for looking through folders.
    pub const EXTENSIONS: [&str; 15] =
        ["bmp", "dib", "gif", "jfif", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"];

    /// Reads and decodes a file, within the default [`Limits`].
    ///
    /// ```no_run
    /// let street = rtformer::pixels::Image::open("street.jpg")?;
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Read`] when the file cannot be read; [`Error::Image`] when it is no image, a damaged one, or too large.
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
        let path = path.as_ref();
        let (bytes, read_ms) = timed(|| read(path, limits.max_alloc));
        let mut image = Self::decode(&bytes?, path, limits)?;
        image.decode_ms += read_ms;
        Ok(image)
    }

    /// Decodes a file that is in memory. Errors call it by `name`; `-` is the custom for standard input.
    ///
    /// ```
    /// use rtformer::pixels::{Image, Limits};
    ///
    /// let refused = Image::decode(b"no image", "-", &Limits::default()).unwrap_err();
    /// assert!(refused.to_string().starts_with("-: "));
    /// ```
    ///
    /// # Errors
    /// [`Error::Image`] when the bytes are no image, a damaged one, or too large.
    pub fn decode(bytes: &[u8], name: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        let name = name.as_ref();
        // The decoders are safe code, but not ours: should one of them panic, that costs one photo and not the others.
        let (decoded, decode_ms) = timed(|| catch_unwind(AssertUnwindSafe(|| decode(bytes, limits))));
        let decoded =
            decoded.unwrap_or_else(|_| Err("the decoder failed on this file; save it anew as JPEG or PNG".into()));
        let rgb = decoded.map_err(|reason| Error::image(name, reason))?;
        Ok(Self { rgb, name: name.to_path_buf(), decode_ms })
    }

    /// Pixels a row.
    pub fn width(&self) -> u32 {
        self.rgb.width()
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.rgb.height()
    }

    /// The pixels.
    pub fn rgb(&self) -> &RgbImage {
        &self.rgb
    }

    /// The pixels, to keep.
    ///
    /// ```
    /// # use rtformer::pixels::Image;
    /// let photo = Image::from(image::RgbImage::new(2, 1));
    /// assert_eq!(photo.into_rgb().dimensions(), (2, 1));
    /// ```
    pub fn into_rgb(self) -> RgbImage {
        self.rgb
    }

    /// The file's path, or the name that was given; empty for pixels that came decoded.
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

    /// How long reading and decoding took, in milliseconds; 0 for pixels that came decoded.
    ///
    /// ```
    /// # use rtformer::pixels::Image;
    /// assert!(Image::open("tests/data/golden/photo.png")?.decode_ms() > 0.0);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn decode_ms(&self) -> f64 {
        self.decode_ms
    }
}

impl From<RgbImage> for Image {
    fn from(rgb: RgbImage) -> Self {
        Self { rgb, name: PathBuf::new(), decode_ms: 0.0 }
    }
}

fn read(path: &Path, longest: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(longest.saturating_add(1)).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 > longest => {
            Err(Error::image(path, format!("is longer than {longest} bytes; no photo that can be decoded here is")))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(Error::reading(path)(error)),
    }
}

/// The pixels, or what is wrong and what to do.
fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, String> {
    let format = sniff::format(bytes)?;
    let mut budget = limits.max_alloc;
    if format == ImageFormat::Jpeg {
        let scanned = jpeg::scan(bytes)?;
        budget = budget.saturating_sub(scanned.coefficients);
    }

    let mut within = image::Limits::no_limits();
    within.max_alloc = Some(limits.max_alloc);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(within.clone());
    let failed = |error| explain(&error, format);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    let color = decoder.color_type();
    if matches!(color, ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err("has floating-point samples, whose range is unknown; convert it to 8 or 16 bits a sample".into());
    }
    // A damaged orientation is none.
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
            "{width}x{height} needs {} MiB to decode, {} MiB are allowed; scale it down first",
            needed >> 20,
            limits.max_alloc >> 20
        ));
    }
    within.max_image_width = Some(limits.max_side);
    within.max_image_height = Some(limits.max_side);
    within.max_alloc = Some(budget - after);
    decoder.set_limits(within).map_err(failed)?;

    let what = || format!("decoding {width}x{height} pixels");
    // The decoders' own memory, and that of what follows, is not ours to allocate.
    memory::probe(usize::try_from(needed).unwrap_or(usize::MAX), what).map_err(|e| e.to_string())?;
    let decoded = if color == ColorType::Rgb8 {
        let mut pixels = memory::filled(decoder.total_bytes() as usize, 0, what).map_err(|e| e.to_string())?;
        decoder.read_image(&mut pixels).map_err(failed)?;
        RgbImage::from_raw(width, height, pixels).map(DynamicImage::from)
    } else {
        DynamicImage::from_decoder(decoder).map(Some).map_err(failed)?
    };
    let decoded = decoded.ok_or_else(|| format!("{width}x{height} pixels were decoded to too few bytes"))?;
    let mut upright = DynamicImage::ImageRgb8(into_rgb(decoded));
    upright.apply_orientation(orientation);
    Ok(into_rgb(upright))
}

fn check_size(width: u32, height: u32, limits: &Limits) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    let limit = if pixels == 0 {
        return Err(format!("{width}x{height} has no pixels"));
    } else if width.max(height) > limits.max_side {
        format!("sides of up to {}", limits.max_side)
    } else if pixels > limits.max_pixels {
        format!("{} pixels", limits.max_pixels)
    } else {
        return Ok(());
    };
    Err(format!("{width}x{height} is too large, {limit} are allowed; scale it down first"))
}

fn into_rgb(image: DynamicImage) -> RgbImage {
    match image {
        DynamicImage::ImageRgb8(rgb) => rgb,
        other => to_rgb(&other),
    }
}

/// Eight-bit RGB: alpha dropped, grey repeated, the high byte of 16 bits, floats from `0.0..=1.0`.
pub(super) fn to_rgb(image: &DynamicImage) -> RgbImage {
    let high = |value: u16| (value >> 8) as u8;
    let unit = |value: f32| (value * 255.0).round() as u8;
    let size = (image.width(), image.height());
    match image {
        DynamicImage::ImageRgb8(from) => from.clone(),
        DynamicImage::ImageLuma8(from) => collect(size, from.pixels().map(|p| [p[0]; 3])),
        DynamicImage::ImageLumaA8(from) => collect(size, from.pixels().map(|p| [p[0]; 3])),
        DynamicImage::ImageRgba8(from) => collect(size, from.pixels().map(|p| [p[0], p[1], p[2]])),
        DynamicImage::ImageLuma16(from) => collect(size, from.pixels().map(|p| [high(p[0]); 3])),
        DynamicImage::ImageLumaA16(from) => collect(size, from.pixels().map(|p| [high(p[0]); 3])),
        DynamicImage::ImageRgb16(from) => collect(size, from.pixels().map(|p| [high(p[0]), high(p[1]), high(p[2])])),
        DynamicImage::ImageRgba16(from) => collect(size, from.pixels().map(|p| [high(p[0]), high(p[1]), high(p[2])])),
        DynamicImage::ImageRgb32F(from) => collect(size, from.pixels().map(|p| [unit(p[0]), unit(p[1]), unit(p[2])])),
        DynamicImage::ImageRgba32F(from) => collect(size, from.pixels().map(|p| [unit(p[0]), unit(p[1]), unit(p[2])])),
        later => later.to_rgb8(), // the enum is open; `image` 0.25 has no other
    }
}

fn collect((width, height): (u32, u32), pixels: impl Iterator<Item = [u8; 3]>) -> RgbImage {
    let mut rgb = RgbImage::new(width, height);
    rgb.as_chunks_mut::<3>().0.iter_mut().zip(pixels).for_each(|(to, from)| *to = from);
    rgb
}

/// The decoder's error in our words: what is wrong, and what to do.
fn explain(error: &ImageError, format: ImageFormat) -> String {
    let kind = sniff::name(format);
    match error {
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            format!("this {kind} file ends too early; it is truncated, copy it again")
        }
        ImageError::Limits(_) => format!("this {kind} file needs more memory than is allowed; scale it down first"),
        ImageError::Unsupported(what) => {
            format!("this kind of {kind} is not supported ({what}); convert it to JPEG or PNG")
        }
        other => format!("this {kind} file is damaged ({other}); copy it again, or save it anew"),
    }
}

#[cfg(test)]
mod tests;
