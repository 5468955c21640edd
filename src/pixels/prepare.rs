//! Turns a picture into the network's input, bit for bit as PaddleSeg does.
//!
//! PaddleSeg reads a photo as 32-bit floats from 0 to 255 and resizes it if configured (`cv2.resize`, bilinear, half-pixel
//! centres, no antialiasing). It divides by 255 in f32, then subtracts the mean and divides by the standard deviation; each
//! of these two steps is computed in f64 and rounded to f32. Source: `paddleseg/transforms/functional.py`.

mod input;
mod pixels;
mod size;

pub(crate) use input::{Columns, Rows};
pub use pixels::{PixelFormat, Pixels};
pub use rtformer_kernels::Extent;
pub use size::Size;

use crate::error::{Error, Result};

/// Mean and standard deviation of red, green and blue, for values scaled to `0.0..=1.0`.
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
    /// Subtracted from each channel.
    pub mean: [f64; 3],
    /// Each channel is divided by this; must not be 0.
    pub std: [f64; 3],
}

/// The preprocessing of a photo: resize, normalise, pad, in this order.
///
/// Padding adds zeros at the bottom and on the right until height and width are multiples of `pad_multiple`. After
/// normalization, zero is the mean colour. No 8-bit pixel has exactly that value, so no 8-bit photo equals a padded [`Input`].
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
    /// Applied after resizing.
    pub normalization: Normalization,
    /// The size to which the photo is resized.
    pub size: Size,
    /// Height and width are padded to a multiple of this; 1 means no padding.
    pub pad_multiple: u32,
}

/// The maximum number of input pixels. RTFormer-Slim needs 68 bytes per pixel (measured), Base 1.5 times that: 4 or 7 GiB.
const MOST_PIXELS: usize = 64 << 20;

impl Preparation {
    /// Normalises only: no resizing, no padding.
    pub fn new(normalization: Normalization) -> Self {
        Self { normalization, size: Size::Native, pad_multiple: 1 }
    }

    /// The network's input size for a photo of `width` x `height` pixels: the full size with padding, and the size without it.
    ///
    /// # Errors
    /// [`Error::Pixels`] for a photo without pixels; [`Error::Input`] for an input without pixels or of more than 64
    /// megapixels, or if `pad_multiple` is 0.
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
                    "size {} turns {width}x{height} pixels into {to_width}x{to_height}{padded}; the network accepts 1 pixel to 64 \
                     megapixels, so use another size",
                    self.size
                )))
            }
        }
    }
}

/// The network's input: normalised red, green and blue planes, with padding.
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
    /// `[3, height, width]`: the red, green and blue planes.
    pub data: Vec<f32>,
    /// Height in pixels, with padding.
    pub height: usize,
    /// Width in pixels, with padding.
    pub width: usize,
    /// (height, width) of the photo; the rest is padding.
    pub kept: (usize, usize),
}
