//! Records the time of each operation while a profile is on, for all backends.

use std::time::Instant;

use parking_lot::Mutex;

use super::OpTime;
use crate::timing::milliseconds;

/// The recorded times; `None` while no profile is on.
#[derive(Debug, Default)]
pub(super) struct Times(Mutex<Option<Vec<OpTime>>>);

impl Times {
    /// Starts (`true`) or stops recording; returns what was recorded so far.
    pub(super) fn record(&self, on: bool) -> Vec<OpTime> {
        std::mem::replace(&mut *self.0.lock(), on.then(Vec::new)).unwrap_or_default()
    }

    /// Runs `work` and records its duration, if a profile is on and `work` succeeds.
    pub(super) fn timed<T, E>(&self, name: &str, flops: f64, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let start = Instant::now();
        let done = work()?;
        if let Some(times) = &mut *self.0.lock() {
            times.push(OpTime {
                name: name.to_owned(),
                milliseconds: milliseconds(start.elapsed()),
                flops,
                bytes: 0.0,
            });
        }
        Ok(done)
    }
}
