//! A picture becomes the network's input, with PaddleSeg's arithmetic to the last bit.
//!
//! PaddleSeg reads a photo as 32-bit floats from 0 to 255, resizes it where the configuration says so (`cv2.resize`,
//! bilinear, half-pixel centres, no antialiasing), divides by 255 in f32, then subtracts the mean and divides by the
//! standard deviation, each step in f64 and rounded to f32. Source: `paddleseg/transforms/functional.py`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use image::{DynamicImage, GrayImage, RgbImage, RgbaImage};

use super::decode::{self, Image};
use crate::error::{Error, Result};

mod input;

pub(crate) use input::{Columns, Rows};
pub use rtformer_kernels::Extent;

/// The order of the bytes in a pixel.
///
/// ```
/// use rtformer::pixels::{PixelFormat, Pixels};
///
/// assert_eq!(PixelFormat::Bgra8.channels(), 4);
/// let pixels = Pixels::new(&[1, 2, 3, 255], 1, 1, 4, PixelFormat::Bgra8)?;
/// assert_eq!(pixels.rgb(0, 0), [3, 2, 1]);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// Red, green, blue.
    Rgb8,
    /// Blue, green, red: OpenCV's order.
    Bgr8,
    /// Red, green, blue and an alpha that is ignored.
    Rgba8,
    /// Blue, green, red and an alpha that is ignored.
    Bgra8,
    /// One byte, which is red, green and blue alike.
    Gray8,
}

impl PixelFormat {
    /// Bytes a pixel.
    pub fn channels(self) -> usize {
        match self {
            Self::Gray8 => 1,
            Self::Rgb8 | Self::Bgr8 => 3,
            Self::Rgba8 | Self::Bgra8 => 4,
        }
    }

    /// Where in a pixel red, green and blue are.
    pub(crate) fn offsets(self) -> [usize; 3] {
        match self {
            Self::Gray8 => [0, 0, 0],
            Self::Rgb8 | Self::Rgba8 => [0, 1, 2],
            Self::Bgr8 | Self::Bgra8 => [2, 1, 0],
        }
    }
}

/// A picture in 8-bit pixels that somebody else owns: a decoded file, a camera's buffer, an `image` buffer.
///
/// ```
/// use rtformer::pixels::{PixelFormat, Pixels};
///
/// // Two rows of two BGR pixels, each row padded to 8 bytes, as cameras do.
/// let frame = [1, 2, 3, 4, 5, 6, 0, 0, 7, 8, 9, 10, 11, 12, 0, 0];
/// let pixels = Pixels::new(&frame, 2, 2, 8, PixelFormat::Bgr8)?;
/// assert_eq!(pixels.rgb(1, 1), [12, 11, 10]);
/// assert!(Pixels::new(&frame, 2, 3, 8, PixelFormat::Bgr8).is_err(), "there is no third row");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pixels<'a> {
    data: Data<'a>,
    width: u32,
    height: u32,
    stride: usize,
    format: PixelFormat,
    decode_ms: f64,
}

/// Shared where a conversion was unavoidable, so that a clone never copies a picture.
#[derive(Clone, Debug)]
enum Data<'a> {
    Borrowed(&'a [u8]),
    Shared(Arc<Vec<u8>>),
}

impl<'a> Pixels<'a> {
    /// A picture in `data`, whose rows begin `stride` bytes apart.
    ///
    /// # Errors
    /// [`Error::Pixels`] when a side is 0, a row does not fit in the stride, or `data` ends before the last pixel.
    pub fn new(data: &'a [u8], width: u32, height: u32, stride: usize, format: PixelFormat) -> Result<Self> {
        let refuse = |why: String| Err(Error::Pixels(format!("{width}x{height} {format:?}, stride {stride}: {why}")));
        if width == 0 || height == 0 {
            return refuse("has no pixels".into());
        }
        let Some(row) = (width as usize).checked_mul(format.channels()) else {
            return refuse("a row is longer than memory".into());
        };
        if stride < row {
            return refuse(format!("a row is {row} bytes and does not fit in the stride"));
        }
        // The last row needs no padding.
        let needed = (height as usize - 1).checked_mul(stride).and_then(|above| above.checked_add(row));
        match needed {
            Some(needed) if needed <= data.len() => {
                Ok(Self::whole(Data::Borrowed(data), width, height, stride, format))
            }
            Some(needed) => refuse(format!("needs {needed} bytes, the buffer has {}", data.len())),
            None => refuse(format!("needs more bytes than memory has, the buffer has {}", data.len())),
        }
    }

