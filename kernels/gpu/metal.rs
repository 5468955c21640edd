//! A Mac's GPU.
//!
//! The kernels are compiled once a process, from their text. Launches are put into one command buffer, which is sent off when something
//! is read back: one a frame. Memory is shared with the processor, so what goes there and back is copied once, and not staged.

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSString;
use objc2_metal::{
    MTLBuffer, MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandEncoder, MTLCommandQueue, MTLCompileOptions,
    MTLComputeCommandEncoder, MTLComputePipelineState, MTLCreateSystemDefaultDevice, MTLDevice, MTLLibrary,
    MTLResourceOptions, MTLSize,
};

use super::conv::{ConvKernel, ConvParams};
use super::{Device, GpuElement, GpuError, Launch, metal_source};
use crate::ShapeError;

// Where `MTLCreateSystemDefaultDevice` finds its device.
#[link(name = "CoreGraphics", kind = "framework")]
unsafe extern "C" {}

/// The GPU of this Mac. Clones are the same one.
#[derive(Clone)]
pub struct Metal(Arc<Inner>);

struct Inner {
    device: Retained<ProtocolObject<dyn MTLDevice>>,
    queue: Retained<ProtocolObject<dyn MTLCommandQueue>>,
    library: Retained<ProtocolObject<dyn MTLLibrary>>,
    pipelines: Mutex<HashMap<String, Retained<ProtocolObject<dyn MTLComputePipelineState>>>>,
    pending: Mutex<Option<Pending>>,
    pool: Arc<Mutex<Pool>>,
}

/// Launches that were not sent off yet.
struct Pending {
    commands: Retained<ProtocolObject<dyn MTLCommandBuffer>>,
    encoder: Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>,
}

// SAFETY: command buffers and encoders may be used by any thread, one at a time; they are behind a lock.
unsafe impl Send for Pending {}

/// Device memory.
pub struct MetalBuffer {
    memory: Memory,
    len: usize,
    pool: Arc<Mutex<Pool>>,
}

#[derive(Clone)]
struct Memory(Retained<ProtocolObject<dyn MTLBuffer>>);

// SAFETY: buffers may be used by any thread; their contents are written through an exclusive reference, or by launches, whose caller
// promises that nobody else uses them meanwhile.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// Memory that nobody holds, by its length. A launch that was not sent off yet may still use it, which is well for launches that come
/// later; the host waits before it writes.
#[derive(Default)]
struct Pool {
    free: BTreeMap<usize, Vec<Memory>>,
    bytes: usize,
}

impl Pool {
    /// The shortest of at least `len` bytes, unless it is wastefully long.
    fn take(&mut self, len: usize) -> Option<Memory> {
        let (&length, list) = self.free.range_mut(len..=len.saturating_mul(2)).next()?;
        let memory = list.pop();
        if list.is_empty() {
            self.free.remove(&length);
        }
        self.bytes -= length;
        memory
    }

    fn give(&mut self, memory: Memory) {
        let length = memory.0.length();
        self.bytes += length;
        self.free.entry(length).or_default().push(memory);
    }
}

impl Drop for MetalBuffer {
    fn drop(&mut self) {
        lock(&self.pool).give(self.memory.clone());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is sound whatever panicked meanwhile.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metal {
    /// This Mac's GPU, its kernels compiled; the same one each time.
    ///
    /// # Errors
    /// [`GpuError::Missing`] where there is none, [`GpuError::Kernel`] with the compiler's words where it refuses a kernel.
    pub fn new() -> Result<Self, GpuError> {
        static METAL: OnceLock<Result<Metal, GpuError>> = OnceLock::new();
        METAL.get_or_init(|| autoreleasepool(|_| Self::open())).clone()
    }

    fn open() -> Result<Self, GpuError> {
        let missing = |what: &str| GpuError::Missing(format!("{what}; use `cpu` or `auto`"));
        let device = MTLCreateSystemDefaultDevice().ok_or_else(|| missing("this Mac has no GPU that Metal knows"))?;
        let queue = device.newCommandQueue().ok_or_else(|| missing("the GPU gives no command queue"))?;
        let options = MTLCompileOptions::new();
        // Softmax and erf at their full precision, and sums in the order in which they are written.
        #[allow(deprecated, reason = "what replaces it needs macOS 15")]
        options.setFastMathEnabled(false);
        let source: String =
            metal_source::FILES.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}\n")).collect();
        let library = device
            .newLibraryWithSource_options_error(&NSString::from_str(&source), Some(&options))
            .map_err(|e| GpuError::Kernel { kernel: "all".into(), reason: e.localizedDescription().to_string() })?;
        Ok(Self(Arc::new(Inner {
            device,
            queue,
            library,
            pipelines: Mutex::default(),
            pending: Mutex::default(),
            pool: Arc::default(),
        })))
    }
}

impl Inner {
    fn pipeline(&self, kernel: &str) -> Result<Retained<ProtocolObject<dyn MTLComputePipelineState>>, GpuError> {
        let mut pipelines = lock(&self.pipelines);
        if let Some(pipeline) = pipelines.get(kernel) {
            return Ok(pipeline.clone());
        }
        let failed = |reason: String| GpuError::Kernel { kernel: kernel.into(), reason };
        let function = self.library.newFunctionWithName(&NSString::from_str(kernel));
        let function = function.ok_or_else(|| failed("there is no such entry".into()))?;
        let pipeline = self
            .device
            .newComputePipelineStateWithFunction_error(&function)
            .map_err(|e| failed(e.localizedDescription().to_string()))?;
        // Kernels count on simdgroups of 32, as every Apple GPU has them.
        if pipeline.threadExecutionWidth() != 32 {
            return Err(failed(format!(
                "this GPU's simdgroups have {} lanes, not 32",
                pipeline.threadExecutionWidth()
            )));
        }
        pipelines.insert(kernel.into(), pipeline.clone());
        Ok(pipeline)
    }

