//! Segmenting photos, one by one or in batches.

use std::sync::Arc;

use parking_lot::Mutex;

use super::engine::{Spent, Wanted};
use super::{Decision, Device, Features, Policy, Scene, Segmenter, classes};
use crate::backend::Confidence;
use crate::error::{Error, Result};
use crate::memory;
use crate::pixels::{IdsMut, Mask, Pixels};
use crate::process;
use crate::timing::{Timings, timed};

/// The largest number of pixels that go through the network together, for any batch. Pixels are counted before or after resizing,
/// whichever are more. The feature maps of this many take a gigabyte (Slim).
const BATCH_PIXELS: usize = 16 << 20;

impl Segmenter {
    /// Segments one photo.
    ///
    /// ```
    /// # use rtformer::pixels::{PixelFormat, Pixels};
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// let frame = vec![90; 4 * 64 * 48]; // the buffer of a camera
    /// let scene = segmenter.segment(Pixels::new(&frame, 64, 48, 4 * 64, PixelFormat::Bgra8)?)?;
    /// assert_eq!(scene.mask().width(), 64);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] if the network does not support the size; [`Error::Device`] or a related error if the device fails. If the photo
    /// has a [name](Pixels::name), the error is an [`Error::Photo`] with this name.
    pub fn segment<'a>(&self, photo: impl Into<Pixels<'a>>) -> Result<Scene> {
        let photo = photo.into();
        let scene = self.segment_group(std::slice::from_ref(&photo)).map(|mut scenes| scenes.pop());
        let none = || Error::Backend { operation: "segment", reason: "no scene was returned for a photo".into() };
        scene.and_then(|scene| scene.ok_or_else(none)).map_err(|error| error.of_photo(photo.name()))
    }

    /// Segments photos of any sizes, in order. Neighbours of one size go through the network together. Each scene is
    /// identical, bit for bit, to the result of [`segment`](Self::segment).
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// let photos = [image::RgbImage::new(64, 48), image::RgbImage::new(64, 48), image::RgbImage::new(32, 32)];
    /// let scenes = segmenter.segment_batch(&photos)?;
    /// assert_eq!(scenes[2].mask(), segmenter.segment(&photos[2])?.mask());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`segment`](Self::segment), for the first photo that failed. [`segment_each`](Self::segment_each) keeps the other scenes.
    pub fn segment_batch<'a, P: Into<Pixels<'a>>>(&self, photos: impl IntoIterator<Item = P>) -> Result<Vec<Scene>> {
        self.segment_each(photos).into_iter().collect()
    }

    /// [`segment_batch`](Self::segment_batch) with a result for each photo: a photo that fails does not affect the others.
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// let photos = [image::RgbImage::new(64, 48), image::RgbImage::new(32, 32)];
    /// for scene in segmenter.segment_each(&photos) {
    ///     match scene {
    ///         Ok(scene) => println!("{} classes", scene.classes().len()),
    ///         Err(error) => eprintln!("{error}"),
    ///     }
    /// }
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn segment_each<'a, P: Into<Pixels<'a>>>(&self, photos: impl IntoIterator<Item = P>) -> Vec<Result<Scene>> {
        let photos: Vec<Pixels<'a>> = photos.into_iter().map(Into::into).collect();
        let mut scenes = Vec::with_capacity(photos.len());
        let same = |a: &Pixels<'_>, b: &Pixels<'_>| (a.width(), a.height()) == (b.width(), b.height());
        for group in photos.chunk_by(same) {
            let together = self.together(&group[0]).unwrap_or(1); // an unsupported size fails for each photo
            for batch in group.chunks(together) {
                match self.segment_group(batch) {
                    Ok(group) => scenes.extend(group.into_iter().map(Ok)),
                    Err(error) if batch.len() == 1 => scenes.push(Err(error.of_photo(batch[0].name()))),
                    // One photo failed, and the batch with it: try each alone.
                    Err(_) => scenes.extend(batch.iter().map(|photo| self.segment(photo))),
                }
            }
        }
        scenes
    }

    /// The largest number of photos of this size that go through the network together.
    pub(super) fn together(&self, photo: &Pixels<'_>) -> Result<usize> {
        if self.plan.policy != Policy::Full || self.tiling.is_some() {
            return Ok(1); // each has its own share of the work, or several inputs
        }
        let (height, width) = self.preparation.extent(photo.width(), photo.height())?.full;
        let pixels = (height * width).max(photo.width() as usize * photo.height() as usize);
        Ok((BATCH_PIXELS / pixels).max(1))
    }

    /// Segments one photo into an existing mask, and reuses its memory. Computes no other outputs.
    ///
    /// ```
    /// # use rtformer::pixels::Mask;
    /// # use rtformer::{Device, Segmenter};
    /// # let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
    /// let mut mask = Mask::new(0, 0, segmenter.model().num_classes());
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
        self.mask_into(&photo, mask).map_err(|error| error.of_photo(photo.name()))
    }

    fn mask_into(&self, photo: &Pixels<'_>, mask: &mut Mask) -> Result<Timings> {
        mask.resize_for(photo.width(), photo.height(), self.model.num_classes())?;
        let reject = self.readout.reject_below.is_some();
        let mut confidence = self.spares.enter(Mutex::default).lock().pop().unwrap_or_default();
        if reject {
            blank(&mut confidence, photo, 1)?;
        }
        let (spent, total) = timed(|| {
            let wanted = Wanted {
                size: (photo.height() as usize, photo.width() as usize),
                ids: Some(mask.ids_mut()),
                confidence: reject.then(|| self.confidence(&mut confidence)),
                logits: None,
                features: None,
            };
            self.run(std::slice::from_ref(photo), &mut [wanted])
        });
        self.finish(mask, reject.then_some(&confidence));
        self.spares.enter(Mutex::default).lock().push(confidence);
        Ok(timings(photo, spent?, total, 1))
    }

    fn segment_group(&self, photos: &[Pixels<'_>]) -> Result<Vec<Scene>> {
        let mut scenes = Vec::with_capacity(photos.len());
        let classes = self.model.num_classes();
        for photo in photos {
            let floats = |channels| {
                let mut floats = Vec::new();
                blank(&mut floats, photo, channels).map(|()| floats)
            };
            let mut mask = Mask::new(0, 0, classes);
            mask.resize_for(photo.width(), photo.height(), classes)?;
            scenes.push(Scene {
                labels: Arc::clone(&self.labels),
                mask,
                confidence: self.readout.needs_confidence().then(|| floats(1)).transpose()?,
                logits: self.readout.logits.then(|| floats(classes)).transpose()?,
                features: self.readout.features.then(Features::default),
                timings: Timings::default(),
                compute_share: 1.0,
            });
        }
        let (spent, total) = timed(|| {
            let wanted = scenes.iter_mut().map(|scene| Wanted {
                size: (scene.mask.height() as usize, scene.mask.width() as usize),
                ids: Some(scene.mask.ids_mut()),
                confidence: scene.confidence.as_deref_mut().map(|values| self.confidence(values)),
                logits: scene.logits.as_deref_mut(),
                features: scene.features.as_mut(),
            });
            self.run(photos, &mut wanted.collect::<Vec<_>>())
        });
        let spent = spent?;
        for (scene, photo) in scenes.iter_mut().zip(photos) {
            self.finish(&mut scene.mask, scene.confidence.as_deref());
            if !self.readout.confidence {
                scene.confidence = None;
            }
            scene.timings = timings(photo, spent, total, photos.len());
            scene.compute_share = spent.share;
        }
        Ok(scenes)
    }

    /// Runs the network, or nothing if this process cannot.
    fn run(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        self.in_process(|| self.run_engine(photos, wanted))
    }

    /// Runs work of the network in the process that opened it, or in one that was forked from it.
    pub(super) fn in_process<R: Send>(&self, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        if self.device == Device::Cpu {
            return work(); // on its own threads
        }
        if self.device.is_gpu() && std::process::id() != self.process {
            return Err(Error::Device {
                device: self.device.to_string(),
                reason: "a GPU that was opened before a fork cannot be used after it; open it in the child, or use the device cpu"
                    .into(),
            });
        }
        process::parallel(work)
    }

    fn run_engine(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        if self.decision == Decision::Argmax {
            return self.run_tiles(photos, wanted);
        }
        self.run_decided(photos, wanted, |photos, wanted| self.run_tiles(photos, wanted))
    }

    /// Chooses the class of the largest logit, in tiles if they are asked for.
    fn run_tiles(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        match &self.tiling {
            Some(tiling) => self.run_tiled(photos, wanted, tiling),
            None => self.run_network(photos, wanted),
        }
    }

    /// Segments photos or tiles as a whole.
    pub(super) fn run_network(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        if self.augmentation.is_none() {
            self.engine.run(photos, wanted, &self.plan)
        } else {
            self.run_augmented(photos, wanted)
        }
    }

    /// A request to write the confidence to `values`, at the weights' temperature.
    fn confidence<'a>(&self, values: &'a mut [f32]) -> Confidence<'a> {
        Confidence { values, temperature: self.temperature }
    }

    /// Assigns the ignore id to pixels with too low a confidence, and merges and drops classes.
    pub(super) fn finish(&self, mask: &mut Mask, confidence: Option<&[f32]>) {
        self.reject(mask, confidence);
        if let Some(ids) = &self.labels.ids {
            classes::replace(mask, ids);
        }
    }

    /// Assigns the ignore id to pixels with too low a confidence.
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
}

/// Resizes `floats` to `channels` values for each of the photo's pixels, and sets all to zero.
fn blank(floats: &mut Vec<f32>, photo: &Pixels<'_>, channels: usize) -> Result<()> {
    let (width, height) = (photo.width() as usize, photo.height() as usize);
    let wanted = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(channels)).unwrap_or(usize::MAX);
    memory::resize(floats, wanted, 0.0, || format!("{channels} floats for each of {width}x{height} pixels"))
}

/// A photo's share of its batch's time. Time that the engine does not account for counts as the network's.
fn timings(photo: &Pixels<'_>, spent: Spent, total: f64, batch: usize) -> Timings {
    let share = |milliseconds: f64| milliseconds / batch as f64;
    let mut timings = Timings { decode: photo.decode_ms(), prepare: share(spent.prepare), ..Timings::default() };
    timings.argmax = share(spent.argmax);
    timings.model = share((total - spent.prepare - spent.argmax).max(spent.model));
    timings
}
