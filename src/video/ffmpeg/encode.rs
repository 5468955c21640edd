//! Writes a video file through `ffmpeg`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use image::RgbImage;

use super::child::Child;
use super::{Abilities, abilities, command, matroska, passthrough};
use crate::error::Result;
use crate::video::colors::Matrix;
use crate::video::failure;
use crate::video::rate::Rate;

/// What the frames show.
///
/// ```
/// assert_ne!(rtformer::video::Content::Photos, rtformer::video::Content::Masks);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Photos, which are compressed as usual.
    Photos,
    /// Classes in their colours, which are compressed without loss, because a changed colour would be another class.
    Masks,
}

/// A file or address whose sound is copied, and the part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audio {
    /// A file or address, as FFmpeg reads it.
    pub address: String,
    /// The time at which the video starts.
    pub start: Duration,
    /// The duration of the video; `None` if it goes on to the end.
    pub duration: Option<Duration>,
}

/// Writes a video file through a child process `ffmpeg`. The ending of the file's name decides the format.
///
/// The file can be played up to the last second even if `ffmpeg` or this program is killed: MP4 files are written in fragments. If an
/// `Encoder` is dropped without [`finish`](Self::finish), `ffmpeg` is killed.
///
/// ```no_run
/// use rtformer::video::{Content, Encoder, Rate};
/// use std::time::Duration;
///
/// let mut video = Encoder::new("out.mp4".as_ref(), (64, 48), Rate::default(), None, Content::Photos, None)?;
/// video.write(&image::RgbImage::new(64, 48), Duration::ZERO)?;
/// video.finish()?;
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct Encoder {
    path: PathBuf,
    size: (u32, u32),
    child: Child,
    frames: Option<BufWriter<ChildStdin>>,
    written: u64,
}

impl Encoder {
    /// Starts `ffmpeg`. Frames have `size` (width, height). `rate` is the usual rate; each frame has its own time, which is rounded to
    /// multiples of `time_base` seconds (a fraction) or, if it is `None`, of the rate's.
    ///
    /// # Errors
    /// [`Error::Video`](crate::Error::Video) if `ffmpeg` is not installed, or if the format cannot store masks without loss.
    pub fn new(
        path: &Path,
        size: (u32, u32),
        rate: Rate,
        time_base: Option<(u32, u32)>,
        content: Content,
        audio: Option<&Audio>,
    ) -> Result<Self> {
        let name = path.to_string_lossy();
        let abilities = abilities(&name)?;
        let mut command = command("level+warning");
        command.args(["-y", "-f", "matroska", "-i", "pipe:0"]);
        if let Some(Audio { address, start, duration }) = audio {
            command.args(["-ss", &format!("{:.6}", start.as_secs_f64())]);
            if let Some(duration) = duration {
                command.args(["-t", &format!("{:.6}", duration.as_secs_f64())]);
            }
            command.args(["-vn", "-sn", "-dn", "-i", address, "-map", "1:a?", "-c:a", "copy"]);
        }
        command.args(["-map", "0:v:0"]);
        command.args(passthrough(abilities));
        let (numerator, denominator) = time_base.unwrap_or((1, rate.frames));
        command.args(["-enc_time_base:v", &format!("{numerator}/{denominator}")]);
        format(&mut command, path, size, rate, content, abilities)?;
        // A leading `-` would be a flag, and a colon a protocol.
        command.arg(format!("file:{name}")).stdin(Stdio::piped()).stdout(Stdio::null());
        let (child, stdin, _) = Child::start(&mut command, &name, |_| false)?;
        let stdin = stdin.ok_or_else(|| failure(path, "`ffmpeg` has no standard input"))?;
        let mut encoder = Self { path: path.to_owned(), size, child, frames: Some(BufWriter::new(stdin)), written: 0 };
        encoder.send(|out| matroska::header(out, size, rate))?;
        Ok(encoder)
    }

    /// Writes a frame that is shown at `time`, which must be later than that of the frame before it.
    ///
    /// # Errors
    /// [`Error::Video`](crate::Error::Video) if the frame has another size, or if `ffmpeg` has ended.
    pub fn write(&mut self, frame: &RgbImage, time: Duration) -> Result<()> {
        if frame.dimensions() != self.size {
            let ((width, height), (w, h)) = (frame.dimensions(), self.size);
            let reason = format!(
                "a frame has {width}x{height} pixels, but the video started with {w}x{h}; scale the frames, or write masks to a folder"
            );
            return Err(failure(&self.path, reason));
        }
        self.send(|out| matroska::frame(out, frame, time).and_then(|()| out.flush()))?;
        self.written += 1;
        Ok(())
    }

