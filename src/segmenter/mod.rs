//! Photo in, scene out: the one place where everything meets.

mod builder;
mod device;
mod embedded;
mod engine;
mod gpu;
mod padding;
mod profile;
mod resident;
mod scene;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use builder::Builder;
pub use device::{Device, Precision};
pub use padding::Padding;
pub use profile::FrameProfile;
pub use resident::Resident;
pub use scene::{ClassShare, Scene};

use builder::Readout;
use engine::{Engine, Spent, Wanted};
use parking_lot::Mutex;
use scene::Labels;

use crate::backend::Confidence;
use crate::error::{Error, Result};
use crate::memory;
use crate::model::{Config, Noise};
use crate::pixels::{IdsMut, Input, Mask, Palette, Pixels, Preparation};
use crate::timing::{Timings, timed};
use crate::weights::Dataset;

/// The most pixels that go through the network together, whatever the batch, counted before or after resizing, whichever is more: a
/// gigabyte of feature maps (Slim).
const BATCH_PIXELS: usize = 16 << 20;

/// RTFormer, its weights, and the device that they are on.
///
/// One can be used by many threads at once; what it makes does not depend on how many there are.
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
    config: Config,
    labels: Arc<Labels>,
    preparation: Preparation,
    temperature: f32,
    engine: Box<dyn Engine>,
    device: Device,
    reason: String,
    instruction_set: &'static str,
    threads: usize,
    precision: Precision,
    readout: Readout,
    /// Confidences that nobody gets to see, whose memory the next frame takes.
    spares: Mutex<Vec<Vec<f32>>>,
}

impl Segmenter {
    /// All options.
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

    /// The network in a weights file.
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

    /// A network of random parameters and real shapes, Cityscapes' 19 classes; `variant` is `slim` or `base`. For benchmarks.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let segmenter = Segmenter::random("slim", Segmenter::builder().device(Device::Cpu))?;
    /// assert_eq!(segmenter.config().num_classes, 19);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] for another variant, else as [`Builder::build`].
    pub fn random(variant: &str, builder: Builder) -> Result<Self> {
        let dataset =
            Dataset::named("cityscapes").ok_or_else(|| Error::Config("`cityscapes` is no known data set".into()))?;
        let config = match variant {
            "slim" => Config::slim(dataset.classes.len()),
            "base" => Config::base(dataset.classes.len()),
            _ => return Err(Error::Input(format!("variant `{variant}` is not known; there are slim and base"))),
        };
        builder.open(|builder| builder.load("random".into(), config.clone(), dataset.clone(), 1.0, &mut Noise::new(7)))
    }

