//! What is to be guaranteed, and by which bound.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// How a threshold is certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// `hb`: Learn then Test with Hoeffding-Bentkus p-values. The risk is at most `epsilon` with a probability of at least `1 - delta`.
    /// Depends only on the mean loss; the best choice for losses that are mostly 0 or 1.
    HoeffdingBentkus,
    /// `wsr`: Learn then Test with the betting p-values of Waudby-Smith and Ramdas. The same guarantee, with fewer units if losses vary
    /// little.
    Betting,
    /// `crc`: conformal risk control. The risk is at most `epsilon` on average over all draws of the units: a weaker guarantee, because
    /// the risk of a single calibration may be larger. It needs losses that never fall from a threshold to the next.
    Conformal,
}

impl Bound {
    /// The bound's name on the command line: `hb`, `wsr` or `crc`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HoeffdingBentkus => "hb",
            Self::Betting => "wsr",
            Self::Conformal => "crc",
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Bound {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::HoeffdingBentkus, Self::Betting, Self::Conformal]
            .into_iter()
            .find(|bound| bound.name() == text)
            .ok_or_else(|| Error::Input(format!("invalid bound `{text}`: expected `hb`, `wsr` or `crc`")))
    }
}

/// What is to be guaranteed: a risk of at most `epsilon`, with a probability of at least `1 - delta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    epsilon: f64,
    delta: f64,
}

impl Limit {
    /// A limit of `epsilon`, 0 to 1, that may be exceeded with a probability of `delta`, between 0 and 1.
    ///
    /// # Errors
    /// [`Error::Input`] for an `epsilon` outside `[0, 1]` or a `delta` outside `(0, 1)`.
    pub fn new(epsilon: f64, delta: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&epsilon) {
            return Err(Error::Input(format!("epsilon is {epsilon}, expected a risk from 0 to 1, such as 0.02")));
        }
        if !(delta > 0.0 && delta < 1.0) {
            let expected = "expected a probability above 0 and below 1, such as 0.05";
            return Err(Error::Input(format!("delta is {delta}, {expected}")));
        }
        Ok(Self { epsilon, delta })
    }

    /// The largest acceptable risk, 0 to 1.
    pub fn epsilon(self) -> f64 {
        self.epsilon
    }

    /// The probability that the guarantee may fail, between 0 and 1.
    pub fn delta(self) -> f64 {
        self.delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_limits_and_bounds_are_named() {
        let limits = [
            (-0.1, 0.1, "epsilon is -0.1"),
            (1.1, 0.1, "epsilon is 1.1"),
            (f64::NAN, 0.1, "epsilon is NaN"),
            (0.1, 0.0, "delta is 0"),
            (0.1, 1.0, "delta is 1"),
            (0.1, f64::NAN, "delta is NaN"),
        ];
        for (epsilon, delta, wanted) in limits {
            let text = Limit::new(epsilon, delta).unwrap_err().to_string();
            assert!(text.starts_with(wanted), "{text}");
        }
        assert!("HB".parse::<Bound>().unwrap_err().to_string().contains("`HB`"));
        for bound in [Bound::HoeffdingBentkus, Bound::Betting, Bound::Conformal] {
            assert_eq!(bound.to_string().parse::<Bound>().unwrap(), bound);
        }
    }
}
