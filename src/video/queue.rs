//! The queue between the thread that reads frames and the one that segments them.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;

/// Which frames of a stream are segmented.
///
/// ```
/// assert_eq!(rtformer::video::Keep::default(), rtformer::video::Keep::Every);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Every frame, in order. The reader waits if frames arrive faster than they are segmented.
    #[default]
    Every,
    /// Only the newest frame, so that the lag is bounded. Older frames that wait are dropped and counted.
    Newest,
}

/// A frame, or the error in its place, and when it arrived.
pub(super) struct Arrival<F> {
    pub(super) frame: Result<F>,
    pub(super) at: Instant,
    /// The number of frames that were dropped since the previous arrival was taken.
    pub(super) dropped: u64,
}

/// Holds at most `capacity` frames. If full, it either makes the reader wait or replaces the newest frame that waits.
pub(super) struct Queue<F> {
    keep: Keep,
    capacity: usize,
    state: Mutex<State<F>>,
    changed: Condvar,
}

struct State<F> {
    waiting: VecDeque<Arrival<F>>,
    /// No more frames will be pushed.
    ended: bool,
    /// No more frames will be taken.
    closed: bool,
}

impl<F> Queue<F> {
    /// With [`Keep::Newest`], only one frame waits.
    pub(super) fn new(keep: Keep, capacity: usize) -> Self {
        let capacity = if keep == Keep::Newest { 1 } else { capacity.max(1) };
        let state = State { waiting: VecDeque::new(), ended: false, closed: false };
        Self { keep, capacity, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds what was read. Returns `false` if nobody will take it.
    pub(super) fn push(&self, frame: Result<F>) -> bool {
        let at = Instant::now();
        let mut state = self.state.lock();
        let mut dropped = 0;
        // An error is never replaced.
        if self.keep == Keep::Newest && state.waiting.back().is_some_and(|old| old.frame.is_ok()) {
            dropped = state.waiting.pop_back().map_or(0, |old| old.dropped + 1);
        }
        while self.keep == Keep::Every && state.waiting.len() >= self.capacity && !state.closed {
            self.changed.wait(&mut state);
        }
        if state.closed {
            return false;
        }
        state.waiting.push_back(Arrival { frame, at, dropped });
        self.changed.notify_all();
        true
    }

    /// Takes the oldest arrival; waits for one. `None` at the end.
    pub(super) fn pop(&self) -> Option<Arrival<F>> {
        let mut state = self.state.lock();
        loop {
            if let Some(arrival) = state.waiting.pop_front() {
                self.changed.notify_all();
                return Some(arrival);
            }
            if state.ended || state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Takes the oldest arrival if one is waiting.
    pub(super) fn try_pop(&self) -> Option<Arrival<F>> {
        let arrival = self.state.lock().waiting.pop_front();
        self.changed.notify_all();
        arrival
    }

    /// Ends the stream after the frames that wait.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// Frees the frames that wait; no others will be accepted.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn the_newest_frame_replaces_older_ones_but_no_errors() {
        let queue = Queue::new(Keep::Newest, 7);
        for frame in 0..4 {
            assert!(queue.push(Ok(frame)));
        }
        assert!(queue.push(Err(Error::NoWeights))); // replaces frame 3
        assert!(queue.push(Ok(5)));
        assert!(queue.push(Ok(6)));
        let taken: Vec<_> = std::iter::from_fn(|| queue.try_pop()).map(|a| (a.frame.ok(), a.dropped)).collect();
        assert_eq!(taken, [(None, 4), (Some(6), 1)]);
        queue.end();
        assert!(queue.pop().is_none());
    }

    #[test]
    fn a_full_queue_makes_the_reader_wait_until_it_is_closed() {
        let queue = Queue::new(Keep::Every, 2);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| (0..1000).take_while(|frame| queue.push(Ok(*frame))).count());
            let first: Vec<_> = (0..5).map(|_| queue.pop().unwrap().frame.unwrap()).collect();
            assert_eq!(first, [0, 1, 2, 3, 4]);
            std::thread::sleep(std::time::Duration::from_millis(5));
            assert!(queue.state.lock().waiting.len() <= 2);
            queue.close();
            assert!((5..=8).contains(&reader.join().unwrap()));
        });
        assert!(queue.pop().is_none());
    }
}
