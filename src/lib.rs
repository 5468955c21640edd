#![forbid(unsafe_code)]
//! RTFormer real-time semantic segmentation.

pub mod error;
pub mod files;
pub mod pixels;
mod timing;
pub mod weights;

pub use error::{Error, Result};
pub use timing::Timings;
