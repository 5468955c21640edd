//! Evaluation: compares masks with labelled photos and counts the pixels in a confusion matrix.
//!
//! ```no_run
//! use rtformer::eval::{Confusion, LabelImage, find_pairs};
//! use rtformer::pixels::Image;
//! use rtformer::{Device, Segmenter};
//!
//! # fn main() -> rtformer::Result<()> {
//! let segmenter = Segmenter::embedded(Device::auto())?;
//! let dataset = segmenter.dataset();
//! let mut confusion = Confusion::new(dataset.classes.len())?;
//! for pair in find_pairs("val", "val_labels", None)?.pairs {
//!     let labels = LabelImage::open(&pair.label, dataset)?;
//!     let scene = segmenter.segment(&Image::open(&pair.photo)?)?;
//!     confusion.count(&labels, scene.mask())?;
//! }
//! println!("mean IoU {:?}", confusion.miou());
//! # Ok(())
//! # }
//! ```

mod areas;
mod boundary;
mod calibration;
mod evaluation;
mod figures;
mod labels;
mod pairs;
mod photo;
pub mod risk;
mod tradeoff;

pub use areas::{Area, Areas};
pub use boundary::Boundaries;
pub use calibration::{Calibration, ConfidenceBin};
pub use evaluation::{Evaluation, Measured, Measures, Measuring, Observe, PerClass, Watch};
pub use figures::{Figure, Figures, Interval, Intervals, LEVEL, intervals, paired_intervals};
pub use labels::{LabelFormat, LabelImage, LabelKind};
pub use pairs::{Pair, Pairs, find_labels, find_pairs, find_photos};
pub use photo::Counted;
pub use tradeoff::{Risk, Tradeoff, Trial};

use crate::error::{Error, Result};
use crate::pixels::Mask;

/// The largest supported number of classes. The matrix then takes 128 MiB.
const MOST_CLASSES: usize = 4096;

/// A confusion matrix: the number of pixels of each true class that were predicted as each class. `[classes, classes + 1]`, row by row.
///
/// The last column counts the pixels to which the mask assigns no class ([rejected](Confusion::rejected) pixels). Pixels whose label
/// is the [ignore id](Confusion::ignore_id) are not in the matrix; they are [counted separately](Confusion::ignored).
///
/// ```
/// use rtformer::eval::{Confusion, LabelImage};
/// use rtformer::pixels::Mask;
///
/// let mut confusion = Confusion::new(3)?;
/// let labels = LabelImage::new("street_labels.png", 4, 1, vec![0, 0, 1, 255])?;
/// confusion.count(&labels, &Mask::new(4, 1, 3))?; // a mask of zeros
/// assert_eq!((confusion.get(0, 0), confusion.get(1, 0), confusion.pixels()), (2, 1, 3));
/// assert_eq!(confusion.iou(0), Some(2.0 / 3.0));
/// assert_eq!((confusion.iou(1), confusion.iou(2)), (Some(0.0), None)); // missed; neither labelled nor predicted
/// assert_eq!(confusion.miou(), Some(1.0 / 3.0));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
    ignored: u64,
}

impl Confusion {
    /// An empty matrix for a model with this number of classes.
    ///
    /// # Errors
    /// [`Error::Input`] if `classes` is 0 or more than 4096.
    pub fn new(classes: usize) -> Result<Self> {
        if !(1..=MOST_CLASSES).contains(&classes) {
            return Err(Error::Input(format!(
                "invalid number of classes {classes}: a confusion matrix has 1 to {MOST_CLASSES}"
            )));
        }
        Ok(Self { classes, counts: vec![0; classes * (classes + 1)], ignored: 0 })
    }

    /// The number of classes.
    ///
    /// ```
    /// assert_eq!(rtformer::eval::Confusion::new(19)?.classes(), 19);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The label of pixels that are not counted: 255, or 65535 if 255 is itself a class (256 classes or more).
    ///
    /// ```
    /// assert_eq!(rtformer::eval::Confusion::ignore_id(19), 255);
    /// ```
    pub fn ignore_id(classes: usize) -> u16 {
        if classes <= 255 { 255 } else { u16::MAX }
    }

