//! Frame rates.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};

/// Frames per second, as a fraction.
///
/// ```
/// use rtformer::video::Rate;
///
/// let rate: Rate = "30000/1001".parse()?;
/// assert_eq!(rate.time(30_000).as_secs(), 1001);
/// assert_eq!("12.5".parse::<Rate>()?.to_string(), "25/2");
/// assert!("0".parse::<Rate>().is_err());
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Frames in `seconds` seconds.
    pub frames: u32,
    /// Seconds.
    pub seconds: u32,
}

impl Default for Rate {
    /// 25 frames per second, the default of FFmpeg.
    fn default() -> Self {
        Self { frames: 25, seconds: 1 }
    }
}

impl Rate {
    /// The largest supported rate, in frames per second. Cameras reach a few thousand.
    const MOST: u64 = 1_000_000;

    /// A rate in lowest terms; `None` if it is 0, infinite, or above a million frames per second.
    pub fn new(frames: u64, seconds: u64) -> Option<Self> {
        let divisor = gcd(frames, seconds).max(1);
        let (frames, seconds) = (frames / divisor, seconds / divisor);
        if frames == 0 || seconds == 0 || frames / seconds > Self::MOST {
            return None;
        }
        Some(Self { frames: u32::try_from(frames).ok()?, seconds: u32::try_from(seconds).ok()? })
    }

    /// The time at which the frame with this index (from 0) is shown.
    pub fn time(self, index: u64) -> Duration {
        let nanoseconds = u128::from(index) * u128::from(self.seconds) * 1_000_000_000 / u128::from(self.frames);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// Frames per second.
    pub fn per_second(self) -> f64 {
        f64::from(self.frames) / f64::from(self.seconds)
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
        let parsed = match (text.split_once('/'), text.split_once('.')) {
            (Some((frames, seconds)), _) => digits(frames).zip(digits(seconds)),
            (None, Some((whole, part))) if part.len() <= 6 => {
                digits(&format!("{whole}{part}")).zip(Some(10_u64.pow(part.len() as u32)))
            }
            (None, None) => digits(text).zip(Some(1)),
            _ => None,
        };
        parsed.and_then(|(frames, seconds)| Self::new(frames, seconds)).ok_or_else(|| {
            Error::Input(format!(
                "invalid frame rate `{text}`: expected frames per second, such as 25, 29.97 or 30000/1001"
            ))
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds {
            1 => write!(f, "{}", self.frames),
            seconds => write!(f, "{}/{seconds}", self.frames),
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_fractions_decimals_or_numbers() {
        let cases = [
            ("25", Some("25")),
            ("50/2", Some("25")),
            ("29.97", Some("2997/100")),
            ("30000/1001", Some("30000/1001")),
            ("0.5", Some("1/2")),
            ("0", None),
            ("0.0", None),
            ("25/0", None),
            ("1000001", None),
            ("-5", None),
            ("+5", None),
            ("1e3", None),
            ("", None),
            ("/", None),
            ("1.2345678", None),
            ("99999999999999999999", None),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<Rate>().ok().map(|rate| rate.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn times_do_not_drift() {
        let rate = Rate::new(30_000, 1001).unwrap();
        assert_eq!(rate.time(1), Duration::from_nanos(33_366_666));
        assert_eq!(rate.time(30_000 * 3600), Duration::from_secs(1001 * 3600));
    }
}
