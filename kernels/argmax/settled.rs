//! Finds the output pixels whose winner is known from the four input pixels around them.
//!
//! Bilinear interpolation gives every class the same four weights, which are non-negative and sum to one. So if one
//! class leads every other by at least `lead` at all four corners, its exact interpolation also leads by `lead`. The
//! computed values are not exact. Let `u = 2^-24` be the unit roundoff and `m` the largest magnitude among the corners.
//! `a + w * (b - a)` rounds the difference (by at most `2mu`, for `|b - a| <= 2m` and `w <= 1`), the product (`2mu`;
//! not at all if it is fused) and the sum (`mu`). Apart from second-order terms, that is at most `5mu`. The second
//! interpolation averages its inputs, so it inherits an error of at most `5mu`, and adds `5mu` of its own. Two classes
//! can therefore approach each other by `20mu`. A class that leads by more than that has strictly the largest computed
//! value at every pixel of the cell, so it is the argmax under any rule for ties.
//!
//! We require `32mu`, which leaves room for the second-order terms and for the rounding of the test itself:
//! `lead^2 > norm * 2^-38 + 2^-100`. Here `norm`, the sum of the squares of all classes at the worst corner, is at
//! least `m^2`. Because of the squares:
//!
//! - NaN, infinity, and values above `2^64` make the norm infinite or NaN, and the test fails, so no difference
//!   overflows;
//! - a lead is above `2^-50`, so that underflow, with errors of about `2^-149`, does not matter;
//! - a tie, a lead of zero, fails the test.
//!
//! If the edge clamps both taps of an interpolation to one pixel, `b - a` is zero and the interpolation is exact for
//! any weight.

use super::chunk::{COLUMNS, Chunk, GROUPS, PLANE};
use crate::Map;
use crate::resize_add::Tap;
use crate::simd::Simd;

/// The square of `32 * 2^-24`.
const MARGIN: f32 = 1.0 / (1u64 << 38) as f32;
/// The square of the smallest lead.
const LEAST: f32 = f32::from_bits((127 - 100) << 23);
/// Stored instead of a class if the winner is not known.
const UNKNOWN: f32 = -1.0;

/// The leading class of each pixel in one input row.
#[derive(Clone, Copy)]
struct Leaders {
    /// The class with the largest logit.
    class: [f32; PLANE],
    /// The distance to the second largest logit, squared.
    lead: [f32; PLANE],
    /// The sum of the squares of all logits.
    norm: [f32; PLANE],
}

/// The settled groups of a chunk between two input rows.
pub(super) struct Settled {
    above: Leaders,
    below: Leaders,
    /// The input rows of `above` and `below`.
    rows: Option<(usize, usize)>,
    /// The common winner of each group of output pixels, or [`UNKNOWN`].
    classes: [f32; GROUPS],
    /// Which groups of sixteen input columns the unsettled groups read.
    needed: [bool; COLUMNS / 16],
}

impl Settled {
    pub(super) fn new() -> Self {
        let none = Leaders { class: [0.0; PLANE], lead: [0.0; PLANE], norm: [0.0; PLANE] };
        let (classes, needed) = ([UNKNOWN; GROUPS], [true; COLUMNS / 16]);
        Self { above: none, below: none, rows: None, classes, needed }
    }

    /// The class of all pixels of a group, if it is known.
    #[inline(always)]
    pub(super) fn class(&self, group: usize) -> Option<u32> {
        let class = self.classes[group];
        (class >= 0.0).then_some(class as u32)
    }

    /// Which groups of sixteen input columns of the chunk any unsettled group reads.
    pub(super) fn needed(&self) -> &[bool; COLUMNS / 16] {
        &self.needed
    }

    /// Forgets the rows, because the chunk has moved on.
    pub(super) fn forget(&mut self) {
        self.rows = None;
    }

