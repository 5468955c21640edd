//! A walk over a JPEG's segments, without decoding: is its end there?
//!
//! The decoder fills what a truncated scan lacks with grey and reports success, as browsers do. A mask of grey is worse
//! than an error, so the file is refused when its last scan does not reach the end-of-image marker.

/// What the walk found.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Bytes of coefficients that the decoder must hold for a progressive picture; 0 for the others.
    pub(super) coefficients: u64,
}

/// Start of image, and end of image.
pub(in crate::pixels) const START: u8 = 0xd8;
pub(in crate::pixels) const END: u8 = 0xd9;
/// The application segment of multi-picture indexes and colour profiles.
pub(in crate::pixels) const APP2: u8 = 0xe2;

/// The offset of the next marker, and its code.
///
/// Passes over a scan's data, where `FF 00` is an escaped byte and `FF D0` to `FF D7` are restarts, over fill bytes, and over the
/// stray bytes that some writers leave between segments.
pub(in crate::pixels) fn next_marker(bytes: &[u8]) -> Option<(usize, u8)> {
    let at =
        bytes.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xd0..=0xd7 | 0xff))?;
    Some((at, bytes[at + 1]))
}

/// Whether a JPEG seems to start here: its start marker, and a segment that can be its first.
pub(in crate::pixels) fn starts(bytes: &[u8]) -> bool {
    matches!(bytes, &[0xff, START, 0xff, 0xc0..=0xc4 | 0xdb | 0xdd | 0xe0..=0xef | 0xfe, high, low, ..] if high > 0 || low >= 2)
}

/// Walks from marker to marker, up to the end of the image.
pub(super) fn scan(bytes: &[u8]) -> Result<Scanned, String> {
    const TRUNCATED: &str = "this JPEG file ends before its picture does; it is truncated, copy it again";
    let mut coefficients = 0;
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        let Some((at, marker)) = next_marker(rest) else { return Err(TRUNCATED.into()) };
        rest = &rest[at + 2..];
        match marker {
            START => continue, // a stray one
            END => return Ok(Scanned { coefficients }),
            _ => {}
        }
        let Some(&[high, low]) = rest.first_chunk::<2>() else { return Err(TRUNCATED.into()) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(segment) = rest.get(..length) else { return Err(TRUNCATED.into()) };
        if marker == 0xc2 {
            coefficients = coefficient_bytes(segment);
        }
        rest = &rest[length..];
    }
}

/// Two bytes a sample of each component, were every component as large as the picture, in whole blocks.
fn coefficient_bytes(frame: &[u8]) -> u64 {
    let Some(&[_, _, _, h1, h0, w1, w0, components]) = frame.first_chunk::<8>() else { return 0 };
    let whole = |high, low| u64::from(u16::from_be_bytes([high, low])).next_multiple_of(32);
    2 * u64::from(components) * whole(h1, h0) * whole(w1, w0)
}
