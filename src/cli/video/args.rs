//! The flags of `video`, and which of them can be combined.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rtformer::Size;
use rtformer::video::{Matrix, Options, Range, Rate, RawFormat};

use super::super::misuse;
use super::super::model::{DeviceArgs, ModelArgs, strength};
use super::target::{Target, View, first_mask};

/// Segment a video or a camera, and write a video, masks or JSON lines
///
/// Every frame of a file is segmented, in order, in constant memory. Of a camera, or with --realtime, only the newest frame is kept, so
/// that the lag does not grow.
///
/// y4m, raw frames and pictures are read directly; other videos, and video files to write, need the program ffmpeg.
///
/// Examples:
/// rtformer video street.mp4 -o overlay.mp4;
/// rtformer video rtsp://camera/1 --json;
/// ffmpeg -i street.mp4 -f yuv4mpegpipe - | rtformer video - -o - | ffplay -
#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// Video: a file or an address that FFmpeg reads (rtsp://…); a device as FORMAT:NAME, such as v4l2:/dev/video0; a folder or a glob of
    /// numbered pictures; or `-` for y4m on standard input
    #[arg(value_name = "INPUT")]
    pub(super) input: PathBuf,

    /// Output: a video file (.mp4, .mkv, …; the sound is copied); a folder, which gets the mask of each frame (000001.mask.png, …); or `-`
    /// for y4m on standard output
    #[arg(short, long, value_name = "OUTPUT|-", required_unless_present = "json")]
    pub(super) out: Option<PathBuf>,

    /// What a video shows: overlay (the frame, tinted with its classes' colours), mask (the colours alone, without loss), or side-by-side
    /// (the frame and the overlay) [default: overlay]
    #[arg(long, value_name = "VIEW")]
    pub(super) view: Option<View>,

    /// Opacity of the classes' colours in the overlay, 0 to 1
    #[arg(long, value_name = "ALPHA", default_value_t = 0.5, value_parser = fraction)]
    pub(super) alpha: f32,

    /// Segment only every Nth frame
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) every: u64,

    /// Skip the first part of the video, up to T (seconds, or [HH:]MM:SS)
    #[arg(long, value_name = "T", default_value = "0", value_parser = time)]
    pub(super) start: Duration,

    /// Stop after T (seconds, or [HH:]MM:SS) [default: to the end]
    #[arg(long, value_name = "T", value_parser = time)]
    pub(super) duration: Option<Duration>,

    /// Size in pixels at which the network sees a frame: native (the frame's size), WxH (exactly), or within:WxH (the largest that fits in
    /// either orientation, with the frame's proportions); masks keep the frame's size
    #[arg(long, value_name = "SIZE", default_value = "native")]
    pub(super) size: Size,

    /// Average over time where the picture does not change, so that masks flicker less: 0 (not at all) to below 1 (the weight of the past)
    #[arg(long, value_name = "S", value_parser = strength)]
    pub(super) smooth: Option<f32>,

    /// Keep the last result while no block of 8x8 pixels changes by more than 6 grey levels on average, so that a fixed camera costs nothing
    /// while nothing moves
    #[arg(long)]
    pub(super) reuse: bool,

    /// Keep only the newest frame, and play files at their own speed; dropped frames are counted [default: for cameras only]
    #[arg(long)]
    pub(super) realtime: bool,

    /// Print one line with a JSON object per frame on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// The input has raw frames without a header, in one of the formats rgb24, bgr24, nv12 and yuv420p
    #[arg(long, value_name = "WxH:FORMAT@FPS")]
    pub(super) raw: Option<RawFormat>,

    /// Frames per second of numbered pictures [default: 25]
    #[arg(long, value_name = "FPS", conflicts_with = "raw")]
    pub(super) fps: Option<Rate>,

    /// Range of YUV frames: limited or full [default: what y4m says; limited if it says nothing]
    #[arg(long, value_name = "RANGE")]
    pub(super) range: Option<Range>,

    /// Matrix of YUV frames: bt601 or bt709 [default: bt709 from 1280 pixels of width or 577 of height, bt601 below]
    #[arg(long, value_name = "MATRIX")]
    pub(super) matrix: Option<Matrix>,

    /// Replace outputs that exist. Without this flag, an existing output is an error
    #[arg(long)]
    pub(super) overwrite: bool,

    #[command(flatten)]
    pub(super) model: ModelArgs,
}

fn fraction(text: &str) -> Result<f32, String> {
    let value = text.parse::<f32>().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| format!("`{text}` is not a number from 0 to 1"))
}

/// Seconds, `MM:SS` or `HH:MM:SS`, with decimals.
fn time(text: &str) -> Result<Duration, String> {
    let parts: Vec<_> = text.split(':').collect();
    let numbers: Option<Vec<f64>> = parts
        .iter()
        .map(|part| part.parse().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')))
        .collect();
    let seconds =
        numbers.filter(|numbers| numbers.len() <= 3).map(|numbers| numbers.iter().fold(0.0, |sum, n| 60.0 * sum + n));
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| format!("`{text}` is not a time; expected seconds, MM:SS or HH:MM:SS"))
}

impl Args {
    pub(in super::super) fn device(&self) -> &DeviceArgs {
        &self.model.device
    }

    /// How the input is read.
    pub(super) fn options(&self) -> Options {
        Options {
            raw: self.raw,
            start: self.start,
            duration: self.duration,
            every: self.every,
            rate: self.fps,
            range: self.range,
            matrix: self.matrix,
            realtime: self.realtime,
        }
    }

    pub(super) fn target(&self) -> Target<'_> {
        let Some(out) = self.out.as_deref() else { return Target::None };
        if out == Path::new("-") {
            return Target::Stdout;
        }
        let ending = out.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            _ if out.is_dir() || out.to_string_lossy().ends_with(['/', std::path::MAIN_SEPARATOR]) => {
                Target::Folder(out)
            }
            None => Target::Folder(out),
            Some("y4m") => Target::Y4m(out),
            Some(_) => Target::Video(out),
        }
    }

    pub(super) fn view(&self) -> View {
        self.view.unwrap_or(View::Overlay)
    }

    /// Rejects flags that contradict each other, and outputs that exist.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let target = self.target();
        if target == Target::Stdout && self.json {
            return Err(misuse("-o - and --json both write to standard output"));
        }
        if matches!(target, Target::Folder(_) | Target::None) && self.view.is_some() {
            return Err(misuse(
                "--view is for videos, but no video is written; name one with -o, such as out.mp4 or -",
            ));
        }
        let existing = match target {
            Target::Y4m(path) | Target::Video(path) if path.exists() => Some(path.to_owned()),
            Target::Folder(path) => first_mask(path),
            _ => None,
        };
        match existing {
            Some(path) if !self.overwrite => {
                Err(misuse(format!("{} exists already; use --overwrite to replace it", path.display())))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed() {
        let cases = [
            ("0", Some(0.0)),
            ("1.5", Some(1.5)),
            ("01:02", Some(62.0)),
            ("1:00:00.25", Some(3600.25)),
            ("-1", None),
            ("1e3", None),
            ("inf", None),
            ("", None),
            ("1:2:3:4", None),
            ("99999999999999999999999", None),
        ];
        for (text, want) in cases {
            assert_eq!(time(text).ok().map(|time| time.as_secs_f64()), want, "{text}");
        }
    }
}
