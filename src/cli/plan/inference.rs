//! `plan --images`: the ways to run a network, by their time on this machine and their quality on the user's photos.

mod answer;
mod candidates;
mod quality;

use std::path::PathBuf;

use rtformer::bench::frames;
use rtformer::pixels::{Image, render};
use rtformer::plan::Goal;
use rtformer::{Device, Padding, Precision, Segmenter, Size};

use super::super::console::{Console, counted};
use super::super::labels::LabelArgs;
use super::super::model::epsilon;
use super::super::stats::Figures;
use super::super::{Outcome, misuse};
use super::{Args, positive};
use answer::Answer;
pub(super) use answer::NAMES;
use candidates::Candidate;
use quality::Photos;

/// The measurement goes through all points this many times, so that a change of the machine's speed affects all of them alike.
const ROUNDS: u32 = 3;

/// Timed frames of each point, unless another number is given.
const RUNS: u32 = 12;

/// Frames before each measurement of a point.
const WARMUP: u32 = 2;

/// Flags of the inference half; some also say on what `--train --fps` is measured.
#[derive(Debug, clap::Args)]
pub(super) struct InferenceArgs {
    /// Compare ways to run networks on these photos: a folder, or a list file (.txt or .lst)
    #[arg(long, value_name = "PATH")]
    pub(super) images: Option<PathBuf>,

    /// Folder of the label images, as for `eval`: quality is then the mean IoU. Without labels it is the consistency, the share of pixels
    /// whose class is that of the first point (the first weights, size and precision)
    #[arg(long, value_name = "FOLDER", requires = "images")]
    labels: Option<PathBuf>,

    #[command(flatten)]
    format: LabelArgs,

    /// Weights to compare: .safetensors files, names that `rtformer pull` knows, or `embedded` [default: embedded]
    #[arg(long, value_name = "FILE|NAME,…", requires = "images", value_delimiter = ',', num_args = 1..)]
    weights: Vec<String>,

    /// Sizes to compare, at which the network sees a photo, as for `segment`: native, WxH or within:WxH [default: native, and within three
    /// quarters and half of the timed photo's size]. With --train --fps, the one size of the frames, WxH [default: 2048x1024]
    #[arg(long, visible_alias = "sizes", value_name = "SIZE,…", value_delimiter = ',', num_args = 1..)]
    pub(super) size: Vec<Size>,

    /// Precisions to compare: f32, bf16 or f16 [default: all that the device has]
    #[arg(long, visible_alias = "precisions", value_name = "PRECISION,…", value_delimiter = ',', num_args = 1..)]
    pub(super) precision: Vec<Precision>,

    /// Also compare adaptive inference for risks of at most EPS, 0 to 1: of weights that `calibrate` wrote, at the size and the precision
    /// of their rule, as with --adaptive EPS
    #[arg(long, value_name = "EPS,…", requires = "images", value_delimiter = ',', num_args = 1.., value_parser = epsilon)]
    epsilon: Vec<f64>,

    /// Device to run on, as for `segment` [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,

    /// Number of CPU threads, as for `segment` [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    threads: Option<u16>,

    /// Padding, as for `segment` [default: as stored in the weights]
    #[arg(long, value_name = "N|none")]
    pad: Option<Padding>,

    /// Photo whose frames are timed [default: the first of --images]
    #[arg(long, value_name = "FILE", requires = "images")]
    photo: Option<PathBuf>,

    /// Number of timed frames of each point [default: 12]
    #[arg(long, value_name = "N", requires = "images", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: Option<u32>,

    /// Choose the best quality at F frames per second. With --train, recommend only networks that reach F on this machine
    #[arg(long, value_name = "F", value_parser = rate, conflicts_with_all = ["latency", "miou"])]
    pub(super) fps: Option<f64>,

    /// Choose the best quality in MS milliseconds per frame
    #[arg(long, value_name = "MS", requires = "images", value_parser = milliseconds, conflicts_with = "miou")]
    latency: Option<f64>,

    /// Choose the fastest point whose mean IoU is at least M, 0 to 1
    #[arg(long, value_name = "M", requires = "labels", value_parser = ratio)]
    miou: Option<f64>,
}

fn rate(text: &str) -> Result<f64, String> {
    positive(text, "a positive number of frames per second, such as 30")
}

fn milliseconds(text: &str) -> Result<f64, String> {
    positive(text, "a positive number of milliseconds, such as 33.3")
}

fn ratio(text: &str) -> Result<f64, String> {
    positive(text, "a mean IoU above 0 and at most 1, such as 0.65").and_then(|ratio| {
        if ratio > 1.0 {
            Err("expected a mean IoU above 0 and at most 1, such as 0.65 for 65 %".into())
        } else {
            Ok(ratio)
        }
    })
}

impl InferenceArgs {
    /// A builder with the flags that all points share.
    pub(super) fn builder(&self) -> rtformer::Builder {
        let builder = Segmenter::builder().device(self.device.unwrap_or_default()).pad(self.pad.unwrap_or_default());
        builder.threads(self.threads.map_or(0, usize::from))
    }

