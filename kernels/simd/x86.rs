//! Sixteen lanes on x86-64: one 512-bit register, with products in f32 or bf16, or two 256-bit registers.

#[allow(clippy::wildcard_imports, reason = "fifty intrinsics, each with its own prefix")]
use std::arch::x86_64::*;

use super::{Simd, Vector, methods};

/// Runs `body` with AVX-512.
///
/// # Safety
/// The CPU has the features that [`crate::Avx512`] proves.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(crate) unsafe fn with_avx512<V: Vector>(body: V) {
    // SAFETY: the caller guarantees the CPU features; the body's own contract was met where it was constructed.
    unsafe { body.vector::<Avx512Lanes>() }
}

/// Runs `body` with AVX-512 and products in bf16.
///
/// # Safety
/// The CPU has the features that [`crate::Avx512`] proves, and AVX512-BF16.
#[inline(never)]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(crate) unsafe fn with_avx512_bf16<V: Vector>(body: V) {
    // SAFETY: the caller guarantees the CPU features; the body's own contract was met where it was constructed.
    unsafe { body.vector::<Avx512Bf16Lanes>() }
}

/// Runs `body` with AVX2.
///
/// # Safety
/// The CPU has the features that [`crate::Avx2`] proves.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn with_avx2<V: Vector>(body: V) {
    // SAFETY: the caller guarantees the CPU features; the body's own contract was met where it was constructed.
    unsafe { body.vector::<Avx2Lanes>() }
}

/// Defines `$lanes`: sixteen lanes in one register. `$own` holds what differs between f32 and bf16 products.
macro_rules! avx512 {
    ($(#[$doc:meta])* $lanes:ident by $with:ident { $($own:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub(crate) struct $lanes(__m512);

        impl Simd for $lanes {
            // 28 of the 32 registers hold sums and two hold weights. Tiles of 8 to 14 pixels were the fastest measured.
            const TILE_BLOCKS: usize = 2;
            const TILE_PIXELS: usize = 14;

            #[inline(always)]
            unsafe fn enter<V: Vector>(body: V) {
                // SAFETY: the caller guarantees the CPU features.
                unsafe { $with(body) }
            }

            methods! {
                fn prefetch(at: *const f32) { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
                // Sixteen rows ahead. Otherwise loads that miss the L2 cache would stall (256 channels and more, 45x60:
                // a tenth to a fifth of the layer's time).
                fn prefetch_weights(at: *const f32) { Self::prefetch(at.wrapping_add(16 * 16)) }
                fn splat(value: f32) -> Self { Self(_mm512_set1_ps(value)) }
                fn load(from: *const f32) -> Self { Self(_mm512_loadu_ps(from)) }
                fn store(self: Self, to: *mut f32) { _mm512_storeu_ps(to, self.0) }
                fn add(self: Self, other: Self) -> Self { Self(_mm512_add_ps(self.0, other.0)) }
                fn sub(self: Self, other: Self) -> Self { Self(_mm512_sub_ps(self.0, other.0)) }
                fn mul(self: Self, other: Self) -> Self { Self(_mm512_mul_ps(self.0, other.0)) }
                fn div(self: Self, other: Self) -> Self { Self(_mm512_div_ps(self.0, other.0)) }
                fn max(self: Self, other: Self) -> Self { Self(_mm512_max_ps(self.0, other.0)) }
                fn min(self: Self, other: Self) -> Self { Self(_mm512_min_ps(self.0, other.0)) }
                fn fma(self: Self, factor: Self, addend: Self) -> Self {
                    Self(_mm512_fmadd_ps(self.0, factor.0, addend.0))
                }
                fn round(self: Self) -> Self {
                    Self(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))
                }
                fn scale(self: Self, n: Self) -> Self { Self(_mm512_scalef_ps(self.0, n.0)) }
                fn if_above(self: Self, other: Self, yes: Self, no: Self) -> Self {
                    Self(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0), no.0, yes.0))
                }
                fn sum(self: Self) -> f32 { _mm512_reduce_add_ps(self.0) }
                fn greatest(self: Self) -> f32 { _mm512_reduce_max_ps(self.0) }
                fn pick(from: *const f32, index: &[i32; 16]) -> Self {
                    Self(_mm512_permutexvar_ps(_mm512_loadu_si512(index.as_ptr().cast()), _mm512_loadu_ps(from)))
                }
                fn transpose(rows: [Self; 16]) -> [Self; 16] {
                    // The wrapper is `repr(transparent)`.
                    std::mem::transmute::<[__m512; 16], [Self; 16]>(transpose512(
                        std::mem::transmute::<[Self; 16], [__m512; 16]>(rows),
                    ))
                }
            }
            $($own)*
        }
    };
}

