//! The driver's state for this process on one device.

use std::sync::Arc;

use cudarc::driver::sys;
use parking_lot::Mutex;

use super::driver::check;
use super::kernels::Kernels;
use crate::gpu::{GpuElement, GpuError};

/// A context, and the kernels that were compiled in it.
pub(super) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
    kernels: Mutex<Kernels>,
}

// SAFETY: contexts are driver handles, which any thread may use; the driver does its own locking.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// `target`: the device's index in the list of compilation targets.
    pub(super) fn new(device: sys::CUdevice, target: usize) -> Result<Arc<Self>, GpuError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the device came from the driver; the call writes one handle, which `drop` releases.
        check("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut handle, device) })?;
        Ok(Arc::new(Self { device, handle, kernels: Mutex::new(Kernels::new(target)) }))
    }

    /// Makes the context current for the calling thread.
    pub(super) fn enter(&self) -> Result<(), GpuError> {
        // SAFETY: the context is retained as long as `self` lives.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.handle) })
    }

    /// Makes the context current for the calling thread, and finds a kernel's entry. Compiles it on first use.
    pub(super) fn entry(&self, kernel: &'static str, element: GpuElement) -> Result<sys::CUfunction, GpuError> {
        self.enter()?;
        self.kernels.lock().entry(kernel, element)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Queues keep the context alive, so they have finished.
        if self.enter().is_ok() {
            self.kernels.get_mut().unload();
        }
        // SAFETY: it was retained exactly once, in `new`.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}
