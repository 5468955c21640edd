//! Measuring a network on labelled photos.

use std::ops::ControlFlow;
use std::sync::mpsc::sync_channel;
use std::thread;

use serde::{Serialize, Serializer};

use super::{Area, Areas, Boundaries, Calibration, Confusion, Counted, Figure, Figures, LabelFormat, LabelImage, Pair};
use crate::error::{Error, Result};
use crate::pixels::{Decoder, Image, Mask};
use crate::segmenter::{Scene, Segmenter};

/// How photos and labels are read, and how many photos go through the network together.
///
/// ```
/// use rtformer::eval::Measuring;
///
/// let measuring = Measuring { batch: 8, ..Measuring::default() };
/// assert_eq!(measuring.format, Default::default());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Measuring {
    /// Decodes the photos.
    pub decoder: Decoder,
    /// The content of the label images.
    pub format: LabelFormat,
    /// The number of photos that go through the network together if consecutive ones have the same size; 0 means 1.
    pub batch: usize,
}

/// The quality of a network on labelled photos: a confusion matrix, the calibration of its confidence, the agreement along contours, and
/// what was counted on each photo.
///
/// ```no_run
/// use std::ops::ControlFlow;
///
/// use rtformer::Segmenter;
/// use rtformer::eval::{Evaluation, Measuring, find_pairs};
///
/// let segmenter = Segmenter::builder().confidence(true).build()?;
/// let mut evaluation = Evaluation::new(&segmenter)?;
/// let pairs = find_pairs("val", "val_labels", None)?.pairs;
/// evaluation.measure(&segmenter, &pairs, &Measuring::default(), &mut |_, _| ControlFlow::Continue(()));
/// println!("mean IoU {:?}", evaluation.confusion.miou());
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Debug)]
pub struct Evaluation {
    /// The classes' names, by id.
    pub classes: Vec<String>,
    /// The pixels of each class, by what they were predicted as.
    pub confusion: Confusion,
    /// The confidence of the predictions; empty if the segmenter does not return it.
    pub calibration: Calibration,
    /// The pixels along the classes' contours.
    pub boundaries: Boundaries,
    /// What was counted on each photo, in their order.
    pub photos: Vec<Counted>,
    /// The number of photos that were counted.
    pub images: usize,
    /// The number of photos that failed.
    pub failed: usize,
}

/// What is called after each pair, with the photo or its error; [`ControlFlow::Break`] ends the measurement.
pub type Watch<'a> = dyn FnMut(&Pair, Result<&Image, &Error>) -> ControlFlow<()> + 'a;

/// A photo that was counted, for [`Evaluation::observe`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Measured<'a> {
    /// The decoded photo.
    pub photo: &'a Image,
    /// Its labels.
    pub labels: &'a LabelImage,
    /// The network's result.
    pub scene: &'a Scene,
    /// What was counted.
    pub counted: &'a Counted,
}

/// What [`Evaluation::observe`] calls after each pair; [`ControlFlow::Break`] ends the measurement.
pub type Observe<'a> = dyn FnMut(&Pair, Result<Measured<'_>, &Error>) -> ControlFlow<()> + 'a;

/// A photo, and its decoded images or the error.
type Opened<'a> = (&'a Pair, Result<(Image, LabelImage)>);

impl Evaluation {
    /// An evaluation of this segmenter, without photos.
    ///
    /// # Errors
    /// As [`Confusion::new`].
    pub fn new(segmenter: &Segmenter) -> Result<Self> {
        let classes: Vec<_> = segmenter.dataset().classes.iter().map(|class| class.name.clone()).collect();
        let confusion = Confusion::new(classes.len())?;
        let boundaries = Boundaries::new(classes.len(), Boundaries::WIDTH)?;
        let (calibration, photos) = (Calibration::default(), Vec::new());
        Ok(Self { classes, confusion, calibration, boundaries, photos, images: 0, failed: 0 })
    }

