//! The fit on runs that follow a known law.

mod advice;

use super::law::Law;
use super::*;
use crate::error::Error;
use crate::model::Noise;

/// A law, the FLOPs of a crop per parameter, and four budgets.
struct Known {
    law: Law,
    per_param: f64,
    budgets: [f64; 4],
}

/// About the losses and sizes of a street segmenter.
const STREET: Known = Known {
    law: Law { e: 0.25, a: 40.0, alpha: 0.45, b: 60.0, beta: 0.55, repeats: None },
    per_param: 6e3,
    budgets: [1e13, 2e13, 4e13, 8e13],
};

impl Known {
    /// Five sizes around the optimum of each budget, with noise of a relative standard deviation.
    fn runs(&self, deviation: f64, seed: u64) -> Vec<Run> {
        let mut normal = normal(seed * 7919 + 1);
        let mut runs = Vec::new();
        for flops in self.budgets {
            for step in -2..=2 {
                let params = self.optimum(flops) * 6_f64.powf(0.5 * f64::from(step));
                let crops = flops / (self.per_param * params);
                let cross_entropy = self.loss(params, crops) * (deviation * normal()).exp();
                runs.push(Run { params, crops, flops, cross_entropy, unique: None });
            }
        }
        runs
    }

    fn loss(&self, params: f64, crops: f64) -> f64 {
        self.law.e + self.law.a / params.powf(self.law.alpha) + self.law.b / crops.powf(self.law.beta)
    }

    /// The best size for a budget, independent of the code under test.
    fn optimum(&self, flops: f64) -> f64 {
        let Law { a, alpha, b, beta, .. } = self.law;
        (alpha * a / (beta * b) * (flops / self.per_param).powf(beta)).powf(1.0 / (alpha + beta))
    }
}

/// Normal random numbers.
fn normal(seed: u64) -> impl FnMut() -> f64 {
    let mut noise = Noise::new(seed);
    let mut uniform = move || (0.5 * (f64::from(noise.uniform()) + 1.0) + 1e-8).min(1.0);
    move || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
}

fn near(got: f64, want: f64, tolerance: f64) -> bool {
    (got / want - 1.0).abs() < tolerance
}

#[test]
fn a_law_without_noise_is_recovered() {
    let chinchilla = Known {
        law: Law { e: 1.69, a: 406.4, alpha: 0.34, b: 410.7, beta: 0.28, repeats: None },
        per_param: 6.0,
        budgets: [1e18, 1e19, 1e20, 1e21],
    };
    for known in [STREET, chinchilla] {
        let fit = fit(&known.runs(0.0, 0), &[known.budgets[3] * 10.0]).unwrap();
        let Law { e, a, alpha, b, beta, .. } = known.law;
        for (got, want) in [(fit.e, e), (fit.a, a), (fit.alpha, alpha), (fit.b, b), (fit.beta, beta)] {
            assert!(near(got.value, want, 1e-3), "{got:?} {want}");
        }
        assert_eq!(fit.repeats, None);
        assert!(fit.deviation < 1e-5 && near(fit.flops_per_crop_exponent, 1.0, 1e-9), "{fit:?}");
        let flops: Vec<_> = fit.optimum.iter().map(|optimum| optimum.flops).collect();
        assert_eq!(flops, [&known.budgets[..], &[known.budgets[3] * 10.0]].concat());
        for Optimum { flops, params, crops, .. } in fit.optimum {
            assert!(near(params.value, known.optimum(flops), 1e-3), "{flops}: {params:?}");
            assert!(near(crops.value * params.value * known.per_param, flops, 1e-9), "{flops}");
        }
    }
}

