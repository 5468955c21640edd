//! Frames without a header, as cameras and `ffmpeg -f rawvideo` write them.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use image::RgbImage;

use super::colors::{self, Colors, Matrix, Planes, Range};
use super::rate::Rate;
use super::y4m::LARGEST_SIDE;
use super::{Frame, failure, until_error};
use crate::error::{Error, Result};
use crate::memory;

/// The layout of a raw frame. Rows and planes have no padding; halves of odd sides are rounded up, as in FFmpeg.
///
/// ```
/// assert_eq!("nv12".parse::<rtformer::video::RawLayout>()?.bytes(5, 3), 15 + 12);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawLayout {
    /// Three bytes per pixel: red, green, blue.
    Rgb24,
    /// Three bytes per pixel: blue, green, red.
    Bgr24,
    /// Luma, then interleaved chroma at half the width and height.
    Nv12,
    /// Luma, then the two chroma planes at half the width and height.
    Yuv420p,
}

impl RawLayout {
    /// The bytes of a frame.
    pub fn bytes(self, width: u32, height: u32) -> u64 {
        let pixels = |width: u32, height: u32| u64::from(width) * u64::from(height);
        match self {
            Self::Rgb24 | Self::Bgr24 => 3 * pixels(width, height),
            Self::Nv12 | Self::Yuv420p => pixels(width, height) + 2 * pixels(width.div_ceil(2), height.div_ceil(2)),
        }
    }
}

impl FromStr for RawLayout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "rgb24" => Ok(Self::Rgb24),
            "bgr24" => Ok(Self::Bgr24),
            "nv12" => Ok(Self::Nv12),
            "yuv420p" => Ok(Self::Yuv420p),
            _ => Err(Error::Input(format!("invalid pixel format `{text}`: expected rgb24, bgr24, nv12 or yuv420p"))),
        }
    }
}

/// Size, layout and rate of raw frames.
///
/// ```
/// use rtformer::video::{RawFormat, RawLayout};
///
/// let format: RawFormat = "640x480:nv12@30".parse()?;
/// assert_eq!((format.width, format.height, format.layout), (640, 480, RawLayout::Nv12));
/// assert!("640x480:nv12".parse::<RawFormat>().is_err(), "the rate is missing");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFormat {
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The layout of a frame.
    pub layout: RawLayout,
    /// Frames per second.
    pub rate: Rate,
}

impl FromStr for RawFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            Error::Input(format!(
                "invalid raw format `{text}`: {why}; expected WIDTHxHEIGHT:FORMAT@FPS, such as 640x480:nv12@30"
            ))
        };
        let (size, rest) = text.split_once(':').ok_or_else(|| invalid("it has no `:`"))?;
        let (layout, rate) = rest.split_once('@').ok_or_else(|| invalid("it has no `@`"))?;
        let side = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|side| plain && (1..=LARGEST_SIDE).contains(side))
        };
        let sides = size.split_once('x').and_then(|(width, height)| side(width).zip(side(height)));
        let (width, height) = sides.ok_or_else(|| invalid("its size is not two sides from 1 to 65535"))?;
        let layout = layout.parse().map_err(|error: Error| invalid(&error.to_string()))?;
        let rate = rate.parse().map_err(|error: Error| invalid(&error.to_string()))?;
        Ok(Self { width, height, layout, rate })
    }
}

impl fmt::Display for RawFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{} {:?} at {} frames per second", self.width, self.height, self.layout, self.rate)
    }
}

/// Reads raw frames.
pub(super) struct RawReader {
    input: Box<dyn Read + Send>,
    name: String,
    format: RawFormat,
    colors: Colors,
    number: u64,
}

impl RawReader {
    /// YUV is in the limited range unless `range` says otherwise.
    pub(super) fn new(
        input: Box<dyn Read + Send>,
        name: &str,
        format: RawFormat,
        range: Option<Range>,
        matrix: Option<Matrix>,
    ) -> Self {
        let matrix = matrix.unwrap_or(Matrix::of_size(format.width, format.height));
        let colors = Colors { range: range.unwrap_or_default(), matrix };
        Self { input, name: name.to_owned(), format, colors, number: 0 }
    }

    /// The frames up to the end or the first error.
    pub(super) fn frames(mut self) -> impl Iterator<Item = Result<Frame>> + Send {
        until_error(move || self.read())
    }

