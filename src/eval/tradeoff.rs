//! What policies lose and save on a photo, next to the full network.

use std::fmt;
use std::str::FromStr;

use super::LabelImage;
use crate::error::{Error, Result};
use crate::pixels::{Image, Mask};
use crate::segmenter::{Policy, Scene, Segmenter};

/// What counts as a loss, 0 to 1 for each photo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Risk {
    /// `consistency`: the share of pixels whose class differs from the full network's. Needs no labels.
    #[default]
    Consistency,
    /// `accuracy`: by how much the share of correct pixels is smaller than the full network's; 0 if it is larger.
    Accuracy,
}

impl Risk {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consistency => "consistency",
            Self::Accuracy => "accuracy",
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Risk {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Consistency, Self::Accuracy]
            .into_iter()
            .find(|risk| risk.name() == text)
            .ok_or_else(|| Error::Input(format!("invalid risk `{text}`: expected `consistency` or `accuracy`")))
    }
}

/// A photo under a policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// 0 to 1.
    pub loss: f64,
    /// The share of the full network's multiplications.
    pub compute_share: f64,
}

/// The full network, and policies that are compared with it.
///
/// ```
/// use rtformer::eval::{Risk, Tradeoff};
/// use rtformer::pixels::Image;
/// use rtformer::{Device, Policy, Segmenter};
///
/// let segmenter = Segmenter::builder().device(Device::Cpu).exits(true).build()?;
/// let tradeoff = Tradeoff::new(&segmenter, &[Policy::Full, Policy::Tiles { threshold: 0.0 }])?;
/// let trials = tradeoff.trials(&Image::open("tests/data/golden/photo.png")?, None, Risk::Consistency)?;
/// assert_eq!((trials[0].loss, trials[0].compute_share), (0.0, 1.0));
/// assert!(trials[1].loss <= 1.0 && trials[1].compute_share < 0.5);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Debug)]
pub struct Tradeoff {
    full: Segmenter,
    others: Vec<Segmenter>,
}

impl Tradeoff {
    /// Compares `policies` on this segmenter's network.
    ///
    /// # Errors
    /// As [`Segmenter::with_policy`].
    pub fn new(segmenter: &Segmenter, policies: &[Policy]) -> Result<Self> {
        let others = policies.iter().map(|policy| segmenter.with_policy(*policy));
        Ok(Self { full: segmenter.with_policy(Policy::Full)?, others: others.collect::<Result<_>>()? })
    }

    /// Segments the photo with each policy; the results are in the order of the policies.
    ///
    /// # Errors
    /// As [`Segmenter::segment`]; [`Error::Input`] for [`Risk::Accuracy`] without labels; [`Error::Image`] for labels of another size.
    pub fn trials(&self, photo: &Image, labels: Option<&LabelImage>, risk: Risk) -> Result<Vec<Trial>> {
        let loss: Box<dyn Fn(&Mask) -> f64> = match (risk, labels) {
            (Risk::Consistency, _) => {
                let full = self.full.segment(photo)?.into_mask();
                Box::new(move |mask| share(full.iter().zip(mask.iter()).map(|(a, b)| a != b)))
            }
            (Risk::Accuracy, Some(labels)) => {
                labels.check_size(photo.name(), photo.width(), photo.height())?;
                let ignore = super::Confusion::ignore_id(self.full.model().num_classes());
                let accuracy = move |mask: &Mask| {
                    let pixels = labels.ids().iter().copied().zip(mask.iter());
                    share(pixels.filter(|(label, _)| *label != ignore).map(|(label, id)| label == id))
                };
                let full = accuracy(self.full.segment(photo)?.mask());
                Box::new(move |mask| (full - accuracy(mask)).max(0.0))
            }
            (Risk::Accuracy, None) => {
                return Err(Error::Input(
                    "the risk `accuracy` needs labels; name their folder, or use `consistency`".into(),
                ));
            }
        };
        let trial = |scene: Scene| Trial { loss: loss(scene.mask()), compute_share: scene.compute_share() };
        self.others.iter().map(|other| other.segment(photo).map(trial)).collect()
    }

    /// The milliseconds from pixels to mask: of the full network, then of each policy. They run in turns, `rounds` times, each twice so
    /// that the second run has its memory; the result is the minimum.
    ///
    /// # Errors
    /// As [`Segmenter::segment`].
    pub fn times(&self, photo: &Image, rounds: usize) -> Result<Vec<f64>> {
        let segmenters: Vec<_> = std::iter::once(&self.full).chain(&self.others).collect();
        let mut times = vec![f64::INFINITY; segmenters.len()];
        let mut mask = Mask::new(0, 0, self.full.model().num_classes());
        for _ in 0..rounds {
            for (segmenter, time) in segmenters.iter().zip(&mut times) {
                for _ in 0..2 {
                    let spent = segmenter.segment_into(photo, &mut mask)?;
                    *time = time.min(spent.total() - spent.decode);
                }
            }
        }
        Ok(times)
    }
}

/// The share of `true`; 0 for nothing.
fn share(values: impl Iterator<Item = bool>) -> f64 {
    let (mut yes, mut all) = (0_u64, 0_u64);
    for value in values {
        yes += u64::from(value);
        all += 1;
    }
    if all == 0 { 0.0 } else { yes as f64 / all as f64 }
}
