//! The result of segmenting a photo.

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;

use crate::error::{Error, Result};
use crate::pixels::{IndexedPicture, Mask, Palette, Pixels, render};
use crate::timing::Timings;
use crate::weights::Dataset;

/// The names and colours of the classes.
#[derive(Debug)]
pub(super) struct Labels {
    pub(super) dataset: Dataset,
    pub(super) palette: Palette,
    /// The mask's id of each of the network's classes, if some are merged or ignored.
    pub(super) ids: Option<Vec<u16>>,
}

/// A segmented photo.
///
/// ```
/// use rtformer::{Device, Segmenter};
///
/// let photo = image::RgbImage::from_pixel(64, 48, image::Rgb([90, 120, 200]));
/// let scene = Segmenter::embedded(Device::Cpu)?.segment(&photo)?;
/// let largest = &scene.classes()[0];
/// let pixels = scene.mask().counts()[usize::from(largest.id)];
/// assert_eq!(largest.share, pixels as f64 / (64.0 * 48.0));
/// assert_eq!(scene.overlay(&photo, 0.0), photo, "an alpha of 0 shows the photo");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scene {
    pub(super) labels: Arc<Labels>,
    pub(super) mask: Mask,
    pub(super) confidence: Option<Vec<f32>>,
    pub(super) logits: Option<Vec<f32>>,
    pub(super) features: Option<Features>,
    pub(super) timings: Timings,
    pub(super) compute_share: f64,
}

/// The input of the network's head: what the network knows about each place of the photo before it decides on a class.
///
/// The map is an eighth of the network's input in height and width, so the pixel `(x, y)` of a photo that was not resized is in the cell
/// `(x / 8, y / 8)`. If photos are padded, the last rows and columns belong to the padding.
///
/// ```
/// # use rtformer::Segmenter;
/// let scene = Segmenter::builder().features(true).build()?.segment(&image::RgbImage::new(64, 48))?;
/// let features = scene.features().unwrap();
/// assert_eq!((features.channels, features.values.len()), (128, 128 * features.height * features.width));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// The number of channels.
    pub channels: usize,
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
    /// `[channels, height, width]`.
    pub values: Vec<f32>,
}

/// A class's share of a scene.
///
/// ```
/// use rtformer::{Device, Segmenter};
///
/// let scene = Segmenter::embedded(Device::Cpu)?.segment(&image::RgbImage::new(64, 48))?;
/// for class in scene.classes() {
///     println!("{:5.1} %  {} (id {}, colour {:?})", 100.0 * class.share, class.name, class.id, class.color);
/// }
/// assert!((scene.classes().iter().map(|class| class.share).sum::<f64>() - 1.0).abs() < 1e-9);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct ClassShare {
    /// The train id: the class's value in the mask.
    pub id: u16,
    /// The class's name in the data set.
    pub name: String,
    /// The class's colour in the palette, RGB.
    pub color: [u8; 3],
    /// The class's share of all of the photo's pixels, 0 to 1.
    pub share: f64,
}

