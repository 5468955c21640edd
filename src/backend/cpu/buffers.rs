//! Where the CPU's maps live: buffers that go back to a pool when the last map in them is dropped, so that after the first frame
//! of a size nothing is asked of the allocator for them.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use rtformer_kernels::{Lanes, Layout, Map, MapMut, ShapeError, floats, floats_mut};

/// Buffers that nobody uses.
#[derive(Default)]
pub(super) struct Buffers {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// Feature maps, by length.
    buffers: BTreeMap<usize, Vec<Vec<Lanes>>>,
    /// Kernels' scratch, by length: of the layers, not of the frame.
    scratch: BTreeMap<usize, Vec<Vec<Lanes>>>,
    /// What the maps were made for: the batch and the size of its photos.
    frame: Option<(usize, Layout)>,
}

impl Buffers {
    /// Lets go of the buffers of another size of frame: a folder of photos that all differ would pile them up.
    pub(super) fn begin(&self, count: usize, photo: Layout) {
        if let Ok(mut idle) = self.idle.lock()
            && idle.frame.replace((count, photo)) != Some((count, photo))
        {
            idle.buffers.clear();
        }
    }

    /// Room for `count` maps: halos are zero, the rest is whatever was there before.
    pub(super) fn blank(self: &Arc<Self>, count: usize, layout: Layout) -> Blank {
        // Each image begins on a cache line of its own.
        let stride = layout.len().div_ceil(16);
        let reused =
            self.idle.lock().ok().and_then(|mut idle| idle.buffers.get_mut(&(count * stride)).and_then(Vec::pop));
        let fresh = reused.is_none();
        let memory = reused.unwrap_or_else(|| vec![Lanes::ZERO; count * stride]);
        let mut blank = Blank(Owned { memory, stride, layout, pool: Arc::clone(self) });
        if !fresh {
            for image in blank.images_mut() {
                if let Ok(mut map) = MapMut::new(image, layout) {
                    map.clear_halo();
                }
            }
        }
        blank
    }

    /// Room for a kernel's intermediate results, of unspecified contents.
    pub(super) fn scratch(self: &Arc<Self>, len: usize) -> Scratch {
        let reused = self.idle.lock().ok().and_then(|mut idle| idle.scratch.get_mut(&len).and_then(Vec::pop));
        Scratch { memory: reused.unwrap_or_else(|| vec![Lanes::ZERO; len]), pool: Arc::clone(self) }
    }

    /// The maps to write again: the same memory where nobody else holds it, else a copy.
    pub(super) fn thaw(self: &Arc<Self>, maps: Maps) -> Blank {
        match Arc::try_unwrap(maps.0) {
            Ok(owned) => Blank(owned),
            Err(shared) => {
                let mut copy = self.blank(shared.count(), shared.layout);
                copy.0.memory.copy_from_slice(&shared.memory);
                copy
            }
        }
    }
}

struct Owned {
    memory: Vec<Lanes>,
    /// From an image to the next, in lanes.
    stride: usize,
    layout: Layout,
    pool: Arc<Buffers>,
}

impl Owned {
    fn count(&self) -> usize {
        self.memory.len() / self.stride.max(1)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if let Ok(mut idle) = self.pool.idle.lock() {
            idle.buffers.entry(memory.len()).or_default().push(memory);
        }
    }
}

/// Scratch that goes back to the pool.
pub(super) struct Scratch {
    memory: Vec<Lanes>,
    pool: Arc<Buffers>,
}

impl Deref for Scratch {
    type Target = [Lanes];

    fn deref(&self) -> &[Lanes] {
        &self.memory
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [Lanes] {
        &mut self.memory
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if let Ok(mut idle) = self.pool.idle.lock() {
            idle.scratch.entry(memory.len()).or_default().push(memory);
        }
    }
}

/// A batch of maps that is being written.
pub(super) struct Blank(Owned);

impl Blank {
    pub(super) fn layout(&self) -> Layout {
        self.0.layout
    }

    pub(super) fn images_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        floats_mut(&mut self.0.memory).chunks_exact_mut(16 * self.0.stride)
    }

    /// Done with writing.
    pub(super) fn freeze(self) -> Maps {
        Maps(Arc::new(self.0))
    }
}

/// A batch of maps of one shape, to read. Cloning shares it.
///
/// ```
/// # use rtformer::backend::{Backend, Cpu};
/// # let cpu = Cpu::new(rtformer::backend::Isa::best(), 1)?;
/// let maps = cpu.upload_features(&[1.0; 8], [2, 1, 2, 2])?;
/// let shared = maps.clone(); // no float is copied
/// assert_eq!(cpu.shape(&shared), [2, 1, 2, 2]);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone)]
pub struct Maps(Arc<Owned>);

impl Maps {
    pub(super) fn count(&self) -> usize {
        self.0.count()
    }

    pub(super) fn layout(&self) -> Layout {
        self.0.layout
    }

    pub(super) fn floats(&self, image: usize) -> &[f32] {
        floats(&self.0.memory[image * self.0.stride..][..self.0.stride])
    }

    pub(super) fn image(&self, image: usize) -> Result<Map<'_>, ShapeError> {
        Map::new(self.floats(image), self.layout())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_those_of_another_size_let_go() {
        let (pool, photo) = (Arc::<Buffers>::default(), Layout::planar(3, 8, 8));
        let idle = || pool.idle.lock().unwrap().buffers.values().map(Vec::len).sum::<usize>();
        let map = Layout::blocked(16, 4, 4);
        pool.begin(1, photo);
        let first = pool.blank(1, map).freeze();
        let address = first.floats(0).as_ptr();
        drop(first);
        assert_eq!((idle(), pool.blank(1, map).freeze().floats(0).as_ptr()), (1, address));
        pool.begin(1, photo);
        assert_eq!(idle(), 1, "the same size again");
        pool.begin(2, photo);
        assert_eq!(idle(), 0, "another batch");
    }
}