/// 20 runs with 2 % noise: half of the predictions for ten times the largest budget are within 15 %, nine of ten within 30 %, and 80 %
/// intervals contain the truth in 72 to 88 % of the sets.
#[test]
fn predictions_and_intervals_are_as_good_as_stated() {
    let (sets, target) = (150, STREET.budgets[3] * 10.0);
    let truth = STREET.optimum(target);
    let Law { e, alpha, beta, .. } = STREET.law;
    let (mut errors, mut covered) = (Vec::new(), [0; 4]);
    for seed in 0..sets {
        let laws = Laws::resampled(&STREET.runs(0.02, seed), 100, seed).unwrap();
        let fit = laws.fit(&[target]).unwrap();
        let params = fit.optimum[4].params;
        errors.push((params.value / truth - 1.0).abs());
        let pairs = [(params, truth), (fit.e, e), (fit.alpha, alpha), (fit.beta, beta)];
        for (count, (interval, truth)) in covered.iter_mut().zip(pairs) {
            *count += u64::from(interval.low <= truth && truth <= interval.high);
        }
    }
    errors.sort_by(f64::total_cmp);
    let at = |share: f64| errors[(share * errors.len() as f64) as usize];
    println!("median error {:.3}, 90th percentile {:.3}, covered {covered:?} of {sets}", at(0.5), at(0.9));
    assert!(at(0.5) < 0.15 && at(0.9) < 0.30, "median {}, 90th percentile {}", at(0.5), at(0.9));
    for count in covered {
        assert!((0.72..=0.88).contains(&(count as f64 / sets as f64)), "{covered:?} of {sets}");
    }
}

/// One run that failed does not change the result much.
#[test]
fn an_outlier_is_outvoted() {
    let mut runs = STREET.runs(0.005, 3);
    runs[7].cross_entropy *= 3.0;
    let fit = fit(&runs, &[8e14]).unwrap();
    assert!(near(fit.optimum[4].params.value, STREET.optimum(8e14), 0.3), "{fit:?}");
}

#[test]
fn the_worth_of_repetitions_is_fitted_where_the_runs_determine_it() {
    let repeated = |runs: &mut [Run], unique: &[f64]| {
        for (i, run) in runs.iter_mut().enumerate() {
            run.unique = Some(unique[i % unique.len()]);
            let crops = law::effective_crops(run.crops, run.unique, Some(8.0));
            run.cross_entropy = STREET.loss(run.params, crops);
        }
    };
    let mut runs = [STREET.runs(0.0, 0), STREET.runs(0.0, 0)].concat();
    repeated(&mut runs, &[46.0, 92.0, 367.0]);
    let several = fit(&runs, &[]).unwrap();
    assert!(near(several.repeats.unwrap().value, 8.0, 0.05), "{several:?}");
    assert!(near(several.e.value, STREET.law.e, 0.05) && several.unique == Some(367.0), "{several:?}");
    repeated(&mut runs, &[367.0]); // one number of photos says nothing about repetitions
    assert_eq!(fit(&runs, &[]).unwrap().repeats, None);
}

#[test]
fn runs_that_do_not_determine_the_law_are_refused() {
    let all = STREET.runs(0.0, 0);
    let with = |change: &dyn Fn(usize, &mut Run)| {
        let mut runs = all.clone();
        runs.iter_mut().enumerate().for_each(|(i, run)| change(i, run));
        runs
    };
    let cases = [
        (Vec::new(), "found 0 of at least 8 runs"),
        (all[3..10].to_vec(), "found 7 of at least 8 runs"),
        (all[..5].to_vec(), "found 1 of at least 2 budgets"),
        (all[..5].repeat(4), "found 5 of at least 6 different pairs"), // seeds add no pairs
        (with(&|i, run| run.params = [1e6, 2e6][i % 2]), "found 2 of at least 3 model sizes"),
        (with(&|_, run| run.crops = 1e3), "found 1 of at least 3 numbers of `crops`"),
        (with(&|_, run| run.crops = 1e3 * run.params * run.flops), "are the columns mixed up?"),
        (with(&|_, run| run.cross_entropy = 1.0 + 9.0 / run.crops.sqrt()), "more `params` do not lower the loss"),
        (with(&|_, run| run.cross_entropy = 1.0 + 9.0 / run.params.sqrt()), "more `crops` do not lower the loss"),
        (
            with(&|_, run| run.cross_entropy = 0.5 * (run.flops / 1e13).powf(0.1)),
            "neither more `params` nor more `crops`",
        ),
    ];
    for (runs, want) in cases {
        let error = fit(&runs, &[]).unwrap_err();
        assert!(matches!(&error, Error::Runs(_)) && error.to_string().contains(want), "{want}: {error}");
    }
    let cases = [
        (
            with(&|i, run| {
                if i == 2 {
                    run.crops = -1.0;
                }
            }),
            1e14,
            "run 3: `crops` is -1, expected a positive number",
        ),
        (with(&|_, run| run.unique = Some(0.0)), 1e14, "run 1: `unique` is 0"),
        (with(&|_, run| run.cross_entropy = f64::NAN), 1e14, "run 1: `cross_entropy` is NaN"),
        (all.clone(), f64::INFINITY, "the budget in FLOPs is inf"),
    ];
    for (runs, budget, want) in cases {
        let error = fit(&runs, &[budget]).unwrap_err();
        assert!(matches!(&error, Error::Input(_)) && error.to_string().contains(want), "{want}: {error}");
    }
}

