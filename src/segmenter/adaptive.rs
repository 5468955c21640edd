//! Adaptive inference: computes less where the network is certain early, by a rule that `rtformer calibrate` found and certified.
//!
//! This module applies a rule and never looks for one.

mod policy;
mod rule;
mod tiles;

pub(super) use policy::Plan;
pub use policy::Policy;
pub use rule::Calibrated;

use super::{Augmentation, Decision, Segmenter};
use crate::error::{Error, Result};

impl Segmenter {
    /// What is computed of each photo.
    ///
    /// ```
    /// # use rtformer::{Policy, Segmenter};
    /// assert_eq!(Segmenter::builder().build()?.policy(), Policy::Full);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn policy(&self) -> Policy {
        self.plan.policy
    }

    /// A segmenter with another policy on the same network: to measure what it saves, without any guarantee.
    /// [`Builder::adaptive`](super::Builder::adaptive) applies one that was certified.
    ///
    /// ```
    /// use rtformer::{Device, Policy, Segmenter};
    ///
    /// let full = Segmenter::builder().device(Device::Cpu).exits(true).build()?;
    /// let photo = image::RgbImage::from_pixel(128, 96, image::Rgb([90, 120, 200]));
    /// let early = full.with_policy(Policy::Tiles { threshold: 0.0 })?.segment(&photo)?;
    /// assert!(early.compute_share() < 0.5 && full.segment(&photo)?.compute_share() == 1.0);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] for an invalid number; [`Error::Config`] for [`Policy::Tiles`] without the auxiliary head, which
    /// [`Builder::exits`](super::Builder::exits) loads, and with an [`Augmentation`](super::Augmentation), a [`Decision`](super::Decision) or features; [`Error::Device`] on a GPU,
    /// for any policy except [`Policy::Full`].
    pub fn with_policy(&self, policy: Policy) -> Result<Self> {
        policy.check()?;
        if self.device.is_gpu() && policy != Policy::Full {
            return Err(on_a_gpu(&self.device.to_string()));
        }
        if policy != Policy::Full {
            check_alone(&self.augmentation, self.readout.features, self.decision)?;
        }
        if matches!(policy, Policy::Tiles { .. }) && !self.exits {
            return Err(Error::Config(format!(
                "policy `{policy}` needs the auxiliary head, which was not loaded: the weights lack it (`seghead_extra.*`), or \
                 `Builder::exits` was not called"
            )));
        }
        Ok(self.share(Plan { policy, ..self.plan }))
    }
}

/// Refuses what adaptive inference does not give: no rule was certified for an augmentation, and a photo that stops early has no features.
pub(super) fn check_alone(augmentation: &Augmentation, features: bool, decision: Decision) -> Result<()> {
    let what = match (augmentation.is_none(), features) {
        _ if decision != Decision::Argmax => "another decision than the most probable class",
        (false, _) => "mirrored or scaled versions",
        (true, true) => "features",
        (true, false) => return Ok(()),
    };
    Err(Error::Config(format!("adaptive inference cannot be combined with {what}; leave out one of them")))
}

/// The error for adaptive inference on a GPU.
pub(super) fn on_a_gpu(device: &str) -> Error {
    let reason = "adaptive inference runs on the CPU only; use the device cpu, or the full network".into();
    Error::Device { device: device.to_owned(), reason }
}
