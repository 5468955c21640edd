//! Upsampling and argmax, sixteen output pixels of one class at a time.
//!
//! A chunk of output columns reads few input columns. For each output row and each block of sixteen classes, those
//! input columns are interpolated vertically and transposed into planes of one class each, on the stack. Sixteen output
//! pixels then read neighbours in a plane, with two register permutations and one interpolation per class.

use super::settled::Settled;
use super::{Argmax, ClassId, Upsample, Upsampled};
use crate::Map;
use crate::resize_add::Tap;
use crate::simd::{Simd, Vector, exp};

/// Groups of sixteen output pixels in a chunk. At a factor of eight, 240 pixels read 32 input columns.
pub(super) const GROUPS: usize = 15;
/// The maximum number of input columns that a chunk reads.
pub(super) const COLUMNS: usize = 256;
/// Floats per plane: a permutation loads sixteen floats from any column and from the next one.
pub(super) const PLANE: usize = COLUMNS + 32;

/// The input columns of sixteen neighbouring output pixels, in a plane.
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub(super) base: usize,
    /// Offsets from `base`, non-decreasing. The right neighbour is at the next offset.
    pub(super) index: [i32; 16],
    weight: [f32; 16],
    /// Whether the pixels are too far apart for a permutation.
    wide: bool,
}

/// A chunk of output columns and the sixteen planes that it reads.
pub(super) struct Chunk {
    start: usize,
    pub(super) len: usize,
    /// The first input column and the number of columns; the last one may be past the edge.
    pub(super) first: usize,
    pub(super) columns: usize,
    pub(super) groups: [Group; GROUPS],
    planes: [f32; 16 * PLANE],
}

impl Chunk {
    #[allow(clippy::large_stack_arrays, reason = "18 KB, the planes that must stay in the L1 cache")]
    pub(super) fn new() -> Self {
        let group = Group { base: 0, index: [0; 16], weight: [0.0; 16], wide: false };
        Self { start: 0, len: 0, first: 0, columns: 0, groups: [group; GROUPS], planes: [0.0; 16 * PLANE] }
    }

    /// Moves to the next columns; returns false at the end of the row.
    pub(super) fn place(&mut self, u: &Upsampled) -> bool {
        let start = self.start + self.len;
        if start >= u.width {
            return false;
        }
        self.first = u.horizontal.tap(start).first;
        let most = (16 * GROUPS).min(u.width - start);
        // At least one pixel fits: it reads two neighbouring columns.
        let fits = |i: &usize| u.horizontal.tap(start + i).first - self.first + 2 <= COLUMNS;
        (self.start, self.len) = (start, (0..most).take_while(fits).count());
        self.columns = u.horizontal.tap(start + self.len - 1).first - self.first + 2;
        for (g, group) in self.groups.iter_mut().enumerate().take(self.len.div_ceil(16)) {
            // Lanes past the end repeat the last pixel.
            let tap = |lane: usize| -> Tap { u.horizontal.tap(start + (16 * g + lane).min(self.len - 1)) };
            let base = tap(0).first;
            group.base = base - self.first;
            for lane in 0..16 {
                group.index[lane] = (tap(lane).first - base) as i32;
                group.weight[lane] = tap(lane).weight;
            }
            // The limits of `Simd::pick`. Rounding can exceed them at a ratio just below 1, and a smaller output does.
            group.wide = group.index[7] > 7 || group.index[15] - group.index[8] > 7;
        }
        true
    }

    /// Fills the planes with the classes of `block` at output row `row`, in the groups of sixteen columns that are
    /// `needed`.
    ///
    /// # Safety
    /// The CPU supports the instructions of `S`.
    #[inline(always)]
    unsafe fn fill<S: Simd>(&mut self, logits: Map, y: Tap, block: usize, needed: &[bool; COLUMNS / 16]) {
        let (above, below) = (logits.pixel(block, y.first, 0), logits.pixel(block, y.second, 0));
        let last = logits.layout().width - 1;
        for start in (0..self.columns).step_by(16) {
            if !needed[start / 16] {
                continue;
            }
            // SAFETY: the columns are clamped to the map, whose pixels are 16 floats. `columns <= COLUMNS`, a multiple
            // of 16, so sixteen more floats from `start` are inside a plane.
            unsafe {
                let mut rows = [S::splat(0.0); 16];
                for (i, row) in rows.iter_mut().enumerate() {
                    let column = (self.first + start + i).min(last);
                    let value = S::load(above.add(16 * column));
                    *row = S::load(below.add(16 * column)).sub(value).fma(S::splat(y.weight), value);
                }
                let planes = S::transpose(rows);
                for (lane, values) in planes.iter().enumerate() {
                    values.store(self.planes.as_mut_ptr().add(lane * PLANE + start));
                }
            }
        }
    }

    /// The logits of the class in `lane` for the pixels of a group. All code that needs them calls this function.
    ///
    /// # Safety
    /// The CPU supports the instructions of `S`; `lane < 16`.
    #[inline(always)]
    unsafe fn logits<S: Simd>(&self, lane: usize, group: &Group) -> S {
        // SAFETY: `place` ensured `base + index[15] + 1 < columns <= COLUMNS`, and the plane is 32 floats longer than
        // that.
        unsafe {
            let from = self.planes.as_ptr().add(lane * PLANE + group.base);
            let (left, right) = if group.wide {
                (gather(from, &group.index), gather(from.add(1), &group.index))
            } else {
                (S::pick(from, &group.index), S::pick(from.add(1), &group.index))
            };
            right.sub(left).fma(S::load(group.weight.as_ptr()), left)
        }
    }
}

