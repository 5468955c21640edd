//! Test-time augmentation: the mean of the logits of scaled and mirrored versions of a photo, as PaddleSeg's `aug_inference` computes it.

use rayon::prelude::*;

use super::Segmenter;
use super::engine::{Spent, Wanted};
use crate::error::{Error, Result};
use crate::memory;
use crate::pixels::{IdsMut, Input, Pixels, Preparation};
use crate::timing::timed;

/// Versions of a photo whose logits are averaged.
///
/// For each scale, the network sees its input, resized bilinearly, and with `flip` also the mirror image. The logits are
/// resized to the input's size and averaged. The mean is what [`Scene::logits`](crate::Scene::logits) returns and what the mask and the confidence follow
/// from.
///
/// Source: `paddleseg/core/infer.py`, PaddleSeg 2.8.
///
/// ```
/// use rtformer::{Augmentation, Segmenter};
///
/// let both = Augmentation { flip: true, scales: vec![0.75, 1.0] };
/// assert_eq!(both.versions(), 4);
/// let scene = Segmenter::builder().augment(both).build()?.segment(&image::RgbImage::new(64, 48))?;
/// assert_eq!(scene.mask().width(), 64);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Augmentation {
    /// Whether the network also sees each version mirrored: left and right exchanged.
    pub flip: bool,
    /// The factors of the input's height and width, from 0.1 to 4; empty for 1 alone.
    pub scales: Vec<f64>,
}

/// The factors that are supported.
const SCALES: std::ops::RangeInclusive<f64> = 0.1..=4.0;

impl Augmentation {
    /// Whether the network sees only the photo itself.
    ///
    /// ```
    /// assert!(rtformer::Augmentation::default().is_none());
    /// ```
    pub fn is_none(&self) -> bool {
        !self.flip && self.scales.is_empty()
    }

    /// How many times the network runs for a photo.
    pub fn versions(&self) -> usize {
        self.scales.len().max(1) * if self.flip { 2 } else { 1 }
    }

    /// # Errors
    /// [`Error::Input`] for a scale that is not supported.
    pub(super) fn check(&self) -> Result<()> {
        match self.scales.iter().find(|scale| !SCALES.contains(scale)) {
            Some(scale) => Err(Error::Input(format!("invalid scale {scale}: expected 0.1 to 4"))),
            None => Ok(()),
        }
    }

    /// The scales; at least one.
    fn scales(&self) -> &[f64] {
        if self.scales.is_empty() { &[1.0] } else { &self.scales }
    }
}

/// Planes of one size, `[planes, height, width]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Planes {
    pub(super) data: Vec<f32>,
    /// Height and width.
    pub(super) size: (usize, usize),
}

impl Planes {
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn zeros(planes: usize, size: (usize, usize)) -> Result<Self> {
        let (height, width) = size;
        let what = || format!("{planes} planes of {width}x{height} pixels");
        Ok(Self { data: memory::filled(planes * height * width, 0.0, what)?, size })
    }

    pub(super) fn planes(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact((self.size.0 * self.size.1).max(1))
    }

    /// The planes at another size: bilinear, with half-pixel centres.
    fn resized(&self, size: (usize, usize)) -> Result<Self> {
        let mut to = Self::zeros(self.planes().len(), size)?;
        to.add_resized(self);
        Ok(to)
    }

