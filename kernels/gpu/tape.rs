//! Recorded work of a device that has no graphs of its own: a list of what to do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::memories::{Held, Pooled};
use super::{GpuElement, GpuError, Launch};

/// One thing to do.
pub(super) enum Step<M> {
    Launch(OwnedLaunch<M>),
    /// Note the time.
    Stamp(Moment),
}

/// A [`Launch`] that borrows nothing.
pub(super) struct OwnedLaunch<M> {
    pub(super) kernel: &'static str,
    pub(super) element: GpuElement,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    /// Memory, and how many bytes of it are the buffer's.
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

/// Recorded steps, and the memory that they work in.
pub struct Tape<M: Clone> {
    pub(super) steps: Vec<Step<M>>,
    pub(super) _held: Option<Held<M>>,
}

/// When the queue last came by.
#[derive(Clone, Debug, Default)]
pub struct Moment(Arc<Mutex<Option<Instant>>>);

impl Moment {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now.
    pub(super) fn note(&self) {
        *self.lock() = Some(Instant::now());
    }

    /// Milliseconds until `end`.
    pub(super) fn until(&self, end: &Self) -> Result<f64, GpuError> {
        let (Some(begin), Some(end)) = (*self.lock(), *end.lock()) else {
            return Err(GpuError::Driver { call: "between", reason: "the queue has not come by yet".into() });
        };
        Ok(1e3 * end.saturating_duration_since(begin).as_secs_f64())
    }
}
