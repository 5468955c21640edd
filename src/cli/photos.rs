//! The flags of the commands that read photos, and the warning about a photo that may have been read wrongly.

use std::path::Path;

use rtformer::Image;
use rtformer::pixels::{Decoder, Depth};

#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct PhotoArgs {
    /// Number of significant bits of the samples in 16-bit files: auto (all 16), or 8 to 16, for cameras that store fewer bits without
    /// scaling them
    #[arg(long, value_name = "BITS", default_value = "auto")]
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
