//! A Matroska file of raw RGB frames with their times, for `ffmpeg` to read from a pipe.
//!
//! y4m has one rate for all frames; Matroska has a time for each. Source: RFC 9559 (Matroska) and RFC 8794 (EBML).

use std::io::{self, Write};
use std::time::Duration;

use crate::video::rate::Rate;

/// Nanoseconds per unit of time in the file.
const SCALE: u64 = 1000;

/// The start of a block: track 1, at the cluster's time, a keyframe.
const BLOCK: [u8; 4] = [0x81, 0, 0, 0x80];

/// Writes the header: one uncompressed video track.
pub(super) fn header(out: &mut impl Write, (width, height): (u32, u32), rate: Rate) -> io::Result<()> {
    let text = |id, text: &str| element(id, text.as_bytes());
    let ebml = [
        number(0x4286, 1),
        number(0x42F7, 1),
        number(0x42F2, 4),
        number(0x42F3, 8),
        text(0x4282, "matroska"),
        number(0x4287, 4),
        number(0x4285, 2),
    ];
    out.write_all(&element(0x1A45_DFA3, &ebml.concat()))?;
    out.write_all(&[0x18, 0x53, 0x80, 0x67, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])?; // a segment of unknown size
    let info = [number(0x2A_D7B1, SCALE), text(0x4D80, "rtformer"), text(0x5741, "rtformer")];
    out.write_all(&element(0x1549_A966, &info.concat()))?;
    let video = [number(0xB0, width.into()), number(0xBA, height.into()), element(0x2E_B524, b"RGB\x18")];
    let track = [
        number(0xD7, 1),
        number(0x73C5, 1),
        number(0x83, 1),
        text(0x86, "V_UNCOMPRESSED"),
        number(0x23_E383, (rate.time(1).as_nanos() as u64).max(1)),
        element(0xE0, &video.concat()),
    ];
    out.write_all(&element(0x1654_AE6B, &element(0xAE, &track.concat())))
}

/// Writes a frame, in a cluster of its own.
pub(super) fn frame(out: &mut impl Write, rgb: &[u8], time: Duration) -> io::Result<()> {
    let ticks = u64::try_from(time.as_nanos() / u128::from(SCALE)).unwrap_or(u64::MAX);
    let stamp = number(0xE7, ticks);
    let block = BLOCK.len() + rgb.len();
    out.write_all(&prefix(0x1F43_B675, stamp.len() + 1 + 8 + block))?;
    out.write_all(&stamp)?;
    out.write_all(&prefix(0xA3, block))?;
    out.write_all(&BLOCK)?;
    out.write_all(rgb)
}

/// An element's id, without leading zero bytes, and its size in eight bytes.
fn prefix(id: u32, size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = id.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    bytes.extend((size as u64 | 1 << 56).to_be_bytes());
    bytes
}

fn element(id: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = prefix(id, content.len());
    bytes.extend(content);
    bytes
}

fn number(id: u32, value: u64) -> Vec<u8> {
    element(id, &value.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up() {
        let mut bytes = Vec::new();
        frame(&mut bytes, &[7; 6], Duration::from_millis(40)).unwrap();
        let want: Vec<u8> = [
            &[0x1F, 0x43, 0xB6, 0x75, 1, 0, 0, 0, 0, 0, 0, 36][..],
            &[0xE7, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0x9C, 0x40], // 40,000 microseconds
            &[0xA3, 1, 0, 0, 0, 0, 0, 0, 10, 0x81, 0, 0, 0x80, 7, 7, 7, 7, 7, 7],
        ]
        .concat();
        assert_eq!(bytes, want);
    }
}
