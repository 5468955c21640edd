//! Memory that the driver allocates: on the device, pinned on the host, and both together.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use super::context::Context;
use super::driver::check;
use crate::gpu::memories::Pooled;
use crate::gpu::{GpuError, MemoryKind};

/// Device memory.
pub type CudaBuffer = Pooled<CudaMemory>;

/// Memory on the device; the last clone frees it.
#[derive(Clone)]
pub struct CudaMemory(Arc<Allocation>);

struct Allocation {
    context: Arc<Context>,
    at: sys::CUdeviceptr,
}

impl CudaMemory {
    /// Allocates memory.
    ///
    /// - errors: [`GpuError::OutOfMemory`] with the free memory, or any other error of the driver
    pub(super) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, GpuError> {
        context.enter()?;
        let mut at = 0;
        // SAFETY: the call writes one address; the context is current.
        match unsafe { sys::cuMemAlloc_v2(&raw mut at, bytes) } {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(GpuError::OutOfMemory { memory: MemoryKind::Device, bytes, free: free() })
            }
            code => check("cuMemAlloc", code).map(|()| Self(Arc::new(Allocation { context: Arc::clone(context), at }))),
        }
    }

    pub(super) fn at(&self) -> sys::CUdeviceptr {
        self.0.at
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.0.context
    }
}

/// The free memory of the current context's device, if the driver reports it.
fn free() -> Option<usize> {
    let (mut free, mut total) = (0, 0);
    // SAFETY: the call writes two sizes.
    let code = unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) };
    (code == CUresult::CUDA_SUCCESS).then_some(free)
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // Errors are ignored here: a lost device reports itself to whoever used it.
        if self.context.enter().is_ok() {
            // SAFETY: `cuMemAlloc` allocated it, and nobody holds it; queues finish before they release their memory.
            let _ = unsafe { sys::cuMemFree_v2(self.at) };
        }
    }
}

/// Host memory that the device copies from and to asynchronously.
pub(super) struct Pinned {
    context: Arc<Context>,
    at: NonNull<c_void>,
}

// SAFETY: it is plain memory, which any thread may use; `Frame` controls who does.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// Allocates zeroed memory of at least one byte.
    ///
    /// - errors: [`GpuError::OutOfMemory`], or any other error of the driver
    pub(super) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, GpuError> {
        context.enter()?;
        let (bytes, mut at) = (bytes.max(1), std::ptr::null_mut());
        // SAFETY: the call writes one address; the context is current.
        let code = unsafe { sys::cuMemHostAlloc(&raw mut at, bytes, 0) };
        if code == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return Err(GpuError::OutOfMemory { memory: MemoryKind::Pinned, bytes, free: None });
        }
        check("cuMemHostAlloc", code)?;
        let reason = || GpuError::Driver { call: "cuMemHostAlloc", reason: "it returned no memory".into() };
        let at = NonNull::new(at).ok_or_else(reason)?;
        // SAFETY: the allocation has this many bytes, and we own it.
        unsafe { at.cast::<u8>().write_bytes(0, bytes) };
        Ok(Self { context: Arc::clone(context), at })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: `cuMemHostAlloc` allocated it, and whoever requested copies from or to it has waited for them.
            let _ = unsafe { sys::cuMemFreeHost(self.at.as_ptr()) };
        }
    }
}

/// Pinned host memory, and the same number of bytes on the device.
pub struct CudaMirror {
    host: Pinned,
    device: CudaBuffer,
}

impl CudaMirror {
    /// Both sides must have the same number of bytes.
    pub(super) fn new(host: Pinned, device: CudaBuffer) -> Self {
        Self { host, device }
    }

    pub(super) fn device(&self) -> &CudaBuffer {
        &self.device
    }

    pub(super) fn host(&self) -> NonNull<u8> {
        self.host.at.cast()
    }
}
