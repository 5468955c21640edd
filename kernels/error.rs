//! The one error of the kernels: a shape that does not fit.

use std::fmt::{Debug, Display};

/// An argument's shape does not fit the operation: which operation, which argument, what it is, what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {what} is {got}, it must be {want}")]
pub struct ShapeError {
    /// The operation that refused, by the name of its function.
    pub op: &'static str,
    /// The argument, or the property of it.
    pub what: &'static str,
    /// What was given.
    pub got: String,
    /// What would have been accepted.
    pub want: String,
}

impl ShapeError {
    #[allow(clippy::needless_pass_by_value, reason = "callers pass numbers and temporaries")]
    fn new(op: &'static str, what: &'static str, got: impl Debug, want: impl Display) -> Self {
        Self { op, what, got: format!("{got:?}"), want: want.to_string() }
    }

    /// `Ok` when `got` equals `want`.
    #[allow(clippy::needless_pass_by_value, reason = "callers pass numbers and temporaries")]
    pub(crate) fn check<T: Debug + PartialEq>(
        op: &'static str,
        what: &'static str,
        got: T,
        want: T,
    ) -> Result<(), Self> {
        if got == want { Ok(()) } else { Err(Self::new(op, what, got, format_args!("{want:?}"))) }
    }

    /// `Ok` when `got` is `least` or more.
    pub(crate) fn at_least(op: &'static str, what: &'static str, got: usize, least: usize) -> Result<(), Self> {
        Self::ensure(got >= least, op, what, got, format_args!("at least {least}"))
    }

    /// `Ok` when `fits`; `want` says in words what would have.
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
