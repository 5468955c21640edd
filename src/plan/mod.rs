//! Compute-optimal training: which model size and how many crops give the lowest loss for a budget, predicted from small runs.
//!
//! [`fit`] is approach 3 of Hoffmann et al., "Training Compute-Optimal Large Language Models", arXiv:2203.15556:
//!
//! ```text
//! L(N, D) = E + A / N^alpha + B / D^beta      L: cross entropy on held-out photos, nats
//!                                             N: parameters     D: training crops     C: training FLOPs
//! ```
//!
//! It minimises the Huber loss of `ln L` by variable projection: for each pair on a grid of exponents, the best `E, A, B >= 0` follow from
//! linear least squares; the best pairs are then improved by Gauss-Newton until nothing changes. The original optimiser stopped early
//! (Besiroglu et al., arXiv:2404.10102). The threshold of the Huber loss is 1.345 standard deviations of the noise, at least 1e-3.
//!
//! **FLOPs.** `C / D`, the FLOPs of one crop, come from the runs themselves: `c(N) = k N^g`, least squares of logarithms. The optimum for a
//! budget `C` minimises `L` over `N` with `D = C / c(N)`.
//!
//! **Intervals** are the 10th and 90th percentiles over 200 bootstrap resamples of the runs: 80 % intervals.
//!
//! **Repeated photos.** Crops are augmented crops of photos. One epoch takes one crop of each of `U` photos, so `D` crops repeat the photos
//! `D / U - 1` times. A repeated crop is worth less than one of a new photo: `D` is replaced by
//! `D' = U + U R (1 - exp(-(D / U - 1) / R))` (Muennighoff et al., arXiv:2305.16264). `R` is fitted only if the runs of some budget differ
//! in `U`; otherwise the runs do not determine it, and `D` is used as it is.

mod law;
mod solve;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::Noise;
use law::{Cost, Law};
use solve::{Numbers, Points};

/// Bootstrap resamples.
const RESAMPLES: usize = 200;

/// The percentiles that bound an interval.
const BOUNDS: [f64; 2] = [0.1, 0.9];

/// Five numbers are fitted; fewer runs leave nothing to estimate the noise from.
const FEWEST_RUNS: usize = 8;

/// Budgets that differ by less are one budget: the number of crops is rounded to whole batches.
const SAME_BUDGET: f64 = 1.05;

/// The decay of repetitions is searched between these numbers of epochs.
const REPEATS: (f64, f64) = (0.3, 300.0);

/// One complete training run with its own learning-rate schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Parameters of the network.
    pub params: f64,
    /// Crops it was trained on, repeated ones included.
    pub crops: f64,
    /// Training FLOPs in total.
    pub flops: f64,
    /// Mean cross entropy on held-out photos, in nats.
    pub cross_entropy: f64,
    /// The number of different photos; `None` if none was repeated.
    pub unique: Option<f64>,
}

/// An estimate and the 10th and 90th percentiles of its bootstrap distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The estimate from all runs.
    pub value: f64,
    /// The 10th percentile.
    pub low: f64,
    /// The 90th percentile.
    pub high: f64,
}

/// The best model for a budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Optimum {
    /// The budget, training FLOPs.
    pub flops: f64,
    /// Parameters.
    pub params: Interval,
    /// Crops.
    pub crops: Interval,
    /// The expected cross entropy, in nats. The interval is that of the fitted law; a single run varies more.
    pub cross_entropy: Interval,
}

