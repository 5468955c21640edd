//! Sixteen float lanes with the same interface on every instruction set. An algorithm is written once over [`Simd`].
//!
//! A body is `#[inline(always)]` and gets its instructions from the `#[target_feature]` function that it is inlined
//! into (`with_avx2`, `with_avx512`, `with_neon`). To add an instruction set, add one implementation of [`Simd`] and
//! one such function. Every body uses fused multiply-add for every multiplication followed by an addition, in tails
//! too, so that an element's value does not depend on tile boundaries.

mod math;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

pub(crate) use math::{exp, gelu};

/// The vector form of an operation.
pub(crate) trait Vector: Sized {
    /// # Safety
    /// The CPU supports the instructions of `S`, and the value's own pointers are valid. Implementations are always
    /// `#[inline(always)]`.
    unsafe fn vector<S: Simd>(self);
}

/// The two forms of an operation that [`crate::Isa::run`] chooses from: its vector form and its definition.
pub(crate) trait Kernel: Vector {
    /// The definition.
    fn scalar(self);
}

/// Sixteen floats in registers.
///
/// # Safety
/// For every method, the CPU must support the implementation's instructions. For methods with pointers, sixteen valid
/// floats must be at each pointer.
#[allow(clippy::missing_safety_doc, reason = "the trait documents one contract for all methods")]
pub(crate) trait Simd: Copy {
    /// The register tile of a convolution: the maximum number of blocks of sixteen output channels ...
    const TILE_BLOCKS: usize;
    /// ... and of pixels.
    const TILE_PIXELS: usize;
    /// Channels per 32-bit word that [`Simd::accumulate`] multiplies: 1 for f32, 2 for bf16.
    const CHANNELS_PER_WORD: usize = 1;

    /// Words per turn of a tile's innermost loop. More than one if the loop's own instructions would slow it down.
    const UNROLL: usize = 1;

    /// The number of pixels to compute together if about `pixels` are wanted, at least one tile of them.
    #[inline(always)]
    fn whole_tiles(pixels: usize) -> usize {
        pixels
    }

    /// Prefetches the cache line at `at`, which may be an invalid address.
    #[inline(always)]
    unsafe fn prefetch(_at: *const f32) {}

    /// Prefetches the cache line at `at`, which may be an invalid address, into the L2 cache.
    #[inline(always)]
    unsafe fn prefetch_l2(_at: *const f32) {}

    /// Prefetches the next cache line of one of many planes that are read or written in turn: more than the hardware's
    /// prefetcher follows.
    #[inline(always)]
    unsafe fn prefetch_plane(_at: *const f32) {}

    /// Prefetches weights that a tile reads soon after those at `at`.
    #[inline(always)]
    unsafe fn prefetch_weights(_at: *const f32) {}

    /// Runs `body` in a separate function that is compiled for this instruction set.
    unsafe fn enter<V: Vector>(body: V);

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// `self * factor + addend` with one rounding.
    unsafe fn fma(self, factor: Self, addend: Self) -> Self;
    /// `self + weights * x`, the step of a convolution's sum. Both operands are words of [`Simd::CHANNELS_PER_WORD`]
    /// channels.
    #[inline(always)]
    unsafe fn accumulate(self, weights: Self, x: Self) -> Self {
        // SAFETY: the caller guarantees the CPU features.
        unsafe { weights.fma(x, self) }
    }
    /// Stores sixteen channels in the format that `accumulate` takes: `16 / CHANNELS_PER_WORD` words.
    #[inline(always)]
    unsafe fn store_words(self, to: *mut f32) {
        // SAFETY: the caller guarantees the CPU features and the memory.
        unsafe { self.store(to) }
    }
    /// Rounds to the nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// `self * 2^n` for finite `self` and integral `n` up to 127; 0 if the result is far below the normal numbers.
    unsafe fn scale(self, n: Self) -> Self;
    /// `yes` where `self > other`, else `no`.
    unsafe fn if_above(self, other: Self, yes: Self, no: Self) -> Self;
    /// The sum of the lanes.
    unsafe fn sum(self) -> f32;
    /// The largest lane.
    unsafe fn greatest(self) -> f32;
    /// `from[index[lane]]`. The indices are non-decreasing, the first is 0, and neither half of them spans more than 8
    /// floats.
    unsafe fn pick(from: *const f32, index: &[i32; 16]) -> Self;
    /// Transposes sixteen rows into columns.
    unsafe fn transpose(rows: [Self; 16]) -> [Self; 16];
}

/// The methods of [`Simd`]. Each is one expression of intrinsics.
macro_rules! methods {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? { $body:expr })*) => {$(
        #[inline(always)]
        unsafe fn $name($($arg: $type),*) $(-> $result)? {
            // SAFETY: the caller guarantees the CPU features, and sixteen valid floats at each pointer.
            unsafe { $body }
        }
    )*};
}
use methods;
