//! Opens any kind of video.

use std::fs::File;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::colors::{Matrix, Range};
use super::ffmpeg::{Audio, FfmpegReader, Input};
use super::queue::Keep;
use super::rate::Rate;
use super::raw::{RawFormat, RawReader};
use super::y4m::{MAGIC, Y4mReader};
use super::{Frame, failure, pictures};
use crate::error::{Error, Result};

/// FFmpeg's input devices, which are live.
const DEVICES: [&str; 10] =
    ["avfoundation", "decklink", "dshow", "fbdev", "gdigrab", "kmsgrab", "openal", "v4l2", "video4linux2", "x11grab"];

/// Protocols of live sources.
const LIVE: [&str; 9] = ["rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt", "tcp", "mmsh"];

/// How to read a video.
///
/// ```
/// use rtformer::video::Options;
///
/// let options = Options { every: 5, ..Options::default() };
/// assert!(options.duration.is_none() && !options.realtime);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The format of raw frames; `None` for videos that say what they are.
    pub raw: Option<RawFormat>,
    /// Skip this much of the video.
    pub start: Duration,
    /// Stop after this much; `None` reads to the end.
    pub duration: Option<Duration>,
    /// Keep only every Nth frame, beginning with the first; 0 and 1 keep all.
    pub every: u64,
    /// The rate of numbered pictures; `None` is 25 per second.
    pub rate: Option<Rate>,
    /// The range of YUV frames; `None` is what the stream says, and limited if it says nothing.
    pub range: Option<Range>,
    /// The matrix of y4m and raw YUV frames; `None` follows from the size, see [`Matrix::of_size`].
    pub matrix: Option<Matrix>,
    /// Treat the video as a live source: a file is played at its own speed, and only the newest frame is kept.
    pub realtime: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            raw: None,
            start: Duration::ZERO,
            duration: None,
            every: 1,
            rate: None,
            range: None,
            matrix: None,
            realtime: false,
        }
    }
}

/// An opened video: an iterator of frames.
///
/// An error of a video ends it. An error of a numbered picture costs only its frame.
pub struct Source {
    frames: Frames,
    rate: Rate,
    time_base: Option<(u32, u32)>,
    range: Option<Range>,
    matrix: Option<Matrix>,
    live: bool,
    audio: Option<Audio>,
}

type Frames = Box<dyn Iterator<Item = Result<Frame>> + Send>;

/// What kind of input a name means.
enum Kind<'a> {
    /// Standard input.
    Pipe,
    Folder,
    /// A file that we read ourselves.
    File,
    /// What `ffmpeg` reads: its format, if it is a device, and its address.
    Other(Option<&'a str>, &'a str),
}

impl Source {
    /// Opens a video, and reads its first frame.
    ///
    /// `input` is a file or an address that FFmpeg can read (`rtsp://…`); a device in the form `FORMAT:NAME`, such as `v4l2:/dev/video0` or
    /// `avfoundation:0`; a folder of numbered pictures; or `-` for y4m or raw frames on standard input. Files of y4m and raw frames, and
    /// pictures, need no FFmpeg.
    ///
    /// ```
    /// use rtformer::video::{Options, Source};
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("clip.y4m");
    /// std::fs::write(&path, b"YUV4MPEG2 W1 H1 F10:1 Cmono\nFRAME\n\x10FRAME\n\xeb").unwrap();
    /// let frames: Vec<_> = Source::open(&path, &Options::default())?.collect::<Result<_, _>>()?;
    /// assert_eq!((frames.len(), frames[1].time.as_millis()), (2, 100));
    /// assert_eq!(frames[1].image.get_pixel(0, 0).0, [255; 3]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Read`] if a file cannot be read; [`Error::Video`] if it is not a video, has no frames, or needs FFmpeg and that is not
    /// installed.
    pub fn open(input: &Path, options: &Options) -> Result<Self> {
        let name = input.to_string_lossy().into_owned();
        match kind(input, options)? {
            Kind::Pipe => Self::read(Box::new(stdin()), &name, options),
            Kind::Folder => Self::pictures(pictures::numbered(input)?, options),
            Kind::File => Self::read(Box::new(File::open(input).map_err(Error::reading(input))?), &name, options),
            Kind::Other(format, address) => Self::ffmpeg(&name, format, address, options),
        }
    }