/// What [`fit`] found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// The loss that no model and no data remove, in nats.
    #[serde(rename = "E")]
    pub e: Interval,
    /// The factor of the term in `N`.
    #[serde(rename = "A")]
    pub a: Interval,
    /// The exponent of `N`.
    pub alpha: Interval,
    /// The factor of the term in `D`.
    #[serde(rename = "B")]
    pub b: Interval,
    /// The exponent of `D`.
    pub beta: Interval,
    /// `R`, the epochs after which a repetition is worth `1/e` of a new crop; `None` if the runs do not determine it.
    pub repeats: Option<Interval>,
    /// The number of different photos that [`optimum`](Self::optimum) assumes: the most in any run. `None` without
    /// [`repeats`](Self::repeats): no photo repeated.
    pub unique: Option<f64>,
    /// The best model for each budget of the runs and each budget that was asked for, smallest first.
    pub optimum: Vec<Optimum>,
    /// The exponent `a` of `N_opt ~ C^a` without repetitions.
    pub params_exponent: Interval,
    /// The FLOPs of one crop, `k N^g`: `k`.
    pub flops_per_crop_factor: f64,
    /// The FLOPs of one crop, `k N^g`: `g`.
    pub flops_per_crop_exponent: f64,
    /// The relative standard deviation of the runs' cross entropy around the law.
    pub deviation: f64,
    /// The number of runs.
    pub runs: usize,
    /// The share of resamples inside each interval.
    pub interval: f64,
}

/// Fits the law to runs. `budgets`, in FLOPs, are added to those of the runs. The same runs give the same result.
///
/// # Errors
/// [`Error::Input`] if a number is not positive. [`Error::Runs`] if the runs do not determine the law: fewer than eight runs, two budgets,
/// three sizes, three numbers of crops or six different pairs of them, or FLOPs that do not grow with the size.
///
/// ```
/// use rtformer::plan::{Run, fit};
///
/// let mut runs = Vec::new();
/// for flops in [1e13, 2e13, 4e13] {
///     for params in [3e5, 6e5, 1.2e6, 2.4e6] {
///         let crops = flops / (6e3 * params);
///         let cross_entropy = 0.2 + 50.0 / f64::powf(params, 0.5) + 20.0 / f64::powf(crops, 0.5);
///         runs.push(Run { params, crops, flops, cross_entropy, unique: None });
///     }
/// }
/// let law = fit(&runs, &[4e14])?;
/// assert!((law.e.value - 0.2).abs() < 1e-3);
/// assert_eq!(law.optimum.len(), 4); // three budgets in the runs, and 4e14
/// # Ok::<(), rtformer::Error>(())
/// ```
pub fn fit(runs: &[Run], budgets: &[f64]) -> Result<Fit> {
    fit_resampled(runs, budgets, RESAMPLES, 0)
}

/// [`fit`] with a number of resamples and a seed.
fn fit_resampled(runs: &[Run], budgets: &[f64], resamples: usize, seed: u64) -> Result<Fit> {
    check_numbers(runs, budgets)?;
    let found = budgets_of(runs);
    check_enough(runs, &found)?;
    let cost = Cost::of(runs)?;
    let mut all = [found.as_slice(), budgets].concat();
    all.sort_by(f64::total_cmp);
    all.dedup();

    let mut sweep = Sweep::new(runs);
    let weights = vec![1.0; runs.len()];
    let (mut numbers, mut repeats) = sweep.first(&weights);
    // The second pass estimates the noise from the first's residuals, which are those of a better fit.
    for _ in 0..2 {
        sweep.adapt(&numbers, repeats);
        (numbers, repeats) = sweep.improve(&weights, numbers, repeats);
    }

    let mut noise = Noise::new(seed);
    let unique = repeats.and_then(|_| runs.iter().filter_map(|run| run.unique).max_by(f64::total_cmp));
    let seen = |numbers: &Numbers, repeats| Seen::new(sweep.law(numbers, repeats), &cost, &all, unique);
    let best = seen(&numbers, repeats);
    let drawn: Vec<_> = (0..resamples)
        .map(|_| {
            let (numbers, repeats) = sweep.improve(&resample(&mut noise, runs.len()), numbers, repeats);
            seen(&numbers, repeats)
        })
        .collect();
    let over = |of: &dyn Fn(&Seen) -> f64| {
        let mut values: Vec<_> = drawn.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let [low, high] = BOUNDS.map(|bound| values[(bound * (values.len() - 1) as f64).round() as usize]);
        Interval { value: of(&best), low, high }
    };
    Ok(Fit {
        e: over(&|seen| seen.law.e),
        a: over(&|seen| seen.law.a),
        alpha: over(&|seen| seen.law.alpha),
        b: over(&|seen| seen.law.b),
        beta: over(&|seen| seen.law.beta),
        repeats: repeats.map(|_| over(&|seen| seen.law.repeats.unwrap_or(f64::NAN))),
        unique,
        optimum: (all.iter().enumerate())
            .map(|(i, &flops)| Optimum {
                flops,
                params: over(&|seen| seen.optima[i][0]),
                crops: over(&|seen| seen.optima[i][1]),
                cross_entropy: over(&|seen| seen.optima[i][2]),
            })
            .collect(),
        params_exponent: over(&|seen| seen.law.beta / (seen.law.alpha + cost.exponent * seen.law.beta)),
        flops_per_crop_factor: cost.factor,
        flops_per_crop_exponent: cost.exponent,
        deviation: sweep.points(repeats).deviation(&numbers),
        runs: runs.len(),
        interval: BOUNDS[1] - BOUNDS[0],
    })
}

