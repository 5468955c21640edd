//! The size at which the network sees a photo.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The size at which the network sees a photo. The mask always has the photo's own size.
///
/// ```
/// use rtformer::pixels::Size;
///
/// assert_eq!("native".parse::<Size>()?.of(960, 720), (960, 720));
/// assert_eq!("1024x512".parse::<Size>()?.of(960, 720), (1024, 512));
/// assert_eq!("within:1024x512".parse::<Size>()?.of(960, 720), (683, 512));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// The photo's own size.
    #[default]
    Native,
    /// Exactly this size, ignoring the photo's proportions: PaddleSeg's `Resize(target_size=[width, height])`.
    Exact {
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The largest size with the photo's proportions whose long side fits in the long side of this size, and whose short side
    /// fits in the short side: PaddleSeg's `Resize(target_size=[width, height], keep_ratio=True)`. So a tall photo may exceed
    /// the height of a wide target.
    Within {
        /// Pixels a row.
        width: u32,
        /// Rows.
        height: u32,
    },
}

impl Size {
    /// The (width, height) to which a photo of `width` x `height` pixels is resized.
    pub fn of(self, width: u32, height: u32) -> (u32, u32) {
        match self {
            Self::Native => (width, height),
            Self::Exact { width, height } => (width, height),
            Self::Within { width: w, height: h } => {
                let (long, short) = (width.max(height).max(1), width.min(height).max(1));
                let scale = f64::min(f64::from(w.max(h)) / f64::from(long), f64::from(w.min(h)) / f64::from(short));
                // Python's `round` rounds halves to even. A side is at least 1.
                let side = |side: u32| ((f64::from(side) * scale).round_ties_even() as u32).max(1);
                (side(width), side(height))
            }
        }
    }
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sides = |text: &str| -> Option<(u32, u32)> {
            let (width, height) = text.split_once(['x', 'X'])?;
            let side = |digits: &str| {
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit()); // `parse` also accepts a `+`
                digits.parse::<u32>().ok().filter(|side| plain && (1..=65_535).contains(side))
            };
            Some((side(width)?, side(height)?))
        };
        let parsed = match (text, text.strip_prefix("within:")) {
            ("native", _) => Some(Self::Native),
            (_, Some(rest)) => sides(rest).map(|(width, height)| Self::Within { width, height }),
            (_, None) => sides(text).map(|(width, height)| Self::Exact { width, height }),
        };
        parsed.ok_or_else(|| {
            Error::Input(format!(
                "invalid size `{text}`: expected `native`, WIDTHxHEIGHT as in `2048x1024`, or `within:WIDTHxHEIGHT` to keep the \
                 photo's proportions; sides are 1 to 65535"
            ))
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Exact { width, height } => write!(f, "{width}x{height}"),
            Self::Within { width, height } => write!(f, "within:{width}x{height}"),
        }
    }
}
