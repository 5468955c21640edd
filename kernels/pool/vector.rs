//! The pools, one pixel's sixteen channels at a time.

use super::{AvgPool, GlobalAvgPool, MaxPoolTo, adaptive_window};
use crate::simd::{Simd, Vector};

impl Vector for AvgPool<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(mut self) {
        let (height, width) = self.x.layout().size();
        for block in self.out.blocks() {
            for row in self.out.rows() {
                for column in 0..self.out.layout().width {
                    let across = self.window(column, width);
                    // SAFETY: windows are clipped to the map, whose pixels are 16 floats; `pixel` proved the output.
                    unsafe {
                        let mut sum = S::splat(0.0);
                        for y in self.window(row, height) {
                            let line = self.x.data().as_ptr().add(self.x.layout().offset(block, y, 0));
                            for x in across.clone() {
                                sum = sum.add(S::load(line.add(16 * x)));
                            }
                        }
                        sum.mul(S::splat(self.share())).store(self.out.pixel(block, row, column));
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
                // SAFETY: the door proved that `x` has the blocks of `out`; a row has `width` pixels of 16 floats.
                unsafe {
                    let mut total = S::splat(0.0);
                    for y in 0..height {
                        // A sum per row first: more accurate than one long sum, and rows overlap in the pipeline.
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
                    // SAFETY: adaptive windows lie inside the map, whose pixels are 16 floats and whose blocks the door
                    // compared with those of `out`, `scale` and `shift`; `pixel` proved the output.
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
