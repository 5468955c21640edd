//! The structure of a JPEG: what must be known before decoding, and whether the data is complete.
//!
//! Like a browser, the decoder fills missing data of a scan with grey and reports success. A mask of grey is worse than an
//! error. So a file is rejected if its end marker is missing, or if a scan does not hold the data of all its blocks.

mod entropy;
mod huffman;
mod standard;

use std::panic::resume_unwind;
use std::thread;

/// Start of image (SOI) and end of image (EOI).
pub(in crate::pixels) const START: u8 = 0xd8;
pub(in crate::pixels) const END: u8 = 0xd9;
/// The application segment of multi-picture indexes and colour profiles.
pub(in crate::pixels) const APP2: u8 = 0xe2;
/// Huffman-coded frames: baseline, extended sequential, progressive.
const BASELINE: u8 = 0xc0;
const EXTENDED: u8 = 0xc1;
const PROGRESSIVE: u8 = 0xc2;
/// Huffman tables (DHT), start of scan (SOS), and restart interval (DRI): the number of units between two restart markers.
const HUFFMAN_TABLES: u8 = 0xc4;
const SCAN: u8 = 0xda;
const RESTART_INTERVAL: u8 = 0xdd;

/// What the segments say about the file.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// Bytes of coefficients that the decoder must hold for a progressive picture; 0 for other pictures.
    pub(super) coefficients: u64,
    /// Whether the first scan uses Huffman tables that the file does not contain.
    pub(super) lacks_tables: bool,
}

/// Reads the segments up to the end of the image.
pub(super) fn outline(bytes: &[u8]) -> Result<Outline, String> {
    let mut outline = Outline::default();
    let mut tables = huffman::Tables::default();
    let (mut sequential, mut scanned) = (false, false);
    let mut segments = Segments::new(bytes);
    while let Some(Segment { marker, data, .. }) = segments.advance()? {
        match marker {
            // After the start of a scan, a frame header is damaged data, not a frame.
            BASELINE..=0xcf | 0xde | 0xf7 if scanned => {}
            BASELINE | EXTENDED | PROGRESSIVE if data.first().is_some_and(|&bits| bits != 8) => {
                return Err(unsupported(&format!("a JPEG with {} bits per sample", data[0])));
            }
            BASELINE | EXTENDED => sequential = true,
            PROGRESSIVE => outline.coefficients = coefficient_bytes(data),
            0xc3 | 0xcb => return Err(unsupported("a lossless JPEG")),
            0xc5..=0xc7 | 0xcd..=0xcf | 0xde => return Err(unsupported("a hierarchical JPEG")),
            0xc9 | 0xca | 0xcc => return Err(unsupported("a JPEG with arithmetic coding")),
            0xf7 => return Err(unsupported("a JPEG-LS image")),
            HUFFMAN_TABLES => {
                tables.define(data);
            }
            SCAN if !scanned => {
                scanned = true;
                outline.lacks_tables = sequential && !tables.serve(data);
            }
            _ => {}
        }
    }
    Ok(outline)
}

fn unsupported(what: &str) -> String {
    format!("is {what}, which is not supported; convert it to an ordinary JPEG (8 bits, Huffman-coded) or to PNG")
}

/// Inserts the standard Huffman tables before the file's own segments. A Motion-JPEG frame without tables implies them.
pub(super) fn with_standard_tables(bytes: &[u8]) -> Vec<u8> {
    let (start, rest) = bytes.split_at(bytes.len().min(2));
    [start, &standard::STANDARD_TABLES, rest].concat()
}

/// Decodes, and checks on another thread that every scan is complete.
pub(super) fn checked<T>(bytes: &[u8], decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    thread::scope(|scope| {
        let checking = thread::Builder::new().spawn_scoped(scope, || entropy::check(bytes));
        let decoded = decode()?;
        match checking.map(thread::ScopedJoinHandle::join) {
            Ok(checked) => checked.unwrap_or_else(|panic| resume_unwind(panic))?,
            Err(_) => entropy::check(bytes)?, // the thread could not be started
        }
        Ok(decoded)
    })
}

/// The offset and the code of the next marker.
///
/// Skips the data of a scan, where `FF 00` is an escaped byte and `FF D0` to `FF D7` are restarts. Also skips fill bytes
/// and the stray bytes that some writers leave between segments.
pub(in crate::pixels) fn next_marker(bytes: &[u8]) -> Option<(usize, u8)> {
    let at =
        bytes.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xd0..=0xd7 | 0xff))?;
    Some((at, bytes[at + 1]))
}

/// Whether a JPEG seems to start here: a start marker, and a segment that may come first.
pub(in crate::pixels) fn starts(bytes: &[u8]) -> bool {
    matches!(bytes, &[0xff, START, 0xff, 0xc0..=0xc4 | 0xdb | 0xdd | 0xe0..=0xef | 0xfe, high, low, ..] if high > 0 || low >= 2)
}

/// A marker, its data without the length, and all bytes after it.
#[derive(Clone, Copy, Debug)]
struct Segment<'a> {
    marker: u8,
    data: &'a [u8],
    behind: &'a [u8],
}

/// The segments before the end marker.
#[derive(Debug)]
struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    fn new(file: &'a [u8]) -> Self {
        Self { rest: file.get(2..).unwrap_or_default() }
    }

    /// The next segment; `None` at the end marker. An error if the file ends before it.
    fn advance(&mut self) -> Result<Option<Segment<'a>>, String> {
        const TRUNCATED: &str = "this JPEG file is truncated: it ends before the end of its picture; copy it again";
        loop {
            let (at, marker) = next_marker(self.rest).ok_or(TRUNCATED)?;
            self.rest = &self.rest[at + 2..];
            match marker {
                START => continue, // a stray marker
                END => return Ok(None),
                _ => {}
            }
            let &[high, low] = self.rest.first_chunk::<2>().ok_or(TRUNCATED)?;
            let length = usize::from(u16::from_be_bytes([high, low]));
            let (segment, behind) = self.rest.split_at_checked(length).ok_or(TRUNCATED)?;
            self.rest = behind;
            return Ok(Some(Segment { marker, data: segment.get(2..).unwrap_or_default(), behind }));
        }
    }
}

/// Two bytes per sample, as if every component were as large as the picture, rounded up to whole blocks.
fn coefficient_bytes(frame: &[u8]) -> u64 {
    let Some(&[_, h1, h0, w1, w0, components]) = frame.first_chunk::<6>() else { return 0 };
    let whole = |high, low| u64::from(u16::from_be_bytes([high, low])).next_multiple_of(32);
    2 * u64::from(components) * whole(h1, h0) * whole(w1, w0)
}

#[cfg(test)]
mod tests;