    /// Counts a photo. `confidence` is as in [`Calibration::count`]; `None` leaves the calibration unchanged.
    ///
    /// ```
    /// # use rtformer::Segmenter;
    /// # use rtformer::eval::{Evaluation, LabelImage, Pair};
    /// # use rtformer::pixels::Mask;
    /// let mut evaluation = Evaluation::new(&Segmenter::builder().build()?)?;
    /// let labels = LabelImage::new("street.png", 2, 1, vec![0, 1])?;
    /// let pair = Pair { photo: "street.jpg".into(), label: "street.png".into() };
    /// evaluation.count(&pair, &labels, &Mask::new(2, 1, evaluation.classes.len()), None)?;
    /// assert_eq!((evaluation.images, evaluation.confusion.pixel_accuracy()), (1, Some(0.5)));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Confusion::count`] and [`Calibration::count`].
    pub fn count(
        &mut self,
        pair: &Pair,
        labels: &LabelImage,
        mask: &Mask,
        confidence: Option<&[f32]>,
    ) -> Result<&Counted> {
        let mut regions = Areas::new(self.classes.len());
        let mut boundaries = Boundaries::new(self.classes.len(), self.boundaries.width())?;
        let ignored = regions.count(labels, mask)?;
        if let Some(confidence) = confidence {
            self.calibration.count(labels, mask, confidence)?;
        }
        self.confusion.count(labels, mask)?;
        boundaries.count(labels, mask)?;
        boundaries.areas().occurring().for_each(|(class, area)| self.boundaries.add(class, area));
        self.photos.push(Counted::new(&pair.photo, &pair.label, &regions, boundaries.areas(), ignored));
        self.images += 1;
        Ok(&self.photos[self.photos.len() - 1])
    }

