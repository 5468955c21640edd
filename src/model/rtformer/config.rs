//! The sizes of an RTFormer, and the two published variants.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::weights::Weights;

/// The sizes of an RTFormer. The fields have the names of PaddleSeg's arguments.
///
/// ```
/// use rtformer::Config;
///
/// let slim = Config::slim(19);
/// assert_eq!((slim.name().as_str(), slim.base_channels), ("RTFormer-Slim", 32));
/// assert_eq!(Config::base(150).use_injection, [true, false]);
/// assert_eq!(Config::from_json(&slim.to_json())?, slim);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Channels of the stem; every other width is a multiple of it. Slim 32, Base 64.
    pub base_channels: usize,
    /// Residual blocks in the stages `layer1`, `layer2` and `layer3` (the fourth entry is unused, as in PaddleSeg).
    pub layer_nums: Vec<usize>,
    /// Inner channels of DAPPM.
    pub spp_channels: usize,
    /// Number of groups of the double normalization.
    pub num_heads: usize,
    /// Half the inner channels of the segmentation head. Slim 64, Base 128.
    pub head_channels: usize,
    /// Side of the pooled map from which cross-resolution attention computes its keys and values.
    pub cross_size: usize,
    /// Whether the blocks `layer4` and `layer5` inject the high branch into the low one.
    pub use_injection: [bool; 2],
    /// Number of classes, without the ignore id.
    pub num_classes: usize,
}

impl Config {
    /// RTFormer-Slim as trained on Cityscapes. Other data sets differ in `cross_size`, injections and classes.
    pub fn slim(num_classes: usize) -> Self {
        Self {
            base_channels: 32,
            layer_nums: vec![2, 2, 2, 2],
            spp_channels: 128,
            num_heads: 8,
            head_channels: 64,
            cross_size: 12,
            use_injection: [true, true],
            num_classes,
        }
    }

    /// RTFormer-Base as trained on Cityscapes and ADE20K.
    pub fn base(num_classes: usize) -> Self {
        Self { base_channels: 64, head_channels: 128, use_injection: [true, false], ..Self::slim(num_classes) }
    }

    /// The published variant with these widths, or `None` for other widths.
    pub fn variant(&self) -> Option<Variant> {
        match (self.base_channels, self.head_channels) {
            (32, 64) => Some(Variant::Slim),
            (64, 128) => Some(Variant::Base),
            _ => None,
        }
    }

    /// `RTFormer-Slim`, `RTFormer-Base`, or `RTFormer (base channels 8)`.
    pub fn name(&self) -> String {
        match self.variant() {
            Some(Variant::Slim) => "RTFormer-Slim".into(),
            Some(Variant::Base) => "RTFormer-Base".into(),
            None => format!("RTFormer (base channels {})", self.base_channels),
        }
    }

    /// The configuration of an open weights file.
    ///
    /// ```
    /// # use rtformer::{Config, weights::Weights};
    /// let config = Config::of(&Weights::open("tests/data/golden/tiny.safetensors")?)?;
    /// assert_eq!((config.name().as_str(), config.num_classes), ("RTFormer (base channels 4)", 5));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`] if the metadata name another model, have no configuration, or have one that [`from_json`](Self::from_json)
    /// rejects.
    pub fn of(weights: &Weights) -> Result<Self> {
        let path = weights.path();
        weights.check_model()?;
        let json = weights.metadata("config").ok_or_else(|| {
            Error::weights(
                path,
                "its metadata has no `config`; is it another model's file? Use a file that `rtformer convert` wrote",
            )
        })?;
        Self::from_json(json).map_err(|e| Error::weights(path, e.to_string()))
    }

    /// Parses the configuration in a weights file's metadata.
    ///
    /// ```
    /// # use rtformer::Config;
    /// let json = Config { num_heads: 7, ..Config::slim(19) }.to_json();
    /// assert!(Config::from_json(&json).is_err(), "7 heads do not divide 256 channels");
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] if the JSON is malformed or the sizes are invalid.
    pub fn from_json(json: &str) -> Result<Self> {
        let config: Self = serde_json::from_str(json).map_err(|e| {
            // The text comes from a file: it may be long and contain control characters.
            let shown: String = json.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
            Error::Config(format!("`{shown}` is invalid: {e}"))
        })?;
        config.check()?;
        Ok(config)
    }

    /// The configuration as JSON, for the metadata.
    ///
    /// # Panics
    /// Never: a struct of plain numbers always serialises.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain numbers always serialise")
    }

    /// The numbers of residual blocks in `layer1`, `layer2` and `layer3`.
    pub(super) fn blocks(&self) -> [usize; 3] {
        [self.layer_nums[0], self.layer_nums[1], self.layer_nums[2]]
    }

    /// Checks the sizes. No RTFormer has much larger ones, and the bounds prevent overflow in every size computed from them.
    pub(crate) fn check(&self) -> Result<()> {
        let bounded = [
            ("base_channels", self.base_channels, 1024),
            ("spp_channels", self.spp_channels, 8192),
            ("head_channels", self.head_channels, 8192),
            ("num_heads", self.num_heads, 1024),
            ("cross_size", self.cross_size, 64),
            ("num_classes", self.num_classes, 65_535),
        ];
        for (name, got, most) in bounded {
            if got == 0 || got > most {
                return Err(Error::Config(format!("{name} is {got}; expected 1 to {most}")));
            }
        }
        if self.layer_nums.len() < 3 || self.layer_nums[..3].iter().any(|&n| n == 0 || n > 64) {
            return Err(Error::Config(format!(
                "layer_nums is {:?}; expected at least three numbers, the first three from 1 to 64",
                self.layer_nums
            )));
        }
        let low = self.base_channels * 8;
        if !low.is_multiple_of(self.num_heads) {
            return Err(Error::Config(format!(
                "num_heads is {}; expected a divisor of the low branch's {low} channels",
                self.num_heads
            )));
        }
        Ok(())
    }
}

/// The sizes in one line.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            base_channels, layer_nums, spp_channels, num_heads, head_channels, cross_size, use_injection, ..
        } = self;
        write!(
            f,
            "base channels {base_channels}, layers {layer_nums:?}, DAPPM {spp_channels}, head {head_channels}, "
        )?;
        write!(f, "{num_heads} heads, cross size {cross_size}, injections {use_injection:?}")
    }
}

/// One of the two published sizes of RTFormer.
///
/// ```
/// use rtformer::Variant;
///
/// assert_eq!("slim".parse::<Variant>()?, Variant::Slim);
/// assert_eq!(Variant::Base.config(150).variant(), Some(Variant::Base));
/// assert!("large".parse::<Variant>().is_err());
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// RTFormer-Slim: 32 base channels.
    #[default]
    Slim,
    /// RTFormer-Base: 64 base channels.
    Base,
}

impl Variant {
    /// Both variants, the smaller one first.
    pub const ALL: [Self; 2] = [Self::Slim, Self::Base];

    /// The variant's sizes as trained on Cityscapes, for `num_classes` classes.
    pub fn config(self, num_classes: usize) -> Config {
        match self {
            Self::Slim => Config::slim(num_classes),
            Self::Base => Config::base(num_classes),
        }
    }

    /// `slim` or `base`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slim => "slim",
            Self::Base => "base",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|variant| variant.name() == name);
        named.ok_or_else(|| Error::Input(format!("unknown variant `{name}`: expected slim or base")))
    }
}
