//! `rtformer.Video`: the scenes of a video or a camera.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;
use rtformer::video::{Frame, Options, Scenes, Smoother, Source, Streaming};

use crate::error::{closed, exception};
use crate::frame::Photo;
use crate::scene::Scene;

/// How often the interpreter looks for signals, such as Ctrl-C, while a frame is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// An iterator over the scenes of `Segmenter.video`.
#[pyclass(frozen, module = "rtformer")]
pub(crate) struct Video {
    state: Mutex<State>,
    process: u32,
    fps: f64,
    dropped: AtomicU64,
}

struct State {
    scenes: Scenes<Frame>,
    smoother: Option<Smoother>,
}

impl Video {
    /// Opens the video, and reads its first frame. This happens on a thread of its own, because the first frame of a camera may never come.
    pub(crate) fn open(
        py: Python<'_>,
        segmenter: &Arc<rtformer::Segmenter>,
        input: PathBuf,
        options: Options,
        (smooth, reuse): (Option<f32>, bool),
    ) -> PyResult<Self> {
        let smoother = smooth.map(Smoother::new).transpose().map_err(exception)?;
        let (send, opened) = channel();
        let open = move || {
            // Fails only after a signal, when nobody waits for it.
            let _ = send.send(Source::open(&input, &options));
        };
        let started = thread::Builder::new().name("rtformer-open".into()).spawn(open);
        started.map_err(|_| closed("the system cannot start a thread for the video"))?;
        let opened = Mutex::new(opened);
        let source = loop {
            match py.detach(|| opened.lock().map_or(Err(RecvTimeoutError::Disconnected), |o| o.recv_timeout(LOOK))) {
                Ok(source) => break source.map_err(exception)?,
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(RecvTimeoutError::Disconnected) => return Err(closed("the thread that opens the video has ended")),
            }
        };
        let reuse = reuse.then_some(Smoother::THRESHOLD);
        let (fps, keep) = (source.rate().per_second(), source.keep());
        let state = State { scenes: segmenter.stream(source, Streaming { keep, reuse }), smoother };
        Ok(Self { state: Mutex::new(state), process: std::process::id(), fps, dropped: AtomicU64::new(0) })
    }
}

#[pymethods]
impl Video {
    /// Frames per second, after `every`; an estimate for a variable rate.
    #[getter]
    fn fps(&self) -> f64 {
        self.fps
    }

    /// The number of frames of a live source that were dropped so far.
    #[getter]
    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Scene>> {
        let state = &mut *self.state.try_lock().map_err(|_| closed("the video is already being advanced"))?;
        if self.process != std::process::id() {
            return Err(closed("a video cannot be used in a forked child; open it again there"));
        }
        loop {
            let State { scenes, smoother } = &mut *state;
            let shown = py.detach(|| {
                scenes.next_within(LOOK).map(|shown| {
                    let mut shown = shown?;
                    if let (Ok(shown), Some(smoother)) = (&mut shown, smoother)
                        && let Err(error) = smoother.apply(&shown.frame.image, &mut shown.scene)
                    {
                        return Some(Err(error));
                    }
                    Some(shown)
                })
            });
            match shown {
                Err(_) => py.check_signals()?,
                Ok(None) => return Ok(None),
                Ok(Some(shown)) => {
                    let shown = shown.map_err(exception)?;
                    self.dropped.fetch_add(shown.dropped, Ordering::Relaxed);
                    return Ok(Some(Scene::new(shown.scene, Photo::Frame(shown.frame))));
                }
            }
        }
    }
}
