//! Finds the length of the picture at the start of a stream by its structure.
//!
//! If the stream ends before the picture, the length is that of the stream. If the structure is damaged, the picture ends at
//! the damage or before the next picture.

use std::io::Read;

use super::source::{Source, Stop};
use crate::pixels::decode::jpeg;

pub(super) const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The longest PAM header that is read.
const LONGEST_HEADER: usize = 4096;

/// A JPEG in a stream.
#[derive(Debug)]
pub(super) struct Jpeg {
    pub(super) length: usize,
    /// Bytes after it that hold the further pictures of its index.
    pub(super) further: u64,
}

pub(super) fn jpeg<R: Read>(source: &mut Source<R>) -> Result<Jpeg, Stop> {
    let (mut at, mut indexed) = (2, 0);
    let length = loop {
        let Some((offset, marker)) = jpeg::next_marker(source.buffer.get(at..).unwrap_or_default()) else {
            // Continue after the searched bytes, but keep the last one: it may begin a marker.
            at = at.max(source.buffer.len().saturating_sub(1));
            if source.has(source.buffer.len() + 1)? {
                continue;
            }
            break cut(source, source.buffer.len());
        };
        let place = at + offset;
        match marker {
            jpeg::END => break place + 2,
            // The start of the next picture: this one is truncated.
            jpeg::START => {
                source.has(place + 6)?;
                if place > 2 && jpeg::starts(&source.buffer[place..]) {
                    break cut(source, place);
                }
                at = place + 2;
            }
            _ if !source.has(place + 4)? => break cut(source, source.buffer.len()),
            _ => {
                let length = usize::from(u16::from_be_bytes([source.buffer[place + 2], source.buffer[place + 3]]));
                let end = place + 2 + length.max(2);
                if marker == jpeg::APP2 && source.has(end)? {
                    let segment = &source.buffer[place + 4..end];
                    indexed = mpf_end(segment, place as u64 + 4).unwrap_or(indexed);
                }
                at = end;
            }
        }
    };
    Ok(Jpeg { length, further: u64::saturating_sub(indexed, length as u64) })
}