    fn whole(data: Data<'a>, width: u32, height: u32, stride: usize, format: PixelFormat) -> Self {
        Self { data, width, height, stride, format, decode_ms: 0.0 }
    }

    /// The pixels of an `image` buffer, which has no padding.
    fn packed(data: Data<'a>, (width, height): (u32, u32), format: PixelFormat) -> Self {
        Self::whole(data, width, height, width as usize * format.channels(), format)
    }

    /// Pixels a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The order of the bytes in a pixel.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// How long decoding took, in milliseconds; 0 unless this is an [`Image`]'s.
    ///
    /// ```
    /// let photo = image::RgbImage::new(2, 2);
    /// assert_eq!(rtformer::pixels::Pixels::from(&photo).decode_ms(), 0.0);
    /// ```
    pub fn decode_ms(&self) -> f64 {
        self.decode_ms
    }

    /// One row's bytes, without the padding.
    ///
    /// ```
    /// # use rtformer::pixels::{PixelFormat, Pixels};
    /// let padded = [1, 2, 0, 0, 3, 4, 0, 0];
    /// let pixels = Pixels::new(&padded, 2, 2, 4, PixelFormat::Gray8)?;
    /// assert_eq!(pixels.row(1), [3, 4]);
    /// assert_eq!((pixels.width(), pixels.height(), pixels.format()), (2, 2, PixelFormat::Gray8));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, y: u32) -> &[u8] {
        assert!(y < self.height, "row {y} of {}", self.height);
        let data = match &self.data {
            Data::Borrowed(data) => data,
            Data::Shared(data) => data.as_slice(),
        };
        let start = y as usize * self.stride;
        &data[start..start + self.width as usize * self.format.channels()]
    }

    /// One pixel's red, green and blue.
    ///
    /// # Panics
    /// When the pixel is outside of the picture.
    pub fn rgb(&self, x: u32, y: u32) -> [u8; 3] {
        let pixel = &self.row(y)[x as usize * self.format.channels()..];
        self.format.offsets().map(|offset| pixel[offset])
    }
}

impl<'a> From<&'a RgbImage> for Pixels<'a> {
    fn from(image: &'a RgbImage) -> Self {
        Self::packed(Data::Borrowed(image.as_raw()), image.dimensions(), PixelFormat::Rgb8)
    }
}

impl<'a> From<&'a RgbaImage> for Pixels<'a> {
    fn from(image: &'a RgbaImage) -> Self {
        Self::packed(Data::Borrowed(image.as_raw()), image.dimensions(), PixelFormat::Rgba8)
    }
}

impl<'a> From<&'a GrayImage> for Pixels<'a> {
    fn from(image: &'a GrayImage) -> Self {
        Self::packed(Data::Borrowed(image.as_raw()), image.dimensions(), PixelFormat::Gray8)
    }
}

/// Borrows 8-bit grey, RGB and RGBA; converts the others as decoding a file does (16-bit keeps its high byte). Floats,
/// which no file is read as, go from `0.0..=1.0` to `0..=255`.
impl<'a> From<&'a DynamicImage> for Pixels<'a> {
    fn from(image: &'a DynamicImage) -> Self {
        match image {
            DynamicImage::ImageRgb8(image) => image.into(),
            DynamicImage::ImageRgba8(image) => image.into(),
            DynamicImage::ImageLuma8(image) => image.into(),
            other => {
                let rgb = decode::to_rgb(other);
                let size = rgb.dimensions();
                Self::packed(Data::Shared(Arc::new(rgb.into_raw())), size, PixelFormat::Rgb8)
            }
        }
    }
}

