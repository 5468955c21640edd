//! Upsampling, sixteen output pixels of one class at a time.
//!
//! A chunk of output columns reads few input columns. For each output row and each block of sixteen classes, those
//! input columns are interpolated vertically and transposed into planes of one class each, on the stack. Sixteen output
//! pixels then read neighbours in a plane, with two register permutations and one interpolation per class.

use super::Upsampled;
use crate::Map;
use crate::resize_add::Tap;
use crate::simd::Simd;

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
    pub(super) start: usize,
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
    pub(super) unsafe fn fill<S: Simd>(&mut self, logits: Map, y: Tap, block: usize, needed: &[bool; COLUMNS / 16]) {
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
    pub(super) unsafe fn logits<S: Simd>(&self, lane: usize, group: &Group) -> S {
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
