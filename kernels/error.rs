//! The error type of the kernels: a shape that does not match.

use std::fmt::{Debug, Display};

/// An argument's shape does not match the operation. Names the operation, the argument, the value found and the value
/// expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {what} is {got}, expected {want}")]
pub struct ShapeError {
    /// The function that returned the error.
    pub op: &'static str,
    /// The argument or its property.
    pub what: &'static str,
    /// The value found.
    pub got: String,
    /// The value expected.
    pub want: String,
}

impl ShapeError {
    #[allow(clippy::needless_pass_by_value, reason = "callers pass numbers and temporaries")]
    fn new(op: &'static str, what: &'static str, got: impl Debug, want: impl Display) -> Self {
        Self { op, what, got: format!("{got:?}"), want: want.to_string() }
    }

    /// `Ok` if `got` equals `want`.
    #[allow(clippy::needless_pass_by_value, reason = "callers pass numbers and temporaries")]
    pub(crate) fn check<T: Debug + PartialEq>(
        op: &'static str,
        what: &'static str,
        got: T,
        want: T,
    ) -> Result<(), Self> {
        if got == want { Ok(()) } else { Err(Self::new(op, what, got, format_args!("{want:?}"))) }
    }

    /// `Ok` if `got` is at least `least`.
    pub(crate) fn at_least(op: &'static str, what: &'static str, got: usize, least: usize) -> Result<(), Self> {
        Self::ensure(got >= least, op, what, got, format_args!("at least {least}"))
    }

    /// `Ok` if `fits`; `want` describes the accepted values.
    #[allow(clippy::needless_pass_by_value, reason = "callers pass numbers and temporaries")]
    pub(crate) fn ensure(
        fits: bool,
        op: &'static str,
        what: &'static str,
        got: impl Debug,
        want: impl Display,
    ) -> Result<(), Self> {
        if fits { Ok(()) } else { Err(Self::new(op, what, got, want)) }
    }
}