avx512! {
    /// Sixteen lanes in one register; products in f32.
    Avx512Lanes by with_avx512 {}
}

avx512! {
    /// Sixteen lanes in one register; products of bf16 pairs, summed in f32.
    Avx512Bf16Lanes by with_avx512_bf16 {
        const CHANNELS_PER_WORD: usize = 2;

        methods! {
            fn accumulate(self: Self, weights: Self, x: Self) -> Self {
                // The width is the same and any bits are valid, so a register of bf16 pairs is passed as one of f32.
                Self(_mm512_dpbf16_ps(
                    self.0,
                    std::mem::transmute::<__m512, __m512bh>(weights.0),
                    std::mem::transmute::<__m512, __m512bh>(x.0),
                ))
            }
            fn store_words(self: Self, to: *mut f32) {
                _mm256_storeu_si256(to.cast(), std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0)))
            }
        }
    }
}

/// # Safety
/// The CPU supports AVX-512 F.
#[inline(always)]
unsafe fn transpose512(mut r: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: the caller guarantees the CPU features; the function only uses registers.
    unsafe {
        // Within each quarter of the registers, a 4x4 transpose of every four rows.
        for i in (0..16).step_by(4) {
            let low = (_mm512_unpacklo_ps(r[i], r[i + 1]), _mm512_unpacklo_ps(r[i + 2], r[i + 3]));
            let high = (_mm512_unpackhi_ps(r[i], r[i + 1]), _mm512_unpackhi_ps(r[i + 2], r[i + 3]));
            r[i] = _mm512_shuffle_ps::<0x44>(low.0, low.1);
            r[i + 1] = _mm512_shuffle_ps::<0xee>(low.0, low.1);
            r[i + 2] = _mm512_shuffle_ps::<0x44>(high.0, high.1);
            r[i + 3] = _mm512_shuffle_ps::<0xee>(high.0, high.1);
        }
        // Then a 4x4 transpose of the quarters.
        for i in 0..4 {
            let even =
                (_mm512_shuffle_f32x4::<0x88>(r[i], r[i + 4]), _mm512_shuffle_f32x4::<0x88>(r[i + 8], r[i + 12]));
            let odd = (_mm512_shuffle_f32x4::<0xdd>(r[i], r[i + 4]), _mm512_shuffle_f32x4::<0xdd>(r[i + 8], r[i + 12]));
            r[i] = _mm512_shuffle_f32x4::<0x88>(even.0, even.1);
            r[i + 4] = _mm512_shuffle_f32x4::<0x88>(odd.0, odd.1);
            r[i + 8] = _mm512_shuffle_f32x4::<0xdd>(even.0, even.1);
            r[i + 12] = _mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1);
        }
    }
    r
}

/// Sixteen lanes in two registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2Lanes(__m256, __m256);

impl Simd for Avx2Lanes {
    // 12 of the 16 registers hold sums, two hold weights, and one holds a pixel.
    const TILE_BLOCKS: usize = 1;
    const TILE_PIXELS: usize = 6;
    const UNROLL: usize = 4;

    // Tiles of few pixels: a part of a tile would be a large part of the work.
    #[inline(always)]
    fn whole_tiles(pixels: usize) -> usize {
        pixels / Self::TILE_PIXELS * Self::TILE_PIXELS
    }

    #[inline(always)]
    unsafe fn enter<V: Vector>(body: V) {
        // SAFETY: the caller guarantees the CPU features.
        unsafe { with_avx2(body) }
    }

