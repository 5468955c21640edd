//! Reads a video through `ffmpeg`: frames as PPM on its standard output, their times on its standard error.
//!
//! PPM states the size of every frame, and the conversion to RGB is the one with which `ffmpeg` writes PNG files. The filter `showinfo`
//! reports the time of each frame before the frame is written, so variable frame rates are kept.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::process::{ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use image::RgbImage;
use parking_lot::Mutex;

use super::child::Child;
use super::{abilities, command, passthrough};
use crate::error::Result;
use crate::memory;
use crate::video::rate::Rate;
use crate::video::{Frame, failure, until_error};

/// How to open a video.
pub(in crate::video) struct Input<'a> {
    /// Its name in errors.
    pub(in crate::video) name: &'a str,
    /// A file or an address.
    pub(in crate::video) address: &'a str,
    /// The format, for devices.
    pub(in crate::video) format: Option<&'a str>,
    pub(in crate::video) start: Duration,
    pub(in crate::video) duration: Option<Duration>,
    /// Errors in a live source are expected, and are not reported after its end.
    pub(in crate::video) live: bool,
}

pub(in crate::video) struct FfmpegReader {
    name: String,
    child: Child,
    frames: BufReader<ChildStdout>,
    times: Receiver<Option<Duration>>,
    stream: Arc<Mutex<Stream>>,
    live: bool,
    number: u64,
    last: Option<Duration>,
}

/// What `showinfo` says about the stream.
#[derive(Clone, Copy, Default)]
struct Stream {
    /// Seconds per tick, as a fraction.
    time_base: Option<(u32, u32)>,
    rate: Option<Rate>,
}

impl FfmpegReader {
    /// Starts `ffmpeg`.
    pub(in crate::video) fn new(input: &Input<'_>) -> Result<Self> {
        let abilities = abilities(input.name)?;
        let mut command = command("level+info");
        if !input.start.is_zero() {
            command.args(["-ss", &seconds(input.start)]);
        }
        if let Some(duration) = input.duration {
            command.args(["-t", &seconds(duration)]);
        }
        if let Some(format) = input.format {
            command.args(["-f", format]);
        }
        if input.live {
            command.args(["-fflags", "nobuffer", "-flags", "low_delay"]);
        }
        command.args(["-i", input.address, "-map", "0:v:0", "-vf", "showinfo=checksum=0"]);
        command.args(passthrough(abilities));
        command.args(["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-flush_packets", "1", "pipe:1"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());

        let (sender, times) = channel();
        let stream = Arc::<Mutex<Stream>>::default();
        let seen = Arc::clone(&stream);
        let observe = move |line: &str| {
            if !line.contains("showinfo") {
                return false;
            }
            if let Some(config) = line.split("config in ").nth(1) {
                *seen.lock() = Stream::parse(config);
            } else if let Some(ticks) = ticks(line) {
                // A failure means that the reader is gone, and then the child is, too.
                let _ = sender.send(ticks.parse().ok().and_then(|ticks| seen.lock().time(ticks)));
            }
            true
        };
        let (child, _, stdout) = Child::start(&mut command, input.name, observe)?;
        let stdout = stdout.ok_or_else(|| failure(input.name, "`ffmpeg` has no standard output"))?;
        Ok(Self {
            name: input.name.to_owned(),
            child,
            frames: BufReader::with_capacity(1 << 16, stdout),
            times,
            stream,
            live: input.live,
            number: 0,
            last: None,
        })
    }

    /// The frame rate, once a frame was read. For variable rates, FFmpeg's estimate.
    pub(in crate::video) fn rate(&self) -> Rate {
        self.stream.lock().rate.unwrap_or_default()
    }

    /// The seconds per tick of the video's clock, once a frame was read.
    pub(in crate::video) fn time_base(&self) -> Option<(u32, u32)> {
        self.stream.lock().time_base
    }

    /// The frames up to the end or the first error.
    pub(in crate::video) fn frames(mut self) -> impl Iterator<Item = Result<Frame>> + Send {
        until_error(move || self.read())
    }

    /// The next frame; `None` at the end. It must not be called again after that, or after an error.
    pub(in crate::video) fn read(&mut self) -> Result<Option<Frame>> {
        match read_ppm(&mut self.frames) {
            Ok(Some(image)) => {
                self.number += 1;
                let time = self.time();
                Ok(Some(Frame::new(image, self.number, time, &self.name)))
            }
            Ok(None) => self.end(None).map(|()| None),
            Err(error) => self.end(Some(&error.to_string())).map(|()| None),
        }
    }

    /// The time of the frame that was just read. It is later than the previous one, so that it can be written to any file.
    fn time(&mut self) -> Duration {
        let stated = self.times.recv_timeout(Duration::from_secs(1)).ok().flatten();
        let time = match (stated, self.last) {
            (Some(time), None) => time,
            (Some(time), Some(last)) => time.max(last + Duration::from_micros(1)),
            (None, Some(last)) => last + self.rate().time(1),
            (None, None) => Duration::ZERO,
        };
        self.last = Some(time);
        time
    }

    /// Waits for the child after its last frame.
    fn end(&mut self, reason: Option<&str>) -> Result<()> {
        let after = format!("after {} frames", self.number);
        let failed = |how: String| Err(failure(&self.name, how));
        match self.child.finish() {
            Err(how) => failed(format!("ffmpeg {how}, {after}")),
            Ok(()) => match (reason, self.child.errors()) {
                (Some(reason), _) => failed(format!("ffmpeg stopped in the middle of a frame, {after}: {reason}")),
                (None, errors) if !self.live && !errors.is_empty() => failed(format!(
                    "is damaged or incomplete; ffmpeg decoded {} frames and reported: {errors}",
                    self.number
                )),
                _ if self.number == 0 => failed("has no video frames; check the file, --start and --duration".into()),
                _ => Ok(()),
            },
        }
    }
}

impl Stream {
    /// Parses `time_base: 1/30000, frame_rate: 30000/1001`.
    fn parse(config: &str) -> Self {
        let fraction = |key: &str| {
            let text = config.split(key).nth(1)?.trim_start();
            let (numerator, rest) = text.split_once('/')?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            Some((numerator.parse::<u32>().ok()?, digits.parse::<u32>().ok()?)).filter(|(n, d)| *n > 0 && *d > 0)
        };
        let rate = fraction("frame_rate:").and_then(|(frames, seconds)| Rate::new(frames.into(), seconds.into()));
        Self { time_base: fraction("time_base:"), rate }
    }

