//! Converts samples of any width to 8-bit RGB.

use std::fmt;
use std::str::FromStr;

use image::{DynamicImage, RgbImage};

use crate::error::{Error, Result};

/// The range of a file's 16-bit or floating-point samples.
///
/// Cameras with 10, 12 or 14 bits often write their samples unscaled to 16-bit files. Read as 16 bits, such a picture is
/// nearly black. The upper 8 of the significant bits are used. A range maps any two values to black and white. Files with 8-bit samples, and PNM
/// files that state another range, are not affected.
///
/// ```
/// use rtformer::pixels::Depth;
///
/// assert_eq!("12".parse::<Depth>()?, Depth::Bits(12));
/// assert_eq!("200..3000".parse::<Depth>()?, Depth::Range { low: 200.0, high: 3000.0 });
/// assert_eq!(Depth::default(), "auto".parse()?);
/// assert!("7".parse::<Depth>().is_err());
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Depth {
    /// All 16 bits.
    #[default]
    Auto,
    /// This number of bits, from 8 to 16. A file with larger samples is an error.
    Bits(u8),
    /// Values up to `low` become 0, those from `high` on 255; between them, linearly and rounded. Needed for floating-point samples.
    Range {
        /// The value that becomes black.
        low: f32,
        /// The value that becomes white; larger than `low`.
        high: f32,
    },
}

impl FromStr for Depth {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(bits) if (8..=16).contains(&bits) => Ok(Self::Bits(bits)),
            _ => range(text).ok_or_else(|| {
                Error::Input(format!(
                    "invalid depth `{text}`: expected `auto` or a number of bits from 8 to 16, or a range such as 0..4095"
                ))
            }),
        }
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Bits(bits) => write!(f, "{bits}"),
            Self::Range { low, high } => write!(f, "{low}..{high}"),
        }
    }
}

/// A range such as `0..4095`.
fn range(text: &str) -> Option<Depth> {
    let (low, high) = text.split_once("..")?;
    let number = |text: &str| text.trim().parse::<f32>().ok().filter(|number| number.is_finite());
    let (low, high) = (number(low)?, number(high)?);
    (low < high && (high - low).is_finite()).then_some(Depth::Range { low, high })
}

/// Whether the samples are floating-point numbers or 16 bits wide.
pub(super) fn is_deep(image: &DynamicImage) -> bool {
    image.color().bytes_per_pixel() > image.color().channel_count()
}

/// What is wrong with samples that need a range and have none.
pub(super) fn no_range(which: &str) -> String {
    format!(
        "has {which} samples, whose range is unknown; name it as the depth, such as --depth 0..1, or convert the file to 8 or 16 bits \
         per sample"
    )
}

/// A sample as a byte: `low` becomes 0 and `high` 255. NaN becomes 0.
pub(in crate::pixels) fn byte(value: f32, low: f32, high: f32) -> u8 {
    ((value - low) / (high - low) * 255.0).round() as u8 // saturates
}

/// Fails if the largest sample has more bits.
pub(in crate::pixels) fn check(bits: u8, highest: u16) -> Result<(), String> {
    let most = u16::MAX >> (16 - bits);
    if highest <= most {
        return Ok(());
    }
    Err(format!("has samples of up to {highest}, but {bits} bits hold at most {most}; decode it with a larger depth"))
}

/// Converts 16-bit or floating-point samples to 8-bit RGB: `low` becomes 0 and `high` 255. NaN becomes 0.
pub(super) fn ranged(image: &DynamicImage, low: f32, high: f32) -> RgbImage {
    let byte = |value| byte(value, low, high);
    let wide = |value: u16| byte(f32::from(value));
    let size = (image.width(), image.height());
    match image {
        DynamicImage::ImageLuma16(from) => collect(size, from.pixels().map(|p| [wide(p[0]); 3])),
        DynamicImage::ImageLumaA16(from) => collect(size, from.pixels().map(|p| [wide(p[0]); 3])),
        DynamicImage::ImageRgb16(from) => collect(size, from.pixels().map(|p| [wide(p[0]), wide(p[1]), wide(p[2])])),
        DynamicImage::ImageRgba16(from) => collect(size, from.pixels().map(|p| [wide(p[0]), wide(p[1]), wide(p[2])])),
        DynamicImage::ImageRgb32F(from) => collect(size, from.pixels().map(|p| [byte(p[0]), byte(p[1]), byte(p[2])])),
        DynamicImage::ImageRgba32F(from) => collect(size, from.pixels().map(|p| [byte(p[0]), byte(p[1]), byte(p[2])])),
        other => to_rgb(other),
    }
}

/// The largest 16-bit sample, not counting alpha; `None` for samples of another width.
pub(super) fn highest(image: &DynamicImage) -> Option<u16> {
    match image {
        DynamicImage::ImageLuma16(image) => image.as_raw().iter().copied().max(),
        DynamicImage::ImageRgb16(image) => image.as_raw().iter().copied().max(),
        DynamicImage::ImageLumaA16(image) => image.pixels().map(|p| p[0]).max(),
        DynamicImage::ImageRgba16(image) => image.pixels().map(|p| p[0].max(p[1]).max(p[2])).max(),
        _ => None,
    }
}

/// The likely depth of a camera whose largest sample is `highest`; `None` if the sample uses more than 14 bits, or is 0.
pub(in crate::pixels) fn likely_depth(highest: u16) -> Option<u8> {
    [8, 10, 12, 14].into_iter().find(|&bits| highest > 0 && highest >> bits == 0)
}

/// Converts to 8-bit RGB: drops alpha, repeats grey, keeps the high byte of 16 bits, scales floats from `0.0..=1.0`.
pub(in crate::pixels) fn to_rgb(image: &DynamicImage) -> RgbImage {
    to_rgb_of(image, 16)
}

/// As [`to_rgb`], for 16-bit samples that use only the lower `bits` bits: keeps the upper 8 of these.
pub(super) fn to_rgb_of(image: &DynamicImage, bits: u8) -> RgbImage {
    let high = |value: u16| (value >> (bits - 8)) as u8;
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
        later => later.to_rgb8(), // the enum is non-exhaustive; `image` 0.25 has no other variant
    }
}

fn collect((width, height): (u32, u32), pixels: impl Iterator<Item = [u8; 3]>) -> RgbImage {
    let mut rgb = RgbImage::new(width, height);
    rgb.as_chunks_mut::<3>().0.iter_mut().zip(pixels).for_each(|(to, from)| *to = from);
    rgb
}
