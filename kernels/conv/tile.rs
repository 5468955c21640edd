//! The register tile: some blocks of output channels by some neighbouring pixels, summed over all inputs at once.
//!
//! Per input value the tile does `blocks` loads of weights, `pixels` broadcasts and `blocks * pixels` multiply-adds.
//! All sums stay in registers. The weights stream from the L2 cache (2 * 64 bytes per 28 multiply-adds), so blocking
//! over the input channels would only add stores. The packed weights fix the order of the sum: for every tile size, a
//! pixel's channel is `bias`, then one fused multiply-add per input channel and tap.

use crate::simd::{Simd, Vector};

/// The maximum number of pixels in a tile of any instruction set.
pub(crate) const MAX_PIXELS: usize = 14;

/// The inputs that each output sums over. A word is one channel in f32 or two in bf16: [`Simd::CHANNELS_PER_WORD`].
#[derive(Clone, Copy)]
pub(crate) struct Reduction {
    /// Words of all input channels at one pixel.
    pub(crate) words: usize,
    /// Words from one block of input channels to the next.
    pub(crate) block_stride: usize,
    /// Words from one input row to the next.
    pub(crate) row_stride: usize,
    /// Height and width of the window.
    pub(crate) kernel: usize,
}

/// The memory of one tile. Neighbouring outputs read pixels that are `STRIDE` apart. A pixel is the words of sixteen
/// channels if the input is `BLOCKED`, otherwise of one channel.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a> {
    pub(crate) reduction: &'a Reduction,
    /// The first tap of the first pixel.
    pub(crate) x: *const f32,
    /// `[blocks][weight_block]` words; each block uses 16 per input word and tap.
    pub(crate) weights: *const f32,
    pub(crate) weight_block: usize,
    /// `[blocks][16]`
    pub(crate) bias: *const f32,
    /// Added to the sums; has the layout of `out`.
    pub(crate) residual: Option<*const f32>,
    /// The lower bound of stored values: 0 for a ReLU.
    pub(crate) floor: f32,
    pub(crate) out: *mut f32,
    /// Floats from one block of `out` to the next.
    pub(crate) out_block: usize,
}

impl Tile<'_> {
    /// Computes `blocks` by `pixels` outputs.
    ///
    /// # Safety
    /// The CPU supports the instructions of `S`. Everything that the tile's strides reach is inside its memory, which
    /// no one else writes. `out` overlaps nothing else. `blocks` is 1 or 2, at most `S::TILE_BLOCKS`, and `pixels` is
    /// in `1 ..= S::TILE_PIXELS`.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd, const BLOCKED: bool, const STRIDE: usize>(self, blocks: usize, pixels: usize) {
        debug_assert!((1..=S::TILE_BLOCKS).contains(&blocks) && (1..=S::TILE_PIXELS).contains(&pixels));
        macro_rules! table {
            ($($pixels:literal)*) => {
                // SAFETY: the caller guarantees the CPU features and the memory; the constants match the arguments.
                unsafe {
                    match (blocks, pixels) {
                        $((1, $pixels) if $pixels <= S::TILE_PIXELS => {
                            S::enter(Fixed::<1, $pixels, BLOCKED, STRIDE>(self));
                        })*
                        $((2, $pixels) if $pixels <= S::TILE_PIXELS && 2 <= S::TILE_BLOCKS => {
                            S::enter(Fixed::<2, $pixels, BLOCKED, STRIDE>(self));
                        })*
                        _ => {}
                    }
                }
            };
        }
        table!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }
}

/// A tile whose size is known at compile time.
struct Fixed<'a, const BLOCKS: usize, const PIXELS: usize, const BLOCKED: bool, const STRIDE: usize>(Tile<'a>);

impl<const BLOCKS: usize, const PIXELS: usize, const BLOCKED: bool, const STRIDE: usize> Vector
    for Fixed<'_, BLOCKS, PIXELS, BLOCKED, STRIDE>
{
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let t = self.0;
        let r = *t.reduction;
        let pixel = if BLOCKED { 16 / S::CHANNELS_PER_WORD } else { 1 };
        let step = pixel * STRIDE;
        // SAFETY: the caller of `Tile::run` guarantees that everything the strides reach is inside the memory.
        unsafe {
            let mut sums = [[S::splat(0.0); PIXELS]; BLOCKS];
            for b in 0..BLOCKS {
                sums[b] = [S::load(t.bias.add(16 * b)); PIXELS];
            }
            let mut weights = t.weights;
            let mut block = t.x;
            let mut left = r.words;
            while left > 0 {
                let words = left.min(pixel);
                for ky in 0..r.kernel {
                    for kx in 0..r.kernel {
                        let tap = block.add(ky * r.row_stride + kx * pixel);
                        // Prefetch the same tap of the next tile. At a stride of 2 the hardware prefetcher falls behind
                        // (this prefetch raises the speed from 66 to 83 % of peak, 32 channels, 512x1024, AVX-512);
                        // otherwise it does well.
                        if step == 32 {
                            for p in 0..PIXELS {
                                S::prefetch(tap.wrapping_add((PIXELS + p) * step));
                            }
                        }
                        for word in 0..words {
                            // Prefetch the weights sixteen rows ahead. Otherwise loads that miss the L2 cache would
                            // stall (256 channels and more, 45x60: a tenth to a fifth of the layer's time, AVX-512).
                            let mut w = [S::splat(0.0); BLOCKS];
                            for b in 0..BLOCKS {
                                w[b] = S::load(weights.add(b * t.weight_block));
                                S::prefetch(weights.wrapping_add(b * t.weight_block + 16 * 16));
                            }
                            for p in 0..PIXELS {
                                let x = S::splat(*tap.add(p * step + word));
                                for b in 0..BLOCKS {
                                    sums[b][p] = sums[b][p].accumulate(w[b], x);
                                }
                            }
                            weights = weights.add(16);
                        }
                    }
                }
                block = block.wrapping_add(r.block_stride);
                left -= words;
            }

            let floor = S::splat(t.floor);
            if let Some(residual) = t.residual {
                for b in 0..BLOCKS {
                    for p in 0..PIXELS {
                        sums[b][p] = sums[b][p].add(S::load(residual.add(b * t.out_block + 16 * p)));
                    }
                }
            }
            for b in 0..BLOCKS {
                for p in 0..PIXELS {
                    sums[b][p].max(floor).store(t.out.add(b * t.out_block + 16 * p));
                }
            }
        }
    }
}

/// Splits `width` pixels into as few tiles of at most `most` as possible, with sizes that differ by at most one. A last
/// tile of one pixel would cost almost as much as a full one.
pub(crate) fn tiles(width: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = width.div_ceil(most);
    (0..count).map(move |i| (i * width / count, (i + 1) * width / count - i * width / count))
}
