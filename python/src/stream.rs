//! `rtformer.Stream`: scenes of frames that Python produces one by one.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use pyo3::prelude::*;
use pyo3::types::PyIterator;
use pyo3::{PyTraverseError, PyVisit};
use rtformer::Error;

use crate::channels::Channels;
use crate::error::{closed, exception};
use crate::frame::{Frame, Photo};
use crate::scene::Scene;

/// A decoded frame with its name, or the error.
type Decoded = rtformer::Result<(Photo, PathBuf)>;
/// A segmented frame, or the error.
type Segmented = rtformer::Result<(rtformer::Scene, Photo)>;

/// An iterator over the scenes of `Segmenter.stream`.
#[pyclass(frozen, module = "rtformer")]
pub(crate) struct Stream {
    state: Mutex<State>,
    channels: Channels,
    prefetch: usize,
    return_exceptions: bool,
}

struct State {
    /// `None` after its end.
    frames: Option<Py<PyIterator>>,
    /// The number of frames that were taken.
    taken: usize,
    /// One entry for each frame whose scene was not returned yet, oldest first.
    waiting: VecDeque<Waiting>,
    stages: Stages,
}

enum Waiting {
    /// The stages return its result.
    Submitted,
    /// The frame could not be copied.
    Failed(PyErr),
}

/// Two threads: one decodes, the other runs the network.
struct Stages {
    process: u32,
    submit: Option<Sender<(Frame, PathBuf)>>,
    results: Receiver<Segmented>,
}

impl Stages {
    fn start(segmenter: Arc<rtformer::Segmenter>) -> rtformer::Result<Self> {
        let (submit, submitted) = channel::<(Frame, PathBuf)>();
        // Decoded frames are larger than their files, so only one waits.
        let (forward, decoded): (SyncSender<Decoded>, Receiver<Decoded>) = sync_channel(1);
        let (finish, results) = channel::<Segmented>();
        spawn("decode", move || {
            for (frame, name) in submitted {
                if forward.send(frame.decode().map(|photo| (photo, name))).is_err() {
                    break;
                }
            }
        })?;
        spawn("segment", move || {
            for decoded in decoded {
                let segmented = decoded.and_then(|(photo, name)| {
                    let scene = segmenter.segment(photo.pixels(Some(&name))?)?;
                    Ok((scene, photo))
                });
                if finish.send(segmented).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { process: std::process::id(), submit: Some(submit), results })
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> rtformer::Result<()> {
    let started = thread::Builder::new().name(format!("rtformer-{name}")).spawn(work);
    let reason = |e| format!("cannot start a thread for the stream: {e}");
    started.map(|_| ()).map_err(|e| Error::Device { device: "cpu".into(), reason: reason(e) })
}

impl Stream {
    pub(crate) fn new(
        segmenter: Arc<rtformer::Segmenter>,
        frames: &Bound<'_, PyAny>,
        channels: Channels,
        prefetch: usize,
        return_exceptions: bool,
    ) -> PyResult<Self> {
        let frames = Some(frames.try_iter()?.unbind());
        let stages = Stages::start(segmenter).map_err(exception)?;
        let state = State { frames, taken: 0, waiting: VecDeque::new(), stages };
        Ok(Self { state: Mutex::new(state), channels, prefetch, return_exceptions })
    }

    /// Takes frames until `prefetch` wait behind the one whose scene is next.
    fn refill(&self, py: Python<'_>, state: &mut State) -> PyResult<()> {
        while state.waiting.len() <= self.prefetch {
            let Some(frames) = &state.frames else { break };
            let Some(frame) = frames.bind(py).clone().next() else {
                state.frames = None;
                state.stages.submit = None;
                break;
            };
            // An error of the iterator itself is not a frame's: it ends the stream.
            let frame = frame.inspect_err(|_| (state.frames, state.stages.submit) = (None, None))?;
            let name = PathBuf::from(format!("frame {}", state.taken));
            state.taken += 1;
            let waiting = match Frame::copy(&frame, self.channels) {
                Ok(frame) => match &state.stages.submit {
                    Some(submit) if submit.send((frame, name)).is_ok() => Waiting::Submitted,
                    _ => return Err(closed("the stream's threads have ended")),
                },
                Err(error) => Waiting::Failed(error),
            };
            state.waiting.push_back(waiting);
        }
        Ok(())
    }
}

#[pymethods]
impl Stream {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        // As for a generator: neither another thread nor the frames' own iterator may advance it meanwhile.
        let state = &mut *self.state.try_lock().map_err(|_| closed("the stream is already being advanced"))?;
        if state.stages.process != std::process::id() {
            return Err(closed("a stream cannot be used in a forked child; make a new one there"));
        }
        self.refill(py, state)?;
        let scene = match state.waiting.pop_front() {
            None => return Ok(None),
            Some(Waiting::Failed(error)) => Err(error),
            Some(Waiting::Submitted) => {
                let results = &mut state.stages.results;
                match py.detach(move || results.recv()) {
                    Ok(segmented) => segmented.map(|(scene, photo)| Scene::new(scene, photo)).map_err(exception),
                    Err(_) => return Err(closed("the stream's threads have ended")),
                }
            }
        };
        match scene {
            Ok(scene) => Ok(Some(Py::new(py, scene)?.into_any())),
            Err(error) if self.return_exceptions => Ok(Some(error.into_value(py).into_any())),
            Err(error) => Err(error),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.state.try_lock() {
            Ok(state) => state.frames.as_ref().map_or(Ok(()), |frames| visit.call(frames)),
            Err(_) => Ok(()), // in use, so not garbage
        }
    }

    fn __clear__(&self) {
        if let Ok(mut state) = self.state.try_lock() {
            state.frames = None;
        }
    }
}
