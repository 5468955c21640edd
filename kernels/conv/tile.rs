//! The register tile: some blocks of output channels by some neighbouring pixels, summed over all inputs at once.
//!
//! Per input value the tile does `blocks` loads of weights, `pixels` broadcasts and `blocks * pixels` multiply-adds; all sums
//! stay in registers. The weights stream from the second-level cache (2 * 64 bytes per 28 multiply-adds), so blocking
//! over the input channels would only add stores. The order of the sum is fixed by the packed weights: whatever the tile,
//! a pixel's channel is `bias`, then one fused multiply-add per input channel and tap.

use crate::simd::{Simd, Vector};

/// The most pixels that a tile of any instruction set has.
pub(crate) const MAX_PIXELS: usize = 14;

/// What every output sums over.
#[derive(Clone, Copy)]
pub(crate) struct Reduction {
    /// Input channels.
    pub(crate) channels: usize,
    /// Channels side by side in one input pixel.
    pub(crate) lanes: usize,
    /// Floats from one block of input channels to the next.
    pub(crate) block_stride: usize,
    /// Floats from one input row to the next.
    pub(crate) row_stride: usize,
    /// Height and width of the window.
    pub(crate) kernel: usize,
}

/// One tile's memory. Input pixels are `STEP` floats apart, output pixels 16.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a> {
    pub(crate) reduction: &'a Reduction,
    /// The first tap of the first pixel.
    pub(crate) x: *const f32,
    /// `[blocks][weight_block]` floats, of which each block uses 16 per input channel and tap.
    pub(crate) weights: *const f32,
    pub(crate) weight_block: usize,
    /// `[blocks][16]`
    pub(crate) bias: *const f32,
    /// Added to the sums; lies like `out`.
    pub(crate) residual: Option<*const f32>,
    /// The least that is stored: 0 for a ReLU.
    pub(crate) floor: f32,
    pub(crate) out: *mut f32,
    /// Floats from one block of `out` to the next.
    pub(crate) out_block: usize,
}

impl Tile<'_> {
    /// Computes `blocks` by `pixels` outputs.
    ///
    /// # Safety
    /// The CPU has the instructions of `S`. All that the tile's strides reach is inside its memory, which nobody else writes;
    /// `out` overlaps nothing else. `blocks` is 1 or 2, at most `S::TILE_BLOCKS`, and `pixels` in `1 ..= S::TILE_PIXELS`.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd, const STEP: usize>(self, blocks: usize, pixels: usize) {
        debug_assert!((1..=S::TILE_BLOCKS).contains(&blocks) && (1..=S::TILE_PIXELS).contains(&pixels));
        macro_rules! table {
            ($($pixels:literal)*) => {
                // SAFETY: the caller promises the CPU and the memory; the numbers of the tile are those of the call.
                unsafe {
                    match (blocks, pixels) {
                        $((1, $pixels) if $pixels <= S::TILE_PIXELS => S::enter(Fixed::<1, $pixels, STEP>(self)),)*
                        $((2, $pixels) if $pixels <= S::TILE_PIXELS && 2 <= S::TILE_BLOCKS => {
                            S::enter(Fixed::<2, $pixels, STEP>(self));
                        })*
                        _ => {}
                    }
                }
            };
        }
        table!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }
}

/// A tile whose size the compiler knows.
struct Fixed<'a, const BLOCKS: usize, const PIXELS: usize, const STEP: usize>(Tile<'a>);

impl<const BLOCKS: usize, const PIXELS: usize, const STEP: usize> Vector for Fixed<'_, BLOCKS, PIXELS, STEP> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let t = self.0;
        let r = *t.reduction;
        // SAFETY: the caller of `Tile::run` promises that all that the strides reach is inside the memory.
        unsafe {
            let mut sums = [[S::splat(0.0); PIXELS]; BLOCKS];
            for b in 0..BLOCKS {
                sums[b] = [S::load(t.bias.add(16 * b)); PIXELS];
            }
            let mut weights = t.weights;
            let mut block = t.x;
            let mut left = r.channels;
            while left > 0 {
                let channels = left.min(r.lanes);
                for ky in 0..r.kernel {
                    for kx in 0..r.kernel {
                        let tap = block.add(ky * r.row_stride + kx * r.lanes);
                        for channel in 0..channels {
                            let mut w = [S::splat(0.0); BLOCKS];
                            for b in 0..BLOCKS {
                                w[b] = S::load(weights.add(b * t.weight_block));
                            }
                            for p in 0..PIXELS {
                                let x = S::splat(*tap.add(p * STEP + channel));
                                for b in 0..BLOCKS {
                                    sums[b][p] = w[b].fma(x, sums[b][p]);
                                }
                            }
                            weights = weights.add(16);
                        }
                    }
                }
                block = block.wrapping_add(r.block_stride);
                left -= channels;
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

/// Splits `width` pixels into as few tiles of at most `most` as possible, their sizes differing by at most one: a last tile of
/// one pixel would cost almost as much as a full one.
pub(crate) fn tiles(width: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = width.div_ceil(most);
    (0..count).map(move |i| (i * width / count, (i + 1) * width / count - i * width / count))
}
