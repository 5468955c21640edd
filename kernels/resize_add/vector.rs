//! `resize_add`, sixteen channels of one output pixel at a time.

use super::{ResizeAdd, Tap};
use crate::simd::{Simd, Vector};

/// Columns whose taps are computed once for all blocks and rows. The chunk is long because reading whole rows of memory
/// is fastest.
const CHUNK: usize = 512;

impl Vector for ResizeAdd<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { small, add, mut out, vertical, horizontal } = self;
        let width = out.layout().width;
        let mut taps = [Tap::default(); CHUNK];
        for start in (0..width).step_by(CHUNK) {
            let taps = &mut taps[..CHUNK.min(width - start)];
            for (i, tap) in taps.iter_mut().enumerate() {
                *tap = horizontal.tap(start + i);
            }
            for block in out.blocks() {
                for row in out.rows() {
                    let y = vertical.tap(row);
                    let (above, below) = (small.pixel(block, y.first, 0), small.pixel(block, y.second, 0));
                    let add = add.map(|add| add.pixel(block, row, start));
                    let to = out.pixel(block, row, start);
                    // SAFETY: taps are inside `small`, which has the channels of `out`; `add` has the layout of `out`;
                    // the chunk ends inside the row. All pixels are 16 floats.
                    unsafe {
                        let down = S::splat(y.weight);
                        for (i, tap) in taps.iter().enumerate() {
                            let left = mix::<S>(above.add(16 * tap.first), below.add(16 * tap.first), down);
                            let right = mix::<S>(above.add(16 * tap.second), below.add(16 * tap.second), down);
                            let mut value = right.sub(left).fma(S::splat(tap.weight), left);
                            if let Some(add) = add {
                                value = value.add(S::load(add.add(16 * i)));
                            }
                            value.store(to.add(16 * i));
                        }
                    }
                }
            }
        }
    }
}

/// # Safety
/// The CPU supports the instructions of `S`; each pointer is to sixteen floats.
#[inline(always)]
unsafe fn mix<S: Simd>(a: *const f32, b: *const f32, weight: S) -> S {
    // SAFETY: the caller's contract.
    unsafe {
        let a = S::load(a);
        S::load(b).sub(a).fma(weight, a)
    }
}
