//! NVIDIA GPUs, through the driver alone: it is looked for at run time, and compiles the PTX that lies beside each `.cu`.
//!
//! A queue is a stream, and the memory that is used again in its order. What is recorded is a graph of the driver's, which starts a
//! frame's hundred kernels with one call.

mod driver;
mod memory;
mod ptx;
#[cfg(any(test, feature = "emulation"))]
mod source;
#[cfg(any(test, feature = "emulation"))]
mod stand_in;
#[cfg(test)]
mod tests;

use memory::{CudaMemory, CudaMirror};

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUjit_option, CUresult};

use self::driver::{attribute, check};
use super::conv::{ConvKernel, ConvParams};
use super::cross_attend::{AttendKernel, CrossAttendParams};
use super::memories::{Held, Memories, Pooled};
use super::{Device, GpuElement, GpuError, Launch};
use crate::ShapeError;

/// Device memory.
pub type CudaBuffer = Pooled<CudaMemory>;

/// A queue of an NVIDIA GPU. Clones are the same queue.
#[derive(Clone)]
pub struct Cuda {
    queue: Arc<Queue>,
    name: String,
    /// Compute capability, as `90` for 9.0.
    capability: i32,
    /// How many blocks run at once at the least.
    multiprocessors: u32,
}

/// A stream, and the memory that is used again in its order.
struct Queue {
    stream: sys::CUstream,
    memories: Memories<CudaMemory>,
    /// Stamps of what is being recorded.
    stamps: Mutex<Vec<CudaStamp>>,
    context: Arc<Context>,
}

/// The driver's state for this process on one device: context and compiled kernels.
struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
    /// PTX of the device's target, by file.
    target: usize,
    kernels: Mutex<Kernels>,
}

/// A graph, ready to be started.
pub struct CudaProgram {
    graph: sys::CUgraphExec,
    _held: Option<Held<CudaMemory>>,
    _stamps: Vec<CudaStamp>,
    context: Arc<Context>,
}

/// When the stream last came by.
#[derive(Clone)]
pub struct CudaStamp(Arc<Event>);

struct Event {
    handle: sys::CUevent,
    context: Arc<Context>,
}

#[derive(Default)]
struct Kernels {
    /// By the file's number in [`ptx::FILES`].
    modules: HashMap<usize, sys::CUmodule>,
    /// By kernel and element.
    entries: HashMap<(&'static str, &'static str), sys::CUfunction>,
}

// SAFETY: contexts, modules and functions are the driver's handles, which any thread may use; it locks what it must.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}
// SAFETY: as above, of streams.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}
// SAFETY: as above, of graphs; two threads that start the same one do so one after the other, as it is of one stream.
unsafe impl Send for CudaProgram {}
// SAFETY: as above.
unsafe impl Sync for CudaProgram {}
// SAFETY: as above, of events.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Cuda {
    /// Opens GPU `number`, as the driver counts them.
    ///
    /// - errors: [`GpuError::Missing`] without a driver, with one that is too old, without such a GPU, or with one that is too old
    pub fn open(number: usize) -> Result<Self, GpuError> {
        let Found { device, name, capability, multiprocessors, target } = Found::new(number)?;
        let queue = Arc::new(Queue::new(Arc::new(Context::new(device, target)?))?);
        Ok(Self { queue, name, capability, multiprocessors })
    }

    /// Whether GPU `number` is there and can be opened, without opening it.
    ///
    /// - errors: as [`Cuda::open`]
    pub fn probe(number: usize) -> Result<(), GpuError> {
        Found::new(number).map(drop)
    }

    /// Whether there is a driver, of whatever age.
    pub fn has_driver() -> bool {
        driver::is_there()
    }

    /// Compute capability, as `90` for 9.0.
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
    /// Its place in what kernels are compiled for.
    target: usize,
}

