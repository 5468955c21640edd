//! What `calibrate --images` found: for people, as JSON, and as the rule that is stored.

use std::fmt::Write as _;
use std::path::PathBuf;

use rtformer::eval::Trial;
use rtformer::eval::risk::{Bound, Choice, Limit, smallest_epsilon, units_needed};
use rtformer::{Calibrated, Policy, Segmenter};
use serde::Serialize;

use super::super::console::counted;
use super::{Args, guarantee, number};

/// A policy must take at most this share of the full network's time; below it, differences are noise.
const WORTH_IT: f64 = 0.97;

/// A sequence of policies, safest first, that is tested on its own.
pub(super) struct Family {
    pub(super) policies: Vec<Policy>,
    /// What the family may fail with.
    pub(super) limit: Limit,
    pub(super) choice: Choice,
}

/// The losses and shares of work of all policies, for each photo that did not fail.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) photos: Vec<PathBuf>,
    /// `[photo][policy]`
    pub(super) trials: Vec<Vec<Trial>>,
    pub(super) failed: usize,
}

/// What `--json` prints. The lists have one entry per policy.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The policy; null for the full network.
    chosen: Option<String>,
    p_values: Vec<Option<f64>>,
    bound: &'static str,
    risk: &'static str,
    epsilon: f64,
    delta: f64,
    /// What each of the families of policies (tiles and sizes) is tested at.
    delta_per_family: f64,
    /// Photos.
    n: usize,
    /// Units.
    groups: usize,
    failed: usize,
    columns: Vec<String>,
    certified: Vec<bool>,
    empirical_risk: Vec<f64>,
    compute_share: Vec<f64>,
    needed: Vec<Option<u64>>,
    smallest_epsilon: Vec<Option<f64>>,
    threshold: Option<f32>,
    scale: Option<f32>,
    /// The share of the full network's time on this machine; 1 for the full network.
    time_share: f64,
    saving: bool,
    message: String,
    guarantee: Option<String>,
    #[serde(skip)]
    policy: Policy,
}

impl Report {
    #[allow(clippy::too_many_arguments, reason = "the parts of one calibration")]
    pub(super) fn new(
        args: &Args,
        limit: Limit,
        bound: Bound,
        families: &[Family],
        measured: &Measured,
        units: &[Vec<usize>],
        certified: &[Policy],
        times: &[f64],
    ) -> Self {
        let (photos, groups) = (measured.photos.len(), units.len());
        let mean = |policy: usize| measured.trials.iter().map(|t| t[policy].compute_share).sum::<f64>() / photos as f64;
        let policies: Vec<Policy> = families.iter().flat_map(|family| family.policies.clone()).collect();
        let fastest = certified.iter().zip(times).min_by(|a, b| a.1.total_cmp(b.1));
        let worth = fastest.filter(|(_, time)| **time <= WORTH_IT);
        let policy = worth.map_or(Policy::Full, |(policy, _)| *policy);
        let time_share = worth.map_or(1.0, |(_, time)| *time);
        let limits = families.iter().flat_map(|family| family.policies.iter().map(|_| family.limit));
        let risks: Vec<f64> = families.iter().flat_map(|family| family.choice.risks.clone()).collect();
        let needed: Vec<_> = risks.iter().zip(limits).map(|(&risk, limit)| units_needed(risk, limit, bound)).collect();
        let delta = families.first().map_or(limit.delta(), |family| family.limit.delta());
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let first_needed = needed.iter().flatten().min();
        let message = match (worth, fastest) {
            (Some((policy, time)), _) => {
                format!("`{policy}` takes {} of the full network's time on this machine", percent(*time))
            }
            (None, Some((policy, time))) => format!(
                "no saving found: the fastest certified policy, `{policy}`, takes {} of the full network's time on this machine; the \
                 full network will run",
                percent(*time)
            ),
            (None, None) => {
                let units = first_needed.map_or_else(
                    || "no number of units certifies one at the observed risks".to_owned(),
                    |units| format!("at the observed risks, {units} units would certify one"),
                );
                format!(
                    "no saving found: no policy is certified with {}; {units}; the full network will run",
                    counted(groups, "unit")
                )
            }
        };
        let certified = families.iter().flat_map(|family| {
            let last = family.choice.chosen.map_or(0, |last| last + 1);
            (0..family.policies.len()).map(move |policy| policy < last)
        });
        Self {
            chosen: worth.map(|(policy, _)| policy.to_string()),
            p_values: families.iter().flat_map(|family| family.choice.p_values.clone()).collect(),
            bound: bound.name(),
            risk: args.risk.name(),
            epsilon: limit.epsilon(),
            delta: limit.delta(),
            delta_per_family: delta,
            n: photos,
            groups,
            failed: measured.failed,
            certified: certified.collect(),
            compute_share: (0..policies.len()).map(mean).collect(),
            smallest_epsilon: risks.iter().map(|&risk| smallest_epsilon(groups as u64, risk, delta, bound)).collect(),
            empirical_risk: risks,
            needed,
            threshold: if let Policy::Tiles { threshold } = policy { Some(threshold) } else { None },
            scale: if let Policy::Size { scale } = policy { Some(scale) } else { None },
            time_share,
            saving: worth.is_some(),
            message,
            guarantee: worth.map(|_| guarantee(limit, bound)),
            columns: policies.iter().map(ToString::to_string).collect(),
            policy,
        }
    }

