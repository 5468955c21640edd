//! The options of a segmenter, and its construction.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Segmenter;
use super::adaptive::{Calibrated, Plan, Policy, check_alone, on_a_gpu};
use super::augment::Augmentation;
use super::classes::Classes;
use super::decide::Decision;
use super::device::{self, Device, Precision};
use super::embedded::default_weights;
use super::engine::{Engine, Loaded};
use super::gpu::OnGpu;
use super::padding::Padding;
use super::scene::Labels;
use super::tiles::Tiling;
use crate::backend::{Cpu, Isa, Reference};
use crate::error::{Error, Result};
use crate::model::{Model, Parameters};
use crate::pixels::{Input, Normalization, Palette, Preparation, Size};
use crate::process::PerProcess;
use crate::weights::{Dataset, Weights};

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

/// The largest difference between a GPU's logits and the CPU's with which [`Device::Auto`] uses the GPU, relative to the largest logit.
/// In f16, this is ten times the effect of rounding (emulated: 0.07 % on the embedded weights, 0.12 and 0.19 % on random Slim and Base).
/// In f32, it is what parity allows, and as much again for larger networks. A wrong kernel differs by more.
const AGREEMENT: [(Precision, f32); 2] = [(Precision::F16, 0.02), (Precision::F32, 1e-3)];

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

    /// Loads the network on the selected device. [`Device::Auto`] uses a GPU if its results match the CPU's, or else the CPU, and records
    /// the reason.
    pub(crate) fn open(self, load: impl Fn(Self) -> Result<Segmenter>) -> Result<Segmenter> {
        if self.device != Device::Auto {
            return load(self);
        }
        if self.exits || self.adaptive.is_some() {
            let reason = "adaptive inference runs on the CPU".into();
            return load(Self { device: Device::Cpu, ..self }).map(|opened| Segmenter { reason, ..opened });
        }
        let on = |device| load(Self { device, ..self.clone() });
        let (opened, reason) = match device::fastest(self.precision, self.isa) {
            Err(why) => (on(Device::Cpu)?, why),
            Ok(gpu) => match on(gpu).and_then(|segmenter| self.checked(segmenter, &load)) {
                Ok(agreeing) => agreeing,
                Err(e) => (on(Device::Cpu)?, format!("a GPU was found, but is not used: {e}")),
            },
        };
        Ok(Segmenter { reason, ..opened })
    }

    /// Returns the segmenter and the reason for using it, if its logits of a small frame match the CPU's.
    fn checked(&self, segmenter: Segmenter, load: impl Fn(Self) -> Result<Segmenter>) -> Result<(Segmenter, String)> {
        let cpu = load(Self { device: Device::Cpu, precision: Some(Precision::F32), ..self.clone() })?;
        let off = segmenter.difference(&cpu)?;
        let limit = AGREEMENT.iter().find(|(precision, _)| *precision == segmenter.precision).map_or(0.0, |(_, l)| *l);
        if off <= limit {
            let name = segmenter.device;
            return Ok((
                segmenter,
                format!("{name} was found; its logits are within {:.2} % of the CPU's", 100.0 * off),
            ));
        }
        Err(Error::Device {
            device: segmenter.device.to_string(),
            reason: format!(
                "its logits differ from the CPU's by {:.1} %; expected at most {:.1} %; please report this",
                100.0 * off,
                100.0 * limit
            ),
        })
    }

    /// A segmenter with any parameters; `weights` is their name.
    pub(crate) fn load(
        self,
        weights: PathBuf,
        model: &Model,
        dataset: &Dataset,
        temperature: f32,
        parameters: &mut dyn Parameters,
    ) -> Result<Segmenter> {
        if let Some(p) = self.readout.reject_below.filter(|p| !(0.0..=1.0).contains(p)) {
            return Err(Error::Input(format!("cannot reject pixels below the probability {p}: expected 0 to 1")));
        }
        self.augmentation.check()?;
        if let Some(tiling) = &self.tiling {
            tiling.check()?;
            let alone = [
                (self.readout.size != Size::Native, "another size of the photo; tiles have the photo's own"),
                (self.readout.features, "features"),
                (self.adaptive.is_some(), "adaptive inference"),
            ];
            if let Some((_, what)) = alone.into_iter().find(|(conflict, _)| *conflict) {
                return Err(Error::Config(format!("tiles cannot be combined with {what}")));
            }
        }
        let mut dataset = dataset.clone();
        let ids = self.classes.apply(&mut dataset)?;
        let device = self.device.resolve()?;
        if device.is_gpu() && (self.exits || self.adaptive.is_some()) {
            return Err(on_a_gpu(&device.to_string()));
        }
        if self.adaptive.is_some() {
            check_alone(&self.augmentation, self.readout.features, self.decision)?;
        }
        let precision = self.precision.unwrap_or(if device.is_gpu() { Precision::F16 } else { Precision::F32 });
        let preparation = Preparation {
            normalization: Normalization { mean: dataset.mean, std: dataset.std },
            size: self.readout.size,
            pad_multiple: self.padding.multiple(None)?,
        };
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let unfit = |has: &str| {
            let reason = format!("it supports {has}, not {precision}");
            Error::Device { device: device.to_string(), reason }
        };
        if let Some(isa) = self.isa.filter(|_| device != Device::Cpu) {
            let reason = format!("the instruction set {} is for the CPU; omit it, or use the device cpu", isa.name());
            return Err(Error::Device { device: device.to_string(), reason });
        }
        let (engine, instruction_set, threads): (Arc<dyn Engine>, _, _) = match device {
            Device::Reference => {
                if precision != Precision::F32 {
                    return Err(unfit("f32"));
                }
                let loaded = Loaded::new(Reference::folded(), model, parameters, preparation, self.exits)?;
                (Arc::new(loaded), "candle", all())
            }
            Device::Cuda(number) => {
                let element = precision.on_gpu().ok_or_else(|| unfit("f16 and f32"))?;
                let gpu = crate::backend::cuda(number, element)?;
                (Arc::new(OnGpu::new(gpu, model, parameters, preparation)?), "cuda", all())
            }
            #[cfg(target_os = "macos")]
            Device::Metal => {
                let element = precision.on_gpu().ok_or_else(|| unfit("f16 and f32"))?;
                let gpu = crate::backend::metal(element)?;
                (Arc::new(OnGpu::new(gpu, model, parameters, preparation)?), "metal", all())
            }
            _ => {
                let cpu = Cpu::new(self.isa.map_or_else(device::default_isa, Ok)?, self.threads)?;
                let cpu = cpu.l2_cache(Device::l2_cache()?)?;
                let cpu = match precision {
                    Precision::F32 => cpu,
                    Precision::Bf16 => cpu.bf16()?,
                    Precision::F16 => return Err(unfit("f32 and bf16")),
                };
                let (isa, threads) = (cpu.isa().name(), cpu.threads());
                (Arc::new(Loaded::new(cpu, model, parameters, preparation, self.exits)?), isa, threads)
            }
        };
        let palette = Palette::new(dataset.classes.iter().map(|class| class.color).collect());
        Ok(Segmenter {
            weights,
            model: model.clone(),
            labels: Arc::new(Labels { dataset, palette, ids }),
            preparation,
            temperature,
            engine,
            plan: Plan { policy: self.policy, temperature, work: model.work() },
            exits: self.exits,
            device,
            reason: "selected by name".into(),
            instruction_set,
            threads,
            precision,
            readout: self.readout,
            augmentation: self.augmentation,
            tiling: self.tiling,
            decision: self.decision,
            spares: PerProcess::new(Mutex::default()),
            process: std::process::id(),
        })
    }
}

