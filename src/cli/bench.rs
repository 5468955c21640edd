//! How fast it is here: the network as papers time it, and what a user waits for, side by side.

mod compare;
mod frame;
mod machine;
mod profile;
mod report;
mod stages;
mod stats;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use rtformer::files::write_whole;
use rtformer::pixels::Limits;
use rtformer::{Segmenter, Size, Variant, bench};

use super::model::{DeviceArgs, opened, weights_path};
use super::{Outcome, console::Console, misuse};
use profile::Profile;
use report::Report;
use stages::Stage;

/// Measure how fast the network is on this machine
///
/// Four figures, measured in turns on random noise, so that what else the machine does hits all alike:
///
///   paper  network and full-size bilinear logits, the input on the device already (as papers do it)
///   mask   the same, but read out as a mask
///   frame  8-bit frame in memory to 8-bit mask in memory
///   file   JPEG file to mask PNG file
///
/// Of paper and mask the results stay on the device. With --batch a run is so many frames. Percentiles interpolate linearly between
/// ranks; FPS is frames a second at the median.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The frame's size
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "2048x1024")]
    size: Size,

    /// Measure on this photo, at its own size, in place of noise
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    photo: Option<PathBuf>,

    /// A network of random parameters and Cityscapes' 19 classes
    #[arg(long, value_name = "slim|base", default_value_t = Variant::Slim, conflicts_with = "weights")]
    variant: Variant,

    /// Take these weights: a .safetensors file, a name that `rtformer pull` knows, or `embedded`
    #[arg(long, value_name = "FILE|NAME")]
    weights: Option<String>,

    #[command(flatten)]
    device: DeviceArgs,

    /// Frames that go through the network together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,

    /// The figures to measure
    #[arg(long, value_name = "STAGE,…", value_delimiter = ',', default_value = "paper,mask,frame,file")]
    stages: Vec<Stage>,

    /// Measured runs of each stage
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,

    /// Runs of each stage ahead of those, not measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    warmup: u32,

    /// Also write the figures, and where they are from, as JSON; `-` for standard output in place of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Also say where a `frame` goes: how long each operation takes, and how near the machine's measured peak it comes
    #[arg(long)]
    profile: bool,

    /// Measure nothing; compare two files that --json wrote
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"], conflicts_with_all = [
        "size", "photo", "variant", "weights", "DeviceArgs", "batch", "stages", "runs", "warmup", "json", "profile",
    ])]
    compare: Option<Vec<PathBuf>>,
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    if let Some([a, b]) = args.compare.as_deref() {
        return compare::run(a, b, console);
    }
    let frame = match &args.photo {
        Some(photo) => frame::photo(photo)?,
        None => frame::noise(args.size()?),
    };
    let segmenter = args.segmenter()?;
    console.detail(&segmenter.to_string());
    let stages = stages::measure(args, &segmenter, &frame, console)?;
    let profile = args.profile.then(|| Profile::measure(&segmenter, &frame, args.runs, args.warmup)).transpose()?;
    let report = Report::new(args, frame.dimensions().into(), &segmenter, stages, profile);

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

    /// Width and height of the frame of noise.
    fn size(&self) -> anyhow::Result<[u32; 2]> {
        let Size::Exact { width, height } = self.size else {
            let size = self.size;
            return Err(misuse(format!("--size {size} is no frame's size: write WIDTHxHEIGHT, as in 2048x1024")));
        };
        let (pixels, most) = (u64::from(width) * u64::from(height), Limits::default().max_pixels);
        if pixels > most {
            return Err(misuse(format!("--size {width}x{height} is {pixels} pixels, a photo has at most {most}")));
        }
        Ok([width, height])
    }

    fn segmenter(&self) -> anyhow::Result<Segmenter> {
        let builder = self.device.builder();
        let Some(weights) = &self.weights else { return opened(bench::random(self.variant, builder)) };
        opened(match weights_path(weights)? {
            Some(path) => builder.weights(path).build(),
            None => builder.build(),
        })
    }
}
