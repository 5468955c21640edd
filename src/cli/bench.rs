//! `rtformer bench`: measures the network as papers do, and the time that a user waits.

mod caches;
mod compare;
mod machine;
mod profile;
mod report;
mod scaling;
mod stages;
mod video;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rtformer::files::write_whole;
use rtformer::{Segmenter, Size, Variant, bench};

use super::model::{AugmentArgs, DeviceArgs, opened, with_weights};
use super::{Outcome, console::Console, frame, misuse};
pub(super) use caches::Caches;
use profile::Profile;
use report::{Adaptive, Report};
use scaling::Scaling;
use stages::Stage;
use video::Video;

/// Measure how fast the network is on this machine
///
/// There are four stages. They are measured in turns, so that other load on the machine affects all
/// of them alike. The frame is random noise unless --photo is given.
///
///   paper  network and full-size bilinear logits, input already on the device (as in papers)
///   mask   the same, but with a mask as the result
///   frame  8-bit frame in memory to 8-bit mask in memory
///   file   JPEG file to mask PNG file
///
/// The results of paper and mask stay on the device. With --batch N, a run processes N frames. Times
/// are in milliseconds. Percentiles are interpolated linearly between ranks. FPS is frames per second
/// at the median.
///
/// With several numbers of threads, such as --threads 1,2,4,8, the stages are measured with the first,
/// and the stage mask with each in turns. If there are fewer cores, the rest is modelled by Amdahl's law.
///
/// Example: rtformer bench --size 1024x512 --stages frame,file --json bench.json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// Size of the frame of noise in pixels; with --photo, the size at which the network sees the photo, as for `segment`: native, WxH or
    /// within:WxH [default: 2048x1024; with --photo, native]
    #[arg(long, value_name = "SIZE")]
    size: Option<Size>,

    /// Measure on this photo instead of noise
    #[arg(long, value_name = "FILE")]
    photo: Option<PathBuf>,

    /// Variant of the network, with random parameters and Cityscapes' 19 classes
    #[arg(long, value_name = "slim|base", default_value_t = Variant::Slim, conflicts_with = "weights")]
    variant: Variant,

    /// Weights: a .safetensors file, a name that `rtformer pull` knows, or `embedded` [default: random parameters]
    #[arg(long, value_name = "FILE|NAME")]
    weights: Option<String>,

    #[command(flatten)]
    augment: AugmentArgs,

    #[command(flatten)]
    device: DeviceArgs,

    /// Number of frames that go through the network together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,

    /// Compute less where the network is certain early, by the rule that `rtformer calibrate` stored in --weights for a risk of at most
    /// EPS, 0 to 1. Only the stages frame and file are measured, best with --photo. On the CPU [default: the full network]
    #[arg(long, value_name = "EPS", requires = "weights", conflicts_with = "video", value_parser = super::model::epsilon)]
    adaptive: Option<f64>,

    /// Stages to measure, separated by commas
    #[arg(long, value_name = "STAGE,…", value_delimiter = ',', default_value = "paper,mask,frame,file")]
    stages: Vec<Stage>,

    /// Number of measured runs of each stage
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,

    /// Number of warm-up runs of each stage, which are not measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    warmup: u32,

    /// Also write the figures, with the machine and the settings, to this JSON file; `-` prints the JSON on standard output and the
    /// table on standard error
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Also show the time of each operation of a `frame`, and its share of the machine's measured peak
    #[arg(long)]
    profile: bool,

    /// Also measure a stream of frames: sustained frames per second, and the age of a mask (from the frame's arrival) for a live source that
    /// is twice as fast
    #[arg(long)]
    video: bool,

    /// Compare two files written by --json, and measure nothing
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"], conflicts_with_all = [
        "size", "photo", "variant", "weights", "DeviceArgs", "batch", "adaptive", "stages", "runs", "warmup", "json", "profile", "video",
    ])]
    compare: Option<Vec<PathBuf>>,
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    if let Some([a, b]) = args.compare.as_deref() {
        return compare::run(a, b, console);
    }
    let frame = match &args.photo {
        Some(photo) => frame::photo(photo)?,
        None => frame::noise(frame::sides(args.size)?),
    };
    let [threads, ..] = args.device.threads[..] else { return Err(misuse("--threads has no number")) };
    if args.adaptive.is_some() && args.device.threads.len() > 1 {
        return Err(misuse(
            "--threads has several numbers, expected one with --adaptive: the stage that compares them runs the full network",
        ));
    }
    let segmenter = Arc::new(args.segmenter(usize::from(threads))?);
    console.detail(&segmenter.to_string());
    let stages = stages::measure(args, &segmenter, &frame, console)?;
    let profile = args.profile.then(|| Profile::measure(&segmenter, &frame, args.runs, args.warmup)).transpose()?;
    let video = args.video.then(|| Video::measure(&segmenter, &frame, args.runs, args.warmup)).transpose()?;
    let several = args.device.threads.len() > 1;
    let scaling = several.then(|| Scaling::measure(args, &frame, console)).transpose()?;
    let adaptive = match args.adaptive {
        Some(epsilon) => Some(Adaptive {
            epsilon,
            policy: segmenter.policy().to_string(),
            compute_share: segmenter.segment(&frame)?.compute_share(),
        }),
        None => None,
    };
    let report = Report {
        adaptive,
        ..Report::new(args, frame.dimensions().into(), &segmenter, stages, profile, video, scaling)
    };

    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    if to_stdout {
        console.note(report.table().trim_end());
    } else {
        std::io::stdout().lock().write_all(report.table().as_bytes())?;
    }
    report.warn(console);
    if let Some(path) = &args.json {
        let mut json = serde_json::to_string_pretty(&report)?;
        json.push('\n');
        if to_stdout {
            std::io::stdout().lock().write_all(json.as_bytes())?;
        } else {
            write_whole(path, |file| file.write_all(json.as_bytes()))?;
        }
    }
    Ok(Outcome::Done)
}

impl Args {
    pub(super) fn device(&self) -> &DeviceArgs {
        &self.device
    }

    /// The network on this number of threads.
    fn segmenter(&self, threads: usize) -> anyhow::Result<Segmenter> {
        let seen = self.photo.as_ref().and(self.size).unwrap_or_default();
        let mut builder = self.device.builder().threads(threads).size(seen).augment(self.augment.augmentation());
        if let Some(epsilon) = self.adaptive {
            builder = builder.adaptive(epsilon);
        }
        let Some(weights) = &self.weights else { return opened(bench::random(self.variant, builder)) };
        opened(with_weights(builder, weights)?.build())
    }
}
