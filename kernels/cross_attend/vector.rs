//! Attention with register tiles: scores, softmax and weighted values of a few pixels at a time.

use super::keys::MAX_PIXELS;
use super::{CrossAttend, CrossKeys};
use crate::conv::tile::{Ahead, Reduction, Tile, tiles};
use crate::conv::{Input, Norm, Prologue};
use crate::simd::{Simd, Vector, exp};
use crate::{Layout, Map, floats, floats_mut};

impl Vector for CrossAttend<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { x, keys, residual, mut out, scratch } = self;
        let (input, output) = (x.layout(), out.layout());
        let (key_blocks, words) = (keys.bias().len(), 16 / S::CHANNELS_PER_WORD);
        // The scores of a tile, `[key block][pixel][16 keys]`. In bf16 its weights and a row of queries follow,
        // `[..][words of 16]`.
        let scores = floats_mut(scratch).as_mut_ptr();
        let (mut weights, mut queries) = (scores, scores.cast_const());
        let converts = words < 16;
        if converts {
            weights = scores.wrapping_add(16 * key_blocks * MAX_PIXELS);
            queries = weights.wrapping_add(words * key_blocks * MAX_PIXELS);
        }
        let no_bias = [0.0; 32];
        for row in out.rows() {
            if converts {
                // SAFETY: the public function checked that the scratch buffer has room for a row after a tile's scores
                // and weights.
                unsafe { S::enter(Queries { x, keys, row, to: queries.cast_mut() }) }
            }
            for (column, pixels) in tiles(output.width, MAX_PIXELS / S::TILE_PIXELS * S::TILE_PIXELS) {
                let of_queries = Reduction {
                    words: keys.query_words(),
                    block_stride: if converts { input.width * words } else { input.block_stride() },
                    row_stride: 0,
                    kernel: 1,
                };
                for block in (0..key_blocks).step_by(S::TILE_BLOCKS) {
                    let count = S::TILE_BLOCKS.min(key_blocks - block);
                    // SAFETY: `pixel` checked the input, which has as many channels as the keys; a row of queries has
                    // its width. The public function checked that the scratch buffer holds `key_blocks` times the
                    // largest tile. Weights and bias have `key_blocks` blocks.
                    unsafe {
                        let tile = Tile {
                            reduction: &of_queries,
                            x: if converts { queries.add(column * words) } else { x.pixel(0, row, column) },
                            weights: floats(&keys.weights()[block * keys.query_words()..]).as_ptr(),
                            weight_block: keys.query_words() * 16,
                            bias: floats(&keys.bias()[block..]).as_ptr(),
                            residual: None,
                            floor: f32::NEG_INFINITY,
                            out: scores.add(block * pixels * 16),
                            out_block: pixels * 16,
                            next: Ahead::NONE,
                        };
                        tile.row::<S, true, 1>(count, pixels);
                    }
                }
                // SAFETY: the tiles have just written `key_blocks` blocks of `pixels` times 16 scores; there is room
                // for as many words after them.
                unsafe { S::enter(Softmax { scores, blocks: key_blocks, pixels, weights }) }
                let of_keys =
                    Reduction { words: keys.key_words(), block_stride: pixels * words, row_stride: 0, kernel: 1 };
                for block in out.blocks().step_by(S::TILE_BLOCKS) {
                    let count = S::TILE_BLOCKS.min(out.blocks().end - block);
                    // SAFETY: the scratch buffer holds the weights of all keys; the values and the residual have the
                    // blocks of `out`; `pixel` checked the output, and the tile ends inside its row.
                    unsafe {
                        let tile = Tile {
                            reduction: &of_keys,
                            x: weights,
                            weights: floats(&keys.values()[block * keys.key_words()..]).as_ptr(),
                            weight_block: keys.key_words() * 16,
                            bias: no_bias.as_ptr(),
                            residual: residual.map(|map| map.pixel(block, row, column)),
                            floor: f32::NEG_INFINITY,
                            out: out.pixel(block, row, column),
                            out_block: output.block_stride(),
                            next: Ahead::NONE,
                        };
                        tile.row::<S, true, 1>(count, pixels);
                    }
                }
            }
        }
    }
}

/// Writes a row of queries after their norm, as words: `[channels / 16][pixel][words of 16 channels]`.
struct Queries<'a> {
    x: Map<'a>,
    keys: &'a CrossKeys,
    row: usize,
    to: *mut f32,
}

impl Vector for Queries<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Layout { width, .. } = self.x.layout();
        let (words, (scale, shift)) = (16 / S::CHANNELS_PER_WORD, self.keys.norm());
        let prologue = Some(Prologue { scale, shift, relu: false });
        for block in 0..self.x.layout().blocks() {
            let from = self.x.pixel(block, self.row, 0);
            // SAFETY: whoever constructs the value guarantees the CPU features and room for the words of a row; the
            // norm has the map's blocks.
            unsafe {
                let norm = Norm::<S>::of(&Input { map: self.x, prologue }, block);
                for p in 0..width {
                    norm.apply(S::load(from.add(16 * p))).store_words(self.to.add((block * width + p) * words));
                }
            }
        }
    }
}

/// Softmax over the keys of each pixel of a tile. Writes the weights as words; in f32 they replace the scores.
struct Softmax {
    scores: *mut f32,
    blocks: usize,
    pixels: usize,
    weights: *mut f32,
}

impl Vector for Softmax {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { scores, blocks, pixels, weights } = self;
        let words = 16 / S::CHANNELS_PER_WORD;
        // SAFETY: whoever constructs the value guarantees `[blocks][pixels][16]` floats, room for as many words, and
        // the CPU features; there are at most `MAX_PIXELS` pixels.
        unsafe {
            // Each step runs for all pixels before the next step, so that pixels do not wait for each other's
            // reductions.
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
                    let at = b * pixels + p;
                    S::load(scores.add(16 * at)).mul(share).store_words(weights.add(words * at));
                }
            }
        }
    }
}
