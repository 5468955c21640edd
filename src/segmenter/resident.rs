//! An input that stays on the device, for benchmarks.

use std::fmt;

use super::engine::{Uploaded, Wanted};
use crate::error::Result;
use crate::pixels::Mask;

/// An input that is on the device already.
///
/// ```
/// use rtformer::pixels::Mask;
/// use rtformer::{Device, Segmenter};
///
/// let segmenter = Segmenter::embedded(Device::Cpu)?;
/// let photo = image::RgbImage::new(64, 48);
/// let input = segmenter.prepare(&photo)?;
/// let resident = segmenter.resident(&input)?;
/// let (mut mask, mut logits) = (Mask::new(64, 48, 11), Vec::new());
/// resident.mask(&mut mask)?;
/// resident.logits(&mut logits)?;
/// assert_eq!((&mask, logits.len()), (segmenter.segment(&photo)?.mask(), 11 * 48 * 64));
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct Resident<'a> {
    pub(super) uploaded: Box<dyn Uploaded + 'a>,
    pub(super) size: (usize, usize),
    pub(super) classes: usize,
}

impl Resident<'_> {
    /// The network and its full-size bilinear logits, `[classes, height, width]`, into `out`.
    ///
    /// # Errors
    /// As [`Segmenter::segment`](crate::Segmenter::segment).
    pub fn logits(&self, out: &mut Vec<f32>) -> Result<()> {
        out.resize(self.classes * self.size.0 * self.size.1, 0.0);
        self.uploaded.run(Wanted { size: self.size, ids: None, confidence: None, logits: Some(out) }).map(drop)
    }

    /// The network and its mask.
    ///
    /// # Errors
    /// As [`Segmenter::segment`](crate::Segmenter::segment).
    pub fn mask(&self, mask: &mut Mask) -> Result<()> {
        mask.resize_for(self.size.1 as u32, self.size.0 as u32, self.classes);
        self.uploaded
            .run(Wanted { size: self.size, ids: Some(mask.ids_mut()), confidence: None, logits: None })
            .map(drop)
    }
}

impl fmt::Debug for Resident<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resident").field("size", &self.size).field("classes", &self.classes).finish_non_exhaustive()
    }
}
