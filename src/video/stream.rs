//! Segments a stream of frames: reading, inference and what the caller does with the scenes run at the same time.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::queue::{Arrival, Keep, Queue};
use super::reuse::Reuse;
use crate::error::{Error, Result};
use crate::pixels::Pixels;
use crate::segmenter::{Scene, Segmenter};

/// A segmented frame.
///
/// ```
/// # use std::sync::Arc;
/// # use rtformer::{Device, Segmenter, video::Keep};
/// # let segmenter = Arc::new(Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?);
/// let frames = (0..3).map(|_| Ok(image::RgbImage::new(64, 48)));
/// let shown = segmenter.stream(frames, Keep::Every).next().unwrap()?;
/// assert_eq!((shown.frame.dimensions(), shown.dropped), ((64, 48), 0));
/// println!("{:.1} ms after the frame arrived", 1e3 * shown.arrived.elapsed().as_secs_f64());
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Shown<F> {
    /// The frame.
    pub frame: F,
    /// Its scene.
    pub scene: Scene,
    /// When the frame had been read.
    pub arrived: Instant,
    /// The number of frames between the previous scene and this one that were dropped; 0 with [`Keep::Every`].
    pub dropped: u64,
    /// Whether the scene is that of an earlier frame, see [`Streaming::reuse`]. Its timings are 0.
    pub reused: bool,
}

/// How a stream is segmented. [`Keep`] alone converts to it.
///
/// ```
/// use rtformer::video::{Keep, Smoother, Streaming};
///
/// let fixed_camera = Streaming { keep: Keep::Newest, reuse: Some(Smoother::THRESHOLD) };
/// assert_eq!(Streaming::from(Keep::Newest), Streaming { reuse: None, ..fixed_camera });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Streaming {
    /// Which frames are segmented.
    pub keep: Keep,
    /// Reuse the scene of the last segmented frame while no block differs from that frame by more than this threshold in grey levels
    /// ([`Changes`](super::Changes)); `None` segments every frame. [`Smoother::THRESHOLD`](super::Smoother::THRESHOLD) is above the noise
    /// of cameras.
    ///
    /// A reused scene equals, bit for bit, the scene of the earlier frame. It differs from the frame's own scene in what changes of the
    /// picture below the threshold would change: pixels that flicker with the noise, and things that are too small or have too little
    /// contrast to change the mean of a block of 8x8 pixels by the threshold.
    pub reuse: Option<f32>,
}

impl From<Keep> for Streaming {
    fn from(keep: Keep) -> Self {
        Self { keep, reuse: None }
    }
}

/// The scenes of a stream, in the order of its frames. See [`Segmenter::stream`].
pub struct Scenes<F> {
    shown: Receiver<Result<Shown<F>>>,
    queue: Arc<Queue<F>>,
}

/// The number of frames, and of scenes, that wait with [`Keep::Every`].
const WAITING: usize = 2;

/// The number of frames that go through the network together on a GPU, where their copies overlap with computation.
const TOGETHER: usize = 8;

impl Segmenter {
    /// Segments the frames of a stream. Frames are read on one thread and segmented on another, so that both overlap with what the caller
    /// does with the scenes. Memory is bounded: with [`Keep::Every`], at most seven frames are read but not yet returned (on GPUs, 26), and
    /// with [`Keep::Newest`], four.
    ///
    /// Each scene is identical, bit for bit, to the result of [`segment`](Self::segment), unless [`Streaming::reuse`] is set. An error takes the place of its frame, and the
    /// stream continues. The stream ends when the frames end. When [`Scenes`] is dropped, no more frames are taken; the thread that reads
    /// them ends after the frame that it waits for.
    ///
    /// Any frame can be used that converts to [`Pixels`] by reference, such as `image::RgbImage` or [`Frame`](super::Frame).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use rtformer::{Device, Segmenter, video::Keep};
    ///
    /// let segmenter = Arc::new(Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?);
    /// let frames = (0..5).map(|level| Ok(image::RgbImage::from_pixel(64, 48, image::Rgb([50 * level; 3]))));
    /// for shown in segmenter.stream(frames, Keep::Every) {
    ///     let shown = shown?;
    ///     assert_eq!(shown.scene.mask(), segmenter.segment(&shown.frame)?.mask());
    /// }
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn stream<F, I>(self: &Arc<Self>, frames: I, how: impl Into<Streaming>) -> Scenes<F>
    where
        F: Send + 'static,
        for<'a> Pixels<'a>: From<&'a F>,
        I: IntoIterator<Item = Result<F>>,
        I::IntoIter: Send + 'static,
    {
        let Streaming { keep, reuse } = how.into();
        let together = if self.device().is_gpu() && keep == Keep::Every { TOGETHER } else { 1 };
        let queue = Arc::new(Queue::new(keep, WAITING.max(together)));
        // With `Newest`, no scene waits: the next frame is taken when the scene is, so that it is still new.
        let (sender, shown) = sync_channel(if keep == Keep::Newest { 0 } else { WAITING.max(together) });
        let (frames, filled) = (frames.into_iter(), Arc::clone(&queue));
        spawn("frames", move || {
            let ending = Ending(&filled);
            for frame in frames {
                if !filled.push(frame) {
                    break;
                }
            }
            drop(ending);
        });
        let (segmenter, taken) = (Arc::clone(self), Arc::clone(&queue));
        spawn("scenes", move || segmenter.segment_arrivals(&taken, together, reuse.map(Reuse::new), &sender));
        Scenes { shown, queue }
    }

