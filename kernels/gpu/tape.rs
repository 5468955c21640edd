//! Recorded work for devices that have no graphs: a list of steps.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::memories::{Held, Memories, Pooled};
use super::{GpuElement, GpuError, Launch};

/// One step.
pub(super) enum Step<M> {
    Launch(OwnedLaunch<M>),
    /// Record the time.
    Stamp(Moment),
}

/// A [`Launch`] that borrows nothing.
pub(super) struct OwnedLaunch<M> {
    pub(super) kernel: &'static str,
    pub(super) element: GpuElement,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    /// Memory, and how many of its bytes belong to the buffer.
    pub(super) buffers: Vec<(M, usize)>,
    pub(super) params: Vec<u8>,
}

impl<M: Clone> OwnedLaunch<M> {
    pub(super) fn of(launch: &Launch<'_, Pooled<M>>) -> Self {
        Self {
            kernel: launch.kernel,
            element: launch.element,
            grid: launch.grid,
            block: launch.block,
            buffers: launch.buffers.iter().map(|buffer| (buffer.memory().clone(), buffer.len())).collect(),
            params: launch.params.to_vec(),
        }
    }
}

/// Recorded steps, and the memory that they use.
pub struct Tape<M: Clone> {
    pub(super) steps: Vec<Step<M>>,
    pub(super) _held: Option<Held<M>>,
}

/// A queue's memory, and the tape that is being recorded, if any.
pub(super) struct Recorder<M: Clone> {
    pub(super) memories: Memories<M>,
    steps: Mutex<Vec<Step<M>>>,
}

impl<M: Clone> Default for Recorder<M> {
    fn default() -> Self {
        Self { memories: Memories::default(), steps: Mutex::default() }
    }
}

impl<M: Clone> Recorder<M> {
    /// `Ok` unless work is being recorded: recorded work is not running, so nobody can wait for it.
    pub(super) fn may_wait(&self, call: &'static str) -> Result<(), GpuError> {
        if self.memories.is_recording() {
            return Err(GpuError::Driver { call, reason: "not possible while work is being recorded".into() });
        }
        Ok(())
    }

    /// A launch to run now; `None` if it was recorded instead.
    pub(super) fn launch(&self, launch: &Launch<'_, Pooled<M>>) -> Option<OwnedLaunch<M>> {
        let owned = OwnedLaunch::of(launch);
        if !self.memories.is_recording() {
            return Some(owned);
        }
        launch.buffers.iter().for_each(|buffer| self.memories.keep(buffer));
        self.steps.lock().push(Step::Launch(owned));
        None
    }

    /// Records the current time after `now`, or adds a step that will.
    pub(super) fn stamp(&self, now: impl FnOnce() -> Result<(), GpuError>) -> Result<Moment, GpuError> {
        let moment = Moment::default();
        if self.memories.is_recording() {
            self.steps.lock().push(Step::Stamp(moment.clone()));
        } else {
            now()?;
            moment.note();
        }
        Ok(moment)
    }

    /// [`Device::record`](super::Device::record).
    pub(super) fn record<T, E: From<GpuError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<(Tape<M>, T), E> {
        self.may_wait("record")?;
        self.memories.begin_recording();
        let done = work();
        let held = self.memories.end_recording();
        let steps = std::mem::take(&mut *self.steps.lock());
        Ok((Tape { steps, _held: held }, done?))
    }
}

/// When the queue last passed this point.
#[derive(Clone, Debug, Default)]
pub struct Moment(Arc<Mutex<Option<Instant>>>);

impl Moment {
    /// Sets this to the current time.
    pub(super) fn note(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Milliseconds until `end`.
    pub(super) fn until(&self, end: &Self) -> Result<f64, GpuError> {
        let (Some(begin), Some(end)) = (*self.0.lock(), *end.0.lock()) else {
            return Err(GpuError::Driver {
                call: "between",
                reason: "the queue has not reached this point yet".into(),
            });
        };
        Ok(1e3 * end.saturating_duration_since(begin).as_secs_f64())
    }
}
