//! The flags of the commands that read photos, and the warning about a photo that may have been read wrongly.

use std::path::Path;

use rtformer::Image;
use rtformer::pixels::{Decoder, Depth};

#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct PhotoArgs {
    /// Range of the samples in 16-bit and floating-point files: auto (all 16 bits), 8 to 16 bits, for cameras that store fewer bits without
    /// scaling them, or the values of black and white, such as 0..4095 or 0..1
    #[arg(long, value_name = "BITS|LOW..HIGH", default_value = "auto")]
    pub(super) depth: Depth,
}

impl PhotoArgs {
    pub(super) fn decoder(self) -> Decoder {
        Decoder { depth: self.depth, ..Decoder::default() }
    }
}

/// The warning about a dark photo whose samples may have fewer significant bits than the file format allows.
pub(super) fn warning(name: &Path, image: &Image) -> Option<String> {
    let bits = image.likely_depth()?;
    Some(format!(
        "warning: {}: its 16-bit samples use only {bits} bits, so the photo is dark; if the camera's samples have {bits} bits, use \
         --depth {bits}",
        name.display()
    ))
}