impl Found {
    fn new(number: usize) -> Result<Self, GpuError> {
        let count = driver::start()?;
        let Some(number) = i32::try_from(number).ok().filter(|&number| number < count) else {
            return Err(GpuError::Missing(format!(
                "there is no GPU {number}; the driver shows {count}, from 0 on; or use `--device cpu`"
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
        // SAFETY: the buffer has room for them, and they may be used again when the call returns: pageable memory is staged.
        let code = unsafe {
            sys::cuMemcpyHtoDAsync_v2(to.memory().at(), bytes.as_ptr().cast(), bytes.len(), self.queue.stream)
        };
        check("cuMemcpyHtoD", code)
    }

    fn read(&self, from: &CudaBuffer, bytes: &mut [u8]) -> Result<(), GpuError> {
        ShapeError::at_least("read", "bytes of the buffer", from.len(), bytes.len())?;
        self.queue.may_wait("read")?;
        // SAFETY: the buffer has as many, and `bytes` outlives the copy: it is waited for.
        let code = unsafe {
            let to = bytes.as_mut_ptr().cast();
            sys::cuMemcpyDtoHAsync_v2(to, from.memory().at(), bytes.len(), self.queue.stream)
        };
        let copied = check("cuMemcpyDtoH", code);
        self.queue.finish().and(copied)
    }

    fn mirror(&self, bytes: usize) -> Result<CudaMirror, GpuError> {
        CudaMirror::new(&self.queue.context, self.buffer(bytes)?)
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
        // SAFETY: both sides have so many bytes; that the host's lives and is left alone is the caller's promise.
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
        context.enter()?;
        let entry = context.entry(launch.kernel, launch.element)?;
        launch.buffers.iter().for_each(|buffer| memories.keep(buffer));
        let mut addresses: Vec<_> = launch.buffers.iter().map(|buffer| buffer.memory().at()).collect();
        let pointers = addresses.iter_mut().map(|address| (&raw mut *address).cast::<c_void>());
        let mut arguments: Vec<_> = pointers.chain([launch.params.as_ptr().cast_mut().cast()]).collect();
        let ([x, y, z], [bx, by, bz]) = (launch.grid, launch.block);
        // SAFETY: the entry takes these buffers and parameters, as the caller promises; the driver copies all of them ahead of
        // returning, and only reads the parameters.
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
        let queue = &*self.queue;
        queue.may_wait("record")?;
        // What other threads do meanwhile, in streams of theirs, is not forbidden: allocating, say.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream lives, and records nothing so far.
        check("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(queue.stream, mode) })?;
        queue.memories.begin_recording();
        let done = work();
        let held = queue.memories.end_recording();
        let stamps = std::mem::take(&mut *queue.stamps.lock().unwrap_or_else(PoisonError::into_inner));
        let mut graph = std::ptr::null_mut();
        // Whatever came of the work, the stream must come out of it. SAFETY: the call writes one handle.
        let ended = check("cuStreamEndCapture", unsafe { sys::cuStreamEndCapture(queue.stream, &raw mut graph) });
        let program = ended.and_then(|()| queue.context.instantiate(graph));
        if !graph.is_null() {
            // SAFETY: it is ours, and what was made of it lives by itself.
            let _ = unsafe { sys::cuGraphDestroy(graph) };
        }
        // What the work says comes first: it is why recording failed.
        let done = done?;
        let context = Arc::clone(&queue.context);
        Ok((CudaProgram { graph: program?, _held: held, _stamps: stamps, context }, done))
    }

    unsafe fn start(&self, program: &CudaProgram) -> Result<(), GpuError> {
        self.queue.may_wait("start")?;
        // SAFETY: the graph lives, and it keeps the memory that it works in.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(program.graph, self.queue.stream) })
    }

    fn stamp(&self) -> Result<CudaStamp, GpuError> {
        let Queue { context, memories, stream, stamps } = &*self.queue;
        let stamp = CudaStamp(Arc::new(Event::new(context)?));
        let recording = memories.is_recording();
        // One that is recorded is to be read from outside of the graph.
        let flags = if recording { sys::CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32 } else { 0 };
        // SAFETY: both handles live.
        check("cuEventRecord", unsafe { sys::cuEventRecordWithFlags(stamp.0.handle, *stream, flags) })?;
        if recording {
            stamps.lock().unwrap_or_else(PoisonError::into_inner).push(stamp.clone());
        }
        Ok(stamp)
    }

    fn between(&self, begin: &CudaStamp, end: &CudaStamp) -> Result<f64, GpuError> {
        self.queue.context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: both handles live; the call writes one float.
        let code = unsafe { sys::cuEventElapsedTime(&raw mut milliseconds, begin.0.handle, end.0.handle) };
        check("cuEventElapsedTime", code).map(|()| f64::from(milliseconds))
    }

    fn conv_kernel(&self, element: GpuElement, conv: &ConvParams) -> ConvKernel {
        conv_kernel(element, conv, self.multiprocessors)
    }

    fn attend_kernel(&self, element: GpuElement, attend: &CrossAttendParams) -> AttendKernel {
        attend_kernel(element, attend)
    }
}

/// Tensor cores multiply half precision. The largest tile that still gives every multiprocessor two blocks reads inputs least often.
fn conv_kernel(element: GpuElement, conv: &ConvParams, multiprocessors: u32) -> ConvKernel {
    let blocks = |kernel: ConvKernel| {
        conv.n * (conv.out_h * conv.out_w).div_ceil(kernel.pixels) * conv.out_cs.div_ceil(kernel.channels)
    };
    match element {
        GpuElement::F32 => ConvKernel::PLAIN,
        GpuElement::F16 if conv.out_cs <= NARROW.channels => NARROW,
        GpuElement::F16 if blocks(LARGE) >= 2 * multiprocessors => LARGE,
        GpuElement::F16 => SMALL,
    }
}

const NARROW: ConvKernel = ConvKernel { name: "conv_mma_128x32", pixels: 128, channels: 32, threads: 128 };
const LARGE: ConvKernel = ConvKernel { name: "conv_mma_128x64", pixels: 128, channels: 64, threads: 256 };
const SMALL: ConvKernel = ConvKernel { name: "conv_mma_64x64", pixels: 64, channels: 64, threads: 128 };

/// Tensor cores where the values' channels begin at a multiple of eight, and a warp's means fit into its registers.
fn attend_kernel(element: GpuElement, attend: &CrossAttendParams) -> AttendKernel {
    let name = match (element, attend.c) {
        (GpuElement::F32, _) | (_, 129..) => return AttendKernel::PLAIN,
        (_, c) if !c.is_multiple_of(8) => return AttendKernel::PLAIN,
        (_, ..=64) => "cross_attend_mma_64",
        _ => "cross_attend_mma_128",
    };
    AttendKernel { name, pixels: 64, threads: 128 }
}

impl Queue {
    fn new(context: Arc<Context>) -> Result<Self, GpuError> {
        context.enter()?;
        let (mut stream, flags) = (std::ptr::null_mut(), sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32);
        // SAFETY: the context is current; the call writes one handle, which `drop` gives back.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&raw mut stream, flags) })?;
        Ok(Self { stream, memories: Memories::default(), stamps: Mutex::default(), context })
    }

    /// Waits for all that was asked for.
    fn finish(&self) -> Result<(), GpuError> {
        self.may_wait("finish")?;
        // SAFETY: the stream lives as long as `self`.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream) })
    }

    /// Makes the context the calling thread's; an error while work is recorded, which cannot be waited for.
    fn may_wait(&self, call: &'static str) -> Result<(), GpuError> {
        if self.memories.is_recording() {
            return Err(GpuError::Driver { call, reason: "not while work is recorded".into() });
        }
        self.context.enter()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Errors are not for anybody here: a lost device says so to whoever used it. Memory is freed when this has finished.
        let _ = self.finish();
        // SAFETY: it was created in `new`.
        let _ = unsafe { sys::cuStreamDestroy_v2(self.stream) };
    }
}

impl Drop for CudaProgram {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: it was made in `instantiate`; the driver waits where it still runs.
            let _ = unsafe { sys::cuGraphExecDestroy(self.graph) };
        }
    }
}

impl Event {
    fn new(context: &Arc<Context>) -> Result<Self, GpuError> {
        context.enter()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current; the call writes one handle, which `drop` gives back.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut handle, 0) })?;
        Ok(Self { handle, context: Arc::clone(context) })
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

impl Context {
    fn new(device: sys::CUdevice, target: usize) -> Result<Self, GpuError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the device is one of the driver's; the call writes one handle, which `drop` gives back.
        check("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut handle, device) })?;
        Ok(Self { device, handle, target, kernels: Mutex::default() })
    }

    /// Makes the context the calling thread's.
    fn enter(&self) -> Result<(), GpuError> {
        // SAFETY: the context is retained as long as `self` lives.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.handle) })
    }

    /// Makes a graph ready to be started.
    fn instantiate(&self, graph: sys::CUgraph) -> Result<sys::CUgraphExec, GpuError> {
        self.enter()?;
        let mut ready = std::ptr::null_mut();
        // SAFETY: the graph is one that a capture made; the call writes one handle.
        let code = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut ready, graph, 0) };
        check("cuGraphInstantiate", code).map(|()| ready)
    }