    /// The next frame; `None` at the end. It must not be called again after that, or after an error.
    fn read(&mut self) -> Result<Option<Frame>> {
        let RawFormat { width, height, layout, rate } = self.format;
        let (number, bytes) = (self.number + 1, layout.bytes(width, height));
        let what = || format!("a raw frame of {width}x{height} pixels");
        let mut data: Vec<u8> = memory::room(usize::try_from(bytes).unwrap_or(usize::MAX), what)?;
        let read = (&mut self.input).take(bytes).read_to_end(&mut data);
        let got = read.map_err(Error::reading(&self.name))? as u64;
        if got == 0 {
            return Ok(None);
        }
        if got < bytes {
            let reason = format!(
                "is truncated: frame {number} has {got} bytes, expected {bytes} for {}; the frames before it are complete if the format is right",
                self.format
            );
            return Err(failure(&self.name, reason));
        }
        self.number = number;
        let luma = width as usize * height as usize;
        let rgb = match layout {
            RawLayout::Rgb24 => whole(data, width, height)?,
            RawLayout::Bgr24 => {
                data.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| pixel.swap(0, 2));
                whole(data, width, height)?
            }
            RawLayout::Nv12 => {
                let (y, uv) = data.split_at(luma);
                colors::to_rgb(Planes::Nv12([y, uv]), width, height, self.colors)?
            }
            RawLayout::Yuv420p => {
                let (y, uv) = data.split_at(luma);
                let (u, v) = uv.split_at(uv.len() / 2);
                colors::to_rgb(Planes::Yuv420([y, u, v]), width, height, self.colors)?
            }
        };
        Ok(Some(Frame::new(rgb, number, rate.time(number - 1), &self.name)))
    }
}

fn whole(data: Vec<u8>, width: u32, height: u32) -> Result<RgbImage> {
    RgbImage::from_raw(width, height, data).ok_or_else(|| Error::Pixels(format!("{width}x{height} has the wrong size")))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn frames(format: &str, bytes: Vec<u8>) -> Vec<Result<Frame>> {
        RawReader::new(Box::new(Cursor::new(bytes)), "-", format.parse().unwrap(), None, None).frames().collect()
    }

    #[test]
    fn formats_are_parsed_or_explained() {
        let good = ["1x1:rgb24@1", "65535x2:yuv420p@30000/1001", "5x3:nv12@12.5"];
        assert!(good.iter().all(|text| text.parse::<RawFormat>().is_ok()));
        let bad = [
            ("640x480", "no `:`"),
            ("640x480:nv12", "no `@`"),
            ("640:nv12@30", "two sides"),
            ("0x480:nv12@30", "two sides"),
            ("+6x480:nv12@30", "two sides"),
            ("70000x480:nv12@30", "two sides"),
            ("6x4:yuyv@30", "expected rgb24, bgr24, nv12 or yuv420p"),
            ("6x4:nv12@0", "invalid frame rate `0`"),
        ];
        for (text, want) in bad {
            let error = text.parse::<RawFormat>().unwrap_err().to_string();
            assert!(error.contains(want) && error.contains("640x480:nv12@30"), "{error}");
        }
    }

    #[test]
    fn every_layout_gives_the_same_picture() {
        let (red, white) = ([254, 0, 0], [255; 3]);
        // Limited BT.601: red is 81, 90, 240; white is 235, 128, 128. The chroma of the right column of an odd width is its own.
        let cases: [(&str, Vec<u8>); 4] = [
            ("3x1:rgb24@25", [red, red, white].concat()),
            ("3x1:bgr24@25", vec![0, 0, 254, 0, 0, 254, 255, 255, 255]),
            ("3x1:nv12@25", vec![81, 81, 235, 90, 240, 128, 128]),
            ("3x1:yuv420p@25", vec![81, 81, 235, 90, 128, 240, 128]),
        ];
        for (format, bytes) in cases {
            let frames = frames(format, [bytes.clone(), bytes].concat());
            assert_eq!(frames.len(), 2, "{format}");
            let frame = frames[1].as_ref().unwrap();
            assert_eq!((frame.number, frame.time.as_millis()), (2, 40));
            for (got, want) in frame.image.pixels().zip([red, red, white]) {
                assert!(got.0.iter().zip(want).all(|(a, b)| a.abs_diff(b) <= 2), "{format}: {:?}", got.0);
            }
        }
    }

    #[test]
    fn a_truncated_frame_is_an_error_after_the_complete_ones() {
        let frames = frames("2x2:rgb24@25", vec![7; 30]);
        assert!(frames.len() == 3 && frames[1].is_ok());
        let error = frames[2].as_ref().unwrap_err().to_string();
        assert!(error.starts_with("-: is truncated: frame 3 has 6 bytes, expected 12 for 2x2 Rgb24"), "{error}");
        assert!(self::frames("2x2:rgb24@25", vec![]).is_empty());
    }
}
