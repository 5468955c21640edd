//! Guarantees from finite samples: which threshold keeps the risk below a limit, with a stated probability.
//!
//! This module sees numbers only. The input is the losses, in `[0, 1]`, of independent units (photos, say; not the pixels of one photo
//! and not neighbouring frames) under several thresholds. The output is p-values and a threshold. The risk of a threshold is its
//! expected loss over the distribution that the units were drawn from; the guarantee says nothing about other distributions.
//!
//! ```
//! use rtformer::eval::risk::{Bound, Limit, choose};
//!
//! let limit = Limit::new(0.05, 0.1)?; // a risk of at most 5 %, with a probability of at least 90 %
//! let losses = [vec![0.0; 100], vec![0.01; 100], vec![0.2; 100]]; // safest first
//! let choice = choose(&losses, limit, Bound::HoeffdingBentkus)?;
//! assert_eq!(choice.chosen, Some(1));
//! assert!(choice.p_values[0].is_some_and(|p| p < 0.01)); // 0.95^100
//! # Ok::<(), rtformer::Error>(())
//! ```

mod limit;
mod p_value;
mod sample_size;

pub use limit::{Bound, Limit};
pub use sample_size::{smallest_epsilon, units_needed};

use crate::error::{Error, Result};

/// The result of [`choose`]. The lists have one entry per threshold, safest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The index of the last certified threshold; `None` if not even the safest one is certified.
    pub chosen: Option<usize>,
    /// The mean loss of the units, 0 to 1.
    pub risks: Vec<f64>,
    /// The p-value of the hypothesis that the risk exceeds `epsilon`, 0 to 1; `None` for [`Bound::Conformal`], which tests nothing. The
    /// thresholds after the first failure have one too, but it certifies nothing.
    pub p_values: Vec<Option<f64>>,
    /// Whether no unit's loss falls from a threshold to the next. [`Bound::Conformal`] guarantees nothing otherwise; the other bounds
    /// do not need it.
    pub monotone: bool,
}

/// Chooses the last threshold that is certified to respect `limit`, from `losses[threshold][unit]`, safest threshold first.
///
/// With p-values, this is fixed-sequence testing: it goes through the thresholds in their order and stops at the first whose p-value
/// exceeds `delta`. The order must be fixed without looking at the losses. With [`Bound::Conformal`], it stops at the first threshold
/// with `(n * risk + 1) / (n + 1) > epsilon`.
///
/// The betting p-values depend on the order of the units. They are taken in a shuffled order that depends only on their number, so that
/// they stay valid if the units are sorted by their losses.
///
/// Source: Learn then Test, Angelopoulos et al., arXiv:2110.01052; conformal risk control, Angelopoulos et al., arXiv:2208.02814.
///
/// # Errors
/// [`Error::Input`] if there is no threshold or no unit, if the thresholds' numbers of losses differ, or for a loss outside `[0, 1]`.
pub fn choose(losses: &[impl AsRef<[f64]>], limit: Limit, bound: Bound) -> Result<Choice> {
    let n = check(losses)?;
    let order = if bound == Bound::Betting { shuffled(n) } else { Vec::new() };
    let sums: Vec<f64> = losses.iter().map(|column| exact_sum(column.as_ref())).collect();
    let p_value = |(column, &sum): (&_, &f64)| {
        let column: &[f64] = AsRef::as_ref(column);
        match bound {
            Bound::HoeffdingBentkus => Some(p_value::hoeffding_bentkus(sum, n, limit.epsilon())),
            Bound::Betting => {
                let losses = order.iter().map(|&unit| column[unit]);
                Some(p_value::betting(losses, limit.epsilon(), limit.delta()))
            }
            Bound::Conformal => None,
        }
    };
    let p_values: Vec<Option<f64>> = losses.iter().zip(&sums).map(p_value).collect();
    let holds = |&(p_value, sum): &(Option<f64>, f64)| match p_value {
        Some(p) => p <= limit.delta(),
        None => (sum + 1.0) / (n as f64 + 1.0) <= limit.epsilon(),
    };
    let certified = p_values.iter().copied().zip(sums.iter().copied()).take_while(holds).count();
    let never_falls = |pair: &[_]| {
        let [low, high]: [&[f64]; 2] = [AsRef::as_ref(&pair[0]), AsRef::as_ref(&pair[1])];
        low.iter().zip(high).all(|(low, high)| low <= high)
    };
    Ok(Choice {
        chosen: certified.checked_sub(1),
        risks: sums.iter().map(|sum| sum / n as f64).collect(),
        p_values,
        monotone: losses.windows(2).all(never_falls),
    })
}

