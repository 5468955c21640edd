//! The attention by register tiles: scores, softmax and weighted values of a few pixels at a time.

use super::CrossAttend;
use crate::conv::tile::{MAX_PIXELS, Reduction, Tile, tiles};
use crate::simd::{Simd, Vector, exp};
use crate::{floats, floats_mut};

impl Vector for CrossAttend<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { x, keys, residual, mut out, scratch } = self;
        let (input, output) = (x.layout(), out.layout());
        let key_blocks = keys.bias().len();
        // The scores of a tile: `[key block][pixel][16 keys]`.
        let scores = floats_mut(scratch).as_mut_ptr();
        let no_bias = [0.0; 32];
        for row in out.rows() {
            for (column, pixels) in tiles(output.width, S::TILE_PIXELS) {
                let of_queries = Reduction {
                    words: keys.channels(),
                    block_stride: input.block_stride(),
                    row_stride: input.row_stride(),
                    kernel: 1,
                };
                for block in (0..key_blocks).step_by(S::TILE_BLOCKS) {
                    let count = S::TILE_BLOCKS.min(key_blocks - block);
                    // SAFETY: `pixel` proved the input, whose channels are the keys'; the door proved that the scratch holds
                    // `key_blocks` times the largest tile; weights and bias have `key_blocks` blocks.
                    unsafe {
                        let tile = Tile {
                            reduction: &of_queries,
                            x: x.pixel(0, row, column),
                            weights: floats(&keys.weights()[block * keys.channels()..]).as_ptr(),
                            weight_block: keys.channels() * 16,
                            bias: floats(&keys.bias()[block..]).as_ptr(),
                            residual: None,
                            floor: f32::NEG_INFINITY,
                            out: scores.add(block * pixels * 16),
                            out_block: pixels * 16,
                        };
                        tile.run::<S, true, 1>(count, pixels);
                    }
                }
                // SAFETY: the tiles have just written `key_blocks` blocks of `pixels` times 16 scores.
                unsafe { S::enter(Softmax { scores, blocks: key_blocks, pixels }) }
                let of_keys = Reduction { words: keys.keys(), block_stride: pixels * 16, row_stride: 0, kernel: 1 };
                for block in out.blocks().step_by(S::TILE_BLOCKS) {
                    let count = S::TILE_BLOCKS.min(out.blocks().end - block);
                    // SAFETY: the scratch holds the weights of all keys; the values have the blocks of `out`, and so has the
                    // residual; `pixel` proved the output, whose tile ends inside its row.
                    unsafe {
                        let tile = Tile {
                            reduction: &of_keys,
                            x: scores,
                            weights: floats(&keys.values()[block * keys.keys()..]).as_ptr(),
                            weight_block: keys.keys() * 16,
                            bias: no_bias.as_ptr(),
                            residual: residual.map(|map| map.pixel(block, row, column)),
                            floor: f32::NEG_INFINITY,
                            out: out.pixel(block, row, column),
                            out_block: output.block_stride(),
                        };
                        tile.run::<S, true, 1>(count, pixels);
                    }
                }
            }
        }
    }
}

/// Softmax over the keys of each pixel of a tile, in place.
struct Softmax {
    scores: *mut f32,
    blocks: usize,
    pixels: usize,
}

impl Vector for Softmax {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { scores, blocks, pixels } = self;
        // SAFETY: whoever made the value promises `[blocks][pixels][16]` floats and the CPU; a tile has `MAX_PIXELS` at most.
        unsafe {
            // One step for all pixels, then the next: the pixels do not wait for one another's reductions.
            let mut greatest = [0.0; MAX_PIXELS];
            for p in 0..pixels {
                let mut lanes = S::load(scores.add(16 * p));
                for b in 1..blocks {
                    lanes = lanes.max(S::load(scores.add(16 * (b * pixels + p))));
                }
                greatest[p] = lanes.greatest();
            }
            let mut sums = [0.0; MAX_PIXELS];
            for p in 0..pixels {
                let mut sum = S::splat(0.0);
                for b in 0..blocks {
                    let score = scores.add(16 * (b * pixels + p));
                    let weight = exp(S::load(score).sub(S::splat(greatest[p])));
                    weight.store(score);
                    sum = sum.add(weight);
                }
                sums[p] = sum.sum();
            }
            for p in 0..pixels {
                let share = S::splat(1.0 / sums[p]);
                for b in 0..blocks {
                    let score = scores.add(16 * (b * pixels + p));
                    S::load(score).mul(share).store(score);
                }
            }
        }
    }
}