/// # Safety
/// The CPU supports the instructions of `S`; every indexed float is valid.
#[inline(always)]
unsafe fn gather<S: Simd>(from: *const f32, index: &[i32; 16]) -> S {
    let mut lanes = [0.0; 16];
    for (lane, &index) in lanes.iter_mut().zip(index) {
        // SAFETY: the caller's contract.
        *lane = unsafe { *from.add(index as usize) };
    }
    // SAFETY: the caller guarantees the CPU features; sixteen floats were just written.
    unsafe { S::load(lanes.as_ptr()) }
}

impl<T: ClassId> Vector for Argmax<'_, T> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { upsampled: u, ids, mut confidence, skip } = self;
        let (layout, mut chunk, mut settled) = (u.logits.layout(), Chunk::new(), Settled::new());
        let (mut best, mut winner, mut sum) = ([[0.0; 16]; GROUPS], [[0.0; 16]; GROUPS], [[0.0; 16]; GROUPS]);
        while chunk.place(&u) {
            settled.forget();
            let groups = chunk.len.div_ceil(16);
            for (line, row) in u.rows.clone().enumerate() {
                let y = u.vertical.tap(row);
                let out = line * u.width + chunk.start..line * u.width + chunk.start + chunk.len;
                if skip {
                    // SAFETY: the caller guarantees the CPU features.
                    unsafe { settled.find::<S>(&chunk, u.logits, y) };
                }
                // The confidence needs every class of every pixel.
                let needed = if confidence.is_some() { &[true; COLUMNS / 16] } else { settled.needed() };
                for block in 0..layout.blocks() {
                    // SAFETY: the caller guarantees the CPU features; lanes are below 16, and the arrays hold 16 floats per group.
                    unsafe {
                        chunk.fill::<S>(u.logits, y, block, needed);
                        for g in 0..groups {
                            let group = &chunk.groups[g];
                            if let Some(class) = settled.class(g) {
                                // The result without the skip: the winner's logit is the largest.
                                if confidence.is_some() && class as usize / 16 == block {
                                    chunk.logits::<S>(class as usize % 16, group).store(best[g].as_mut_ptr());
                                }
                                continue;
                            }
                            // The first class wins unless another one is larger, whatever its value.
                            let first_lane = usize::from(block == 0);
                            let (mut top, mut class) = if block == 0 {
                                (chunk.logits::<S>(0, group), S::splat(0.0))
                            } else {
                                (S::load(best[g].as_ptr()), S::load(winner[g].as_ptr()))
                            };
                            for lane in first_lane..layout.real_lanes(block) {
                                let value = chunk.logits::<S>(lane, group);
                                class = value.if_above(top, S::splat((16 * block + lane) as f32), class);
                                top = value.max(top);
                            }
                            top.store(best[g].as_mut_ptr());
                            class.store(winner[g].as_mut_ptr());
                        }
                    }
                }
                for (g, ids) in ids[out.clone()].chunks_mut(16).enumerate() {
                    let settled = settled.class(g).map(T::from_class);
                    let classes: [T; 16] =
                        settled.map_or_else(|| winner[g].map(|c| T::from_class(c as u32)), |c| [c; 16]);
                    match ids.as_chunks_mut::<16>() {
                        ([all], []) => *all = classes, // a length that is known at compile time
                        (_, some) => some.copy_from_slice(&classes[..some.len()]),
                    }
                }

                let Some(confidence) = &mut confidence else { continue };
                for block in 0..layout.blocks() {
                    // SAFETY: as above. If there is only one block, the planes still hold it.
                    unsafe {
                        if layout.blocks() > 1 {
                            chunk.fill::<S>(u.logits, y, block, needed);
                        }
                        let sharpness = S::splat(1.0 / confidence.temperature);
                        for g in 0..groups {
                            let group = &chunk.groups[g];
                            let top = S::load(best[g].as_ptr());
                            let mut total = if block == 0 { S::splat(0.0) } else { S::load(sum[g].as_ptr()) };
                            for lane in 0..layout.real_lanes(block) {
                                total = total.add(exp(chunk.logits::<S>(lane, group).sub(top).mul(sharpness)));
                            }
                            total.store(sum[g].as_mut_ptr());
                        }
                    }
                }
                for (values, sum) in confidence.values[out].chunks_mut(16).zip(&sum) {
                    for (value, sum) in values.iter_mut().zip(sum) {
                        *value = 1.0 / sum;
                    }
                }
            }
        }
    }
}

impl Vector for Upsample<'_, '_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { upsampled: u, planes } = self;
        let (layout, mut chunk) = (u.logits.layout(), Chunk::new());
        while chunk.place(&u) {
            for (line, row) in u.rows.clone().enumerate() {
                let y = u.vertical.tap(row);
                for block in 0..layout.blocks() {
                    // SAFETY: the caller guarantees the CPU features.
                    unsafe { chunk.fill::<S>(u.logits, y, block, &[true; COLUMNS / 16]) };
                    for lane in 0..layout.real_lanes(block) {
                        let start = line * u.width + chunk.start;
                        let out = planes[16 * block + lane][start..start + chunk.len].chunks_mut(16);
                        for (group, out) in chunk.groups.iter().zip(out) {
                            // SAFETY: the caller guarantees the CPU features; the lane is below 16; 16 floats are
                            // stored only if there is room for them.
                            unsafe {
                                let values = chunk.logits::<S>(lane, group);
                                if out.len() == 16 {
                                    values.store(out.as_mut_ptr());
                                } else {
                                    let mut lanes = [0.0; 16];
                                    values.store(lanes.as_mut_ptr());
                                    out.copy_from_slice(&lanes[..out.len()]);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
