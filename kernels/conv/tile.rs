//! The register tile: some blocks of output channels by some neighbouring pixels, summed over all inputs at once.
//!
//! Per input value the tile does `blocks` loads of weights, `pixels` broadcasts and `blocks * pixels` multiply-adds.
//! All sums stay in registers. The weights stream from the L2 cache (2 * 64 bytes per 28 multiply-adds on AVX-512, 64
//! bytes per 12 on AVX2), so blocking over the input channels would only add stores. The packed weights fix the order
//! of the sum: for every tile size, a pixel's channel is `bias`, then one fused multiply-add per input channel and tap.

use crate::simd::{Simd, Vector};

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
    /// Memory that will be read after these tiles, to be fetched into the L2 cache meanwhile.
    pub(crate) next: Ahead,
}

/// Memory to prefetch a little at a time. It may be invalid; the default is none.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) at: *const f32,
    /// Cache lines per tap of one block of input channels.
    pub(crate) lines: usize,
}

impl Ahead {
    pub(crate) const NONE: Self = Self { at: std::ptr::null(), lines: 0 };

    /// `rows` rows of weights from `at` on, spread over `steps` taps of all tiles.
    pub(crate) fn panel(at: *const f32, rows: usize, steps: usize) -> Self {
        Self { at, lines: rows.div_ceil(steps.max(1)) }
    }
}

impl Tile<'_> {
    /// Computes `blocks` by `width` outputs with as few tiles as possible, whose widths differ by at most one. A last
    /// tile of one pixel would cost almost as much as a full one.
    ///
    /// # Safety
    /// The CPU supports the instructions of `S`. Everything that the tiles' strides reach is inside their memory, which
    /// no one else writes. `out` overlaps nothing else. `blocks` is 1 or 2, at most `S::TILE_BLOCKS`.
    #[inline(always)]
    pub(crate) unsafe fn row<S: Simd, const BLOCKED: bool, const STRIDE: usize>(mut self, blocks: usize, width: usize) {
        let count = width.div_ceil(S::TILE_PIXELS).max(1);
        let (pixels, wider) = (width / count, width % count);
        let step = STRIDE * if BLOCKED { 16 / S::CHANNELS_PER_WORD } else { 1 };
        // SAFETY: the caller's contract, for consecutive parts of the row.
        unsafe {
            if wider > 0 {
                self.run::<S, BLOCKED, STRIDE>(blocks, pixels + 1, wider);
                let done = wider * (pixels + 1);
                self.x = self.x.wrapping_add(done * step);
                self.out = self.out.wrapping_add(16 * done);
                self.residual = self.residual.map(|residual| residual.wrapping_add(16 * done));
            }
            self.run::<S, BLOCKED, STRIDE>(blocks, pixels, count - wider);
        }
    }

    /// Computes `count` tiles of `blocks` by `pixels` outputs, side by side.
    ///
    /// # Safety
    /// As for [`row`](Self::row). `pixels` is at most `S::TILE_PIXELS`.
    #[inline(always)]
    unsafe fn run<S: Simd, const BLOCKED: bool, const STRIDE: usize>(self, blocks: usize, pixels: usize, count: usize) {
        debug_assert!((1..=S::TILE_BLOCKS).contains(&blocks) && pixels <= S::TILE_PIXELS);
        macro_rules! table {
            ($($pixels:literal)*) => {
                // SAFETY: the caller guarantees the CPU features and the memory; the constants match the arguments.
                unsafe {
                    match (blocks, pixels) {
                        $((1, $pixels) if $pixels <= S::TILE_PIXELS => {
                            S::enter(Fixed::<1, $pixels, BLOCKED, STRIDE>(self, count));
                        })*
                        $((2, $pixels) if $pixels <= S::TILE_PIXELS && 2 <= S::TILE_BLOCKS => {
                            S::enter(Fixed::<2, $pixels, BLOCKED, STRIDE>(self, count));
                        })*
                        _ => {}
                    }
                }
            };
        }
        table!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }
}

/// Some tiles side by side whose size is known at compile time.
struct Fixed<'a, const BLOCKS: usize, const PIXELS: usize, const BLOCKED: bool, const STRIDE: usize>(Tile<'a>, usize);

