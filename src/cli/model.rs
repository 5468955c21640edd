//! The flags that choose the network and the device. `segment` and `eval` use both groups; `bench` can also use a random network.

use std::path::{Path, PathBuf};

use rtformer::backend::Cpu;
use rtformer::weights::{Official, Weights};
use rtformer::{Augmentation, Builder, Classes, Decision, Device, ErrorKind, Padding, Precision, Segmenter};

use super::misuse;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ModelArgs {
    /// Weights: a .safetensors file, a name that `rtformer pull` knows, or `embedded`
    #[arg(long, value_name = "FILE|NAME", default_value = "embedded")]
    pub(super) weights: String,

    #[command(flatten)]
    pub(super) augment: AugmentArgs,

    /// What the class of each pixel is chosen for: argmax (its most probable class), or the best expected mean IoU or Dice of each photo (iou,
    /// dice), which are slower and need memory for all probabilities
    #[arg(long, value_name = "argmax|iou|dice", default_value = "argmax")]
    pub(super) decide: Decision,

    /// Classes to keep, separated by commas; pixels of all others get the ignore id (255, or 65535 if there are more than 255 classes)
    /// [default: all]
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',')]
    classes: Vec<String>,

    /// Merge classes into one, such as vehicle=car,truck,bus; can be repeated. It has the id and the colour of the first. The network decides
    /// among its own classes first
    #[arg(long, value_name = "NAME=CLASS,…", value_parser = merge)]
    merge: Vec<(String, Vec<String>)>,

    #[command(flatten)]
    pub(super) device: DeviceArgs,
}

/// The flags for test-time augmentation.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AugmentArgs {
    /// Average the logits of the photo and its mirror image: more accurate, and twice as slow
    #[arg(long)]
    flip: bool,

    /// Average the logits of the photo at these factors of its size, 0.1 to 4, separated by commas, such as 0.75,1,1.25 [default: 1]
    #[arg(long, value_name = "FACTOR,…", value_delimiter = ',')]
    scales: Vec<f64>,
}

impl AugmentArgs {
    pub(super) fn augmentation(&self) -> Augmentation {
        Augmentation { flip: self.flip, scales: self.scales.clone() }
    }

    /// The flags as text; `None` without any.
    pub(super) fn text(&self) -> Option<String> {
        let Self { flip, scales } = self;
        let scales: Vec<_> = scales.iter().map(ToString::to_string).collect();
        let flip = flip.then(|| "flip".to_owned());
        let scales = (!scales.is_empty()).then(|| format!("scales {}", scales.join(",")));
        let parts: Vec<_> = flip.into_iter().chain(scales).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

fn merge(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, classes) = text
        .split_once('=')
        .filter(|(name, classes)| !name.is_empty() && !classes.is_empty())
        .ok_or_else(|| format!("`{text}` is not a name and classes; expected something like vehicle=car,truck,bus"))?;
    Ok((name.to_owned(), classes.split(',').map(str::to_owned).collect()))
}

const MOST_THREADS: i64 = Cpu::MOST_THREADS as i64;

/// The device, the precision, the number of threads, and the padding.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DeviceArgs {
    /// Device to run on: auto, cpu, cuda, cuda:N, metal, or reference (a simple, slow implementation)
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(super) device: Device,

    /// Precision of the arithmetic: f32 (exact), bf16 (faster, on CPUs with AVX512-BF16), or f16 (faster, on GPUs) [default: f32 on
    /// CPUs, f16 on GPUs]
    #[arg(long, value_name = "PRECISION")]
    pub(super) precision: Option<Precision>,

    /// Number of CPU threads, at most 1024; 0 uses one thread per core that this process may use (see `rtformer info`). `bench` takes
    /// several numbers, separated by commas, and compares them
    #[arg(long, value_name = "N", default_value = "0", value_delimiter = ',', num_args = 1, action = clap::ArgAction::Set,
        value_parser = clap::value_parser!(u16).range(0..=MOST_THREADS))]
    pub(super) threads: Vec<u16>,

    /// Pad photos at the bottom and on the right to a multiple of N pixels (1 to 256) before the network sees them, or `none`; masks
    /// keep the photo's size [default: as stored in the weights]
    #[arg(long, value_name = "N|none")]
    pub(super) pad: Option<Padding>,
}

impl ModelArgs {
    /// A builder with these flags. The weights are not opened yet.
    pub(super) fn builder(&self) -> anyhow::Result<Builder> {
        let builder =
            self.device.builder().augment(self.augment.augmentation()).classes(self.classes()).decide(self.decide);
        with_weights(builder, &self.weights)
    }

    /// The classes that masks have.
    pub(super) fn classes(&self) -> Classes {
        Classes { merge: self.merge.clone(), keep: self.classes.clone() }
    }

