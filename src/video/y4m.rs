//! YUV4MPEG2 (`.y4m`), the format in which video programs exchange frames over pipes. The crate `y4m` parses it.

use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use image::RgbImage;
use y4m::{Colorspace, Decoder, Ratio};

use super::colors::{self, Colors, Matrix, Planes, Range};
use super::rate::Rate;
use super::{Frame, failure, until_error};
use crate::error::{Error, Result};

/// The first bytes of the format.
pub(super) const MAGIC: &[u8] = b"YUV4MPEG2 ";

/// The longest stream header. FFmpeg accepts 80 characters, the crate 1024.
const LONGEST_HEADER: u64 = 1000;

/// The largest width and height.
pub(super) const LARGEST_SIDE: u32 = 65_535;

type Input = io::Chain<Cursor<Vec<u8>>, Counted<Box<dyn Read + Send>>>;

/// Reads the frames of a y4m stream.
pub(super) struct Y4mReader {
    name: String,
    decoder: Decoder<Input>,
    /// The bytes read so far.
    bytes: Arc<AtomicU64>,
    colors: Colors,
    rate: Rate,
    size: (u32, u32),
    number: u64,
}

impl Y4mReader {
    /// Reads the header. `name` is for errors. `range` and `matrix` replace what the stream says.
    pub(super) fn new(
        input: Box<dyn Read + Send>,
        name: &str,
        range: Option<Range>,
        matrix: Option<Matrix>,
    ) -> Result<Self> {
        let mut input = BufReader::with_capacity(1 << 16, input);
        let mut header = Vec::new();
        input.by_ref().take(LONGEST_HEADER).read_until(b'\n', &mut header).map_err(Error::reading(name))?;
        if header.is_empty() {
            return Err(failure(name, "is empty; expected a y4m stream"));
        }
        if !header.starts_with(MAGIC) {
            let start = String::from_utf8_lossy(&header[..header.len().min(16)]).into_owned();
            return Err(failure(
                name,
                format!(
                    "is not a y4m stream: it starts with `{}`, expected `YUV4MPEG2`; write it with `ffmpeg -i VIDEO -f yuv4mpegpipe -`, or \
                     describe raw frames with --raw",
                    start.escape_debug()
                ),
            ));
        }
        if !header.ends_with(b"\n") {
            return Err(failure(name, "its y4m header is truncated or longer than 1000 bytes"));
        }
        let bytes = Arc::new(AtomicU64::new(0));
        let text = String::from_utf8_lossy(&header).trim_end().to_owned();
        let refuse = |what: &str| failure(name, format!("its y4m header `{}` {what}", text.escape_debug()));
        // The crate multiplies width and height without checking.
        for side in text.split(' ').filter(|field| field.starts_with(['W', 'H'])) {
            if !side[1..].parse::<u32>().is_ok_and(|side| (1..=LARGEST_SIDE).contains(&side)) {
                return Err(refuse(&format!("has the side `{side}`; expected 1 to {LARGEST_SIDE} pixels")));
            }
        }
        let extension =
            |key: &str| text.split(' ').find_map(|field| field.strip_prefix(key)).map(str::to_ascii_uppercase);
        let said = match extension("XCOLORRANGE=").as_deref() {
            Some("FULL") => Range::Full,
            _ => Range::Limited,
        };
        let counted = Counted { inner: Box::new(input) as Box<dyn Read + Send>, bytes: Arc::clone(&bytes) };
        let decoder = Decoder::new(Cursor::new(header).chain(counted)).map_err(|error| match error {
            y4m::Error::UnknownColorspace => {
                refuse("has an unsupported pixel format; expected mono, 420, 422 or 444 of 8, 10 or 12 bits: use `-pix_fmt yuv420p`")
            }
            y4m::Error::OutOfMemory => refuse("describes frames of more than 1 GiB"),
            error => refuse(&format!("cannot be read: {error}")),
        })?;
        let size = (decoder.get_width() as u32, decoder.get_height() as u32);
        let Ratio { num, den } = decoder.get_framerate();
        let colors = Colors { range: range.unwrap_or(said), matrix: matrix.unwrap_or(Matrix::of_size(size.0, size.1)) };
        let rate = Rate::new(num as u64, den as u64).unwrap_or_default();
        Ok(Self { name: name.to_owned(), decoder, bytes, colors, rate, size, number: 0 })
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    pub(super) fn colors(&self) -> Colors {
        self.colors
    }

    /// The frames up to the end or the first error.
    pub(super) fn frames(mut self) -> impl Iterator<Item = Result<Frame>> + Send {
        until_error(move || self.read())
    }

    /// The next frame; `None` at the end. It must not be called again after that, or after an error.
    fn read(&mut self) -> Result<Option<Frame>> {
        let number = self.number + 1;
        let start = self.bytes.load(Ordering::Relaxed);
        let space = self.decoder.get_colorspace();
        let frame = match self.decoder.read_frame() {
            Ok(frame) => frame,
            Err(y4m::Error::EOF) => {
                let got = self.bytes.load(Ordering::Relaxed) - start;
                if got == 0 {
                    return Ok(None);
                }
                let reason = format!(
                    "is truncated: it ends after {got} bytes of frame {number}; the frames before it are complete"
                );
                return Err(failure(&self.name, reason));
            }
            Err(y4m::Error::IoError(cause)) => return Err(Error::reading(&self.name)(cause)),
            Err(error) => {
                return Err(failure(
                    &self.name,
                    format!(
                        "frame {number} does not start with `FRAME` ({error}); the stream is damaged, or a second one of another size follows: \
                         y4m frames cannot change their size"
                    ),
                ));
            }
        };
        self.number = number;
        let [y, u, v] =
            [frame.get_y_plane(), frame.get_u_plane(), frame.get_v_plane()].map(|plane| eight_bits(plane, space));
        let planes = match space {
            Colorspace::Cmono | Colorspace::Cmono12 => Planes::Gray(&y),
            Colorspace::C422 | Colorspace::C422p10 | Colorspace::C422p12 => Planes::Yuv422([&y, &u, &v]),
            Colorspace::C444 | Colorspace::C444p10 | Colorspace::C444p12 => Planes::Yuv444([&y, &u, &v]),
            _ => Planes::Yuv420([&y, &u, &v]),
        };
        let rgb = colors::to_rgb(planes, self.size.0, self.size.1, self.colors)?;
        Ok(Some(Frame::new(rgb, number, self.rate.time(number - 1), &self.name)))
    }
}

/// The samples of a plane, rounded to 8 bits. Samples of more bits are 16-bit numbers, little endian.
fn eight_bits(plane: &[u8], space: Colorspace) -> std::borrow::Cow<'_, [u8]> {
    let surplus = space.get_bit_depth() as u32 - 8;
    if surplus == 0 {
        return plane.into();
    }
    let round = |pair: &[u8; 2]| {
        let sample = u32::from(u16::from_le_bytes(*pair));
        ((sample + (1 << (surplus - 1))) >> surplus).min(255) as u8
    };
    plane.as_chunks::<2>().0.iter().map(round).collect::<Vec<_>>().into()
}

