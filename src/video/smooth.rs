//! Averages logits over time where the picture does not change.

use image::RgbImage;
use rayon::prelude::*;

use super::changes::Changes;
use crate::error::{Error, Result};
use crate::pixels::IdsMut;
use crate::process;
use crate::segmenter::Scene;

/// Smooths masks over time.
///
/// Each 8x8 block of the picture is compared with the same block when it last changed ([`Changes`]). While it stays below
/// [`THRESHOLD`](Self::THRESHOLD), its logits are averaged exponentially: `average = strength * average + (1 - strength) * logits`. When it
/// changes, the average starts anew, so that moving things do not smear: their masks are those of the frame alone.
///
/// ```
/// use rtformer::video::Smoother;
/// use rtformer::{Device, Segmenter};
///
/// # fn main() -> rtformer::Result<()> {
/// let segmenter = Segmenter::builder().weights("tests/data/golden/tiny.safetensors").device(Device::Cpu).logits(true).build()?;
/// let frame = image::RgbImage::new(64, 48);
/// let mut smoother = Smoother::new(0.8)?;
/// for _ in 0..3 {
///     let mut scene = segmenter.segment(&frame)?;
///     smoother.apply(&frame, &mut scene)?;
///     assert_eq!(scene.mask(), segmenter.segment(&frame)?.mask(), "nothing changes");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Smoother {
    strength: f32,
    /// The picture of each block when it last changed.
    reference: RgbImage,
    /// `[classes, height, width]`.
    average: Vec<f32>,
}

impl Smoother {
    /// The mean absolute difference of a block, in grey levels, above which it changed. Of a photo with sensor noise of 4 grey levels, which
    /// is much, no block is above it; see `docs/book/src/video.md` for the measurement.
    pub const THRESHOLD: f32 = 6.0;

    /// A smoother. `strength` is the weight of the past, from 0 (no smoothing) to below 1.
    ///
    /// # Errors
    /// [`Error::Input`] if `strength` is outside this range.
    pub fn new(strength: f32) -> Result<Self> {
        if (0.0..1.0).contains(&strength) {
            return Ok(Self { strength, reference: RgbImage::default(), average: Vec::new() });
        }
        Err(Error::Input(format!("invalid strength {strength} of smoothing: expected 0 (none) to below 1")))
    }

    /// Smooths the scene of the next frame. Takes its logits.
    ///
    /// # Errors
    /// [`Error::Input`] if the scene has no logits ([`Builder::logits`](crate::Builder::logits)).
    pub fn apply(&mut self, frame: &RgbImage, scene: &mut Scene) -> Result<()> {
        let none = || Error::Input("smoothing needs logits; request them with `Builder::logits`".into());
        let mut logits = scene.take_logits().ok_or_else(none)?;
        let changes = Changes::between(&(&self.reference).into(), &frame.into(), Self::THRESHOLD);
        let Some(changes) = changes.filter(|_| self.average.len() == logits.len() && !logits.is_empty()) else {
            (self.reference, self.average) = (frame.clone(), logits);
            return Ok(());
        };
        let width = frame.width() as usize;
        let block = Changes::BLOCK as usize;
        let plane = width * frame.height() as usize;
        // The still blocks of a row, as ranges of columns.
        let still = |y: usize| {
            let blocks = (0..width).step_by(block).filter(|x| !changes.at(*x as u32, y as u32));
            blocks.map(|x| x..(x + block).min(width)).collect::<Vec<_>>()
        };
        let rows = logits.par_chunks_mut(width).zip(self.average.par_chunks(width)).enumerate();
        let average = |(i, (new, old)): (usize, (&mut [f32], &[f32]))| {
            let y = i % (plane / width);
            for columns in still(y) {
                for (new, old) in new[columns.clone()].iter_mut().zip(&old[columns]) {
                    *new = self.strength * old + (1.0 - self.strength) * *new;
                }
            }
        };
        process::parallel(|| rows.for_each(average));
        // The average of changed blocks is the frame's own logits, whose mask is known.
        let best = |y: usize, set: &mut dyn FnMut(usize, usize)| {
            for x in still(y).into_iter().flatten() {
                let column = logits[y * width + x..].iter().step_by(plane);
                let (class, _) = column.enumerate().fold((0, f32::NEG_INFINITY), |best, (class, value)| {
                    if *value > best.1 { (class, *value) } else { best } // the lower id on a tie
                });
                set(x, class);
            }
        };
        match scene.mask_mut().ids_mut() {
            IdsMut::U8(ids) => {
                let rows = ids.par_chunks_mut(width).enumerate();
                process::parallel(|| rows.for_each(|(y, row)| best(y, &mut |x, class| row[x] = class as u8)));
            }
            IdsMut::U16(ids) => {
                let rows = ids.par_chunks_mut(width).enumerate();
                process::parallel(|| rows.for_each(|(y, row)| best(y, &mut |x, class| row[x] = class as u16)));
            }
        }
        for (x, y, pixel) in frame.enumerate_pixels() {
            if changes.at(x, y) {
                self.reference.put_pixel(x, y, *pixel);
            }
        }
        self.average = logits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Segmenter};

