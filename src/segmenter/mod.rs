//! Segments photos: connects weights, networks, backends and pixels.

mod adaptive;
mod augment;
mod blend;
mod builder;
mod classes;
mod decide;
mod device;
mod embedded;
mod engine;
mod gpu;
mod padding;
mod profile;
mod resident;
mod scene;
mod segment;
mod strips;
mod tiles;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use adaptive::{Calibrated, Policy};
pub use augment::Augmentation;
pub use builder::Builder;
pub use classes::Classes;
pub use decide::Decision;
pub use device::{Device, Precision};
pub use padding::Padding;
pub use profile::FrameProfile;
pub use resident::Resident;
pub use scene::{ClassShare, Features, Scene};
pub use strips::Strip;
pub use tiles::Tiling;

use adaptive::Plan;
use builder::Readout;
use engine::Engine;
use parking_lot::Mutex;
use scene::Labels;

use crate::error::Result;
use crate::model::Model;
use crate::pixels::{Palette, Preparation};
use crate::process::PerProcess;
use crate::weights::Dataset;

/// A network with its weights on a device.
///
/// Threads can share one. Results do not depend on the number of threads. On a CPU, it also works in a forked child.
///
/// ```
/// use rtformer::{Device, Segmenter};
///
/// # fn main() -> rtformer::Result<()> {
/// let segmenter = Segmenter::embedded(Device::auto())?;
/// let photo = image::RgbImage::from_pixel(64, 48, image::Rgb([90, 120, 200]));
/// let scene = segmenter.segment(&photo)?;
/// assert_eq!((scene.mask().width(), scene.mask().height()), (64, 48));
/// for class in scene.classes() {
///     println!("{:5.1} %  {}", 100.0 * class.share, class.name);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Segmenter {
    weights: PathBuf,
    model: Model,
    labels: Arc<Labels>,
    preparation: Preparation,
    temperature: f32,
    engine: Arc<dyn Engine>,
    plan: Plan,
    /// Whether the auxiliary head is loaded.
    exits: bool,
    device: Device,
    reason: String,
    instruction_set: &'static str,
    threads: usize,
    precision: Precision,
    readout: Readout,
    augmentation: Augmentation,
    tiling: Option<Tiling>,
    decision: Decision,
    /// Buffers for confidences that are not returned. The next frame reuses their memory.
    spares: PerProcess<Mutex<Vec<Vec<f32>>>>,
    /// The process that opened this.
    process: u32,
}

impl Segmenter {
    /// The same network with another plan.
    fn share(&self, plan: Plan) -> Self {
        Self {
            weights: self.weights.clone(),
            model: self.model.clone(),
            labels: Arc::clone(&self.labels),
            engine: Arc::clone(&self.engine),
            reason: self.reason.clone(),
            augmentation: self.augmentation.clone(),
            spares: PerProcess::new(Mutex::default()),
            plan,
            ..*self
        }
    }

    /// A builder with all options.
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// let segmenter = Segmenter::builder().threads(1).confidence(true).build()?;
    /// assert_eq!(segmenter.threads(), 1);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Opens the network in a weights file.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// assert!(segmenter.weights_name().ends_with("tiny.safetensors"));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn open(path: impl AsRef<Path>, device: Device) -> Result<Self> {
        Self::builder().weights(path.as_ref()).device(device).build()
    }

    /// The data set: names, colours, normalisation, and the source and licence of the weights.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// let names: Vec<_> = segmenter.dataset().classes.iter().map(|class| class.name.as_str()).collect();
    /// assert_eq!(names, ["class 0", "class 1", "class 2", "class 3", "class 4"]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn dataset(&self) -> &Dataset {
        &self.labels.dataset
    }

    /// The network and its sizes.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// assert_eq!((segmenter.model().family(), segmenter.model().num_classes()), ("rtformer", 5));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The data set's colours.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// assert_eq!(segmenter.palette().color(3), segmenter.dataset().classes[3].color);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn palette(&self) -> &Palette {
        &self.labels.palette
    }

    /// The device that the network is on. Never [`Device::Auto`].
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// assert_eq!((segmenter.device(), segmenter.device_reason()), (Device::Cpu, "selected by name"));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn device(&self) -> Device {
        self.device
    }

    /// Why the network is on this device.
    pub fn device_reason(&self) -> &str {
        &self.reason
    }

    /// The instruction set: `avx512`, `avx2`, `neon`, `scalar`, `candle` for the reference, or `cuda` or `metal` for a GPU.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// assert!(Device::instruction_sets().contains(&segmenter.instruction_set()));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn instruction_set(&self) -> &str {
        self.instruction_set
    }

    /// The number of CPU threads that the network runs on.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The multiple, in pixels, to which photos' heights and widths are padded; 1 for no padding.
    ///
    /// ```
    /// # use rtformer::{Padding, Segmenter};
    /// assert_eq!(Segmenter::builder().pad(Padding::Multiple(16)).build()?.pad_multiple(), 16);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn pad_multiple(&self) -> u32 {
        self.preparation.pad_multiple
    }

    /// The arithmetic of the network.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The arithmetic in words: the precision, and that the encoder multiplies in f32 although the rest multiplies in bf16, because it
    /// would change the logits too much ([`RtFormer::load`](crate::model::RtFormer::load)).
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// assert_eq!(Segmenter::builder().build()?.arithmetic(), "f32");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn arithmetic(&self) -> String {
        let encoder = if self.engine.has_exact_encoder() { ", encoder in f32" } else { "" };
        format!("{}{encoder}", self.precision)
    }

    /// The divisor of the logits before the softmax that gives the [confidence](Scene::confidence). It was fitted to labelled photos
    /// and is stored in the weights' metadata; 1 if it is not. Masks do not depend on it.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// assert_eq!(segmenter.temperature(), 1.0, "its metadata do not name one");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn temperature(&self) -> f32 {
        self.temperature
    }

    /// The mask's id of each of the network's classes, where the ignore id stands for classes that are not kept; `None` if all classes stay
    /// as they are. See [`Builder::classes`].
    ///
    /// ```
    /// # use rtformer::{Classes, Segmenter};
    /// let classes = Classes { keep: vec!["class 1".into()], ..Classes::default() };
    /// let segmenter = Segmenter::builder().weights("tests/data/golden/tiny.safetensors").classes(classes).build()?;
    /// assert_eq!(segmenter.class_ids(), Some(&[255, 1, 255, 255, 255][..]));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn class_ids(&self) -> Option<&[u16]> {
        self.labels.ids.as_deref()
    }

    /// The path of the weights, or `embedded` or `random`.
    pub fn weights_name(&self) -> &Path {
        &self.weights
    }
}

impl fmt::Display for Segmenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dataset { name, classes, .. } = self.dataset();
        let (model, classes, weights) = (self.model.name(), classes.len(), self.weights.display());
        write!(f, "{model}, {classes} classes of {name} ({weights}), ")?;
        let Self { device, instruction_set, threads, reason, .. } = self;
        let s = if *threads == 1 { "" } else { "s" };
        write!(f, "{} on {device} ({instruction_set}, {threads} thread{s}; {reason})", self.arithmetic())
    }
}

impl fmt::Debug for Segmenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segmenter({self})")
    }
}
