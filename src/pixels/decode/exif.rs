//! The orientation in a PNG's `eXIf` chunk, wherever the chunk stands.
//!
//! The decoder knows the chunks ahead of the pixels only; some programs append their metadata behind them.

use image::metadata::Orientation;

/// Walks from chunk to chunk; a damaged chunk, or a damaged orientation, is none.
pub(super) fn png_orientation(bytes: &[u8]) -> Option<Orientation> {
    let mut rest = bytes.get(8..)?;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        if kind == b"eXIf" {
            return Orientation::from_exif_chunk(after.get(..length)?);
        }
        // Behind the data are four bytes of checksum.
        rest = after.get(length.checked_add(4)?..)?;
    }
}