    /// Counts a photo: compares every pixel of `mask` with the same pixel of `labels`. After an error, nothing of the photo is counted.
    ///
    /// Where the mask holds no class (for example its own ignore id), the pixel counts as a miss of the labelled class.
    ///
    /// ```
    /// # use rtformer::eval::{Confusion, LabelImage};
    /// # use rtformer::pixels::Mask;
    /// let mut confusion = Confusion::new(3)?;
    /// confusion.count(&LabelImage::new("a_labels.png", 2, 1, vec![0, 2])?, &Mask::new(2, 1, 3))?;
    /// let refused = confusion.count(&LabelImage::new("b_labels.png", 2, 1, vec![0, 7])?, &Mask::new(2, 1, 3));
    /// assert!(refused.unwrap_err().to_string().starts_with("b_labels.png: has id 7"));
    /// assert_eq!(confusion.pixels(), 2);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Image`], naming the label image, if the sizes differ or an id is neither a class nor the ignore id.
    pub fn count(&mut self, labels: &LabelImage, mask: &Mask) -> Result<()> {
        labels.check_size("its mask", mask.width(), mask.height())?;
        labels.check_ids(self.classes)?;
        let columns = self.classes + 1;
        let ignore = Self::ignore_id(self.classes);
        for (&truth, seen) in labels.ids().iter().zip(mask.iter()) {
            if truth == ignore {
                self.ignored += 1;
            } else {
                self.counts[usize::from(truth) * columns + usize::from(seen).min(self.classes)] += 1;
            }
        }
        Ok(())
    }

