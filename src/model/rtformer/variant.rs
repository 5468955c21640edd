//! The sizes that PaddleSeg publishes.

use std::fmt;
use std::str::FromStr;

use super::Config;
use crate::error::{Error, Result};

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
    /// Both, the smaller first.
    pub const ALL: [Self; 2] = [Self::Slim, Self::Base];

    /// Its sizes as trained on Cityscapes, for `num_classes` classes.
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
