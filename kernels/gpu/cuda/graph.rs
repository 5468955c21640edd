//! Recorded work: a graph of the driver's, which starts a frame's hundred kernels with one call.

use std::sync::Arc;

use cudarc::driver::sys;

use super::context::Context;
use super::driver::check;
use super::event::CudaStamp;
use super::memory::CudaMemory;
use super::queue::Queue;
use crate::gpu::GpuError;
use crate::gpu::memories::Held;

/// A graph, ready to be started.
pub struct CudaProgram {
    graph: sys::CUgraphExec,
    _held: Option<Held<CudaMemory>>,
    _stamps: Vec<CudaStamp>,
    context: Arc<Context>,
}

// SAFETY: graphs are the driver's handles, which any thread may use; two threads that start the same one do so one after the other, as it
// is of one stream.
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
        // What other threads do meanwhile, in streams of theirs, is not forbidden: allocating, say.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives, and records nothing so far.
        check("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(queue.stream, mode) })?;
        queue.memories.begin_recording();
        let done = work();
        let held = queue.memories.end_recording();
        let stamps = std::mem::take(&mut *queue.stamps.lock());
        let mut graph = std::ptr::null_mut();
        // Whatever came of the work, the stream must come out of it. SAFETY: the call writes one handle.
        let ended = check("cuStreamEndCapture", unsafe { sys::cuStreamEndCapture(queue.stream, &raw mut graph) });
        let ready = ended.and_then(|()| instantiate(&queue.context, graph));
        if !graph.is_null() {
            // SAFETY: it is ours, and what was made of it lives by itself.
            let _ = unsafe { sys::cuGraphDestroy(graph) };
        }
        // What the work says comes first: it is why recording failed.
        let done = done?;
        Ok((Self { graph: ready?, _held: held, _stamps: stamps, context: Arc::clone(&queue.context) }, done))
    }

    /// Starts it on the queue that recorded it.
    ///
    /// # Safety
    /// As for [`Device::start`](crate::gpu::Device::start).
    pub(super) unsafe fn start(&self, queue: &Queue) -> Result<(), GpuError> {
        queue.may_wait("start")?;
        // SAFETY: the graph lives, and it keeps the memory that it works in.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(self.graph, queue.stream) })
    }
}

/// Makes a graph ready to be started.
fn instantiate(context: &Context, graph: sys::CUgraph) -> Result<sys::CUgraphExec, GpuError> {
    context.enter()?;
    let mut ready = std::ptr::null_mut();
    // SAFETY: the graph is one that a capture made; the call writes one handle.
    let code = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut ready, graph, 0) };
    check("cuGraphInstantiate", code).map(|()| ready)
}

impl Drop for CudaProgram {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: it was made in `instantiate`; the driver waits where it still runs.
            let _ = unsafe { sys::cuGraphExecDestroy(self.graph) };
        }
    }
}
