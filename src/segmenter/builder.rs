//! The options of a segmenter, and how one is made.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::Segmenter;
use super::device::{self, Device, Precision};
use super::engine::{Engine, Loaded};
use super::scene::Labels;
use crate::backend::{Cpu, Reference};
use crate::error::{Error, Result};
use crate::model::{Config, Parameters};
use crate::pixels::{Normalization, Palette, Size};
use crate::weights::{Dataset, Weights};

/// Opens a [`Segmenter`]. Everything has a default: the embedded weights, the fastest device, all cores, the photo's own size, and
/// the mask alone.
///
/// ```
/// use rtformer::{Device, Segmenter, Size};
///
/// # fn main() -> rtformer::Result<()> {
/// let segmenter = Segmenter::builder()
///     .device(Device::Cpu)
///     .threads(2)
///     .size(Size::Exact { width: 64, height: 48 })
///     .confidence(true)
///     .build()?;
/// assert_eq!(segmenter.threads(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    weights: Option<PathBuf>,
    device: Device,
    precision: Precision,
    threads: usize,
    readout: Readout,
}

impl Builder {
    /// A `.safetensors` file of this project; see `rtformer convert`.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let builder = Segmenter::builder().weights("tests/data/golden/tiny.safetensors").device(Device::Cpu);
    /// assert_eq!(builder.build()?.config().num_classes, 5);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn weights(mut self, path: impl Into<PathBuf>) -> Self {
        self.weights = Some(path.into());
        self
    }

    /// Where the network is to run. One that is asked for by name and missing is an error, never replaced.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// In which arithmetic. One that the device does not have is an error, never replaced.
    ///
    /// ```
    /// # use rtformer::{Precision, Segmenter};
    /// assert_eq!(Segmenter::builder().precision(Precision::F32).build()?.precision(), Precision::F32);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Threads of the CPU; 0, the default, takes as many as the machine has cores.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The size that photos are resized to ahead of the network. Masks have the photo's own size all the same.
    ///
    /// ```
    /// # use rtformer::{Segmenter, Size};
    /// let segmenter = Segmenter::builder().size(Size::Exact { width: 64, height: 32 }).build()?;
    /// let photo = image::RgbImage::new(96, 48);
    /// assert_eq!(segmenter.prepare(&photo)?.width, 64);
    /// assert_eq!(segmenter.segment(&photo)?.mask().width(), 96);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn size(mut self, size: Size) -> Self {
        self.readout.size = size;
        self
    }

    /// Also gives the probability of each pixel's class.
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// let scene = Segmenter::builder().confidence(true).build()?.segment(&image::RgbImage::new(64, 48))?;
    /// assert!(scene.confidence().is_some_and(|p| p.iter().all(|p| (0.0..=1.0).contains(p))));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn confidence(mut self, wanted: bool) -> Self {
        self.readout.confidence = wanted;
        self
    }

    /// Also gives the full-size logits: `classes` floats a pixel.
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// let scene = Segmenter::builder().logits(true).build()?.segment(&image::RgbImage::new(64, 48))?;
    /// assert_eq!(scene.logits().map(<[f32]>::len), Some(11 * 48 * 64));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn logits(mut self, wanted: bool) -> Self {
        self.readout.logits = wanted;
        self
    }

    /// Pixels whose class has a lower probability than this become the mask's [ignore id](crate::pixels::Mask::ignore_id).
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// let scene = Segmenter::builder().reject_below(1.0).build()?.segment(&image::RgbImage::new(64, 48))?;
    /// assert!(scene.mask().iter().any(|id| id == scene.mask().ignore_id()), "few pixels are that certain");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn reject_below(mut self, probability: f32) -> Self {
        self.readout.reject_below = Some(probability);
        self
    }

    /// Opens the weights and takes them to the device.
    ///
    /// ```
    /// # use rtformer::{Error, Segmenter};
    /// let refused = Segmenter::builder().weights("tests/data/golden/photo.png").build();
    /// assert!(matches!(refused, Err(Error::Weights { .. })), "a photo is no weights file");
    /// ```
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Weights`] and the tensor errors for the weights, [`Error::Config`] for their configuration,
    /// [`Error::Device`] for the device.
    pub fn build(self) -> Result<Segmenter> {
        let weights = match &self.weights {
            Some(path) => Weights::open(path)?,
            None => Segmenter::embedded_weights()?,
        };
        let path = weights.path().to_path_buf();
        let config = Config::of(&weights)?;
        let dataset = weights.dataset()?;
        if dataset.classes.len() != config.num_classes {
            let (names, outputs) = (dataset.classes.len(), config.num_classes);
            return Err(Error::weights(
                &path,
                format!("its metadata names {names} classes, its configuration has {outputs}"),
            ));
        }
        let mut reader = weights.reader(config.name());
        let segmenter = self.load(path, config, dataset, weights.temperature()?, &mut reader).map_err(|e| match e {
            Error::Config(reason) => Error::weights(weights.path(), reason),
            other => other,
        })?;
        reader.finish()?;
        Ok(segmenter)
    }

    /// A segmenter of any parameters; `weights` names them.
    pub(super) fn load(
        self,
        weights: PathBuf,
        config: Config,
        dataset: Dataset,
        temperature: f32,
        parameters: &mut dyn Parameters,
    ) -> Result<Segmenter> {
        if let Some(p) = self.readout.reject_below.filter(|p| !(0.0..=1.0).contains(p)) {
            return Err(Error::Input(format!("pixels cannot be rejected below {p}: a probability is 0 to 1")));
        }
        let (device, reason) = self.device.resolve()?;
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let unfit = |has: &str| {
            let reason = format!("it runs in {has}, not in {}", self.precision);
            Error::Device { device: device.to_string(), reason }
        };
        let (engine, instruction_set, threads): (Box<dyn Engine>, _, _) = match device {
            Device::Reference => {
                if self.precision != Precision::F32 {
                    return Err(unfit("f32"));
                }
                (Box::new(Loaded::new(Reference::folded(), &config, parameters)?), "candle", all())
            }
            Device::Cuda(number) => {
                let element = self.precision.on_gpu().ok_or_else(|| unfit("f32 and f16"))?;
                let gpu = crate::backend::cuda(number, element)?;
                (Box::new(Loaded::new(gpu, &config, parameters)?), "cuda", all())
            }
            #[cfg(target_os = "macos")]
            Device::Metal => {
                let element = self.precision.on_gpu().ok_or_else(|| unfit("f32 and f16"))?;
                let gpu = crate::backend::metal(element)?;
                (Box::new(Loaded::new(gpu, &config, parameters)?), "metal", all())
            }
            _ => {
                let cpu = Cpu::new(device::instruction_set()?, self.threads)?;
                let cpu = match self.precision {
                    Precision::F32 => cpu,
                    Precision::Bf16 => cpu.bf16()?,
                    Precision::F16 => return Err(unfit("f32 and bf16")),
                };
                let (isa, threads) = (cpu.isa().name(), cpu.threads());
                (Box::new(Loaded::new(cpu, &config, parameters)?), isa, threads)
            }
        };
        let palette = Palette::new(dataset.classes.iter().map(|class| class.color).collect());
        let normalization = Normalization { mean: dataset.mean, std: dataset.std };
        Ok(Segmenter {
            weights,
            config,
            labels: Arc::new(Labels { dataset, palette }),
            normalization,
            temperature,
            engine,
            device,
            reason,
            instruction_set,
            threads,
            precision: self.precision,
            readout: self.readout,
            spares: Mutex::default(),
        })
    }
}

/// What a photo is turned into, and what is read from its logits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readout {
    pub(super) size: Size,
    pub(super) confidence: bool,
    pub(super) logits: bool,
    pub(super) reject_below: Option<f32>,
}

impl Readout {
    /// Whether anything that is read out needs the probabilities.
    pub(super) fn needs_confidence(self) -> bool {
        self.confidence || self.reject_below.is_some()
    }
}
