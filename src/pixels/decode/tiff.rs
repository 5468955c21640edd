//! Reads a TIFF row by row as 8-bit RGB: any number of bands, in one plane or several, in strips or tiles, of integers or floats.
//!
//! Holds one row of strips or tiles. `image` decodes TIFFs at once and has no bands; this module decodes with the same crate, `tiff`.

use std::io::{self, Read, Seek, SeekFrom};

use image::metadata::Orientation;
use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits as TiffLimits};
use tiff::tags::{CompressionMethod, PlanarConfiguration, Tag};
use tiff::{ColorType, TiffError};

use super::samples::{self, Depth};
use crate::pixels::sniff::tiff::photometric_place;

/// Three bands of a TIFF, counted from 1, that become red, green and blue.
pub(in crate::pixels) type Bands = [u16; 3];

/// A TIFF that is read from top to bottom.
pub(in crate::pixels) struct TiffRows<R: Read + Seek> {
    decoder: Decoder<Patched<R>>,
    pub(in crate::pixels) size: (u32, u32),
    pub(in crate::pixels) orientation: Orientation,
    /// The place of red, green and blue in a pixel.
    channels: [usize; 3],
    /// The number of samples of a pixel in a chunk.
    samples: usize,
    /// Whether each band has chunks of its own.
    planar: bool,
    /// Width and height of a strip or tile.
    chunk: (u32, u32),
    across: u32,
    down: u32,
    depth: Depth,
    /// The row of chunks that was read, and for each of its chunks the samples of red, green and blue, or of all.
    row: Option<u32>,
    read: Vec<[Option<DecodingResult>; 3]>,
    /// The largest 16-bit sample so far.
    highest: u16,
}

