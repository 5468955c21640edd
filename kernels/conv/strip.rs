//! Some rows of a convolution's input, as its tiles multiply them: normed, rectified, and in words of the weights' element.
//!
//! The norm (and ReLU) ahead of a convolution, and the rounding to bf16, would cost a trip of the whole map through memory. A strip is
//! a few rows of all channels, which are still in the cache when the tiles read them.

use super::input::Norm;
use super::{Input, PackedConv};
use crate::Layout;
use crate::simd::Simd;

/// Bytes of a strip to aim at: it should stay in the second-level cache beside the weights of a tile.
const BYTES: usize = 256 * 1024;

/// How a strip lies in memory, in words: `[in / 16][rows][pixels][words of 16 channels]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strip {
    /// Output rows that it serves.
    pub(super) out_rows: usize,
    /// Input pixels a row: of a 3x3 window with the zeros left and right, of a 1x1 window only those that outputs read.
    pixels: usize,
    /// Words of a pixel's sixteen channels.
    words: usize,
    blocks: usize,
    kernel: usize,
    stride: usize,
}

impl Strip {
    /// For `input`: as many output rows as stay in the cache, at least one.
    pub(super) fn of(conv: &PackedConv, input: Layout) -> Self {
        let shape = conv.shape();
        let (height, width) = shape.out_size(input.height, input.width);
        let mut strip = Self {
            out_rows: 1,
            pixels: if shape.kernel == 1 { width } else { input.width + 2 },
            words: conv.element().words(16),
            blocks: input.blocks(),
            kernel: shape.kernel,
            stride: shape.stride,
        };
        let row = 4 * strip.row_stride() * strip.blocks;
        // `rows` input rows serve `(rows - kernel) / stride + 1` output rows.
        let rows = (BYTES / row.max(1)).max(strip.kernel);
        let stride = strip.tile_stride();
        strip.out_rows = ((rows - strip.kernel) / stride + 1).min(height);
        strip
    }

    /// The stride with which the tiles walk over the strip.
    pub(super) fn tile_stride(&self) -> usize {
        if self.kernel == 1 { 1 } else { self.stride }
    }

    /// Words from one row to the next.
    pub(super) fn row_stride(&self) -> usize {
        self.pixels * self.words
    }

    /// Words from one block of channels to the next.
    pub(super) fn block_stride(&self) -> usize {
        self.in_rows() * self.row_stride()
    }

    /// Words of the whole strip.
    pub(super) fn len(&self) -> usize {
        self.blocks * self.block_stride()
    }

    fn in_rows(&self) -> usize {
        (self.out_rows - 1) * self.tile_stride() + self.kernel
    }

    /// Fills it with what the outputs from row `first` on, `count` of them, read.
    ///
    /// # Safety
    /// The CPU supports the instructions of `S`, whose words are those of the strip; the strip was made for the layout of `input`, which the
    /// door has checked; `to` has room for [`len`](Self::len) words; `count` is at most `out_rows`.
    #[inline(always)]
    pub(super) unsafe fn fill<S: Simd>(&self, input: Input, first: usize, count: usize, to: *mut f32) {
        let Layout { height, width, .. } = input.map.layout();
        let rows = (count.max(1) - 1) * self.tile_stride() + self.kernel;
        for block in 0..self.blocks {
            for r in 0..rows {
                // SAFETY: the row is inside the strip; every pixel that is loaded is inside the map.
                unsafe {
                    let norm = Norm::<S>::of(&input, block);
                    let to = to.add(block * self.block_stride() + r * self.row_stride());
                    if self.kernel == 1 {
                        let from = input.map.pixel(block, (first + r) * self.stride, 0);
                        for p in 0..self.pixels {
                            norm.apply(S::load(from.add(16 * p * self.stride))).store_words(to.add(p * self.words));
                        }
                        continue;
                    }
                    // The zeros around the map come after the norm.
                    let zero = S::splat(0.0);
                    match (first * self.stride + r).checked_sub(1).filter(|row| *row < height) {
                        Some(row) => {
                            let from = input.map.pixel(block, row, 0);
                            zero.store_words(to);
                            for p in 0..width {
                                norm.apply(S::load(from.add(16 * p))).store_words(to.add((p + 1) * self.words));
                            }
                            zero.store_words(to.add((width + 1) * self.words));
                        }
                        None => (0..self.pixels).for_each(|p| zero.store_words(to.add(p * self.words))),
                    }
                }
            }
        }
    }
}