    /// Finds the settled groups of `chunk` between the input rows of `y`.
    ///
    /// # Safety
    /// The CPU supports the instructions of `S`.
    #[inline(always)]
    pub(super) unsafe fn find<S: Simd>(&mut self, chunk: &Chunk, logits: Map, y: Tap) {
        let rows = (y.first, y.second);
        if self.rows == Some(rows) {
            return;
        }
        // SAFETY: the caller guarantees the CPU features; the leaders of `columns` columns are found before cells are
        // made of them.
        unsafe {
            if self.rows.is_some_and(|(_, below)| below == y.first) {
                self.above = self.below;
            } else {
                self.above.find::<S>(chunk, logits, y.first);
            }
            self.below.find::<S>(chunk, logits, y.second);
            self.rows = Some(rows);

            // A cell lies between two columns and two rows.
            let mut cells = [UNKNOWN; PLANE];
            for start in (0..chunk.columns - 1).step_by(16) {
                cell::<S>(&self.above, &self.below, start).store(cells.as_mut_ptr().add(start));
            }
            self.needed = [false; COLUMNS / 16];
            for (group, class) in chunk.groups.iter().zip(&mut self.classes).take(chunk.len.div_ceil(16)) {
                let last = group.base + group.index[15] as usize;
                let looked_at = &cells[group.base..=last];
                *class = if looked_at.iter().all(|cell| *cell == looked_at[0]) { looked_at[0] } else { UNKNOWN };
                if *class < 0.0 {
                    self.needed[group.base / 16..=(last + 1) / 16].fill(true);
                }
            }
        }
    }
}

/// The class that wins in each of sixteen cells, or [`UNKNOWN`].
///
/// # Safety
/// The CPU supports the instructions of `S`; `start + 17 <= PLANE`.
#[inline(always)]
unsafe fn cell<S: Simd>(above: &Leaders, below: &Leaders, start: usize) -> S {
    // SAFETY: the caller's contract.
    unsafe {
        let corners = |of: fn(&Leaders) -> &[f32; PLANE]| {
            let (above, below) = (of(above).as_ptr().add(start), of(below).as_ptr().add(start));
            [S::load(above), S::load(above.add(1)), S::load(below), S::load(below.add(1))]
        };
        let least = |[a, b, c, d]: [S; 4]| a.min(b).min(c.min(d));
        let greatest = |[a, b, c, d]: [S; 4]| a.max(b).max(c.max(d));
        let classes = corners(|leaders| &leaders.class);
        let (lowest, highest) = (least(classes), greatest(classes));
        let lead = least(corners(|leaders| &leaders.lead));
        // A sum, not the maximum, because it preserves NaN.
        let [a, b, c, d] = corners(|leaders| &leaders.norm);
        let bound = a.add(b).add(c.add(d)).fma(S::splat(MARGIN), S::splat(LEAST));
        let agreed = highest.if_above(lowest, S::splat(UNKNOWN), lowest);
        lead.if_above(bound, agreed, S::splat(UNKNOWN))
    }
}

impl Leaders {
    /// Finds the leaders of one row of the chunk's input columns.
    ///
    /// # Safety
    /// The CPU supports the instructions of `S`.
    #[inline(always)]
    unsafe fn find<S: Simd>(&mut self, chunk: &Chunk, logits: Map, row: usize) {
        let layout = logits.layout();
        for start in (0..chunk.columns).step_by(16) {
            // SAFETY: the caller guarantees the CPU features. As in `Chunk::fill`, columns are clamped to the map and a
            // plane has room.
            unsafe {
                let (mut top, mut second) = (S::splat(f32::NEG_INFINITY), S::splat(f32::NEG_INFINITY));
                let (mut class, mut norm) = (S::splat(0.0), S::splat(0.0));
                for block in 0..layout.blocks() {
                    let line = logits.pixel(block, row, 0);
                    let mut pixels = [S::splat(0.0); 16];
                    for (i, pixel) in pixels.iter_mut().enumerate() {
                        *pixel = S::load(line.add(16 * (chunk.first + start + i).min(layout.width - 1)));
                    }
                    let planes = S::transpose(pixels);
                    for (lane, &value) in planes.iter().enumerate().take(layout.real_lanes(block)) {
                        second = second.max(value.min(top));
                        class = value.if_above(top, S::splat((16 * block + lane) as f32), class);
                        top = top.max(value);
                        norm = value.fma(value, norm);
                    }
                }
                let lead = top.sub(second);
                class.store(self.class.as_mut_ptr().add(start));
                lead.mul(lead).store(self.lead.as_mut_ptr().add(start));
                norm.store(self.norm.as_mut_ptr().add(start));
            }
        }
    }
}
