//! Errors of kernels and their memory, before the name of the operation is known.

use rtformer_kernels::ShapeError;

use crate::error::Error;

/// Why a view could not be filled.
#[derive(Debug)]
pub(super) enum Failure {
    Shape(ShapeError),
    /// This number of bytes of scratch memory could not be allocated.
    Memory(usize),
}

impl From<ShapeError> for Failure {
    fn from(error: ShapeError) -> Self {
        Self::Shape(error)
    }
}

impl Failure {
    /// The error, with the name of the operation.
    pub(super) fn named(self, operation: &'static str) -> Error {
        match self {
            Self::Shape(error) => Error::Backend { operation, reason: error.to_string() },
            Self::Memory(bytes) => {
                Error::OutOfMemory { what: format!("scratch memory for the network's `{operation}`"), bytes }
            }
        }
    }
}
