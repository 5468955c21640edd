//! Reads a PNG row by row.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use image::metadata::Orientation;
use png::{BitDepth, ColorType, DecodingError, Transformations};

use crate::pixels::decode::{Depth, samples};

/// A PNG that is read from top to bottom.
pub(super) struct PngRows<R: Read + Seek> {
    reader: png::Reader<BufReader<R>>,
    pub(super) size: (u32, u32),
    turned: bool,
    depth: Depth,
    /// The largest 16-bit sample so far.
    highest: u16,
}

impl<R: Read + Seek> PngRows<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// A phrase that says what is wrong.
    pub(super) fn new(mut file: R, depth: Depth) -> Result<Self, String> {
        let orientation = orientation(&mut file).map_err(|error| failed(&DecodingError::IoError(error)))?;
        file.rewind().map_err(|error| failed(&DecodingError::IoError(error)))?;
        let mut decoder = png::Decoder::new(BufReader::new(file));
        decoder.set_transformations(Transformations::EXPAND);
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        let reader = decoder.read_info().map_err(|error| failed(&error))?;
        let (size, turned) = (reader.info().size(), orientation.is_some_and(|o| o != Orientation::NoTransforms));
        Ok(Self { reader, size, turned, depth, highest: 0 })
    }

    /// Whether the rows are stored in order, from top to bottom.
    pub(super) fn by_rows(&self) -> bool {
        !self.reader.info().interlaced && !self.turned
    }

    /// The likely number of bits of 16-bit samples that were read so far, if it is small.
    pub(super) fn likely_depth(&self) -> Option<u8> {
        samples::likely_depth(self.highest).filter(|_| self.depth == Depth::Auto)
    }

    /// Writes the next row as RGB.
    pub(super) fn row(&mut self, to: &mut [u8]) -> Result<(), String> {
        let (color, bits) = self.reader.output_color_type();
        let row = self.reader.next_row().map_err(|error| failed(&error))?;
        let row = row.ok_or("this PNG file is truncated; copy it again")?;
        let (channels, offsets) = match color {
            ColorType::Grayscale | ColorType::Indexed => (1, [0; 3]),
            ColorType::GrayscaleAlpha => (2, [0; 3]),
            ColorType::Rgb => (3, [0, 1, 2]),
            ColorType::Rgba => (4, [0, 1, 2]),
        };
        let to = to.as_chunks_mut::<3>().0;
        if bits != BitDepth::Sixteen {
            for (pixel, to) in row.data().chunks_exact(channels).zip(to) {
                *to = offsets.map(|offset| pixel[offset]);
            }
            return Ok(());
        }
        let bits = if let Depth::Bits(bits) = self.depth { bits } else { 16 };
        for (pixel, to) in row.data().chunks_exact(2 * channels).zip(to) {
            let values = offsets.map(|offset| u16::from_be_bytes([pixel[2 * offset], pixel[2 * offset + 1]]));
            *to = match self.depth {
                Depth::Range { low, high } => values.map(|value| samples::byte(f32::from(value), low, high)),
                Depth::Auto | Depth::Bits(_) => {
                    self.highest = values.into_iter().fold(self.highest, u16::max);
                    values.map(|value| (value >> (bits - 8)) as u8)
                }
            };
        }
        samples::check(bits, self.highest)
    }
}

/// The orientation in the `eXIf` chunk, anywhere in the file. Skips the pixels.
fn orientation(file: &mut (impl Read + Seek)) -> io::Result<Option<Orientation>> {
    file.seek(SeekFrom::Start(8))?;
    let mut head = [0; 8];
    while file.read_exact(&mut head).is_ok() {
        let (length, kind) = head.split_at(4);
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        match kind {
            b"eXIf" => {
                let mut exif = Vec::new();
                file.take(u64::from(length)).read_to_end(&mut exif)?;
                return Ok(Orientation::from_exif_chunk(&exif));
            }
            b"IEND" => break,
            _ => _ = file.seek(SeekFrom::Current(i64::from(length) + 4))?, // a checksum of four bytes follows the data
        }
    }
    Ok(None)
}

/// Rewords the decoder's error: what is wrong, and what to do.
fn failed(error: &DecodingError) -> String {
    match error {
        DecodingError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "this PNG file is truncated; copy it again".into()
        }
        other => format!("this PNG file is damaged ({other}); copy it again, or save it again"),
    }
}
