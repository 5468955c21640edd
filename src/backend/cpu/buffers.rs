//! The memory of the CPU's maps: buffers from an arena, which return to it when the last map in them is dropped. After the
//! first frame of a size, maps need no memory from the system or the allocator.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rtformer_kernels::{
    Arena, Buffer, CrossKeys, Lanes, Layout, Map, MapMut, ShapeError, SharedBuffer, floats, floats_mut,
};

use super::failure::Failure;
use crate::error::{Error, Result};
use crate::pixels::Columns;

/// The memory of a backend.
pub(super) struct Buffers {
    maps: Arc<Arena>,
    idle: Mutex<Idle>,
    threads: usize,
}

#[derive(Default)]
struct Idle {
    /// The batch size and the photo size of the current maps.
    frame: Option<(usize, Layout)>,
    /// Scratch memory for kernels: one per thread, each of the longest requested length.
    scratch: Vec<Vec<Lanes>>,
    longest: usize,
    /// Packed keys of the attention, one entry per batch.
    keys: Vec<Vec<CrossKeys>>,
    /// Column positions of resized photos.
    columns: Vec<Columns>,
}

impl Buffers {
    pub(super) fn new(threads: usize) -> Self {
        Self { maps: Arena::new(), idle: Mutex::default(), threads }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // Lists of buffers are valid even if another thread panicked. The lock is not parking_lot's, which allocates when a thread first
        // waits: a frame allocates nothing (`tests/allocations.rs`).
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the memory if the frame has another size than the last one: regions for one size waste memory for another.
    pub(super) fn begin(&self, count: usize, photo: Layout) {
        if self.idle().frame.replace((count, photo)) != Some((count, photo)) {
            self.maps.release();
        }
    }

    /// Returns unused memory to the system.
    pub(super) fn release(&self) {
        let mut idle = self.idle();
        (idle.scratch, idle.longest) = (Vec::new(), 0);
        self.maps.release();
    }

    /// Memory for `count` maps. Halos are zero; the rest is unspecified.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn blank(&self, count: usize, layout: Layout) -> Result<Blank> {
        // Each image starts on its own cache line.
        let stride = layout.len().div_ceil(16);
        let mut blank = Blank { memory: buffer(&self.maps, count.saturating_mul(stride))?, stride, layout };
        for image in blank.images_mut() {
            if let Ok(mut map) = MapMut::new(image, layout) {
                map.clear_halo();
            }
        }
        Ok(blank)
    }

    /// Memory of `len` lanes for a kernel's intermediate results; its contents are unspecified.
    pub(super) fn scratch(&self, len: usize) -> Result<Scratch<'_>, Failure> {
        let mut idle = self.idle();
        if idle.longest < len {
            // Allocate for all threads: it is not known which of them needs scratch memory first in a later frame.
            idle.scratch = (0..self.threads).map(|_| lanes(len)).collect::<Result<_, _>>()?;
            idle.longest = len;
        }
        let memory = match idle.scratch.pop() {
            Some(memory) => memory,
            None => lanes(idle.longest)?,
        };
        Ok(Scratch { memory, len, pool: self })
    }

    /// Memory for a resized photo's columns.
    pub(super) fn columns(&self) -> Columns {
        self.idle().columns.pop().unwrap_or_default()
    }

    /// Keeps the memory of columns for the next photo.
    pub(super) fn keep_columns(&self, columns: Columns) {
        self.idle().columns.push(columns);
    }

    /// Memory for the keys of a batch.
    pub(super) fn keys(&self, count: usize) -> Vec<CrossKeys> {
        let mut keys = self.idle().keys.pop().unwrap_or_default();
        keys.resize_with(count, CrossKeys::default);
        keys
    }

    /// Keeps the memory of keys for the next batch.
    pub(super) fn keep_keys(&self, keys: Vec<CrossKeys>) {
        self.idle().keys.push(keys);
    }

    /// Makes maps writable again: in the same memory if it is not shared, else in a copy.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn thaw(&self, maps: Maps) -> Result<Blank> {
        let Maps { memory, stride, layout } = maps;
        match memory.unshare() {
            Ok(memory) => Ok(Blank { memory, stride, layout }),
            Err(shared) => {
                let mut copy = buffer(&self.maps, shared.len())?;
                copy.copy_from_slice(&shared);
                Ok(Blank { memory: copy, stride, layout })
            }
        }
    }
}

fn buffer(arena: &Arc<Arena>, len: usize) -> Result<Buffer> {
    arena.buffer(len).map_err(|_| Error::OutOfMemory {
        what: "a feature map of the network".into(),
        bytes: len.saturating_mul(size_of::<Lanes>()),
    })
}