    /// The position of the chosen policy.
    fn position(&self) -> Option<usize> {
        self.columns.iter().position(|name| Some(name) == self.chosen.as_ref())
    }

    /// What is stored in the weights.
    pub(super) fn rule(&self, args: &Args, segmenter: &Segmenter, tensors: String) -> Calibrated {
        let rungs: &[&str] = match self.policy {
            Policy::Tiles { .. } => &["exit", "tiles", "full"],
            Policy::Size { .. } => &["size"],
            Policy::Full => &["full"],
        };
        let at = self.position();
        Calibrated {
            rungs: rungs.iter().map(|rung| (*rung).to_owned()).collect(),
            confidence: Calibrated::CONFIDENCE.into(),
            tile: Calibrated::TILE,
            threshold: self.threshold,
            scale: self.scale,
            risk: self.risk.into(),
            epsilon: self.epsilon,
            delta: self.delta,
            bound: self.bound.into(),
            n: self.n,
            groups: self.groups,
            empirical_risk: at.map_or(0.0, |at| self.empirical_risk[at]),
            p_value: at.and_then(|at| self.p_values[at]),
            compute_share: at.map_or(1.0, |at| self.compute_share[at]),
            time_share: self.time_share,
            size: args.size.to_string(),
            pad_multiple: segmenter.pad_multiple(),
            precision: segmenter.precision().to_string(),
            tensors,
        }
    }

    /// A table for people, the choice, and what it means.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}, {}, {}", counted(self.n, "photo"), counted(self.groups, "unit"), self.risk);
        let _ = match self.bound {
            "crc" => writeln!(text, ", epsilon {}, bound crc\n", self.epsilon),
            bound => writeln!(
                text,
                ", epsilon {}, delta {} ({} for tiles and sizes each), bound {bound}\n",
                self.epsilon, self.delta, self.delta_per_family
            ),
        };
        let _ = writeln!(text, "policy       risk  p-value  smallest epsilon  multiplications  result");
        for (at, name) in self.columns.iter().enumerate() {
            let tested = at == 0
                || self.certified[at - 1]
                || name.starts_with("size") && self.columns[at - 1].starts_with("tiles");
            let result = match (self.certified[at], tested, self.needed[at]) {
                (true, ..) => "certified".to_owned(),
                (_, false, _) => "not tested".to_owned(),
                (.., Some(units)) => format!("not certified; needs about {units} units at this risk"),
                (.., None) => "not certified; the risk is too close to epsilon or above it".to_owned(),
            };
            let (p_value, smallest) = (number(self.p_values[at]), number(self.smallest_epsilon[at]));
            let (risk, share) = (self.empirical_risk[at], 100.0 * self.compute_share[at]);
            let _ = writeln!(text, "{name:11}  {risk:.4}  {p_value:>7}  {smallest:>16}  {share:>13.1} %  {result}");
        }
        let _ = writeln!(text, "\nchosen: {}", self.chosen.as_deref().unwrap_or("the full network"));
        let _ = writeln!(text, "{}", self.message);
        if let Some(guarantee) = &self.guarantee {
            let _ = writeln!(text, "{guarantee}");
        }
        text
    }
}
