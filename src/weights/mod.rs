//! Weights files: reading, converting, writing and downloading.
//!
//! [`Weights`] is an open `.safetensors` file with its configuration, classes and normalisation in the metadata. [`Checkpoint`] is
//! a file of any format (Paddle's `.pdparams`, `PyTorch`'s `.pth`, `.safetensors`), read whole so that [`save`] can write it as
//! `.safetensors`.
//! A [`Reader`] takes the tensors of either, checks their shapes against the model, and reports tensors that are left over.
//! [`Official`] lists `PaddleSeg`'s own checkpoints. With the Cargo feature `download`, `fetch` downloads them into `cache_dir`.
//!
//! The metadata (each value is a string): `format` (`rtformer-1`), `model` (default `rtformer`), `config` (the model's
//! configuration as JSON), `classes` (JSON array of names), `palette` (JSON array of `[r, g, b]`), `label_ids` (JSON array, only if
//! a data set has them), `mean` and `std` (JSON arrays of three), `dataset`, `source`, `license`; and optionally `temperature`
//! (divides the logits before the softmax), `pad_multiple` (width and height are padded to a multiple of it),
//! `further_colors` (JSON array with a list of colours for each class) with `ignore_colors` (JSON array of colours), and `explainer` (JSON
//! object, with tensors `explainer.*`; see [`explain`](crate::explain)). Other keys are kept when a file is converted. The explainer is not,
//! because it belongs to the tensors as they are stored.

mod checkpoint;
mod dataset;
#[cfg(feature = "download")]
mod download;
pub mod fold;
mod metadata;
mod names;
mod numpy;
mod official;
mod pickle;
mod pickled;
mod reader;
mod save;
mod sniff;
mod store;
mod tensor;
mod torch;

pub use checkpoint::Checkpoint;
pub use dataset::{Class, Dataset};
#[cfg(feature = "download")]
pub use download::{Fetch, cache_dir, fetch};
pub(crate) use metadata::{EXPLAINER, MODEL};
pub use metadata::{check_pad_multiple, check_temperature};
pub use names::Found;
pub use official::Official;
pub use reader::Reader;
pub use save::{Store, save};
pub use store::Weights;
pub use tensor::Tensor;
