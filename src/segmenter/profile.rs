//! Where a frame's time goes.

use super::Segmenter;
use crate::backend::OpTime;
use crate::error::Result;
use crate::pixels::{Mask, Pixels};
use crate::timing::timed;

/// One frame, operation by operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FrameProfile {
    /// The whole frame by the clock on the wall: 8-bit pixels in memory to an 8-bit mask in memory.
    pub milliseconds: f64,
    /// What it was made of, in order. What their sum lacks of the frame was spent between them.
    pub operations: Vec<OpTime>,
}

impl Segmenter {
    /// [`segment_into`](Self::segment_into), and where its time went.
    ///
    /// Frames that other threads give the same segmenter meanwhile would be in it too.
    ///
    /// ```
    /// # use rtformer::pixels::Mask;
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// let mut mask = Mask::new(0, 0, segmenter.config().num_classes);
    /// let frame = segmenter.profile(&image::RgbImage::new(64, 48), &mut mask)?;
    /// assert!(frame.operations.iter().any(|op| op.name == "conv1.0" && op.flops > 0.0));
    /// assert!(frame.operations.iter().map(|op| op.milliseconds).sum::<f64>() <= frame.milliseconds);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`segment`](Self::segment).
    pub fn profile<'a>(&self, photo: impl Into<Pixels<'a>>, mask: &mut Mask) -> Result<FrameProfile> {
        let photo = photo.into();
        self.engine.profile(true);
        let (done, milliseconds) = timed(|| self.segment_into(photo, mask));
        let operations = self.engine.profile(false);
        done.map(|_| FrameProfile { milliseconds, operations })
    }
}