    /// Segments what arrives until the queue ends or nobody takes the scenes.
    fn segment_arrivals<F>(
        &self,
        queue: &Queue<F>,
        together: usize,
        mut reuse: Option<Reuse>,
        sender: &SyncSender<Result<Shown<F>>>,
    ) where
        for<'a> Pixels<'a>: From<&'a F>,
    {
        while let Some(first) = queue.pop() {
            let more = std::iter::from_fn(|| queue.try_pop()).take(together - 1);
            let arrivals: Vec<_> = std::iter::once(first).chain(more).collect();
            // The frames that go through the network.
            let mut is_new = |frame: &F| reuse.as_mut().is_none_or(|reuse| reuse.is_new(&frame.into()));
            let new: Vec<_> = arrivals.iter().map(|arrival| arrival.frame.as_ref().is_ok_and(&mut is_new)).collect();
            let read = arrivals.iter().zip(&new).filter(|(_, new)| **new).filter_map(|(a, _)| a.frame.as_ref().ok());
            let mut scenes = self.segment_each(read.map(Pixels::from)).into_iter();
            for (Arrival { frame, at, dropped }, new) in arrivals.into_iter().zip(new) {
                let shown = frame.and_then(|frame| {
                    let earlier = reuse.as_ref().filter(|_| !new).and_then(Reuse::scene);
                    let reused = earlier.is_some();
                    let scene = match earlier {
                        Some(scene) => Ok(scene),
                        None if new => scenes.next().unwrap_or_else(|| Err(missing())),
                        None => self.segment(Pixels::from(&frame)), // the earlier frame failed
                    };
                    if let Some(reuse) = reuse.as_mut().filter(|_| !reused) {
                        reuse.keep(scene.as_ref().ok());
                    }
                    Ok(Shown { frame, scene: scene?, arrived: at, dropped, reused })
                });
                if sender.send(shown).is_err() {
                    return;
                }
            }
        }
    }
}

/// The error for a frame without a scene, which does not happen.
fn missing() -> Error {
    Error::Backend { operation: "stream", reason: "a frame has no scene".into() }
}

impl<F> Scenes<F> {
    /// The next scene if it is ready within `limit`. `Ok(None)` at the end of the stream.
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use rtformer::{Device, Segmenter, video::Keep};
    /// # let segmenter = Arc::new(Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?);
    /// let silent = std::iter::from_fn(|| loop { std::thread::park() });
    /// let mut scenes = segmenter.stream::<image::RgbImage, _>(silent, Keep::Newest);
    /// assert!(scenes.next_within(Duration::from_millis(5)).is_err());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvTimeoutError::Timeout`] if no scene is ready.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Result<Shown<F>>>, RecvTimeoutError> {
        match self.shown.recv_timeout(limit) {
            Ok(shown) => Ok(Some(shown)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(timeout) => Err(timeout),
        }
    }
}

impl<F> Iterator for Scenes<F> {
    type Item = Result<Shown<F>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.shown.recv().ok()
    }
}

impl<F> Drop for Scenes<F> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Ends the queue when the reading thread ends, also if it panics in the caller's iterator.
struct Ending<'a, F>(&'a Queue<F>);

impl<F> Drop for Ending<'_, F> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    // Like `thread::spawn`, this panics if the system cannot start a thread.
    thread::Builder::new().name(name.into()).spawn(work).expect("the system can start a thread");
}