/// Counts the bytes that are read.
struct Counted<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(count) => {
                    self.bytes.fetch_add(count as u64, Ordering::Relaxed);
                    return Ok(count);
                }
                failed => return failed,
            }
        }
    }
}

/// Writes frames as y4m, in 4:4:4, so that no colour is averaged with its neighbour's. The header states the range.
///
/// ```
/// use rtformer::video::{Matrix, Range, Rate, Y4mWriter};
///
/// let mut bytes = Vec::new();
/// let mut video = Y4mWriter::new(&mut bytes, (3, 1), Rate::default(), Range::Limited, Matrix::Bt601)?;
/// video.write(&image::RgbImage::new(3, 1)).unwrap();
/// assert_eq!(bytes, b"YUV4MPEG2 W3 H1 F25:1 XCOLORRANGE=LIMITED C444\nFRAME\n\x10\x10\x10\x80\x80\x80\x80\x80\x80");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Y4mWriter<W: Write> {
    out: W,
    size: (u32, u32),
    colors: Colors,
    planes: [Vec<u8>; 3],
}

impl<W: Write> Y4mWriter<W> {
    /// Writes the header for frames of `size` (width, height).
    ///
    /// # Errors
    /// The writer's.
    pub fn new(mut out: W, size: (u32, u32), rate: Rate, range: Range, matrix: Matrix) -> io::Result<Self> {
        let ((width, height), Rate { frames, seconds }) = (size, rate);
        let name = if range == Range::Full { "FULL" } else { "LIMITED" };
        out.write_all(
            format!("YUV4MPEG2 W{width} H{height} F{frames}:{seconds} XCOLORRANGE={name} C444\n").as_bytes(),
        )?;
        Ok(Self { out, size, colors: Colors { range, matrix }, planes: Default::default() })
    }