impl Segmenter {
    /// The largest difference from another segmenter's logits of a small frame, relative to its largest logit.
    fn difference(&self, other: &Self) -> Result<f32> {
        // Every channel rises and falls, and no two rows or columns are equal.
        let frame = image::RgbImage::from_fn(256, 128, |x, y| {
            image::Rgb([(x * 7 + y * y) as u8, (x * x + y * 13) as u8, (x * y + 31 * x) as u8])
        });
        let input = Input::prepare(&(&frame).into(), &Preparation::new(self.preparation.normalization))?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        self.resident(std::slice::from_ref(&input))?.logits(&mut ours)?;
        other.resident(std::slice::from_ref(&input))?.logits(&mut theirs)?;
        let largest = theirs.iter().fold(f32::MIN_POSITIVE, |largest, logit| largest.max(logit.abs()));
        // NaN counts as an infinite difference.
        let off =
            ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).map(|d| if d.is_nan() { f32::INFINITY } else { d });
        Ok(off.fold(0.0, f32::max) / largest)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Config, Noise};

    /// A small network on the CPU with seeded parameters.
    fn seeded(builder: Builder, seed: u64) -> Result<Segmenter> {
        let dataset = Dataset::named("cityscapes").unwrap();
        let model = Config { base_channels: 8, ..Config::slim(dataset.classes.len()) }.into();
        builder.load("random".into(), &model, &dataset, 1.0, &mut Noise::new(seed))
    }

    #[test]
    fn a_device_with_wrong_logits_is_not_used() {
        let builder = Segmenter::builder().device(Device::Auto);
        let on_gpu = || seeded(Segmenter::builder().device(Device::Cpu), 7).unwrap();
        let (_, reason) = builder.checked(on_gpu(), |builder| seeded(builder, 7)).unwrap();
        assert_eq!(reason, "cpu was found; its logits are within 0.00 % of the CPU's");
        let error = builder.checked(on_gpu(), |builder| seeded(builder, 8)).unwrap_err().to_string();
        assert!(error.starts_with("device `cpu`: its logits differ from the CPU's by "), "{error}");
    }

    /// A batch is limited by the pixels of the network's inputs and by those of the photos.
    #[test]
    fn batches_are_bounded_by_the_larger_of_photo_and_input() {
        let cases = [
            ((100, 50), Size::Native, 1, (16 << 20) / 5000), // the photo's own size
            ((100, 50), Size::Exact { width: 2048, height: 1024 }, 1, 8), // enlarged thumbnails
            ((4096, 2048), Size::Exact { width: 64, height: 32 }, 1, 2), // the masks of large photos take memory, too
            ((100, 50), Size::Native, 256, 256),             // the padding counts
            ((8192, 8192), Size::Native, 1, 1),              // at least one
        ];
        for ((width, height), size, multiple, want) in cases {
            let builder = Segmenter::builder().device(Device::Cpu).size(size).pad(Padding::Multiple(multiple));
            let photo = image::GrayImage::new(width, height);
            let together = seeded(builder, 7).unwrap().together(&(&photo).into()).unwrap();
            assert_eq!(together, want, "{width}x{height} at {size}, padded to {multiple}");
        }
    }

    #[test]
    fn an_instruction_set_is_the_cpus() {
        let open = |device| Segmenter::builder().device(device).isa(Isa::Scalar).open(|builder| seeded(builder, 7));
        for device in [Device::Cpu, Device::Auto] {
            let segmenter = open(device).unwrap();
            assert_eq!((segmenter.device(), segmenter.instruction_set()), (Device::Cpu, "scalar"));
        }
        let error = open(Device::Reference).unwrap_err();
        assert!(matches!(&error, Error::Device { device, .. } if device == "reference"), "{error}");
    }

    #[test]
    fn auto_respects_the_precision() {
        let open = |precision| Segmenter::builder().precision(precision).open(|builder| seeded(builder, 7));
        let single = open(Precision::F32).unwrap();
        assert!(single.device() != Device::Auto && single.precision() == Precision::F32);
        match open(Precision::Bf16) {
            Ok(half) => assert_eq!((half.device(), half.device_reason()), (Device::Cpu, "only CPUs support bf16")),
            Err(error) => assert!(error.to_string().contains("bf16"), "{error}"), // a CPU without it
        }
    }
}
