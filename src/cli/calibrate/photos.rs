//! `calibrate --images`: measures what policies lose and save on photos, certifies some of them, and stores the fastest in the weights.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::bail;
use rtformer::eval::risk::{Bound, Choice, Limit, choose, smallest_epsilon, units_needed};
use rtformer::eval::{LabelFormat, LabelImage, Pair, Risk, Tradeoff, Trial, find_pairs, find_photos};
use rtformer::pixels::Image;
use rtformer::{Calibrated, Error, Policy, Segmenter};
use serde::Serialize;

use super::super::console::{Console, counted};
use super::super::model::opened;
use super::super::{Outcome, misuse};
use super::groups::{look_like_clips, means, units};
use super::losses;
use super::{Args, guarantee, number};

/// The thresholds of the tiles, safest first. They are fixed, because the guarantee needs an order that does not depend on the losses.
const THRESHOLDS: [f32; 10] = [0.95, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.03, 0.0];
/// The smaller sizes, safest first.
const SCALES: [f32; 5] = [0.9, 0.8, 0.7, 0.6, 0.5];
/// A policy must take at most this share of the full network's time; below it, differences are noise.
const WORTH_IT: f64 = 0.97;
/// The number of photos on which times are measured, and how often.
const TIMED: usize = 10;
const ROUNDS: usize = 3;

/// A photo, and its labels if the risk needs them.
type Labelled = (PathBuf, Option<PathBuf>);

/// A sequence of policies, safest first, that is tested on its own.
struct Family {
    policies: Vec<Policy>,
    /// What the family may fail with.
    limit: Limit,
    choice: Choice,
}

/// The losses and shares of work of all policies, for each photo that did not fail.
#[derive(Default)]
struct Measured {
    photos: Vec<PathBuf>,
    /// `[photo][policy]`
    trials: Vec<Vec<Trial>>,
    failed: usize,
}

pub(super) fn run(args: &Args, images: &Path, limit: Limit, console: &Console) -> anyhow::Result<Outcome> {
    let Some(out) = &args.out else { return Err(misuse("-o is missing; name the weights file to write")) };
    if args.model.classes_text().is_some() || args.model.augment.text().is_some() {
        return Err(misuse(
            "a rule is for the network's own classes and for the photo alone; omit --classes, --merge, --flip and --scales",
        ));
    }
    for path in args.write_losses.iter().chain([out]) {
        if path.exists() && !args.overwrite {
            return Err(misuse(format!("{}: exists already; use --overwrite to replace it", path.display())));
        }
    }
    let bound = args.bound.unwrap_or(Bound::Betting);
    let (pairs, failed) = pairs(args, images)?;
    failed.iter().for_each(|error| console.error(&error.to_string()));
    let groups = groups(args, images, &pairs, console)?;

    let segmenter = opened(args.model.builder()?.size(args.size).exits(true).build())?;
    let weights = args.model.opened()?;
    console.note(&segmenter.to_string());
    let sequences = sequences(&segmenter, bound, console);
    let policies = sequences.concat();
    let tradeoff = Tradeoff::new(&segmenter, &policies)?;
    let measured = measure(args, &segmenter, &tradeoff, &pairs, console);
    let measured = Measured { failed: measured.failed + failed.len(), ..measured };
    if measured.photos.is_empty() {
        bail!("all {} failed; nothing was calibrated", counted(measured.failed, "photo"));
    }

    let groups = measured.photos.iter().map(groups).collect::<anyhow::Result<Vec<_>>>()?;
    let units = units(groups.into_iter());
    // The families share the probability of a failure.
    let each = Limit::new(limit.epsilon(), limit.delta() / sequences.len() as f64)?;
    let mut columns: Vec<Vec<f64>> = (0..policies.len())
        .map(|policy| means(&units, &measured.trials.iter().map(|trials| trials[policy].loss).collect::<Vec<_>>()))
        .collect();
    if let Some(path) = &args.write_losses {
        losses::write(path, &policies, &columns)?;
    }
    if bound == Bound::Conformal {
        never_falling(&mut columns);
    }
    let mut families = Vec::new();
    let mut rest = &columns[..];
    for policies in sequences {
        let (own, others) = rest.split_at(policies.len());
        families.push(Family { policies, limit: each, choice: choose(own, each, bound)? });
        rest = others;
    }
    let certified: Vec<Policy> =
        families.iter().filter_map(|family| family.choice.chosen.map(|last| family.policies[last])).collect();
    let times = times(args, &segmenter, &certified, &measured.photos, console)?;
    let report = Report::new(args, limit, bound, &families, &measured, &units, &certified, &times);
    report.rule(args, &segmenter, weights.tensors_digest()).save(&weights, out)?;
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text() };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    console.note(&format!("calibrated weights -> {}", out.display()));
    Ok(if measured.failed == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

/// Raises each unit's loss to the largest of the safer policies. Conformal risk control needs losses that never fall; a bound on the
/// larger loss holds for the smaller one.
fn never_falling(columns: &mut [Vec<f64>]) {
    for policy in 1..columns.len() {
        let (safer, others) = columns.split_at_mut(policy);
        let (Some(safer), Some(own)) = (safer.last(), others.first_mut()) else { return };
        own.iter_mut().zip(safer).for_each(|(own, safer)| *own = own.max(*safer));
    }
}

/// The photos, with their labels if the risk needs them.
fn pairs(args: &Args, images: &Path) -> anyhow::Result<(Vec<Labelled>, Vec<Error>)> {
    match (args.risk, &args.labels) {
        (Risk::Accuracy, None) => Err(misuse("--risk accuracy needs --labels; name the folder of the label images")),
        (Risk::Consistency, Some(_)) => {
            Err(misuse("--labels is for --risk accuracy; the risk `consistency` does not use labels"))
        }
        (Risk::Accuracy, Some(labels)) => {
            let found = find_pairs(images, labels, None)?;
            let pair = |Pair { photo, label }| (photo, Some(label));
            Ok((found.pairs.into_iter().map(pair).collect(), found.failed))
        }
        (Risk::Consistency, None) => {
            let (photos, failed) = find_photos(images)?;
            Ok((photos.into_iter().map(|photo| (photo, None)).collect(), failed))
        }
    }
}

/// A function that returns the group of a photo. Checks that every photo has one, or warns if photos may not be independent.
fn groups<'a>(
    args: &'a Args,
    images: &'a Path,
    pairs: &[Labelled],
    console: &Console,
) -> anyhow::Result<impl Fn(&PathBuf) -> anyhow::Result<String> + 'a> {
    let group = move |photo: &PathBuf| {
        let place = photo.strip_prefix(images).unwrap_or(photo);
        match &args.group_by {
            Some(by) => by.group(place).map_err(misuse),
            None => Ok(place.to_string_lossy().into_owned()),
        }
    };
    for (photo, _) in pairs {
        group(photo)?;
    }
    let photos: Vec<_> = pairs.iter().map(|(photo, _)| photo.clone()).collect();
    if args.group_by.is_none() && look_like_clips(&photos) {
        console.note(
            "warning: the photos' names suggest frames of the same clips. Neighbouring frames are not independent, and the guarantee \
             does not hold for them; use --group-by folder or --group-by REGEX to count each clip once",
        );
    }
    Ok(group)
}

