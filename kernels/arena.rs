//! Reuses the memory of feature maps, so that after the first frame of a size nothing is requested from the system.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Lanes;
use crate::pages::Pages;

/// A few regions of memory, each divided into buffers.
///
/// A request takes the smallest sufficient gap of the oldest region that has one. So if the same sequence of requests
/// and returns repeats, each time starting with nothing in use, every buffer gets the same address as before. A second
/// frame therefore needs no more memory than the first.
///
/// ```
/// let arena = rtformer_kernels::Arena::new();
/// let mut map = arena.buffer(100)?; // the contents are unspecified
/// map.fill(rtformer_kernels::Lanes::ZERO);
/// let (map, held) = (map.share(), arena.bytes());
/// let shared = map.clone(); // copies no data
/// drop((map, shared));
/// assert_eq!((arena.buffer(50)?.len(), arena.bytes()), (50, held));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Arena {
    regions: Mutex<Vec<Region>>,
}

#[derive(Debug)]
struct Region {
    memory: Arc<Pages>,
    /// Adjacent spans that cover the whole region; no two neighbours are both free.
    spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    len: usize,
    /// The number of holders: one [`Buffer`], one or more [`SharedBuffer`]s, or 0 if the span is free.
    holders: usize,
}

impl Arena {
    /// An arena that holds no memory yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A buffer of `len` lanes (at least one) with unspecified contents.
    ///
    /// - errors: the system's error if it has no more memory
    pub fn buffer(self: &Arc<Self>, len: usize) -> io::Result<Buffer> {
        let len = len.max(1);
        let mut regions = self.lock();
        let cut = regions.iter_mut().find_map(|region| Some((Arc::clone(&region.memory), region.cut(len)?)));
        let (memory, start) = if let Some(cut) = cut {
            cut
        } else {
            let memory = Arc::new(Pages::whole(len)?);
            let mut region =
                Region { spans: vec![Span { len: memory.len(), holders: 0 }], memory: Arc::clone(&memory) };
            let start = region.cut(len).unwrap_or(0); // The region was chosen or made with at least this length.
            regions.push(region);
            (memory, start)
        };
        Ok(Buffer(Held { arena: Arc::clone(self), memory, start, len }))
    }

    /// Returns all unused regions to the system.
    pub fn release(&self) {
        self.lock().retain(|region| region.spans.iter().any(|span| span.holders > 0));
    }

    /// The total size of all regions in bytes.
    pub fn bytes(&self) -> usize {
        self.lock().iter().map(|region| region.memory.len() * size_of::<Lanes>()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Region>> {
        // Nothing panics while holding the lock except on a failed allocation, which happens before any change. This is
        // not parking_lot's lock, which allocates when a thread first waits: a frame allocates nothing
        // (`tests/allocations.rs`).
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Updates the holder count of a held span with `change` and returns the new count.
    fn hold(&self, held: &Held, change: impl FnOnce(usize) -> usize) -> usize {
        let mut regions = self.lock();
        let Some(region) = regions.iter_mut().find(|region| Arc::ptr_eq(&region.memory, &held.memory)) else {
            return 0; // Unreachable: a region in use is not released.
        };
        let mut start = 0;
        for i in 0..region.spans.len() {
            if start == held.start {
                let holders = change(region.spans[i].holders);
                region.spans[i].holders = holders;
                if holders == 0 {
                    region.join(i);
                }
                return holders;
            }
            start += region.spans[i].len;
        }
        0
    }
}

impl Region {
    /// Takes `len` lanes from the smallest sufficient gap and returns their start.
    fn cut(&mut self, len: usize) -> Option<usize> {
        let (mut start, mut tightest) = (0, None::<(usize, usize)>);
        for (i, span) in self.spans.iter().enumerate() {
            let fits = span.holders == 0 && span.len >= len;
            if fits && tightest.is_none_or(|(other, _)| span.len < self.spans[other].len) {
                tightest = Some((i, start));
            }
            start += span.len;
        }
        let (i, start) = tightest?;
        let rest = self.spans[i].len - len;
        if rest > 0 {
            self.spans.insert(i + 1, Span { len: rest, holders: 0 });
        }
        self.spans[i] = Span { len, holders: 1 };
        Some(start)
    }

    /// Merges the free span `i` with free neighbours.
    fn join(&mut self, i: usize) {
        let free = |span: Option<&Span>| span.is_some_and(|span| span.holders == 0);
        if free(self.spans.get(i + 1)) {
            self.spans[i].len += self.spans.remove(i + 1).len;
        }
        if i > 0 && free(self.spans.get(i - 1)) {
            self.spans[i - 1].len += self.spans.remove(i).len;
        }
    }
}

/// A span in use. Creating it increments the holder count; dropping it decrements the count.
#[derive(Debug)]
struct Held {
    arena: Arc<Arena>,
    memory: Arc<Pages>,
    start: usize,
    len: usize,
}

impl Held {
    #[allow(
        clippy::cast_ptr_alignment,
        reason = "a page, which a region begins at, is aligned to more than a cache line"
    )]
    fn data(&self) -> *mut Lanes {
        debug_assert!(self.start + self.len <= self.memory.len());
        self.memory.as_mut_ptr().wrapping_add(self.start)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.arena.hold(self, |holders| holders.saturating_sub(1));
    }
}

/// Memory with one owner.
#[derive(Debug)]
pub struct Buffer(Held);

impl Buffer {
    /// Converts the buffer into read-only memory that can have several owners.
    pub fn share(self) -> SharedBuffer {
        SharedBuffer(self.0)
    }
}

impl Deref for Buffer {
    type Target = [Lanes];

