//! A picture becomes the network's input, with PaddleSeg's arithmetic to the last bit.
//!
//! PaddleSeg reads a photo as 32-bit floats from 0 to 255, resizes it where the configuration says so (`cv2.resize`,
//! bilinear, half-pixel centres, no antialiasing), divides by 255 in f32, then subtracts the mean and divides by the
//! standard deviation, each step in f64 and rounded to f32. Source: `paddleseg/transforms/functional.py`.

mod input;
mod pixels;
mod size;

pub(crate) use input::{Columns, Rows};
pub use pixels::{PixelFormat, Pixels};
pub use rtformer_kernels::Extent;
pub use size::Size;

use crate::error::{Error, Result};

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
