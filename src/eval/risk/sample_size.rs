//! How many units a limit needs, and how small a limit some units can certify.

use super::limit::{Bound, Limit};
use super::p_value;

/// The most units that [`units_needed`] considers.
const MOST_UNITS: f64 = 1e9;

/// How many units `limit` needs if their mean loss is `risk`; `None` if no number suffices, or only more than a billion.
///
/// [`Bound::Betting`] depends on more than the mean; for it, this is the number that [`Bound::HoeffdingBentkus`] needs.
///
/// ```
/// use rtformer::eval::risk::{Bound, Limit, units_needed};
///
/// let limit = Limit::new(0.02, 0.05)?;
/// assert_eq!(units_needed(0.0, limit, Bound::HoeffdingBentkus), Some(149));
/// assert_eq!(units_needed(0.02, limit, Bound::HoeffdingBentkus), None); // not below epsilon
/// # Ok::<(), rtformer::Error>(())
/// ```
pub fn units_needed(risk: f64, limit: Limit, bound: Bound) -> Option<u64> {
    let (epsilon, delta) = (limit.epsilon(), limit.delta());
    if !(0.0..epsilon).contains(&risk) {
        return None;
    }
    // What crc needs, and what Hoeffding's bound needs, which is enough for hb.
    let enough = match bound {
        Bound::Conformal => (1.0 - epsilon) / (epsilon - risk),
        _ => (1.0 / delta).ln() / p_value::relative_entropy(risk, epsilon),
    };
    if enough > MOST_UNITS {
        return None;
    }
    let enough = ((enough - 1e-9).ceil() as u64).max(1);
    if bound == Bound::Conformal {
        return Some(enough);
    }
    // Bentkus's bound rounds the sum of the losses up, so the p-value jumps wherever the sum passes a whole number. In between it falls.
    // The first search finds the whole number, at the most units that have it; the second one finds the units.
    let suffices = |units| hoeffding_bentkus_of_mean(units, risk, epsilon) <= delta;
    let most = |sum: u64| if risk == 0.0 { enough } else { ((sum as f64 / risk * (1.0 + 1e-10)) as u64).min(enough) };
    let sum = smallest((enough as f64 * risk).ceil() as u64, |sum| suffices(most(sum)));
    let fewer = if sum == 0 { 0 } else { most(sum - 1) };
    Some(fewer + smallest(most(sum) - fewer, |more| suffices(fewer + more)))
}

/// The smallest number for which `holds`, by bisection, given that it holds for `enough` and not for 0 (which is not tried).
fn smallest(mut enough: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let mut few = 0;
    while enough - few > 1 {
        let middle = few.midpoint(enough);
        if holds(middle) { enough = middle } else { few = middle }
    }
    enough
}

/// The smallest `epsilon` that `units` certify with a probability of `1 - delta` if their mean loss is `risk`; 1, which holds for every
/// loss, if they certify nothing.
///
/// `None` for [`Bound::Betting`], which depends on more than the mean, and for arguments that [`choose`](super::choose) would reject.
///
/// ```
/// use rtformer::eval::risk::{Bound, smallest_epsilon};
///
/// let epsilon = smallest_epsilon(101, 0.0, 0.05, Bound::HoeffdingBentkus).unwrap();
/// assert!((epsilon - 0.0292).abs() < 1e-4);
/// ```
pub fn smallest_epsilon(units: u64, risk: f64, delta: f64, bound: Bound) -> Option<f64> {
    if units == 0 || !(0.0..=1.0).contains(&risk) || !(delta > 0.0 && delta < 1.0) {
        return None;
    }
    match bound {
        Bound::Betting => None,
        Bound::Conformal => Some((units as f64 * risk + 1.0) / (units as f64 + 1.0)),
        Bound::HoeffdingBentkus => {
            let (mut small, mut large) = (risk, 1.0);
            while large - small > 1e-12 {
                let middle = f64::midpoint(small, large);
                let certified = hoeffding_bentkus_of_mean(units, risk, middle) <= delta;
                if certified { large = middle } else { small = middle }
            }
            Some(large)
        }
    }
}

/// The p-value of `n` losses of which only the mean is known.
fn hoeffding_bentkus_of_mean(n: u64, mean: f64, epsilon: f64) -> f64 {
    let sum = n as f64 * mean;
    // 100 losses with a mean of 0.07 add up to 7, not to 7.000000000000001, which would be rounded up to 8.
    let whole = sum.round();
    let sum = if (sum - whole).abs() < 1e-9 * whole { whole } else { sum };
    p_value::hoeffding_bentkus(sum, n as usize, epsilon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_certify_little() {
        let cases =
            [(101, 0.0, 2.9), (101, 0.01, 5.6), (367, 0.0, 0.8), (367, 0.01, 2.8), (500, 0.0, 0.6), (500, 0.01, 2.4)];
        for (units, risk, percent) in cases {
            let epsilon = smallest_epsilon(units, risk, 0.05, Bound::HoeffdingBentkus).unwrap();
            assert!((100.0 * epsilon - percent).abs() <= 0.05, "{units} units, risk {risk}: {epsilon}");
            // The two functions agree: this epsilon needs no more than these units.
            let limit = Limit::new(epsilon, 0.05).unwrap();
            let needed = units_needed(risk, limit, Bound::HoeffdingBentkus).unwrap();
            assert!(needed <= units && needed * 100 > units * 95, "{units} units, risk {risk}: {needed}");
        }
        assert_eq!(smallest_epsilon(5, 1.0, 0.05, Bound::HoeffdingBentkus), Some(1.0));
        let rejected = [(0, 0.1, 0.1), (1, 1.1, 0.1), (1, f64::NAN, 0.1), (1, 0.1, 0.0), (1, 0.1, 1.0)];
        for (units, risk, delta) in rejected {
            assert_eq!(smallest_epsilon(units, risk, delta, Bound::HoeffdingBentkus), None);
        }
    }

    #[test]
    fn the_number_of_units_needed_is_the_smallest_that_suffices() {
        for (risk, epsilon) in [(0.0, 0.02), (0.01, 0.02), (0.015, 0.02), (0.07, 0.1), (0.5, 0.6), (0.3, 1.0)] {
            let limit = Limit::new(epsilon, 0.05).unwrap();
            let units = units_needed(risk, limit, Bound::HoeffdingBentkus).unwrap();
            let suffices = |units| hoeffding_bentkus_of_mean(units, risk, epsilon) <= 0.05;
            assert_eq!((1..=units).find(|&units| suffices(units)), Some(units), "risk {risk}, epsilon {epsilon}");
            let units = units_needed(risk, limit, Bound::Conformal).unwrap();
            let suffices = |units| smallest_epsilon(units, risk, 0.05, Bound::Conformal).unwrap() <= epsilon + 1e-12;
            assert!(suffices(units) && (units == 1 || !suffices(units - 1)), "risk {risk}, epsilon {epsilon}: {units}");
        }
        let limit = Limit::new(0.02, 0.05).unwrap();
        // Not below epsilon, not a number, and so close to epsilon that more than a billion units are needed.
        for risk in [0.02, 0.5, 1.0, f64::NAN, 0.02 - 1e-10] {
            for bound in [Bound::HoeffdingBentkus, Bound::Betting, Bound::Conformal] {
                assert_eq!(units_needed(risk, limit, bound), None, "{bound}, {risk}");
            }
        }
    }
}