    methods! {
        fn prefetch(at: *const f32) { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        fn prefetch_plane(at: *const f32) { Self::prefetch(at) }
        fn prefetch_l2(at: *const f32) { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        fn splat(value: f32) -> Self { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
        fn load(from: *const f32) -> Self { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        fn store(self: Self, to: *mut f32) {{ _mm256_storeu_ps(to, self.0); _mm256_storeu_ps(to.add(8), self.1) }}
        fn add(self: Self, other: Self) -> Self { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        fn sub(self: Self, other: Self) -> Self { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        fn mul(self: Self, other: Self) -> Self { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
        fn div(self: Self, other: Self) -> Self { Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
        fn max(self: Self, other: Self) -> Self { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        fn min(self: Self, other: Self) -> Self { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
        fn fma(self: Self, factor: Self, addend: Self) -> Self {
            Self(_mm256_fmadd_ps(self.0, factor.0, addend.0), _mm256_fmadd_ps(self.1, factor.1, addend.1))
        }
        fn round(self: Self) -> Self { Self(round256(self.0), round256(self.1)) }
        fn scale(self: Self, n: Self) -> Self {
            Self(_mm256_mul_ps(self.0, pow2(n.0)), _mm256_mul_ps(self.1, pow2(n.1)))
        }
        fn if_above(self: Self, other: Self, yes: Self, no: Self) -> Self {
            Self(
                _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0)),
                _mm256_blendv_ps(no.1, yes.1, _mm256_cmp_ps::<_CMP_GT_OQ>(self.1, other.1)),
            )
        }
        fn sum(self: Self) -> f32 { lanes256(_mm256_add_ps(self.0, self.1)).iter().sum() }
        fn greatest(self: Self) -> f32 {
            lanes256(_mm256_max_ps(self.0, self.1)).iter().copied().fold(f32::NEG_INFINITY, f32::max)
        }
        fn pick(from: *const f32, index: &[i32; 16]) -> Self {{
            let (low, high) = (_mm256_loadu_si256(index.as_ptr().cast()), _mm256_loadu_si256(index.as_ptr().add(8).cast()));
            let high = _mm256_sub_epi32(high, _mm256_set1_epi32(index[8]));
            let middle = from.offset(index[8] as isize);
            Self(
                _mm256_permutevar8x32_ps(_mm256_loadu_ps(from), low),
                _mm256_permutevar8x32_ps(_mm256_loadu_ps(middle), high),
            )
        }}
        fn transpose(rows: [Self; 16]) -> [Self; 16] { transpose2x256(rows) }
    }
}

methods! {
    fn round256(x: __m256) -> __m256 { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
    // Writes the exponent bits directly; exponent -127 gives the number 0.
    fn pow2(n: __m256) -> __m256 {{
        let exponent = _mm256_cvtps_epi32(_mm256_max_ps(n, _mm256_set1_ps(-127.0)));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(exponent, _mm256_set1_epi32(127))))
    }}
    fn lanes256(x: __m256) -> [f32; 8] {{
        let mut lanes = [0.0; 8];
        _mm256_storeu_ps(lanes.as_mut_ptr(), x);
        lanes
    }}
}

/// # Safety
/// The CPU supports AVX2.
#[inline(always)]
unsafe fn transpose2x256(mut rows: [Avx2Lanes; 16]) -> [Avx2Lanes; 16] {
    // SAFETY: the caller guarantees the CPU features; the function only uses registers.
    unsafe {
        let zero = _mm256_setzero_ps();
        let mut quarters = [[zero; 8]; 4];
        for i in 0..8 {
            quarters[0][i] = rows[i].0;
            quarters[1][i] = rows[i].1;
            quarters[2][i] = rows[8 + i].0;
            quarters[3][i] = rows[8 + i].1;
        }
        let (upper_left, upper_right) = (transpose256(quarters[0]), transpose256(quarters[1]));
        let (lower_left, lower_right) = (transpose256(quarters[2]), transpose256(quarters[3]));
        for i in 0..8 {
            rows[i] = Avx2Lanes(upper_left[i], lower_left[i]);
            rows[8 + i] = Avx2Lanes(upper_right[i], lower_right[i]);
        }
        rows
    }
}

/// # Safety
/// The CPU supports AVX2.
#[inline(always)]
unsafe fn transpose256(mut r: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: the caller guarantees the CPU features; the function only uses registers.
    unsafe {
        // Within each half of the registers, a 4x4 transpose of every four rows; then the halves are swapped.
        for i in [0, 4] {
            let low = (_mm256_unpacklo_ps(r[i], r[i + 1]), _mm256_unpacklo_ps(r[i + 2], r[i + 3]));
            let high = (_mm256_unpackhi_ps(r[i], r[i + 1]), _mm256_unpackhi_ps(r[i + 2], r[i + 3]));
            r[i] = _mm256_shuffle_ps::<0x44>(low.0, low.1);
            r[i + 1] = _mm256_shuffle_ps::<0xee>(low.0, low.1);
            r[i + 2] = _mm256_shuffle_ps::<0x44>(high.0, high.1);
            r[i + 3] = _mm256_shuffle_ps::<0xee>(high.0, high.1);
        }
        for i in 0..4 {
            let (top, bottom) = (r[i], r[i + 4]);
            r[i] = _mm256_permute2f128_ps::<0x20>(top, bottom);
            r[i + 4] = _mm256_permute2f128_ps::<0x31>(top, bottom);
        }
    }
    r
}
