//! NVIDIA GPUs, through the driver alone. The driver is looked up at run time, and compiles the PTX in `ptx/`.
//!
//! A queue is a stream, plus memory that is reused in stream order. Recorded work is a driver graph, which starts a frame's hundred
//! kernels with one call.

mod context;
mod driver;
mod event;
mod graph;
mod kernels;
mod memory;
mod ptx;
mod queue;
#[cfg(any(test, feature = "emulation"))]
mod source;
#[cfg(any(test, feature = "emulation"))]
mod stand_in;
#[cfg(test)]
mod tests;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::sys;

use self::context::Context;
use self::driver::{attribute, check};
use self::event::CudaStamp;
use self::graph::CudaProgram;
use self::memory::{CudaMemory, CudaMirror, Pinned};
use self::queue::Queue;
use super::{Capabilities, Device, GpuError, Launch, MatrixUnits};
use crate::ShapeError;

pub use self::memory::CudaBuffer;

/// A queue of an NVIDIA GPU. Clones are the same queue.
#[derive(Clone)]
pub struct Cuda {
    queue: Arc<Queue>,
    name: String,
    /// Compute capability; `90` means 9.0.
    capability: i32,
    multiprocessors: u32,
}

impl Cuda {
    /// Opens GPU `number`, in the driver's numbering.
    ///
    /// - errors: [`GpuError::Missing`] if there is no driver or no such GPU, or if either is too old
    pub fn open(number: usize) -> Result<Self, GpuError> {
        let Found { device, name, capability, multiprocessors, target } = Found::new(number)?;
        let queue = Arc::new(Queue::new(Context::new(device, target)?)?);
        Ok(Self { queue, name, capability, multiprocessors })
    }

    /// Checks whether GPU `number` exists and can be opened, without opening it.
    ///
    /// - errors: as [`Cuda::open`]
    pub fn probe(number: usize) -> Result<(), GpuError> {
        Found::new(number).map(drop)
    }

    /// The number of GPUs that the driver reports, whether or not they can be opened.
    ///
    /// - errors: [`GpuError::Missing`] if there is no driver, or if it is too old
    pub fn count() -> Result<usize, GpuError> {
        driver::start().map(|count| usize::try_from(count).unwrap_or(0))
    }

    /// Whether there is a driver of any version.
    pub fn has_driver() -> bool {
        driver::is_there()
    }

    /// Compute capability; `90` means 9.0.
    pub fn capability(&self) -> i32 {
        self.capability
    }
}

/// A GPU that can be opened.
struct Found {
    device: sys::CUdevice,
    name: String,
    capability: i32,
    multiprocessors: u32,
    /// Its index in the list of compilation targets.
    target: usize,
}