impl<R: Read + Seek> TiffRows<R> {
    /// Reads the directory. Without `bands`, a file with more than three bands is refused.
    ///
    /// # Errors
    /// A phrase that says what is not supported or wrong.
    pub(in crate::pixels) fn new(mut file: R, depth: Depth, bands: Option<Bands>) -> Result<Self, String> {
        // Red, green and blue are the first of several bands, of which the decoder would drop the others. Bands have no colours.
        let place = photometric_place(&mut file).map_err(|error| failed(&TiffError::IoError(error)))?;
        let place = place.filter(|_| bands.is_some());
        let limits = TiffLimits::unlimited(); // the caller compares `held` with its own limit
        let mut decoder = Decoder::new(Patched::new(file, place)).map_err(|e| failed(&e))?.with_limits(limits);
        let size = decoder.dimensions().map_err(|e| failed(&e))?;
        let color = decoder.colortype().map_err(|e| failed(&e))?;
        let planar = decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).ok().flatten()
            == Some(PlanarConfiguration::Planar.to_u16());
        let compression = decoder.find_tag_unsigned::<u16>(Tag::Compression).ok().flatten();
        let orientation = decoder.find_tag_unsigned::<u8>(Tag::Orientation).ok().flatten();
        let count = decoder.find_tag_unsigned::<u16>(Tag::SamplesPerPixel).ok().flatten().unwrap_or(1);
        let unsupported = |what: String| format!("{what}, which is not supported; convert it to JPEG or PNG");
        let channels = match (bands, color) {
            (Some(_), _) if compression == Some(CompressionMethod::ModernJPEG.to_u16()) && !planar => {
                return Err("has colours in JPEG's compression, not bands; omit --bands".into());
            }
            (Some(bands), _) => {
                if let Some(wrong) = bands.iter().find(|band| !(1..=count).contains(*band)) {
                    return Err(format!("has no band {wrong}; it has {count}, counted from 1"));
                }
                bands.map(|band| usize::from(band) - 1)
            }
            (None, ColorType::RGB(_) | ColorType::RGBA(_)) => [0, 1, 2],
            // Two bands are grey and alpha.
            (None, ColorType::Gray(_) | ColorType::GrayA(_) | ColorType::Multiband { num_samples: 2, .. }) => [0; 3],
            (None, ColorType::Multiband { num_samples, .. }) => {
                return Err(format!(
                    "has {num_samples} bands; choose those for red, green and blue, such as --bands 3,2,1"
                ));
            }
            (None, other) => return Err(unsupported(format!("has colours of the kind {other:?}"))),
        };
        if color.bit_depth() < 8 {
            return Err(unsupported(format!("has samples of {} bits", color.bit_depth())));
        }
        // The decoder drops what follows red, green, blue and alpha.
        let samples = if planar { 1 } else { usize::from(color.num_samples()) };
        let chunk = decoder.chunk_dimensions();
        if chunk.0 == 0 || chunk.1 == 0 {
            return Err("this TIFF file is damaged (tiles without pixels); copy it again, or save it again".into());
        }
        let tiled = decoder.get_chunk_type() == ChunkType::Tile;
        let across = if tiled { size.0.div_ceil(chunk.0) } else { 1 };
        Ok(Self {
            orientation: orientation.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms),
            down: size.1.div_ceil(chunk.1),
            decoder,
            size,
            channels,
            samples,
            planar,
            chunk,
            across,
            depth,
            row: None,
            read: Vec::new(),
            highest: 0,
        })
    }

    /// The number of bytes that reading holds: a row of chunks.
    pub(in crate::pixels) fn held(&mut self) -> u64 {
        let rows = u64::from(self.chunk.1.min(self.size.1));
        let bytes = self.decoder.colortype().map_or(1, |color| u64::from(color.bit_depth()).div_ceil(8));
        let planes = if self.planar { 3 } else { self.samples as u64 };
        rows * u64::from(self.size.0) * planes * bytes
    }

    /// The likely number of bits of 16-bit samples that were read so far, if it is small.
    pub(in crate::pixels) fn likely_depth(&self) -> Option<u8> {
        samples::likely_depth(self.highest).filter(|_| self.depth == Depth::Auto)
    }

    /// Writes row `y` as RGB. Rows must be read from top to bottom.
    pub(in crate::pixels) fn row(&mut self, y: u32, to: &mut [u8]) -> Result<(), String> {
        let row = y / self.chunk.1;
        if self.row != Some(row) {
            self.read_chunks(row)?;
        }
        let inside = (y % self.chunk.1) as usize;
        for (number, chunks) in (0..).zip(&self.read) {
            let left = number * self.chunk.0 as usize;
            let width = (self.size.0 as usize - left).min(self.chunk.0 as usize);
            let to = &mut to[3 * left..][..3 * width];
            for (color, channel) in self.channels.into_iter().enumerate() {
                let (chunk, channel) = if self.planar { (&chunks[color], 0) } else { (&chunks[0], channel) };
                let Some(chunk) = chunk else { continue };
                let start = inside * width * self.samples + channel;
                let place = Place { start, step: self.samples, width, color };
                write(chunk, place, self.depth, &mut self.highest, to)?;
            }
        }
        Ok(())
    }

    fn read_chunks(&mut self, row: u32) -> Result<(), String> {
        self.read.clear();
        self.row = Some(row);
        for number in 0..self.across {
            let mut chunks = [None, None, None];
            let planes = if self.planar { &self.channels[..] } else { &[0] };
            for (chunk, plane) in chunks.iter_mut().zip(planes) {
                let first = self.across * self.down * *plane as u32;
                let decoded = self.decoder.read_chunk(first + row * self.across + number).map_err(|e| failed(&e))?;
                *chunk = Some(decoded);
            }
            self.read.push(chunks);
        }
        Ok(())
    }
}

/// Samples of a row of a chunk, and the colour that they become.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    step: usize,
    width: usize,
    color: usize,
}

