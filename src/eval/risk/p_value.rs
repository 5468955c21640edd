//! P-values of the hypothesis that a risk exceeds `epsilon`, from losses in `[0, 1]`.
//!
//! Each is valid for every sample size: if the mean loss is `epsilon` or more, a p-value of at most `u` has a probability of at most `u`.

use std::f64::consts::{E, TAU};

/// The Hoeffding-Bentkus p-value of `n` losses that add up to `sum`, 0 to 1.
///
/// It is the smaller of Hoeffding's bound, `exp(-n * h(min(sum / n, epsilon), epsilon))` with the relative entropy `h`, and Bentkus's,
/// `e * P(Binomial(n, epsilon) <= ceil(sum))`. The smaller one is valid too, because both are bounds on the same probability.
///
/// Source: Bates et al., arXiv:2101.02703, section 3.1; as a p-value in Angelopoulos et al., arXiv:2110.01052, proposition 1.
pub(super) fn hoeffding_bentkus(sum: f64, n: usize, epsilon: f64) -> f64 {
    let mean = (sum / n as f64).min(epsilon);
    let hoeffding = (-(n as f64) * relative_entropy(mean, epsilon)).exp();
    let bentkus = E * binomial_cdf(sum.ceil() as usize, n, epsilon);
    hoeffding.min(bentkus).min(1.0)
}

/// The betting p-value of Waudby-Smith and Ramdas, 0 to 1.
///
/// A gambler bets against a mean of `epsilon` or more: a loss `x` multiplies the capital, 1 at first, by `1 + bet * (epsilon - x)`. The
/// bet depends only on earlier losses, so under the hypothesis the capital is a non-negative supermartingale. By Ville's inequality it
/// ever reaches `c` with a probability of at most `1 / c`. The p-value is 1 / the highest capital.
///
/// The bets, at most 1, grow as the variance seen so far falls; they are tuned for a decision at `delta` and valid for any.
///
/// Source: Waudby-Smith and Ramdas, arXiv:2010.09686; the bets are those of Bates et al., arXiv:2101.02703, section 3.1.3.
pub(super) fn betting(losses: impl ExactSizeIterator<Item = f64>, epsilon: f64, delta: f64) -> f64 {
    let n = losses.len() as f64;
    // Sums over the losses so far and over their squared distances from the means, each with one imaginary loss for the start.
    let (mut sum, mut squares) = (0.5, 0.25);
    let (mut log_capital, mut highest) = (0.0_f64, 0.0_f64);
    for (seen, x) in losses.enumerate() {
        let variance = squares / (seen as f64 + 1.0);
        let bet = (2.0 * (1.0 / delta).ln() / (n * variance)).sqrt().min(1.0);
        log_capital += (bet * (epsilon - x)).ln_1p();
        highest = highest.max(log_capital);
        sum += x;
        squares += (x - sum / (seen as f64 + 2.0)).powi(2);
    }
    (-highest).exp()
}

/// `a * ln(a / b) + (1 - a) * ln((1 - a) / (1 - b))`, the relative entropy of two coins; infinite if only `b` is 0 or 1.
pub(super) fn relative_entropy(a: f64, b: f64) -> f64 {
    let part = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a * (a / b).ln() };
    (part(a, b) + part(1.0 - a, 1.0 - b)).max(0.0)
}

/// `P(Binomial(n, p) <= k)`, within 1e-10 of the exact value, relatively, for up to a million trials.
fn binomial_cdf(k: usize, n: usize, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    // The terms away from the mean shrink, so only the tail on `k`'s side of the mean is added up.
    let odds = p / (1.0 - p);
    if (k as f64) < n as f64 * p {
        tail(binomial_pmf(k, n, p), (0..k).rev().map(|j| (j + 1) as f64 / ((n - j) as f64 * odds)))
    } else {
        1.0 - tail(binomial_pmf(k + 1, n, p), (k + 2..=n).map(|j| (n - j + 1) as f64 / j as f64 * odds))
    }
}

/// `first`, plus terms that are each the one before times a ratio below 1, until they do not matter.
fn tail(first: f64, ratios: impl Iterator<Item = f64>) -> f64 {
    let (mut term, mut sum) = (first, first);
    for ratio in ratios {
        term *= ratio;
        sum += term;
        if term <= sum * 1e-17 {
            break;
        }
    }
    sum
}

