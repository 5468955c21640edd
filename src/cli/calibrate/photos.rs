//! `calibrate --images`: measures what policies lose and save on photos, certifies some of them, and stores the fastest in the weights.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::bail;
use rtformer::eval::risk::{Bound, Limit, choose};
use rtformer::eval::{LabelFormat, LabelImage, Pair, Risk, Tradeoff, find_pairs, find_photos};
use rtformer::pixels::Image;
use rtformer::{Error, Policy, Segmenter};

use super::super::console::{Console, counted};
use super::super::model::opened;
use super::super::{Outcome, misuse};
use super::groups::{look_like_clips, means, units};
use super::report::{Family, Measured, Report};
use super::{Args, losses};

/// The thresholds of the tiles, safest first. They are fixed, because the guarantee needs an order that does not depend on the losses.
/// More of them cost time but no certainty, and the one that is certified is closer to epsilon. Above 0.95, nearly every tile is computed.
const THRESHOLDS: [f32; 14] = [0.95, 0.8, 0.65, 0.5, 0.35, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.015, 0.0];
/// The smaller sizes, safest first.
const SCALES: [f32; 9] = [0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5];
/// The number of photos on which times are measured, and how often.
const TIMED: usize = 10;
const ROUNDS: usize = 3;

/// A photo, and its labels if the risk needs them.
type Labelled = (PathBuf, Option<PathBuf>);

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
    // A full disk must not cost the measurement, so the report is printed all the same.
    let written = args.write_losses.as_ref().map_or(Ok(()), |path| losses::write(path, &policies, &columns));
    if let Err(error) = &written {
        console.error(&error.to_string());
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
    let saved = report.rule(args, &segmenter, weights.tensors_digest()).save(&weights, out);
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text() };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    saved?;
    console.note(&format!("calibrated weights -> {}", out.display()));
    Ok(if measured.failed == 0 && written.is_ok() { Outcome::Done } else { Outcome::SomeFailed })
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
