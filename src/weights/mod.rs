//! Weights: what is read from a file, and what is written.
//!
//! [`Weights`] is an open `.safetensors` file with its configuration, classes and normalisation in the metadata; a
//! [`Reader`] takes each tensor once, in the shape the model says, and refuses what is left over. [`Checkpoint`] is
//! another program's file (Paddle's `.pdparams`, PyTorch's `.pth`), read whole so that [`save`] can write it as ours.
//! [`Official`] lists PaddleSeg's own checkpoints. With the Cargo feature `download`, `fetch` downloads them into `cache_dir`.
//!
//! The metadata, each value a string: `format` (`rtformer-1`), `config` (the model's configuration as JSON), `classes`
//! (JSON array of names), `palette` (JSON array of `[r, g, b]`), `label_ids` (JSON array, only where a data set has
//! them), `mean` and `std` (JSON arrays of three), `dataset`, `source`, `license`; and optionally `model` (`rtformer`), `temperature` and
//! `pad_multiple` (width and height are padded to a multiple of it).

mod checkpoint;
mod dataset;
#[cfg(feature = "download")]
mod download;
pub mod fold;
mod official;
mod paddle;
mod pickle;
mod reader;
mod save;
mod sniff;
mod store;
mod torch;

pub use checkpoint::{Checkpoint, Tensor};
pub use dataset::{Class, Dataset};
#[cfg(feature = "download")]
pub use download::{Fetch, cache_dir, fetch};
pub use official::Official;
pub use reader::Reader;
pub use save::{Store, save};
pub use store::{Weights, check_pad_multiple, check_temperature};
