//! Each operation's time, as every backend notes it when a profile is on.

use std::time::Instant;

use parking_lot::Mutex;

use super::OpTime;
use crate::timing::milliseconds;

/// What was noted so far; nothing while no profile is on.
#[derive(Debug, Default)]
pub(super) struct Times(Mutex<Option<Vec<OpTime>>>);

impl Times {
    /// Begins (`true`) or ends to record; what was recorded so far.
    pub(super) fn record(&self, on: bool) -> Vec<OpTime> {
        std::mem::replace(&mut *self.0.lock(), on.then(Vec::new)).unwrap_or_default()
    }

    /// Notes how long `work` took, when a profile is on and it succeeds.
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