    /// Segments one photo.
    ///
    /// ```
    /// # use rtformer::pixels::{PixelFormat, Pixels};
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// let frame = vec![90; 4 * 64 * 48]; // a camera's buffer
    /// let scene = segmenter.segment(Pixels::new(&frame, 64, 48, 4 * 64, PixelFormat::Bgra8)?)?;
    /// assert_eq!(scene.mask().width(), 64);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] for a size that the network does not take, [`Error::OutOfMemory`]; otherwise only a device can fail.
    pub fn segment<'a>(&self, photo: impl Into<Pixels<'a>>) -> Result<Scene> {
        let mut scenes = self.segment_batch(&[photo.into()])?;
        scenes.pop().ok_or_else(|| Error::Backend { operation: "segment", reason: "one photo gave no scene".into() })
    }

    /// Segments photos of any sizes, in order. Neighbours of one size go through the network together; each scene is the same,
    /// bit for bit, as [`segment`](Self::segment) gives.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// let photos = [image::RgbImage::new(64, 48), image::RgbImage::new(64, 48), image::RgbImage::new(32, 32)];
    /// let scenes = segmenter.segment_batch(&photos.each_ref().map(Into::into))?;
    /// assert_eq!(scenes[2].mask(), segmenter.segment(&photos[2])?.mask());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`segment`](Self::segment).
    pub fn segment_batch(&self, photos: &[Pixels<'_>]) -> Result<Vec<Scene>> {
        let mut scenes = Vec::with_capacity(photos.len());
        let same = |a: &Pixels<'_>, b: &Pixels<'_>| (a.width(), a.height()) == (b.width(), b.height());
        for group in photos.chunk_by(same) {
            for batch in group.chunks(self.together(&group[0])?) {
                scenes.extend(self.segment_group(batch)?);
            }
        }
        Ok(scenes)
    }

    /// How many photos like this one go through the network together at most.
    fn together(&self, photo: &Pixels<'_>) -> Result<usize> {
        let (height, width) = self.preparation.extent(photo.width(), photo.height())?.full;
        let pixels = (height * width).max(photo.width() as usize * photo.height() as usize);
        Ok((BATCH_PIXELS / pixels).max(1))
    }

    /// Segments one photo into a mask whose memory is used again, with nothing else read out.
    ///
    /// ```
    /// # use rtformer::pixels::Mask;
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// let mut mask = Mask::new(0, 0, segmenter.config().num_classes);
    /// for frame in [image::RgbImage::new(64, 48), image::RgbImage::new(64, 48)] {
    ///     let timings = segmenter.segment_into(&frame, &mut mask)?;
    ///     assert!(mask.width() == 64 && timings.total() > 0.0);
    /// }
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`segment`](Self::segment).
    pub fn segment_into<'a>(&self, photo: impl Into<Pixels<'a>>, mask: &mut Mask) -> Result<Timings> {
        let photo = photo.into();
        mask.try_resize_for(photo.width(), photo.height(), self.config.num_classes)?;
        let reject = self.readout.reject_below.is_some();
        let mut confidence = self.spares.lock().pop().unwrap_or_default();
        if reject {
            blank(&mut confidence, &photo, 1)?;
        }
        let (spent, total) = timed(|| {
            let wanted = Wanted {
                size: (photo.height() as usize, photo.width() as usize),
                ids: Some(mask.ids_mut()),
                confidence: reject.then(|| self.confidence(&mut confidence)),
                logits: None,
            };
            self.engine.run(std::slice::from_ref(&photo), &mut [wanted])
        });
        self.reject(mask, reject.then_some(&confidence));
        self.spares.lock().push(confidence);
        Ok(timings(&photo, spent?, total, 1))
    }

    fn segment_group(&self, photos: &[Pixels<'_>]) -> Result<Vec<Scene>> {
        let mut scenes = Vec::with_capacity(photos.len());
        let classes = self.config.num_classes;
        for photo in photos {
            let floats = |channels| {
                let mut floats = Vec::new();
                blank(&mut floats, photo, channels).map(|()| floats)
            };
            let mut mask = Mask::new(0, 0, classes);
            mask.try_resize_for(photo.width(), photo.height(), classes)?;
            scenes.push(Scene {
                labels: Arc::clone(&self.labels),
                mask,
                confidence: self.readout.needs_confidence().then(|| floats(1)).transpose()?,
                logits: self.readout.logits.then(|| floats(classes)).transpose()?,
                timings: Timings::default(),
            });
        }
        let (spent, total) = timed(|| {
            let wanted = scenes.iter_mut().map(|scene| Wanted {
                size: (scene.mask.height() as usize, scene.mask.width() as usize),
                ids: Some(scene.mask.ids_mut()),
                confidence: scene.confidence.as_deref_mut().map(|values| self.confidence(values)),
                logits: scene.logits.as_deref_mut(),
            });
            self.engine.run(photos, &mut wanted.collect::<Vec<_>>())
        });
        let spent = spent?;
        for (scene, photo) in scenes.iter_mut().zip(photos) {
            self.reject(&mut scene.mask, scene.confidence.as_deref());
            if !self.readout.confidence {
                scene.confidence = None;
            }
            scene.timings = timings(photo, spent, total, photos.len());
        }
        Ok(scenes)
    }

    /// Where to write the confidence, at the weights' temperature.
    fn confidence<'a>(&self, values: &'a mut [f32]) -> Confidence<'a> {
        Confidence { values, temperature: self.temperature }
    }

    /// Gives the ignore id to pixels of too low a confidence.
    fn reject(&self, mask: &mut Mask, confidence: Option<&[f32]>) {
        let (Some(below), Some(confidence)) = (self.readout.reject_below, confidence) else { return };
        let ignore = mask.ignore_id();
        match mask.ids_mut() {
            IdsMut::U8(ids) => {
                ids.iter_mut().zip(confidence).filter(|(_, p)| **p < below).for_each(|(id, _)| *id = ignore as u8);
            }
            IdsMut::U16(ids) => {
                ids.iter_mut().zip(confidence).filter(|(_, p)| **p < below).for_each(|(id, _)| *id = ignore);
            }
        }
    }

    /// The input that a photo becomes: resized if a size was asked for, normalised, and padded as [`Builder::pad`] says.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// let input = segmenter.prepare(&image::RgbImage::new(64, 48))?;
    /// assert_eq!(input.kept, (48, 64));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Input::prepare`].
    pub fn prepare<'a>(&self, photo: impl Into<Pixels<'a>>) -> Result<Input> {
        let (photo, mut input) = (photo.into(), Ok(Input::default()));
        self.engine.enter(&mut || input = Input::prepare(&photo, &self.preparation));
        input
    }

    /// Takes an input to the device once, so that the network can be run on it again and again. For benchmarks.
    ///
    /// ```
    /// # use rtformer::pixels::Mask;
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// let input = segmenter.prepare(&image::RgbImage::new(64, 48))?;
    /// let resident = segmenter.resident(&input)?;
    /// let mut mask = Mask::new(64, 48, segmenter.config().num_classes);
    /// for _ in 0..2 {
    ///     resident.mask(&mut mask)?; // to be timed: no photo, no upload
    /// }
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`segment`](Self::segment).
    pub fn resident(&self, input: &Input) -> Result<Resident<'_>> {
        self.resident_batch(std::slice::from_ref(input))
    }

    /// [`resident`](Self::resident) of inputs of one size, which then go through the network together.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// let inputs = [segmenter.prepare(&image::RgbImage::new(64, 48))?, segmenter.prepare(&image::RgbImage::new(64, 48))?];
    /// segmenter.resident_batch(&inputs)?.compute_masks()?;
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] for inputs of several sizes or none, otherwise as [`segment`](Self::segment).
    pub fn resident_batch(&self, inputs: &[Input]) -> Result<Resident<'_>> {
        let extent = inputs.first().map(Input::extent);
        let Some(extent) = extent.filter(|extent| inputs.iter().all(|input| input.extent() == *extent)) else {
            return Err(Error::Input(
                "expected at least one input, all of one size, to go through the network together".into(),
            ));
        };
        let ((height, width), (h, w)) = (extent.full, extent.kept);
        if h == 0 || w == 0 || h > height || w > width {
            return Err(Error::Input(format!("an input of {width}x{height} pixels cannot keep {w}x{h} of them")));
        }
        Ok(Resident::new(self.engine.upload(inputs)?, inputs.len(), extent.kept, self.config.num_classes))
    }

    /// The most floating-point operations a second that the device can do, measured now; `None` where nobody knows.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// assert!(segmenter.peak_flops().is_some_and(|peak| peak > 0.0));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn peak_flops(&self) -> Option<f64> {
        self.engine.peak_flops()
    }

    /// The data set: names, colours, normalisation, where the weights are from, and their licence.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// let names: Vec<_> = segmenter.dataset().classes.iter().map(|class| class.name.as_str()).collect();
    /// assert!(names.contains(&"road"));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn dataset(&self) -> &Dataset {
        &self.labels.dataset
    }

    /// The network's sizes.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// assert_eq!(Segmenter::embedded(Device::Cpu)?.config().name(), "RTFormer-Slim");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The data set's colours.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// assert_eq!(segmenter.palette().color(3), segmenter.dataset().classes[3].color);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn palette(&self) -> &Palette {
        &self.labels.palette
    }

    /// The device that the network is on: never [`Device::Auto`].
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// assert_eq!((segmenter.device(), segmenter.device_reason()), (Device::Cpu, "asked for by name"));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn device(&self) -> Device {
        self.device
    }

    /// Why it is on that device.
    pub fn device_reason(&self) -> &str {
        &self.reason
    }

    /// `avx512`, `avx2`, `neon`, `scalar`, or `candle` for the reference.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let segmenter = Segmenter::embedded(Device::Cpu)?;
    /// assert!(Device::instruction_sets().contains(&segmenter.instruction_set()));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn instruction_set(&self) -> &str {
        self.instruction_set
    }

    /// The CPU threads that the network runs on.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The multiple that photos' heights and widths are padded to; 1 for no padding.
    ///
    /// ```
    /// # use rtformer::{Padding, Segmenter};
    /// assert_eq!(Segmenter::builder().pad(Padding::Multiple(16)).build()?.pad_multiple(), 16);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn pad_multiple(&self) -> u32 {
        self.preparation.pad_multiple
    }

    /// The arithmetic that the network runs in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What divides the logits ahead of the softmax that gives the [confidence](Scene::confidence): fitted to labelled photos and
    /// kept in the weights' metadata, else 1. Masks do not depend on it.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// assert_eq!(segmenter.temperature(), 1.0, "its metadata name none");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn temperature(&self) -> f32 {
        self.temperature
    }

    /// The weights' path, `embedded` or `random`.
    pub fn weights_name(&self) -> &Path {
        &self.weights
    }
}

