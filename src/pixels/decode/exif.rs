//! The orientation in a PNG's `eXIf` chunk, anywhere in the file.
//!
//! The decoder reports only the chunks before the pixels, but some programs append their metadata after them.

use image::metadata::Orientation;

/// Searches the chunks; returns `None` if a chunk or the orientation is invalid.
pub(super) fn png_orientation(bytes: &[u8]) -> Option<Orientation> {
    let mut rest = bytes.get(8..)?;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        if kind == b"eXIf" {
            return Orientation::from_exif_chunk(after.get(..length)?);
        }
        // A checksum of four bytes follows the data.
        rest = after.get(length.checked_add(4)?..)?;
    }
}