/// `P(Binomial(n, p) = k)` for `k <= n`.
///
/// Stirling's formula turns `n! / (k! (n - k)!)` into powers that join `p`'s in the relative entropy, so large logarithms do not cancel.
/// Source: Loader, "Fast and Accurate Computation of Binomial Probabilities", 2000.
fn binomial_pmf(k: usize, n: usize, p: f64) -> f64 {
    let (successes, trials) = (k as f64, n as f64);
    let powers = -trials * relative_entropy(successes / trials, p);
    if k == 0 || k == n {
        return powers.exp();
    }
    let correction = stirling_error(n) - stirling_error(k) - stirling_error(n - k);
    (powers + correction).exp() * (trials / (TAU * successes * (trials - successes))).sqrt()
}

/// `ln(n!)` less Stirling's approximation, `n * ln(n) - n + ln(2 * pi * n) / 2`, for `n >= 1`.
fn stirling_error(n: usize) -> f64 {
    let x = n as f64;
    if n < 16 {
        let factorial: f64 = (1..=n).map(|i| i as f64).product();
        return factorial.ln() - (x * x.ln() - x + (TAU * x).ln() / 2.0);
    }
    let square = x * x;
    (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / (1680.0 * square)) / square) / square) / x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binomial_distribution_is_exact() {
        let cases = [
            // By hand.
            (0, 1, 0.25, 0.75),
            (1, 1, 0.25, 1.0),
            (1, 3, 0.5, 0.5),
            (2, 4, 0.5, 11.0 / 16.0),
            (0, 5, 0.0, 1.0),
            (4, 5, 1.0, 0.0),
            (5, 5, 1.0, 1.0),
            // By exact rational arithmetic (Python's fractions, p the fraction that is written).
            (2, 101, 0.056, 0.073_447_102_359_343_89),
            (5, 500, 0.02, 0.065_191_867_102_414_08),
            (17, 20, 0.3, 0.999_999_962_269_118_6),
            (50, 100, 0.5, 0.539_794_618_693_589_4),
            (3, 1000, 0.05, 1.358_062_398_215_758_1e-18),
            (999, 1000, 0.999, 0.632_304_575_229_035_9),
            (0, 367, 0.008, 0.052_454_612_196_514_934),
            (30, 40, 0.9, 0.005_063_053_657_834_395),
            (150, 10000, 0.02, 0.000_114_885_773_341_175_06),
        ];
        for (k, n, p, want) in cases {
            let got = binomial_cdf(k, n, p);
            assert!((got - want).abs() <= 1e-10 * want, "P(Binomial({n}, {p}) <= {k}) = {got:e}, expected {want:e}");
        }
        // Every point probability of a distribution adds up, on both sides of the series for Stirling's error.
        for n in [1, 2, 15, 16, 17, 40, 1000] {
            let sum: f64 = (0..=n).map(|k| binomial_pmf(k, n, 0.3)).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{n}: {sum}");
        }
    }

    #[test]
    fn known_p_values() {
        // No loss at all: Hoeffding's bound is (1 - epsilon)^n, which Bentkus's exceeds by e.
        assert!((hoeffding_bentkus(0.0, 101, 0.03) - 0.97_f64.powi(101)).abs() < 1e-14);
        // One loss of 1 in 2: Bentkus's bound is e * P(Binomial(2, 0.9) <= 1) = e * 0.19, Hoeffding's exp(-2 * h(0.5, 0.9)) = 0.36.
        assert!((hoeffding_bentkus(1.0, 2, 0.9) - 0.36).abs() < 1e-14);
        // Bentkus's bound is the smaller one: e * P(Binomial(500, 0.03) <= 5).
        let bentkus = E * binomial_cdf(5, 500, 0.03);
        assert_eq!(hoeffding_bentkus(5.0, 500, 0.03), bentkus);
        // A sum between whole numbers counts as the next one.
        assert_eq!(hoeffding_bentkus(4.95, 500, 0.03), bentkus);
        // At delta = 0.5 both bets are capped at 1: the capital is 1.5, then 1.5 * 1.25.
        let capital = betting([0.0, 0.25].into_iter(), 0.5, 0.5);
        assert!((capital - 1.0 / (1.5 * 1.25)).abs() < 1e-15, "{capital}");
        // The highest capital counts, not the last.
        assert!((betting([0.0, 1.0].into_iter(), 0.5, 0.5) - 1.0 / 1.5).abs() < 1e-15);
    }

    /// Every sample of `n` losses from `values`, of which the last has the probability `share` and the others share the rest.
    fn samples(values: &[f64], n: usize, share: f64) -> Vec<(f64, Vec<f64>)> {
        let other = (1.0 - share) / (values.len() - 1) as f64;
        let mut samples = vec![(1.0, vec![])];
        for _ in 0..n {
            let longer = samples.iter().flat_map(|(probability, sample)| {
                values.iter().enumerate().map(move |(i, &value)| {
                    let p = if i + 1 == values.len() { share } else { other };
                    (probability * p, [&sample[..], &[value]].concat())
                })
            });
            samples = longer.collect();
        }
        samples
    }

    /// Not sampled: every possible outcome with its probability, at the border of the hypothesis (the mean loss is `epsilon`).
    #[test]
    fn p_values_are_never_too_small() {
        let cases: [(&[f64], usize, f64); 12] = [
            (&[0.0, 1.0], 1, 0.0),  // epsilon = 0: no loss can reject it
            (&[0.0, 1.0], 1, 1.0),  // epsilon = 1, and every loss is 1
            (&[0.0, 1.0], 1, 0.04), // one unit
            (&[0.0, 1.0], 2, 0.5),
            (&[0.0, 1.0], 10, 0.02), // mostly without any loss
            (&[0.0, 1.0], 10, 0.3),
            (&[0.0, 1.0], 10, 0.97), // mostly 1
            (&[0.0, 0.5], 9, 0.7),   // losses that are not 0 or 1
            (&[0.0, 0.5, 1.0], 7, 0.1),
            (&[0.1, 0.1, 0.15], 7, 0.5), // a low variance: the largest bets
            (&[0.03, 0.0, 1.0], 7, 0.02),
            (&[1.0, 1.0], 3, 0.5), // always 1
        ];
        for (values, n, share) in cases {
            let samples = samples(values, n, share);
            let epsilon: f64 = samples.iter().map(|(p, sample)| p * sample[0]).sum::<f64>().min(1.0);
            for delta in [0.001, 0.05, 0.5] {
                type Test = fn(&[f64], f64, f64) -> f64;
                let tests: [(&str, Test); 2] = [
                    ("hb", |sample, epsilon, _| hoeffding_bentkus(sample.iter().sum(), sample.len(), epsilon)),
                    ("wsr", |sample, epsilon, delta| betting(sample.iter().copied(), epsilon, delta)),
                ];
                for (name, test) in tests {
                    let mut outcomes: Vec<_> =
                        samples.iter().map(|(p, sample)| (test(sample, epsilon, delta), p)).collect();
                    outcomes.sort_by(|a, b| a.0.total_cmp(&b.0));
                    let mut probability = 0.0;
                    for (p_value, p) in outcomes {
                        assert!((0.0..=1.0).contains(&p_value), "{name} {values:?} {n} {share}: {p_value}");
                        probability += p;
                        let text = format!("{name}, {n} of {values:?} ({share}), delta {delta}");
                        assert!(probability <= p_value + 1e-9, "{text}: P(p <= {p_value}) = {probability}");
                    }
                }
            }
        }
    }

    #[test]
    fn p_values_fall_as_epsilon_grows() {
        let losses = [0.0, 0.2, 0.0, 1.0, 0.05, 0.0, 0.0, 0.3];
        let grid = (0..=200).map(|i| i as f64 / 200.0);
        let hb: Vec<_> = grid.clone().map(|epsilon| hoeffding_bentkus(losses.iter().sum(), 8, epsilon)).collect();
        let wsr: Vec<_> = grid.map(|epsilon| betting(losses.into_iter(), epsilon, 0.05)).collect();
        for p_values in [hb, wsr] {
            assert!(p_values.is_sorted_by(|a, b| a >= b), "{p_values:?}");
            assert_eq!(p_values[0], 1.0);
        }
    }
}