    fn deref(&self) -> &[Lanes] {
        // SAFETY: the span lies inside the region, which lives as long as `memory`, and any bits are valid lanes. The
        // arena does not hand out a span that has a holder, and this buffer is the only holder.
        unsafe { std::slice::from_raw_parts(self.0.data(), self.0.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [Lanes] {
        // SAFETY: as in `deref`; the exclusive borrow of the only holder passes to the result.
        unsafe { std::slice::from_raw_parts_mut(self.0.data(), self.0.len) }
    }
}

/// Read-only memory with several owners. Cloning shares it.
#[derive(Debug)]
pub struct SharedBuffer(Held);

impl SharedBuffer {
    /// Converts back into a writable buffer if there is no other holder; otherwise returns `self` as the error.
    pub fn unshare(self) -> Result<Buffer, Self> {
        // The count cannot rise meanwhile: only a holder can be cloned, and the only holder is this one.
        if self.0.arena.hold(&self.0, |holders| holders) == 1 { Ok(Buffer(self.0)) } else { Err(self) }
    }
}

impl Clone for SharedBuffer {
    fn clone(&self) -> Self {
        let Held { arena, memory, start, len } = &self.0;
        arena.hold(&self.0, |holders| holders + 1);
        Self(Held { arena: Arc::clone(arena), memory: Arc::clone(memory), start: *start, len: *len })
    }
}

impl Deref for SharedBuffer {
    type Target = [Lanes];

    fn deref(&self) -> &[Lanes] {
        // SAFETY: as in `Buffer::deref`, except that all holders are shared buffers, which only read.
        unsafe { std::slice::from_raw_parts(self.0.data(), self.0.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A random number in `0 .. below`.
    fn random(state: &mut u64, below: usize) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 33) as usize % below
    }

    #[test]
    fn buffers_do_not_overlap() {
        let (arena, mut state) = (Arena::new(), 1);
        let mut held: Vec<(f32, Buffer)> = Vec::new();
        let (steps, most) = if cfg!(miri) { (200, 20) } else { (3000, 5000) };
        for step in 0..steps {
            if held.len() < 20 && random(&mut state, 2) == 0 {
                let mut buffer = arena.buffer(1 + random(&mut state, most)).expect("memory is available");
                buffer.fill(Lanes([step as f32; 16]));
                held.push((step as f32, buffer));
            } else if !held.is_empty() {
                let (value, buffer) = held.swap_remove(random(&mut state, held.len()));
                assert!(buffer.iter().all(|lanes| lanes.0 == [value; 16]));
            }
        }
        drop(held);
        assert!(arena.lock().iter().all(|region| region.spans.len() == 1), "free neighbours are merged");
        arena.release();
        assert_eq!(arena.bytes(), 0);
    }

    #[test]
    fn the_same_requests_get_the_same_addresses() {
        let arena = Arena::new();
        let frame = || {
            let (mut state, mut held, mut places) = (7, Vec::new(), Vec::new());
            for _ in 0..500 {
                if held.len() < 12 && random(&mut state, 5) > 1 {
                    let buffer = arena.buffer(1 + random(&mut state, 40_000)).expect("memory is available");
                    places.push(buffer.as_ptr());
                    held.push(buffer.share());
                } else if !held.is_empty() {
                    held.swap_remove(random(&mut state, held.len()));
                }
            }
            (places, arena.bytes())
        };
        let first = frame();
        assert!(first == frame() && first == frame());
    }

    #[test]
    fn memory_is_written_by_one_and_read_by_many() {
        let arena = Arena::new();
        let mut buffer = arena.buffer(3).expect("memory is available");
        buffer[2] = Lanes([7.0; 16]);
        let one = buffer.share();
        let two = one.clone();
        let one = one.unshare().expect_err("another holder exists");
        assert_eq!((one[2], two[2]), (Lanes([7.0; 16]), Lanes([7.0; 16])));
        drop(two);
        let mut alone = one.unshare().expect("there is no other holder");
        alone[2] = Lanes::ZERO;
        arena.release();
        assert!(arena.bytes() > 0 && alone[2] == Lanes::ZERO, "memory in use is not released");
    }

    #[test]
    fn buffers_outlive_the_arena_and_absurd_lengths_are_errors() {
        let arena = Arena::new();
        for len in [usize::MAX, usize::MAX / 64, isize::MAX as usize / 64] {
            assert!(arena.buffer(len).is_err(), "{len}");
        }
        let buffer = arena.buffer(0).expect("memory is available");
        drop(arena);
        assert_eq!(buffer.len(), 1);
        std::thread::scope(|scope| scope.spawn(move || assert_eq!(buffer[0], Lanes::ZERO)).join())
            .expect("it does not panic");
    }
}
