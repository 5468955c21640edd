//! Plans: which way to run a network gives the best quality in the time there is, and which network to train in a budget.
//!
//! # Inference
//!
//! [`front`] finds the Pareto-optimal [`Point`]s of time against quality, [`choose`] the one that meets a [`Goal`]. Times come from
//! [`bench::frames`](crate::bench::frames), qualities from [`Evaluation`](crate::eval::Evaluation). [`largest_within`] finds the widest network that is fast
//! enough.
//!
//! # Training
//!
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
//! **Approaches 1 and 2** are [`envelope`] and [`isoflop`]. They check the fit, which they do not share anything with, and cannot
//! extrapolate the loss. Their intervals come from 200 repetitions with normal noise of the runs' deviation around the law.
//!
//! **Advice.** [`Laws::advise`] chooses the best of the networks that exist, multiples of four in width, for FLOPs or for hours.
//!
//! **Repeated photos.** Crops are augmented crops of photos. One epoch takes one crop of each of `U` photos, so `D` crops repeat the photos
//! `D / U - 1` times. A repeated crop is worth less than one of a new photo: `D` is replaced by
//! `D' = U + U R (1 - exp(-(D / U - 1) / R))` (Muennighoff et al., arXiv:2305.16264). `R` is fitted only if the runs of some budget differ
//! in `U`; otherwise the runs do not determine it, and `D` is used as it is.

mod front;
mod law;
mod laws;
mod profiles;
mod runs;
mod solve;
mod sweep;
#[cfg(test)]
mod tests;
mod widths;

use serde::Serialize;

use crate::error::Result;
pub use front::{Goal, Point, choose, front, is_flat, largest_within, saving};
pub use laws::Laws;
pub use profiles::{Envelope, IsoFlop, Parabola, envelope, isoflop};
pub use widths::{Advice, Widths};

/// Bootstrap resamples.
const RESAMPLES: usize = 200;

/// The percentiles that bound an interval.
const BOUNDS: [f64; 2] = [0.1, 0.9];

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

impl Run {
    /// The runs that share a law without repetitions: those with the most different photos and those that repeat none, and not those that
    /// measure the worth of repetitions.
    pub fn with_all_photos(runs: &[Self]) -> Vec<Self> {
        let most = runs.iter().filter_map(|run| run.unique).max_by(f64::total_cmp);
        let new = |run: &Self| run.unique.is_none_or(|unique| unique >= run.crops);
        runs.iter().filter(|run| run.unique == most || new(run)).copied().collect()
    }
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

impl Interval {
    /// An estimate and its percentiles among other estimates. Resamples that determine nothing are left out.
    fn of(value: f64, mut drawn: Vec<f64>) -> Self {
        drawn.retain(|drawn| drawn.is_finite());
        drawn.sort_by(f64::total_cmp);
        let at = |bound: f64| drawn.get((bound * (drawn.len().max(1) - 1) as f64).round() as usize).copied();
        let [low, high] = BOUNDS.map(|bound| at(bound).unwrap_or(value));
        Self { value, low, high }
    }
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
/// [`Error::Input`](crate::Error::Input) if a number is not positive. [`Error::Runs`](crate::Error::Runs) if the runs do not determine the
/// law: fewer than eight runs, two budgets, three sizes, three numbers of crops or six different pairs of them, FLOPs that do not grow
/// with the size, or a loss that does not fall with the size or with the crops.
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
    Laws::new(runs)?.fit(budgets)
}
