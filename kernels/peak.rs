//! The peak speed of this processor's multiply-adds. Profiles report a share of this limit.

use std::time::Instant;

use crate::Isa;
use crate::simd::{Kernel, Simd, Vector};

/// Floating-point operations per second of one thread that only does fused multiply-adds in registers. Each counts as
/// two operations.
///
/// Runs for a few milliseconds and returns the fastest of several tries, because other programs may be using the
/// machine.
pub fn peak_flops(isa: Isa) -> f64 {
    const ROUNDS: usize = 100_000;
    let once = || {
        let mut sum = 0.0;
        let start = Instant::now();
        isa.run(Peak { rounds: ROUNDS, sum: &mut sum });
        let seconds = start.elapsed().as_secs_f64();
        std::hint::black_box(sum);
        (ROUNDS * ACCUMULATORS * 16 * 2) as f64 / seconds
    };
    (0..8).map(|_| once()).fold(0.0, f64::max)
}

/// Enough independent sums to hide the latency (4 cycles, 2 per cycle), few enough for sixteen registers of half the
/// width.
const ACCUMULATORS: usize = 6;

struct Peak<'a> {
    rounds: usize,
    sum: &'a mut f32,
}

impl Kernel for Peak<'_> {
    fn scalar(self) {
        let mut sums = [0f32; ACCUMULATORS * 16];
        for _ in 0..self.rounds {
            sums.iter_mut().for_each(|sum| *sum = *sum * 0.5 + 1.0);
        }
        *self.sum = sums.iter().sum();
    }
}

impl Vector for Peak<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        // SAFETY: the caller guarantees the instructions of `S`; arithmetic in registers needs nothing else.
        unsafe {
            let (factor, addend) = (S::splat(0.5), S::splat(1.0));
            let mut sums = [S::splat(0.0); ACCUMULATORS];
            for _ in 0..self.rounds {
                for sum in &mut sums {
                    *sum = sum.fma(factor, addend);
                }
            }
            *self.sum = sums.into_iter().map(|sum| sum.sum()).sum();
        }
    }
}
