//! Videos and cameras: frames in, scenes out.
//!
//! [`Source`] reads a video: y4m, raw frames and numbered pictures by itself, and everything else through a child process `ffmpeg`, which
//! need not be installed unless it is used. [`Segmenter::stream`](crate::Segmenter::stream) segments its frames, or those of any
//! iterator, while others are decoded and encoded. [`Y4mWriter`] and [`Encoder`] write videos.
//!
//! Files and live sources differ in one thing: every frame of a file is processed ([`Keep::Every`]), but only the newest frame of a
//! live source ([`Keep::Newest`]), so that the lag does not grow if frames arrive faster than they are segmented.
//!
//! ```no_run
//! use std::sync::Arc;
//! use rtformer::video::{Options, Source};
//! use rtformer::{Device, Segmenter};
//!
//! # fn main() -> rtformer::Result<()> {
//! let segmenter = Arc::new(Segmenter::embedded(Device::auto())?);
//! let source = Source::open("street.mp4".as_ref(), &Options::default())?;
//! let keep = source.keep();
//! for shown in segmenter.stream(source, keep) {
//!     let shown = shown?;
//!     println!("{:.2?}: {} classes", shown.frame.time, shown.scene.classes().len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Smoother`] averages logits over time where the picture does not change, [`Streaming::reuse`] keeps a result while nothing changes, and
//! [`FlipCounter`] measures how much masks flicker. The first two are built on [`Changes`], the map of the blocks that changed.

mod changes;
#[cfg(feature = "video")]
mod colors;
#[cfg(feature = "video")]
mod ffmpeg;
mod flips;
#[cfg(feature = "video")]
mod pictures;
mod queue;
#[cfg(feature = "video")]
mod rate;
#[cfg(feature = "video")]
mod raw;
mod reuse;
mod smooth;
#[cfg(feature = "video")]
mod source;
mod stream;
#[cfg(feature = "video")]
mod y4m;

use std::path::PathBuf;
use std::time::Duration;

use image::RgbImage;

pub use changes::Changes;
#[cfg(feature = "video")]
pub use colors::{Matrix, Range};
#[cfg(feature = "video")]
pub use ffmpeg::{Audio, Content, Encoder, stop_children};
pub use flips::FlipCounter;
#[cfg(feature = "video")]
pub use pictures::numbered;
pub use queue::Keep;
#[cfg(feature = "video")]
pub use rate::Rate;
#[cfg(feature = "video")]
pub use raw::{RawFormat, RawLayout};
pub use smooth::Smoother;
#[cfg(feature = "video")]
pub use source::{Options, Source};
pub use stream::{Scenes, Shown, Streaming};
#[cfg(feature = "video")]
pub use y4m::Y4mWriter;

#[cfg(feature = "video")]
use crate::error::{Error, Result};
use crate::pixels::Pixels;

/// A frame of a video.
///
/// ```
/// use rtformer::pixels::Pixels;
/// use rtformer::video::Frame;
///
/// let frame = Frame::new(image::RgbImage::new(64, 48), 1, std::time::Duration::ZERO, "street.mp4");
/// assert_eq!(Pixels::from(&frame).name(), Some("street.mp4, frame 1".as_ref()));
/// ```
#[derive(Clone, Debug)]
pub struct Frame {
    /// The pixels, upright.
    pub image: RgbImage,
    /// The number of the frame in its source, from 1.
    pub number: u64,
    /// The time at which the frame is shown, from the start of the video.
    pub time: Duration,
    /// The frame's name in errors.
    pub name: PathBuf,
}

impl Frame {
    /// A frame of the video `video`.
    pub fn new(image: RgbImage, number: u64, time: Duration, video: &str) -> Self {
        Self { image, number, time, name: format!("{video}, frame {number}").into() }
    }
}

impl<'a> From<&'a Frame> for Pixels<'a> {
    fn from(frame: &'a Frame) -> Self {
        Pixels::from(&frame.image).named(&frame.name)
    }
}

/// An iterator over what `read` returns, up to its end or first error.
#[cfg(feature = "video")]
fn until_error(mut read: impl FnMut() -> Result<Option<Frame>>) -> impl Iterator<Item = Result<Frame>> {
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let frame = read().transpose();
        ended = !matches!(frame, Some(Ok(_)));
        frame
    })
}

/// An [`Error::Video`].
#[cfg(feature = "video")]
fn failure(video: impl Into<PathBuf>, reason: impl Into<String>) -> Error {
    Error::Video { path: video.into(), reason: reason.into() }
}