/// Whole batches make the FLOPs of runs with one budget differ slightly.
#[test]
fn nearly_equal_flops_are_one_budget() {
    let runs = [1e13, 1.01e13, 0.99e13, 2e13, 2e13].map(|flops| Run {
        params: 1e6,
        crops: 1e3,
        flops,
        cross_entropy: 1.0,
        unique: None,
    });
    let budgets = runs::budgets_of(&runs);
    assert!(budgets.len() == 2 && near(budgets[0], 1e13, 1e-3) && budgets[1] == 2e13, "{budgets:?}");
}

/// Sizes that occur at every budget, in steps of a factor of two; `seeds` runs of each.
fn grid(deviation: f64, seeds: usize, seed: u64) -> Vec<Run> {
    let mut normal = normal(seed * 31 + 5);
    let mut runs = Vec::new();
    for flops in [1e13, 2e13, 4e13, 8e13] {
        for (step, _) in (0..6).flat_map(|step| (0..seeds).map(move |seed| (step, seed))) {
            let params = 4e4 * 2_f64.powi(step);
            let crops = flops / (STREET.per_param * params);
            let cross_entropy = STREET.loss(params, crops) * (deviation * normal()).exp();
            runs.push(Run { params, crops, flops, cross_entropy, unique: None });
        }
    }
    runs
}

/// Both read the exponent of the optimum off the runs, without the law. A parabola is an approximation; an envelope has the steps of the sizes.
#[test]
fn approaches_1_and_2_agree_with_the_law() {
    let truth = STREET.law.beta / (STREET.law.alpha + STREET.law.beta);
    let runs = grid(0.0, 1, 0);
    let (parabolas, envelope) = (isoflop(&runs, 0.0).unwrap(), envelope(&runs, 0.0).unwrap());
    assert_eq!((parabolas.optimum.len(), parabolas.missing.len(), envelope.best.len()), (4, 0, 4));
    assert!(near(parabolas.params_exponent.unwrap().value, truth, 0.1), "{parabolas:?}");
    assert!(near(envelope.params_exponent.value, truth, 0.2), "{envelope:?}");
    for (parabola, [flops, params, loss]) in parabolas.optimum.iter().zip(envelope.best) {
        let want = STREET.optimum(flops);
        let best = STREET.loss(want, flops / (STREET.per_param * want));
        assert!(
            near(parabola.params.value, want, 0.15) && near(parabola.cross_entropy.value, best, 0.02),
            "{parabola:?}"
        );
        assert!((params / want).ln().abs() < 2_f64.ln() && near(loss, best, 0.02), "{flops}: {params}, {want}");
    }
    // Runs on fewer photos measure something else.
    let mut fewer = grid(0.0, 1, 0);
    fewer.iter_mut().for_each(|run| (run.unique, run.cross_entropy) = (Some(46.0), 2.0 * run.cross_entropy));
    let mut both = grid(0.0, 1, 0);
    both.iter_mut().for_each(|run| run.unique = Some(367.0));
    assert_eq!(isoflop(&[both.clone(), fewer].concat(), 0.0).unwrap(), parabolas);
    // Every crop is of a photo of its own: nothing is repeated, though the numbers of photos differ.
    both.iter_mut().for_each(|run| run.unique = Some(run.crops));
    assert_eq!(isoflop(&both, 0.0).unwrap(), parabolas);
}

