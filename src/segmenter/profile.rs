//! The time of each operation of a frame.

use super::Segmenter;
use crate::backend::OpTime;
use crate::error::Result;
use crate::pixels::{Mask, Pixels};
use crate::timing::timed;

/// The times of one frame, operation by operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FrameProfile {
    /// Wall-clock time of the whole frame: from 8-bit pixels in memory to an 8-bit mask in memory.
    pub milliseconds: f64,
    /// The operations in order. The time that is missing from their sum was spent between them.
    pub operations: Vec<OpTime>,
}

impl Segmenter {
    /// [`bench::profile`](crate::bench::profile).
    pub(crate) fn profile(&self, photo: &Pixels<'_>, mask: &mut Mask) -> Result<FrameProfile> {
        self.engine.profile(true);
        let (done, milliseconds) = timed(|| self.segment_into(photo, mask));
        let operations = self.engine.profile(false);
        done.map(|_| FrameProfile { milliseconds, operations })
    }

    /// [`bench::peak_flops`](crate::bench::peak_flops).
    pub(crate) fn peak_flops(&self) -> Option<f64> {
        self.engine.peak_flops()
    }
}
