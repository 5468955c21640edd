//! A strip is a few rows of a convolution's input, ready for the tiles to multiply: with norm and ReLU applied, in
//! words of the weights' element.
//!
//! Applying the norm (and ReLU) before a convolution, or rounding to bf16, to the whole map would move it through
//! memory once more. A strip has a few rows of all channels, which are still in the cache when the tiles read them.

use super::input::Norm;
use super::{Input, PackedConv};
use crate::Layout;
use crate::simd::Simd;

/// The memory layout of a strip, in words: `[in / 16][rows][pixels][words of 16 channels]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strip {
    /// Output rows that the strip covers.
    pub(super) out_rows: usize,
    /// Input pixels per row. For a 3x3 window this includes the zeros left and right; for a 1x1 window only the pixels
    /// that outputs read.
    pixels: usize,
    /// Words per pixel of sixteen channels.
    words: usize,
    blocks: usize,
    kernel: usize,
    stride: usize,
}

impl Strip {
    /// The strip for `input`: as many output rows as stay in the cache, at least one.
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
        // `rows` input rows cover `(rows - kernel) / stride + 1` output rows.
        let rows = (conv.blocks().strip() / row.max(1)).max(strip.kernel);
        let stride = strip.tile_stride();
        strip.out_rows = ((rows - strip.kernel) / stride + 1).min(height);
        strip
    }

    /// The stride of the tiles within the strip.
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

    /// Fills the strip with the input that `count` output rows from row `first` on read.
    ///
    /// # Safety
    /// The CPU supports the instructions of `S`, whose words are those of the strip. The strip was made for the layout
    /// of `input`, which the public function has checked. `to` has room for [`len`](Self::len) words. `count` is at
    /// most `out_rows`.
    #[inline(always)]
    pub(super) unsafe fn fill<S: Simd>(&self, input: Input, first: usize, count: usize, to: *mut f32) {
        let Layout { height, width, .. } = input.map.layout();
        let rows = (count.max(1) - 1) * self.tile_stride() + self.kernel;
        for block in 0..self.blocks {
            for r in 0..rows {
                // SAFETY: the row is inside the strip; every pixel loaded is inside the map.
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
                    // The zeros around the map are applied after the norm.
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