impl fmt::Display for Segmenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dataset { name, classes, .. } = self.dataset();
        let (model, classes, weights) = (self.config.name(), classes.len(), self.weights.display());
        write!(f, "{model}, {classes} classes of {name} ({weights}), ")?;
        let Self { precision, device, instruction_set, threads, reason, .. } = self;
        write!(f, "{precision} on {device} ({instruction_set}, {threads} threads; {reason})")
    }
}

impl fmt::Debug for Segmenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segmenter({self})")
    }
}

/// Makes `floats` as long as a photo of `channels`.
fn blank(floats: &mut Vec<f32>, photo: &Pixels<'_>, channels: usize) -> Result<()> {
    let (width, height) = (photo.width() as usize, photo.height() as usize);
    let wanted = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(channels)).unwrap_or(usize::MAX);
    memory::resize(floats, wanted, 0.0, || format!("{channels} floats for each of {width}x{height} pixels"))
}

/// A photo's part of what its batch took; what the engine does not account for is the network's.
fn timings(photo: &Pixels<'_>, spent: Spent, total: f64, batch: usize) -> Timings {
    let share = |milliseconds: f64| milliseconds / batch as f64;
    let mut timings = Timings { decode: photo.decode_ms(), prepare: share(spent.prepare), ..Timings::default() };
    timings.argmax = share(spent.argmax);
    timings.model = share((total - spent.prepare - spent.argmax).max(spent.model));
    timings
}