impl Found {
    fn new(number: usize) -> Result<Self, GpuError> {
        let count = driver::start()?;
        let Some(number) = i32::try_from(number).ok().filter(|&number| number < count) else {
            return Err(GpuError::Missing(format!(
                "there is no GPU {number}; the driver shows {count} (numbered from 0); choose one of them, or use `--device cpu`"
            )));
        };
        let mut device = 0;
        // SAFETY: the driver has been started, and writes one device.
        check("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut device, number) })?;
        let name = driver::name(device)?;
        let of = |what| attribute(device, what);
        let capability = 10 * of(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?
            + of(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let multiprocessors = of(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let target = ptx::target(&name, capability)?;
        Ok(Self { device, name, capability, multiprocessors: multiprocessors.unsigned_abs(), target })
    }
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cuda({}, compute capability {})", self.name, self.capability)
    }
}

impl Device for Cuda {
    type Buffer = CudaBuffer;
    type Mirror = CudaMirror;
    type Program = CudaProgram;
    type Stamp = CudaStamp;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.multiprocessors)
    }

    fn fork(&self) -> Result<Self, GpuError> {
        Ok(Self { queue: Arc::new(Queue::new(Arc::clone(&self.queue.context))?), ..self.clone() })
    }

    fn buffer(&self, bytes: usize) -> Result<CudaBuffer, GpuError> {
        let Queue { memories, context, .. } = &*self.queue;
        memories.buffer(bytes, |room| CudaMemory::new(context, room), || self.queue.finish())
    }

    fn len(&self, buffer: &CudaBuffer) -> usize {
        buffer.len()
    }

    fn write(&self, to: &mut CudaBuffer, bytes: &[u8]) -> Result<(), GpuError> {
        ShapeError::at_least("write", "bytes of the buffer", to.len(), bytes.len())?;
        self.queue.may_wait("write")?;
        // SAFETY: the buffer is large enough, and `bytes` may be reused when the call returns: the driver stages pageable memory.
        let code = unsafe {
            sys::cuMemcpyHtoDAsync_v2(to.memory().at(), bytes.as_ptr().cast(), bytes.len(), self.queue.stream)
        };
        check("cuMemcpyHtoD", code)
    }

    fn read(&self, from: &CudaBuffer, bytes: &mut [u8]) -> Result<(), GpuError> {
        ShapeError::at_least("read", "bytes of the buffer", from.len(), bytes.len())?;
        self.queue.may_wait("read")?;
        // SAFETY: the buffer holds this many bytes, and `bytes` outlives the copy, which is waited for.
        let code = unsafe {
            let to = bytes.as_mut_ptr().cast();
            sys::cuMemcpyDtoHAsync_v2(to, from.memory().at(), bytes.len(), self.queue.stream)
        };
        let copied = check("cuMemcpyDtoH", code);
        self.queue.finish().and(copied)
    }

    fn mirror(&self, bytes: usize) -> Result<CudaMirror, GpuError> {
        let Queue { memories, context, .. } = &*self.queue;
        let device = self.buffer(bytes)?;
        let pinned = memories.allocated(|| Pinned::new(context, bytes), || self.queue.finish())?;
        Ok(CudaMirror::new(pinned, device))
    }

    fn device_side<'a>(&self, mirror: &'a CudaMirror) -> &'a CudaBuffer {
        mirror.device()
    }

    fn host_side(&self, mirror: &CudaMirror) -> NonNull<u8> {
        mirror.host()
    }

    unsafe fn copy_in(&self, mirror: &CudaMirror) -> Result<(), GpuError> {
        self.queue.context.enter()?;
        let (to, from) = (mirror.device(), mirror.host().as_ptr().cast());
        self.queue.memories.keep(to);
        // SAFETY: both sides have this many bytes; the caller guarantees that the host side lives and is not accessed.
        let code = unsafe { sys::cuMemcpyHtoDAsync_v2(to.memory().at(), from, to.len(), self.queue.stream) };
        check("cuMemcpyHtoD", code)
    }

    unsafe fn copy_out(&self, mirror: &CudaMirror) -> Result<(), GpuError> {
        self.queue.context.enter()?;
        let (from, to) = (mirror.device(), mirror.host().as_ptr().cast());
        self.queue.memories.keep(from);
        // SAFETY: as above.
        let code = unsafe { sys::cuMemcpyDtoHAsync_v2(to, from.memory().at(), from.len(), self.queue.stream) };
        check("cuMemcpyDtoH", code)
    }

    unsafe fn launch(&self, launch: &Launch<'_, CudaBuffer>) -> Result<(), GpuError> {
        let Queue { context, memories, stream, .. } = &*self.queue;
        let foreign = launch.buffers.iter().any(|buffer| !Arc::ptr_eq(buffer.memory().context(), context));
        ShapeError::ensure(!foreign, launch.kernel, "device of the buffers", "another", "the one that launches")?;
        let entry = context.entry(launch.kernel, launch.element)?;
        launch.buffers.iter().for_each(|buffer| memories.keep(buffer));
        let mut addresses: Vec<_> = launch.buffers.iter().map(|buffer| buffer.memory().at()).collect();
        let pointers = addresses.iter_mut().map(|address| (&raw mut *address).cast::<c_void>());
        let mut arguments: Vec<_> = pointers.chain([launch.params.as_ptr().cast_mut().cast()]).collect();
        let ([x, y, z], [bx, by, bz]) = (launch.grid, launch.block);
        // SAFETY: the caller guarantees that the entry takes these buffers and parameters. The driver copies all of them before it
        // returns, and only reads the parameters.
        let code = unsafe {
            let none = std::ptr::null_mut();
            sys::cuLaunchKernel(entry, x, y, z, bx, by, bz, 0, *stream, arguments.as_mut_ptr(), none)
        };
        check("cuLaunchKernel", code)
    }

    fn finish(&self) -> Result<(), GpuError> {
        self.queue.finish()
    }

    fn trim(&self) -> Result<(), GpuError> {
        self.queue.finish()?;
        self.queue.memories.trim();
        Ok(())
    }

    fn record<T, E: From<GpuError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<(CudaProgram, T), E> {
        CudaProgram::record(&self.queue, work)
    }

    unsafe fn start(&self, program: &CudaProgram) -> Result<(), GpuError> {
        // SAFETY: guaranteed by the caller.
        unsafe { program.start(&self.queue) }
    }

    fn stamp(&self) -> Result<CudaStamp, GpuError> {
        let Queue { context, memories, stream, stamps } = &*self.queue;
        let stamp = CudaStamp::new(context)?;
        let recording = memories.is_recording();
        // SAFETY: the stream lives as long as the queue and belongs to its context.
        unsafe { stamp.note(*stream, recording)? };
        if recording {
            stamps.lock().push(stamp.clone());
        }
        Ok(stamp)
    }

    fn between(&self, begin: &CudaStamp, end: &CudaStamp) -> Result<f64, GpuError> {
        begin.until(end)
    }
}

/// The capabilities of every supported NVIDIA GPU: even the oldest target has tensor cores.
fn capabilities(multiprocessors: u32) -> Capabilities {
    Capabilities { multiprocessors, matrix_units: MatrixUnits::TensorCores }
}
