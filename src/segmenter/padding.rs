//! How photos are padded.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::weights::check_pad_multiple;

/// How photos are padded before the network runs: at the bottom and on the right, with the mean colour, to a multiple of a number of
/// pixels.
///
/// The results have the photo's own size. Full-size logits are not computed for the padding.
///
/// ```
/// use rtformer::Padding;
///
/// assert_eq!("32".parse::<Padding>()?, Padding::Multiple(32));
/// assert_eq!("none".parse::<Padding>()?, Padding::None);
/// assert_eq!(Padding::Multiple(32).to_string(), "32");
/// assert!("0".parse::<Padding>().is_err());
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// According to `pad_multiple` in the weights' metadata; no padding without it, as for PaddleSeg's checkpoints.
    #[default]
    FromWeights,
    /// No padding.
    None,
    /// To a multiple of this many pixels, 1 to 256.
    Multiple(u32),
}

impl Padding {
    /// The multiple, given the `pad_multiple` of the weights.
    pub(super) fn multiple(self, from_weights: Option<u32>) -> Result<u32> {
        let multiple = match self {
            Self::FromWeights => from_weights.unwrap_or(1),
            Self::None => 1,
            Self::Multiple(multiple) => multiple,
        };
        check_pad_multiple(multiple).map_err(|reason| Error::Input(format!("cannot pad to {reason}")))?;
        Ok(multiple)
    }
}

/// As it is parsed; `from weights` if the weights decide.
impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromWeights => f.write_str("from weights"),
            Self::None => f.write_str("none"),
            Self::Multiple(multiple) => multiple.fmt(f),
        }
    }
}

impl FromStr for Padding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self::None);
        }
        let multiple = text.parse().ok().filter(|multiple| check_pad_multiple(*multiple).is_ok());
        multiple.map(Self::Multiple).ok_or_else(|| {
            Error::Input(format!(
                "invalid padding `{text}`: expected `none` or a multiple of 1 to 256 pixels, usually 32"
            ))
        })
    }
}