    /// Numbered pictures as a video, sorted by the numbers in their names.
    ///
    /// ```
    /// use rtformer::video::{Options, Source};
    ///
    /// let source = Source::pictures(vec!["tests/data/golden/photo.png".into()], &Options::default())?;
    /// assert_eq!(source.rate().to_string(), "25");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] if there are none.
    pub fn pictures(mut paths: Vec<PathBuf>, options: &Options) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::Input("there are no pictures to read as a video".into()));
        }
        pictures::sort(&mut paths);
        let rate = options.rate.unwrap_or_default();
        let frames = part(pictures::frames(paths, rate), *options);
        Ok(Self::new(Box::new(frames), rate, options).paced(options))
    }

    fn new(frames: Frames, rate: Rate, options: &Options) -> Self {
        let every = options.every.max(1);
        let frames =
            frames.filter(move |frame| frame.as_ref().map_or(true, |frame| (frame.number - 1).is_multiple_of(every)));
        let rate = Rate::new(u64::from(rate.frames), u64::from(rate.seconds).saturating_mul(every)).unwrap_or(rate);
        let live = options.realtime;
        Self { frames: Box::new(frames), rate, time_base: None, range: None, matrix: None, live, audio: None }
    }

    /// y4m or raw frames from a file or standard input.
    fn read(input: Box<dyn Read + Send>, name: &str, options: &Options) -> Result<Self> {
        let Options { raw, range, matrix, .. } = *options;
        let source = if let Some(format) = raw {
            let reader = RawReader::new(input, name, format, range, matrix);
            Self::new(Box::new(part(begun(reader.frames(), name)?, *options)), format.rate, options)
        } else {
            let reader = Y4mReader::new(input, name, range, matrix)?;
            let (rate, colors) = (reader.rate(), reader.colors());
            let frames = part(begun(reader.frames(), name)?, *options);
            let (range, matrix) = (Some(colors.range), Some(colors.matrix));
            Self { range, matrix, ..Self::new(Box::new(frames), rate, options) }
        };
        // Whoever writes to standard input sets the pace.
        Ok(if name == "-" { source } else { source.paced(options) })
    }

    fn ffmpeg(name: &str, format: Option<&str>, address: &str, options: &Options) -> Result<Self> {
        if options.range.is_some() || options.matrix.is_some() {
            return Err(Error::Input(format!(
                "{name}: a range or matrix can be given for y4m and raw frames only; FFmpeg reads those of other videos from the file"
            )));
        }
        let (start, duration) = (options.start, options.duration);
        let live = is_live(format, address);
        let mut reader = FfmpegReader::new(&Input { name, address, format, start, duration, live })?;
        let first = reader.read()?.ok_or_else(|| failure(name, "has no frames"))?;
        let (rate, time_base) = (reader.rate(), reader.time_base());
        let frames = std::iter::once(Ok(first)).chain(reader.frames());
        let source = Self::new(Box::new(frames), rate, options);
        let audio = (!live && format.is_none()).then(|| Audio { address: address.to_owned(), start, duration });
        let source = Self { time_base, audio, live: live || options.realtime, ..source };
        Ok(if live { source } else { source.paced(options) })
    }

    /// Plays a file at its own speed if the options say so.
    fn paced(self, options: &Options) -> Self {
        if !options.realtime {
            return self;
        }
        let mut started = None;
        let frames = self.frames.inspect(move |frame| {
            let Ok(frame) = frame else { return };
            let (now, first) = *started.get_or_insert((Instant::now(), frame.time));
            thread::sleep((now + frame.time.saturating_sub(first)).saturating_duration_since(Instant::now()));
        });
        Self { frames: Box::new(frames), ..self }
    }

    /// The frame rate, after [`Options::every`]. For a variable rate, FFmpeg's estimate.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// The seconds per tick of the video's clock, as a fraction, for [`Encoder`](super::Encoder); `None` if it is that of the rate.
    pub fn time_base(&self) -> Option<(u32, u32)> {
        self.time_base
    }

    /// The range of a y4m video; `None` for other sources.
    pub fn range(&self) -> Option<Range> {
        self.range
    }

    /// The matrix of a y4m video; `None` for other sources.
    pub fn matrix(&self) -> Option<Matrix> {
        self.matrix
    }

    /// Which frames to keep: the newest of a live source, every one of a file.
    pub fn keep(&self) -> Keep {
        if self.live { Keep::Newest } else { Keep::Every }
    }

    /// The sound that belongs to the frames. `None` if there is certainly none.
    pub fn audio(&self) -> Option<&Audio> {
        self.audio.as_ref()
    }
}

impl Iterator for Source {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        self.frames.next()
    }
}

/// Reads the first frame, so that a video without one fails at once.
fn begun(mut frames: impl Iterator<Item = Result<Frame>> + Send + 'static, name: &str) -> Result<Frames> {
    let first = frames.next().ok_or_else(|| failure(name, "has no frames; expected at least one"))??;
    Ok(Box::new(std::iter::once(Ok(first)).chain(frames)))
}

