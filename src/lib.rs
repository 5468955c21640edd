#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
//! Real-time semantic segmentation with RTFormer ([arXiv:2210.07124](https://arxiv.org/abs/2210.07124)). Computes the class of
//! every pixel of a photo. Masks equal PaddleSeg's, and there is no runtime to install.
//!
//! ```no_run
//! use rtformer::{Device, Image, Segmenter};
//!
//! fn main() -> rtformer::Result<()> {
//!     let segmenter = Segmenter::embedded(Device::auto())?;
//!     println!("{segmenter}"); // the model, its classes, the device and the instruction set
//!     let street = Image::open("street.jpg")?; // or any `&image::RgbImage`, or a borrowed buffer: `pixels::Pixels`
//!     let scene = segmenter.segment(&street)?; // the mask has the photo's own size
//!     for class in scene.classes() {
//!         println!("{:5.1} %  {}", 100.0 * class.share, class.name);
//!     }
//!     scene.save_mask("street.mask.png")?;
//!     scene.save_overlay("street.overlay.png", &street, 0.5)?;
//!     println!("{}", scene.timings());
//!     Ok(())
//! }
//! ```
//!
//! Start with [`Segmenter`]; [`Segmenter::builder`] has all options. [`pixels`] reads photos and writes pictures, [`weights`] reads
//! checkpoints, [`eval`] measures accuracy, and [`plan`] finds the best trade between speed and quality, and the best network size for a training budget. [`model`] is the network itself, generic over a [`backend`]; most users need
//! neither. [`video`] is for videos and cameras.
//!
//! # Cargo features
//!
//! All are on by default. With `default-features = false`, you get only the library.
//!
//! - `cli`: the program `rtformer`, also as the function `cli::main`, which the Python package calls.
//! - `video`: `video::Source` and `video::Encoder`, which read and write videos. [`Segmenter::stream`] needs no feature.
//! - `download`: `weights::fetch` and `weights::cache_dir`, `pull`, and `rtformer pull`.
//! - `embedded-weights`: `Segmenter::embedded`, a network of 6 MB. These weights are for research and evaluation; the crate's licence
//!   does not cover them. Without the feature, name a file with [`Builder::weights`].

// The command line uses the public API by the name that any other user of it would use.
#[cfg(feature = "cli")]
extern crate self as rtformer;

pub mod backend;
pub mod bench;
#[cfg(feature = "cli")]
#[doc(hidden)]
#[allow(rustdoc::bare_urls, reason = "comments on arguments are help texts, which show addresses as they are")]
pub mod cli;
mod convert;
pub mod error;
pub mod eval;
pub mod explain;
pub mod files;
mod memory;
pub mod model;
pub mod pixels;
pub mod plan;
mod process;
mod segmenter;
mod timing;
pub mod video;
pub mod weights;

pub use backend::Isa;
pub use convert::{Hints, infer_config};
#[cfg(feature = "download")]
pub use convert::{Pull, Pulling, pull};
pub use error::{Error, ErrorKind, Result};
/// The crate whose pictures the API takes and returns, such as [`image::RgbImage`], in the version that it uses.
pub use image;
pub use model::{Config, Model, Variant};
pub use pixels::{Image, Size};
pub use segmenter::{
    Augmentation, Builder, Calibrated, ClassShare, Classes, Decision, Device, Features, Padding, Policy, Precision,
    Scene, Segmenter, Strip, Tiling,
};
pub use timing::Timings;
