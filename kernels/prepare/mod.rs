//! Photos' bytes to the network's input, on a GPU. (On the CPU that is done where photos are read.)
//!
//! A byte has 256 values, so whatever a normalization does to it is a table, which the host makes with whatever arithmetic it likes: the
//! kernel's result is the host's, to the bit.

pub mod gpu;
#[cfg(any(test, feature = "emulation"))]
pub(crate) mod scalar;
