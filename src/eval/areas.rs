//! The pixels of each class, and the measures that follow from them.

use super::{Confusion, LabelImage, ratio};
use crate::error::Result;
use crate::pixels::Mask;

/// The pixels of a class, in numbers of pixels. Pixels whose label is ignored are not among them.
///
/// ```
/// use rtformer::eval::Area;
///
/// let car = Area { hit: 6, predicted: 8, labelled: 10 };
/// assert_eq!((car.iou(), car.dice(), car.accuracy()), (Some(0.5), Some(12.0 / 18.0), Some(0.6)));
/// assert_eq!(Area::default().iou(), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Area {
    /// Labelled and predicted as the class.
    pub hit: u64,
    /// Predicted as the class.
    pub predicted: u64,
    /// Labelled as the class.
    pub labelled: u64,
}

impl Area {
    /// Intersection over union, 0 to 1; `None` if the class is neither labelled nor predicted.
    pub fn iou(self) -> Option<f64> {
        ratio(self.hit, self.predicted + self.labelled - self.hit)
    }

    /// The Dice coefficient or F1 score, `2 hit / (predicted + labelled)`, 0 to 1; `None` if the class is neither labelled nor predicted.
    pub fn dice(self) -> Option<f64> {
        ratio(2 * self.hit, self.predicted + self.labelled)
    }

    /// The share of the labelled pixels that were found, 0 to 1; `None` if no pixel is labelled as the class.
    pub fn accuracy(self) -> Option<f64> {
        ratio(self.hit, self.labelled)
    }

    /// Adds the pixels of another area.
    pub(super) fn add(&mut self, other: Self) {
        self.hit += other.hit;
        self.predicted += other.predicted;
        self.labelled += other.labelled;
    }
}

/// The pixels of every class, by id. Means are over the classes that have the measure, as in `mmsegmentation`; `PaddleSeg` counts a class
/// that does not occur as 0 instead, so it gives the same means if every class occurs.
///
/// ```
/// use rtformer::eval::{Areas, LabelImage};
/// use rtformer::pixels::Mask;
///
/// let mut areas = Areas::new(3);
/// areas.count(&LabelImage::new("street_labels.png", 4, 1, vec![0, 0, 1, 255])?, &Mask::new(4, 1, 3))?; // a mask of zeros
/// assert_eq!((areas.get(0).hit, areas.get(0).predicted, areas.get(1).labelled), (2, 3, 1));
/// assert_eq!((areas.miou(), areas.mdice()), (Some(1.0 / 3.0), Some(0.4)));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Areas(Vec<Area>);

impl Areas {
    /// No pixels of this number of classes.
    pub fn new(classes: usize) -> Self {
        Self(vec![Area::default(); classes])
    }

    /// The areas of a confusion matrix.
    pub fn of(confusion: &Confusion) -> Self {
        let classes = 0..confusion.classes();
        let predicted = |class| classes.clone().map(|truth| confusion.get(truth, class)).sum();
        let area = |class| Area {
            hit: confusion.get(class, class),
            predicted: predicted(class),
            labelled: confusion.labelled(class),
        };
        Self(classes.clone().map(area).collect())
    }

    /// Counts a photo. Returns the number of pixels whose label is ignored.
    ///
    /// # Errors
    /// As [`Confusion::count`]; then nothing of the photo is counted.
    pub fn count(&mut self, labels: &LabelImage, mask: &Mask) -> Result<u64> {
        labels.check_size("its mask", mask.width(), mask.height())?;
        labels.check_ids(self.0.len())?;
        let ignore = Confusion::ignore_id(self.0.len());
        let mut ignored = 0;
        for (&truth, seen) in labels.ids().iter().zip(mask.iter()) {
            if truth == ignore {
                ignored += 1;
            } else {
                self.pixel(Some(truth), Some(seen));
            }
        }
        Ok(ignored)
    }

    /// Counts a pixel; `None` and ids of no class are not counted.
    pub(super) fn pixel(&mut self, truth: Option<u16>, seen: Option<u16>) {
        let area = |id: Option<u16>| id.map_or(usize::MAX, usize::from);
        if let Some(labelled) = self.0.get_mut(area(truth)) {
            labelled.labelled += 1;
            labelled.hit += u64::from(truth == seen);
        }
        if let Some(predicted) = self.0.get_mut(area(seen)) {
            predicted.predicted += 1;
        }
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.0.len()
    }

    /// The pixels of a class; none if the class does not exist.
    pub fn get(&self, class: usize) -> Area {
        self.0.get(class).copied().unwrap_or_default()
    }

