//! Reuse of device memory: after the first frame of a size, a frame allocates nothing.
//!
//! All launches and copies of a queue happen in order. So memory may be given to the next launch before the last launch that used it
//! has run: it will have run by then. Recorded work has its own memory, because it can run again at any later time.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{GpuError, MemoryKind};

/// Allocation sizes are multiples of this, so that maps of similar size share memory.
const GRAIN: usize = 512;

/// Unused allocations, by size. `M` is a handle of device memory; its last clone frees it.
struct Pool<M>(Mutex<BTreeMap<usize, Vec<M>>>);

impl<M> Pool<M> {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// Memory of exactly this size. A frame requests the same sizes as the last one, so a larger allocation would be missed later.
    fn take(&self, room: usize) -> Option<M> {
        self.0.lock().get_mut(&room)?.pop()
    }

    fn give(&self, room: usize, memory: M) {
        self.0.lock().entry(room).or_default().push(memory);
    }

    /// Takes all unused memory.
    fn drain(&self) -> BTreeMap<usize, Vec<M>> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Memory in use; it returns to its pool when its last user drops it.
struct Lease<M: Clone> {
    memory: M,
    room: usize,
    home: Arc<Pool<M>>,
}

impl<M: Clone> Drop for Lease<M> {
    fn drop(&mut self) {
        self.home.give(self.room, self.memory.clone());
    }
}

/// A buffer in reusable memory.
pub struct Pooled<M: Clone> {
    lease: Arc<Lease<M>>,
    len: usize,
}

impl<M: Clone> Pooled<M> {
    /// The number of bytes that were requested.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory(&self) -> &M {
        &self.lease.memory
    }
}

impl<M: Clone> std::fmt::Debug for Pooled<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pooled({} bytes)", self.len)
    }
}

/// The memory of one queue.
pub(super) struct Memories<M: Clone> {
    idle: Arc<Pool<M>>,
    recording: Mutex<Option<Held<M>>>,
}

/// Everything that recorded work holds: its own memory, and the other memory that it uses.
pub(super) struct Held<M: Clone> {
    idle: Arc<Pool<M>>,
    kept: Vec<Arc<Lease<M>>>,
    /// The pool to which everything returns in the end.
    home: Arc<Pool<M>>,
}

impl<M: Clone> Drop for Held<M> {
    fn drop(&mut self) {
        for (room, memories) in self.idle.drain() {
            memories.into_iter().for_each(|memory| self.home.give(room, memory));
        }
    }
}

impl<M: Clone> Default for Memories<M> {
    fn default() -> Self {
        Self { idle: Pool::new(), recording: Mutex::default() }
    }
}

impl<M: Clone> Memories<M> {
    /// A buffer of `len` bytes, in unused memory or in memory that `allocate` makes, as in [`allocated`](Self::allocated).
    pub(super) fn buffer(
        &self,
        len: usize,
        allocate: impl Fn(usize) -> Result<M, GpuError>,
        finish: impl FnOnce() -> Result<(), GpuError>,
    ) -> Result<Pooled<M>, GpuError> {
        let room = len.max(1).checked_next_multiple_of(GRAIN);
        let room = room.ok_or(GpuError::OutOfMemory { memory: MemoryKind::Device, bytes: len, free: None })?;
        let recording = self.recording.lock().as_ref().map(|recording| Arc::clone(&recording.idle));
        let reused = recording.as_ref().and_then(|own| own.take(room)).or_else(|| self.idle.take(room));
        let memory = match reused {
            Some(memory) => memory,
            None => self.allocated(|| allocate(room), finish)?,
        };
        let home = recording.unwrap_or_else(|| Arc::clone(&self.idle));
        Ok(Pooled { lease: Arc::new(Lease { memory, room, home }), len })
    }

    /// The result of `allocate`. If there is no memory left, `finish` waits for the queue, the unused memory of other frame sizes is freed,
    /// and `allocate` is called once more. While work is being recorded there is no retry, because recorded work cannot be waited for.
    pub(super) fn allocated<T>(
        &self,
        allocate: impl Fn() -> Result<T, GpuError>,
        finish: impl FnOnce() -> Result<(), GpuError>,
    ) -> Result<T, GpuError> {
        match allocate() {
            Err(GpuError::OutOfMemory { .. }) if !self.is_recording() => {
                finish()?;
                self.trim();
                allocate()
            }
            done => done,
        }
    }

    /// Frees unused memory; the queue must have finished.
    pub(super) fn trim(&self) {
        drop(self.idle.drain());
    }

