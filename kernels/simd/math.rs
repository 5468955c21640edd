//! Exponential and GELU over sixteen lanes.

use super::Simd;

/// `e^x` with a relative error below 2e-7 for `x` in -87.3 ..= 88.3. Below that range the result underflows (exactly 0
/// for `x` <= -104); above it the result is constant (2.4e38).
///
/// Cody-Waite reduction to `|r| <= ln 2 / 2`, then the degree-5 minimax polynomial of Arm's optimized routines
/// (`expf`).
///
/// # Safety
/// The CPU supports the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S) -> S {
    // SAFETY: arithmetic in registers; the caller guarantees the CPU features.
    unsafe {
        let x = x.min(S::splat(88.376_26)).max(S::splat(-105.0));
        let n = x.mul(S::splat(std::f32::consts::LOG2_E)).round();
        let r = n.fma(S::splat(-0.693_145_75), x);
        let r = n.fma(S::splat(-1.428_606_8e-6), r);
        let mut p = S::splat(8.247_39e-3);
        p = p.fma(r, S::splat(4.189_976_7e-2));
        p = p.fma(r, S::splat(0.166_683_96));
        p = p.fma(r, S::splat(0.499_991_27));
        p = p.fma(r, S::splat(0.999_999_4));
        p.fma(r, S::splat(1.0)).scale(n)
    }
}

/// `x / 2 * (1 + erf(x / sqrt 2))` with an absolute error below 5e-7 up to `x = 10`, and one rounding above.
///
/// Computed as `max(x, 0) - |x| / 2 * erfc(|x| / sqrt 2)`, which loses no precision in the tails; erfc is formula
/// 7.1.26 of Abramowitz and Stegun.
///
/// # Safety
/// The CPU supports the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn gelu<S: Simd>(x: S) -> S {
    // SAFETY: arithmetic in registers; the caller guarantees the CPU features.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        let t = x.max(zero.sub(x));
        let k = one.div(t.fma(S::splat(0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2), one));
        let mut p = S::splat(1.061_405_4);
        p = p.fma(k, S::splat(-1.453_152));
        p = p.fma(k, S::splat(1.421_413_7));
        p = p.fma(k, S::splat(-0.284_496_74));
        p = p.fma(k, S::splat(0.254_829_6));
        let erfc = p.mul(k).mul(exp(t.mul(t).mul(S::splat(-0.5))));
        t.mul(S::splat(-0.5)).fma(erfc, x.max(zero))
    }
}

#[cfg(test)]
mod tests {
    use crate::Isa;
    use crate::simd::{Kernel, Simd, Vector, exp, gelu};

    /// Applies a function of sixteen lanes to a whole slice.
    struct Each<'a> {
        values: &'a mut [[f32; 16]],
        gelu: bool,
    }

    impl Vector for Each<'_> {
        #[inline(always)]
        unsafe fn vector<S: Simd>(self) {
            for values in self.values {
                // SAFETY: the caller guarantees the CPU features; the array has sixteen floats.
                unsafe {
                    let x = S::load(values.as_ptr());
                    let y = if self.gelu { gelu(x) } else { exp(x) };
                    y.store(values.as_mut_ptr());
                }
            }
        }
    }

    impl Kernel for Each<'_> {
        fn scalar(self) {
            for value in self.values.as_flattened_mut() {
                *value = if self.gelu { crate::conv::activate(*value, crate::Activation::Gelu) } else { value.exp() };
            }
        }
    }

    const COUNT: usize = if cfg!(miri) { 1 << 8 } else { 1 << 20 };

    /// Pairs of `x` and `f(x)` at [`COUNT`] points between `low` and `high`.
    fn sweep(isa: Isa, low: f32, high: f32, gelu: bool) -> Vec<(f64, f64)> {
        let points: Vec<_> = (0..COUNT).map(|i| low + (high - low) * (i as f32 / (COUNT - 1) as f32)).collect();
        let mut values = points.clone();
        let (chunks, _) = values.as_chunks_mut();
        isa.run(Each { values: chunks, gelu });
        points.iter().zip(values).map(|(&x, y)| (f64::from(x), f64::from(y))).collect()
    }

    #[test]
    fn exp_is_accurate_to_two_parts_in_ten_million() {
        for isa in Isa::available() {
            for (low, high) in [(-87.3, 88.3), (-1.0, 1.0)] {
                let error =
                    sweep(isa, low, high, false).iter().fold(0.0f64, |e, (x, y)| e.max((y / x.exp() - 1.0).abs()));
                println!("{}: exp on {low} ..= {high}: relative error {error:.1e}", isa.name());
                assert!(error < 2e-7, "{}: {error}", isa.name());
            }
            assert_eq!(sweep(isa, 0.0, 1.0, false)[0].1.to_bits(), 1f64.to_bits(), "e^0");
            let far: Vec<_> = sweep(isa, -1e30, -1e3, false);
            assert!(far.iter().take(COUNT / 2).all(|(_, y)| *y == 0.0), "{}: not zero far below", isa.name());
        }
    }

    #[test]
    fn gelu_is_accurate_to_five_parts_in_ten_million() {
        for isa in Isa::available() {
            for (low, high) in [(-1.0, 1.0), (-6.0, 6.0), (-1000.0, 10.0)] {
                let want = |x: f64| 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
                let error = sweep(isa, low, high, true).iter().fold(0.0f64, |e, (x, y)| e.max((y - want(*x)).abs()));
                println!("{}: gelu on {low} ..= {high}: absolute error {error:.1e}", isa.name());
                assert!(error < 5e-7, "{}: {error}", isa.name());
            }
            // Relative from here on, because the spacing of floats exceeds a millionth.
            assert!(sweep(isa, 10.0, 1e30, true).iter().all(|(x, y)| (y / x - 1.0).abs() < 2e-7), "{}", isa.name());
        }
    }
}
