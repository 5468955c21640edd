//! The pools, sixteen channels of one pixel at a time.

use super::{AvgPool, GlobalAvgPool, MaxPoolTo, adaptive_window};
use crate::simd::{Simd, Vector};

/// Output columns whose horizontal sums are kept on the stack.
const COLUMNS: usize = 32;

impl Vector for AvgPool<'_> {
    /// Computes horizontal sums first, then the sums of those: `2 * kernel` additions per window instead of
    /// `kernel * kernel`.
    ///
    /// Each input row is read once, summed horizontally for every column of the output, and added to the output rows
    /// whose windows contain it. Those few rows stay in the L1 cache. An output is the sum over its rows from top to
    /// bottom, each summed from left to right, for any view.
    #[inline(always)]
    unsafe fn vector<S: Simd>(mut self) {
        let ((height, width), output) = (self.x.layout().size(), self.out.layout());
        let view = self.out.rows();
        let Some(last) = view.clone().last() else { return };
        for block in self.out.blocks() {
            for y in self.window(view.start, height).start..self.window(last, height).end {
                let (line, rows) = (self.x.pixel(block, y, 0), self.over(y, &view));
                if rows.is_empty() {
                    continue;
                }
                for start in (0..output.width).step_by(COLUMNS) {
                    let columns = COLUMNS.min(output.width - start);
                    // SAFETY: the caller guarantees the CPU features. Windows are clipped to the map, whose pixels are
                    // 16 floats; `pixel` checks that a row is in the view, and `columns` end inside it.
                    unsafe {
                        let mut sums = [S::splat(0.0); COLUMNS];
                        for (i, sum) in sums[..columns].iter_mut().enumerate() {
                            let mut across = S::splat(0.0);
                            for x in self.window(start + i, width) {
                                across = across.add(S::load(line.add(16 * x)));
                            }
                            *sum = across;
                        }
                        for row in rows.clone() {
                            let (to, window) = (self.out.pixel(block, row, start), self.window(row, height));
                            let share = S::splat(if y + 1 == window.end { self.share() } else { 1.0 });
                            for (i, sum) in sums[..columns].iter().enumerate() {
                                let to = to.add(16 * i);
                                let total = if y == window.start { *sum } else { S::load(to).add(*sum) };
                                total.mul(share).store(to);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Vector for GlobalAvgPool<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { x, mut out } = self;
        let (height, width) = x.layout().size();
        for block in out.blocks() {
            for row in out.rows() {
                // SAFETY: the public function checked that `x` has the blocks of `out`; a row has `width` pixels of 16 floats.
                unsafe {
                    let mut total = S::splat(0.0);
                    for y in 0..height {
                        // One sum per row first: this is more accurate than one long sum, and rows overlap in the
                        // pipeline.
                        let line = x.pixel(block, y, 0);
                        let mut sum = S::splat(0.0);
                        for i in 0..width {
                            sum = sum.add(S::load(line.add(16 * i)));
                        }
                        total = total.add(sum);
                    }
                    total.div(S::splat((height * width) as f32)).store(out.pixel(block, row, 0));
                }
            }
        }
    }
}

impl Vector for MaxPoolTo<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { x, scale, shift, mut out } = self;
        let ((height, width), (out_height, out_width)) = (x.layout().size(), out.layout().size());
        for block in out.blocks() {
            for row in out.rows() {
                for column in 0..out_width {
                    // SAFETY: adaptive windows lie inside the map, whose pixels are 16 floats. The public function
                    // compared its blocks with those of `out`, `scale` and `shift`; `pixel` checked the output.
                    unsafe {
                        let (scale, shift) = (S::load(scale[block].0.as_ptr()), S::load(shift[block].0.as_ptr()));
                        let mut greatest = S::splat(f32::NEG_INFINITY);
                        for y in adaptive_window(row, out_height, height) {
                            let line = x.pixel(block, y, 0);
                            for i in adaptive_window(column, out_width, width) {
                                greatest = greatest.max(S::load(line.add(16 * i)).fma(scale, shift));
                            }
                        }
                        greatest.store(out.pixel(block, row, column));
                    }
                }
            }
        }
    }
}
