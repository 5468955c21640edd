//! What does not survive a fork: threads, and locks that other threads held.
//!
//! A forked child is a copy of its parent with one thread. Threads of the parent, which the child's copy of a thread pool counts
//! on, do not exist there, so waiting for them would never end. Python's `multiprocessing` and `PyTorch`'s `DataLoader` fork.

use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// A value that each process makes for itself.
///
/// The values of a process and its ancestors form a list. There is no lock, because a lock could have been held when the process was
/// forked.
pub(crate) struct PerProcess<T> {
    first: Node<T>,
    /// The place of this process's value in the list, as of the last [`enter`](Self::enter).
    place: AtomicUsize,
}

struct Node<T> {
    process: u32,
    value: Arc<T>,
    /// The value of a forked child.
    child: OnceLock<Box<Node<T>>>,
}

impl<T> PerProcess<T> {
    /// A value for this process.
    pub(crate) fn new(value: T) -> Self {
        Self { first: Node::new(value), place: AtomicUsize::new(0) }
    }

    /// The value of this process, which is made with `make` if this is a forked child's first call.
    pub(crate) fn enter(&self, make: impl FnOnce() -> T) -> &T {
        let process = process::id();
        let (mut last, mut place) = (&self.first, 0);
        while let Some(child) = last.child.get().filter(|_| last.process != process) {
            (last, place) = (child, place + 1);
        }
        if last.process != process {
            last = last.child.get_or_init(|| Box::new(Node::new(make())));
            place += 1;
        }
        self.place.store(place, Ordering::Relaxed);
        &last.value
    }

    /// The value of this process, if [`enter`](Self::enter) was called in it; else that of its parent. Faster than `enter`.
    pub(crate) fn entered(&self) -> &T {
        let mut node = &self.first;
        for _ in 0..self.place.load(Ordering::Relaxed) {
            node = node.child.get().map_or(node, |next| next);
        }
        &node.value
    }
}

impl<T> Node<T> {
    fn new(value: T) -> Self {
        Self { process: process::id(), value: Arc::new(value), child: OnceLock::new() }
    }
}

impl<T> Drop for Node<T> {
    fn drop(&mut self) {
        if self.process != process::id() {
            // Dropping would wait for a lock that a thread of the parent may hold.
            std::mem::forget(Arc::clone(&self.value));
        }
    }
}

/// Runs `work`. Its parallel iterators use rayon's global threads, or in a forked child, where those do not exist, this thread alone.
pub(crate) fn parallel<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if is_forked() && rayon::current_thread_index().is_none() {
        // This thread is from now on the only one of a pool, so this happens once per thread.
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
        if let Ok(alone) = alone {
            return alone.install(work);
        }
    }
    work()
}

/// Whether this process was forked from one that had called this function.
fn is_forked() -> bool {
    static FIRST: OnceLock<u32> = OnceLock::new();
    process::id() != *FIRST.get_or_init(process::id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that another process made. Tests cannot fork without unsafe code; `python/tests` do.
    fn foreign<T>(value: T) -> Node<T> {
        let mut node = Node::new(value);
        node.process = process::id().wrapping_add(1);
        node
    }

    #[test]
    fn a_process_makes_its_value_once() {
        let own = PerProcess::new(1);
        assert_eq!((*own.entered(), *own.enter(|| 2), *own.entered()), (1, 1, 1));

        let inherited = PerProcess { first: foreign(1), place: AtomicUsize::new(0) };
        assert_eq!(*inherited.entered(), 1, "not entered yet");
        assert_eq!(*inherited.enter(|| 2), 2);
        assert_eq!((*inherited.enter(|| 3), *inherited.entered()), (2, 2));

        let grandchild = PerProcess { first: foreign(1), place: AtomicUsize::new(1) };
        assert!(grandchild.first.child.set(Box::new(foreign(2))).is_ok());
        assert_eq!((*grandchild.enter(|| 3), *grandchild.entered()), (3, 3));
    }

    #[test]
    fn only_own_values_are_dropped() {
        let (own, inherited) = (Arc::new(()), Arc::new(()));
        drop(PerProcess::new(Arc::clone(&own)));
        drop(PerProcess { first: foreign(Arc::clone(&inherited)), place: AtomicUsize::new(0) });
        assert_eq!((Arc::strong_count(&own), Arc::strong_count(&inherited)), (1, 2));
    }

    #[test]
    fn a_process_is_not_its_own_fork() {
        assert!(!is_forked() && !is_forked());
        assert_eq!(parallel(|| 7), 7);
    }
}
