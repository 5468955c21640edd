//! Inputs that stay on the device, for benchmarks.

use std::fmt;

use parking_lot::Mutex;

use super::Segmenter;
use super::engine::{Product, Uploaded, Wanted};
use crate::error::{Error, Result};
use crate::memory;
use crate::pixels::{Input, Mask, Pixels};

/// Inputs of one size on the device. Created by [`bench::resident`](crate::bench::resident).
///
/// ```
/// use rtformer::pixels::Mask;
/// use rtformer::{Device, Segmenter, bench};
///
/// let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
/// let photo = image::RgbImage::new(64, 48);
/// let input = bench::prepare(&segmenter, &photo)?;
/// let resident = bench::resident(&segmenter, &[input])?;
/// let (mut mask, mut logits) = (Mask::new(64, 48, 5), Vec::new());
/// resident.mask(&mut mask)?;
/// resident.logits(&mut logits)?;
/// assert_eq!((&mask, logits.len()), (segmenter.segment(&photo)?.mask(), 5 * 48 * 64));
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct Resident<'a> {
    uploaded: Box<dyn Uploaded + 'a>,
    batch: usize,
    size: (usize, usize),
    classes: usize,
    /// The results, if the device uses the host's memory.
    kept: Mutex<(Vec<Mask>, Vec<Vec<f32>>)>,
}

impl Segmenter {
    /// [`bench::prepare`](crate::bench::prepare).
    pub(crate) fn prepare(&self, photo: &Pixels<'_>) -> Result<Input> {
        let mut input = Ok(Input::default());
        self.engine.enter(&mut || input = Input::prepare(photo, &self.preparation));
        input
    }

    /// [`bench::resident`](crate::bench::resident).
    pub(crate) fn resident(&self, inputs: &[Input]) -> Result<Resident<'_>> {
        let extent = inputs.first().map(Input::extent);
        let Some(extent) = extent.filter(|extent| inputs.iter().all(|input| input.extent() == *extent)) else {
            return Err(Error::Input("expected at least one input, and all inputs of one size".into()));
        };
        let ((height, width), (h, w)) = (extent.full, extent.kept);
        if h == 0 || w == 0 || h > height || w > width {
            return Err(Error::Input(format!(
                "invalid size without padding {w}x{h}: expected 1x1 to the input's {width}x{height} pixels"
            )));
        }
        Ok(Resident {
            uploaded: self.engine.upload(inputs)?,
            batch: inputs.len(),
            size: extent.kept,
            classes: self.model.num_classes(),
            kept: Mutex::default(),
        })
    }
}

impl Resident<'_> {
    /// Runs the network and writes the full-size bilinear logits, `[classes, height, width]`, to `out`. Of a batch, the first photo's.
    ///
    /// # Errors
    /// As [`Segmenter::segment`](crate::Segmenter::segment).
    pub fn logits(&self, out: &mut Vec<f32>) -> Result<()> {
        self.blank(out)?;
        self.uploaded.run(&mut [Wanted { logits: Some(out), ..self.nothing() }]).map(drop)
    }

    /// Runs the network and writes the mask. Of a batch, the first photo's.
    ///
    /// # Errors
    /// As [`Segmenter::segment`](crate::Segmenter::segment).
    pub fn mask(&self, mask: &mut Mask) -> Result<()> {
        mask.resize_for(self.size.1 as u32, self.size.0 as u32, self.classes)?;
        self.uploaded.run(&mut [Wanted { ids: Some(mask.ids_mut()), ..self.nothing() }]).map(drop)
    }

    /// Runs the network and computes the masks of the whole batch, which stay in the device's memory.
    ///
    /// # Errors
    /// As [`Segmenter::segment`](crate::Segmenter::segment).
    pub fn compute_masks(&self) -> Result<()> {
        if self.uploaded.compute(Product::Mask)? {
            return Ok(());
        }
        let (masks, _) = &mut *self.kept.lock();
        masks.resize_with(self.batch, || Mask::new(0, 0, self.classes));
        let [width, height] = [self.size.1, self.size.0].map(|side| side as u32);
        masks.iter_mut().try_for_each(|mask| mask.resize_for(width, height, self.classes))?;
        let wanted = masks.iter_mut().map(|mask| Wanted { ids: Some(mask.ids_mut()), ..self.nothing() });
        self.uploaded.run(&mut wanted.collect::<Vec<_>>()).map(drop)
    }

    /// Runs the network and computes the full-size bilinear logits of the whole batch, which stay in the device's memory.
    ///
    /// # Errors
    /// As [`Segmenter::segment`](crate::Segmenter::segment).
    pub fn compute_logits(&self) -> Result<()> {
        if self.uploaded.compute(Product::Logits)? {
            return Ok(());
        }
        let (_, logits) = &mut *self.kept.lock();
        logits.resize_with(self.batch, Vec::new);
        logits.iter_mut().try_for_each(|logits| self.blank(logits))?;
        let wanted = logits.iter_mut().map(|logits| Wanted { logits: Some(logits), ..self.nothing() });
        self.uploaded.run(&mut wanted.collect::<Vec<_>>()).map(drop)
    }

    /// A request without outputs.
    fn nothing<'w>(&self) -> Wanted<'w> {
        Wanted { size: self.size, ids: None, confidence: None, logits: None, features: None }
    }

    /// Resizes `logits` for one photo's full-size logits.
    fn blank(&self, logits: &mut Vec<f32>) -> Result<()> {
        let (classes, (height, width)) = (self.classes, self.size);
        let what = || format!("{classes} logits for each of {width}x{height} pixels");
        memory::resize(logits, classes * height * width, 0.0, what)
    }
}

impl fmt::Debug for Resident<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resident")
            .field("batch", &self.batch)
            .field("size", &self.size)
            .field("classes", &self.classes)
            .finish_non_exhaustive()
    }
}
