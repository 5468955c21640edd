//! Decisions for the expected `IoU` or Dice of a photo instead of each pixel's most probable class.
//!
//! With `n` pixels of a class in the mask, whose probabilities sum up to `h`, and a sum `e` over all pixels, the expected measure of the class is to first
//! order `h / (n + e - h)` for `IoU` and `2 h / (n + e)` for Dice: the mean of a ratio is replaced by the ratio of means (the paper's successor replaces the
//! mean of a reciprocal), which is accurate for many pixels. The mean over the classes is improved step by step: every pixel takes the class for which one more pixel gains the most, until
//! nothing is gained. Only the classes that occur in the mask of the most probable classes compete, because a class that may not be there at all gains most
//! by its first pixel.
//!
//! After Dai and Li, "`RankSEG`: A Consistent Ranking-based Framework for Segmentation", arXiv:2206.13086, and for classes that exclude each other Wang and Dai,
//! "`RankSEG-RMA`: An Efficient Segmentation Algorithm via Reciprocal Moment Approximation", 2025, arXiv:2510.15362.

use std::fmt;
use std::str::FromStr;

use super::Segmenter;
use super::engine::{Spent, Wanted};
use crate::error::{Error, Result};
use crate::memory;
use crate::pixels::{IdsMut, Pixels};

/// What the class of a pixel is chosen for.
///
/// ```
/// use rtformer::{Decision, Segmenter};
///
/// assert_eq!("dice".parse::<Decision>()?, Decision::Dice);
/// let scene = Segmenter::builder().decide(Decision::Dice).build()?.segment(&image::RgbImage::new(64, 48))?;
/// assert_eq!(scene.mask().width(), 64);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Each pixel's most probable class: the best pixel accuracy.
    #[default]
    Argmax,
    /// The best expected mean `IoU` of each photo.
    Iou,
    /// The best expected mean Dice of each photo.
    Dice,
}

impl FromStr for Decision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "argmax" => Ok(Self::Argmax),
            "iou" => Ok(Self::Iou),
            "dice" => Ok(Self::Dice),
            _ => Err(Error::Input(format!("unknown decision `{name}`: expected argmax, iou or dice"))),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Argmax => "argmax",
            Self::Iou => "iou",
            Self::Dice => "dice",
        })
    }
}