/// The end of the last picture of a multi-picture index, as an offset in the file; `None` if this APP2 segment has no index.
///
/// `offset` is the position of `segment` in the file. If an index cannot be read, everything after it counts as its pictures.
/// Source: CIPA DC-007, "Multi-Picture Format", sections 5.1 and 5.2.
fn mpf_end(segment: &[u8], offset: u64) -> Option<u64> {
    let index = segment.strip_prefix(b"MPF\0")?;
    let big = index.starts_with(b"MM");
    let long = |at: usize| {
        let bytes = *index.get(at..)?.first_chunk()?;
        Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let short = |at: usize| {
        let bytes = *index.get(at..)?.first_chunk()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let end = || {
        let directory = long(4)? as usize;
        let fields = usize::from(short(directory)?);
        let place = (0..fields).map(|field| directory + 2 + 12 * field).find(|&at| short(at) == Some(0xb002))?;
        let (length, entries) = (long(place + 4)? as usize, long(place + 8)? as usize);
        let pictures = (entries..entries.checked_add(length)?).step_by(16);
        pictures
            .map(|at| match (long(at + 4)?, long(at + 8)?) {
                (_, 0) => Some(0), // the first picture is the JPEG itself
                (size, from) => Some(offset + 4 + u64::from(from) + u64::from(size)),
            })
            .try_fold(0, |last, end| Some(last.max(end?)))
    };
    Some(end().unwrap_or(u64::MAX))
}

pub(super) fn png<R: Read>(source: &mut Source<R>) -> Result<usize, Stop> {
    let mut at = PNG_SIGNATURE.len();
    loop {
        if !source.has(at + 8)? {
            return Ok(cut(source, source.buffer.len()));
        }
        let (length, kind) = source.buffer[at..at + 8].split_at(4);
        let length = u32::from_be_bytes(*length.first_chunk().unwrap_or(&[0; 4])) as usize;
        if !kind.iter().all(u8::is_ascii_alphabetic) {
            return Ok(cut(source, at));
        }
        let last = kind == b"IEND";
        at += 12 + length; // length, type and checksum are 12 bytes
        if !source.has(at)? {
            return Ok(cut(source, at));
        }
        if last {
            return Ok(at);
        }
    }
}

/// The length of a truncated or damaged picture that extends to `end`, or to the start of the next PNG.
fn cut<R>(source: &Source<R>, end: usize) -> usize {
    let end = end.min(source.buffer.len());
    let inside = source.buffer[1..end].windows(PNG_SIGNATURE.len()).position(|bytes| bytes == PNG_SIGNATURE);
    inside.map_or(end, |at| at + 1)
}

pub(super) fn pnm<R: Read>(source: &mut Source<R>) -> Result<usize, Stop> {
    let kind = source.buffer[1];
    let header = if kind == b'7' { pam_header(source)? } else { pnm_header(source, kind)? };
    // Without a readable header, the length is unknown: take all bytes. Decoding them reports the error.
    let Some(Header { length, row, rows }) = header else { return Ok(source.buffer.len()) };
    let data = row.saturating_mul(rows);
    if matches!(kind, b'1'..=b'3') {
        return numbers(source, length, data, kind == b'1');
    }
    let end = usize::try_from(data).unwrap_or(usize::MAX).saturating_add(length);
    source.has(end)?;
    Ok(end.min(source.buffer.len()))
}

/// A PNM or PAM header: its own length in bytes, the bytes per row (or numbers, if the samples are text), and the rows.
struct Header {
    length: usize,
    row: u64,
    rows: u64,
}

fn pnm_header<R: Read>(source: &mut Source<R>, kind: u8) -> Result<Option<Header>, Stop> {
    let bitmap = matches!(kind, b'1' | b'4');
    let mut at = 2;
    let mut fields = [0, 0, 1];
    for field in &mut fields[..if bitmap { 2 } else { 3 }] {
        let Some(value) = number(source, &mut at)? else { return Ok(None) };
        *field = value;
    }
    let [width, rows, max] = fields;
    let samples = width.saturating_mul(if matches!(kind, b'3' | b'6') { 3 } else { 1 });
    let row = match kind {
        b'4' => width.div_ceil(8),
        b'5' | b'6' if max > 255 => samples.saturating_mul(2),
        _ => samples,
    };
    Ok(Some(Header { length: at + 1, row, rows })) // one white-space byte ends the header
}

fn pam_header<R: Read>(source: &mut Source<R>) -> Result<Option<Header>, Stop> {
    let (mut width, mut rows, mut depth, mut max, mut other) = (0, 0, 0, 0, 0);
    let mut at = 3;
    while at < LONGEST_HEADER {
        let start = at;
        while at < LONGEST_HEADER && source.byte(at)?.is_some_and(|byte| byte != b'\n') {
            at += 1;
        }
        let line = String::from_utf8_lossy(source.buffer.get(start..at).unwrap_or_default());
        let mut words = line.split_ascii_whitespace();
        let field = match words.next() {
            Some("WIDTH") => &mut width,
            Some("HEIGHT") => &mut rows,
            Some("DEPTH") => &mut depth,
            Some("MAXVAL") => &mut max,
            Some("ENDHDR") => {
                let row = u64::saturating_mul(width, depth).saturating_mul(if max > 255 { 2 } else { 1 });
                return Ok(Some(Header { length: at + 1, row, rows }));
            }
            _ => &mut other,
        };
        *field = words.next().and_then(|value| value.parse().ok()).unwrap_or(0);
        at += 1;
    }
    Ok(None)
}

/// Reads a number at `at`, after white space and comments, and moves `at` past it. `None` if there is no number.
fn number<R: Read>(source: &mut Source<R>, at: &mut usize) -> Result<Option<u64>, Stop> {
    loop {
        match source.byte(*at)? {
            Some(b'#') => {
                while source.byte(*at)?.is_some_and(|byte| byte != b'\n') {
                    *at += 1;
                }
            }
            Some(byte) if byte.is_ascii_whitespace() => *at += 1,
            _ => break,
        }
    }
    let start = *at;
    while source.byte(*at)?.is_some_and(|byte| byte.is_ascii_digit()) {
        *at += 1;
    }
    Ok(String::from_utf8_lossy(&source.buffer[start..*at]).parse().ok())
}

/// The end of `count` numbers in text. The digits of a bitmap need no white space between them.
fn numbers<R: Read>(source: &mut Source<R>, mut at: usize, count: u64, bitmap: bool) -> Result<usize, Stop> {
    for _ in 0..count {
        while source.byte(at)?.is_some_and(|byte| byte.is_ascii_whitespace()) {
            at += 1;
        }
        let start = at;
        while source.byte(at)?.is_some_and(|byte| byte.is_ascii_digit()) && !(bitmap && at > start) {
            at += 1;
        }
        if at == start {
            break; // no number: the picture is damaged, or the stream ends
        }
    }
    // White space after the last number belongs to the picture, as in a single file.
    Ok(if source.byte(at)?.is_some_and(|byte| byte.is_ascii_whitespace()) { at + 1 } else { at })
}