#[test]
fn intervals_of_approaches_1_and_2_contain_what_they_estimate() {
    let sets = 100;
    let want = [
        isoflop(&grid(0.0, 1, 0), 0.0).unwrap().params_exponent.unwrap().value,
        envelope(&grid(0.0, 1, 0), 0.0).unwrap().params_exponent.value,
    ];
    let mut covered = [0; 2];
    for seed in 0..sets {
        let runs = grid(0.01, 2, seed);
        let found =
            [isoflop(&runs, 0.01).unwrap().params_exponent.unwrap(), envelope(&runs, 0.01).unwrap().params_exponent];
        for (count, (interval, want)) in covered.iter_mut().zip(found.into_iter().zip(want)) {
            *count += u64::from(interval.low <= want && want <= interval.high);
        }
    }
    println!("covered {covered:?} of {sets}");
    assert!(
        covered.iter().all(|count| (0.65..=0.95).contains(&(*count as f64 / sets as f64))),
        "{covered:?} of {sets}"
    );
}

#[test]
fn approaches_1_and_2_say_what_is_missing() {
    let all = grid(0.0, 1, 0);
    let some = |keep: &dyn Fn(&Run) -> bool| all.iter().filter(|run| keep(run)).copied().collect::<Vec<_>>();
    let two = isoflop(&some(&|run| run.flops > 1e13 || run.params < 1e5), 0.01).unwrap();
    assert!(two.optimum.len() == 3 && two.missing == ["1.00e13 FLOPs: found 2 of at least 3 model sizes"], "{two:?}");
    // Two budgets are close together and the others far away, where no size has two.
    let row = |flops: f64, sizes: [f64; 3]| {
        sizes.map(|params| Run { params, crops: flops / (6e3 * params), flops, cross_entropy: 1.0, unique: None })
    };
    let sizes = [2e5, 4e5, 8e5];
    let apart =
        [row(1e12, [1.1e5, 2.1e5, 4.1e5]), row(2.03e13, sizes), row(2.14e13, sizes), row(1e15, [1.5e6, 3.1e6, 6.2e6])]
            .concat();
    let one = isoflop(&some(&|run| run.flops == 2e13), 0.01).unwrap();
    assert!(one.optimum.len() == 1 && one.params_exponent.is_none(), "{one:?}");
    let cases = [
        (
            isoflop(&some(&|run| run.params < 1e5), 0.01).map(|_| ()),
            "1.00e13 FLOPs: found 2 of at least 3 model sizes; 2.00e13",
        ),
        (isoflop(&some(&|run| run.params > 3e5), 0.01).map(|_| ()), "add one below 3.200e5 parameters"),
        (
            isoflop(&some(&|run| run.params < 2e5 && run.flops > 7e13), 0.01).map(|_| ()),
            "add one above 1.600e5 parameters",
        ),
        (envelope(&some(&|run| run.flops == 2e13), 0.01).map(|_| ()), "found 1 of at least 2 budgets"),
        (envelope(&STREET.runs(0.0, 0), 0.01).map(|_| ()), "found 0 of at least 2 sizes with runs at several budgets"),
        (envelope(&some(&|run| run.params > 6e5), 0.01).map(|_| ()), "6.400e5 parameters are best at every budget"),
        (envelope(&apart, 0.01).map(|_| ()), "found no two sizes with runs around one budget"),
    ];
    for (result, want) in cases {
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::Runs(_)) && error.to_string().contains(want), "{want}: {error}");
    }
}