    /// Whether a flag is there that needs photos.
    fn is_about_photos(&self) -> bool {
        let listed = !self.weights.is_empty() || !self.epsilon.is_empty();
        listed || self.labels.is_some() || self.photo.is_some() || self.runs.is_some() || self.latency.is_some()
    }

    /// Whether a flag says on what to measure.
    pub(super) fn says_how_to_measure(&self) -> bool {
        let listed = !self.size.is_empty() || !self.precision.is_empty();
        listed || self.device.is_some() || self.threads.is_some() || self.pad.is_some()
    }
}

/// What was measured of one point.
struct Measured {
    candidate: Candidate,
    /// The device, its instruction set and the number of threads.
    on: String,
    figures: Figures,
    quality: quality::Quality,
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<(String, Outcome)> {
    let plan = &args.inference;
    let mut photos = Photos::find(plan, plan.format.checked()?, console)?;
    let photo = timed_photo(plan, &photos)?;
    let candidates = candidates::list(plan, (photo.width(), photo.height()), console)?;
    let times = times(plan, &candidates, &photo, console)?;

    let mut measured = Vec::new();
    for (candidate, times) in candidates.into_iter().zip(times) {
        console.detail(&format!("measuring the quality of {candidate}"));
        let segmenter = candidate.open(plan)?;
        let threads = counted(segmenter.threads(), "thread");
        let on = format!("{} ({}, {threads})", segmenter.device(), segmenter.instruction_set());
        let quality = photos.measure(&segmenter, console)?;
        measured.push(Measured { candidate, on, figures: Figures::of(&times, 1), quality });
    }
    let answer = Answer::new(plan, &photo, &measured, photos.failed());
    if let Some(folder) = &args.plot {
        let path = folder.join(NAMES[0]);
        render::save_rgb(&path, &answer.picture())?;
        console.note(&format!("time against quality -> {}", path.display()));
    }
    let unmet = answer.unmet();
    if let Some(problem) = &unmet {
        console.error(problem);
    }
    let outcome = if photos.failed() == 0 && unmet.is_none() { Outcome::Done } else { Outcome::SomeFailed };
    Ok((if args.json { serde_json::to_string_pretty(&answer)? + "\n" } else { answer.text() }, outcome))
}

/// The photo whose frames are timed: `--photo`, or the first that can be read.
fn timed_photo(plan: &InferenceArgs, photos: &Photos) -> anyhow::Result<Image> {
    if let Some(path) = &plan.photo {
        return Ok(Image::open(path)?);
    }
    let mut last = None;
    for path in photos.paths() {
        match Image::open(path) {
            Ok(photo) => return Ok(photo),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("there is no photo to time"), Into::into))
}

/// The milliseconds of each point's frames, in rounds over all points.
fn times(
    plan: &InferenceArgs,
    candidates: &[Candidate],
    photo: &Image,
    console: &Console,
) -> anyhow::Result<Vec<Vec<f64>>> {
    let mut times = vec![Vec::new(); candidates.len()];
    let bar = console.progress(u64::from(ROUNDS) * candidates.len() as u64, "measurements");
    for round in 0..ROUNDS {
        for (candidate, times) in candidates.iter().zip(&mut times) {
            // Opened again for each measurement, so that only one network is in memory.
            let segmenter = candidate.open(plan)?;
            times.extend(frames(&segmenter, photo.rgb(), WARMUP, share(plan.runs.unwrap_or(RUNS), round))?);
            bar.inc(1);
        }
    }
    console.finish();
    Ok(times)
}

/// The frames of a round, so that all rounds together have `runs`.
fn share(runs: u32, round: u32) -> u32 {
    (runs + round) / ROUNDS
}

/// What a flag asks for.
fn goal(plan: &InferenceArgs) -> Option<Goal> {
    let fps = plan.fps.map(Goal::Fps);
    fps.or(plan.latency.map(Goal::Latency)).or(plan.miou.map(Goal::Quality))
}

/// Refuses flags of this half without photos.
pub(super) fn check(args: &Args) -> anyhow::Result<()> {
    let plan = &args.inference;
    // clap forgets what a flag requires if it conflicts with another flag that is there.
    if plan.images.is_none() && plan.is_about_photos() {
        return Err(misuse(
            "--labels, --weights, --epsilon, --photo, --runs and --latency need --images; name the folder of the photos",
        ));
    }
    if plan.images.is_none() && plan.says_how_to_measure() && plan.fps.is_none() {
        return Err(misuse(
            "--size, --precision, --device, --threads and --pad say how to measure the speed; use them with --images or with --train --fps",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rounds_together_have_all_runs() {
        for runs in [1, 2, 3, 12, 20, 100_000] {
            assert_eq!((0..ROUNDS).map(|round| share(runs, round)).sum::<u32>(), runs);
        }
    }
}
