//! Input and output of images: decodes photos, preprocesses them exactly as PaddleSeg does, and writes masks as pictures.

pub mod decode;
pub mod mask;
mod npy;
pub mod palette;
pub mod prepare;
pub mod render;
mod rows;
pub mod shapes;
pub mod sniff;
pub mod stream;

pub use decode::{Decoder, Depth, Image, Limits, hide_decoder_panics};
pub use mask::{Ids, IdsMut, Mask};
pub use palette::Palette;
pub(crate) use prepare::{Columns, Rows};
pub use prepare::{Extent, Input, Normalization, PixelFormat, Pixels, Preparation, Size};
pub use render::IndexedPicture;
pub use rows::RowReader;