/// Checks `losses[threshold][unit]`; the number of units.
fn check(losses: &[impl AsRef<[f64]>]) -> Result<usize> {
    let Some(first) = losses.first() else {
        return Err(Error::Input("there are no thresholds, expected the losses of at least one".into()));
    };
    let n = first.as_ref().len();
    if n == 0 {
        return Err(Error::Input("there are no losses, expected those of at least one unit".into()));
    }
    for (threshold, column) in losses.iter().enumerate() {
        let column = column.as_ref();
        if column.len() != n {
            let found = column.len();
            return Err(Error::Input(format!(
                "threshold {threshold} has {found} losses, expected {n} as the first has"
            )));
        }
        if let Some(unit) = column.iter().position(|loss| !(0.0..=1.0).contains(loss)) {
            let loss = column[unit];
            return Err(Error::Input(format!(
                "the loss of unit {unit} at threshold {threshold} is {loss}, expected 0 to 1"
            )));
        }
    }
    Ok(n)
}

/// The sum, rounded once (Neumaier's summation): ten losses of 0.1 add up to 1, so that Bentkus's bound does not round up to 2.
fn exact_sum(losses: &[f64]) -> f64 {
    let (mut sum, mut error) = (0.0_f64, 0.0_f64);
    for &loss in losses {
        let next = sum + loss;
        error += if sum >= loss { (sum - next) + loss } else { (loss - next) + sum };
        sum = next;
    }
    sum + error
}

/// The numbers 0 to `n - 1` in an order that looks random and depends on nothing but `n`.
fn shuffled(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut random = SplitMix(n as u64);
    for i in (1..n).rev() {
        order.swap(i, (random.next() % (i as u64 + 1)) as usize);
    }
    order
}