impl<'a> From<&'a Image> for Pixels<'a> {
    fn from(image: &'a Image) -> Self {
        Self { decode_ms: image.decode_ms(), ..image.rgb().into() }
    }
}

impl<'a> From<&Pixels<'a>> for Pixels<'a> {
    fn from(pixels: &Pixels<'a>) -> Self {
        pixels.clone()
    }
}

/// The size at which the network sees a photo. The mask has the photo's own size, whatever this is.
///
/// ```
/// use rtformer::pixels::Size;
///
/// assert_eq!("native".parse::<Size>()?.of(960, 720), (960, 720));
/// assert_eq!("1024x512".parse::<Size>()?.of(960, 720), (1024, 512));
/// assert_eq!("within:1024x512".parse::<Size>()?.of(960, 720), (683, 512));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// The photo's own.
    #[default]
    Native,
    /// Exactly this, whatever the photo's proportions: PaddleSeg's `Resize(target_size=[width, height])`.
    Exact {
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The largest of the photo's proportions whose long side and short side fit in this one's long side and short side:
    /// PaddleSeg's `Resize(target_size=[width, height], keep_ratio=True)`. A tall photo may thus exceed the height of a
    /// wide target.
    Within {
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
    },
}

impl Size {
    /// What a photo of `width` x `height` becomes: (width, height).
    pub fn of(self, width: u32, height: u32) -> (u32, u32) {
        match self {
            Self::Native => (width, height),
            Self::Exact { width, height } => (width, height),
            Self::Within { width: w, height: h } => {
                let (long, short) = (width.max(height).max(1), width.min(height).max(1));
                let scale = f64::min(f64::from(w.max(h)) / f64::from(long), f64::from(w.min(h)) / f64::from(short));
                // Python's `round` takes halves to the even number. A side never vanishes.
                let side = |side: u32| ((f64::from(side) * scale).round_ties_even() as u32).max(1);
                (side(width), side(height))
            }
        }
    }
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sides = |text: &str| -> Option<(u32, u32)> {
            let (width, height) = text.split_once(['x', 'X'])?;
            let side = |digits: &str| {
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit()); // `parse` takes a `+` as well
                digits.parse::<u32>().ok().filter(|side| plain && (1..=65_535).contains(side))
            };
            Some((side(width)?, side(height)?))
        };
        let parsed = match (text, text.strip_prefix("within:")) {
            ("native", _) => Some(Self::Native),
            (_, Some(rest)) => sides(rest).map(|(width, height)| Self::Within { width, height }),
            (_, None) => sides(text).map(|(width, height)| Self::Exact { width, height }),
        };
        parsed.ok_or_else(|| {
            Error::Input(format!(
                "invalid size `{text}`: expected `native`, WIDTHxHEIGHT as in `2048x1024`, or `within:WIDTHxHEIGHT` to keep the \
                 photo's proportions; sides are 1 to 65535"
            ))
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Exact { width, height } => write!(f, "{width}x{height}"),
            Self::Within { width, height } => write!(f, "within:{width}x{height}"),
        }
    }
}

/// What is subtracted from red, green and blue (scaled to `0.0..=1.0`), and what they are then divided by.
///
/// ```
/// use rtformer::pixels::{Input, Normalization, Preparation};
///
/// let white = image::GrayImage::from_pixel(1, 1, image::Luma([255]));
/// let normalization = Normalization { mean: [0.5; 3], std: [0.25; 3] };
/// assert_eq!(Input::prepare(&(&white).into(), &Preparation::new(normalization))?.data, [2.0; 3]);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Subtracted.
    pub mean: [f64; 3],
    /// Divided by; none may be 0.
    pub std: [f64; 3],
}

