//! Widths, and what to train for a budget.

use super::*;

/// Width, parameters and FLOPs of a crop of 256x192 with 11 classes, as `weights/train/sweep.py` counts them.
const NETWORKS: [(u32, f64, f64); 6] = [
    (8, 341_134.0, 391_790_592.0),
    (12, 764_026.0, 835_909_632.0),
    (16, 1_355_142.0, 1_445_511_168.0),
    (24, 3_042_046.0, 3_161_161_728.0),
    (32, 5_401_846.0, 5_538_742_272.0),
    (48, 12_140_134.0, 12_279_693_312.0),
];

/// Runs of these networks that follow a law.
fn networks(law: Law, unique: Option<f64>) -> Vec<(u32, Run)> {
    let mut runs = Vec::new();
    for flops in [1e13, 2e13, 4e13, 8e13] {
        for (width, params, per_crop) in NETWORKS {
            let crops = (flops / per_crop).round();
            let cross_entropy = law.loss(params, crops, unique);
            runs.push((width, Run { params, crops, flops: crops * per_crop, cross_entropy, unique }));
        }
    }
    runs
}

#[test]
fn three_widths_determine_all_others() {
    let all = networks(STREET.law, None);
    let three: Vec<_> = all.iter().filter(|(width, _)| [8, 16, 32].contains(width)).copied().collect();
    let widths = Widths::of(&three).unwrap();
    assert_eq!(widths.range, (8, 32));
    for (width, params, flops) in NETWORKS {
        let (got, per_crop) = (widths.params(width), widths.flops_per_crop(width));
        assert!(near(got, params, 1e-9) && near(per_crop, flops, 1e-4), "{width}: {got}, {per_crop}");
    }
    assert!(widths.choices().all(|width| width % 4 == 0) && widths.choices().last() == Some(256));

    let mut mixed = all.clone();
    mixed[9].1.flops *= 2.25; // crops of 384x288
    let mut wrong = all[..6].to_vec();
    wrong[1].1.params *= 2.0;
    let run = |params: f64| Run { params, crops: 100.0, flops: 1e13, cross_entropy: 1.0, unique: None };
    let shrinking = [(1, run(1e5)), (2, run(3e5)), (3, run(1.2e5))];
    let cases = [
        (mixed, "a run of width 24 has 7.1126e9 FLOPs per crop, another run of this width 3.1612e9"),
        (wrong, "a run of width 12 has 1.5281e6 parameters, the other widths suggest 7.6403e5"),
        (all[..2].to_vec(), "found 2 of at least 3 widths"),
        (shrinking.to_vec(), "do not grow with the width"),
    ];
    for (runs, want) in cases {
        let error = Widths::of(&runs).unwrap_err();
        assert!(matches!(&error, Error::Runs(_)) && error.to_string().contains(want), "{want}: {error}");
    }
}

#[test]
fn advice_is_the_best_of_the_networks_that_exist() {
    let law = Law { e: 0.25, a: 3e3, alpha: 0.7, b: 40.0, beta: 0.5, repeats: None };
    let runs = networks(law, None);
    let (widths, laws) =
        (Widths::of(&runs).unwrap(), Laws::new(&runs.iter().map(|(_, run)| *run).collect::<Vec<_>>()).unwrap());
    let advice = |flops: f64| laws.advise(&widths, |width| flops / widths.flops_per_crop(width), None);
    let mut last = 0.0;
    for flops in [2e13, 1.6e14, 1e15] {
        let found = advice(flops);
        let loss = |width: u32| law.loss(widths.params(width), flops / widths.flops_per_crop(width), None);
        let best = (1..64).map(|width| 4 * width).min_by(|x, y| loss(*x).total_cmp(&loss(*y))).unwrap();
        assert!((found.width.value - f64::from(best)).abs() <= 4.0, "{flops:e}: {found:?}, expected {best}");
        assert!(near(found.cross_entropy.value, loss(best), 0.01) && near(found.flops, flops, 1e-6), "{found:?}");
        assert!(found.width.low <= found.width.value && found.width.value <= found.width.high);
        assert!(found.width.value >= last, "larger budgets need larger networks");
        last = found.width.value;
    }
    // A machine that is slow on narrow networks makes wide ones worth more.
    let hours = |rate: fn(u32) -> f64| {
        laws.advise(&widths, |width| 7200.0 * rate(width) / widths.flops_per_crop(width), None).width.value
    };
    assert!(hours(|width| 1e9 * f64::from(width)) > hours(|_| 1e10), "{}", hours(|_| 1e10));
}

