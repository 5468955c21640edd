//! Device memory that is used again: after the first frame of a size, a frame allocates nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUresult};

use super::driver::check;
use super::{Context, Memory};
use crate::gpu::GpuError;

/// Rooms are multiples of this, so that maps of nearly one size share them.
const GRAIN: usize = 512;

/// What was allocated and is not in use, by size.
///
/// All launches and copies of a device are in one stream, so memory may be given to the next launch while the last one that used
/// it is still to run: it will have run before.
#[derive(Default)]
pub(super) struct Pool {
    free: Mutex<BTreeMap<usize, Vec<Memory>>>,
}

/// Device memory; goes back to its pool when it is dropped.
pub struct CudaBuffer {
    context: Arc<Context>,
    at: Memory,
    room: usize,
    len: usize,
}

impl CudaBuffer {
    /// Memory of at least `len` bytes.
    pub(super) fn new(context: &Arc<Context>, len: usize) -> Result<Self, GpuError> {
        let room = len.max(1).next_multiple_of(GRAIN);
        let reused = context.pool.take(room);
        let at = match reused {
            Some(at) => at,
            None => context.allocate(room)?,
        };
        Ok(Self { context: Arc::clone(context), at, room, len })
    }

    /// How many bytes were asked for.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn at(&self) -> Memory {
        self.at
    }

    /// Whether it is memory of this device.
    pub(super) fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        self.context.pool.give(self.room, self.at);
    }
}

impl std::fmt::Debug for CudaBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CudaBuffer({} bytes)", self.len)
    }
}

impl Pool {
    /// Memory of that very size: a frame asks for the sizes of the last one, so anything larger would be missed later.
    fn take(&self, room: usize) -> Option<Memory> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&room)?.pop()
    }

    fn give(&self, room: usize, at: Memory) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).entry(room).or_default().push(at);
    }

    /// All that is not in use.
    pub(super) fn drain(&self) -> Vec<Memory> {
        let free = std::mem::take(&mut *self.free.lock().unwrap_or_else(PoisonError::into_inner));
        free.into_values().flatten().collect()
    }
}

impl Context {
    /// New memory. When there is none left, what frames of other sizes used is freed first.
    fn allocate(&self, bytes: usize) -> Result<Memory, GpuError> {
        self.enter()?;
        match try_allocate(bytes) {
            Err(CUresult::CUDA_ERROR_OUT_OF_MEMORY) => {}
            other => return other.or_else(|code| check("cuMemAlloc", code).map(|()| 0)),
        }
        self.finish()?;
        for memory in self.pool.drain() {
            // SAFETY: `cuMemAlloc` gave it, nobody holds it, and the stream has no more work that uses it.
            check("cuMemFree", unsafe { sys::cuMemFree_v2(memory) })?;
        }
        try_allocate(bytes).or_else(|code| {
            let (mut free, mut total) = (0, 0);
            // SAFETY: the call writes two sizes.
            let known = unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) } == CUresult::CUDA_SUCCESS;
            match code {
                CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(GpuError::OutOfMemory { bytes, free: known.then_some(free) }),
                other => check("cuMemAlloc", other).map(|()| 0),
            }
        })
    }
}

/// New memory of the current context, or the driver's code.
fn try_allocate(bytes: usize) -> Result<Memory, CUresult> {
    let mut at = 0;
    // SAFETY: the call writes one address; the context is current.
    match unsafe { sys::cuMemAlloc_v2(&raw mut at, bytes) } {
        CUresult::CUDA_SUCCESS => Ok(at),
        code => Err(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found_again_by_its_size_alone() {
        let pool = Pool::default();
        pool.give(512, 1);
        pool.give(1024, 2);
        pool.give(512, 3);
        assert_eq!((pool.take(512), pool.take(512), pool.take(512)), (Some(3), Some(1), None));
        assert_eq!((pool.take(2048), pool.drain(), pool.take(1024)), (None, vec![2], None));
    }
}
