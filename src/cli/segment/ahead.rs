//! Reads objects before they are needed, up to a number of bytes.

use std::collections::VecDeque;

use super::jobs::Job;

/// The maximum number of objects that are read ahead, however small they are.
const MOST: usize = 64;

/// Starts to read the objects among `jobs` early: at most `bytes` bytes, or one object, wait for the next stage. Files and the pictures of
/// a stream are not read early.
pub(super) fn ahead(jobs: impl Iterator<Item = Job> + Send, bytes: u64) -> impl Iterator<Item = Job> + Send {
    let mut jobs = jobs.fuse();
    let mut started: VecDeque<(Job, u64)> = VecDeque::new();
    let mut held = 0;
    let mut next = None;
    std::iter::from_fn(move || {
        while let Some(mut job) = next.take().or_else(|| jobs.next()) {
            let size = job.size();
            let full = started.len() >= MOST || held + size.unwrap_or(0) > bytes;
            if full && !started.is_empty() {
                next = Some(job);
                break;
            }
            job.start();
            held += size.unwrap_or(0);
            started.push_back((job, size.unwrap_or(0)));
            if size.is_none() {
                break;
            }
        }
        let (job, size) = started.pop_front()?;
        held -= size;
        Some(job)
    })
}
