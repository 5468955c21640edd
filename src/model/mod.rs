//! Networks, generic over the backend. They contain no layouts and no pixel loops.
//!
//! Each family of networks has its own folder. [`Model`] says which network a weights file holds, and [`Network`] is that network on a
//! device. To add a family, add a folder here and a variant to both; the segmenter does not change.

pub mod ladder;
mod noise;
mod parts;
pub mod rtformer;

use std::fmt;

pub use noise::Noise;
pub use parts::Parameters;
pub use rtformer::{Config, Observer, RtFormer, Variant};

use crate::backend::{Areas, Backend};
use crate::error::{Error, Result};
use crate::weights::{MODEL, Weights};

/// A network and its sizes, as a weights file describes it.
///
/// ```
/// use rtformer::Config;
/// use rtformer::model::Model;
///
/// let model = Model::from(Config::slim(19));
/// assert_eq!((model.name().as_str(), model.family(), model.num_classes()), ("RTFormer-Slim", "rtformer", 19));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Model {
    /// RTFormer.
    RtFormer(Config),
}

impl Model {
    /// The network of an open weights file. The metadata name the family in `model` and the sizes in `config`. A file without
    /// `model` holds an RTFormer.
    ///
    /// ```
    /// # use rtformer::{model::Model, weights::Weights};
    /// let model = Model::of(&Weights::open("tests/data/golden/tiny.safetensors")?)?;
    /// assert_eq!(model.num_classes(), 5);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`] for an unknown family, or sizes that are missing or invalid.
    pub fn of(weights: &Weights) -> Result<Self> {
        // A second family would be selected by `model` here. `Config::of` rejects any other family, and names it.
        Config::of(weights).map(Self::RtFormer)
    }

    /// The family, as in the metadata: `rtformer`.
    pub fn family(&self) -> &'static str {
        match self {
            Self::RtFormer(_) => MODEL,
        }
    }

    /// The display name, such as `RTFormer-Slim`.
    pub fn name(&self) -> String {
        match self {
            Self::RtFormer(config) => config.name(),
        }
    }

    /// The multiplications of the network's parts, per pixel of the photo.
    pub fn work(&self) -> ladder::Work {
        match self {
            Self::RtFormer(config) => config.work(),
        }
    }

    /// The bytes that a frame needs per pixel of the network's input, without full-size logits: measured, rounded up.
    pub(crate) fn bytes_per_pixel(&self) -> u64 {
        match self {
            Self::RtFormer(config) => 34 + 34 * config.base_channels as u64 / 32,
        }
    }

    /// The number of classes, without the ignore id.
    pub fn num_classes(&self) -> usize {
        match self {
            Self::RtFormer(config) => config.num_classes,
        }
    }
}

impl From<Config> for Model {
    fn from(config: Config) -> Self {
        Self::RtFormer(config)
    }
}

/// The sizes in one line.
impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RtFormer(config) => config.fmt(f),
        }
    }
}

/// A network with its parameters on a device.
///
/// ```
/// use rtformer::Config;
/// use rtformer::backend::{Backend, Reference};
/// use rtformer::model::{Model, Network, Noise};
///
/// let b = Reference::folded();
/// let model = Model::from(Config { base_channels: 8, ..Config::slim(19) });
/// let network = Network::load(&b, &model, &mut Noise::new(7))?;
/// let photo = b.upload(&[0.0; 3 * 48 * 64], [1, 3, 48, 64])?;
/// assert_eq!(b.shape(&network.forward(&b, photo)?), [1, 19, 6, 8]);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[non_exhaustive]
pub enum Network<B: Backend> {
    /// RTFormer.
    RtFormer(RtFormer<B>),
}

impl<B: Backend> Network<B> {
    /// Copies every parameter that the model needs to the device.
    ///
    /// # Errors
    /// The errors of `parameters`, such as a missing tensor or an unexpected shape, and the errors of the backend.
    pub fn load(backend: &B, model: &Model, parameters: &mut dyn Parameters) -> Result<Self> {
        match model {
            Model::RtFormer(config) => RtFormer::load(backend, config, parameters).map(Self::RtFormer),
        }
    }

    /// Whether the encoder multiplies in f32 on a backend that rounds products; see [`RtFormer::load`].
    pub fn has_exact_encoder(&self) -> bool {
        match self {
            Self::RtFormer(network) => network.has_exact_encoder(),
        }
    }

    /// `[n, 3, h, w]`, normalised RGB → logits `[n, classes, ceil(h/8), ceil(w/8)]`.
    ///
    /// # Errors
    /// The errors of the backend.
    pub fn forward(&self, b: &B, x: B::Tensor) -> Result<B::Tensor> {
        match self {
            Self::RtFormer(network) => network.forward(b, x),
        }
    }

    /// [`forward`](Self::forward), and the input of the network's head: logits `[n, classes, ceil(h/8), ceil(w/8)]` and features
    /// `[n, channels, ceil(h/8), ceil(w/8)]`.
    ///
    /// # Errors
    /// The errors of the backend.
    pub fn forward_with_features(&self, b: &B, x: B::Tensor) -> Result<(B::Tensor, B::Tensor)> {
        let mut features = None;
        let logits = match self {
            Self::RtFormer(network) => network.observe(b, x, &mut |name, map| {
                if name == "features" {
                    features = Some(map.clone());
                }
                Ok(())
            })?,
        };
        let missing =
            || Error::Backend { operation: "features", reason: "the network did not return its features".into() };
        Ok((logits, features.ok_or_else(missing)?))
    }

    /// Also loads the auxiliary head, which [`climb`](Self::climb) needs.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn with_auxiliary(self, backend: &B, model: &Model, parameters: &mut dyn Parameters) -> Result<Self> {
        match (self, model) {
            (Self::RtFormer(network), Model::RtFormer(config)) => {
                network.with_auxiliary(backend, config, parameters).map(Self::RtFormer)
            }
        }
    }
}

impl<B: Areas> Network<B> {
    /// As [`forward`](Self::forward), but asks `decide` after the auxiliary head what to do with its logits,
    /// `[1, classes, ceil(h/8), ceil(w/8)]`; see [`RtFormer::climb`].
    ///
    /// # Errors
    /// As [`RtFormer::climb`].
    pub fn climb(
        &self,
        b: &B,
        x: B::Tensor,
        decide: &mut dyn FnMut(&B::Tensor) -> Result<ladder::Step>,
    ) -> Result<B::Tensor> {
        match self {
            Self::RtFormer(network) => network.climb(b, x, decide),
        }
    }
}
