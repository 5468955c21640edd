//! The rule that a weights file holds: what was certified, and for what.

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::tiles::TILE;
use crate::error::{Error, Result};
use crate::weights::Weights;

/// The key of the rule in the metadata of a weights file.
const KEY: &str = "adaptive";

/// The result of a calibration, as the metadata of a weights file hold it under `adaptive`.
///
/// ```
/// use rtformer::{Calibrated, Segmenter};
///
/// let weights = Segmenter::embedded_weights()?;
/// assert_eq!(Calibrated::of(&weights)?, None, "the embedded weights are not calibrated");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibrated {
    /// What a photo can go through, in order: `exit` (the auxiliary head), `tiles`, `full`; or only `size` or `full`.
    pub rungs: Vec<String>,
    /// How certainty is measured.
    pub confidence: String,
    /// The side of a tile in pixels of the network's input.
    pub tile: u32,
    /// Tiles with a certainty below it are computed; `None` to never stop early.
    pub threshold: Option<f32>,
    /// The share of width and height at which the network sees a photo; `None` for all.
    pub scale: Option<f32>,
    /// `consistency` (the share of pixels that differ from the full network's) or `accuracy` (the accuracy lost).
    pub risk: String,
    /// The largest risk, 0 to 1.
    pub epsilon: f64,
    /// The probability that the risk is larger.
    pub delta: f64,
    /// `hb`, `wsr` or `crc`.
    pub bound: String,
    /// Photos.
    pub n: usize,
    /// Independent units: groups of photos, or photos.
    pub groups: usize,
    /// The mean loss of the units.
    pub empirical_risk: f64,
    /// `None` for `crc`, and if nothing was certified.
    pub p_value: Option<f64>,
    /// The mean share of the full network's multiplications.
    pub compute_share: f64,
    /// The share of the full network's time, on the machine that calibrated.
    pub time_share: f64,
    /// The size at which the network sees photos: `native`, `WxH` or `within:WxH`.
    pub size: String,
    /// The multiple of pixels to which photos are padded.
    pub pad_multiple: u32,
    /// The arithmetic: `f32` or `bf16`.
    pub precision: String,
    /// The SHA-256 of the tensors.
    pub tensors: String,
}

impl Calibrated {
    /// The name of the confidence that this version computes.
    pub const CONFIDENCE: &str = "top-1 minus top-2 probability of the auxiliary head, 5 % quantile";
    /// The side of the tiles that this version uses, in pixels of the network's input.
    pub const TILE: u32 = 8 * TILE as u32;

    /// The rule in the metadata of a weights file; `None` if it was not calibrated.
    ///
    /// # Errors
    /// [`Error::Weights`] if the entry is not a rule of this version.
    pub fn of(weights: &Weights) -> Result<Option<Self>> {
        let Some(text) = weights.metadata(KEY) else { return Ok(None) };
        let invalid = |reason: String| {
            Error::weights(
                weights.path(),
                format!("`{KEY}` in its metadata is invalid: {reason}; calibrate it again with `rtformer calibrate`"),
            )
        };
        let rule: Self = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        rule.policy().check().map_err(|error| invalid(error.to_string()))?;
        if rule.threshold.is_some() && (rule.tile, &*rule.confidence) != (Self::TILE, Self::CONFIDENCE) {
            let (tile, confidence) = (rule.tile, &rule.confidence);
            return Err(invalid(format!("tiles of {tile} pixels and the confidence `{confidence}` are not supported")));
        }
        Ok(Some(rule))
    }

    /// The policy that was certified.
    pub fn policy(&self) -> Policy {
        match (self.threshold, self.scale) {
            (Some(threshold), _) => Policy::Tiles { threshold },
            (None, Some(scale)) => Policy::Size { scale },
            (None, None) => Policy::Full,
        }
    }

    /// Writes a copy of `weights` with this rule to `path`. Tensors and other metadata stay as they are.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&self, weights: &Weights, path: impl AsRef<std::path::Path>) -> Result<()> {
        // Numbers and strings can always be serialised.
        weights.save_with(KEY, &serde_json::to_string(self).unwrap_or_default(), path.as_ref())
    }

    /// `Ok` if the rule holds for these weights, at this size, padding and precision, and for a risk of `epsilon`.
    pub(in crate::segmenter) fn check(
        &self,
        weights: &Weights,
        epsilon: f64,
        found: [(&str, String); 3],
    ) -> Result<()> {
        let refuse = |reason: String| {
            Err(Error::weights(
                weights.path(),
                format!("{reason}; calibrate it again with `rtformer calibrate`, or leave out the adaptive inference"),
            ))
        };
        if !(epsilon.is_finite() && epsilon >= self.epsilon) {
            let own = self.epsilon;
            return refuse(format!("it was calibrated for a risk of at most {own}, not {epsilon}"));
        }
        let tensors = weights.tensors_digest();
        if tensors != self.tensors {
            return refuse("it was calibrated with other tensors".into());
        }
        let own = [self.size.clone(), self.pad_multiple.to_string(), self.precision.clone()];
        match found.into_iter().zip(own).find(|((_, found), own)| found != own) {
            Some(((what, found), own)) => refuse(format!("it was calibrated with the {what} {own}, not {found}")),
            None => Ok(()),
        }
    }
}