/// The frames between the options' start and end, with numbers and times from the start.
fn part(
    frames: impl Iterator<Item = Result<Frame>> + Send,
    options: Options,
) -> impl Iterator<Item = Result<Frame>> + Send {
    let start = options.start;
    let end = options.duration.map(|duration| start.saturating_add(duration));
    let mut skipped = 0;
    frames
        .take_while(move |frame| frame.as_ref().map_or(true, |frame| end.is_none_or(|end| frame.time < end)))
        .filter_map(move |frame| match frame {
            Ok(frame) if frame.time < start => {
                skipped = frame.number;
                None
            }
            Ok(frame) => {
                Some(Ok(Frame { number: frame.number - skipped, time: frame.time.saturating_sub(start), ..frame }))
            }
            Err(error) => Some(Err(error)),
        })
}

fn kind<'a>(input: &'a Path, options: &Options) -> Result<Kind<'a>> {
    if input == Path::new("-") {
        return Ok(Kind::Pipe);
    }
    if options.raw.is_some() {
        return Ok(Kind::File);
    }
    if input.is_dir() {
        return Ok(Kind::Folder);
    }
    let y4m = input.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("y4m"));
    if input.is_file() || y4m {
        let mut start = Vec::new();
        if input.is_file() {
            let file = File::open(input).map_err(Error::reading(input))?;
            file.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(Error::reading(input))?;
        }
        if y4m || start == MAGIC {
            return Ok(Kind::File);
        }
    }
    let text =
        input.to_str().ok_or_else(|| failure(input, "its name is not Unicode, which FFmpeg needs; rename it"))?;
    if input.metadata().is_ok_and(|found| found.is_file() && found.len() == 0) {
        return Err(failure(input, "is empty; expected a video"));
    }
    if input.exists() {
        let camera = text.starts_with("/dev/video");
        return Ok(Kind::Other(camera.then_some("v4l2"), text));
    }
    if let Some((format, name)) = text.split_once(':')
        && (DEVICES.contains(&format) || format == "lavfi")
    {
        return Ok(Kind::Other(Some(format), name));
    }
    if !text.contains([':', '%']) {
        return Err(File::open(input).map_or_else(Error::reading(input), |_| failure(input, "cannot be read")));
    }
    Ok(Kind::Other(None, text))
}

fn is_live(format: Option<&str>, address: &str) -> bool {
    let protocol = address.split_once("://").map(|(protocol, _)| protocol);
    format.is_some_and(|format| DEVICES.contains(&format)) || protocol.is_some_and(|protocol| LIVE.contains(&protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(options: &Options) -> Vec<(u64, u64)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.y4m");
        let mut bytes = b"YUV4MPEG2 W1 H1 F10:1 Cmono\n".to_vec();
        (0..10).for_each(|n| bytes.extend([b"FRAME\n".as_slice(), &[16 + n]].concat()));
        std::fs::write(&path, bytes).unwrap();
        let frames = Source::open(&path, options).unwrap();
        frames.map(|frame| frame.map(|frame| (frame.number, frame.time.as_millis() as u64)).unwrap()).collect()
    }

    #[test]
    fn a_part_of_a_video_counts_from_its_start() {
        let seconds = |seconds| Duration::from_secs_f64(seconds);
        let all: Vec<_> = (1..=10).map(|n| (n, 100 * (n - 1))).collect();
        assert_eq!(numbers(&Options::default()), all);
        let part = Options { start: seconds(0.3), duration: Some(seconds(0.4)), ..Options::default() };
        assert_eq!(numbers(&part), all[..4]);
        let every = Options { every: 4, ..Options::default() };
        assert_eq!(numbers(&every), [all[0], all[4], all[8]]);
        let both = Options { start: seconds(0.5), every: 4, ..Options::default() };
        assert_eq!(numbers(&both), [(1, 0), (5, 400)]);
        let beyond = Options { start: seconds(5.0), ..Options::default() };
        assert_eq!(numbers(&beyond), []);
    }

    #[test]
    fn live_sources_are_recognized() {
        let cases = [
            (None, "rtsp://camera/1", true),
            (None, "https://host/clip.mp4", false),
            (None, "clip.mp4", false),
            (Some("v4l2"), "/dev/video0", true),
            (Some("lavfi"), "testsrc", false),
        ];
        for (format, address, live) in cases {
            assert_eq!(is_live(format, address), live, "{address}");
        }
    }

    #[test]
    fn a_missing_file_and_an_empty_video_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = |path: &Path| Source::open(path, &Options::default()).err().unwrap().to_string();
        assert!(error(&folder.path().join("none.mp4")).contains("none.mp4: cannot be read"));
        let empty = folder.path().join("empty.y4m");
        std::fs::write(&empty, b"YUV4MPEG2 W4 H4\n").unwrap();
        assert!(error(&empty).contains("empty.y4m: has no frames"));
        assert!(error(folder.path()).contains("has no pictures") || folder.path().join("empty.y4m").exists());
    }
}