    fn noisy(seed: u32, moved: bool) -> RgbImage {
        RgbImage::from_fn(64, 48, |x, y| {
            let grain = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503) ^ seed.wrapping_mul(97_531))
                .wrapping_mul(2_246_822_519)
                >> 29;
            let level = (x * 3 + y) as u8 + grain as u8;
            // A bright square in the lower right quarter.
            let square = moved && (40..56).contains(&x) && (32..48).contains(&y);
            image::Rgb(if square { [250, 250, 0] } else { [level, 120, 255 - level] })
        })
    }

    #[test]
    fn still_blocks_are_averaged_and_changed_ones_are_not() {
        let weights = "tests/data/golden/tiny.safetensors";
        let segmenter = Segmenter::builder().weights(weights).device(Device::Cpu).logits(true).build().unwrap();
        let mut smoother = Smoother::new(0.9).unwrap();
        let frames = [noisy(1, false), noisy(2, false), noisy(3, true)];
        let mut own = Vec::new();
        for frame in &frames {
            let mut scene = segmenter.segment(frame).unwrap();
            own.push(scene.logits().unwrap().to_vec());
            smoother.apply(frame, &mut scene).unwrap();
            assert!(scene.logits().is_none());
            // The mask is the argmax of the average everywhere.
            for (x, y) in [(3, 3), (20, 20), (45, 40), (63, 47)] {
                let at = |class: usize| smoother.average[class * 64 * 48 + (y * 64 + x) as usize];
                let best = (0..5).rev().max_by(|a, b| at(*a).total_cmp(&at(*b))).unwrap();
                assert_eq!(usize::from(scene.mask().get(x, y)), best, "({x}, {y})");
            }
        }
        let still = 0.9 * (0.9 * own[0][70] + 0.1 * own[1][70]) + 0.1 * own[2][70];
        assert!((smoother.average[70] - still).abs() < 1e-4, "{} for {still}", smoother.average[70]);
        let moved = 40 * 64 + 45;
        assert_eq!(smoother.average[moved], own[2][moved]);
        assert_eq!(smoother.reference.get_pixel(45, 40), frames[2].get_pixel(45, 40));
        assert_eq!(smoother.reference.get_pixel(3, 3), frames[0].get_pixel(3, 3));
        let other = RgbImage::new(32, 32);
        let mut scene = segmenter.segment(&other).unwrap();
        smoother.apply(&other, &mut scene).unwrap(); // another size starts anew
        assert_eq!(scene.mask(), segmenter.segment(&other).unwrap().mask());
    }

    #[test]
    fn invalid_strengths_and_missing_logits_are_errors() {
        for strength in [-0.1, 1.0, f32::NAN] {
            assert!(Smoother::new(strength).is_err(), "{strength}");
        }
        let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu).unwrap();
        let frame = RgbImage::new(32, 32);
        let error = Smoother::new(0.5).unwrap().apply(&frame, &mut segmenter.segment(&frame).unwrap()).unwrap_err();
        assert!(error.to_string().contains("needs logits"), "{error}");
    }
}