/// Pseudo-random numbers. Source: Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Bound; 3] = [Bound::HoeffdingBentkus, Bound::Betting, Bound::Conformal];

    impl SplitMix {
        /// Uniform in `[0, 1)`.
        fn uniform(&mut self) -> f64 {
            (self.next() >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// A kind of loss: a uniform number `u` and a known risk → a loss with this mean, which grows with the risk for every `u`.
    type Loss = fn(u: f64, risk: f64) -> f64;

    const LOSSES: [(&str, Loss); 3] = [
        ("0 or 1", |u, risk| f64::from(u < risk)),
        ("a fifth of the units, uniform", |u, risk| if u < 0.2 { 10.0 * risk * (u / 0.2) } else { 0.0 }),
        ("uniform up to twice the risk", |u, risk| 2.0 * risk * u),
    ];

    /// How 2,000 calibrations went.
    struct Tally {
        /// The share that chose a threshold whose true risk exceeds epsilon.
        violations: f64,
        /// The mean true risk of the choices; 0 for none.
        risk: f64,
    }

    const EPSILON: f64 = 0.05;
    const DELTA: f64 = 0.1;
    const CALIBRATIONS: usize = 2000;

    /// Calibrates with 80 new units each time, on thresholds of known risk, of which the last four exceed epsilon.
    fn calibrate(loss: Loss, sorted: bool, choose: impl Fn(&[Vec<f64>]) -> Option<usize>) -> Tally {
        const RISKS: [f64; 7] = [0.0, 0.005, 0.04, 0.0501, 0.0503, 0.0505, 0.06];
        let mut random = SplitMix(1);
        let (mut violations, mut risk) = (0, 0.0);
        for _ in 0..CALIBRATIONS {
            let mut units: Vec<f64> = (0..80).map(|_| random.uniform()).collect();
            if sorted {
                units.sort_by(f64::total_cmp);
                units.reverse();
            }
            let losses = RISKS.map(|risk| units.iter().map(|&u| loss(u, risk)).collect());
            let chosen = choose(&losses).map_or(0.0, |chosen| RISKS[chosen]);
            violations += usize::from(chosen > EPSILON);
            risk += chosen;
        }
        Tally { violations: violations as f64 / CALIBRATIONS as f64, risk: risk / CALIBRATIONS as f64 }
    }

    #[test]
    fn two_thousand_calibrations_respect_the_limit() {
        let limit = Limit::new(EPSILON, DELTA).unwrap();
        // Two standard errors of 2,000 draws: a bound that holds exactly passes too.
        let tolerance = 2.0 * (DELTA * (1.0 - DELTA) / CALIBRATIONS as f64).sqrt();
        let by = |bound| move |losses: &[Vec<f64>]| super::choose(losses, limit, bound).unwrap().chosen;
        for (name, loss) in LOSSES {
            for bound in [Bound::HoeffdingBentkus, Bound::Betting] {
                let violations = calibrate(loss, false, by(bound)).violations;
                assert!(violations <= DELTA + tolerance, "{name}, {bound}: {violations}");
                // The bounds are tightest for losses of 0 or 1: the guarantee is used, not missed by far.
                assert!(violations > 0.0 || name != "0 or 1", "{name}, {bound}: no violation");
                // Sorted by loss, as a table may be.
                let violations = calibrate(loss, true, by(bound)).violations;
                assert!(violations <= DELTA + tolerance, "{name}, {bound}, sorted: {violations}");
            }
            // The weaker guarantee: the limit holds on average, not with a probability of 1 - delta.
            let tally = calibrate(loss, false, by(Bound::Conformal));
            assert!(tally.risk <= EPSILON, "{name}, crc: {}", tally.risk);
            assert!(tally.violations > DELTA || name != "0 or 1", "{name}, crc: {}", tally.violations);
            // The same test notices a choice by the sample mean.
            let tally = calibrate(loss, false, |losses: &[Vec<f64>]| {
                let risks = losses.iter().map(|column| exact_sum(column) / 80.0);
                risks.take_while(|&risk| risk <= EPSILON).count().checked_sub(1)
            });
            assert!(tally.violations > 0.3, "{name}, sample mean: {}", tally.violations);
        }
    }

    #[test]
    fn stops_at_the_first_failure() {
        let limit = Limit::new(0.1, 0.05).unwrap();
        let (good, bad) = (vec![0.0; 60], vec![0.2; 60]);
        let cases = [
            (vec![good.clone()], Some(0), true),
            (vec![bad.clone()], None, true),
            (vec![good.clone(), good.clone(), bad.clone()], Some(1), true),
            (vec![good.clone(), bad.clone(), good.clone()], Some(0), false), // what follows the failure certifies nothing
            (vec![bad, good], None, false),
        ];
        for (losses, chosen, monotone) in cases {
            for bound in ALL {
                let choice = choose(&losses, limit, bound).unwrap();
                assert_eq!((choice.chosen, choice.monotone), (chosen, monotone), "{bound}");
                assert_eq!((choice.risks.len(), choice.p_values.len()), (losses.len(), losses.len()));
                assert!(choice.p_values.iter().all(|p| p.is_some() == (bound != Bound::Conformal)));
            }
        }
    }

    #[test]
    fn the_extremes_certify_only_what_is_certain() {
        let cases = [
            (vec![0.0], 0.5, None), // one unit
            (vec![0.0], 0.0, None), // no sample proves a risk of 0
            (vec![0.0; 999], 0.0, None),
            (vec![1.0; 999], 0.99, None), // always 1
            (vec![0.9; 999], 1.0, Some(0)),
        ];
        for (losses, epsilon, chosen) in cases {
            for bound in ALL {
                let limit = Limit::new(epsilon, 0.05).unwrap();
                let choice = choose(std::slice::from_ref(&losses), limit, bound).unwrap();
                let text = format!("{bound}, {} losses of {}, epsilon {epsilon}", losses.len(), losses[0]);
                let expected = if bound == Bound::Conformal && epsilon == 0.5 { Some(0) } else { chosen }; // (0 + 1) / 2
                assert_eq!(choice.chosen, expected, "{text}: {:?}", choice.p_values);
            }
        }
    }

    #[test]
    fn conformal_risk_control_counts_one_loss_of_1_more() {
        // (9 * 0 + 1) / 10 = 0.1
        let zeros = [vec![0.0; 9]];
        let cases = [(0.1, Some(0)), (0.0999, None)];
        for (epsilon, chosen) in cases {
            let choice = choose(&zeros, Limit::new(epsilon, 0.05).unwrap(), Bound::Conformal).unwrap();
            assert_eq!(choice.chosen, chosen, "{epsilon}");
        }
        assert_eq!(smallest_epsilon(9, 0.0, 0.05, Bound::Conformal), Some(0.1));
        assert_eq!(units_needed(0.0, Limit::new(0.1, 0.05).unwrap(), Bound::Conformal), Some(9));
    }

    #[test]
    fn betting_needs_fewer_units_if_losses_vary_little() {
        let limit = Limit::new(0.02, 0.05).unwrap();
        let losses = [(0..400).map(|unit| 0.005 + 0.01 * f64::from(unit % 2)).collect::<Vec<f64>>()];
        assert_eq!(choose(&losses, limit, Bound::HoeffdingBentkus).unwrap().chosen, None);
        assert_eq!(choose(&losses, limit, Bound::Betting).unwrap().chosen, Some(0));
    }

    #[test]
    fn sums_are_rounded_once() {
        for n in 1..=1000 {
            assert_eq!(exact_sum(&vec![0.1; 10 * n]), n as f64);
        }
        assert_eq!(exact_sum(&[1.0, 1e-20, 1.0]), 2.0);
    }

    #[test]
    fn a_shuffled_order_has_every_unit_once() {
        for n in [1, 2, 3, 100] {
            let mut order = shuffled(n);
            assert_eq!(order, shuffled(n));
            order.sort_unstable();
            assert!(order.into_iter().eq(0..n));
        }
        assert!(!shuffled(100).is_sorted());
    }

    #[test]
    fn invalid_arguments_are_named() {
        let limit = Limit::new(0.1, 0.05).unwrap();
        let cases: [(&[Vec<f64>], &str); 6] = [
            (&[], "no thresholds"),
            (&[vec![]], "no losses"),
            (&[vec![0.0, 0.1], vec![0.0]], "threshold 1 has 1 losses, expected 2"),
            (&[vec![0.0, 1.5]], "unit 1 at threshold 0 is 1.5"),
            (&[vec![-0.1]], "is -0.1"),
            (&[vec![f64::NAN]], "is NaN"),
        ];
        for (losses, wanted) in cases {
            let text = choose(losses, limit, Bound::HoeffdingBentkus).unwrap_err().to_string();
            assert!(text.contains(wanted), "{text}");
        }
    }
}
