//! Convolution by register tiles.

use super::tile::{Reduction, Tile, tiles};
use super::{Activation, Conv};
use crate::simd::{Simd, Vector, gelu};

/// Weights of up to so many bytes stay in the second-level cache from one row to the next.
const CACHED_WEIGHTS: usize = 512 * 1024;

impl Vector for Conv<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        // SAFETY: the caller promises the CPU. The step is that of the input: lanes of a pixel times the stride.
        unsafe {
            match (self.x.layout().lanes, self.conv.shape().stride) {
                (16, 1) => rows::<S, 16>(self),
                (16, _) => rows::<S, 32>(self),
                (_, 1) => rows::<S, 1>(self),
                (_, _) => rows::<S, 2>(self),
            }
        }
    }
}

/// # Safety
/// The CPU has the instructions of `S`, the door has checked the call, and `STEP` is `lanes * stride`.
#[inline(always)]
unsafe fn rows<S: Simd, const STEP: usize>(Conv { conv, x, mut out, epilogue }: Conv) {
    let (shape, input, output) = (conv.shape(), x.layout(), out.layout());
    let reduction = Reduction {
        channels: shape.in_channels,
        lanes: input.lanes,
        block_stride: input.block_stride(),
        row_stride: input.row_stride(),
        kernel: shape.kernel,
    };
    let floor = if epilogue.activation == Activation::Relu { 0.0 } else { f32::NEG_INFINITY };

    // Few weights: all blocks of one row, then the next row, so that the input is read once. Many weights: all rows with
    // the weights of one tile, which stay in the cache.
    let (rows, blocks) = (out.rows(), out.blocks());
    let many = 4 * conv.block_len() * blocks.len() > CACHED_WEIGHTS;
    let group = if many { rows.len().max(1) } else { 1 };
    for first in rows.clone().step_by(group) {
        for block in blocks.clone().step_by(S::TILE_BLOCKS) {
            let count = S::TILE_BLOCKS.min(blocks.end - block);
            for row in first..(first + group).min(rows.end) {
                for (column, pixels) in tiles(output.width, S::TILE_PIXELS) {
                    // Rows and columns of the memory start with the halo: one less padding is one more offset.
                    let corner = (row * shape.stride + 1 - shape.padding) * reduction.row_stride
                        + (column * shape.stride + 1 - shape.padding) * input.lanes;
                    // SAFETY: the door proved the channels, lanes and sizes. The last window ends at
                    // `stride * (out - 1) + kernel - padding <= len + padding`, which with `padding <= 1` is inside the halo.
                    // `pixel` proved that the output's first pixel is of this view; the tile ends inside its row, and its
                    // other block is of the view too. `Tile::run` gets at most the tile of `S`.
                    unsafe {
                        let tile = Tile {
                            reduction: &reduction,
                            x: x.data().as_ptr().add(corner),
                            weights: conv.weights_from(block).as_ptr(),
                            weight_block: conv.block_len(),
                            bias: conv.biases_from(block).as_ptr(),
                            residual: epilogue.residual.map(|map| map.pixel(block, row, column)),
                            floor,
                            out: out.pixel(block, row, column),
                            out_block: output.block_stride(),
                        };
                        tile.run::<S, STEP>(count, pixels);
                    }
                }
                if epilogue.activation == Activation::Gelu {
                    for block in block..block + count {
                        // SAFETY: the caller promises the CPU; a row of this view is `width` pixels of 16 floats.
                        unsafe { S::enter(Gelu { pixels: out.pixel(block, row, 0), count: output.width }) }
                    }
                }
            }
        }
    }
}

/// GELU of a row that was just written. Not in the tile: every size of tile would carry its code.
struct Gelu {
    pixels: *mut f32,
    count: usize,
}

impl Vector for Gelu {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        for i in 0..self.count {
            // SAFETY: whoever made the value promises `count` pixels of 16 floats, and the CPU.
            unsafe {
                let pixel = self.pixels.add(16 * i);
                gelu(S::load(pixel)).store(pixel);
            }
        }
    }
}
