//! `eval --adaptive`: risk, work and time next to the full network's.

use rtformer::eval::{Pair, Risk, Tradeoff};
use rtformer::{Policy, Segmenter};
use serde::Serialize;

use super::super::console::Console;
use super::Args;

/// Means over the photos.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Compared {
    epsilon: f64,
    /// The policy that was certified.
    policy: String,
    /// The share of pixels that differ from the full network's.
    risk: f64,
    /// The share of the full network's multiplications.
    compute_share: f64,
    /// Milliseconds from pixels to mask.
    milliseconds: f64,
    full_milliseconds: f64,
    /// Photos; those that could not be read are not among them.
    photos: usize,
}

impl Compared {
    pub(super) fn measure(
        args: &Args,
        console: &Console,
        segmenter: &Segmenter,
        pairs: &[Pair],
    ) -> anyhow::Result<Self> {
        let policy = segmenter.policy();
        let tradeoff = Tradeoff::new(segmenter, &[policy])?;
        let mut sum = Self {
            epsilon: args.adaptive.unwrap_or_default(),
            policy: policy.to_string(),
            risk: 0.0,
            compute_share: 0.0,
            milliseconds: 0.0,
            full_milliseconds: 0.0,
            photos: 0,
        };
        let bar = console.progress(pairs.len() as u64, "photos compared");
        for pair in pairs {
            bar.inc(1);
            // A photo that fails was reported before.
            let Ok(photo) = args.photos.decoder().open(&pair.photo) else { continue };
            let trials = tradeoff.trials(&photo, None, Risk::Consistency)?;
            let times = tradeoff.times(&photo, 1)?;
            if let (&[trial], &[full, own]) = (&trials[..], &times[..]) {
                sum.risk += trial.loss;
                sum.compute_share += trial.compute_share;
                sum.full_milliseconds += full;
                sum.milliseconds += own;
                sum.photos += 1;
            }
        }
        console.finish();
        let photos = sum.photos.max(1) as f64;
        for value in [&mut sum.risk, &mut sum.compute_share, &mut sum.full_milliseconds, &mut sum.milliseconds] {
            *value /= photos;
        }
        Ok(sum)
    }

    pub(super) fn text(&self) -> String {
        let Self { epsilon, policy, milliseconds, full_milliseconds, .. } = self;
        let [risk, share] = [self.risk, self.compute_share].map(|ratio| 100.0 * ratio);
        let saving =
            if policy == &Policy::Full.to_string() { " (no saving was found when it was calibrated)" } else { "" };
        format!(
            "adaptive at {epsilon}, `{policy}`{saving}: {risk:.2} % of the pixels differ from the full network's, {share:.1} % of its \
             multiplications, {milliseconds:.1} instead of {full_milliseconds:.1} ms\n"
        )
    }
}
