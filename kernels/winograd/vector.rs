//! Transforms sixteen channels at a time; the products use the register tile of the direct convolution.

use std::ops::Range;

use super::{FAR, FAR_SQUARED, Grid, NEAR, NEAR_SQUARED, PATCH, POINTS, SQUARES, TILE, Winograd};
use crate::conv::tile::{Ahead, Reduction, Tile};
use crate::conv::{Activation, Norm};
use crate::simd::{Simd, Vector, gelu};
use crate::{Lanes, floats};

/// `B' d`: transforms six neighbouring inputs to their values at the six points.
///
/// # Safety
/// The CPU supports the instructions of `S`.
#[inline(always)]
unsafe fn forward<S: Simd>([d0, d1, d2, d3, d4, d5]: [S; PATCH]) -> [S; PATCH] {
    // SAFETY: the caller guarantees the CPU features.
    unsafe {
        let (near, far, squares) = (S::splat(NEAR), S::splat(FAR), S::splat(-SQUARES));
        let (near_squared, far_squared) = (S::splat(-NEAR_SQUARED), S::splat(-FAR_SQUARED));
        let (minus_near, minus_far) = (S::splat(-NEAR), S::splat(-FAR));
        let (even1, odd1) = (d2.fma(far_squared, d4), d1.fma(far_squared, d3));
        let (even2, odd2) = (d2.fma(near_squared, d4), d1.fma(near_squared, d3));
        [
            d2.fma(squares, d0.add(d4)),
            odd1.fma(near, even1),
            odd1.fma(minus_near, even1),
            odd2.fma(far, even2),
            odd2.fma(minus_far, even2),
            d3.fma(squares, d1.add(d5)),
        ]
    }
}

/// `A' m`: transforms the sums at the six points to four outputs.
///
/// # Safety
/// The CPU supports the instructions of `S`.
#[inline(always)]
unsafe fn backward<S: Simd>([m0, m1, m2, m3, m4, m5]: [S; PATCH]) -> [S; TILE] {
    // SAFETY: the caller guarantees the CPU features.
    unsafe {
        let (near, far) = (S::splat(NEAR), S::splat(FAR));
        let (sum1, difference1) = (m1.add(m2), m1.sub(m2));
        let (sum2, difference2) = (m3.add(m4), m3.sub(m4));
        [
            sum1.fma(far, sum2.fma(near, m0)),
            difference1.add(difference2),
            sum1.fma(near, sum2.mul(far)),
            difference1.fma(S::splat(NEAR_SQUARED), difference2.fma(S::splat(FAR_SQUARED), m5)),
        ]
    }
}

/// Computes rows `FIRST .. END` of `B' d B` and stores each number in its plane; `load` returns the input at a row and
/// column of the patch.
///
/// # Safety
/// The CPU supports the instructions of `S`; `to` has room for a block's words in each of 36 planes.
#[inline(always)]
unsafe fn transform<S: Simd, const FIRST: usize, const END: usize>(
    load: impl Fn(usize, usize) -> S,
    to: *mut f32,
    plane: usize,
) {
    // SAFETY: the caller's contract. Rows that are not requested are dead code.
    unsafe {
        let mut half = [[S::splat(0.0); PATCH]; PATCH];
        for c in 0..PATCH {
            let mut line = [S::splat(0.0); PATCH];
            for r in 0..PATCH {
                line[r] = load(r, c);
            }
            let line = forward(line);
            for r in FIRST..END {
                half[r][c] = line[r];
            }
        }
        for r in FIRST..END {
            let line = forward(half[r]);
            for c in 0..PATCH {
                let to = to.add((r * PATCH + c) * plane);
                line[c].store_words(to);
                // The next tile's place.
                S::prefetch_plane(to.wrapping_add(16));
            }
        }
    }
}

