//! Sixteen float lanes, the same on every instruction set: an algorithm is written once over [`Simd`].
//!
//! A body is `#[inline(always)]` and takes its instructions from the `#[target_feature]` function that it is inlined into
//! (`with_avx2`, `with_avx512`, `with_neon`); a new instruction set is one more implementation of [`Simd`] and one more such function.
//! Every body uses fused multiply-add where it multiplies and adds, in tails too, so that an element's value does not
//! depend on where the tiles fall.

mod math;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

pub(crate) use math::{exp, gelu};

/// An operation in its vector form.
pub(crate) trait Vector: Sized {
    /// # Safety
    /// The CPU has the instructions of `S`, and the value's own pointers are good; always `#[inline(always)]`.
    unsafe fn vector<S: Simd>(self);
}

/// An operation as a door hands it to [`crate::Isa::run`]: its vector form and its definition.
pub(crate) trait Kernel: Vector {
    /// The plain definition.
    fn scalar(self);
}

/// Sixteen floats in registers.
///
/// # Safety
/// Every method needs the CPU to have the implementation's instructions; those with pointers need sixteen good floats.
#[allow(clippy::missing_safety_doc, reason = "one contract for all methods, above")]
pub(crate) trait Simd: Copy {
    /// The register tile of a convolution: at most so many blocks of sixteen output channels ...
    const TILE_BLOCKS: usize;
    /// ... by so many pixels.
    const TILE_PIXELS: usize;
    /// Channels in one 32-bit word of what [`Simd::accumulate`] multiplies: 1 of f32, or 2 of bf16.
    const CHANNELS_PER_WORD: usize = 1;

    /// Asks for the cache line at `at`, which need not exist.
    #[inline(always)]
    unsafe fn prefetch(_at: *const f32) {}

    /// Runs `body` as a function of its own that has this instruction set.
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
    /// `self + weights * x`, both in words of [`Simd::CHANNELS_PER_WORD`] channels: the sum of a convolution.
    #[inline(always)]
    unsafe fn accumulate(self, weights: Self, x: Self) -> Self {
        // SAFETY: the caller promises the CPU.
        unsafe { weights.fma(x, self) }
    }
    /// Stores sixteen channels as `accumulate` takes them: `16 / CHANNELS_PER_WORD` words.
    #[inline(always)]
    unsafe fn store_words(self, to: *mut f32) {
        // SAFETY: the caller promises the CPU and the memory.
        unsafe { self.store(to) }
    }
    /// To the nearest integer, halves to even.
    unsafe fn round(self) -> Self;
    /// `self * 2^n` for finite `self` and integral `n` up to 127; 0 where that is far below the normal numbers.
    unsafe fn scale(self, n: Self) -> Self;
    /// `yes` where `self > other`, else `no`.
    unsafe fn if_above(self, other: Self, yes: Self, no: Self) -> Self;
    /// The sum of the lanes.
    unsafe fn sum(self) -> f32;
    /// The greatest of the lanes.
    unsafe fn greatest(self) -> f32;
    /// `from[index[lane]]`; the indices do not fall, the first is 0, and neither half of them spans more than 8 floats.
    unsafe fn pick(from: *const f32, index: &[i32; 16]) -> Self;
    /// Rows become columns.
    unsafe fn transpose(rows: [Self; 16]) -> [Self; 16];
}

/// The methods of [`Simd`]; each is one expression of intrinsics.
macro_rules! methods {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? { $body:expr })*) => {$(
        #[inline(always)]
        unsafe fn $name($($arg: $type),*) $(-> $result)? {
            // SAFETY: the caller promises the CPU, and sixteen good floats behind a pointer.
            unsafe { $body }
        }
    )*};
}
use methods;
