//! Upsamples logits from 1/8 to the photo's size, split over threads by rows.

use std::ops::Range;

use rayon::prelude::*;
use rtformer_kernels::{self as kernels, ClassId, Confidence, Extent, Isa, ShapeError};

use super::Maps;

/// The logits of one image, and the size to which they are upsampled.
#[derive(Clone, Copy)]
pub(super) struct Readout<'a> {
    pub(super) isa: Isa,
    pub(super) logits: &'a Maps,
    pub(super) image: usize,
    pub(super) size: Extent,
}

impl Readout<'_> {
    /// Computes classes and confidence of `rows`, which are halved repeatedly until there are `pieces`.
    pub(super) fn argmax<T: ClassId>(
        self,
        pieces: usize,
        rows: Range<usize>,
        ids: &mut [T],
        confidence: Option<Confidence<'_>>,
    ) -> Result<(), ShapeError> {
        if pieces <= 1 || rows.len() <= 1 {
            return kernels::argmax(self.isa, self.logits.image(self.image)?, self.size, rows, ids, confidence);
        }
        let middle = rows.start + rows.len() / 2;
        let at = ((middle - rows.start) * self.size.kept.1).min(ids.len());
        let (upper_ids, lower_ids) = ids.split_at_mut(at);
        let halves = confidence.map(|Confidence { values, temperature }| {
            let (upper, lower) = values.split_at_mut(at.min(values.len()));
            (Confidence { values: upper, temperature }, Confidence { values: lower, temperature })
        });
        let (upper, lower) = halves.unzip();
        let done = rayon::join(
            || self.argmax(pieces / 2, rows.start..middle, upper_ids, upper),
            || self.argmax(pieces / 2, middle..rows.end, lower_ids, lower),
        );
        done.0.and(done.1)
    }

    /// Upsamples logits to `[classes, height, width]`. Each piece has some rows of every class.
    pub(super) fn upsample(self, pieces: usize, out: &mut [f32]) -> Result<(), ShapeError> {
        let (height, width) = self.size.kept;
        let rows = height.div_ceil(pieces).max(1);
        let mut split: Vec<Vec<&mut [f32]>> = (0..height.div_ceil(rows)).map(|_| Vec::new()).collect();
        for class in out.chunks_mut((height * width).max(1)) {
            split.iter_mut().zip(class.chunks_mut((rows * width).max(1))).for_each(|(piece, plane)| piece.push(plane));
        }
        split.into_par_iter().enumerate().try_for_each(|(piece, mut planes)| {
            let rows = piece * rows..((piece + 1) * rows).min(height);
            kernels::upsample(self.isa, self.logits.image(self.image)?, self.size, rows, &mut planes)
        })
    }
}
