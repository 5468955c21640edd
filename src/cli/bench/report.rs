//! The figures and the conditions of their measurement: as a table, and as the JSON that `--json` writes and `--compare` reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rtformer::{Segmenter, Size};
use serde::{Deserialize, Serialize};

use super::super::console::counted;
use super::super::stats::Figures;
use super::machine::{self, Machine};
use super::profile::Profile;
use super::scaling::Scaling;
use super::stages::Stage;
use super::video::Video;
use super::{Args, Console};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) stages: BTreeMap<Stage, Figures>,
    pub(super) model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) variant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) weights: Option<String>,
    /// `None` for noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) photo: Option<String>,
    /// Width and height of the frame.
    pub(super) size: [u32; 2],
    /// The size at which the network sees the photo, unless it is the photo's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) network_size: Option<String>,
    /// What `--flip` and `--scales` add to the stages `frame` and `file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) augmentation: Option<String>,
    pub(super) classes: usize,
    pub(super) machine: Machine,
    pub(super) threads: usize,
    pub(super) instruction_set: String,
    pub(super) precision: String,
    pub(super) device: String,
    pub(super) commit: String,
    pub(super) version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) date: Option<String>,
    pub(super) runs: u32,
    pub(super) warmup: u32,
    /// The number of frames per run.
    #[serde(default = "one")]
    pub(super) batch: u32,
    /// Frames are padded to a multiple of this number of pixels; 1 means no padding.
    #[serde(default = "one")]
    pub(super) pad_multiple: u32,
    /// Only with `--adaptive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) adaptive: Option<Adaptive>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<Profile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) video: Option<Video>,
    /// Only with several numbers of threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scaling: Option<Scaling>,
}

/// What is computed of the frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Adaptive {
    pub(super) epsilon: f64,
    pub(super) policy: String,
    /// The share of the full network's multiplications.
    pub(super) compute_share: f64,
}

/// The value for files that were written before the key existed.
fn one() -> u32 {
    1
}

impl Report {
    pub(super) fn new(
        args: &Args,
        size: [u32; 2],
        segmenter: &Segmenter,
        stages: BTreeMap<Stage, Figures>,
        profile: Option<Profile>,
        video: Option<Video>,
        scaling: Option<Scaling>,
    ) -> Self {
        Self {
            stages,
            model: segmenter.model().name(),
            variant: args.weights.is_none().then(|| args.variant.to_string()),
            weights: args.weights.is_some().then(|| segmenter.weights_name().display().to_string()),
            photo: args.photo.as_ref().map(|photo| photo.display().to_string()),
            size,
            network_size: args
                .photo
                .as_ref()
                .and(args.size)
                .filter(|size| *size != Size::Native)
                .map(|size| size.to_string()),
            augmentation: args.augment.text(),
            classes: segmenter.model().num_classes(),
            machine: Machine::this(),
            threads: segmenter.threads(),
            instruction_set: segmenter.instruction_set().to_owned(),
            precision: segmenter.arithmetic(),
            device: segmenter.device().to_string(),
            commit: env!("RTFORMER_COMMIT").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            date: machine::now(),
            runs: args.runs,
            warmup: args.warmup,
            batch: args.batch,
            pad_multiple: segmenter.pad_multiple(),
            adaptive: None,
            profile,
            video,
            scaling,
        }
    }

    /// The network, its parameters and the frame.
    pub(super) fn what(&self) -> String {
        let Self { model, classes, size: [width, height], .. } = self;
        let weights = self.weights.as_deref().unwrap_or("random parameters");
        let frame = self.photo.as_ref().map_or("noise".into(), |photo| format!("`{photo}`"));
        let seen = self.network_size.as_ref().map_or(String::new(), |size| format!(", seen at {size}"));
        let versions = self.augmentation.as_ref().map_or(String::new(), |text| format!("; frame and file with {text}"));
        format!("{model} ({weights}), {classes} classes, {width}x{height} of {frame}{seen}{versions}")
    }

    /// The device and the precision.
    pub(super) fn how(&self) -> String {
        let Self { device, instruction_set, threads, precision, .. } = self;
        format!("{device} ({instruction_set}, {}), {precision}", counted(*threads, "thread"))
    }

    /// The program and the time of the measurement.
    pub(super) fn whence(&self) -> String {
        let date = self.date.as_deref().map_or(String::new(), |date| format!("; {date}"));
        format!("rtformer {}, commit {}{date}", self.version, self.commit)
    }

    /// The text form: first the conditions, then the figures.
    pub(super) fn table(&self) -> String {
        let Self { machine, runs, warmup, batch, .. } = self;
        let (what, how, whence) = (self.what(), self.how(), self.whence());
        let (runs, warmup) = (counted(*runs as usize, "run"), counted(*warmup as usize, "warm-up run"));
        let mut text = format!("{what}\n{machine}\n{how}\n{whence}\n");
        let _ = writeln!(text, "{runs} of batch size {batch} after {warmup}, stages in turns; times in milliseconds\n");
        let _ = writeln!(text, "stage    median       p90       p99       min       FPS");
        for (stage, figures) in &self.stages {
            let Figures { median_ms, p90_ms, p99_ms, min_ms, fps, .. } = figures;
            let (name, what) = (stage.name(), stage.what());
            let _ = writeln!(text, "{name:5} {median_ms:9.2} {p90_ms:9.2} {p99_ms:9.2} {min_ms:9.2} {fps:9.2}  {what}");
        }
        if let Some(Adaptive { epsilon, policy, compute_share }) = &self.adaptive {
            let share = 100.0 * compute_share;
            let _ = writeln!(
                text,
                "\nadaptive at {epsilon}, `{policy}`: {share:.1} % of the full network's multiplications"
            );
        }
        if let Some(video) = &self.video {
            text += &video.table();
        }
        if let Some(profile) = &self.profile {
            text += "\n";
            text += &profile.table();
        }
        if let Some(scaling) = &self.scaling {
            text += "\n";
            text += &scaling.table();
        }
        text
    }

    pub(super) fn warn(&self, console: &Console) {
        let noisy = self.stages.iter().filter(|(_, figures)| !figures.is_steady());
        let names: Vec<_> = noisy.map(|(stage, _)| stage.name()).collect();
        if !names.is_empty() {
            console.note(&format!(
                "note: {} varied widely (p90 over 1.25 times the median) because the machine is busy; close other programs, increase \
                 --runs, or use the min column",
                names.join(", ")
            ));
        }
    }
}