    /// Adds the counts of another matrix.
    ///
    /// ```
    /// # use rtformer::eval::{Confusion, LabelImage};
    /// # use rtformer::pixels::Mask;
    /// let (mut sum, mut part) = (Confusion::new(3)?, Confusion::new(3)?);
    /// part.count(&LabelImage::new("a_labels.png", 2, 1, vec![0, 2])?, &Mask::new(2, 1, 3))?;
    /// sum.merge(&part)?;
    /// assert_eq!(sum, part);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] if `other` has another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if other.classes != self.classes {
            let (own, others) = (self.classes, other.classes);
            return Err(Error::Input(format!(
                "cannot add a confusion matrix of {others} classes to one of {own} classes"
            )));
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.ignored += other.ignored;
        Ok(())
    }

    /// The number of pixels of class `truth` that were predicted as class `seen`; 0 if either class does not exist.
    pub fn get(&self, truth: usize, seen: usize) -> u64 {
        self.row(truth).get(seen).copied().unwrap_or(0)
    }

    /// The number of pixels of class `truth` to which the mask assigned no class; 0 if the class does not exist.
    ///
    /// ```
    /// # use rtformer::eval::{Confusion, LabelImage};
    /// # use rtformer::pixels::{IdsMut, Mask};
    /// let mut mask = Mask::new(2, 1, 3);
    /// if let IdsMut::U8(ids) = mask.ids_mut() {
    ///     ids.copy_from_slice(&[1, 255]);
    /// }
    /// let mut confusion = Confusion::new(3)?;
    /// confusion.count(&LabelImage::new("a_labels.png", 2, 1, vec![1, 1])?, &mask)?;
    /// assert_eq!((confusion.get(1, 1), confusion.rejected(1)), (1, 1));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn rejected(&self, truth: usize) -> u64 {
        self.whole_row(truth).last().copied().unwrap_or(0)
    }

    /// The predictions for the pixels of class `truth`: `[classes]`, without the rejected pixels. Empty if the class does not exist.
    ///
    /// ```
    /// # use rtformer::eval::{Confusion, LabelImage};
    /// # use rtformer::pixels::Mask;
    /// # let mut confusion = Confusion::new(3)?;
    /// confusion.count(&LabelImage::new("a_labels.png", 2, 1, vec![1, 1])?, &Mask::new(2, 1, 3))?; // a mask of zeros
    /// assert_eq!(confusion.row(1), [2, 0, 0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn row(&self, truth: usize) -> &[u64] {
        let whole = self.whole_row(truth);
        &whole[..whole.len().saturating_sub(1)]
    }

    /// The number of pixels that are labelled as this class.
    ///
    /// ```
    /// # use rtformer::eval::{Confusion, LabelImage};
    /// # use rtformer::pixels::Mask;
    /// # let mut confusion = Confusion::new(3)?;
    /// confusion.count(&LabelImage::new("a_labels.png", 3, 1, vec![1, 1, 255])?, &Mask::new(3, 1, 3))?;
    /// assert_eq!((confusion.labelled(0), confusion.labelled(1)), (0, 2));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn labelled(&self, class: usize) -> u64 {
        self.whole_row(class).iter().sum()
    }

    /// The number of counted pixels: all pixels that are labelled as a class.
    pub fn pixels(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The number of pixels that were not counted because their label is the [ignore id](Self::ignore_id).
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// The share of all labelled and ignored pixels that were ignored, 0 to 1; `None` if no photo has been counted.
    ///
    /// ```
    /// # use rtformer::eval::{Confusion, LabelImage};
    /// # use rtformer::pixels::Mask;
    /// # let mut confusion = Confusion::new(3)?;
    /// confusion.count(&LabelImage::new("a_labels.png", 4, 1, vec![1, 1, 255, 0])?, &Mask::new(4, 1, 3))?;
    /// assert_eq!((confusion.ignored(), confusion.ignored_share()), (1, Some(0.25)));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn ignored_share(&self) -> Option<f64> {
        ratio(self.ignored, self.pixels() + self.ignored)
    }

    /// Intersection over union, `tp / (tp + fp + fn)`, 0 to 1; `None` if the class is neither labelled nor predicted.
    pub fn iou(&self, class: usize) -> Option<f64> {
        let hit = self.get(class, class);
        let predicted: u64 = (0..self.classes).map(|truth| self.get(truth, class)).sum();
        ratio(hit, self.labelled(class) + predicted - hit)
    }

    /// The mean [`iou`](Self::iou) of the classes that have one; `None` if nothing has been counted.
    ///
    /// `PaddleSeg` counts a class that does not occur as 0 instead. If every class occurs, as in any validation split, the result is the
    /// same.
    pub fn miou(&self) -> Option<f64> {
        let ious: Vec<f64> = (0..self.classes).filter_map(|class| self.iou(class)).collect();
        (!ious.is_empty()).then(|| ious.iter().sum::<f64>() / ious.len() as f64)
    }

    /// The share of a class's labelled pixels that were predicted as that class, `tp / (tp + fn)`, 0 to 1; `None` if no pixel is labelled
    /// as the class.
    ///
    /// ```
    /// # use rtformer::eval::{Confusion, LabelImage};
    /// # use rtformer::pixels::Mask;
    /// # let mut confusion = Confusion::new(3)?;
    /// confusion.count(&LabelImage::new("a_labels.png", 2, 1, vec![0, 1])?, &Mask::new(2, 1, 3))?; // a mask of zeros
    /// assert_eq!((confusion.accuracy(0), confusion.accuracy(1), confusion.accuracy(2)), (Some(1.0), Some(0.0), None));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn accuracy(&self, class: usize) -> Option<f64> {
        ratio(self.get(class, class), self.labelled(class))
    }

    /// The share of all counted pixels that were predicted correctly, 0 to 1; `None` if nothing has been counted.
    ///
    /// ```
    /// # use rtformer::eval::{Confusion, LabelImage};
    /// # use rtformer::pixels::Mask;
    /// # let mut confusion = Confusion::new(3)?;
    /// confusion.count(&LabelImage::new("a_labels.png", 2, 1, vec![0, 1])?, &Mask::new(2, 1, 3))?; // a mask of zeros
    /// assert_eq!(confusion.pixel_accuracy(), Some(0.5));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn pixel_accuracy(&self) -> Option<f64> {
        ratio((0..self.classes).map(|class| self.get(class, class)).sum(), self.pixels())
    }

    fn whole_row(&self, truth: usize) -> &[u64] {
        self.counts.chunks_exact(self.classes + 1).nth(truth).unwrap_or_default()
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::IdsMut;

    fn mask(classes: usize, ids: &[u16]) -> Mask {
        let mut mask = Mask::new(ids.len() as u32, 1, classes);
        match mask.ids_mut() {
            IdsMut::U8(out) => out.iter_mut().zip(ids).for_each(|(out, &id)| *out = id as u8),
            IdsMut::U16(out) => out.copy_from_slice(ids),
        }
        mask
    }

    fn labels(ids: &[u16]) -> LabelImage {
        LabelImage::new("a_L.png", ids.len() as u32, 1, ids.to_vec()).unwrap()
    }

    fn counted(classes: usize, truth: &[u16], seen: &[u16]) -> Confusion {
        let mut confusion = Confusion::new(classes).unwrap();
        confusion.count(&labels(truth), &mask(classes, seen)).unwrap();
        confusion
    }

    #[test]
    fn the_measures_match_a_calculation_by_hand() {
        //                        hit hit miss  fp hit  ignored rejected
        let c = counted(4, &[0, 0, 0, 1, 1, 255, 1], &[0, 0, 1, 0, 1, 3, 255]);
        assert_eq!((c.row(0), c.row(1), c.row(2)), (&[2, 1, 0, 0][..], &[1, 1, 0, 0][..], &[0; 4][..]));
        assert_eq!((c.rejected(0), c.rejected(1), c.labelled(1), c.pixels()), (0, 1, 3, 6));
        assert_eq!((c.iou(0), c.iou(1)), (Some(2.0 / 4.0), Some(1.0 / 4.0)));
        assert_eq!((c.iou(2), c.iou(3)), (None, None), "class 3 was predicted only on an ignored pixel");
        assert_eq!((c.accuracy(0), c.accuracy(1), c.accuracy(2)), (Some(2.0 / 3.0), Some(1.0 / 3.0), None));
        assert_eq!((c.miou(), c.pixel_accuracy()), (Some(0.375), Some(0.5)));
    }

    #[test]
    fn measures_are_none_if_nothing_was_counted() {
        let empty = Confusion::new(2).unwrap();
        assert_eq!((empty.miou(), empty.pixel_accuracy(), empty.iou(0), empty.pixels()), (None, None, None, 0));
        // The same for classes that do not exist.
        assert_eq!((empty.get(0, 2), empty.get(9, 0), empty.rejected(9), empty.iou(9)), (0, 0, 0, None));
        assert!(empty.row(9).is_empty());
    }

    #[test]
    fn the_ignore_id_is_65535_if_255_is_a_class() {
        let cases = [
            (255, 255, 0),   // the largest number of classes for which 255 is not a class
            (256, 255, 1),   // 255 is a class
            (256, 65535, 0), // so 65535 is ignored
            (300, 299, 1),   // 16-bit masks
            (300, 65535, 0),
        ];
        for (classes, id, pixels) in cases {
            let c = counted(classes, &[id], &[id]);
            assert_eq!((c.pixels(), c.miou()), (pixels, (pixels > 0).then_some(1.0)), "{id} of {classes}");
        }
        assert_eq!(counted(300, &[5], &[65535]).rejected(5), 1);
    }

    #[test]
    fn a_photo_that_fails_is_not_counted() {
        let mut confusion = counted(3, &[0], &[0]);
        let before = confusion.clone();
        let cases = [
            (labels(&[1, 3]), vec!["a_L.png", "id 3", "(1, 0)", "0 to 2", "255"]),
            (labels(&[1, 0, 0]), vec!["a_L.png", "3x1", "2x1"]),
        ];
        for (labels, wanted) in cases {
            let text = confusion.count(&labels, &mask(3, &[1, 1])).unwrap_err().to_string();
            assert!(wanted.iter().all(|word| text.contains(word)), "{text}");
            assert_eq!(confusion, before);
        }
    }

    #[test]
    fn merging_adds_the_counts() {
        let mut sum = counted(2, &[0, 1], &[0, 0]);
        sum.merge(&counted(2, &[1], &[255])).unwrap();
        assert_eq!(sum, counted(2, &[0, 1, 1], &[0, 0, 255]));
        sum.merge(&counted(2, &[255, 255, 1], &[0, 0, 1])).unwrap();
        assert_eq!((sum.ignored(), sum.ignored_share()), (2, Some(2.0 / 6.0)));
        assert!(sum.merge(&Confusion::new(3).unwrap()).unwrap_err().to_string().contains("3 classes"));
        for classes in [0, MOST_CLASSES + 1, usize::MAX] {
            assert!(matches!(Confusion::new(classes), Err(Error::Input(_))), "{classes}");
        }
    }
}