/// What happens to a photo before the network sees it: resize, normalise, pad, in this order.
///
/// Padding adds zeros at the bottom and on the right until height and width are multiples of a number. Zero is the mean colour, and
/// no 8-bit pixel is exactly that: a padded photo is defined by its [`Input`].
///
/// ```
/// use rtformer::pixels::{Normalization, Preparation, Size};
///
/// let normalization = Normalization { mean: [0.5; 3], std: [0.5; 3] };
/// let preparation = Preparation { pad_multiple: 32, ..Preparation::new(normalization) };
/// let extent = preparation.extent(480, 360)?;
/// assert_eq!((extent.full, extent.kept), ((384, 480), (360, 480))); // (height, width)
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preparation {
    /// The colours' scale.
    pub normalization: Normalization,
    /// The size that the photo is resized to.
    pub size: Size,
    /// Height and width are padded to a multiple of this; 1 does not pad.
    pub pad_multiple: u32,
}

/// The most pixels that the network takes. RTFormer-Slim holds 68 bytes for each (measured), Base half as much again: 4 or 7 GiB.
const MOST_PIXELS: usize = 64 << 20;

impl Preparation {
    /// Only the normalization: no resizing, no padding.
    pub fn new(normalization: Normalization) -> Self {
        Self { normalization, size: Size::Native, pad_multiple: 1 }
    }

    /// The network's input size for a photo of `width` x `height`: the full size with the padding, and the part that is the photo's.
    ///
    /// # Errors
    /// [`Error::Pixels`] for a photo without pixels, [`Error::Input`] for an input past 64 megapixels or a multiple of 0.
    pub fn extent(&self, width: u32, height: u32) -> Result<Extent> {
        if width == 0 || height == 0 {
            return Err(Error::Pixels(format!("{width}x{height} has no pixels")));
        }
        if self.pad_multiple == 0 {
            return Err(Error::Input("cannot pad to a multiple of 0; use 1 for no padding".into()));
        }
        let (to_width, to_height) = self.size.of(width, height);
        let pad = |side: u32| (side as usize).checked_next_multiple_of(self.pad_multiple as usize);
        let full = pad(to_height).zip(pad(to_width));
        let pixels = full.and_then(|(height, width)| height.checked_mul(width));
        match full {
            Some(full) if pixels.is_some_and(|pixels| (1..=MOST_PIXELS).contains(&pixels)) => {
                Ok(Extent { full, kept: (to_height as usize, to_width as usize) })
            }
            _ => {
                let padded = if self.pad_multiple == 1 {
                    String::new()
                } else {
                    format!(", padded to a multiple of {}", self.pad_multiple)
                };
                Err(Error::Input(format!(
                    "size {} makes {width}x{height} pixels {to_width}x{to_height}{padded}; the network takes 1 to 64 megapixels, \
                     use another size",
                    self.size
                )))
            }
        }
    }
}

/// The network's input: normalised red, green and blue planes.
///
/// ```
/// use rtformer::pixels::{Input, Normalization, Preparation};
///
/// let photo = image::RgbImage::from_pixel(64, 30, image::Rgb([255, 0, 51]));
/// let normalization = Normalization { mean: [0.5; 3], std: [0.5; 3] };
/// let preparation = Preparation { pad_multiple: 32, ..Preparation::new(normalization) };
/// let input = Input::prepare(&(&photo).into(), &preparation)?;
/// assert_eq!((input.width, input.height, input.kept), (64, 32, (30, 64)));
/// assert_eq!((input.data[0], input.data[64 * 32], input.data[64 * 30]), (1.0, -1.0, 0.0));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// `[3, height, width]`: the red plane, the green plane, the blue plane.
    pub data: Vec<f32>,
    /// Rows, with the padding.
    pub height: usize,
    /// Pixels a row, with the padding.
    pub width: usize,
    /// Rows and pixels a row that are the photo's; the rest is padding.
    pub kept: (usize, usize),
}