/// Writes one colour of a row.
fn write(chunk: &DecodingResult, place: Place, depth: Depth, highest: &mut u16, to: &mut [u8]) -> Result<(), String> {
    let ranged = |low: f32, high: f32| move |value: f32| samples::byte(value, low, high);
    match (chunk, depth) {
        (DecodingResult::U8(from), _) => copy(from, place, to, |v| v),
        (DecodingResult::U16(from), Depth::Range { low, high }) => {
            copy(from, place, to, |v| ranged(low, high)(f32::from(v)))
        }
        (DecodingResult::U16(from), depth) => {
            let bits = if let Depth::Bits(bits) = depth { bits } else { 16 };
            copy(from, place, to, |v| {
                *highest = (*highest).max(v);
                (v >> (bits - 8)) as u8
            })?;
            samples::check(bits, *highest)
        }
        (DecodingResult::F16(_) | DecodingResult::F32(_) | DecodingResult::F64(_), Depth::Auto | Depth::Bits(_)) => {
            Err(samples::no_range("floating-point"))
        }
        (_, Depth::Auto | Depth::Bits(_)) => Err(samples::no_range("signed or 32-bit")),
        (DecodingResult::F32(from), Depth::Range { low, high }) => copy(from, place, to, ranged(low, high)),
        (DecodingResult::F64(from), Depth::Range { low, high }) => {
            copy(from, place, to, |v| ranged(low, high)(v as f32))
        }
        (DecodingResult::F16(from), Depth::Range { low, high }) => {
            copy(from, place, to, |v| ranged(low, high)(v.to_f32()))
        }
        (DecodingResult::I16(from), Depth::Range { low, high }) => {
            copy(from, place, to, |v| ranged(low, high)(f32::from(v)))
        }
        (DecodingResult::U32(from), Depth::Range { low, high }) => {
            copy(from, place, to, |v| ranged(low, high)(v as f32))
        }
        (DecodingResult::I32(from), Depth::Range { low, high }) => {
            copy(from, place, to, |v| ranged(low, high)(v as f32))
        }
        (DecodingResult::I8(_) | DecodingResult::I64(_) | DecodingResult::U64(_), _) => {
            Err("has signed 8-bit or 64-bit integers, which are not supported; convert it to 16 bits".into())
        }
    }
}

fn copy<T: Copy>(from: &[T], place: Place, to: &mut [u8], mut byte: impl FnMut(T) -> u8) -> Result<(), String> {
    let Place { start, step, width, color } = place;
    let from = from.get(start..).unwrap_or_default();
    if from.len() < (width - 1) * step + 1 {
        return Err("this TIFF file is damaged (a strip or tile is too short); copy it again, or save it again".into());
    }
    from.iter().step_by(step).zip(to.as_chunks_mut::<3>().0).for_each(|(value, to)| to[color] = byte(*value));
    Ok(())
}

/// Whether `image` cannot decode this TIFF, but this module can: it has bands, one channel of 32 bits or more, or signed samples.
pub(super) fn is_special(bytes: &[u8]) -> bool {
    const SIGNED: u16 = 2;
    let Ok(mut decoder) = Decoder::new(io::Cursor::new(bytes)) else { return false };
    let formats = decoder.find_tag_unsigned_vec::<u16>(Tag::SampleFormat).ok().flatten().unwrap_or_default();
    let color = decoder.colortype();
    formats.contains(&SIGNED) || matches!(color, Ok(ColorType::Multiband { .. } | ColorType::Gray(32 | 64)))
}

/// Rewords the decoder's error: what is wrong, and what to do.
fn failed(error: &TiffError) -> String {
    match error {
        TiffError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "this TIFF file is truncated; copy it again".into()
        }
        TiffError::UnsupportedError(what) => {
            format!("this kind of TIFF is not supported ({what}); convert it to JPEG or PNG")
        }
        other => format!("this TIFF file is damaged ({other}); copy it again, or save it again"),
    }
}

/// A file in which two bytes are replaced: the interpretation of its colours becomes "black is zero".
struct Patched<R> {
    file: R,
    at: u64,
    place: Option<(u64, [u8; 2])>,
}

impl<R: Read + Seek> Patched<R> {
    fn new(file: R, place: Option<(u64, [u8; 2])>) -> Self {
        Self { file, at: 0, place }
    }
}

impl<R: Read + Seek> Read for Patched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        if let Some((place, value)) = self.place {
            for (place, value) in (place..).zip(value) {
                let inside = place.checked_sub(self.at).and_then(|inside| usize::try_from(inside).ok());
                if let Some(byte) = inside.and_then(|inside| buffer[..length].get_mut(inside)) {
                    *byte = value;
                }
            }
        }
        self.at += length as u64;
        Ok(length)
    }
}

impl<R: Seek> Seek for Patched<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}
