//! Stages that run at the same time, connected by bounded queues, so that only a few photos are in memory.

use std::sync::Arc;
use std::thread::Scope;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Maps over `items` on `workers` threads and returns the results in the order of the items.
///
/// At most `workers + ahead` results are waiting or in progress. A separate thread takes items only when there is room for them. Calls
/// can be chained to build a pipeline.
pub(super) fn ordered<'scope, T: Send + 'scope, R: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    workers: usize,
    ahead: usize,
    items: impl Iterator<Item = T> + Send + 'scope,
    work: impl Fn(T) -> R + Send + Sync + 'scope,
) -> impl Iterator<Item = R> + Send + 'scope {
    let work = Arc::new(work);
    // Each item is sent with a channel for its result. The channels are queued in the order of the items.
    let (queue, queued) = bounded::<(T, Sender<R>)>(0);
    let (line, results) = bounded::<Receiver<R>>(ahead);
    for _ in 0..workers.max(1) {
        let (work, queued) = (Arc::clone(&work), queued.clone());
        scope.spawn(move || {
            for (item, sender) in queued {
                let _ = sender.send(work(item)); // fails if the run was stopped and the receiver is gone
            }
        });
    }
    scope.spawn(move || {
        for item in items {
            let (sender, result) = bounded(1);
            if queue.send((item, sender)).is_err() || line.send(result).is_err() {
                return;
            }
        }
    });
    results.into_iter().filter_map(|result| result.recv().ok())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_order_regardless_of_their_time() {
        for workers in [1, 4] {
            let got: Vec<_> = thread::scope(|scope| {
                let slow_first = |i: u64| {
                    thread::sleep(Duration::from_millis(if i.is_multiple_of(4) { 5 } else { 0 }));
                    i * i
                };
                ordered(scope, workers, 2, 0..40, slow_first).collect()
            });
            assert_eq!(got, (0..40).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn items_are_taken_only_when_there_is_room() {
        let (workers, ahead) = (2, 3);
        let drawn = AtomicUsize::new(0);
        thread::scope(|scope| {
            let items = (0..1000).inspect(|_| {
                drawn.fetch_add(1, Ordering::SeqCst);
            });
            let mut results = ordered(scope, workers, ahead, items, |i| i);
            for taken in 1..=20 {
                results.next();
                thread::sleep(Duration::from_millis(1));
                // One more is in the feeding thread, and one is the result just received.
                assert!(drawn.load(Ordering::SeqCst) <= taken + workers + ahead + 2);
            }
        });
        assert!(drawn.load(Ordering::SeqCst) < 1000, "the pipeline ends if its results are not read");
    }
}
