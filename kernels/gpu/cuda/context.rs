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

// SAFETY: contexts are the driver's handles, which any thread may use; it locks what it must.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// `target`: the device's place in what kernels are compiled for.
    pub(super) fn new(device: sys::CUdevice, target: usize) -> Result<Arc<Self>, GpuError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the device is one of the driver's; the call writes one handle, which `drop` gives back.
        check("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut handle, device) })?;
        Ok(Arc::new(Self { device, handle, kernels: Mutex::new(Kernels::new(target)) }))
    }

    /// Makes the context the calling thread's.
    pub(super) fn enter(&self) -> Result<(), GpuError> {
        // SAFETY: the context is retained as long as `self` lives.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.handle) })
    }

    /// Makes the context the calling thread's, and finds a kernel's entry, compiled when it is first asked for.
    pub(super) fn entry(&self, kernel: &'static str, element: GpuElement) -> Result<sys::CUfunction, GpuError> {
        self.enter()?;
        self.kernels.lock().entry(kernel, element)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Queues, which keep the context, have finished.
        if self.enter().is_ok() {
            self.kernels.get_mut().unload();
        }
        // SAFETY: it was retained in `new`, once.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}
