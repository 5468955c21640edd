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

    /// Bands of TIFFs that become red, green and blue, counted from 1, such as 4,3,2 [default: the file's own colours]
    #[arg(long, value_name = "R,G,B", value_parser = bands)]
    pub(super) bands: Option<[u16; 3]>,
}

fn bands(text: &str) -> Result<[u16; 3], String> {
    let numbers: Option<Vec<u16>> = text.split(',').map(|number| number.parse().ok().filter(|n| *n > 0)).collect();
    let three = numbers.and_then(|numbers| numbers.try_into().ok());
    three.ok_or_else(|| format!("`{text}` is not three numbers of bands, counted from 1, such as 4,3,2"))
}

impl PhotoArgs {
    pub(super) fn decoder(self) -> Decoder {
        Decoder { depth: self.depth, bands: self.bands, ..Decoder::default() }
    }
}

/// The warning about a dark photo whose samples may have fewer significant bits than the file format allows.
pub(super) fn warning(name: &Path, image: &Image) -> Option<String> {
    image.likely_depth().map(|bits| dark(name, bits))
}

/// The warning about a dark photo with this likely depth.
pub(super) fn dark(name: &Path, bits: u8) -> String {
    format!(
        "warning: {}: its 16-bit samples use only {bits} bits, so the photo is dark; if the camera's samples have {bits} bits, use \
         --depth {bits}",
        name.display()
    )
}
