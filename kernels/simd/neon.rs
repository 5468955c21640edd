//! Sixteen lanes on 64-bit Arm: four 128-bit registers.

#[allow(clippy::wildcard_imports, reason = "thirty intrinsics, each with its own suffix")]
use std::arch::aarch64::*;

use super::{Simd, Vector, methods};

/// Runs `body` with NEON.
///
/// # Safety
/// The CPU has the features that [`crate::Neon`] proves.
#[inline(never)]
#[target_feature(enable = "neon")]
pub(crate) unsafe fn with_neon<V: Vector>(body: V) {
    // SAFETY: the caller guarantees the CPU features; the body's own contract was met where it was constructed.
    unsafe { body.vector::<NeonLanes>() }
}

/// Sixteen lanes in four registers.
#[derive(Clone, Copy)]
pub(crate) struct NeonLanes([float32x4_t; 4]);

/// Evaluates the same expression for each of the four registers.
macro_rules! quarters {
    ($i:ident => $lanes:expr) => {
        NeonLanes([
            {
                let $i = 0;
                $lanes
            },
            {
                let $i = 1;
                $lanes
            },
            {
                let $i = 2;
                $lanes
            },
            {
                let $i = 3;
                $lanes
            },
        ])
    };
}

impl Simd for NeonLanes {
    // 24 of the 32 registers hold sums, four hold weights, and the rest hold pixels being loaded. Two blocks by three
    // pixels would have as many sums, but with eight registers of weights no register would be left for a pixel.
    const TILE_BLOCKS: usize = 1;
    const TILE_PIXELS: usize = 6;

    // Tiles of few pixels: a part of a tile would be a large part of the work.
    #[inline(always)]
    fn whole_tiles(pixels: usize) -> usize {
        pixels / Self::TILE_PIXELS * Self::TILE_PIXELS
    }

    #[inline(always)]
    unsafe fn enter<V: Vector>(body: V) {
        // SAFETY: the caller guarantees the CPU features.
        unsafe { with_neon(body) }
    }

    methods! {
        fn splat(value: f32) -> Self { Self([vdupq_n_f32(value); 4]) }
        fn load(from: *const f32) -> Self { quarters!(i => vld1q_f32(from.add(4 * i))) }
        fn store(self: Self, to: *mut f32) { for i in 0..4 { vst1q_f32(to.add(4 * i), self.0[i]) } }
        fn add(self: Self, other: Self) -> Self { quarters!(i => vaddq_f32(self.0[i], other.0[i])) }
        fn sub(self: Self, other: Self) -> Self { quarters!(i => vsubq_f32(self.0[i], other.0[i])) }
        fn mul(self: Self, other: Self) -> Self { quarters!(i => vmulq_f32(self.0[i], other.0[i])) }
        fn div(self: Self, other: Self) -> Self { quarters!(i => vdivq_f32(self.0[i], other.0[i])) }
        // If one operand is NaN, returns the other, like the definitions (`f32::max`); `vmaxq_f32` would return NaN.
        fn max(self: Self, other: Self) -> Self { quarters!(i => vmaxnmq_f32(self.0[i], other.0[i])) }
        fn min(self: Self, other: Self) -> Self { quarters!(i => vminnmq_f32(self.0[i], other.0[i])) }
        fn fma(self: Self, factor: Self, addend: Self) -> Self {
            quarters!(i => vfmaq_f32(addend.0[i], self.0[i], factor.0[i]))
        }
        fn round(self: Self) -> Self { quarters!(i => vrndnq_f32(self.0[i])) }
        fn scale(self: Self, n: Self) -> Self { quarters!(i => vmulq_f32(self.0[i], pow2(n.0[i]))) }
        fn if_above(self: Self, other: Self, yes: Self, no: Self) -> Self {
            quarters!(i => vbslq_f32(vcgtq_f32(self.0[i], other.0[i]), yes.0[i], no.0[i]))
        }
        fn sum(self: Self) -> f32 {{
            let [a, b, c, d] = self.0;
            vaddvq_f32(vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d)))
        }}
        fn greatest(self: Self) -> f32 {{
            let [a, b, c, d] = self.0;
            vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a, b), vmaxnmq_f32(c, d)))
        }}
        fn pick(from: *const f32, index: &[i32; 16]) -> Self {{
            let middle = from.offset(index[8] as isize);
            let tables = [
                uint8x16x2_t(bytes(vld1q_f32(from)), bytes(vld1q_f32(from.add(4)))),
                uint8x16x2_t(bytes(vld1q_f32(middle)), bytes(vld1q_f32(middle.add(4)))),
            ];
            quarters!(i => {
                let lanes = vsubq_s32(vld1q_s32(index.as_ptr().add(4 * i)), vdupq_n_s32(index[i / 2 * 8]));
                // Float `n` of a table is at bytes `4n`, `4n + 1`, `4n + 2` and `4n + 3`.
                let four = vmlaq_n_s32(vdupq_n_s32(0x0302_0100), lanes, 0x0404_0404);
                vreinterpretq_f32_u8(vqtbl2q_u8(tables[i / 2], vreinterpretq_u8_s32(four)))
            })
        }}
        fn transpose(rows: [Self; 16]) -> [Self; 16] { transpose4x4x4(rows) }
    }
}

methods! {
    // Writes the exponent bits directly; exponent -127 gives the number 0.
    fn pow2(n: float32x4_t) -> float32x4_t {{
        let exponent = vcvtnq_s32_f32(vmaxnmq_f32(n, vdupq_n_f32(-127.0)));
        vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(exponent, vdupq_n_s32(127))))
    }}
    fn bytes(x: float32x4_t) -> uint8x16_t { vreinterpretq_u8_f32(x) }
    fn doubles(x: float32x4_t) -> float64x2_t { vreinterpretq_f64_f32(x) }
    fn singles(x: float64x2_t) -> float32x4_t { vreinterpretq_f32_f64(x) }
}

/// # Safety
/// The CPU supports NEON.
#[inline(always)]
unsafe fn transpose4x4x4(rows: [NeonLanes; 16]) -> [NeonLanes; 16] {
    // SAFETY: the caller guarantees the CPU features; the function only uses registers.
    unsafe {
        // Transposes sixteen 4x4 squares and swaps each with its mirror image.
        let mut columns = rows;
        for down in 0..4 {
            for across in 0..4 {
                let square = std::array::from_fn(|i| rows[4 * down + i].0[across]);
                for (i, line) in transpose4x4(square).into_iter().enumerate() {
                    columns[4 * across + i].0[down] = line;
                }
            }
        }
        columns
    }
}

/// # Safety
/// The CPU supports NEON.
#[inline(always)]
unsafe fn transpose4x4([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // SAFETY: the caller guarantees the CPU features; the function only uses registers.
    unsafe {
        // First columns 0 and 2, and columns 1 and 3, of two rows each; then pairs of lanes are swapped.
        let (even, odd) = ((vtrn1q_f32(a, b), vtrn1q_f32(c, d)), (vtrn2q_f32(a, b), vtrn2q_f32(c, d)));
        [
            singles(vtrn1q_f64(doubles(even.0), doubles(even.1))),
            singles(vtrn1q_f64(doubles(odd.0), doubles(odd.1))),
            singles(vtrn2q_f64(doubles(even.0), doubles(even.1))),
            singles(vtrn2q_f64(doubles(odd.0), doubles(odd.1))),
        ]
    }
}
