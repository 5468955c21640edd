//! The threads and the memory of a CPU backend in one process.

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::buffers::Buffers;
use crate::backend::times::Times;

/// What each process has for itself: a forked child has none of its parent's threads, and locks can be held by them.
pub(super) struct Workers {
    /// The reason, if the threads of a forked child cannot be started.
    pool: Result<ThreadPool, String>,
    pub(super) buffers: Buffers,
    pub(super) times: Times,
}

impl Workers {
    /// Starts threads; 0 means one per core. Returns their number.
    pub(super) fn start(threads: usize) -> Result<(Self, usize), String> {
        let pool = pool(threads)?;
        let threads = pool.current_num_threads();
        Ok((Self::of(Ok(pool), threads), threads))
    }

    /// Starts the same number of threads in a forked child. An error is returned by [`ready`](Self::ready).
    pub(super) fn restart(threads: usize) -> Self {
        Self::of(pool(threads), threads)
    }

    fn of(pool: Result<ThreadPool, String>, threads: usize) -> Self {
        Self { pool, buffers: Buffers::new(threads), times: Times::default() }
    }

    /// Whether the threads run.
    pub(super) fn ready(&self) -> Result<(), String> {
        self.pool.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// Runs `work` on the threads; on this one if they are not [`ready`](Self::ready).
    pub(super) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Ok(pool) => pool.install(work),
            Err(_) => work(),
        }
    }

    /// Runs `work` later on the threads; now on this one if they are not [`ready`](Self::ready).
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        match &self.pool {
            Ok(pool) => pool.spawn(work),
            Err(_) => work(),
        }
    }
}

fn pool(threads: usize) -> Result<ThreadPool, String> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("rtformer-{i}")).build();
    pool.map_err(|e| format!("cannot start {threads} threads: {e}; use fewer threads"))
}
