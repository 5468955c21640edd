//! How fast it is here: the network as papers time it, and what a user waits for, side by side.

mod machine;
mod profile;
mod stats;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use rtformer::files::write_whole;
use rtformer::pixels::{Image, IndexedPicture, Input, Limits, Mask};
use rtformer::{Segmenter, Size};
use serde::Serialize;

use super::model::{DeviceArgs, weights_path};
use super::{Outcome, console::Console, misuse};
use machine::Machine;
use profile::{Line, Profile};
use stats::Figures;

/// Measure how fast the network is on this machine
///
/// Four figures, measured in turns on random noise, so that what else the machine does hits all alike:
///
///   paper  network and full-size bilinear logits, the input on the device already (as papers do it)
///   mask   the same, but read out as a mask
///   frame  8-bit frame in memory to 8-bit mask in memory
///   file   JPEG file to mask PNG file
///
/// Percentiles interpolate linearly between ranks; FPS is one second over the median.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The frame's size
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "2048x1024")]
    size: Size,

    /// A network of random parameters and Cityscapes' 19 classes
    #[arg(long, value_parser = ["slim", "base"], default_value = "slim", conflicts_with = "weights")]
    variant: String,

    /// Take these weights: a .safetensors file, a name that `rtformer pull` knows, or `embedded`
    #[arg(long, value_name = "FILE|NAME")]
    weights: Option<String>,

    #[command(flatten)]
    device: DeviceArgs,

    /// Measured runs of each stage
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,

    /// Runs of each stage ahead of those, not measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    warmup: u32,

    /// Also write the figures, and where they are from, as JSON; `-` for standard output in place of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Also say how long each operation takes, and how near the machine's measured peak it comes
    #[arg(long)]
    profile: bool,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    stages: Stages<Figures>,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<String>,
    size: [u32; 2],
    classes: usize,
    machine: Machine,
    threads: usize,
    instruction_set: String,
    precision: String,
    device: String,
    commit: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<String>,
    runs: u32,
    warmup: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Vec<Line>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_gflops: Option<f64>,
}

/// One of each stage.
#[derive(Debug, Serialize)]
struct Stages<T> {
    paper: T,
    mask: T,
    frame: T,
    file: T,
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    let Size::Exact { width, height } = args.size else {
        let size = args.size;
        return Err(misuse(format!("--size {size} is no frame's size: write WIDTHxHEIGHT, as in 2048x1024")));
    };
    let (pixels, most) = (u64::from(width) * u64::from(height), Limits::default().max_pixels);
    if pixels > most {
        return Err(misuse(format!("--size {width}x{height} is {pixels} pixels, a photo has at most {most}")));
    }
    let segmenter = open(args)?;
    console.detail(&segmenter.to_string());
    let frame = noise(width, height);
    let input = segmenter.prepare(&frame)?;
    let stages = measure(args, &segmenter, &frame, &input, console)?;
    let profile = args.profile.then(|| Profile::measure(&segmenter, &input)).transpose()?;
    let report = Report::new(args, [width, height], &segmenter, stages);

    let mut table = report.table();
    if let Some(profile) = &profile {
        table += "\n";
        table += &profile.table();
    }
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    if to_stdout {
        console.note(table.trim_end());
    } else {
        std::io::stdout().lock().write_all(table.as_bytes())?;
    }
    report.warn(console);
    if let Some(path) = &args.json {
        let (profile, peak_gflops) = profile.map_or((None, None), |p| (Some(p.lines), p.peak_gflops));
        let mut json = serde_json::to_string_pretty(&Report { profile, peak_gflops, ..report })?;
        json.push('\n');
        if to_stdout {
            std::io::stdout().lock().write_all(json.as_bytes())?;
        } else {
            write_whole(path, |file| file.write_all(json.as_bytes()))?;
        }
    }
    Ok(Outcome::Done)
}

fn open(args: &Args) -> anyhow::Result<Segmenter> {
    let builder = args.device.builder();
    let Some(weights) = &args.weights else { return Ok(Segmenter::random(&args.variant, builder)?) };
    Ok(match weights_path(weights)? {
        Some(path) => builder.weights(path).build()?,
        None => builder.build()?,
    })
}

/// Times the stages, one run of each after the other, and says how long each took.
fn measure(
    args: &Args,
    segmenter: &Segmenter,
    frame: &RgbImage,
    input: &Input,
    console: &Console,
) -> anyhow::Result<Stages<Figures>> {
    let folder = tempfile::tempdir().context("no temporary folder for the photo and its mask")?;
    let (photo, picture) = (folder.path().join("frame.jpg"), folder.path().join("frame.mask.png"));
    write_whole(&photo, |file| {
        JpegEncoder::new_with_quality(file, 90).encode_image(frame).map_err(std::io::Error::other)
    })?;
    let (width, height) = frame.dimensions();
    let classes = segmenter.config().num_classes;
    let resident = segmenter.resident(input)?;
    let mut logits = Vec::new();
    let floats = width as usize * height as usize * classes;
    if logits.try_reserve_exact(floats).is_err() {
        return Err(misuse(format!("{classes} floats for each of {width}x{height} pixels do not fit into memory")));
    }
    let [mut in_mask, mut in_frame, mut in_file] = [(); 3].map(|()| Mask::new(width, height, classes));
    let mut stages: [Box<dyn FnMut() -> rtformer::Result<()> + '_>; 4] = [
        Box::new(|| resident.logits(&mut logits)),
        Box::new(|| resident.mask(&mut in_mask)),
        Box::new(|| segmenter.segment_into(frame, &mut in_frame).map(drop)),
        Box::new(|| {
            segmenter.segment_into(&Image::open(&photo)?, &mut in_file)?;
            IndexedPicture::new(&in_file, segmenter.palette()).save(&picture)
        }),
    ];
    let mut times: [Vec<f64>; 4] = Default::default();
    let all = args.warmup + args.runs;
    let bar = console.progress(u64::from(all), "runs");
    for run in 0..all {
        for (stage, times) in stages.iter_mut().zip(&mut times) {
            let start = Instant::now();
            stage()?;
            let took = start.elapsed();
            if run >= args.warmup {
                times.push(1e3 * took.as_secs_f64());
            }
        }
        bar.inc(1);
    }
    console.finish();
    let [paper, mask, frame, file] = times.map(|times| Figures::of(&times));
    Ok(Stages { paper, mask, frame, file })
}