    /// `--classes` and `--merge` as text; `None` without any.
    pub(super) fn classes_text(&self) -> Option<String> {
        let merged = self.merge.iter().map(|(name, classes)| format!("{name}={}", classes.join(",")));
        let kept = (!self.classes.is_empty()).then(|| self.classes.join(","));
        let parts: Vec<_> = merged.chain(kept).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// The ids and names of the classes that masks have.
    pub(super) fn kept_classes(&self) -> anyhow::Result<Vec<(u16, String)>> {
        Ok(self.classes().kept(&self.opened()?.dataset()?)?)
    }

    /// The SHA-256 of the weights, which tells whether two runs used the same ones.
    pub(super) fn digest(&self) -> anyhow::Result<String> {
        Ok(self.opened()?.digest())
    }

    /// The weights file.
    pub(super) fn opened(&self) -> anyhow::Result<Weights> {
        named(&self.weights)
    }
}

impl DeviceArgs {
    /// A builder with these flags. The weights are not set yet.
    pub(super) fn builder(&self) -> Builder {
        let mut builder = Segmenter::builder().device(self.device).threads(self.first_threads());
        builder = builder.pad(self.pad.unwrap_or_default());
        self.precision.map_or(builder.clone(), |precision| builder.precision(precision))
    }

    /// The number of threads, or the first of several; 0 for the default.
    fn first_threads(&self) -> usize {
        self.threads.first().map_or(0, |&threads| usize::from(threads))
    }

    /// Starts the threads for all work outside the network, such as drawing pictures; their number is the same as the network's. Must be
    /// called only once. `several` says whether the command takes several numbers of threads.
    pub(super) fn start_threads(&self, several: bool) -> anyhow::Result<()> {
        if self.threads.len() > 1 && !several {
            return Err(misuse("--threads has several numbers, expected one; only `bench` compares several"));
        }
        let threads = match self.first_threads() {
            0 => rtformer::backend::Threads::of_this_process().number,
            threads => threads,
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global()
            .map_err(|e| misuse(format!("--threads {threads}: cannot start the threads: {e}; use fewer")))
    }
}

/// Returns the opened segmenter. If the requested device is not available, the error is a [`Misuse`](super::Misuse).
pub(super) fn opened(segmenter: rtformer::Result<Segmenter>) -> anyhow::Result<Segmenter> {
    segmenter.map_err(|error| match error.kind() {
        ErrorKind::Device | ErrorKind::OutOfMemory => misuse(error.to_string()),
        _ => error.into(),
    })
}

/// A risk for `--adaptive`.
pub(super) fn epsilon(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| format!("`{text}` is not a risk from 0 to 1, such as 0.02"))
}

/// A strength of smoothing.
pub(super) fn strength(text: &str) -> Result<f32, String> {
    let value = text.parse::<f32>().ok().filter(|value| (0.0..1.0).contains(value));
    value.ok_or_else(|| format!("`{text}` is not a number from 0 to below 1"))
}

/// The weights that are compiled into the program.
pub(super) fn embedded() -> rtformer::Result<Weights> {
    #[cfg(feature = "embedded-weights")]
    return Segmenter::embedded_weights();
    #[cfg(not(feature = "embedded-weights"))]
    return Err(rtformer::Error::NoWeights);
}

/// The weights that `--weights` names.
pub(super) fn named(name: &str) -> anyhow::Result<Weights> {
    Ok(match weights_path(name)? {
        Some(path) => Weights::open(path)?,
        None => embedded()?,
    })
}

/// The builder with the weights that `--weights` names.
pub(super) fn with_weights(builder: Builder, name: &str) -> anyhow::Result<Builder> {
    Ok(match weights_path(name)? {
        Some(path) => builder.weights(path),
        None => builder,
    })
}

/// The file that `--weights` names; `None` for the embedded weights.
pub(super) fn weights_path(name: &str) -> anyhow::Result<Option<PathBuf>> {
    if name == "embedded" {
        return Ok(None);
    }
    let file = Path::new(name);
    match Official::named(name) {
        Some(official) if !file.exists() => pulled(official).map(Some),
        _ => Ok(Some(file.to_path_buf())),
    }
}

/// The model that `pull` converted.
#[cfg(feature = "download")]
fn pulled(official: &Official) -> anyhow::Result<PathBuf> {
    let path = pulled_path(official)?;
    if path.exists() {
        return Ok(path);
    }
    let name = official.name;
    Err(misuse(format!("weights `{name}` are not downloaded yet; run `rtformer pull {name}`")))
}

#[cfg(not(feature = "download"))]
fn pulled(official: &Official) -> anyhow::Result<PathBuf> {
    let Official { name, url, .. } = official;
    Err(misuse(format!(
        "weights `{name}`: this program was built without the feature `download`; download {url}, convert it with `rtformer convert` \
         and use the converted file"
    )))
}

/// The path where `pull` stores a converted model.
#[cfg(feature = "download")]
pub(super) fn pulled_path(official: &Official) -> anyhow::Result<PathBuf> {
    Ok(rtformer::weights::cache_dir()?.join(format!("{}.safetensors", official.name)))
}
