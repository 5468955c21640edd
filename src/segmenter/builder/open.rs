//! Opens the network on a device.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Builder;
use crate::backend::{Cpu, Reference};
use crate::error::{Error, Result};
use crate::model::{Model, Parameters};
use crate::pixels::{Input, Normalization, Palette, Preparation, Size};
use crate::process::PerProcess;
use crate::segmenter::Segmenter;
use crate::segmenter::adaptive::{Plan, check_alone, on_a_gpu};
use crate::segmenter::device::{self, Device, Precision};
use crate::segmenter::engine::{Engine, Loaded};
use crate::segmenter::gpu::OnGpu;
use crate::segmenter::scene::Labels;
use crate::weights::Dataset;

/// The largest difference between a GPU's logits and the CPU's with which [`Device::Auto`] uses the GPU, relative to the largest logit.
/// In f16, this is ten times the effect of rounding (emulated: 0.07 % on the embedded weights, 0.12 and 0.19 % on random Slim and Base).
/// In f32, it is what parity allows, and as much again for larger networks. A wrong kernel differs by more.
const AGREEMENT: [(Precision, f32); 2] = [(Precision::F16, 0.02), (Precision::F32, 1e-3)];

impl Builder {
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
        self.check()?;
        let mut dataset = dataset.clone();
        let ids = self.classes.apply(&mut dataset)?;
        let device = self.device.resolve()?;
        if device.is_gpu() && (self.exits || self.adaptive.is_some()) {
            return Err(on_a_gpu(&device.to_string()));
        }
        let precision = self.precision.unwrap_or(if device.is_gpu() { Precision::F16 } else { Precision::F32 });
        let preparation = Preparation {
            normalization: Normalization { mean: dataset.mean, std: dataset.std },
            size: self.readout.size,
            pad_multiple: self.padding.multiple(None)?,
        };
        let (engine, instruction_set, threads) = self.engine(device, precision, model, parameters, preparation)?;
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

    /// Refuses settings that are invalid, or that exclude each other.
    fn check(&self) -> Result<()> {
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
        if self.adaptive.is_some() {
            check_alone(&self.augmentation, self.readout.features, self.decision)?;
        }
        Ok(())
    }

    /// The network on a device, the name of the instructions that it uses there, and the number of threads.
    fn engine(
        &self,
        device: Device,
        precision: Precision,
        model: &Model,
        parameters: &mut dyn Parameters,
        preparation: Preparation,
    ) -> Result<(Arc<dyn Engine>, &'static str, usize)> {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let unfit = |has: &str| {
            let reason = format!("it supports {has}, not {precision}");
            Error::Device { device: device.to_string(), reason }
        };
        if let Some(isa) = self.isa.filter(|_| device != Device::Cpu) {
            let reason = format!("the instruction set {} is for the CPU; omit it, or use the device cpu", isa.name());
            return Err(Error::Device { device: device.to_string(), reason });
        }
        Ok(match device {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Isa;
    use crate::model::{Config, Noise};
    use crate::segmenter::Padding;

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
