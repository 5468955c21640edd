//! The law, the FLOPs of a crop, and the best model for a budget.

use super::Run;
use crate::error::{Error, Result};

/// How far from the sizes of the runs the best size is searched: a factor of `exp(12)`, 160 000.
const REACH: f64 = 12.0;

/// `L(N, D) = E + A / N^alpha + B / D^beta`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Law {
    pub(super) e: f64,
    pub(super) a: f64,
    pub(super) alpha: f64,
    pub(super) b: f64,
    pub(super) beta: f64,
    /// Epochs after which a repetition is worth `1/e` of a new crop.
    pub(super) repeats: Option<f64>,
}

impl Law {
    /// The expected cross entropy, in nats.
    pub(super) fn loss(&self, params: f64, crops: f64, unique: Option<f64>) -> f64 {
        let crops = effective_crops(crops, unique, self.repeats);
        self.e + self.a * params.powf(-self.alpha) + self.b * crops.powf(-self.beta)
    }

    /// Parameters, crops and cross entropy of the best model for a budget.
    pub(super) fn optimum(&self, flops: f64, cost: &Cost, unique: Option<f64>) -> [f64; 3] {
        let crops = |params: f64| flops / cost.per_crop(params);
        let (low, high) = (cost.sizes[0].ln() - REACH, cost.sizes[1].ln() + REACH);
        let log = if unique.is_some() {
            minimum(low, high, |log| self.loss(log.exp(), crops(log.exp()), unique))
        } else {
            // dL/dN = 0 with D = C / (k N^g).
            let balance = (self.alpha * self.a).ln() - (cost.exponent * self.beta * self.b).ln();
            let budget = self.beta * (flops / cost.factor).ln();
            ((balance + budget) / (self.alpha + cost.exponent * self.beta)).clamp(low, high)
        };
        let params = log.exp();
        [params, crops(params), self.loss(params, crops(params), unique)]
    }
}

/// The new crops that are worth as much as `crops` of `unique` photos (Muennighoff et al., arXiv:2305.16264, equation 5).
pub(super) fn effective_crops(crops: f64, unique: Option<f64>, repeats: Option<f64>) -> f64 {
    match (unique, repeats) {
        (Some(unique), Some(repeats)) if crops > unique => {
            unique * (1.0 - repeats * (-(crops / unique - 1.0) / repeats).exp_m1())
        }
        _ => crops,
    }
}

/// The FLOPs of one crop for a model of `N` parameters: `factor * N^exponent`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) factor: f64,
    pub(super) exponent: f64,
    /// The smallest and the largest size of the runs.
    sizes: [f64; 2],
}

impl Cost {
    /// Least squares of `ln (C / D)` against `ln N`.
    pub(super) fn of(runs: &[Run]) -> Result<Self> {
        let rows: Vec<_> = runs.iter().map(|run| (run.params.ln(), (run.flops / run.crops).ln())).collect();
        let count = rows.len() as f64;
        let (x, y) = rows.iter().fold((0.0, 0.0), |sum, row| (sum.0 + row.0 / count, sum.1 + row.1 / count));
        let both: f64 = rows.iter().map(|row| (row.0 - x) * (row.1 - y)).sum();
        let exponent = both / rows.iter().map(|row| (row.0 - x).powi(2)).sum::<f64>();
        if exponent.is_nan() || exponent < 0.05 {
            return Err(Error::Runs(format!(
                "`flops` / `crops` grows as `params`^{exponent:.2}, expected an exponent of about 1; are the columns mixed up?"
            )));
        }
        let sizes = [f64::min, f64::max].map(|of| runs.iter().map(|run| run.params).reduce(of).unwrap_or(1.0));
        Ok(Self { factor: (y - exponent * x).exp(), exponent, sizes })
    }

    /// FLOPs of one crop, forward and backward.
    pub(super) fn per_crop(&self, params: f64) -> f64 {
        self.factor * params.powf(self.exponent)
    }
}

/// Where a function with one minimum between `low` and `high` is smallest, to 1e-4 of the range or better: golden section search.
pub(super) fn minimum(mut low: f64, mut high: f64, of: impl Fn(f64) -> f64) -> f64 {
    let part = 0.5 * (5_f64.sqrt() - 1.0);
    let (mut left, mut right) = (high - part * (high - low), low + part * (high - low));
    let (mut at_left, mut at_right) = (of(left), of(right));
    for _ in 0..22 {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - part * (high - low);
            at_left = of(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + part * (high - low);
            at_right = of(right);
        }
    }
    0.5 * (low + high)
}
