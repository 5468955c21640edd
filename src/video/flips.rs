//! How much masks flicker.

use image::RgbImage;

use crate::pixels::Mask;

/// Counts pixels that change class although the picture does not.
///
/// The flip rate of a frame is the share of all its pixels that have another class than in the previous frame although none of their three
/// channels changed by more than [`STILL`](Self::STILL) grey levels.
///
/// ```
/// use rtformer::pixels::Mask;
/// use rtformer::video::FlipCounter;
///
/// let frame = image::RgbImage::new(2, 2);
/// let mut flips = FlipCounter::default();
/// assert_eq!(flips.count(&frame, &Mask::from_ids(2, 2, 3, [0_u8, 1, 2, 0])?), None, "there is no previous frame");
/// assert_eq!(flips.count(&frame, &Mask::from_ids(2, 2, 3, [0_u8, 1, 2, 1])?), Some(0.25));
/// assert_eq!(flips.rate(), Some(0.25));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct FlipCounter {
    previous: Option<(RgbImage, Mask)>,
    flips: u64,
    pixels: u64,
}

impl FlipCounter {
    /// The largest change of a channel, in grey levels, with which a pixel counts as unchanged.
    pub const STILL: u8 = 3;

    /// Counts a frame, and returns its flip rate: 0 to 1, or `None` for the first frame and after a change of size.
    pub fn count(&mut self, frame: &RgbImage, mask: &Mask) -> Option<f64> {
        let size = (mask.width(), mask.height());
        let comparable = |(before, old): &&(RgbImage, Mask)| {
            before.dimensions() == frame.dimensions()
                && (old.width(), old.height()) == size
                && frame.dimensions() == size
        };
        let rate = self.previous.as_ref().filter(comparable).map(|(before, old)| {
            let still = |(a, b): (&image::Rgb<u8>, &image::Rgb<u8>)| {
                a.0.iter().zip(b.0).all(|(a, b)| a.abs_diff(b) <= Self::STILL)
            };
            let pixels = before.pixels().zip(frame.pixels()).map(still);
            let flips =
                pixels.zip(old.iter().zip(mask.iter())).filter(|(still, (a, b))| *still && a != b).count() as u64;
            let all = u64::from(size.0) * u64::from(size.1);
            self.flips += flips;
            self.pixels += all;
            flips as f64 / all.max(1) as f64
        });
        match &mut self.previous {
            Some((before, old)) if before.dimensions() == frame.dimensions() => {
                before.copy_from_slice(frame);
                old.clone_from(mask);
            }
            previous => *previous = Some((frame.clone(), mask.clone())),
        }
        rate
    }

    /// The flip rate of all frames so far; `None` if no two could be compared.
    pub fn rate(&self) -> Option<f64> {
        (self.pixels > 0).then(|| self.flips as f64 / self.pixels as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unchanged_pixels_flip() {
        let mut flips = FlipCounter::default();
        let frame = |levels: [u8; 4]| RgbImage::from_fn(4, 1, |x, _| image::Rgb([50, levels[x as usize], 50]));
        let mask = |ids: [u8; 4]| Mask::from_ids(4, 1, 5, ids).unwrap();
        assert_eq!(flips.count(&frame([50; 4]), &mask([0; 4])), None);
        // Changed by 3: a flip. By 4: none. Unchanged with the same class: none.
        assert_eq!(flips.count(&frame([53, 54, 50, 47]), &mask([1, 1, 0, 1])), Some(0.5));
        assert_eq!(flips.count(&frame([53, 54, 50, 47]), &mask([1, 1, 0, 1])), Some(0.0));
        assert_eq!(flips.rate(), Some(0.25));
        assert_eq!(flips.count(&RgbImage::new(2, 2), &Mask::new(2, 2, 5)), None, "another size");
        assert_eq!(flips.rate(), Some(0.25));
    }
}