    fn send(&mut self, write: impl FnOnce(&mut BufWriter<ChildStdin>) -> std::io::Result<()>) -> Result<()> {
        let Some(out) = &mut self.frames else { return Err(failure(&self.path, "is finished")) };
        match write(out) {
            Ok(()) => Ok(()),
            Err(error) => {
                let how = self.close().err().unwrap_or_else(|| format!("ended early: {error}"));
                Err(failure(&self.path, format!("ffmpeg {how}, after {} frames were sent to it", self.written)))
            }
        }
    }

    /// Closes the child's input and waits for it.
    fn close(&mut self) -> std::result::Result<(), String> {
        let frames = self.frames.take();
        // `into_parts` closes the pipe without writing to it again.
        drop(frames.map(BufWriter::into_parts));
        self.child.finish()
    }

    /// Completes the file.
    ///
    /// # Errors
    /// [`Error::Video`](crate::Error::Video) with the messages of `ffmpeg` if it failed.
    pub fn finish(mut self) -> Result<()> {
        self.close().map_err(|how| failure(&self.path, format!("ffmpeg {how}; the file may be incomplete")))
    }
}

/// Chooses codecs and settings.
fn format(
    command: &mut Command,
    path: &Path,
    (width, height): (u32, u32),
    rate: Rate,
    content: Content,
    abilities: &Abilities,
) -> Result<()> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    let fragments = matches!(ending.as_str(), "mp4" | "m4v" | "mov");
    match (content, ending.as_str()) {
        (Content::Masks, "mkv" | "avi" | "nut") => {
            command.args(["-c:v", "ffv1", "-level", "3", "-pix_fmt", "bgr0"]);
        }
        (Content::Masks, "mp4" | "m4v" | "mov") if abilities.x264 => {
            command.args(["-c:v", "libx264rgb", "-preset", "veryfast", "-qp", "0", "-pix_fmt", "rgb24"]);
        }
        (Content::Masks, "webm") => {
            command.args([
                "-c:v",
                "libvpx-vp9",
                "-lossless",
                "1",
                "-pix_fmt",
                "gbrp",
                "-deadline",
                "realtime",
                "-cpu-used",
                "5",
            ]);
        }
        (Content::Masks, _) => {
            let reason =
                format!("masks must be stored without loss, and this ffmpeg cannot do so in .{ending}; use .mkv");
            return Err(failure(path, reason));
        }
        (Content::Photos, _) => {
            // Players guess the matrix of a video that does not name it, so the file names it.
            let (matrix, name) = match Matrix::of_size(width, height) {
                Matrix::Bt601 => ("bt601", "smpte170m"),
                Matrix::Bt709 => ("bt709", "bt709"),
            };
            command.args([
                "-vf",
                &format!("scale=out_color_matrix={matrix}:out_range=tv:flags=accurate_rnd+full_chroma_int"),
            ]);
            command.args(["-colorspace", name, "-color_primaries", name, "-color_trc", name, "-color_range", "tv"]);
            match ending.as_str() {
                "mp4" | "m4v" | "mov" | "mkv" if abilities.x264 => {
                    // 4:2:0 needs even sides.
                    let even = width.is_multiple_of(2) && height.is_multiple_of(2);
                    let pixels = if even { "yuv420p" } else { "yuv444p" };
                    command.args(["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", pixels]);
                }
                "webm" => {
                    command.args([
                        "-c:v",
                        "libvpx-vp9",
                        "-crf",
                        "24",
                        "-b:v",
                        "0",
                        "-deadline",
                        "realtime",
                        "-cpu-used",
                        "5",
                    ]);
                    command.args(["-pix_fmt", "yuv420p"]);
                }
                _ => {
                    command.args(["-q:v", "3"]); // FFmpeg's default codec of the format
                }
            }
        }
    }
    // At least one keyframe per second, at which a fragment starts. Without B-frames, the first frame's time stays 0.
    let second = rate.per_second().ceil().clamp(1.0, 600.0);
    command.args(["-g", &format!("{second}"), "-bf", "0", "-flush_packets", "1"]);
    if fragments {
        command.args(["-movflags", "+frag_keyframe+empty_moov+default_base_moof"]);
    }
    if ending == "mkv" {
        command.args(["-cluster_time_limit", "1000"]);
    }
    Ok(())
}
