//! The two normalizations, sixteen channels at a time.

use super::{EaGroupL1, EaSoftmax, scalar};
use crate::simd::{Simd, Vector, exp};

/// The number of independent chains of sums and maxima, so that a pixel does not wait for the previous one.
const CHAINS: usize = 4;

impl Vector for EaSoftmax<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let mut x = self.x;
        let width = x.layout().width;
        for block in x.blocks() {
            // SAFETY: the rows are in this view, each `width` pixels of 16 floats.
            unsafe {
                let mut greatest = [S::splat(f32::NEG_INFINITY); CHAINS];
                for row in x.rows() {
                    let line = x.pixel(block, row, 0);
                    for i in 0..width / CHAINS {
                        for k in 0..CHAINS {
                            greatest[k] = greatest[k].max(S::load(line.add(16 * (CHAINS * i + k))));
                        }
                    }
                    for i in width / CHAINS * CHAINS..width {
                        greatest[0] = greatest[0].max(S::load(line.add(16 * i)));
                    }
                }
                let greatest = greatest[0].max(greatest[1]).max(greatest[2].max(greatest[3]));

                let mut sums = [S::splat(0.0); CHAINS];
                for row in x.rows() {
                    let line = x.pixel(block, row, 0);
                    let mut line_sums = [S::splat(0.0); CHAINS];
                    for i in 0..width / CHAINS {
                        for k in 0..CHAINS {
                            line_sums[k] = line_sums[k].add(weigh(line.add(16 * (CHAINS * i + k)), greatest));
                        }
                    }
                    for i in width / CHAINS * CHAINS..width {
                        line_sums[0] = line_sums[0].add(weigh(line.add(16 * i), greatest));
                    }
                    for k in 0..CHAINS {
                        sums[k] = sums[k].add(line_sums[k]);
                    }
                }
                let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3]));

                // Padding lanes hold e^0 everywhere; set their weight to zero.
                let mut real = [0.0; 16];
                real[..x.layout().real_lanes(block)].fill(1.0);
                let share = S::load(real.as_ptr()).div(sum);
                for row in x.rows() {
                    let line = x.pixel(block, row, 0);
                    for i in 0..width {
                        S::load(line.add(16 * i)).mul(share).store(line.add(16 * i));
                    }
                }
            }
        }
    }
}

/// Replaces a pixel by `e^(pixel - greatest)` and returns it.
///
/// # Safety
/// The CPU supports the instructions of `S`; the pointer is to sixteen floats that no one else accesses.
#[inline(always)]
unsafe fn weigh<S: Simd>(pixel: *mut f32, greatest: S) -> S {
    // SAFETY: the caller's contract.
    unsafe {
        let weight = exp(S::load(pixel).sub(greatest));
        weight.store(pixel);
        weight
    }
}

impl Vector for EaGroupL1<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        // Every published network has groups of whole blocks.
        if !self.group.is_multiple_of(16) {
            return scalar::ea_group_l1(self);
        }
        let Self { mut x, group } = self;
        let (blocks, stride) = (group / 16, x.layout().block_stride());
        for row in x.rows() {
            for first in x.blocks().step_by(blocks) {
                let line = x.pixel(first, row, 0);
                for column in 0..x.layout().width {
                    // SAFETY: the view has all blocks, `blocks` divides their number, and the row is in this view.
                    unsafe {
                        let pixel = line.add(16 * column);
                        let mut sum = S::load(pixel);
                        for b in 1..blocks {
                            sum = sum.add(S::load(pixel.add(b * stride)));
                        }
                        let sum = S::splat(sum.sum() + 1e-6);
                        for b in 0..blocks {
                            let pixel = pixel.add(b * stride);
                            S::load(pixel).div(sum).store(pixel);
                        }
                    }
                }
            }
        }
    }
}
