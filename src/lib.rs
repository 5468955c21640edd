#![forbid(unsafe_code)]
//! RTFormer real-time semantic segmentation.

pub mod error;
pub mod files;
pub mod pixels;
mod timing;
pub mod weights;

pub mod backend;
mod convert;
pub mod model;
mod segmenter;

pub use error::{Error, Result};
pub use timing::Timings;
pub use convert::{Hints, infer_config};
pub use backend::OpTime;
pub use model::Config;
pub use segmenter::{Builder, ClassShare, Device, Precision, Resident, Scene, Segmenter};