    /// From here on, buffers belong to the recording.
    pub(super) fn begin_recording(&self) {
        *self.recording.lock() = Some(Held { idle: Pool::new(), kept: Vec::new(), home: Arc::clone(&self.idle) });
    }

    /// Whether work is being recorded.
    pub(super) fn is_recording(&self) -> bool {
        self.recording.lock().is_some()
    }

    /// Keeps a buffer alive as long as the current recording. The recording's own buffers live that long anyway.
    pub(super) fn keep(&self, buffer: &Pooled<M>) {
        if let Some(recording) = &mut *self.recording.lock()
            && !Arc::ptr_eq(&buffer.lease.home, &recording.idle)
            && !recording.kept.iter().any(|kept| Arc::ptr_eq(kept, &buffer.lease))
        {
            recording.kept.push(Arc::clone(&buffer.lease));
        }
    }

    /// Ends the recording; returns what the work recorded since [`begin_recording`](Self::begin_recording) holds.
    pub(super) fn end_recording(&self) -> Option<Held<M>> {
        self.recording.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory whose clones are counted.
    type Counted = Arc<usize>;

    fn buffer(memories: &Memories<Counted>, len: usize) -> Pooled<Counted> {
        memories.buffer(len, |room| Ok(Arc::new(room)), || Ok(())).unwrap()
    }

    fn at(buffer: &Pooled<Counted>) -> *const usize {
        Arc::as_ptr(buffer.memory())
    }

    #[test]
    fn memory_is_reused_by_exact_size() {
        let memories = Memories::default();
        let (small, large) = (buffer(&memories, 500), buffer(&memories, 1000));
        let (first, second) = (at(&small), at(&large));
        assert_eq!((small.len(), **small.memory(), **large.memory()), (500, 512, 1024));
        drop((small, large));
        assert_eq!((at(&buffer(&memories, 1)), at(&buffer(&memories, 513))), (first, second));
        let (one, two) = (buffer(&memories, 512), buffer(&memories, 512));
        assert!(at(&one) == first && at(&two) != first, "memory in use is not shared");
        assert_ne!(at(&buffer(&memories, 2048)), second, "larger memory is not taken");
    }

    #[test]
    fn recorded_work_has_its_own_memory() {
        let memories = Memories::default();
        let outside = buffer(&memories, 512);
        let kept = at(&outside);
        memories.begin_recording();
        let inside = at(&buffer(&memories, 512));
        assert_eq!(at(&buffer(&memories, 512)), inside, "a recording reuses its own memory");
        memories.keep(&outside);
        let held = memories.end_recording().unwrap();
        drop(outside);
        let (one, two) = (buffer(&memories, 512), buffer(&memories, 512));
        assert!([at(&one), at(&two)].iter().all(|at| ![inside, kept].contains(at)));
        drop((one, two, held));
        let all: Vec<_> = (0..4).map(|_| buffer(&memories, 512)).collect();
        assert!(
            [inside, kept].iter().all(|want| all.iter().any(|buffer| at(buffer) == *want)),
            "it returns to the pool in the end"
        );
    }

    #[test]
    fn unused_memory_is_freed_when_memory_is_short() {
        let memories = Memories::default();
        let idle = Arc::downgrade(buffer(&memories, 512).memory());
        let short = |room| {
            if idle.upgrade().is_some() {
                Err(GpuError::OutOfMemory { memory: MemoryKind::Device, bytes: room, free: None })
            } else {
                Ok(Arc::new(room))
            }
        };
        memories.begin_recording();
        assert!(
            memories.buffer(2048, short, || Ok(())).is_err(),
            "no retry while recording: recorded work cannot be waited for"
        );
        drop(memories.end_recording());
        assert!(memories.buffer(2048, short, || Ok(())).is_ok());
        let idle = Arc::downgrade(buffer(&memories, 512).memory());
        memories.trim();
        assert!(idle.upgrade().is_none());
        assert!(memories.buffer(usize::MAX, |_| Ok(Arc::new(0)), || Ok(())).is_err());

        // If memory of another kind (pinned) runs out, unused device memory is freed too: it may be in the way.
        let idle = Arc::downgrade(buffer(&memories, 512).memory());
        let pinned = || match idle.upgrade() {
            Some(_) => Err(GpuError::OutOfMemory { memory: MemoryKind::Pinned, bytes: 1, free: None }),
            None => Ok(()),
        };
        assert_eq!(memories.allocated(pinned, || Ok(())), Ok(()));
    }
}
