//! A stream, and memory that is reused in stream order.

use std::sync::Arc;

use cudarc::driver::sys;
use parking_lot::Mutex;

use super::context::Context;
use super::driver::check;
use super::event::CudaStamp;
use super::memory::CudaMemory;
use crate::gpu::GpuError;
use crate::gpu::memories::Memories;

pub(super) struct Queue {
    pub(super) stream: sys::CUstream,
    pub(super) memories: Memories<CudaMemory>,
    /// Stamps of the work being recorded.
    pub(super) stamps: Mutex<Vec<CudaStamp>>,
    pub(super) context: Arc<Context>,
}

// SAFETY: streams are driver handles, which any thread may use; the driver does its own locking.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    pub(super) fn new(context: Arc<Context>) -> Result<Self, GpuError> {
        context.enter()?;
        let (mut stream, flags) = (std::ptr::null_mut(), sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32);
        // SAFETY: the context is current; the call writes one handle, which `drop` destroys.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&raw mut stream, flags) })?;
        Ok(Self { stream, memories: Memories::default(), stamps: Mutex::default(), context })
    }

    /// Waits for all requested work.
    pub(super) fn finish(&self) -> Result<(), GpuError> {
        self.may_wait("finish")?;
        // SAFETY: the stream lives as long as `self`.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream) })
    }

    /// Makes the context current for the calling thread; an error while work is being recorded, because recorded work cannot be waited for.
    pub(super) fn may_wait(&self, call: &'static str) -> Result<(), GpuError> {
        if self.memories.is_recording() {
            return Err(GpuError::Driver { call, reason: "not possible while work is being recorded".into() });
        }
        self.context.enter()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Errors are ignored here: a lost device reports itself to whoever used it. Memory is freed after this has finished.
        let _ = self.finish();
        // SAFETY: it was created in `new`.
        let _ = unsafe { sys::cuStreamDestroy_v2(self.stream) };
    }
}