    /// Adds planes of any size, resized to this one.
    fn add_resized(&mut self, other: &Self) {
        let size = self.size;
        let rows = self.data.par_chunks_exact_mut(size.1.max(1)).enumerate();
        rows.for_each_init(
            || vec![0.0; size.1],
            |row, (number, sums)| {
                other.row(number / size.0, size, number % size.0, row);
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += *value);
            },
        );
    }

    /// Row `y` of a plane that is resized to `size`.
    fn row(&self, plane: usize, size: (usize, usize), y: usize, out: &mut [f32]) {
        let (height, width) = self.size;
        let plane = &self.data[plane * height * width..][..height * width];
        let (above, below, down) = between(height, size.0, y);
        let (above, below) = (&plane[above * width..][..width], &plane[below * width..][..width]);
        for (x, out) in out.iter_mut().enumerate() {
            let (left, right, along) = between(width, size.1, x);
            let across = |row: &[f32]| row[left] * (1.0 - along) + row[right] * along;
            *out = across(above) * (1.0 - down) + across(below) * down;
        }
    }

    /// Exchanges left and right.
    fn mirror(&mut self) {
        self.data.par_chunks_exact_mut(self.size.1.max(1)).for_each(<[f32]>::reverse);
    }

    /// Writes what is wanted of logits, whose confidence is at a temperature. The logits are resized to the photo's size.
    pub(super) fn read_out(&self, wanted: &mut Wanted<'_>) -> Result<()> {
        let resized;
        let logits = if self.size == wanted.size {
            self
        } else {
            resized = self.resized(wanted.size)?;
            &resized
        };
        if let Some(out) = &mut wanted.logits {
            out.copy_from_slice(&logits.data);
        }
        let Some(ids) = wanted.ids.take() else { return Ok(()) };
        let (height, width) = wanted.size;
        let what = || format!("the classes of {width}x{height} pixels");
        let mut best: Vec<(u16, f32)> = memory::filled(height * width, (0, f32::NEG_INFINITY), what)?;
        best.par_chunks_mut(width.max(1)).enumerate().for_each(|(y, best)| {
            for (class, plane) in (0..).zip(logits.planes()) {
                let row = &plane[y * width..][..width];
                let larger = best.iter_mut().zip(row).filter(|(best, value)| **value > best.1);
                larger.for_each(|(best, value)| *best = (class, *value));
            }
        });
        match ids {
            IdsMut::U8(ids) => ids.iter_mut().zip(&best).for_each(|(id, best)| *id = best.0 as u8),
            IdsMut::U16(ids) => ids.iter_mut().zip(&best).for_each(|(id, best)| *id = best.0),
        }
        if let Some(confidence) = wanted.confidence.take() {
            let rows = confidence.values.par_chunks_mut(width.max(1)).zip(best.par_chunks(width.max(1)));
            rows.enumerate().for_each(|(y, (values, best))| {
                values.fill(0.0);
                for plane in logits.planes() {
                    let row = &plane[y * width..][..width];
                    for ((sum, value), (_, most)) in values.iter_mut().zip(row).zip(best) {
                        *sum += ((value - most) / confidence.temperature).exp();
                    }
                }
                values.iter_mut().for_each(|sum| *sum = 1.0 / *sum);
            });
        }
        Ok(())
    }
}