/// If repeated photos are worth less, few photos need a smaller network that is trained less; and the FLOPs are spent on it all the same.
#[test]
fn fewer_photos_give_a_higher_loss_once_their_worth_is_known() {
    let law = Law { e: 0.25, a: 3e3, alpha: 0.7, b: 40.0, beta: 0.5, repeats: Some(8.0) };
    let runs: Vec<_> = [46.0, 184.0, 367.0].into_iter().flat_map(|unique| networks(law, Some(unique))).collect();
    let widths = Widths::of(&runs).unwrap();
    let laws = Laws::new(&runs.iter().map(|(_, run)| *run).collect::<Vec<_>>()).unwrap();
    assert!(laws.knows_repetitions() && laws.photos() == Some(367.0));
    let advice = |photos| laws.advise(&widths, |width| 1e14 / widths.flops_per_crop(width), photos);
    let [few, all, many] = [Some(92.0), None, Some(1e9)].map(|photos| advice(photos).cross_entropy.value);
    assert!(few > all * 1.01 && all > many * 1.01, "{few} {all} {many}");
    let unknown: Vec<_> = networks(law, Some(367.0)).iter().map(|(_, run)| *run).collect();
    assert!(!Laws::new(&unknown).unwrap().knows_repetitions());
}

/// The design of `weights/train/sweep.py` with 2 % noise: how well it predicts a run at twice its largest budget, and chooses its width.
#[test]
fn the_study_predicts_twice_its_largest_budget() {
    let law = Law { e: 0.3, a: 3e3, alpha: 0.7, b: 40.0, beta: 0.5, repeats: Some(40.0) };
    let design = [
        (1e13, 3, [8, 12, 16, 24]),
        (2e13, 3, [8, 12, 16, 24]),
        (4e13, 1, [12, 16, 24, 32]),
        (8e13, 1, [12, 16, 24, 32]),
    ];
    let (sets, budget) = (20, 1.6e14);
    let (mut errors, mut losses, mut covered) = (Vec::new(), Vec::new(), [0; 3]);
    for seed in 0..sets {
        let mut normal = normal(seed);
        let mut runs = Vec::new();
        let mut run = |flops: f64, width: u32, unique: f64| {
            let known = NETWORKS.into_iter().find(|network| network.0 == width);
            let (_, params, per_crop) = known.expect("the design has known widths only");
            let crops = 12.0 * (flops / per_crop / 12.0).round();
            let cross_entropy = law.loss(params, crops, Some(unique)) * (0.02 * normal()).exp();
            runs.push((width, Run { params, crops, flops: crops * per_crop, cross_entropy, unique: Some(unique) }));
        };
        for (flops, seeds, widths) in design {
            (0..seeds).flat_map(|_| widths).for_each(|width| run(flops, width, 367.0));
        }
        [46.0, 92.0, 184.0].into_iter().for_each(|photos| run(2e13, 16, photos));

        let widths = Widths::of(&runs).unwrap();
        let laws = Laws::resampled(&runs.iter().map(|(_, run)| *run).collect::<Vec<_>>(), 100, seed).unwrap();
        let advice = laws.advise(&widths, |width| budget / widths.flops_per_crop(width), None);
        let truth = |width: u32| law.loss(widths.params(width), budget / widths.flops_per_crop(width), Some(367.0));
        let best = widths.choices().min_by(|x, y| truth(*x).total_cmp(&truth(*y))).unwrap();
        let loss = truth(advice.width.value as u32);
        errors.push((advice.cross_entropy.value / loss - 1.0).abs());
        losses.push(loss / truth(best) - 1.0);
        let pairs = [
            (advice.width, f64::from(best)),
            (advice.cross_entropy, loss),
            (laws.fit(&[]).unwrap().repeats.unwrap(), 40.0),
        ];
        for (count, (interval, truth)) in covered.iter_mut().zip(pairs) {
            *count += u64::from(interval.low <= truth && truth <= interval.high);
        }
    }
    errors.sort_by(f64::total_cmp);
    losses.sort_by(f64::total_cmp);
    println!(
        "loss: median error {:.4}, largest {:.4}; lost by the width: {:.4}; covered {covered:?} of {sets}",
        errors[10], errors[19], losses[19]
    );
    assert!(errors[10] < 0.03 && errors[17] < 0.1, "{errors:?}");
    assert!(losses[17] < 0.01 && losses[19] < 0.03, "{losses:?}");
    assert!(covered.iter().all(|count| *count >= 11), "{covered:?} of {sets}");
}