    /// Writes a frame, and flushes the writer.
    ///
    /// # Errors
    /// The writer's; [`io::ErrorKind::InvalidInput`] if the frame does not have the header's size.
    pub fn write(&mut self, frame: &RgbImage) -> io::Result<()> {
        if frame.dimensions() != self.size {
            let ((width, height), (w, h)) = (frame.dimensions(), self.size);
            let reason = format!("a frame has {width}x{height} pixels, but the video started with {w}x{h}");
            return Err(io::Error::new(ErrorKind::InvalidInput, reason));
        }
        colors::from_rgb(frame, self.colors, &mut self.planes).map_err(io::Error::other)?;
        self.out.write_all(b"FRAME\n")?;
        self.planes.iter().try_for_each(|plane| self.out.write_all(plane))?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> Result<Y4mReader> {
        Y4mReader::new(Box::new(Cursor::new(bytes.to_vec())), "clip.y4m", None, None)
    }

    /// The error of a stream, from its header or its frames, and the number of frames before it.
    fn error(bytes: &[u8]) -> (usize, String) {
        match reader(bytes) {
            Err(error) => (0, error.to_string()),
            Ok(frames) => {
                let all: Vec<_> = frames.frames().collect();
                let text = all.last().and_then(|last| last.as_ref().err()).map_or(String::new(), ToString::to_string);
                (all.iter().filter(|frame| frame.is_ok()).count(), text)
            }
        }
    }

    #[test]
    fn damaged_streams_are_named_and_keep_their_complete_frames() {
        let whole = b"YUV4MPEG2 W3 H1 F30000:1001 C420\nFRAME\nyyyuvuvFRAME Ip\nyyyuvuv";
        assert_eq!(error(whole), (2, String::new()));
        let cases: [(&[u8], usize, &str); 11] = [
            (b"", 0, "clip.y4m: is empty"),
            (b"RIFF1234AVI LIST", 0, "it starts with `RIFF1234AVI LIST`, expected `YUV4MPEG2`"),
            (b"YUV4MPEG2 W3 H1", 0, "header is truncated"),
            (b"YUV4MPEG2 W0 H1\n", 0, "has the side `W0`"),
            (b"YUV4MPEG2 W99999999999999 H99999999999999\n", 0, "has the side `W99999999999999`"),
            (b"YUV4MPEG2 H1\n", 0, "cannot be read"),
            (b"YUV4MPEG2 W3 H1 C411\n", 0, "unsupported pixel format"),
            (b"YUV4MPEG2 W60000 H60000 C444\n", 0, "more than 1 GiB"),
            (&whole[..whole.len() - 1], 1, "is truncated: it ends after 15 bytes of frame 2"),
            (&whole[..whole.len() - 13], 1, "is truncated: it ends after 3 bytes of frame 2"),
            (
                b"YUV4MPEG2 W1 H1 Cmono\nFRAME\nyYUV4MPEG2 W2 H2 Cmono\nFRAME\nyyyy",
                1,
                "frame 2 does not start with `FRAME`",
            ),
        ];
        for (bytes, frames, text) in cases {
            let (count, found) = error(bytes);
            assert!(
                count == frames && found.contains(text),
                "{:?}: {count} frames, {found}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn a_written_video_reads_as_the_same_frames() {
        for (range, matrix) in [(Range::Limited, Matrix::Bt601), (Range::Full, Matrix::Bt709)] {
            let frames: Vec<_> = (0..3_u8)
                .map(|n| RgbImage::from_fn(5, 3, |x, y| image::Rgb([50 * x as u8, 80 * y as u8, 100 * n])))
                .collect();
            let mut bytes = Vec::new();
            let rate = Rate::new(30_000, 1001).unwrap();
            let mut writer = Y4mWriter::new(&mut bytes, (5, 3), rate, range, matrix).unwrap();
            frames.iter().for_each(|frame| writer.write(frame).unwrap());
            assert_eq!(writer.write(&RgbImage::new(3, 5)).unwrap_err().kind(), ErrorKind::InvalidInput);
            let reader = Y4mReader::new(Box::new(Cursor::new(bytes)), "-", None, Some(matrix)).unwrap();
            assert_eq!((reader.rate(), reader.colors()), (rate, Colors { range, matrix }));
            for (n, (frame, want)) in (0..).zip(reader.frames().map(Result::unwrap).zip(&frames)) {
                assert_eq!((frame.number, frame.time), (n + 1, rate.time(n)));
                assert!(frame.image.iter().zip(want.iter()).all(|(a, b)| a.abs_diff(*b) <= 2), "{range:?}");
            }
        }
    }

    #[test]
    fn samples_of_more_bits_are_rounded() {
        let mono = b"YUV4MPEG2 W3 H1 Cmono12 XCOLORRANGE=FULL\nFRAME\n\x00\x00\x07\x08\xff\x0f";
        let frame = reader(mono).unwrap().read().unwrap().unwrap();
        assert_eq!(frame.image.as_raw(), &[0, 0, 0, 128, 128, 128, 255, 255, 255]); // 0, 2055 and 4095 of 4095
    }
}
