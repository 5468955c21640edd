//! The flags that say which network runs, and where: `segment` and `eval` take both, `bench` has a random network too.

use std::path::{Path, PathBuf};

use rtformer::weights::{Official, Weights};
use rtformer::{Builder, Device, ErrorKind, Precision, Segmenter};

use super::misuse;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct ModelArgs {
    /// Weights: a .safetensors file, a name that `rtformer pull` knows, or `embedded`
    #[arg(long, value_name = "FILE|NAME", default_value = "embedded")]
    pub(super) weights: String,

    #[command(flatten)]
    pub(super) device: DeviceArgs,
}

/// Where the network runs, and in what arithmetic.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DeviceArgs {
    /// Where to run: auto, cpu, cuda, cuda:N, metal, or reference (slow and plain)
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(super) device: Device,

    /// The arithmetic to run in: f32 (exact; what CPUs do unless told), bf16 (faster, on CPUs with AVX512-BF16), or f16 (faster;
    /// what GPUs do unless told)
    #[arg(long, value_name = "PRECISION")]
    pub(super) precision: Option<Precision>,

    /// CPU threads; 0 takes as many as the machine has cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) threads: usize,
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
}

impl DeviceArgs {
    /// A builder with these flags, its weights not named yet.
    pub(super) fn builder(&self) -> Builder {
        if self.threads > 0 {
            // Preparing and drawing pictures keep to the limit as well. It can be set once; only a second call fails.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build_global();
        }
        let builder = Segmenter::builder().device(self.device).threads(self.threads);
        self.precision.map_or(builder.clone(), |precision| builder.precision(precision))
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
