//! The lanes of every instruction set, compared with plain arrays.

use super::{Kernel, Simd, Vector};
use crate::Isa;
use crate::testing::noise;

/// Runs every method of [`Simd`] that is not plain arithmetic on sixteen rows of numbers.
struct Probe<'a> {
    rows: &'a [[f32; 16]; 16],
    index: &'a [i32; 16],
    seen: &'a mut Seen,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    transposed: [[f32; 16]; 16],
    picked: [f32; 16],
    rounded: [f32; 16],
    scaled: [f32; 16],
    chosen: [f32; 16],
    clamped: [f32; 16],
    /// The maximum of NaN and each number.
    numbers: [f32; 16],
    greatest: f32,
    sum: f32,
}

impl Vector for Probe<'_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { rows, index, seen } = self;
        // SAFETY: the caller guarantees the CPU features; every pointer is to the first of sixteen floats, and the
        // picked floats are in the first two rows, with more rows behind them.
        unsafe {
            let mut lanes = [S::splat(0.0); 16];
            for (lanes, row) in lanes.iter_mut().zip(rows) {
                *lanes = S::load(row.as_ptr());
            }
            for (lanes, row) in S::transpose(lanes).into_iter().zip(&mut seen.transposed) {
                lanes.store(row.as_mut_ptr());
            }
            let [a, b, c, d, ..] = lanes;
            S::pick(rows.as_flattened().as_ptr(), index).store(seen.picked.as_mut_ptr());
            a.round().store(seen.rounded.as_mut_ptr());
            a.scale(b.round()).store(seen.scaled.as_mut_ptr());
            a.if_above(b, c, d).store(seen.chosen.as_mut_ptr());
            a.max(S::splat(-1.0)).min(S::splat(1.0)).store(seen.clamped.as_mut_ptr());
            S::splat(f32::NAN).max(a).store(seen.numbers.as_mut_ptr());
            (seen.greatest, seen.sum) = (a.greatest(), a.sum());
        }
    }
}

impl Kernel for Probe<'_> {
    fn scalar(self) {
        let Self { rows: rows @ [a, b, c, d, ..], index, seen } = self;
        let each = |value: &dyn Fn(usize) -> f32| -> [f32; 16] { std::array::from_fn(value) };
        *seen = Seen {
            transposed: std::array::from_fn(|column| rows.map(|row| row[column])),
            picked: each(&|i| rows.as_flattened()[index[i] as usize]),
            rounded: a.map(f32::round_ties_even),
            // Exact in f64, so rounded once. Far below the normal numbers, zero is also accepted.
            scaled: each(&|i| (f64::from(a[i]) * f64::from(b[i].round_ties_even()).exp2()) as f32),
            chosen: each(&|i| if a[i] > b[i] { c[i] } else { d[i] }),
            clamped: a.map(|v| v.clamp(-1.0, 1.0)),
            numbers: a.map(|v| f32::NAN.max(v)),
            greatest: a.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            sum: a.iter().sum(),
        };
    }
}

#[test]
fn lanes_match_plain_arrays() {
    let indices: [[i32; 16]; 4] = [
        std::array::from_fn(|i| i as i32),     // in order
        [0; 16],                               // all equal
        std::array::from_fn(|i| i as i32 / 8), // a factor of eight
        [0, 0, 1, 2, 2, 3, 6, 7, 8, 8, 9, 10, 11, 12, 13, 15],
    ];
    // Integers have exact sums in any order; halves test rounding to even.
    let mut halves = [[0.0; 16]; 16];
    for (value, noise) in halves.as_flattened_mut().iter_mut().zip(noise(256, 1)) {
        *value = (40.0 * noise).round() / 2.0;
    }
    let mut extremes = halves;
    extremes[0] = [-0.0, 0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, 1e-30, -1e-30, 1e30, -1e30, 0.25, 3.5, 1e-38, 1.0];
    extremes[1] = [1.0, -1.0, 127.0, -126.0, 127.0, -126.0, 0.0, 3.0, -126.0, 7.0, 90.0, 0.0, -300.0, -200.0, 1.0, 0.0];
    for isa in Isa::available() {
        for rows in [&halves, &extremes] {
            for index in &indices {
                let (mut got, mut want) = (Seen::default(), Seen::default());
                isa.run(Probe { rows, index, seen: &mut got });
                Isa::Scalar.run(Probe { rows, index, seen: &mut want });
                if rows == &extremes {
                    got.sum = want.sum; // the numbers differ too much for an exact sum
                }
                let tiny = |v: f32| if v.abs() < f32::MIN_POSITIVE { 0.0 } else { v };
                (got.scaled, want.scaled) = (got.scaled.map(tiny), want.scaled.map(tiny));
                assert_eq!(got, want, "{}", isa.name());
            }
        }
    }
}