/// `len` zeroed lanes.
fn lanes(len: usize) -> Result<Vec<Lanes>, Failure> {
    let mut lanes = Vec::new();
    lanes.try_reserve_exact(len).map_err(|_| Failure::Memory(len.saturating_mul(size_of::<Lanes>())))?;
    lanes.resize(len, Lanes::ZERO);
    Ok(lanes)
}

/// Scratch memory that returns to the pool when it is dropped.
pub(super) struct Scratch<'a> {
    memory: Vec<Lanes>,
    /// The requested length in lanes; the memory may be longer.
    len: usize,
    pool: &'a Buffers,
}

impl Deref for Scratch<'_> {
    type Target = [Lanes];

    fn deref(&self) -> &[Lanes] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Scratch<'_> {
    fn deref_mut(&mut self) -> &mut [Lanes] {
        &mut self.memory[..self.len]
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut idle = self.pool.idle();
        if memory.len() == idle.longest {
            idle.scratch.push(memory);
        }
    }
}

/// A batch of maps that is being written.
pub(super) struct Blank {
    memory: Buffer,
    /// Distance from one image to the next, in lanes.
    stride: usize,
    layout: Layout,
}

impl Blank {
    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn images_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        floats_mut(&mut self.memory).chunks_exact_mut(16 * self.stride.max(1))
    }

    /// Finishes writing.
    pub(super) fn freeze(self) -> Maps {
        let Self { memory, stride, layout } = self;
        Maps { memory: memory.share(), stride, layout }
    }
}

/// A batch of maps of one shape, to read. Cloning shares it.
///
/// ```
/// # use rtformer::backend::{Backend, Cpu};
/// # let cpu = Cpu::new(rtformer::backend::Isa::best(), 1)?;
/// let maps = cpu.upload(&[1.0; 8], [2, 1, 2, 2])?;
/// let shared = maps.clone(); // no float is copied
/// assert_eq!(cpu.shape(&shared), [2, 1, 2, 2]);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone)]
pub struct Maps {
    memory: SharedBuffer,
    /// Distance from one image to the next, in lanes.
    stride: usize,
    layout: Layout,
}

impl Maps {
    pub(super) fn count(&self) -> usize {
        self.memory.len() / self.stride.max(1)
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn floats(&self, image: usize) -> &[f32] {
        floats(&self.memory[image * self.stride..][..self.stride])
    }

    pub(super) fn image(&self, image: usize) -> Result<Map<'_>, ShapeError> {
        Map::new(self.floats(image), self.layout())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reused_and_released_for_another_size() {
        let (pool, photo) = (Buffers::new(1), Layout::planar(3, 8, 8));
        let map = Layout::blocked(16, 4, 4);
        pool.begin(1, photo);
        let first = pool.blank(1, map).unwrap().freeze();
        let address = first.floats(0).as_ptr();
        drop(first);
        pool.begin(1, photo);
        assert_eq!(pool.blank(1, map).unwrap().freeze().floats(0).as_ptr(), address, "the same size");
        pool.begin(2, photo);
        assert_eq!(pool.maps.bytes(), 0, "another batch");
    }

    #[test]
    fn shared_maps_are_copied_before_they_are_written() {
        let (pool, map) = (Buffers::new(1), Layout::blocked(16, 2, 2));
        let mut blank = pool.blank(1, map).unwrap();
        let memory = blank.memory.as_ptr();
        blank.images_mut().for_each(|image| image.fill(7.0));
        let one = blank.freeze();
        let shared = one.clone();
        let mut copy = pool.thaw(one).unwrap();
        assert!(copy.memory.as_ptr() != memory && copy.images_mut().all(|image| image.iter().all(|v| *v == 7.0)));
        assert_eq!(pool.thaw(shared).unwrap().memory.as_ptr(), memory, "no longer shared");
    }

    #[test]
    fn scratch_has_the_requested_length_and_keeps_the_longest() {
        let pool = Buffers::new(2);
        let (short, long) = (pool.scratch(10).unwrap(), pool.scratch(20).unwrap());
        assert_eq!((short.len(), long.len()), (10, 20));
        drop((short, long));
        assert_eq!(pool.idle().scratch.iter().map(Vec::len).collect::<Vec<_>>(), [20, 20]);
        let three = [5, 6, 7].map(|len| pool.scratch(len).unwrap());
        assert_eq!(three.each_ref().map(|scratch| scratch.len()), [5, 6, 7], "one more than the threads");
    }
}
