//! The flags that say which network runs, and where: `segment` and `eval` take both, `bench` has a random network too.

use std::path::{Path, PathBuf};

use rtformer::backend::Cpu;
use rtformer::weights::{Official, Weights};
use rtformer::{Builder, Device, ErrorKind, Padding, Precision, Segmenter};

use super::misuse;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ModelArgs {
    /// Weights: a .safetensors file, a name that `rtformer pull` knows, or `embedded`
    #[arg(long, value_name = "FILE|NAME", default_value = "embedded")]
    pub(super) weights: String,

    #[command(flatten)]
    pub(super) device: DeviceArgs,
}

const MOST_THREADS: i64 = Cpu::MOST_THREADS as i64;

/// Where the network runs, in what arithmetic, and on how large an input.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DeviceArgs {
    /// Where to run: auto, cpu, cuda, cuda:N, metal, or reference (slow and plain)
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(super) device: Device,

    /// The arithmetic to run in: f32 (exact; what CPUs do unless told), bf16 (faster, on CPUs with AVX512-BF16), or f16 (faster;
    /// what GPUs do unless told)
    #[arg(long, value_name = "PRECISION")]
    pub(super) precision: Option<Precision>,

    /// CPU threads, at most 1024; 0 uses as many as the machine has cores
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=MOST_THREADS))]
    pub(super) threads: u16,

    /// Pad photos at the bottom and on the right to a multiple of N pixels (1 to 256) before the network sees them, or `none`; masks
    /// keep the photo's size [default: as the weights say]
    #[arg(long, value_name = "N|none")]
    pub(super) pad: Option<Padding>,
}

impl ModelArgs {
    /// A builder with these flags, its weights not opened yet.
    pub(super) fn builder(&self) -> anyhow::Result<Builder> {
        let builder = self.device.builder();
        Ok(match weights_path(&self.weights)? {
            Some(path) => builder.weights(path),
            None => builder,
        })
    }

    /// The SHA-256 of the weights, which tells whether two runs used the same ones.
    pub(super) fn digest(&self) -> anyhow::Result<String> {
        let weights = match weights_path(&self.weights)? {
            Some(path) => Weights::open(path)?,
            None => embedded()?,
        };
        Ok(weights.digest())
    }
}

impl DeviceArgs {
    /// A builder with these flags, its weights not named yet.
    pub(super) fn builder(&self) -> Builder {
        let mut builder = Segmenter::builder().device(self.device).threads(usize::from(self.threads));
        builder = builder.pad(self.pad.unwrap_or_default());
        self.precision.map_or(builder.clone(), |precision| builder.precision(precision))
    }

    /// Starts the threads of everything but the network, such as drawing pictures: as many as it has. Once in the program's life.
    pub(super) fn start_threads(&self) -> anyhow::Result<()> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(usize::from(self.threads));
        pool.build_global()
            .map_err(|e| misuse(format!("--threads {}: cannot start the threads: {e}; use fewer", self.threads)))
    }
}

/// A segmenter, opened. A device that was asked for and cannot be had is a command that cannot be obeyed.
pub(super) fn opened(segmenter: rtformer::Result<Segmenter>) -> anyhow::Result<Segmenter> {
    segmenter.map_err(|error| match error.kind() {
        ErrorKind::Device | ErrorKind::OutOfMemory => misuse(error.to_string()),
        _ => error.into(),
    })
}

/// The weights that are compiled into the program.
pub(super) fn embedded() -> rtformer::Result<Weights> {
    #[cfg(feature = "embedded-weights")]
    return Segmenter::embedded_weights();
    #[cfg(not(feature = "embedded-weights"))]
    return Err(rtformer::Error::NoWeights);
}

/// The file that `--weights` stands for; `None` for the embedded weights.
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
    Err(misuse(format!("weights `{name}` are not on this machine yet: `rtformer pull {name}` fetches them")))
}

#[cfg(not(feature = "download"))]
fn pulled(official: &Official) -> anyhow::Result<PathBuf> {
    let Official { name, url, .. } = official;
    Err(misuse(format!(
        "weights `{name}`: this program was built without the feature `download`; fetch {url}, run `rtformer convert` on it and \
         name the converted file"
    )))
}

/// Where `pull` keeps a converted model.
#[cfg(feature = "download")]
pub(super) fn pulled_path(official: &Official) -> anyhow::Result<PathBuf> {
    Ok(rtformer::weights::cache_dir()?.join(format!("{}.safetensors", official.name)))
}