    /// The classes that occur, with their pixels.
    pub(super) fn occurring(&self) -> impl Iterator<Item = (u16, Area)> + '_ {
        (0..).zip(self.0.iter().copied()).filter(|(_, area)| *area != Area::default())
    }

    /// Adds the pixels of a class.
    pub(super) fn add(&mut self, class: u16, area: Area) {
        self.0[usize::from(class)].add(area);
    }

    /// Removes all pixels.
    pub(super) fn clear(&mut self) {
        self.0.fill(Area::default());
    }

    /// The mean [`Area::iou`]; `None` if nothing has been counted.
    pub fn miou(&self) -> Option<f64> {
        self.mean(Area::iou)
    }

    /// The mean [`Area::dice`]; `None` if nothing has been counted.
    pub fn mdice(&self) -> Option<f64> {
        self.mean(Area::dice)
    }

    /// The mean [`Area::accuracy`], `mmsegmentation`'s `mAcc`; `None` if nothing has been counted.
    pub fn mean_accuracy(&self) -> Option<f64> {
        self.mean(Area::accuracy)
    }

    /// The share of pixels that were predicted correctly; `None` if nothing has been counted.
    pub fn pixel_accuracy(&self) -> Option<f64> {
        ratio(self.0.iter().map(|area| area.hit).sum(), self.pixels())
    }

    /// The mean `IoU`, weighted by the classes' labelled pixels; `None` if nothing has been counted.
    ///
    /// Source: Long et al., "Fully Convolutional Networks for Semantic Segmentation", arXiv:1411.4038, section 5.
    pub fn frequency_weighted_iou(&self) -> Option<f64> {
        let weighted: f64 = self.0.iter().filter_map(|area| Some(area.labelled as f64 * area.iou()?)).sum();
        (self.pixels() > 0).then(|| weighted / self.pixels() as f64)
    }

    /// Cohen's kappa: the agreement of labels and masks beyond that of independent ones with the same shares of classes. 1 is perfect, 0 is
    /// chance, negative is worse. `None` if nothing has been counted or both have one and the same class only.
    pub fn kappa(&self) -> Option<f64> {
        let pixels = self.pixels() as f64;
        let chance: f64 = self.0.iter().map(|area| area.predicted as f64 * area.labelled as f64).sum();
        let chance = chance / (pixels * pixels);
        self.pixel_accuracy().filter(|_| chance < 1.0).map(|observed| (observed - chance) / (1.0 - chance))
    }

    fn pixels(&self) -> u64 {
        self.0.iter().map(|area| area.labelled).sum()
    }

    fn mean(&self, measure: impl Fn(Area) -> Option<f64>) -> Option<f64> {
        let (sum, count) = self
            .0
            .iter()
            .filter_map(|area| measure(*area))
            .fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
        (count > 0).then(|| sum / f64::from(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn areas(of: &[(u64, u64, u64)]) -> Areas {
        Areas(of.iter().map(|&(hit, predicted, labelled)| Area { hit, predicted, labelled }).collect())
    }

    #[test]
    fn the_measures_match_a_calculation_by_hand() {
        // Two classes and one that does not occur: 8 pixels, of which 6 are right.
        let some = areas(&[(4, 5, 5), (2, 3, 3), (0, 0, 0)]);
        let near = |got: Option<f64>, want: f64| assert!((got.unwrap() - want).abs() < 1e-15, "{got:?}, not {want}");
        near(some.miou(), f64::midpoint(4.0 / 6.0, 0.5));
        near(some.mdice(), f64::midpoint(0.8, 4.0 / 6.0));
        near(some.mean_accuracy(), f64::midpoint(0.8, 2.0 / 3.0));
        assert_eq!(some.pixel_accuracy(), Some(0.75));
        near(some.frequency_weighted_iou(), (5.0 * 4.0 / 6.0 + 3.0 * 0.5) / 8.0);
        let chance = (25.0 + 9.0) / 64.0;
        near(some.kappa(), (0.75 - chance) / (1.0 - chance));
    }

    #[test]
    fn measures_without_a_value_are_none() {
        let none = Areas::new(2);
        assert_eq!([none.miou(), none.mdice(), none.mean_accuracy(), none.pixel_accuracy()], [None; 4]);
        assert_eq!([none.frequency_weighted_iou(), none.kappa()], [None; 2]);
        let single = areas(&[(4, 4, 4), (0, 0, 0)]);
        assert_eq!((single.kappa(), single.miou()), (None, Some(1.0)), "chance agrees completely");
        // A class that is predicted and never labelled has an IoU of 0, and no accuracy.
        let extra = areas(&[(3, 3, 4), (0, 1, 0)]);
        assert_eq!((extra.miou(), extra.mean_accuracy()), (Some(0.375), Some(0.75)));
    }

    #[test]
    fn counting_pixels_and_counting_a_matrix_give_the_same_areas() {
        let labels = LabelImage::new("a_L.png", 7, 1, vec![0, 0, 1, 2, 255, 2, 1]).unwrap();
        let mask = Mask::from_ids(7, 1, 3, [0_u16, 1, 1, 255, 2, 2, 0]).unwrap();
        let (mut areas, mut confusion) = (Areas::new(3), Confusion::new(3).unwrap());
        assert_eq!(areas.count(&labels, &mask).unwrap(), 1);
        confusion.count(&labels, &mask).unwrap();
        assert_eq!(areas, Areas::of(&confusion));
        assert_eq!(areas.get(2), Area { hit: 1, predicted: 1, labelled: 2 });
    }
}