/// The two places between which the place `at` of `to` lies among `from`, and the weight of the second.
fn between(from: usize, to: usize, at: usize) -> (usize, usize, f32) {
    let place = ((at as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0);
    let first = (place as usize).min(from - 1);
    (first, (first + 1).min(from - 1), place - first as f32)
}

impl Segmenter {
    /// Segments photos with an [`Augmentation`], one after the other.
    pub(super) fn run_augmented(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let mut sum = Spent::default();
        for (photo, wanted) in photos.iter().zip(wanted) {
            let spent = self.run_versions(photo, wanted)?;
            sum.prepare += spent.prepare;
            sum.model += spent.model;
            sum.argmax += spent.argmax;
        }
        Ok(sum)
    }

    fn run_versions(&self, photo: &Pixels<'_>, wanted: &mut Wanted<'_>) -> Result<Spent> {
        let (input, prepare) = timed(|| self.unpadded(photo));
        let input = input?;
        let (mean, model) = timed(|| self.mean_logits(&input));
        let mean = mean?;
        let (done, argmax) = timed(|| self.on_threads(|| mean.read_out(wanted)));
        done.map(|()| Spent { prepare, model, argmax, ..Spent::default() })
    }

    /// The mean logits of all versions, at the input's size.
    fn mean_logits(&self, input: &Planes) -> Result<Planes> {
        let mut mean = Planes::zeros(self.model.num_classes(), input.size)?;
        for &scale in self.augmentation.scales() {
            let scaled = |side: usize| ((side as f64 * scale + 0.5) as usize).max(1);
            let size = (scaled(input.size.0), scaled(input.size.1));
            let resized;
            let version = if size == input.size {
                input
            } else {
                resized = self.on_threads(|| input.resized(size))?;
                &resized
            };
            for mirrored in [false, true].into_iter().take(1 + usize::from(self.augmentation.flip)) {
                let mut logits = self.logits_of(version, mirrored)?;
                self.on_threads(|| {
                    if mirrored {
                        logits.mirror();
                    }
                    mean.add_resized(&logits);
                    Ok(())
                })?;
            }
        }
        let versions = self.augmentation.versions() as f32;
        mean.data.iter_mut().for_each(|sum| *sum /= versions);
        Ok(mean)
    }

    /// The network's input without padding.
    fn unpadded(&self, photo: &Pixels<'_>) -> Result<Planes> {
        let preparation = Preparation { pad_multiple: 1, ..self.preparation };
        let Input { data, height, width, .. } = self.on_threads(|| Input::prepare(photo, &preparation))?;
        Ok(Planes { data, size: (height, width) })
    }

    /// The logits of an input, which is mirrored if asked for, at its size.
    pub(super) fn logits_of(&self, input: &Planes, mirrored: bool) -> Result<Planes> {
        let (height, width) = input.size;
        let native = Preparation { size: crate::pixels::Size::Native, ..self.preparation };
        let full = native.extent(width as u32, height as u32)?.full;
        let mut padded = Planes::zeros(3, full)?;
        for (from, to) in input.planes().zip(padded.data.chunks_exact_mut(full.0 * full.1)) {
            for (from, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(full.1)) {
                to[..width].copy_from_slice(from);
                if mirrored {
                    to[..width].reverse();
                }
            }
        }
        let input = Input { data: padded.data, height: full.0, width: full.1, kept: (height, width) };
        let mut logits = Vec::new();
        self.resident(&[input])?.logits(&mut logits)?;
        Ok(Planes { data: logits, size: (height, width) })
    }

    /// Runs `work` on the device's threads.
    pub(super) fn on_threads<R: Send>(&self, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        let (mut work, mut done) = (Some(work), None);
        self.engine.enter(&mut || done = work.take().map(|work| work()));
        let missing = || Error::Backend { operation: "augment", reason: "the device's threads did not run".into() };
        done.unwrap_or_else(|| Err(missing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_between_half_pixel_centres() {
        // torch.nn.functional.interpolate(torch.tensor([[[0., 1., 2., 3.]]]), size=N, mode="linear", align_corners=False)
        let cases: [(usize, &[f32]); 4] = [
            (2, &[0.5, 2.5]),
            (4, &[0.0, 1.0, 2.0, 3.0]),
            (8, &[0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]),
            (3, &[0.166_666_7, 1.5, 2.833_333_3]),
        ];
        let from = Planes { data: vec![0.0, 1.0, 2.0, 3.0], size: (1, 4) };
        for (width, want) in cases {
            let got = from.resized((1, width)).unwrap();
            assert!(got.data.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{width}: {got:?}");
            let down = Planes { size: (4, 1), ..from.clone() }.resized((width, 1)).unwrap();
            assert_eq!(down.data, got.data);
        }
    }

    #[test]
    fn scales_are_checked() {
        for scale in [0.0, 0.09, 4.1, f64::NAN, f64::INFINITY, -1.0] {
            let error = Augmentation { flip: false, scales: vec![1.0, scale] }.check().unwrap_err().to_string();
            assert!(error.contains("expected 0.1 to 4"), "{error}");
        }
        assert!(Augmentation { flip: true, scales: vec![0.1, 4.0] }.check().is_ok());
    }
}