    /// The time after this many ticks; times before the start become 0.
    fn time(self, ticks: i64) -> Option<Duration> {
        let (numerator, denominator) = self.time_base?;
        let nanoseconds =
            u128::from(ticks.max(0).unsigned_abs()) * u128::from(numerator) * 1_000_000_000 / u128::from(denominator);
        Some(Duration::from_nanos(u64::try_from(nanoseconds).ok()?))
    }
}

/// The ticks in `… n:   3 pts:   3003 pts_time:0.1001 …`, or `NOPTS` if they are unknown. `None` if the line describes no frame.
fn ticks(line: &str) -> Option<&str> {
    line.split_once(" pts:").and_then(|(_, rest)| rest.split_whitespace().next())
}

/// Reads a PPM file of 8-bit samples, as `ffmpeg` writes it. `None` at the end.
fn read_ppm(input: &mut impl BufRead) -> io::Result<Option<RgbImage>> {
    let damaged = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut header = Vec::new();
    for _ in 0..3 {
        input.take(32).read_until(b'\n', &mut header)?;
    }
    let text = String::from_utf8_lossy(&header);
    let fields: Vec<_> = text.split_ascii_whitespace().collect();
    let ["P6", width, height, "255"] = fields[..] else { return Err(damaged("the frame's header is incomplete")) };
    let size = width.parse::<u32>().ok().zip(height.parse::<u32>().ok());
    let (width, height) = size.ok_or_else(|| damaged("the frame's size is invalid"))?;
    let bytes = 3 * u64::from(width) * u64::from(height);
    let what = || format!("a frame of {width}x{height} pixels");
    let mut data = memory::room(usize::try_from(bytes).unwrap_or(usize::MAX), what).map_err(io::Error::other)?;
    input.take(bytes).read_to_end(&mut data)?;
    let got = data.len();
    let frame = RgbImage::from_raw(width, height, data);
    frame.map(Some).ok_or_else(|| damaged(&format!("the frame has {got} bytes, expected {bytes}")))
}

fn seconds(time: Duration) -> String {
    format!("{:.6}", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_give_times() {
        let stream = Stream::parse("time_base: 1/30000, frame_rate: 30000/1001");
        assert_eq!((stream.time_base, stream.rate), (Some((1, 30_000)), Rate::new(30_000, 1001)));
        let line =
            "[Parsed_showinfo_0 @ 0x55] [info] n:   3 pts:   3003 pts_time:0.1001  pos:     2081 fmt:yuv420p s:96x72";
        assert_eq!(ticks(line), Some("3003"));
        assert_eq!((stream.time(3003), stream.time(-5)), (Some(Duration::from_micros(100_100)), Some(Duration::ZERO)));
        assert_eq!(ticks("[Parsed_showinfo_0 @ 0x55] [info] n: 0 pts: NOPTS pts_time:NOPTS"), Some("NOPTS"));
        assert_eq!(ticks("[Parsed_showinfo_0 @ 0x55] [info]   side data - User Data Unregistered:"), None);
        let unknown = Stream::parse("time_base: 0/0, frame_rate: 1/0");
        assert_eq!((unknown.time_base, unknown.rate), (None, None));
    }

    #[test]
    fn frames_are_complete_or_an_error() {
        let whole = b"P6\n2 1\n255\nabcdefP6\n1 1\n255\nxyz";
        let mut input = &whole[..];
        let sizes: Vec<_> =
            std::iter::from_fn(|| read_ppm(&mut input).unwrap()).map(|frame| frame.dimensions()).collect();
        assert_eq!(sizes, [(2, 1), (1, 1)]);
        for cut in [1, 5, 12, 16] {
            assert!(read_ppm(&mut &whole[..cut]).is_err(), "{cut} bytes");
        }
        assert!(read_ppm(&mut &b"P6\n99999999999 1\n255\n"[..]).is_err());
    }
}