    /// A kernel's entry, compiled when it is first asked for.
    fn entry(&self, kernel: &'static str, element: GpuElement) -> Result<sys::CUfunction, GpuError> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&entry) = kernels.entries.get(&(kernel, element.suffix())) {
            return Ok(entry);
        }
        let name = format!("{kernel}_{}", element.suffix());
        let failed = |reason: String| GpuError::Kernel { kernel: name.clone(), reason };
        let file = ptx::file_of(&name).ok_or_else(|| failed("no .cu file has it".into()))?;
        let module = if let Some(&module) = kernels.modules.get(&file) {
            module
        } else {
            let module = self.compile(file)?;
            kernels.modules.insert(file, module);
            module
        };
        let symbol = CString::new(name.as_str()).map_err(|e| failed(e.to_string()))?;
        let mut entry = std::ptr::null_mut();
        // SAFETY: the module lives as long as `self`; the call reads a string and writes one handle.
        match unsafe { sys::cuModuleGetFunction(&raw mut entry, module, symbol.as_ptr()) } {
            CUresult::CUDA_SUCCESS => {}
            code => return Err(failed(format!("{code:?}"))),
        }
        kernels.entries.insert((kernel, element.suffix()), entry);
        Ok(entry)
    }

    /// Has the driver compile a file's PTX for the device. It keeps the result in its cache on disk.
    fn compile(&self, file: usize) -> Result<sys::CUmodule, GpuError> {
        const LOG: usize = 4096;
        let (name, text) = (ptx::FILES[file].0, ptx::FILES[file].1[self.target]);
        let failed = |reason: String| GpuError::Kernel { kernel: format!("{name}.cu"), reason };
        let text = CString::new(text).map_err(|e| failed(e.to_string()))?;
        let mut log = vec![0u8; LOG];
        let mut options = [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(LOG)];
        let mut module = std::ptr::null_mut();
        // SAFETY: text and log end where they are said to, both options have their value, and the call writes one handle.
        let code = unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            sys::cuModuleLoadDataEx(&raw mut module, text.as_ptr().cast(), 2, options, values)
        };
        check("cuModuleLoadDataEx", code).map(|()| module).map_err(|error| {
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned();
            if log.is_empty() { error } else { failed(format!("{error}: {log}")) }
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.enter().is_ok() {
            let kernels = self.kernels.get_mut().unwrap_or_else(PoisonError::into_inner);
            for module in kernels.modules.values() {
                // SAFETY: it was loaded in `compile`; queues, which keep the context, have finished.
                let _ = unsafe { sys::cuModuleUnload(*module) };
            }
        }
        // SAFETY: it was retained in `new`, once.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}