impl Report {
    fn new(args: &Args, size: [u32; 2], segmenter: &Segmenter, stages: Stages<Figures>) -> Self {
        Self {
            stages,
            model: segmenter.config().name(),
            variant: args.weights.is_none().then(|| args.variant.clone()),
            weights: args.weights.is_some().then(|| segmenter.weights_name().display().to_string()),
            size,
            classes: segmenter.config().num_classes,
            machine: Machine::this(),
            threads: segmenter.threads(),
            instruction_set: segmenter.instruction_set().to_owned(),
            precision: segmenter.precision().to_string(),
            device: segmenter.device().to_string(),
            commit: env!("RTFORMER_COMMIT"),
            version: env!("CARGO_PKG_VERSION"),
            date: machine::now(),
            runs: args.runs,
            warmup: args.warmup,
            profile: None,
            peak_gflops: None,
        }
    }

    /// For a person to read: first where the figures are from, then they.
    fn table(&self) -> String {
        let Self { model, classes, size: [width, height], runs, warmup, .. } = self;
        let weights = self.weights.as_deref().unwrap_or("random parameters");
        let mut text = format!("{model} ({weights}), {classes} classes, {width}x{height}\n{}\n", self.machine);
        let Self { device, instruction_set, threads, precision, version, commit, .. } = self;
        let date = self.date.as_deref().map_or(String::new(), |date| format!("; {date}"));
        let _ = writeln!(text, "{device} ({instruction_set}, {threads} threads), {precision}");
        let _ = writeln!(text, "rtformer {version}, commit {commit}{date}");
        let _ = writeln!(text, "{runs} runs after {warmup} to warm up, stages in turns; milliseconds\n");
        let _ = writeln!(text, "stage    median       p90       p99       min       FPS");
        for (name, figures, what) in self.stages.rows() {
            let Figures { median_ms, p90_ms, p99_ms, min_ms, fps, .. } = figures;
            let _ = writeln!(text, "{name:5} {median_ms:9.2} {p90_ms:9.2} {p99_ms:9.2} {min_ms:9.2} {fps:9.2}  {what}");
        }
        text
    }

    fn warn(&self, console: &Console) {
        let noisy: Vec<_> = self.stages.rows().into_iter().filter(|(_, figures, _)| !figures.is_steady()).collect();
        if !noisy.is_empty() {
            let names: Vec<_> = noisy.iter().map(|(name, ..)| *name).collect();
            console.note(&format!(
                "note: {} varied widely (p90 over 1.25 times the median): the machine is busy; close other programs, and take the \
                 min or more --runs",
                names.join(", ")
            ));
        }
    }
}

impl<T> Stages<T> {
    /// Name, value, and what the stage is.
    fn rows(&self) -> [(&'static str, &T, &'static str); 4] {
        [
            ("paper", &self.paper, "network and full-size logits, input on the device (the papers' protocol)"),
            ("mask", &self.mask, "network and mask, input on the device"),
            ("frame", &self.frame, "8-bit frame in memory to 8-bit mask in memory"),
            ("file", &self.file, "JPEG file to mask PNG, the disk's cache warm"),
        ]
    }
}

/// A frame of noise that is smooth over some pixels: white noise would take a JPEG decoder several times as long as any photo.
fn noise(width: u32, height: u32) -> RgbImage {
    const CELL: u32 = 32;
    let corner = |x: u32, y: u32, channel: u32| (hash(x, y, channel) >> 56) as f32;
    RgbImage::from_fn(width, height, |x, y| {
        let (left, top) = (x / CELL, y / CELL);
        let (right, down) = ((x % CELL) as f32 / CELL as f32, (y % CELL) as f32 / CELL as f32);
        let grain = (hash(x, y, 3) >> 60) as f32 - 7.5;
        Rgb([0, 1, 2].map(|channel| {
            let [above, below] = [top, top + 1].map(|row| {
                let start = corner(left, row, channel);
                start + (corner(left + 1, row, channel) - start) * right
            });
            (above + (below - above) * down + grain) as u8 // saturates
        }))
    })
}

/// The same 64 random bits for the same place. Finaliser of splitmix64 (Steele, Lea and Flood, 2014).
fn hash(x: u32, y: u32, channel: u32) -> u64 {
    let mut z = (u64::from(x) | u64::from(y) << 28 | u64::from(channel) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