/// The policies of each family, safest first.
fn sequences(segmenter: &Segmenter, bound: Bound, console: &Console) -> Vec<Vec<Policy>> {
    let tiles = THRESHOLDS.map(|threshold| Policy::Tiles { threshold }).to_vec();
    let sizes = SCALES.map(|scale| Policy::Size { scale }).to_vec();
    if segmenter.with_policy(tiles[0]).is_err() {
        console.note("note: the weights have no auxiliary head (`seghead_extra.*`), so only smaller sizes are tried");
        return vec![sizes];
    }
    if bound == Bound::Conformal {
        console.note("note: conformal risk control holds for one sequence of policies, so only tiles are tried, not smaller sizes");
        return vec![tiles];
    }
    vec![tiles, sizes]
}

/// Measures every photo.
fn measure(args: &Args, segmenter: &Segmenter, tradeoff: &Tradeoff, pairs: &[Labelled], console: &Console) -> Measured {
    let mut measured = Measured::default();
    let bar = console.progress(pairs.len() as u64, "photos");
    for (path, label) in pairs {
        let trials = args.photos.decoder().open(path).and_then(|photo| {
            let open = |label: &PathBuf| LabelImage::open_for(label, segmenter, &LabelFormat::default());
            tradeoff.trials(&photo, label.as_ref().map(open).transpose()?.as_ref(), args.risk)
        });
        match trials {
            Ok(trials) => {
                measured.photos.push(path.clone());
                measured.trials.push(trials);
            }
            Err(error) => {
                console.error(&error.to_string());
                measured.failed += 1;
            }
        }
        bar.inc(1);
    }
    console.finish();
    measured
}

/// The share of the full network's time that each policy takes, on some of the photos.
fn times(
    args: &Args,
    segmenter: &Segmenter,
    policies: &[Policy],
    photos: &[PathBuf],
    console: &Console,
) -> anyhow::Result<Vec<f64>> {
    if policies.is_empty() {
        return Ok(Vec::new());
    }
    let tradeoff = Tradeoff::new(segmenter, policies)?;
    let step = photos.len().div_ceil(TIMED);
    let bar = console.progress(photos.iter().step_by(step).len() as u64, "timed photos");
    let mut sums = vec![0.0; policies.len() + 1];
    for path in photos.iter().step_by(step) {
        let photo: Image = args.photos.decoder().open(path)?;
        sums.iter_mut().zip(tradeoff.times(&photo, ROUNDS)?).for_each(|(sum, time)| *sum += time);
        bar.inc(1);
    }
    console.finish();
    Ok(sums[1..].iter().map(|sum| sum / sums[0]).collect())
}

/// What `--json` prints. The lists have one entry per policy.
#[derive(Debug, Serialize)]
struct Report {
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
    fn new(
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
    fn rule(&self, args: &Args, segmenter: &Segmenter, tensors: String) -> Calibrated {
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
    fn text(&self) -> String {
        let mut text = format!("{}, {}, {}", counted(self.n, "photo"), counted(self.groups, "unit"), self.risk);
        let _ = match self.bound {
            "crc" => writeln!(text, ", epsilon {}, bound crc\n", self.epsilon),
            bound => writeln!(
                text,
                ", epsilon {}, delta {} ({} for tiles and sizes each), bound {bound}\n",
                self.epsilon, self.delta, self.delta_per_family
            ),
        };
        let _ = writeln!(text, "policy        risk  p-value  smallest epsilon  multiplications  result");
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
            let _ = writeln!(text, "{name:10}  {risk:.4}  {p_value:>7}  {smallest:>16}  {share:>13.1} %  {result}");
        }
        let _ = writeln!(text, "\nchosen: {}", self.chosen.as_deref().unwrap_or("the full network"));
        let _ = writeln!(text, "{}", self.message);
        if let Some(guarantee) = &self.guarantee {
            let _ = writeln!(text, "{guarantee}");
        }
        text
    }
}