impl Segmenter {
    /// Computes full-size logits with `run`, and decides by their probabilities at the weights' temperature.
    pub(super) fn run_decided(
        &self,
        photos: &[Pixels<'_>],
        wanted: &mut [Wanted<'_>],
        run: impl FnOnce(&[Pixels<'_>], &mut [Wanted<'_>]) -> Result<Spent>,
    ) -> Result<Spent> {
        let classes = self.model.num_classes();
        let mut all = Vec::new();
        for Wanted { size: (height, width), .. } in &*wanted {
            let what = || format!("{classes} probabilities for each of {width}x{height} pixels");
            all.push(memory::filled(classes * height * width, 0.0, what)?);
        }
        let logits = wanted.iter_mut().zip(&mut all).map(|(wanted, logits)| Wanted {
            size: wanted.size,
            ids: None,
            confidence: None,
            logits: Some(logits),
            features: wanted.features.as_deref_mut(),
        });
        let mut logits: Vec<_> = logits.collect();
        let spent = run(photos, &mut logits)?;
        drop(logits);
        for (wanted, mut logits) in wanted.iter_mut().zip(all) {
            if let Some(out) = &mut wanted.logits {
                out.copy_from_slice(&logits);
            }
            let Some(ids) = wanted.ids.take() else { continue };
            let pixels = wanted.size.0 * wanted.size.1;
            let mut best = softmax(&mut logits, pixels, self.temperature);
            improve(&mut best, classes, self.decision, |class, pixel| logits[class * pixels + pixel]);
            if let Some(confidence) = wanted.confidence.take() {
                for ((pixel, id), value) in best.iter().enumerate().zip(confidence.values) {
                    *value = logits[usize::from(*id) * pixels + pixel];
                }
            }
            match ids {
                IdsMut::U8(ids) => ids.iter_mut().zip(&best).for_each(|(id, best)| *id = *best as u8),
                IdsMut::U16(ids) => ids.copy_from_slice(&best),
            }
        }
        Ok(spent)
    }
}

/// Replaces logits `[classes, pixels]` by probabilities, and returns the most probable class of each pixel.
fn softmax(logits: &mut [f32], pixels: usize, temperature: f32) -> Vec<u16> {
    let mut best = vec![(0_u16, f32::NEG_INFINITY); pixels];
    for (class, plane) in (0..).zip(logits.chunks_exact(pixels.max(1))) {
        let larger = best.iter_mut().zip(plane).filter(|(best, value)| **value > best.1);
        larger.for_each(|(best, value)| *best = (class, *value));
    }
    let mut sums = vec![0.0_f32; pixels];
    for plane in logits.chunks_exact_mut(pixels.max(1)) {
        for ((value, (_, most)), sum) in plane.iter_mut().zip(&best).zip(&mut sums) {
            *value = ((*value - most) / temperature).exp();
            *sum += *value;
        }
    }
    for plane in logits.chunks_exact_mut(pixels.max(1)) {
        plane.iter_mut().zip(&sums).for_each(|(value, sum)| *value /= sum);
    }
    best.into_iter().map(|(class, _)| class).collect()
}

/// Rounds of improvement. On street photos, five are enough.
const ROUNDS: usize = 10;

/// What is known of the pixels that have a class.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// The probability of the class, summed over all pixels.
    expected: f64,
    /// The number of pixels that have it.
    taken: f64,
    /// The probability of the class, summed over the pixels that have it.
    hit: f64,
}

impl Sums {
    /// The expected measure to first order, and the gain of one more pixel with the probability p: `a p - b`.
    fn value_and_gain(&self, decision: Decision) -> (f64, f64, f64) {
        let Self { expected, taken, hit } = *self;
        let all = (taken + expected).max(f64::MIN_POSITIVE);
        match decision {
            Decision::Dice => (2.0 * hit / all, 2.0 / all, 2.0 * hit / (all * all)),
            Decision::Iou | Decision::Argmax => {
                let union = (all - hit).max(f64::MIN_POSITIVE);
                (hit / union, all / (union * union), hit / (union * union))
            }
        }
    }
}

/// Changes the classes `ids` of pixels, which are those of the largest probability, so that the mean expected measure of the classes that occur grows.
/// `probability` has that of a class for a pixel.
fn improve(ids: &mut [u16], classes: usize, decision: Decision, probability: impl Fn(usize, usize) -> f32) {
    let mut sums = vec![Sums::default(); classes];
    count(ids, &mut sums, &probability);
    let competing: Vec<usize> = (0..classes).filter(|&class| sums[class].taken > 0.0).collect();
    for class in &competing {
        sums[*class].expected = (0..ids.len()).map(|pixel| f64::from(probability(*class, pixel))).sum();
    }
    let value = |sums: &[Sums]| competing.iter().map(|&class| sums[class].value_and_gain(decision).0).sum::<f64>();
    let mut best = value(&sums);
    for _ in 0..ROUNDS {
        let gains: Vec<_> = competing.iter().map(|&class| (class, sums[class].value_and_gain(decision))).collect();
        let before = ids.to_vec();
        for (pixel, id) in ids.iter_mut().enumerate() {
            let mut most = f64::NEG_INFINITY;
            for &(class, (_, a, b)) in &gains {
                let gain = a * f64::from(probability(class, pixel)) - b;
                if gain > most {
                    (most, *id) = (gain, class as u16);
                }
            }
        }
        count(ids, &mut sums, &probability);
        let now = value(&sums);
        if now <= best {
            ids.copy_from_slice(&before);
            break;
        }
        best = now;
    }
}

fn count(ids: &[u16], sums: &mut [Sums], probability: impl Fn(usize, usize) -> f32) {
    sums.iter_mut().for_each(|sum| (sum.taken, sum.hit) = (0.0, 0.0));
    for (pixel, &id) in ids.iter().enumerate() {
        let sum = &mut sums[usize::from(id)];
        sum.taken += 1.0;
        sum.hit += f64::from(probability(usize::from(id), pixel));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: &mut u64) -> f32 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Softmax probabilities `[class][pixel]`, blurred along the pixels.
    fn probabilities(seed: &mut u64, classes: usize, pixels: usize) -> Vec<Vec<f32>> {
        let mut all: Vec<Vec<f32>> =
            (0..classes).map(|_| (0..pixels).map(|_| (4.0 * noise(seed)).exp()).collect()).collect();
        for pixel in 0..pixels {
            let sum: f32 = all.iter().map(|class| class[pixel]).sum();
            all.iter_mut().for_each(|class| class[pixel] /= sum);
        }
        all
    }

    /// The exact expectation of the mean measure over `competing` classes: every labelling of the pixels, weighted by its probability.
    fn expected(ids: &[u16], p: &[Vec<f32>], decision: Decision, competing: &[usize]) -> f64 {
        let (classes, pixels) = (p.len(), ids.len());
        let mut total = 0.0;
        for number in 0..classes.pow(pixels as u32) {
            let mut rest = number;
            let truth: Vec<u16> = (0..pixels)
                .map(|_| {
                    let id = rest % classes;
                    rest /= classes;
                    id as u16
                })
                .collect();
            let weight: f64 =
                truth.iter().enumerate().map(|(pixel, id)| f64::from(p[usize::from(*id)][pixel])).product();
            for &class in competing {
                let has = |ids: &[u16], pixel: usize| usize::from(ids[pixel]) == class;
                let both = (0..pixels).filter(|&i| has(&truth, i) && has(ids, i)).count() as f64;
                let (a, b) = (
                    (0..pixels).filter(|&i| has(&truth, i)).count() as f64,
                    (0..pixels).filter(|&i| has(ids, i)).count() as f64,
                );
                let measure = if a + b == 0.0 {
                    0.0
                } else if decision == Decision::Dice {
                    2.0 * both / (a + b)
                } else {
                    both / (a + b - both)
                };
                total += weight * measure;
            }
        }
        total / competing.len() as f64
    }

    /// Against an exhaustive search of the best mask for the exact expectation.
    #[test]
    fn decisions_are_close_to_the_best_of_all_masks() {
        let mut seed = 5;
        let mut regret = [0.0, 0.0];
        let mut better = 0;
        for case in 0..60 {
            let (classes, pixels) = if case % 2 == 0 { (2, 6) } else { (3, 5) };
            let p = probabilities(&mut seed, classes, pixels);
            let argmax: Vec<u16> = (0..pixels)
                .map(|i| (0..classes).max_by(|&a, &b| p[a][i].total_cmp(&p[b][i])).unwrap() as u16)
                .collect();
            let competing: Vec<usize> = (0..classes).filter(|class| argmax.contains(&(*class as u16))).collect();
            for decision in [Decision::Iou, Decision::Dice] {
                let mut ids = argmax.clone();
                improve(&mut ids, classes, decision, |class, pixel| p[class][pixel]);
                let masks = (0..competing.len().pow(pixels as u32)).map(|number| {
                    let mut rest = number;
                    (0..pixels)
                        .map(|_| {
                            let id = competing[rest % competing.len()];
                            rest /= competing.len();
                            id as u16
                        })
                        .collect::<Vec<_>>()
                });
                let best = masks.map(|mask| expected(&mask, &p, decision, &competing)).fold(0.0, f64::max);
                let (was, now) =
                    (expected(&argmax, &p, decision, &competing), expected(&ids, &p, decision, &competing));
                regret[0] += (best - was) / 120.0;
                regret[1] += (best - now) / 120.0;
                assert!(now > 0.93 * best, "{case} {decision:?}: {now} of {best}, argmax {was}; {p:?}");
                better += i32::from(now > was + 1e-9) - i32::from(now < was - 1e-9);
            }
        }
        println!("mean regret: argmax {:.5}, decisions {:.5}; better {better}", regret[0], regret[1]);
        assert!(regret[1] < 0.5 * regret[0] && better > 10, "mean regret {regret:?}, better {better}");
    }

    /// One object whose pixels have these probabilities: the best mask takes the most probable ones, and Dice takes more than half.
    #[test]
    fn an_uncertain_object_is_taken_whole() {
        let object = [0.9, 0.9, 0.45, 0.45, 0.45, 0.02, 0.02, 0.02, 0.02, 0.02];
        let p = |class: usize, pixel: usize| if class == 1 { object[pixel] } else { 1.0 - object[pixel] };
        let mut ids: Vec<u16> = object.iter().map(|p| u16::from(*p > 0.5)).collect();
        improve(&mut ids, 2, Decision::Dice, p);
        assert_eq!(ids, [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]);
        // A certain mask stays.
        let mut ids = vec![0, 1, 1];
        improve(&mut ids, 3, Decision::Iou, |class, pixel| f32::from(class == [0, 1, 1][pixel]));
        assert_eq!(ids, [0, 1, 1]);
    }
}