impl<const BLOCKS: usize, const PIXELS: usize, const BLOCKED: bool, const STRIDE: usize> Vector
    for Fixed<'_, BLOCKS, PIXELS, BLOCKED, STRIDE>
{
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self(mut tile, count) = self;
        for _ in 0..count {
            // SAFETY: the caller of `Tile::row` guarantees that everything the strides reach is inside the memory.
            unsafe { tile.sum::<S, BLOCKS, PIXELS, BLOCKED, STRIDE>() }
        }
    }
}

impl Tile<'_> {
    /// Computes one tile, and moves to the next.
    ///
    /// # Safety
    /// As for [`row`](Self::row).
    #[inline(always)]
    unsafe fn sum<S: Simd, const BLOCKS: usize, const PIXELS: usize, const BLOCKED: bool, const STRIDE: usize>(
        &mut self,
    ) {
        let t = *self;
        let r = *t.reduction;
        let pixel = if BLOCKED { 16 / S::CHANNELS_PER_WORD } else { 1 };
        let step = pixel * STRIDE;
        // Words per turn of the inner loop.
        let unrolled = if BLOCKED { S::UNROLL } else { 1 };
        // SAFETY: the caller's contract.
        unsafe {
            let mut sums = [[S::splat(0.0); PIXELS]; BLOCKS];
            for b in 0..BLOCKS {
                sums[b] = [S::load(t.bias.add(16 * b)); PIXELS];
            }
            let mut weights = t.weights;
            // Macros, because the compiler does not inline a closure into a `#[target_feature]` function.
            macro_rules! add {
                ($tap:expr, $words:expr) => {
                    for i in 0..$words {
                        let mut w = [S::splat(0.0); BLOCKS];
                        for b in 0..BLOCKS {
                            let at = weights.add(b * t.weight_block + 16 * i);
                            w[b] = S::load(at);
                            S::prefetch_weights(at);
                        }
                        for p in 0..PIXELS {
                            let x = S::splat(*$tap.add(p * step + i));
                            for b in 0..BLOCKS {
                                sums[b][p] = sums[b][p].accumulate(w[b], x);
                            }
                        }
                    }
                    weights = weights.add(16 * $words);
                };
            }
            macro_rules! fetch_ahead {
                () => {
                    for _ in 0..self.next.lines {
                        S::prefetch_l2(self.next.at);
                        self.next.at = self.next.at.wrapping_add(16);
                    }
                };
            }
            let mut block = t.x;
            if BLOCKED && STRIDE == 1 && r.kernel == 1 && r.words.is_multiple_of(pixel) {
                // The same sums with fewer instructions between them: 1x1 convolutions and Winograd's products (there 3 %
                // of the products' time, AVX2).
                for _ in 0..r.words / pixel {
                    fetch_ahead!();
                    let mut tap = block;
                    for _ in 0..pixel / unrolled {
                        add!(tap, unrolled);
                        tap = tap.wrapping_add(unrolled);
                    }
                    block = block.wrapping_add(r.block_stride);
                }
            } else {
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
                            fetch_ahead!();
                            let turns = words / unrolled * unrolled;
                            for word in (0..turns).step_by(unrolled) {
                                add!(tap.add(word), unrolled);
                            }
                            if unrolled > 1 {
                                for word in turns..words {
                                    add!(tap.add(word), 1);
                                }
                            }
                        }
                    }
                    block = block.wrapping_add(r.block_stride);
                    left -= words;
                }
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
        self.x = t.x.wrapping_add(PIXELS * step);
        self.out = t.out.wrapping_add(16 * PIXELS);
        self.residual = t.residual.map(|residual| residual.wrapping_add(16 * PIXELS));
    }
}

/// Splits `width` pixels into as few tiles of at most `most` as possible, with sizes that differ by at most one. A last
/// tile of one pixel would cost almost as much as a full one.
pub(crate) fn tiles(width: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = width.div_ceil(most);
    (0..count).map(move |i| (i * width / count, (i + 1) * width / count - i * width / count))
}
