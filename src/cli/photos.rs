//! The flags of the commands that read photos, and what is said of a photo that may have been read wrongly.

use std::path::Path;

use rtformer::Image;
use rtformer::pixels::{Decoder, Depth};

#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct PhotoArgs {
    /// Significant bits of the samples in 16-bit files: auto (all 16), or 8 to 16, for cameras that store fewer bits without scaling
    /// them
    #[arg(long, value_name = "BITS", default_value = "auto")]
    pub(super) depth: Depth,
}

impl PhotoArgs {
    pub(super) fn decoder(self) -> Decoder {
        Decoder { depth: self.depth, ..Decoder::default() }
    }
}

/// What to say of a photo that is dark because its file may hold fewer bits than its samples have.
pub(super) fn warning(name: &Path, image: &Image) -> Option<String> {
    let bits = image.likely_depth()?;
    Some(format!(
        "warning: {}: its 16-bit samples use only {bits} bits, so the photo is dark; if the camera's samples have {bits} bits, use \
         --depth {bits}",
        name.display()
    ))
}
