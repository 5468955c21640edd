//! The vocabulary of adaptive inference: what may be left out after the auxiliary head, and what it saves.

use crate::backend::Area;

/// What to do after the auxiliary head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Return the auxiliary head's logits.
    Exit,
    /// Replace the logits in these patches by those of the rest of the network.
    Refine(Vec<Patch>),
    /// Run the rest of the network on the whole photo.
    Full,
}

/// A rectangle of the map at 1/8 in which the rest of the network runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// What is computed.
    pub seen: Area,
    /// The part inside `seen` that is used. Its distance from the edge of `seen` hides what convolutions see beyond that edge.
    pub kept: Area,
}

/// The multiplications of a network's parts, per pixel of the photo.
///
/// ```
/// use rtformer::Config;
///
/// let work = Config::slim(19).work();
/// assert!(work.share_of_exit() < 0.5);
/// assert!(work.share_of_patches(0.0) > work.share_of_exit() && work.share_of_patches(0.7) < 1.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Up to `x3_` and `x3`.
    pub trunk: f64,
    /// The auxiliary head.
    pub exit: f64,
    /// The low branch and DAPPM.
    pub low: f64,
    /// The high branch and the head.
    pub high: f64,
}

impl Work {
    /// The whole network, without the auxiliary head.
    pub fn full(self) -> f64 {
        self.trunk + self.low + self.high
    }

    /// The work of [`Step::Exit`], as a share of the full network's.
    pub fn share_of_exit(self) -> f64 {
        (self.trunk + self.exit) / self.full()
    }

    /// The work of [`Step::Refine`], if the patches have this share of the map's area; as a share of the full network's.
    pub fn share_of_patches(self, area: f64) -> f64 {
        self.share_of_exit() + (self.low / 4.0 + self.high * area) / self.full()
    }

    /// The work of [`Step::Full`], as a share of the full network's: above 1, because the auxiliary head ran.
    pub fn share_of_full(self) -> f64 {
        1.0 + self.exit / self.full()
    }
}
