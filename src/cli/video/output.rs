//! Writes the results of frames: a video, or a folder of masks.

use std::fs;
use std::io::{self, BufWriter, Write, stdout};
use std::path::PathBuf;

use image::{RgbImage, imageops};
use rtformer::pixels::{Palette, render};
use rtformer::video::{Audio, Content, Encoder, Frame, Matrix, Range, Rate, Y4mWriter};
use rtformer::{Error, Scene};

use super::args::Args;
use super::target::{Target, View, mask_path};

/// What is known about the video before its first scene.
pub(super) struct About {
    pub(super) rate: Rate,
    pub(super) time_base: Option<(u32, u32)>,
    pub(super) range: Option<Range>,
    pub(super) matrix: Option<Matrix>,
    pub(super) audio: Option<Audio>,
}

/// The result of writing a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// To this file, if each frame has one.
    To(Option<PathBuf>),
    /// The reader of standard output closed the pipe.
    Closed,
}

/// The output. A video starts with its first frame, which decides its size.
pub(super) struct Output<'a> {
    target: Target<'a>,
    view: View,
    alpha: f32,
    palette: &'a Palette,
    about: About,
    video: Option<Video>,
}

enum Video {
    Y4m(Y4mWriter<BufWriter<Box<dyn Write>>>),
    Encoder(Encoder),
}

impl<'a> Output<'a> {
    pub(super) fn new(args: &'a Args, palette: &'a Palette, about: About) -> Self {
        Self { target: args.target(), view: args.view(), alpha: args.alpha, palette, about, video: None }
    }

    /// Writes a frame and its scene.
    pub(super) fn write(&mut self, frame: &Frame, scene: &Scene) -> rtformer::Result<Written> {
        match self.target {
            Target::None => Ok(Written::To(None)),
            Target::Folder(folder) => {
                let path = mask_path(folder, frame.number);
                scene.save_mask(&path).map(|()| Written::To(Some(path)))
            }
            _ => self.show(frame, scene),
        }
    }

    /// Whether nothing is written except JSON lines.
    pub(super) fn is_none(&self) -> bool {
        self.target == Target::None
    }

    fn show(&mut self, frame: &Frame, scene: &Scene) -> rtformer::Result<Written> {
        let picture = self.picture(frame, scene);
        if self.video.is_none() {
            match self.start(&picture) {
                Ok(video) => self.video = Some(video),
                Err(error) => return closed(error),
            }
        }
        let name = self.name();
        match &mut self.video {
            Some(Video::Encoder(encoder)) => encoder.write(&picture, frame.time)?,
            Some(Video::Y4m(writer)) => {
                if let Err(error) = writer.write(&picture) {
                    return closed(Error::writing(name)(error));
                }
            }
            None => {}
        }
        Ok(Written::To(None))
    }

    fn start(&self, picture: &RgbImage) -> rtformer::Result<Video> {
        let About { rate, time_base, range, matrix, audio } = &self.about;
        let size = picture.dimensions();
        let out: Box<dyn Write> = match self.target {
            Target::Video(path) => {
                let content = if self.view == View::Mask { Content::Masks } else { Content::Photos };
                return Encoder::new(path, size, *rate, *time_base, content, audio.as_ref()).map(Video::Encoder);
            }
            Target::Y4m(path) => Box::new(fs::File::create(path).map_err(Error::writing(path))?),
            _ => Box::new(stdout()),
        };
        // The input's own range and matrix, so that its colours stay the same.
        let matrix = matrix.unwrap_or(Matrix::of_size(size.0, size.1));
        let writer =
            Y4mWriter::new(BufWriter::with_capacity(1 << 16, out), size, *rate, range.unwrap_or_default(), matrix);
        writer.map(Video::Y4m).map_err(Error::writing(self.name()))
    }

    /// What the video shows of a frame.
    fn picture(&self, frame: &Frame, scene: &Scene) -> RgbImage {
        let overlay = |alpha| scene.overlay(frame, alpha);
        match self.view {
            View::Overlay => overlay(self.alpha),
            View::Mask => render::colors(scene.mask(), self.palette),
            View::SideBySide => {
                let (width, height) = frame.image.dimensions();
                let mut both = RgbImage::new(2 * width, height);
                imageops::replace(&mut both, &frame.image, 0, 0);
                imageops::replace(&mut both, &overlay(self.alpha), i64::from(width), 0);
                both
            }
        }
    }

    fn name(&self) -> PathBuf {
        match self.target {
            Target::Y4m(path) | Target::Video(path) | Target::Folder(path) => path.to_owned(),
            Target::None | Target::Stdout => "standard output".into(),
        }
    }

    /// Completes the output.
    pub(super) fn finish(self) -> rtformer::Result<()> {
        match self.video {
            Some(Video::Encoder(encoder)) => encoder.finish(),
            _ => Ok(()), // each frame of y4m was flushed
        }
    }
}

/// Whether the reader closed the pipe, as `head` does.
fn closed(error: Error) -> rtformer::Result<Written> {
    match error {
        Error::Write { cause, .. } if cause.kind() == io::ErrorKind::BrokenPipe => Ok(Written::Closed),
        error => Err(error),
    }
}
