//! Convolution with register tiles.

use super::strip::Strip;
use super::tile::{Ahead, Reduction, Tile};
use super::{Activation, Conv};
use crate::floats_mut;
use crate::simd::{Simd, Vector, gelu};

impl Vector for Conv<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        // SAFETY: the caller guarantees the CPU features, and the public function has checked the call. `BLOCKED` and
        // `STRIDE` match the memory that the tiles read.
        unsafe {
            match (self.strip, self.input.map.layout().lanes, self.packed.shape().stride) {
                (Some(strip), ..) if strip.tile_stride() == 1 => strips::<S, 1>(self, strip),
                (Some(strip), ..) => strips::<S, 2>(self, strip),
                (None, 16, 1) => maps::<S, true, 1>(self),
                (None, 16, _) => maps::<S, true, 2>(self),
                (None, _, 1) => maps::<S, false, 1>(self),
                (None, _, _) => maps::<S, false, 2>(self),
            }
        }
    }
}

/// The memory that the tiles of some output rows read.
struct Source {
    /// The first tap of the first pixel of the first row.
    x: *const f32,
    /// Words from the first tap of one output row to that of the next.
    advance: usize,
    reduction: Reduction,
}

/// Convolves with tiles that read the map itself.
///
/// # Safety
/// The CPU supports the instructions of `S`, the public function has checked the call, and `BLOCKED` and `STRIDE` match
/// the input.
#[inline(always)]
unsafe fn maps<S: Simd, const BLOCKED: bool, const STRIDE: usize>(mut call: Conv) {
    let (shape, input) = (call.packed.shape(), call.input.map.layout());
    // If the weights are small, compute all blocks of one row, then the next row, so that the input is read once. If
    // they are large, compute all rows with the weights of one tile, which stay in the cache.
    let rows = call.out.rows();
    let many = 4 * call.packed.block_len() * call.out.blocks().len() > call.packed.blocks().weights();
    let group = if many { rows.len().max(1) } else { 1 };
    for first in rows.clone().step_by(group) {
        // Rows and columns of the memory start with the halo, so less padding means a larger offset.
        let start = 1 - shape.padding;
        let corner = (first * shape.stride + start) * input.row_stride() + start * input.lanes;
        // SAFETY: the public function checked the channels, lanes and sizes. The last window ends at
        // `stride * (out - 1) + kernel - padding <= len + padding`, which is inside the halo because `padding <= 1`.
        unsafe {
            let source = Source {
                x: call.input.map.data().as_ptr().add(corner),
                advance: shape.stride * input.row_stride(),
                reduction: Reduction {
                    words: shape.in_channels,
                    block_stride: input.block_stride(),
                    row_stride: input.row_stride(),
                    kernel: shape.kernel,
                },
            };
            rows_of::<S, BLOCKED, STRIDE>(&mut call, &source, first, (first + group).min(rows.end));
        }
    }
}

/// Convolves with tiles that read strips of the input, which are prepared a few rows at a time.
///
/// # Safety
/// The CPU supports the instructions of `S`, the public function has checked the call, and `STRIDE` is the stride of
/// the tiles within `strip`.
#[inline(always)]
unsafe fn strips<S: Simd, const STRIDE: usize>(mut call: Conv, strip: Strip) {
    let rows = call.out.rows();
    for first in rows.clone().step_by(strip.out_rows) {
        let end = (first + strip.out_rows).min(rows.end);
        // SAFETY: the public function checked that the scratch buffer has room for the strip, which was made for this
        // input.
        unsafe {
            let x = floats_mut(call.scratch).as_mut_ptr();
            S::enter(Fill { strip, input: call.input, first, count: end - first, to: x });
            let source = Source {
                x,
                advance: strip.tile_stride() * strip.row_stride(),
                reduction: Reduction {
                    words: call.packed.words(),
                    block_stride: strip.block_stride(),
                    row_stride: strip.row_stride(),
                    kernel: call.packed.shape().kernel,
                },
            };
            rows_of::<S, true, STRIDE>(&mut call, &source, first, end);
        }
    }
}

/// [`Strip::fill`] as a separate function.
struct Fill<'a> {
    strip: Strip,
    input: super::Input<'a>,
    first: usize,
    count: usize,
    to: *mut f32,
}

impl Vector for Fill<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        // SAFETY: whoever constructs the value upholds the contract of `fill`.
        unsafe { self.strip.fill::<S>(self.input, self.first, self.count, self.to) }
    }
}

/// Computes output rows `first .. end` of the view's blocks: all rows with the weights of one tile, then all rows with
/// those of the next.
///
/// # Safety
/// The CPU supports the instructions of `S`. `source` holds everything that the windows of these rows cover, and the
/// rows are in the view. `BLOCKED` and `STRIDE` describe the layout and the distance of its pixels.
#[inline(always)]
unsafe fn rows_of<S: Simd, const BLOCKED: bool, const STRIDE: usize>(
    Conv { packed, out, epilogue, .. }: &mut Conv,
    source: &Source,
    first: usize,
    end: usize,
) {
    let (blocks, output) = (out.blocks(), out.layout());
    let floor = if epilogue.activation == Activation::Relu { 0.0 } else { f32::NEG_INFINITY };
    for block in blocks.clone().step_by(S::TILE_BLOCKS) {
        let count = S::TILE_BLOCKS.min(blocks.end - block);
        for row in first..end {
            // SAFETY: the caller guarantees that the windows are inside the source. `pixel` checked that the output's
            // first pixel is in this view; the row ends inside the view, and its other block is in the view too.
            unsafe {
                let tile = Tile {
                    reduction: &source.reduction,
                    x: source.x.add((row - first) * source.advance),
                    weights: packed.weights_from(block).as_ptr(),
                    weight_block: packed.block_len(),
                    bias: packed.biases_from(block).as_ptr(),
                    residual: epilogue.residual.map(|map| map.pixel(block, row, 0)),
                    floor,
                    out: out.pixel(block, row, 0),
                    out_block: output.block_stride(),
                    next: Ahead::NONE,
                };
                tile.row::<S, BLOCKED, STRIDE>(count, output.width);
            }
            if epilogue.activation == Activation::Gelu {
                for block in block..block + count {
                    // SAFETY: the caller guarantees the CPU features; a row of this view is `width` pixels of 16
                    // floats.
                    unsafe { S::enter(Gelu { pixels: out.pixel(block, row, 0), count: output.width }) }
                }
            }
        }
    }
}

/// Applies GELU to a row that was just written. It is not part of the tile because every tile size would include its
/// code.
struct Gelu {
    pixels: *mut f32,
    count: usize,
}

impl Vector for Gelu {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        for i in 0..self.count {
            // SAFETY: whoever constructs the value guarantees `count` pixels of 16 floats, and the CPU features.
            unsafe {
                let pixel = self.pixels.add(16 * i);
                gelu(S::load(pixel)).store(pixel);
            }
        }
    }
}
