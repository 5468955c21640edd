//! The pointwise operations, sixteen channels of one pixel at a time.

use super::{Add, Relu};
use crate::simd::{Simd, Vector};

impl Vector for Relu<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { x, mut out } = self;
        // SAFETY: the public function checked that `x` has the layout of `out`; a row has `width` pixels of 16 floats.
        unsafe {
            for block in out.blocks() {
                for row in out.rows() {
                    let (from, to) = (x.pixel(block, row, 0), out.pixel(block, row, 0));
                    for i in 0..out.layout().width {
                        S::load(from.add(16 * i)).max(S::splat(0.0)).store(to.add(16 * i));
                    }
                }
            }
        }
    }
}

impl Vector for Add<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { a, b, mut out } = self;
        // SAFETY: the public function checked that `a` and `b` have the layout of `out`; a row has `width` pixels of 16 floats.
        unsafe {
            for block in out.blocks() {
                for row in out.rows() {
                    let (a, b, to) = (a.pixel(block, row, 0), b.pixel(block, row, 0), out.pixel(block, row, 0));
                    for i in 0..out.layout().width {
                        S::load(a.add(16 * i)).add(S::load(b.add(16 * i))).store(to.add(16 * i));
                    }
                }
            }
        }
    }
}