impl Scene {
    /// The class of each pixel, at the photo's own size.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// Returns the mask alone, without a copy.
    ///
    /// ```
    /// # let segmenter = rtformer::Segmenter::open("tests/data/golden/tiny.safetensors", rtformer::Device::Cpu)?;
    /// let mask = segmenter.segment(&image::RgbImage::new(64, 48))?.into_mask();
    /// assert_eq!(mask.iter().count(), 64 * 48);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn into_mask(self) -> Mask {
        self.mask
    }

    /// The same scene with other times.
    pub(crate) fn with_timings(self, timings: Timings) -> Self {
        Self { timings, ..self }
    }

    /// Moves the mask out, without a copy. An empty mask stays behind, until [`set_mask`](Self::set_mask).
    ///
    /// ```
    /// # let segmenter = rtformer::Segmenter::open("tests/data/golden/tiny.safetensors", rtformer::Device::Cpu)?;
    /// let mut scene = segmenter.segment(&image::RgbImage::new(64, 48))?;
    /// assert_eq!(scene.take_mask().width(), 64);
    /// assert_eq!(scene.mask().width(), 0);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn take_mask(&mut self) -> Mask {
        let empty = Mask::new(0, 0, self.mask.classes());
        std::mem::replace(&mut self.mask, empty)
    }

    /// Replaces the mask, such as by a corrected one. [`classes`](Self::classes) and the pictures then describe this mask.
    ///
    /// ```
    /// # use rtformer::pixels::Mask;
    /// # let segmenter = rtformer::Segmenter::open("tests/data/golden/tiny.safetensors", rtformer::Device::Cpu)?;
    /// let mut scene = segmenter.segment(&image::RgbImage::new(2, 1))?;
    /// scene.set_mask(Mask::from_ids(2, 1, 5, [4_u8, 4])?)?;
    /// assert_eq!(scene.classes()[0].id, 4);
    /// assert!(scene.set_mask(Mask::new(2, 1, 19)).is_err(), "these weights have 5 classes");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] if the mask is for another number of classes.
    pub fn set_mask(&mut self, mask: Mask) -> Result<()> {
        let (got, want) = (mask.classes(), self.labels.dataset.classes.len());
        if got != want {
            return Err(Error::Input(format!("a mask of {got} classes cannot replace one of {want} classes")));
        }
        self.mask = mask;
        Ok(())
    }

    /// The data set whose classes the mask has.
    ///
    /// ```
    /// # let segmenter = rtformer::Segmenter::open("tests/data/golden/tiny.safetensors", rtformer::Device::Cpu)?;
    /// let scene = segmenter.segment(&image::RgbImage::new(64, 48))?;
    /// assert_eq!(scene.dataset(), segmenter.dataset());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn dataset(&self) -> &Dataset {
        &self.labels.dataset
    }

    /// The classes that occur, largest share first. Rejected pixels belong to no class.
    pub fn classes(&self) -> Vec<ClassShare> {
        let classes = &self.labels.dataset.classes;
        let pixels = f64::from(self.mask.width()) * f64::from(self.mask.height());
        let counts = self.mask.counts();
        let mut shares: Vec<_> = classes
            .iter()
            .zip(counts)
            .enumerate()
            .filter(|(_, (_, count))| *count > 0)
            .map(|(id, (class, count))| ClassShare {
                id: id as u16,
                name: class.name.clone(),
                color: class.color,
                share: count as f64 / pixels,
            })
            .collect();
        shares.sort_by(|a, b| b.share.total_cmp(&a.share)); // stable: the lower id first on a tie
        shares
    }

    /// The data set's colours.
    ///
    /// ```
    /// # let segmenter = rtformer::Segmenter::open("tests/data/golden/tiny.safetensors", rtformer::Device::Cpu)?;
    /// let scene = segmenter.segment(&image::RgbImage::new(64, 48))?;
    /// assert_eq!(scene.palette(), segmenter.palette());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn palette(&self) -> &Palette {
        &self.labels.palette
    }

    /// The mask as an indexed picture. The indices are the train ids; the palette is the data set's.
    ///
    /// ```
    /// # let segmenter = rtformer::Segmenter::open("tests/data/golden/tiny.safetensors", rtformer::Device::Cpu)?;
    /// # let scene = segmenter.segment(&image::RgbImage::new(64, 48))?;
    /// let mut file = Vec::new();
    /// scene.to_indexed().write_to(&mut file).unwrap();
    /// assert!(file.starts_with(b"\x89PNG"));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn to_indexed(&self) -> IndexedPicture<'_> {
        IndexedPicture::new(&self.mask, &self.labels.palette)
    }

    /// Writes [`to_indexed`](Self::to_indexed) as PNG. If writing fails, an existing file does not change.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let segmenter = rtformer::Segmenter::open("tests/data/golden/tiny.safetensors", rtformer::Device::Cpu)?;
    /// let scene = segmenter.segment(&image::RgbImage::new(64, 48))?;
    /// # let path = folder.path().join("street.mask.png");
    /// scene.save_mask(&path)?;
    /// assert_eq!(image::image_dimensions(&path).unwrap(), (64, 48));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write).
    pub fn save_mask(&self, path: impl AsRef<Path>) -> Result<()> {
        self.to_indexed().save(path)
    }

    /// The photo, blended with the mask's colours. An `alpha` of 0 gives the photo alone, 1 the colours alone.
    ///
    /// ```
    /// # let segmenter = rtformer::Segmenter::open("tests/data/golden/tiny.safetensors", rtformer::Device::Cpu)?;
    /// let photo = image::RgbImage::new(64, 48);
    /// let scene = segmenter.segment(&photo)?;
    /// let colours = scene.overlay(&photo, 1.0);
    /// assert_eq!(colours.get_pixel(5, 5).0, segmenter.palette().color(scene.mask().get(5, 5)));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn overlay<'a>(&self, photo: impl Into<Pixels<'a>>, alpha: f32) -> RgbImage {
        render::overlay(&photo.into(), &self.mask, &self.labels.palette, alpha)
    }

    /// Writes [`overlay`](Self::overlay) as PNG. If writing fails, an existing file does not change.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let segmenter = rtformer::Segmenter::open("tests/data/golden/tiny.safetensors", rtformer::Device::Cpu)?;
    /// let photo = image::RgbImage::new(64, 48);
    /// # let path = folder.path().join("street.overlay.png");
    /// segmenter.segment(&photo)?.save_overlay(&path, &photo, 0.5)?;
    /// assert_eq!(image::image_dimensions(&path).unwrap(), (64, 48));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write).
    pub fn save_overlay<'a>(&self, path: impl AsRef<Path>, photo: impl Into<Pixels<'a>>, alpha: f32) -> Result<()> {
        render::save_rgb(path, &self.overlay(photo, alpha))
    }

    /// The softmax probability of each pixel's class, `[height, width]`, at the weights' [temperature](super::Segmenter::temperature).
    /// `None` unless [`Builder::confidence`](super::Builder::confidence) requested it.
    pub fn confidence(&self) -> Option<&[f32]> {
        self.confidence.as_deref()
    }

    /// The mean of [`confidence`](Self::confidence), 0 to 1.
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// let photo = image::RgbImage::new(64, 48);
    /// let scene = Segmenter::builder().confidence(true).build()?.segment(&photo)?;
    /// assert!(scene.mean_confidence().is_some_and(|mean| mean > 0.0 && mean <= 1.0));
    /// assert_eq!(Segmenter::builder().build()?.segment(&photo)?.mean_confidence(), None, "it was not requested");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn mean_confidence(&self) -> Option<f64> {
        let confidence = self.confidence.as_ref()?;
        Some(confidence.iter().map(|&p| f64::from(p)).sum::<f64>() / confidence.len() as f64)
    }

    /// The logits at the photo's size, `[classes, height, width]`. `None` unless [`Builder::logits`](super::Builder::logits) requested them.
    pub fn logits(&self) -> Option<&[f32]> {
        self.logits.as_deref()
    }

    /// The input of the network's head. `None` unless [`Builder::features`](super::Builder::features) requested it.
    pub fn features(&self) -> Option<&Features> {
        self.features.as_ref()
    }

    /// Moves [`confidence`](Self::confidence) out, without a copy.
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// let mut scene = Segmenter::builder().confidence(true).build()?.segment(&image::RgbImage::new(64, 48))?;
    /// assert_eq!(scene.take_confidence().map(|values| values.len()), Some(48 * 64));
    /// assert_eq!(scene.confidence(), None);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn take_confidence(&mut self) -> Option<Vec<f32>> {
        self.confidence.take()
    }

    /// Moves [`logits`](Self::logits) out, without a copy.
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// let mut scene = Segmenter::builder().logits(true).build()?.segment(&image::RgbImage::new(64, 48))?;
    /// assert_eq!(scene.take_logits().map(|values| values.len()), Some(11 * 48 * 64));
    /// assert_eq!(scene.logits(), None);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn take_logits(&mut self) -> Option<Vec<f32>> {
        self.logits.take()
    }

    /// The mask, for smoothing over time.
    pub(crate) fn mask_mut(&mut self) -> &mut Mask {
        &mut self.mask
    }

    /// The multiplications that the photo took, as a share of the full network's. 1 unless
    /// [`Builder::adaptive`](super::Builder::adaptive) is used; it may then also be slightly above 1.
    ///
    /// ```
    /// # let segmenter = rtformer::Segmenter::open("tests/data/golden/tiny.safetensors", rtformer::Device::Cpu)?;
    /// assert_eq!(segmenter.segment(&image::RgbImage::new(64, 48))?.compute_share(), 1.0);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn compute_share(&self) -> f64 {
        self.compute_share
    }

    /// The time of each stage, in milliseconds.
    ///
    /// ```
    /// # let segmenter = rtformer::Segmenter::open("tests/data/golden/tiny.safetensors", rtformer::Device::Cpu)?;
    /// let timings = segmenter.segment(&image::RgbImage::new(64, 48))?.timings();
    /// assert!(timings.model > 0.0 && timings.decode == 0.0, "the photo was already decoded");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn timings(&self) -> Timings {
        self.timings
    }
}
