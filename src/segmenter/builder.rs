//! The options of a segmenter.

mod open;

use std::path::PathBuf;

use super::Segmenter;
use super::adaptive::{Calibrated, Policy};
use super::augment::Augmentation;
use super::classes::Classes;
use super::decide::Decision;
use super::device::{Device, Precision};
use super::embedded::default_weights;
use super::padding::Padding;
use super::tiles::Tiling;
use crate::backend::Isa;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::pixels::Size;
use crate::weights::Weights;

/// Opens a [`Segmenter`]. Every option has a default: the embedded weights, the fastest device, all cores, the photo's own size,
/// and no output except the mask.
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
    precision: Option<Precision>,
    threads: usize,
    isa: Option<Isa>,
    padding: Padding,
    readout: Readout,
    augmentation: Augmentation,
    classes: Classes,
    tiling: Option<Tiling>,
    exits: bool,
    adaptive: Option<f64>,
    policy: Policy,
    decision: Decision,
}

impl Builder {
    /// The weights: a `.safetensors` file that `rtformer convert` wrote.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let builder = Segmenter::builder().weights("tests/data/golden/tiny.safetensors").device(Device::Cpu);
    /// assert_eq!(builder.build()?.model().num_classes(), 5);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn weights(mut self, path: impl Into<PathBuf>) -> Self {
        self.weights = Some(path.into());
        self
    }

    /// The device that the network runs on. If a device that is selected by name is not available, opening fails; no other is used.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The arithmetic. The default is f16 on GPUs and f32 elsewhere. If the device does not support it, opening fails; no other is used.
    ///
    /// ```
    /// # use rtformer::{Precision, Segmenter};
    /// assert_eq!(Segmenter::builder().precision(Precision::F32).build()?.precision(), Precision::F32);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = Some(precision);
        self
    }

    /// The number of CPU threads. The default is 0: as many as the machine has cores.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The CPU's instruction set. The default is the one that the environment variable `RTFORMER_ISA` names, or else the fastest.
    ///
    /// An instruction set that this CPU lacks cannot be passed. [`Device::instruction_set`] selects one by name.
    ///
    /// ```
    /// use rtformer::{Device, Isa, Segmenter};
    ///
    /// let builder = Segmenter::builder().weights("tests/data/golden/tiny.safetensors");
    /// let isa = Device::instruction_set("avx2").unwrap_or(Isa::Scalar); // an error on a CPU without AVX2
    /// assert_eq!(builder.isa(isa).build()?.instruction_set(), isa.name());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// The size to which photos are resized before the network runs. Masks still have the photo's own size.
    ///
    /// ```
    /// # use rtformer::{Segmenter, Size};
    /// let segmenter = Segmenter::builder().size(Size::Exact { width: 64, height: 32 }).build()?;
    /// let photo = image::RgbImage::new(96, 48);
    /// assert_eq!(rtformer::bench::prepare(&segmenter, &photo)?.width, 64);
    /// assert_eq!(segmenter.segment(&photo)?.mask().width(), 96);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn size(mut self, size: Size) -> Self {
        self.readout.size = size;
        self
    }

    /// How photos are padded before the network runs. The default is what the weights' metadata say. Masks have the photo's own size.
    ///
    /// ```
    /// # use rtformer::{Padding, Segmenter};
    /// let segmenter = Segmenter::builder().pad(Padding::Multiple(32)).build()?;
    /// let photo = image::RgbImage::new(64, 40);
    /// assert_eq!(rtformer::bench::prepare(&segmenter, &photo)?.height, 64);
    /// assert_eq!(segmenter.segment(&photo)?.mask().height(), 40);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn pad(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// Computes less where the network is certain early, by the rule in the weights' metadata that `rtformer calibrate` certified for a
    /// risk of at most `epsilon` (a smaller risk is accepted). On the CPU only.
    ///
    /// ```
    /// # use rtformer::{Error, Segmenter};
    /// let refused = Segmenter::builder().adaptive(0.02).build();
    /// assert!(matches!(refused, Err(Error::Weights { .. })), "the embedded weights are not calibrated");
    /// ```
    pub fn adaptive(mut self, epsilon: f64) -> Self {
        self.adaptive = Some(epsilon);
        self
    }

    /// Also loads the auxiliary head if the weights have it, so that [`Segmenter::with_policy`] can use it. On the CPU only.
    pub fn exits(mut self, wanted: bool) -> Self {
        self.exits = wanted;
        self
    }

    /// Also returns the probability of each pixel's class.
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

    /// Also returns the full-size logits: `classes` floats per pixel.
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

    /// Averages the logits of several versions of each photo: more accurate, and slower by the number of versions. The default is the photo alone.
    ///
    /// ```
    /// # use rtformer::{Augmentation, Segmenter};
    /// let builder = Segmenter::builder().augment(Augmentation { flip: true, ..Augmentation::default() });
    /// assert!(builder.build().is_ok());
    /// ```
    pub fn augment(mut self, versions: Augmentation) -> Self {
        self.augmentation = versions;
        self
    }

    /// Segments photos in overlapping tiles, whose logits are blended. The default is the whole photo. For photos that do not fit in memory, see
    /// [`Segmenter::segment_strips`].
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// let tiled = Segmenter::builder().tile("64x64+16".parse()?).build()?;
    /// assert_eq!(tiled.segment(&image::RgbImage::new(150, 70))?.mask().width(), 150);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn tile(mut self, tiling: Tiling) -> Self {
        self.tiling = Some(tiling);
        self
    }

    /// Which classes masks have: some can be merged, others ignored. The default is all of the network's classes.
    ///
    /// ```
    /// # use rtformer::{Classes, Segmenter};
    /// let keep = |name: &str| Segmenter::builder().classes(Classes { keep: vec![name.into()], ..Classes::default() }).build();
    /// assert!(keep("road").is_ok());
    /// assert!(keep("rood").unwrap_err().to_string().contains("no class `rood`"));
    /// ```
    pub fn classes(mut self, classes: Classes) -> Self {
        self.classes = classes;
        self
    }

    /// Also returns the input of the network's head. On a GPU, photos then run one after the other.
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// let scene = Segmenter::builder().features(true).build()?.segment(&image::RgbImage::new(64, 48))?;
    /// assert_eq!(scene.features().map(|features| features.channels), Some(128));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn features(mut self, wanted: bool) -> Self {
        self.readout.features = wanted;
        self
    }

    /// What the class of each pixel is chosen for. The default is the most probable class. The other decisions compute full-size logits: they are slower, and
    /// need four bytes for each pixel and class.
    ///
    /// ```
    /// # use rtformer::{Decision, Segmenter};
    /// assert!(Segmenter::builder().decide(Decision::Iou).build().is_ok());
    /// ```
    pub fn decide(mut self, decision: Decision) -> Self {
        self.decision = decision;
        self
    }

    /// Pixels whose class has a lower probability than this become the mask's [ignore id](crate::pixels::Mask::ignore_id).
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// let scene = Segmenter::builder().reject_below(1.0).build()?.segment(&image::RgbImage::new(64, 48))?;
    /// assert!(scene.mask().iter().any(|id| id == scene.mask().ignore_id()), "few pixels have a probability of 1");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn reject_below(mut self, probability: f32) -> Self {
        self.readout.reject_below = Some(probability);
        self
    }

    /// Opens the weights and copies them to the device.
    ///
    /// ```
    /// # use rtformer::{Error, Segmenter};
    /// let refused = Segmenter::builder().weights("tests/data/golden/photo.png").build();
    /// assert!(matches!(refused, Err(Error::Weights { .. })), "a photo is not a weights file");
    /// ```
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Weights`] and the tensor errors for the weights, [`Error::Config`] for their configuration,
    /// [`Error::Device`] for the device; [`Error::NoWeights`] if no file is named and the Cargo feature `embedded-weights` is off.
    pub fn build(self) -> Result<Segmenter> {
        let weights = match &self.weights {
            Some(path) => Weights::open(path)?,
            None => default_weights()?,
        };
        let path = weights.path().to_path_buf();
        let model = Model::of(&weights)?;
        let dataset = weights.dataset()?;
        if dataset.classes.len() != model.num_classes() {
            let (names, outputs) = (dataset.classes.len(), model.num_classes());
            return Err(Error::weights(
                &path,
                format!("its metadata names {names} classes, but its configuration has {outputs}"),
            ));
        }
        let temperature = weights.temperature()?;
        let pad_multiple = self.padding.multiple(weights.pad_multiple()?)?;
        let (exits, policy) = self.exits_of(&weights, pad_multiple)?;
        let builder = Self { padding: Padding::Multiple(pad_multiple), exits, policy, ..self };
        builder.open(|builder| {
            let mut reader = weights.reader(model.name());
            let loaded = builder.load(path.clone(), &model, &dataset, temperature, &mut reader);
            let segmenter = loaded.map_err(|e| match e {
                Error::Config(reason) => Error::weights(weights.path(), reason),
                other => other,
            })?;
            reader.finish()?;
            Ok(segmenter)
        })
    }

    /// Whether to load the auxiliary head, and the policy.
    fn exits_of(&self, weights: &Weights, pad_multiple: u32) -> Result<(bool, Policy)> {
        let has_head = weights.shape("seghead_extra.conv2.weight").is_some();
        let Some(epsilon) = self.adaptive else { return Ok((self.exits && has_head, Policy::Full)) };
        let Some(rule) = Calibrated::of(weights)? else {
            return Err(Error::weights(
                weights.path(),
                "it is not calibrated for adaptive inference; use a file that `rtformer calibrate` wrote",
            ));
        };
        let precision = self.precision.unwrap_or(Precision::F32).to_string();
        let found =
            [("size", self.readout.size.to_string()), ("padding", pad_multiple.to_string()), ("precision", precision)];
        rule.check(weights, epsilon, found)?;
        let policy = rule.policy();
        Ok((has_head && (self.exits || matches!(policy, Policy::Tiles { .. })), policy))
    }
}

/// The size of the network's input, and what is read from its logits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readout {
    pub(super) size: Size,
    pub(super) confidence: bool,
    pub(super) logits: bool,
    pub(super) features: bool,
    pub(super) reject_below: Option<f32>,
}

impl Readout {
    /// Whether any output needs the probabilities.
    pub(super) fn needs_confidence(self) -> bool {
        self.confidence || self.reject_below.is_some()
    }
}