/// A law and what follows from it.
struct Seen {
    law: Law,
    /// Parameters, crops and cross entropy of the best model for each budget.
    optima: Vec<[f64; 3]>,
}

impl Seen {
    fn new(law: Law, cost: &Cost, budgets: &[f64], unique: Option<f64>) -> Self {
        let optima = budgets.iter().map(|&flops| law.optimum(flops, cost, unique)).collect();
        Self { law, optima }
    }
}

/// The runs, and whether they determine the worth of repetitions.
struct Sweep<'a> {
    runs: &'a [Run],
    points: Points,
    repeated: bool,
}

impl<'a> Sweep<'a> {
    fn new(runs: &'a [Run]) -> Self {
        let points = Points::new(runs.iter().map(|run| [run.params, run.crops, run.cross_entropy]));
        let repeated = runs.iter().any(|run| {
            let peers = runs.iter().filter(|peer| (peer.flops / run.flops).ln().abs() < SAME_BUDGET.ln());
            let differ = peers.filter_map(|peer| peer.unique).any(|unique| run.unique.is_some_and(|own| own < unique));
            differ && run.unique.is_some_and(|own| own < run.crops)
        });
        Self { runs, points, repeated }
    }

    /// The runs with the crops that repetitions leave.
    fn points(&self, repeats: Option<f64>) -> Points {
        let crops = |run: &Run| law::effective_crops(run.crops, run.unique, repeats);
        if repeats.is_some() { self.points.with_crops(self.runs.iter().map(crops)) } else { self.points.clone() }
    }

    /// The threshold of the Huber loss for the noise around a fit.
    fn adapt(&mut self, numbers: &Numbers, repeats: Option<f64>) {
        let deviation = self.points(repeats).deviation(numbers);
        self.points.adapt(deviation);
    }

    /// The best fit from nothing. With repetitions, the best of a few values of `R`.
    fn first(&self, weights: &[f64]) -> (Numbers, Option<f64>) {
        if !self.repeated {
            return (self.points.solve(weights).1, None);
        }
        let fits = [1.0, 4.0, 16.0, 64.0].map(|repeats| (self.points(Some(repeats)).solve(weights), repeats));
        let best = fits.into_iter().min_by(|x, y| x.0.0.total_cmp(&y.0.0));
        best.map_or(([0.0; 5], None), |((_, numbers), repeats)| (numbers, Some(repeats)))
    }

