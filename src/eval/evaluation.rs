//! Measuring a network on labelled photos.

use std::ops::ControlFlow;
use std::sync::mpsc::sync_channel;
use std::thread;

use serde::{Serialize, Serializer};

use super::{Calibration, Confusion, LabelFormat, LabelImage, Pair};
use crate::error::{Error, Result};
use crate::pixels::{Decoder, Image};
use crate::segmenter::Segmenter;

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

/// The quality of a network on labelled photos: a confusion matrix, and the calibration of its confidence.
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
    /// The number of photos that were counted.
    pub images: usize,
    /// The number of photos that failed.
    pub failed: usize,
}

/// What is called after each pair, with the photo or its error; [`ControlFlow::Break`] ends the measurement.
pub type Watch<'a> = dyn FnMut(&Pair, Result<&Image, &Error>) -> ControlFlow<()> + 'a;

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
        Ok(Self { classes, confusion, calibration: Calibration::default(), images: 0, failed: 0 })
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
        let batch = measuring.batch.max(1);
        thread::scope(|scope| {
            let (sender, opened) = sync_channel::<Opened<'_>>(batch);
            scope.spawn(move || {
                for pair in pairs {
                    if sender.send((pair, open(pair, measuring, segmenter))).is_err() {
                        break; // the measurement has ended
                    }
                }
            });
            loop {
                let batch: Vec<_> = opened.iter().take(batch).collect();
                if batch.is_empty() || self.count(segmenter, batch, watch).is_break() {
                    break;
                }
            }
            drop(opened);
        });
    }

    /// Segments a batch and counts it.
    fn count(&mut self, segmenter: &Segmenter, batch: Vec<Opened<'_>>, watch: &mut Watch<'_>) -> ControlFlow<()> {
        let photos = batch.iter().filter_map(|(_, opened)| opened.as_ref().ok()).map(|(photo, _)| photo);
        let mut scenes = segmenter.segment_each(photos).into_iter();
        for (pair, opened) in batch {
            let counted = opened.and_then(|(photo, labels)| {
                let missing = || Error::Backend { operation: "segment_each", reason: "a photo has no result".into() };
                let scene = scenes.next().unwrap_or_else(|| Err(missing()))?;
                self.confusion.count(&labels, scene.mask())?;
                if let Some(confidence) = scene.confidence() {
                    self.calibration.count(&labels, scene.mask(), confidence)?;
                }
                Ok(photo)
            });
            match counted {
                Ok(_) => self.images += 1,
                Err(_) => self.failed += 1,
            }
            watch(pair, counted.as_ref())?;
        }
        ControlFlow::Continue(())
    }

    /// The measures, for printing and JSON.
    pub fn measures(&self) -> Measures<'_> {
        let Self { classes, confusion, calibration, images, failed } = self;
        let names = classes.iter().map(String::as_str);
        Measures {
            miou: confusion.miou(),
            pixel_accuracy: confusion.pixel_accuracy(),
            ece: calibration.error(),
            iou: Ious(names.clone().enumerate().map(|(class, name)| (name, confusion.iou(class))).collect()),
            classes: names.collect(),
            confusion: (0..confusion.classes()).map(|class| confusion.row(class)).collect(),
            images: *images,
            pixels: confusion.pixels(),
            ignored_share: confusion.ignored_share(),
            failed: *failed,
        }
    }
}

fn open(pair: &Pair, measuring: &Measuring, segmenter: &Segmenter) -> Result<(Image, LabelImage)> {
    let photo = measuring.decoder.open(&pair.photo)?;
    let labels = LabelImage::open_as(&pair.label, segmenter.dataset(), &measuring.format)?;
    labels.check_size(&pair.photo, photo.width(), photo.height())?; // before the network runs
    Ok((photo, labels))
}

/// The measures of an [`Evaluation`]. Ratios are 0 to 1, or `None` if nothing was counted.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Measures<'a> {
    /// [`Confusion::miou`].
    pub miou: Option<f64>,
    /// [`Confusion::pixel_accuracy`].
    pub pixel_accuracy: Option<f64>,
    /// The expected calibration error, [`Calibration::error`].
    pub ece: Option<f64>,
    /// [`Confusion::iou`] of each class.
    pub iou: Ious<'a>,
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

/// The `IoU` of each class with its name, in the order of the class ids.
#[derive(Debug)]
pub struct Ious<'a>(pub Vec<(&'a str, Option<f64>)>);

impl Serialize for Ious<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().copied())
    }
}