    /// Sends off what is pending, and waits for it.
    fn wait(&self, pending: &mut Option<Pending>) -> Result<(), GpuError> {
        let Some(Pending { commands, encoder }) = pending.take() else { return Ok(()) };
        encoder.endEncoding();
        commands.commit();
        commands.waitUntilCompleted();
        if commands.status() == MTLCommandBufferStatus::Error {
            let reason =
                commands.error().map_or_else(|| "no reason given".into(), |e| e.localizedDescription().to_string());
            return Err(GpuError::Lost(reason));
        }
        Ok(())
    }

    fn start(&self) -> Result<Pending, GpuError> {
        let lost = || GpuError::Lost("it takes no commands".into());
        let commands = self.queue.commandBuffer().ok_or_else(lost)?;
        // Serial: a launch begins when the one before has ended.
        let encoder = commands.computeCommandEncoder().ok_or_else(lost)?;
        Ok(Pending { commands, encoder })
    }
}

impl Device for Metal {
    type Buffer = MetalBuffer;

    fn name(&self) -> String {
        self.0.device.name().to_string()
    }

    fn buffer(&self, bytes: usize) -> Result<MetalBuffer, GpuError> {
        ShapeError::at_least("buffer", "bytes", bytes, 1)?;
        let inner = &*self.0;
        let pooled = lock(&inner.pool).take(bytes);
        let new = || {
            let options = MTLResourceOptions::StorageModeShared;
            autoreleasepool(|_| inner.device.newBufferWithLength_options(bytes, options)).map(Memory)
        };
        let memory = pooled.or_else(new).or_else(|| {
            // What is idle may be what is missing. A command buffer holds on to what it uses.
            *lock(&inner.pool) = Pool::default();
            new()
        });
        let free = || {
            let (most, used) = (inner.device.recommendedMaxWorkingSetSize(), inner.device.currentAllocatedSize());
            usize::try_from(most).map_or(0, |most| most.saturating_sub(used))
        };
        let memory = memory.ok_or_else(|| GpuError::OutOfMemory { bytes, free: Some(free()) })?;
        Ok(MetalBuffer { memory, len: bytes, pool: Arc::clone(&inner.pool) })
    }

    fn len(&self, buffer: &MetalBuffer) -> usize {
        buffer.len
    }

    fn write(&self, to: &mut MetalBuffer, bytes: &[u8]) -> Result<(), GpuError> {
        ShapeError::at_least("write", "bytes of the buffer", to.len, bytes.len())?;
        // Its memory may have been another's a moment ago, which a launch still uses.
        self.finish()?;
        let contents = to.memory.0.contents().cast::<u8>();
        // SAFETY: shared memory of at least so many bytes, borrowed exclusively, which no launch uses any longer.
        unsafe { contents.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn read(&self, from: &MetalBuffer, bytes: &mut [u8]) -> Result<(), GpuError> {
        ShapeError::at_least("read", "bytes of the buffer", from.len, bytes.len())?;
        self.finish()?;
        let contents = from.memory.0.contents().cast::<u8>();
        // SAFETY: shared memory of at least so many bytes, whose launches were waited for.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(contents.as_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch<'_, MetalBuffer>) -> Result<(), GpuError> {
        let pipeline = self.0.pipeline(&format!("{}_{}", launch.kernel, launch.element.suffix()))?;
        autoreleasepool(|_| {
            let mut pending = lock(&self.0.pending);
            let started = match pending.take() {
                Some(started) => started,
                None => self.0.start()?,
            };
            let encoder = &pending.insert(started).encoder;
            encoder.setComputePipelineState(&pipeline);
            for (i, buffer) in launch.buffers.iter().enumerate() {
                // SAFETY: a kernel has far fewer arguments than the 31 that there are; the command buffer retains the buffer.
                unsafe { encoder.setBuffer_offset_atIndex(Some(&buffer.memory.0), 0, i) };
            }
            let params = NonNull::from(launch.params).cast::<c_void>();
            // SAFETY: so many bytes, of which it takes a copy.
            unsafe { encoder.setBytes_length_atIndex(params, launch.params.len(), launch.buffers.len()) };
            let size = |[width, height, depth]: [u32; 3]| MTLSize {
                width: width as usize,
                height: height as usize,
                depth: depth as usize,
            };
            // What the kernel does with its arguments is the caller's promise.
            encoder.dispatchThreadgroups_threadsPerThreadgroup(size(launch.grid), size(launch.block));
            Ok(())
        })
    }

    fn finish(&self) -> Result<(), GpuError> {
        autoreleasepool(|_| self.0.wait(&mut lock(&self.0.pending)))
    }

    fn conv_kernel(&self, element: GpuElement, conv: &ConvParams) -> ConvKernel {
        metal_source::conv_kernel(element, conv)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // An encoder must not be dropped before it has ended.
        if let Some(pending) = lock(&self.pending).take() {
            pending.encoder.endEncoding();
        }
    }
}
