//! How likely the network considers the labels of regions.

use super::regions::Regions;
use crate::error::{Error, Result};
use crate::eval::{Confusion, LabelImage};

/// The temperature of the soft minimum: pixels whose label is unlikely by 0.1 more count `e` times as much.
const SOFTNESS: f64 = 0.1;

impl Regions {
    /// How likely the network considers each region's labels, 0 to 1: the soft minimum, over its labelled pixels, of the probability of the
    /// pixel's label. `None` if no pixel is labelled.
    ///
    /// - `logits`: `[classes, h, w]`, of the same photo
    /// - `temperature`: divides the logits before the softmax
    ///
    /// Source: Lad and Mueller, "Estimating label quality and errors in semantic segmentation data via any model", 2023, arXiv:2307.05080.
    ///
    /// # Errors
    /// [`Error::Image`] with the label image's name if it has another size; [`Error::Input`] if the logits have another length.
    pub fn likelihoods(&self, logits: &[f32], temperature: f32, labels: &LabelImage) -> Result<Vec<Option<f64>>> {
        labels.check_size("its photo", self.width(), self.height())?;
        let pixels = self.components.len();
        if logits.len() != self.classes * pixels {
            let (found, classes) = (logits.len(), self.classes);
            return Err(Error::Input(format!("{found} logits; expected {classes} for each of {pixels} pixels")));
        }
        let ignore = Confusion::ignore_id(self.classes);
        let mut sums = vec![(0.0, 0.0); self.all.len()];
        for (pixel, &label) in labels.ids().iter().enumerate().filter(|(_, label)| **label != ignore) {
            let of = |class: usize| f64::from(logits[class * pixels + pixel] / temperature);
            let label = usize::from(label);
            if label >= self.classes {
                continue;
            }
            let p = 1.0 / (0..self.classes).map(|class| (of(class) - of(label)).exp()).sum::<f64>();
            let weight = ((1.0 - p) / SOFTNESS).exp();
            for region in self.of_pixel(pixel).into_iter().flatten() {
                sums[region].0 += weight * p;
                sums[region].1 += weight;
            }
        }
        Ok(sums.into_iter().map(|(sum, weight)| (weight > 0.0).then(|| sum / weight)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::Mask;

    /// Two components side by side; the labels of the second are unlikely in a quarter of its pixels, and of the first unlabelled.
    #[test]
    fn few_unlikely_pixels_dominate() {
        let (width, height, pixels) = (16_u32, 16_u32, 256);
        let mask = Mask::from_ids(width, height, 2, (0..256).map(|i| u8::from(i % 16 >= 8))).unwrap();
        let regions = Regions::of(&image::RgbImage::new(width, height), &mask).unwrap();
        let labels = (0..pixels).map(|i| if i % 16 < 8 { 255 } else { u16::from(i % 4 != 0) });
        let labels = LabelImage::new("l.png", width, height, labels.collect()).unwrap();
        // Class 1 has the probability 0.9 everywhere, at a temperature of 2.
        let logits: Vec<f32> = (0..2 * pixels).map(|i| if i < pixels { 0.0 } else { 2.0 * 9_f32.ln() }).collect();
        let found = regions.likelihoods(&logits, 2.0, &labels).unwrap();
        let (high, low) = (((1.0 - 0.9) / SOFTNESS).exp(), ((1.0 - 0.1) / SOFTNESS).exp());
        let want = (3.0 * high * 0.9 + low * 0.1) / (3.0 * high + low);
        assert_eq!(found[0], None);
        assert!((found[1].unwrap() - want).abs() < 1e-6, "{found:?}, not {want}");
        assert!(want < 0.11);
        assert!(matches!(regions.likelihoods(&logits[1..], 1.0, &labels), Err(Error::Input(_))));
    }
}
