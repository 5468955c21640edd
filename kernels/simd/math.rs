//! Exponential and GELU over sixteen lanes.

use super::Simd;

/// `e^x`, relative error below 2e-7 for `x` in -87.3 ..= 88.3; exactly 0 below, and constant (2.4e38) above.
///
/// Cody-Waite reduction to `|r| <= ln 2 / 2`, then the polynomial of Cephes `expf`.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S) -> S {
    // SAFETY: arithmetic on registers; the caller has the instructions.
    unsafe {
        let in_range = x.min(S::splat(88.376_26)).max(S::splat(-87.336_54));
        let n = in_range.mul(S::splat(std::f32::consts::LOG2_E)).round();
        let r = n.fma(S::splat(-0.693_359_4), in_range);
        let r = n.fma(S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        p = p.fma(r, S::splat(1.398_199_9e-3));
        p = p.fma(r, S::splat(8.333_452e-3));
        p = p.fma(r, S::splat(4.166_579_6e-2));
        p = p.fma(r, S::splat(1.666_666_5e-1));
        p = p.fma(r, S::splat(0.5));
        let e = p.fma(r.mul(r), r.add(S::splat(1.0))).mul(n.pow2());
        S::splat(-87.336_54).if_above(x, S::splat(0.0), e)
    }
}

/// `x / 2 * (1 + erf(x / sqrt 2))`, absolute error below 1e-6.
///
/// erf is Eigen's rational form: odd, `p(x^2) / q(x^2)` on `|x| <= 4`.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn gelu<S: Simd>(x: S) -> S {
    // SAFETY: arithmetic on registers; the caller has the instructions.
    unsafe {
        let u = x.mul(S::splat(std::f32::consts::FRAC_1_SQRT_2)).min(S::splat(4.0)).max(S::splat(-4.0));
        let s = u.mul(u);
        let mut p = S::splat(-2.726_142_3e-10);
        p = p.fma(s, S::splat(2.770_681_4e-8));
        p = p.fma(s, S::splat(-2.101_024e-6));
        p = p.fma(s, S::splat(-5.692_506_4e-5));
        p = p.fma(s, S::splat(-7.349_906_3e-4));
        p = p.fma(s, S::splat(-2.954_599_8e-3));
        p = p.fma(s, S::splat(-1.609_603_3e-2));
        let mut q = S::splat(-1.456_607_2e-5);
        q = q.fma(s, S::splat(-2.133_740_6e-4));
        q = q.fma(s, S::splat(-1.682_827e-3));
        q = q.fma(s, S::splat(-7.373_329e-3));
        q = q.fma(s, S::splat(-1.426_473_9e-2));
        let erf = u.mul(p).div(q).min(S::splat(1.0)).max(S::splat(-1.0));
        let half = x.mul(S::splat(0.5));
        half.fma(erf, half)
    }
}
