//! Points in time on the device.

use std::sync::Arc;

use cudarc::driver::sys;

use super::context::Context;
use super::driver::check;
use crate::gpu::GpuError;

/// When the stream last passed this event.
#[derive(Clone)]
pub struct CudaStamp(Arc<Event>);

struct Event {
    handle: sys::CUevent,
    context: Arc<Context>,
}

// SAFETY: events are driver handles, which any thread may use; the driver does its own locking.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl CudaStamp {
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, GpuError> {
        context.enter()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current; the call writes one handle, which `drop` destroys.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut handle, 0) })?;
        Ok(Self(Arc::new(Event { handle, context: Arc::clone(context) })))
    }

    /// Records the time at which `stream` reaches this point. With `recorded`, the event can be read from outside its graph.
    ///
    /// # Safety
    /// The stream must live, and belong to the stamp's context.
    pub(super) unsafe fn note(&self, stream: sys::CUstream, recorded: bool) -> Result<(), GpuError> {
        let flags = if recorded { sys::CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32 } else { 0 };
        // SAFETY: the event lives; the caller guarantees the stream.
        check("cuEventRecord", unsafe { sys::cuEventRecordWithFlags(self.0.handle, stream, flags) })
    }

    /// Milliseconds until `end`.
    pub(super) fn until(&self, end: &Self) -> Result<f64, GpuError> {
        self.0.context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: both handles live; the call writes one float.
        let code = unsafe { sys::cuEventElapsedTime(&raw mut milliseconds, self.0.handle, end.0.handle) };
        check("cuEventElapsedTime", code).map(|()| f64::from(milliseconds))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: it was created in `new`.
            let _ = unsafe { sys::cuEventDestroy_v2(self.handle) };
        }
    }
}
