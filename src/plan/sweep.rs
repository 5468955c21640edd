//! The law of a set of runs, with or without the worth of repetitions.

use super::Run;
use super::law::{self, Law};
use super::runs::SAME_BUDGET;
use super::solve::{Numbers, Points};
use crate::model::Noise;

/// The decay of repetitions is searched between these numbers of epochs.
const REPEATS: (f64, f64) = (0.3, 300.0);

/// The runs, and whether they determine the worth of repetitions.
pub(super) struct Sweep<'a> {
    runs: &'a [Run],
    points: Points,
    repeated: bool,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(runs: &'a [Run]) -> Self {
        let points = Points::new(runs.iter().map(|run| [run.params, run.crops, run.cross_entropy]));
        let repeated = runs.iter().any(|run| {
            let peers = runs.iter().filter(|peer| (peer.flops / run.flops).ln().abs() < SAME_BUDGET.ln());
            let differ = peers.filter_map(|peer| peer.unique).any(|unique| run.unique.is_some_and(|own| own < unique));
            differ && run.unique.is_some_and(|own| own < run.crops)
        });
        Self { runs, points, repeated }
    }

    /// The runs with the crops that repetitions leave.
    pub(super) fn points(&self, repeats: Option<f64>) -> Points {
        let crops = |run: &Run| law::effective_crops(run.crops, run.unique, repeats);
        if repeats.is_some() { self.points.with_crops(self.runs.iter().map(crops)) } else { self.points.clone() }
    }

    /// The threshold of the Huber loss for the noise around a fit.
    pub(super) fn adapt(&mut self, numbers: &Numbers, repeats: Option<f64>) {
        let deviation = self.points(repeats).deviation(numbers);
        self.points.adapt(deviation);
    }

    /// The best fit from nothing. With repetitions, the best of a few values of `R`.
    pub(super) fn first(&self, weights: &[f64]) -> (Numbers, Option<f64>) {
        if !self.repeated {
            return (self.points.solve(weights).1, None);
        }
        let fits = [1.0, 4.0, 16.0, 64.0].map(|repeats| (self.points(Some(repeats)).solve(weights), repeats));
        let best = fits.into_iter().min_by(|x, y| x.0.0.total_cmp(&y.0.0));
        best.map_or(([0.0; 5], None), |((_, numbers), repeats)| (numbers, Some(repeats)))
    }

    /// The best fit near another.
    pub(super) fn improve(&self, weights: &[f64], from: Numbers, repeats: Option<f64>) -> (Numbers, Option<f64>) {
        if repeats.is_none() {
            return (self.points.descend(weights, from).1, None);
        }
        let loss = |log: f64| self.points(Some(log.exp())).descend(weights, from);
        let log = law::minimum(REPEATS.0.ln(), REPEATS.1.ln(), |log| loss(log).0);
        (loss(log).1, Some(log.exp()))
    }

    pub(super) fn law(&self, &[e, a, b, alpha, beta]: &Numbers, repeats: Option<f64>) -> Law {
        let [params, crops] = self.points.centre;
        Law { e, a: a * (alpha * params).exp(), alpha, b: b * (beta * crops).exp(), beta, repeats }
    }
}

/// How often each of `count` runs is drawn when `count` runs are drawn at random.
pub(super) fn resample(noise: &mut Noise, count: usize) -> Vec<f64> {
    let mut weights = vec![0.0; count];
    for _ in 0..count {
        let drawn = 0.5 * (f64::from(noise.uniform()) + 1.0) * count as f64;
        weights[(drawn as usize).min(count - 1)] += 1.0;
    }
    weights
}
