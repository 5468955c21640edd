//! The fitted law, its bootstrap resamples, and what follows from them.

use super::law::{Cost, Law};
use super::runs::{budgets_of, check_budgets, check_enough, check_numbers, check_terms};
use super::sweep::{Sweep, resample};
use super::widths::{Advice, Widths};
use super::{BOUNDS, Fit, Interval, Optimum, RESAMPLES, Run};
use crate::error::Result;
use crate::model::Noise;

/// The law of a set of runs, and those of resamples of it.
///
/// [`fit`](super::fit) gives its numbers; this type also predicts the loss of any network.
#[derive(Clone, Debug)]
pub struct Laws {
    best: Law,
    drawn: Vec<Law>,
    cost: Cost,
    budgets: Vec<f64>,
    /// The most different photos of any run, if the worth of repetitions is known.
    unique: Option<f64>,
    deviation: f64,
    runs: usize,
}

impl Laws {
    /// Fits the law to runs. The same runs give the same result.
    ///
    /// # Errors
    /// As [`fit`](super::fit).
    pub fn new(runs: &[Run]) -> Result<Self> {
        Self::resampled(runs, RESAMPLES, 0)
    }

    /// [`new`](Self::new) with a number of resamples and a seed.
    pub(super) fn resampled(runs: &[Run], resamples: usize, seed: u64) -> Result<Self> {
        check_numbers(runs)?;
        let budgets = budgets_of(runs);
        check_enough(runs, &budgets)?;
        let cost = Cost::of(runs)?;
        let mut sweep = Sweep::new(runs);
        let weights = vec![1.0; runs.len()];
        let (mut numbers, mut repeats) = sweep.first(&weights);
        // The second pass estimates the noise from the first's residuals, which are those of a better fit.
        for _ in 0..2 {
            sweep.adapt(&numbers, repeats);
            (numbers, repeats) = sweep.improve(&weights, numbers, repeats);
        }
        let best = sweep.law(&numbers, repeats);
        check_terms(&best)?;
        let mut noise = Noise::new(seed);
        let drawn = (0..resamples)
            .map(|_| {
                let (numbers, repeats) = sweep.improve(&resample(&mut noise, runs.len()), numbers, repeats);
                sweep.law(&numbers, repeats)
            })
            .collect();
        Ok(Self {
            best,
            drawn,
            cost,
            budgets,
            unique: repeats.and_then(|_| runs.iter().filter_map(|run| run.unique).max_by(f64::total_cmp)),
            deviation: sweep.points(repeats).deviation(&numbers),
            runs: runs.len(),
        })
    }

    /// The numbers of the law, and the best model for each budget of the runs and for each of `budgets`, in FLOPs.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) if a budget is not positive.
    pub fn fit(&self, budgets: &[f64]) -> Result<Fit> {
        check_budgets(budgets)?;
        let mut all = [self.budgets.as_slice(), budgets].concat();
        all.sort_by(f64::total_cmp);
        all.dedup();
        let optimum = |&flops: &f64| {
            let at = |law: &Law| law.optimum(flops, &self.cost, self.unique);
            let (best, drawn): (_, Vec<_>) = (at(&self.best), self.drawn.iter().map(at).collect());
            let [params, crops, cross_entropy] =
                [0, 1, 2].map(|i| Interval::of(best[i], drawn.iter().map(|optimum| optimum[i]).collect()));
            Optimum { flops, params, crops, cross_entropy }
        };
        Ok(Fit {
            e: self.over(|law| law.e),
            a: self.over(|law| law.a),
            alpha: self.over(|law| law.alpha),
            b: self.over(|law| law.b),
            beta: self.over(|law| law.beta),
            repeats: self.best.repeats.map(|_| self.over(|law| law.repeats.unwrap_or(f64::NAN))),
            unique: self.unique,
            optimum: all.iter().map(optimum).collect(),
            params_exponent: self.over(|law| law.beta / (law.alpha + self.cost.exponent * law.beta)),
            flops_per_crop_factor: self.cost.factor,
            flops_per_crop_exponent: self.cost.exponent,
            deviation: self.deviation,
            runs: self.runs,
            interval: BOUNDS[1] - BOUNDS[0],
        })
    }

    /// The budgets of the runs in FLOPs, smallest first.
    pub fn budgets(&self) -> &[f64] {
        &self.budgets
    }

    /// The relative standard deviation of the runs' cross entropy around the law.
    pub fn deviation(&self) -> f64 {
        self.deviation
    }

    /// Whether the runs determine what a repeated photo is worth. If not, the numbers of photos given to the other functions change nothing.
    pub fn knows_repetitions(&self) -> bool {
        self.best.repeats.is_some()
    }

    /// The most different photos in any run, if the runs determine what a repeated photo is worth.
    pub fn photos(&self) -> Option<f64> {
        self.unique
    }

    /// The FLOPs of one crop, forward and backward, for a network of `params` parameters, by the power law `k N^g`.
    pub fn flops_per_crop(&self, params: f64) -> f64 {
        self.cost.per_crop(params)
    }

    /// The expected cross entropy, in nats, of a network with `params` parameters after `crops` crops of `photos` different photos.
    pub fn cross_entropy(&self, params: f64, crops: f64, photos: Option<f64>) -> Interval {
        self.over(|law| law.loss(params, crops, photos))
    }

    /// The best width if a network of width `w` can be trained on `crops(w)` crops of `photos` different photos.
    ///
    /// Without `photos`, they are the most in any run. The intervals of width, parameters and crops are those of the best network; that of
    /// the cross entropy belongs to the recommended network.
    pub fn advise(&self, widths: &Widths, crops: impl Fn(u32) -> f64, photos: Option<f64>) -> Advice {
        let photos = photos.or(self.unique);
        let choices: Vec<_> = widths.choices().map(|width| (width, widths.params(width), crops(width))).collect();
        let best = |law: &Law| {
            let mut best = (f64::INFINITY, choices[0]);
            for &(width, params, crops) in choices.iter().filter(|(_, _, crops)| *crops >= 1.0) {
                let loss = law.loss(params, crops, photos);
                if loss < best.0 {
                    best = (loss, (width, params, crops));
                }
            }
            best.1
        };
        let (chosen, drawn) = (best(&self.best), self.drawn.iter().map(best).collect::<Vec<_>>());
        let over = |of: &dyn Fn(&(u32, f64, f64)) -> f64| Interval::of(of(&chosen), drawn.iter().map(of).collect());
        let (width, params, crops) = chosen;
        Advice {
            flops: crops * widths.flops_per_crop(width),
            width: over(&|choice| f64::from(choice.0)),
            params: over(&|choice| choice.1),
            crops: over(&|choice| choice.2),
            cross_entropy: self.cross_entropy(params, crops, photos),
        }
    }

    fn over(&self, of: impl Fn(&Law) -> f64) -> Interval {
        Interval::of(of(&self.best), self.drawn.iter().map(of).collect())
    }
}