    /// The best fit near another.
    fn improve(&self, weights: &[f64], from: Numbers, repeats: Option<f64>) -> (Numbers, Option<f64>) {
        if repeats.is_none() {
            return (self.points.descend(weights, from).1, None);
        }
        let loss = |log: f64| self.points(Some(log.exp())).descend(weights, from);
        let log = law::minimum(REPEATS.0.ln(), REPEATS.1.ln(), |log| loss(log).0);
        (loss(log).1, Some(log.exp()))
    }

    fn law(&self, &[e, a, b, alpha, beta]: &Numbers, repeats: Option<f64>) -> Law {
        let [params, crops] = self.points.centre;
        Law { e, a: a * (alpha * params).exp(), alpha, b: b * (beta * crops).exp(), beta, repeats }
    }
}

/// How often each of `count` runs is drawn when `count` runs are drawn at random.
fn resample(noise: &mut Noise, count: usize) -> Vec<f64> {
    let mut weights = vec![0.0; count];
    for _ in 0..count {
        let drawn = 0.5 * (f64::from(noise.uniform()) + 1.0) * count as f64;
        weights[(drawn as usize).min(count - 1)] += 1.0;
    }
    weights
}

/// The budgets of the runs, smallest first: runs whose FLOPs are nearly equal share one, their geometric mean.
fn budgets_of(runs: &[Run]) -> Vec<f64> {
    let mut flops: Vec<_> = runs.iter().map(|run| run.flops).collect();
    flops.sort_by(f64::total_cmp);
    let mut budgets = Vec::new();
    while let Some(&first) = flops.first() {
        let count = flops.iter().take_while(|&&flops| flops <= first * SAME_BUDGET).count();
        let equal = flops[count - 1] == first;
        let mean = flops[..count].iter().map(|flops| flops.ln()).sum::<f64>() / count as f64;
        budgets.push(if equal { first } else { mean.exp() });
        flops.drain(..count);
    }
    budgets
}

fn check_numbers(runs: &[Run], budgets: &[f64]) -> Result<()> {
    let fault = |what: String, got: f64| Err(Error::Input(format!("{what} is {got}, expected a positive number")));
    let bad = |number: f64| !(number > 0.0 && number.is_finite());
    for (index, run) in runs.iter().enumerate() {
        let unique = run.unique.unwrap_or(1.0);
        let named = [("params", run.params), ("crops", run.crops), ("flops", run.flops)];
        let more = [("cross_entropy", run.cross_entropy), ("unique", unique)];
        if let Some((name, number)) = named.into_iter().chain(more).find(|(_, number)| bad(*number)) {
            return fault(format!("run {}: `{name}`", index + 1), number);
        }
    }
    budgets.iter().find(|budget| bad(**budget)).map_or(Ok(()), |&budget| fault("the budget in FLOPs".into(), budget))
}

/// Refuses runs that do not determine the five numbers, and names everything that is missing.
fn check_enough(runs: &[Run], budgets: &[f64]) -> Result<()> {
    let distinct = |of: &dyn Fn(&Run) -> (u64, u64)| {
        let mut values: Vec<_> = runs.iter().map(of).collect();
        values.sort_unstable();
        values.dedup();
        values.len()
    };
    let pairs = distinct(&|run| (run.params.to_bits(), run.crops.to_bits()));
    let rows = [
        (runs.len(), FEWEST_RUNS, "runs"),
        (budgets.len(), 2, "budgets (`flops` that differ by more than 5 %)"),
        (distinct(&|run| (run.params.to_bits(), 0)), 3, "model sizes (`params`)"),
        (distinct(&|run| (run.crops.to_bits(), 0)), 3, "numbers of `crops`"),
        (pairs, 6, "different pairs of `params` and `crops` (other seeds of a pair count once)"),
    ];
    let missing: Vec<_> = (rows.iter().filter(|(found, needed, _)| found < needed))
        .map(|(found, needed, what)| format!("found {found} of at least {needed} {what}"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Runs(missing.join("; "))) }
}