impl Vector for Winograd<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(mut self) {
        let (grid, group) = (self.grid(), S::whole_tiles(self.packed.group()));
        for first in (0..grid.len()).step_by(group) {
            let some = first..(first + group).min(grid.len());
            // SAFETY: the caller guarantees the CPU features, and the public function has checked the call; a group of
            // tiles fits into the scratch buffer.
            unsafe {
                match self.input.prologue {
                    Some(_) => self.inputs::<S, true>(grid, some.clone()),
                    None => self.inputs::<S, false>(grid, some.clone()),
                }
                self.products::<S>(some.len());
                self.outputs::<S>(grid, some);
            }
        }
    }
}

impl Winograd<'_> {
    /// Transforms the inputs of some tiles: `[36][in / 16][tile][words of 16 channels]`.
    ///
    /// # Safety
    /// The CPU supports the instructions of `S`; the tiles are at most one group; `NORM` is true if there is a
    /// prologue.
    #[inline(always)]
    unsafe fn inputs<S: Simd, const NORM: bool>(&mut self, grid: Grid, some: Range<usize>) {
        let (layout, group) = (self.input.map.layout(), self.packed.group());
        let (plane, words) = (16 * self.packed.input_plane(), self.packed.block_words());
        let (map_rows, map_columns) = (1..layout.height + 1, 1..layout.width + 1);
        for block in 0..layout.blocks() {
            // SAFETY: the caller guarantees the CPU features; the public function has checked the prologue.
            let norm = unsafe { Norm::<S>::of(&self.input, block) };
            for (i, tile) in some.clone().enumerate() {
                let (row, column) = grid.corner(tile);
                // Rows and columns of the memory start with the halo, so the patch starts at the output's own row and
                // column.
                let corner = block * layout.block_stride() + row * layout.row_stride() + column * 16;
                let inside =
                    row > 0 && column > 0 && row + PATCH < layout.height + 2 && column + PATCH < layout.width + 2;
                // SAFETY: only rows and columns inside the map are loaded. Every plane has room for each tile,
                // `(block * group + i) * words < in_blocks * group * words < plane`, and there are 36 planes.
                unsafe {
                    let x = self.input.map.data().as_ptr().add(corner);
                    let to = self.scratch.as_mut_ptr().cast::<f32>().add((block * group + i) * words);
                    let load = |r: usize, c: usize| {
                        let value = S::load(x.add(r * layout.row_stride() + c * 16));
                        if NORM { norm.apply(value) } else { value }
                    };
                    if !inside {
                        // The halo stays zero after the norm. Values beyond the halo do not affect stored outputs; they
                        // are zero to avoid NaN.
                        let inner = |r, c| map_rows.contains(&(row + r)) && map_columns.contains(&(column + c));
                        let load = |r, c| if inner(r, c) { load(r, c) } else { S::splat(0.0) };
                        transform::<S, 0, PATCH>(load, to, plane);
                    } else if NORM {
                        transform::<S, 0, PATCH>(load, to, plane);
                    } else {
                        // Transforms a few rows at a time: loading again is cheaper than keeping 36 numbers in 32
                        // registers (a quarter of this phase for AVX-512, 32 channels).
                        transform::<S, 0, 1>(load, to, plane);
                        transform::<S, 1, 3>(load, to, plane);
                        transform::<S, 3, 5>(load, to, plane);
                        transform::<S, 5, 6>(load, to, plane);
                    }
                }
            }
        }
    }

    /// Multiplies by the weights, point by point. The sums are `[36][view's blocks][tile][16]`.
    ///
    /// # Safety
    /// The CPU supports the instructions of `S`; the scratch buffer holds the inputs of `count` tiles, at most one
    /// group.
    #[inline(always)]
    unsafe fn products<S: Simd>(&mut self, count: usize) {
        let Self { packed, out, .. } = self;
        let (group, blocks, words) = (packed.group(), out.blocks(), packed.words());
        let (input_plane, output_plane) = (packed.input_plane(), packed.output_plane());
        let pixel = packed.block_words();
        let reduction = Reduction { words, block_stride: group * pixel, row_stride: 0, kernel: 1 };
        let (inputs, sums) = self.scratch.split_at_mut(POINTS * input_plane);
        for point in 0..POINTS {
            for block in blocks.clone().step_by(S::TILE_BLOCKS) {
                let together = S::TILE_BLOCKS.min(blocks.end - block);
                let weights = &packed.weights[(point * packed.bias.len() + block) * words..];
                // The weights that follow are fetched while the tiles use these.
                let (point_after, block_after) = match block + together {
                    after if after < blocks.end => (point, after),
                    _ => ((point + 1) % POINTS, blocks.start),
                };
                let after = &packed.weights[(point_after * packed.bias.len() + block_after) * words..];
                let steps = words.div_ceil(pixel) * count.div_ceil(S::TILE_PIXELS);
                // SAFETY: the caller guarantees the CPU features. Tiles are `pixel` words apart, blocks of channels one
                // group of tiles apart; both planes have room for a group of every block. The weights of `together`
                // blocks are contiguous.
                unsafe {
                    let tile = Tile {
                        reduction: &reduction,
                        x: inputs.as_ptr().add(point * input_plane).cast::<f32>(),
                        weights: floats(weights).as_ptr(),
                        weight_block: words * 16,
                        bias: floats(&ZEROS).as_ptr(),
                        residual: None,
                        floor: f32::NEG_INFINITY,
                        out: sums.as_mut_ptr().add(point * output_plane + (block - blocks.start) * group).cast(),
                        out_block: group * 16,
                        next: Ahead::panel(floats(after).as_ptr(), together * words, steps),
                    };
                    tile.row::<S, true, 1>(together, count);
                }
            }
        }
    }

    /// Transforms the sums of some tiles into outputs, and stores those inside the view.
    ///
    /// # Safety
    /// The CPU supports the instructions of `S`; the scratch buffer holds the sums of these tiles.
    #[inline(always)]
    unsafe fn outputs<S: Simd>(&mut self, grid: Grid, some: Range<usize>) {
        let (packed, group, plane) = (self.packed, self.packed.group(), self.packed.output_plane());
        let (view, blocks, width) = (self.out.rows(), self.out.blocks(), self.out.layout().width);
        let floor = self.floor();
        let sums = self.scratch[POINTS * packed.input_plane()..].as_ptr();
        for block in blocks.clone() {
            for (i, tile) in some.clone().enumerate() {
                let (row, column) = grid.corner(tile);
                let columns = TILE.min(width - column);
                // SAFETY: every plane has room for each tile's sums, as for its inputs; `pixel` checks that a row is in
                // the view, and the code touches at most the rest of that row.
                unsafe {
                    let from = sums.add((block - blocks.start) * group + i).cast::<f32>();
                    let bias = S::load(packed.bias[block].0.as_ptr());
                    let mut half = [[S::splat(0.0); PATCH]; TILE];
                    for c in 0..PATCH {
                        let mut line = [S::splat(0.0); PATCH];
                        for r in 0..PATCH {
                            let from = from.add((r * PATCH + c) * plane * 16);
                            line[r] = S::load(from);
                            S::prefetch_plane(from.wrapping_add(16));
                        }
                        let line = backward(line);
                        for r in 0..TILE {
                            half[r][c] = line[r];
                        }
                    }
                    for r in 0..TILE {
                        if !view.contains(&(row + r)) {
                            continue;
                        }
                        let line = backward(half[r]);
                        let to = self.out.pixel(block, row + r, column);
                        for c in 0..columns {
                            let mut value = line[c].add(bias);
                            if let Some(residual) = self.epilogue.residual {
                                value = value.add(S::load(residual.pixel(block, row + r, column + c)));
                            }
                            let value = value.max(S::splat(floor));
                            value.store(to.add(16 * c));
                        }
                        if self.epilogue.activation == Activation::Gelu {
                            for c in 0..columns {
                                gelu(S::load(to.add(16 * c))).store(to.add(16 * c));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The sums start at zero, because the bias is added after the transform. There are as many blocks as any tile has.
const ZEROS: [Lanes; 2] = [Lanes::ZERO; 2];
