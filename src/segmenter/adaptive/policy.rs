//! Policies, and the decision after the auxiliary head.

use std::fmt;
use std::str::FromStr;

use super::tiles;
use crate::backend::Areas;
use crate::error::{Error, Result};
use crate::model::ladder::{Step, Work};
use crate::pixels::{Extent, Pixels, Preparation, Size};

/// How much of the network runs on a photo.
///
/// ```
/// use rtformer::Policy;
///
/// for policy in [Policy::Full, Policy::Tiles { threshold: 0.25 }, Policy::Size { scale: 0.8 }] {
///     assert_eq!(policy.to_string().parse::<Policy>()?, policy);
/// }
/// assert_eq!("tiles:0.25".parse::<Policy>()?, Policy::Tiles { threshold: 0.25 });
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Policy {
    /// `full`: all of it.
    #[default]
    Full,
    /// `tiles:THRESHOLD`: it stops at the auxiliary head, except in tiles of 64 pixels whose certainty is below the threshold, 0 to 1.
    /// If too many are, all of it runs. The certainty is the 5 % quantile of the difference between the two largest probabilities.
    Tiles {
        /// 0 always stops; above 0, the larger the more tiles are computed.
        threshold: f32,
    },
    /// `size:SCALE`: all of it, at this share of the photo's width and height, 0.1 to 1.
    Size {
        /// The share.
        scale: f32,
    },
}

impl Policy {
    /// `Ok` if its number is valid.
    pub(in crate::segmenter) fn check(self) -> Result<()> {
        let (number, valid) = match self {
            Self::Full => return Ok(()),
            Self::Tiles { threshold } => (threshold, 0.0..=1.0),
            Self::Size { scale } => (scale, 0.1..=1.0),
        };
        if valid.contains(&number) {
            return Ok(());
        }
        let (from, to) = valid.into_inner();
        Err(Error::Input(format!("invalid policy `{self}`: expected a number from {from} to {to}")))
    }

    /// The preparation of a photo.
    pub(in crate::segmenter) fn preparation(self, preparation: Preparation, photo: &Pixels<'_>) -> Preparation {
        let Self::Size { scale } = self else { return preparation };
        let (width, height) = preparation.size.of(photo.width(), photo.height());
        let smaller = |side: u32| ((f64::from(side) * f64::from(scale)).round() as u32).max(1);
        Preparation { size: Size::Exact { width: smaller(width), height: smaller(height) }, ..preparation }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Tiles { threshold } => write!(f, "tiles:{threshold}"),
            Self::Size { scale } => write!(f, "size:{scale}"),
        }
    }
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = match text.split_once(':') {
            None if text == "full" => Some(Self::Full),
            Some(("tiles", threshold)) => threshold.parse().ok().map(|threshold| Self::Tiles { threshold }),
            Some(("size", scale)) => scale.parse().ok().map(|scale| Self::Size { scale }),
            _ => None,
        };
        let expected = || Error::Input(format!("invalid policy `{text}`: expected `full`, `tiles:0.5` or `size:0.8`"));
        let policy = parsed.ok_or_else(expected)?;
        policy.check().map(|()| policy)
    }
}

/// A policy, and what it needs to decide.
#[derive(Clone, Copy, Debug)]
pub(in crate::segmenter) struct Plan {
    pub(in crate::segmenter) policy: Policy,
    /// The divisor of the logits before the softmax.
    pub(in crate::segmenter) temperature: f32,
    pub(in crate::segmenter) work: Work,
}

impl Plan {
    /// Decides from the auxiliary head's logits `[1, classes, h, w]` of a photo with this extent; also returns the work of the photo as a
    /// share of the full network's.
    pub(in crate::segmenter) fn decide<B: Areas>(
        &self,
        b: &B,
        early: &B::Tensor,
        extent: Extent,
        threshold: f32,
    ) -> Result<(Step, f64)> {
        let [_, classes, height, width] = b.shape(early);
        let logits = b.download(early)?;
        let kept = |side: usize, kept: usize, cells: usize| (kept * cells).div_ceil(side.max(1)).clamp(1, cells);
        let kept = (kept(extent.full.0, extent.kept.0, height), kept(extent.full.1, extent.kept.1, width));
        let map = tiles::Map { logits: &logits, classes, size: (height, width), kept };
        let uncertain = tiles::uncertain(&map, self.temperature, threshold);
        let patches = tiles::patches(&uncertain, (height, width), kept);
        let area = tiles::cost(&patches) as f64 / (height * width) as f64;
        Ok(if patches.is_empty() {
            (Step::Exit, self.work.share_of_exit())
        } else if self.work.share_of_patches(area) < self.work.share_of_full() {
            (Step::Refine(patches), self.work.share_of_patches(area))
        } else {
            (Step::Full, self.work.share_of_full())
        })
    }
}
