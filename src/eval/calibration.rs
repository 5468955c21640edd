//! Calibration: whether pixels with a confidence of 80 % are right in 80 % of all cases.

use super::{LabelImage, ratio};
use crate::error::{Error, Result};
use crate::pixels::Mask;

/// Bins of equal width over the confidence, the number that most papers use.
const BINS: usize = 15;

/// The share of correct pixels at each confidence, in 15 bins of equal width. Unlabelled pixels are not counted.
///
/// Source of the measure: Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599.
///
/// ```
/// use rtformer::eval::{Calibration, LabelImage};
/// use rtformer::pixels::Mask;
///
/// let mut calibration = Calibration::default();
/// let labels = LabelImage::new("street_labels.png", 4, 1, vec![0, 1, 0, 255])?;
/// calibration.count(&labels, &Mask::new(4, 1, 3), &[0.75, 0.75, 1.0, 0.4])?; // a mask of zeros
/// // One of the two pixels at 75 % is right; the pixel at 100 % is right.
/// assert_eq!(calibration.error(), Some((0.25 * 2.0 + 0.0) / 3.0));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    bins: [Bin; BINS],
}

/// The pixels within one range of confidences, for a calibration curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfidenceBin {
    /// The number of pixels, at least 1.
    pub pixels: u64,
    /// Their mean confidence, 0 to 1.
    pub confidence: f64,
    /// The share of them that is right, 0 to 1.
    pub accuracy: f64,
}

/// The pixels within one range of confidences.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bin {
    pixels: u64,
    right: u64,
    /// The sum over the pixels.
    confidence: f64,
}

impl Calibration {
    /// Counts a photo: `confidence` is `[height, width]`, as [`Scene::confidence`](crate::Scene::confidence) returns it.
    ///
    /// # Errors
    /// [`Error::Image`], naming the label image, if the sizes differ.
    pub fn count(&mut self, labels: &LabelImage, mask: &Mask, confidence: &[f32]) -> Result<()> {
        labels.check_size("its mask", mask.width(), mask.height())?;
        let pixels = labels.ids().len();
        if confidence.len() != pixels {
            let reason = format!("has {pixels} pixels, but {} confidences were given", confidence.len());
            return Err(Error::image(labels.name(), reason));
        }
        let ignore = mask.ignore_id();
        for ((&truth, seen), &p) in labels.ids().iter().zip(mask.iter()).zip(confidence) {
            if truth != ignore {
                let bin = &mut self.bins[((p * BINS as f32) as usize).min(BINS - 1)];
                bin.pixels += 1;
                bin.right += u64::from(seen == truth);
                bin.confidence += f64::from(p);
            }
        }
        Ok(())
    }

    /// The bins that have pixels, lowest confidence first.
    ///
    /// ```
    /// # use rtformer::eval::{Calibration, LabelImage};
    /// # use rtformer::pixels::Mask;
    /// # let mut calibration = Calibration::default();
    /// calibration.count(&LabelImage::new("a.png", 2, 1, vec![0, 1])?, &Mask::new(2, 1, 3), &[0.75, 0.75])?; // a mask of zeros
    /// let bins: Vec<_> = calibration.bins().collect();
    /// assert_eq!((bins.len(), bins[0].pixels, bins[0].confidence, bins[0].accuracy), (1, 2, 0.75, 0.5));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn bins(&self) -> impl Iterator<Item = ConfidenceBin> + '_ {
        self.bins.iter().filter(|bin| bin.pixels > 0).map(|bin| ConfidenceBin {
            pixels: bin.pixels,
            confidence: bin.confidence / bin.pixels as f64,
            accuracy: bin.right as f64 / bin.pixels as f64,
        })
    }

    /// The expected calibration error, 0 to 1: the difference between the confidence and the share of correct pixels, per bin and
    /// averaged over the pixels; `None` if nothing has been counted.
    pub fn error(&self) -> Option<f64> {
        let pixels: u64 = self.bins.iter().map(|bin| bin.pixels).sum();
        let off: f64 = self.bins.iter().map(|bin| (bin.confidence - bin.right as f64).abs()).sum();
        ratio(1, pixels).map(|share| off * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(truth: &[u16], confidence: &[f32]) -> Calibration {
        let mut calibration = Calibration::default();
        let labels = LabelImage::new("a_L.png", truth.len() as u32, 1, truth.to_vec()).unwrap();
        calibration.count(&labels, &Mask::new(truth.len() as u32, 1, 3), confidence).unwrap();
        calibration
    }

    #[test]
    fn the_error_matches_a_calculation_by_hand() {
        /// The reason for the case, the true ids, the confidences of a mask of zeros, the error.
        type Case = (&'static str, &'static [u16], &'static [f32], Option<f64>);
        let cases: [Case; 7] = [
            ("nothing counted", &[], &[], None),
            ("all unlabelled", &[255, 255], &[0.5, 1.0], None),
            ("confident and right", &[0, 0], &[1.0, 1.0], Some(0.0)),
            ("confident and wrong", &[1, 2], &[1.0, 1.0], Some(1.0)),
            ("a confidence of one half, and half of the pixels right", &[0, 1, 255], &[0.5, 0.5, 0.1], Some(0.0)),
            ("errors in two bins add up and do not cancel", &[0, 1], &[0.5, 0.25], Some(0.375)),
            ("NaN does not panic", &[0], &[f32::NAN], Some(f64::NAN)),
        ];
        for (why, truth, confidence, want) in cases {
            let got = counted(truth, confidence).error();
            let same = match (got, want) {
                (Some(got), Some(want)) => (got - want).abs() < 1e-12 || got.is_nan() && want.is_nan(),
                (got, want) => got == want,
            };
            assert!(same, "{why}: got {got:?}, expected {want:?}");
        }
    }

    #[test]
    fn another_size_is_an_error_and_is_not_counted() {
        let mut calibration = counted(&[0], &[1.0]);
        let before = calibration.clone();
        let labels = LabelImage::new("a_L.png", 2, 1, vec![0, 0]).unwrap();
        for (mask, confidence) in [(Mask::new(3, 1, 3), vec![1.0; 3]), (Mask::new(2, 1, 3), vec![1.0])] {
            let text = calibration.count(&labels, &mask, &confidence).unwrap_err().to_string();
            assert!(text.contains("a_L.png"), "{text}");
        }
        assert_eq!(calibration, before);
    }
}
