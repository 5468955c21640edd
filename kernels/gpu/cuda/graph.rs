//! Recorded work: a driver graph, which starts a frame's hundred kernels with one call.

use std::sync::Arc;

use cudarc::driver::sys;

use super::context::Context;
use super::driver::check;
use super::event::CudaStamp;
use super::memory::CudaMemory;
use super::queue::Queue;
use crate::gpu::GpuError;
use crate::gpu::memories::Held;

/// A graph, ready to start.
pub struct CudaProgram {
    graph: sys::CUgraphExec,
    _held: Option<Held<CudaMemory>>,
    _stamps: Vec<CudaStamp>,
    context: Arc<Context>,
}

// SAFETY: graphs are driver handles, which any thread may use. Two threads that start the same graph do so one after the other,
// because it belongs to one stream.
unsafe impl Send for CudaProgram {}
// SAFETY: as above.
unsafe impl Sync for CudaProgram {}

impl CudaProgram {
    /// [`Device::record`](crate::gpu::Device::record).
    pub(super) fn record<T, E: From<GpuError>>(
        queue: &Queue,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Self, T), E> {
        queue.may_wait("record")?;
        // Relaxed: other threads may keep using their own streams meanwhile, for example to allocate.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives, and is not recording yet.
        check("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(queue.stream, mode) })?;
        queue.memories.begin_recording();
        let done = work();
        let held = queue.memories.end_recording();
        let stamps = std::mem::take(&mut *queue.stamps.lock());
        let mut graph = std::ptr::null_mut();
        // The capture must end whether or not the work succeeded. SAFETY: the call writes one handle.
        let ended = check("cuStreamEndCapture", unsafe { sys::cuStreamEndCapture(queue.stream, &raw mut graph) });
        let ready = ended.and_then(|()| instantiate(&queue.context, graph));
        if !graph.is_null() {
            // SAFETY: we own it, and the instantiated graph does not depend on it.
            let _ = unsafe { sys::cuGraphDestroy(graph) };
        }
        // Report the work's own error first: it is why recording failed.
        let done = done?;
        Ok((Self { graph: ready?, _held: held, _stamps: stamps, context: Arc::clone(&queue.context) }, done))
    }

    /// Starts the graph on the queue that recorded it.
    ///
    /// # Safety
    /// As for [`Device::start`](crate::gpu::Device::start).
    pub(super) unsafe fn start(&self, queue: &Queue) -> Result<(), GpuError> {
        queue.may_wait("start")?;
        // SAFETY: the graph lives and keeps the memory that it uses.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(self.graph, queue.stream) })
    }
}

/// Makes a graph ready to start.
fn instantiate(context: &Context, graph: sys::CUgraph) -> Result<sys::CUgraphExec, GpuError> {
    context.enter()?;
    let mut ready = std::ptr::null_mut();
    // SAFETY: a capture made the graph; the call writes one handle.
    let code = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut ready, graph, 0) };
    check("cuGraphInstantiate", code).map(|()| ready)
}

impl Drop for CudaProgram {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: it was made in `instantiate`; the driver waits if it is still running.
            let _ = unsafe { sys::cuGraphExecDestroy(self.graph) };
        }
    }
}