    /// Segments photos and counts their pixels. The next pairs are decoded while the network runs; at most two batches are in memory.
    ///
    /// A pair that fails is not counted and does not affect the others.
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use rtformer::Segmenter;
    /// # use rtformer::eval::{Evaluation, Measuring, Pair};
    /// let segmenter = Segmenter::builder().build()?;
    /// let mut evaluation = Evaluation::new(&segmenter)?;
    /// let missing = [Pair { photo: "none.jpg".into(), label: "none.png".into() }];
    /// evaluation.measure(&segmenter, &missing, &Measuring::default(), &mut |pair, counted| {
    ///     assert!(counted.unwrap_err().to_string().starts_with("none.jpg"), "{pair:?}");
    ///     ControlFlow::Continue(())
    /// });
    /// assert_eq!((evaluation.images, evaluation.failed), (0, 1));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn measure(&mut self, segmenter: &Segmenter, pairs: &[Pair], measuring: &Measuring, watch: &mut Watch<'_>) {
        self.observe(segmenter, pairs, measuring, &mut |pair, measured| {
            watch(pair, measured.map(|measured| measured.photo))
        });
    }

    /// [`measure`](Self::measure), but `observe` also gets the labels, the network's result and what was counted.
    pub fn observe(&mut self, segmenter: &Segmenter, pairs: &[Pair], measuring: &Measuring, observe: &mut Observe<'_>) {
        let batch = measuring.batch.max(1);
        thread::scope(|scope| {
            let (sender, opened) = sync_channel::<Opened<'_>>(batch);
            scope.spawn(move || {
                for pair in pairs {
                    if sender.send((pair, measuring.open(pair, segmenter))).is_err() {
                        break; // the measurement has ended
                    }
                }
            });
            loop {
                let batch: Vec<_> = opened.iter().take(batch).collect();
                if batch.is_empty() || self.count_batch(segmenter, batch, observe).is_break() {
                    break;
                }
            }
            drop(opened);
        });
    }

    /// Segments a batch and counts it.
    fn count_batch(
        &mut self,
        segmenter: &Segmenter,
        batch: Vec<Opened<'_>>,
        observe: &mut Observe<'_>,
    ) -> ControlFlow<()> {
        let photos = batch.iter().filter_map(|(_, opened)| opened.as_ref().ok()).map(|(photo, _)| photo);
        let mut scenes = segmenter.segment_each(photos).into_iter();
        for (pair, opened) in batch {
            let segmented = opened.and_then(|(photo, labels)| {
                let missing = || Error::Backend { operation: "segment_each", reason: "a photo has no result".into() };
                Ok((photo, labels, scenes.next().unwrap_or_else(|| Err(missing()))?))
            });
            let counted = match &segmented {
                Ok((photo, labels, scene)) => self
                    .count(pair, labels, scene.mask(), scene.confidence())
                    .map(|counted| Measured { photo, labels, scene, counted }),
                Err(error) => {
                    self.failed += 1;
                    observe(pair, Err(error))?;
                    continue;
                }
            };
            match counted {
                Ok(measured) => observe(pair, Ok(measured))?,
                Err(error) => {
                    self.failed += 1;
                    observe(pair, Err(&error))?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The figures of all photos.
    pub fn figures(&self) -> Figures {
        Figures::of(&Areas::of(&self.confusion), self.boundaries.areas(), &self.photos)
    }

    /// The measures, for printing and JSON.
    pub fn measures(&self) -> Measures<'_> {
        let Self { classes, confusion, calibration, boundaries, images, failed, .. } = self;
        let (regions, figures) = (Areas::of(confusion), self.figures());
        let each = |areas: &Areas, measure: fn(Area) -> Option<f64>| {
            PerClass((0..).zip(classes).map(|(class, name)| (name.as_str(), measure(areas.get(class)))).collect())
        };
        Measures {
            miou: figures.get(Figure::Miou),
            pixel_accuracy: figures.get(Figure::PixelAccuracy),
            mean_accuracy: figures.get(Figure::MeanAccuracy),
            mdice: figures.get(Figure::Mdice),
            fwiou: figures.get(Figure::Fwiou),
            kappa: figures.get(Figure::Kappa),
            boundary_miou: figures.get(Figure::BoundaryMiou),
            image_miou: figures.get(Figure::ImageMiou),
            image_mdice: figures.get(Figure::ImageMdice),
            ece: calibration.error(),
            iou: each(&regions, Area::iou),
            dice: each(&regions, Area::dice),
            accuracy: each(&regions, Area::accuracy),
            boundary_iou: each(boundaries.areas(), Area::iou),
            classes: classes.iter().map(String::as_str).collect(),
            confusion: (0..confusion.classes()).map(|class| confusion.row(class)).collect(),
            images: *images,
            pixels: confusion.pixels(),
            ignored_share: confusion.ignored_share(),
            failed: *failed,
        }
    }
}

impl Measuring {
    /// Decodes a photo and its labels, and checks that they have one size.
    ///
    /// # Errors
    /// The errors of [`Decoder::open`](crate::pixels::Decoder::open), [`LabelImage::open_for`] and [`LabelImage::check_size`].
    pub fn open(&self, pair: &Pair, segmenter: &Segmenter) -> Result<(Image, LabelImage)> {
        let photo = self.decoder.open(&pair.photo)?;
        let labels = LabelImage::open_for(&pair.label, segmenter, &self.format)?;
        labels.check_size(&pair.photo, photo.width(), photo.height())?; // before the network runs
        Ok((photo, labels))
    }
}

/// The measures of an [`Evaluation`]. Ratios are 0 to 1, or `None` if nothing was counted.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Measures<'a> {
    /// [`Areas::miou`].
    pub miou: Option<f64>,
    /// [`Areas::pixel_accuracy`].
    pub pixel_accuracy: Option<f64>,
    /// [`Areas::mean_accuracy`].
    pub mean_accuracy: Option<f64>,
    /// [`Areas::mdice`].
    pub mdice: Option<f64>,
    /// [`Areas::frequency_weighted_iou`].
    pub fwiou: Option<f64>,
    /// [`Areas::kappa`].
    pub kappa: Option<f64>,
    /// The mean of [`boundary_iou`](Self::boundary_iou).
    pub boundary_miou: Option<f64>,
    /// The mean over photos of each photo's mean `IoU`.
    pub image_miou: Option<f64>,
    /// The mean over photos of each photo's mean Dice coefficient.
    pub image_mdice: Option<f64>,
    /// The expected calibration error, [`Calibration::error`].
    pub ece: Option<f64>,
    /// [`Area::iou`] of each class.
    pub iou: PerClass<'a>,
    /// [`Area::dice`] of each class.
    pub dice: PerClass<'a>,
    /// [`Area::accuracy`] of each class.
    pub accuracy: PerClass<'a>,
    /// The boundary `IoU` of each class; see [`Boundaries`].
    pub boundary_iou: PerClass<'a>,
    /// The classes' names, by id.
    pub classes: Vec<&'a str>,
    /// One row for each true class, one column for each predicted class: numbers of pixels.
    pub confusion: Vec<&'a [u64]>,
    /// The number of photos that were counted.
    pub images: usize,
    /// The number of counted pixels: those that are labelled as a class.
    pub pixels: u64,
    /// The share of all pixels of the labels that was ignored.
    pub ignored_share: Option<f64>,
    /// The number of photos that failed.
    pub failed: usize,
}

/// A measure of each class with its name, in the order of the class ids.
#[derive(Debug)]
pub struct PerClass<'a>(pub Vec<(&'a str, Option<f64>)>);

impl Serialize for PerClass<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().copied())
    }
}
