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

/// Walks from marker to marker, up to the end of the image.
pub(super) fn scan(bytes: &[u8]) -> Result<Scanned, String> {
    const TRUNCATED: &str = "this JPEG file ends before its picture does; it is truncated, copy it again";
    let mut coefficients = 0;
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        // The next marker: past a scan's data, where `FF 00` is an escaped byte and `FF D0` to `FF D7` are restarts,
        // past fill bytes, and past the stray bytes that some writers leave between segments.
        let at =
            rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xd0..=0xd8 | 0xff));
        let Some(at) = at else { return Err(TRUNCATED.into()) };
        let marker = rest[at + 1];
        rest = &rest[at + 2..];
        if marker == 0xd9 {
            return Ok(Scanned { coefficients });
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
