//! A Mac's GPU.
//!
//! The kernels are compiled from source, once per process. Launches go into one command buffer, which is committed when something
//! must be waited for: once per frame. Memory is shared with the CPU, so kernels read photos and write masks in the host's own memory.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSString;
use objc2_metal::{
    MTLBuffer, MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandEncoder, MTLCommandQueue, MTLCompileOptions,
    MTLComputeCommandEncoder, MTLComputePipelineState, MTLCreateSystemDefaultDevice, MTLDevice, MTLLibrary,
    MTLResourceOptions, MTLSize,
};
use parking_lot::Mutex;

use super::memories::Pooled;
use super::tape::{Moment, OwnedLaunch, Recorder, Step, Tape};
use super::{Capabilities, Device, GpuError, Launch, MemoryKind, metal_source};
use crate::ShapeError;

// `MTLCreateSystemDefaultDevice` finds its device there.
#[link(name = "CoreGraphics", kind = "framework")]
unsafe extern "C" {}

/// A queue of this Mac's GPU. Clones are the same queue.
#[derive(Clone)]
pub struct Metal {
    gpu: Arc<Gpu>,
    queue: Arc<Queue>,
}

/// The device and its compiled kernels.
struct Gpu {
    device: Retained<ProtocolObject<dyn MTLDevice>>,
    library: Retained<ProtocolObject<dyn MTLLibrary>>,
    pipelines: Mutex<HashMap<String, Retained<ProtocolObject<dyn MTLComputePipelineState>>>>,
}

/// The command queue, its pending launches, and the memory that is reused in queue order.
struct Queue {
    commands: Retained<ProtocolObject<dyn MTLCommandQueue>>,
    pending: Mutex<Pending>,
    recorder: Recorder<MetalMemory>,
}

/// Launches that were not waited for yet.
#[derive(Default)]
struct Pending {
    /// Launches that were not committed yet.
    open: Option<Open>,
    sent: Vec<Retained<ProtocolObject<dyn MTLCommandBuffer>>>,
}

/// A command buffer that takes launches.
struct Open {
    commands: Retained<ProtocolObject<dyn MTLCommandBuffer>>,
    encoder: Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>,
}

// SAFETY: any thread may use command buffers and encoders, one at a time; they are behind a lock.
unsafe impl Send for Pending {}

impl Pending {
    /// Commits the open command buffer, if any.
    fn send(&mut self) {
        if let Some(Open { commands, encoder }) = self.open.take() {
            encoder.endEncoding();
            commands.commit();
            self.sent.push(commands);
        }
    }
}

/// Device memory, shared with the host.
pub type MetalBuffer = Pooled<MetalMemory>;

/// A handle of device memory. A launch that was not committed yet may still use memory that nobody holds. This is safe for later
/// launches, and the host waits before it writes.
#[derive(Clone)]
pub struct MetalMemory(Retained<ProtocolObject<dyn MTLBuffer>>);

// SAFETY: any thread may use buffers. Their contents are written through an exclusive reference, or by launches, whose caller
// guarantees that nobody else uses them meanwhile.
unsafe impl Send for MetalMemory {}
// SAFETY: as above.
unsafe impl Sync for MetalMemory {}

impl MetalMemory {
    fn contents(&self) -> NonNull<u8> {
        self.0.contents().cast()
    }
}

impl Metal {
    /// A queue of this Mac's GPU, with its kernels compiled; the same one each time.
    ///
    /// # Errors
    /// [`GpuError::Missing`] if there is no GPU, [`GpuError::Kernel`] with the compiler's message if it rejects a kernel.
    pub fn new() -> Result<Self, GpuError> {
        static METAL: OnceLock<Result<Metal, GpuError>> = OnceLock::new();
        METAL.get_or_init(|| autoreleasepool(|_| Self::open())).clone()
    }

    fn open() -> Result<Self, GpuError> {
        let missing = |what: &str| GpuError::Missing(format!("{what}; use `cpu` or `auto`"));
        let device =
            MTLCreateSystemDefaultDevice().ok_or_else(|| missing("this Mac has no GPU that Metal supports"))?;
        let options = MTLCompileOptions::new();
        // Softmax and erf at full precision, and sums in source order.
        #[allow(deprecated, reason = "the replacement needs macOS 15")]
        options.setFastMathEnabled(false);
        let source: String =
            metal_source::FILES.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}\n")).collect();
        let library = device
            .newLibraryWithSource_options_error(&NSString::from_str(&source), Some(&options))
            .map_err(|e| GpuError::Kernel { kernel: "all".into(), reason: e.localizedDescription().to_string() })?;
        let queue = Queue::new(&device)?;
        Ok(Self { gpu: Arc::new(Gpu { device, library, pipelines: Mutex::default() }), queue: Arc::new(queue) })
    }
}

impl Gpu {
    fn pipeline(&self, kernel: &str) -> Result<Retained<ProtocolObject<dyn MTLComputePipelineState>>, GpuError> {
        let mut pipelines = self.pipelines.lock();
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
        // Kernels assume simdgroups of 32 lanes, which every Apple GPU has.
        if pipeline.threadExecutionWidth() != 32 {
            return Err(failed(format!(
                "this GPU's simdgroups have {} lanes, expected 32",
                pipeline.threadExecutionWidth()
            )));
        }
        pipelines.insert(kernel.into(), pipeline.clone());
        Ok(pipeline)
    }

    /// New zeroed memory.
    fn allocate(&self, bytes: usize) -> Result<MetalMemory, GpuError> {
        let options = MTLResourceOptions::StorageModeShared;
        let memory = autoreleasepool(|_| self.device.newBufferWithLength_options(bytes, options));
        memory.map(MetalMemory).ok_or_else(|| {
            let (most, used) = (self.device.recommendedMaxWorkingSetSize(), self.device.currentAllocatedSize());
            let free = usize::try_from(most).map_or(0, |most| most.saturating_sub(used));
            GpuError::OutOfMemory { memory: MemoryKind::Device, bytes, free: Some(free) }
        })
    }
}

impl Queue {
    fn new(device: &ProtocolObject<dyn MTLDevice>) -> Result<Self, GpuError> {
        let commands =
            device.newCommandQueue().ok_or_else(|| GpuError::Lost("cannot create a command queue".into()))?;
        Ok(Self { commands, pending: Mutex::default(), recorder: Recorder::default() })
    }

    /// Commits pending launches, and waits for everything that was committed.
    fn wait(&self) -> Result<(), GpuError> {
        // Held until the end, so that the next caller does not overtake.
        let mut pending = self.pending.lock();
        pending.send();
        let failed = |commands: &Retained<ProtocolObject<dyn MTLCommandBuffer>>| {
            commands.waitUntilCompleted();
            commands.status() == MTLCommandBufferStatus::Error
        };
        let Some(commands) = std::mem::take(&mut pending.sent).into_iter().find(failed) else { return Ok(()) };
        let reason = commands.error().map_or("no reason given".into(), |e| e.localizedDescription().to_string());
        Err(GpuError::Lost(reason))
    }

    fn open(&self) -> Result<Open, GpuError> {
        let lost = || GpuError::Lost("cannot create a command buffer".into());
        let commands = self.commands.commandBuffer().ok_or_else(lost)?;
        // Serial: a launch begins after the previous one has ended.
        let encoder = commands.computeCommandEncoder().ok_or_else(lost)?;
        Ok(Open { commands, encoder })
    }
}

impl Metal {
    /// Adds a kernel to the command buffer.
    ///
    /// # Safety
    /// As for [`Device::launch`].
    unsafe fn encode(&self, launch: &OwnedLaunch<MetalMemory>) -> Result<(), GpuError> {
        let pipeline = self.gpu.pipeline(&format!("{}_{}", launch.kernel, launch.element.suffix()))?;
        autoreleasepool(|_| {
            let mut pending = self.queue.pending.lock();
            let open = match pending.open.take() {
                Some(open) => open,
                None => self.queue.open()?,
            };
            let encoder = &pending.open.insert(open).encoder;
            encoder.setComputePipelineState(&pipeline);
            for (i, (memory, _)) in launch.buffers.iter().enumerate() {
                // SAFETY: a kernel has far fewer arguments than the limit of 31; the command buffer retains the buffer.
                unsafe { encoder.setBuffer_offset_atIndex(Some(&memory.0), 0, i) };
            }
            let params = NonNull::from(&launch.params[..]).cast::<c_void>();
            // SAFETY: the slice has this many bytes, which the call copies.
            unsafe { encoder.setBytes_length_atIndex(params, launch.params.len(), launch.buffers.len()) };
            let size = |[width, height, depth]: [u32; 3]| MTLSize {
                width: width as usize,
                height: height as usize,
                depth: depth as usize,
            };
            // The caller guarantees what the kernel does with its arguments.
            encoder.dispatchThreadgroups_threadsPerThreadgroup(size(launch.grid), size(launch.block));
            Ok(())
        })
    }
}

impl Device for Metal {
    type Buffer = MetalBuffer;
    type Mirror = MetalBuffer;
    type Program = Tape<MetalMemory>;
    type Stamp = Moment;

    fn name(&self) -> String {
        self.gpu.device.name().to_string()
    }

    fn capabilities(&self) -> Capabilities {
        metal_source::CAPABILITIES
    }

    fn fork(&self) -> Result<Self, GpuError> {
        let queue = autoreleasepool(|_| Queue::new(&self.gpu.device))?;
        Ok(Self { gpu: Arc::clone(&self.gpu), queue: Arc::new(queue) })
    }

    fn buffer(&self, bytes: usize) -> Result<MetalBuffer, GpuError> {
        ShapeError::at_least("buffer", "bytes", bytes, 1)?;
        // When memory is short, unused memory is freed after a wait, because a command buffer retains what it uses.
        self.queue.recorder.memories.buffer(bytes, |room| self.gpu.allocate(room), || self.finish())
    }

    fn len(&self, buffer: &MetalBuffer) -> usize {
        buffer.len()
    }

    fn write(&self, to: &mut MetalBuffer, bytes: &[u8]) -> Result<(), GpuError> {
        ShapeError::at_least("write", "bytes of the buffer", to.len(), bytes.len())?;
        // Its memory may have belonged to another buffer a moment ago, and a launch may still use it.
        self.finish()?;
        // SAFETY: shared memory of at least this many bytes, borrowed exclusively, which no launch uses any longer.
        unsafe { to.memory().contents().as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn read(&self, from: &MetalBuffer, bytes: &mut [u8]) -> Result<(), GpuError> {
        ShapeError::at_least("read", "bytes of the buffer", from.len(), bytes.len())?;
        self.finish()?;
        // SAFETY: shared memory of at least this many bytes, whose launches were waited for.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(from.memory().contents().as_ptr(), bytes.len()) };
        Ok(())
    }

    fn mirror(&self, bytes: usize) -> Result<MetalBuffer, GpuError> {
        let mirror = self.buffer(bytes)?;
        // Its memory may have belonged to another buffer a moment ago, and a launch may still use it.
        self.finish()?;
        Ok(mirror)
    }

    fn device_side<'a>(&self, mirror: &'a MetalBuffer) -> &'a MetalBuffer {
        mirror
    }

    fn host_side(&self, mirror: &MetalBuffer) -> NonNull<u8> {
        mirror.memory().contents()
    }

    unsafe fn copy_in(&self, _: &MetalBuffer) -> Result<(), GpuError> {
        Ok(())
    }

    unsafe fn copy_out(&self, _: &MetalBuffer) -> Result<(), GpuError> {
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch<'_, MetalBuffer>) -> Result<(), GpuError> {
        match self.queue.recorder.launch(launch) {
            // SAFETY: guaranteed by the caller.
            Some(launch) => unsafe { self.encode(&launch) },
            None => Ok(()),
        }
    }

    fn finish(&self) -> Result<(), GpuError> {
        self.queue.recorder.may_wait("finish")?;
        autoreleasepool(|_| self.queue.wait())
    }

    fn trim(&self) -> Result<(), GpuError> {
        self.finish()?;
        self.queue.recorder.memories.trim();
        Ok(())
    }

    fn record<T, E: From<GpuError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<(Tape<MetalMemory>, T), E> {
        self.queue.recorder.record(work)
    }

    unsafe fn start(&self, program: &Tape<MetalMemory>) -> Result<(), GpuError> {
        self.queue.recorder.may_wait("start")?;
        program.steps.iter().try_for_each(|step| match step {
            // SAFETY: guaranteed by the caller that recorded it, and the tape keeps the memory.
            Step::Launch(launch) => unsafe { self.encode(launch) },
            Step::Stamp(moment) => self.finish().map(|()| moment.note()),
        })?;
        // Commit now, so that it runs while the host prepares the next frame.
        autoreleasepool(|_| self.queue.pending.lock().send());
        Ok(())
    }

    fn stamp(&self) -> Result<Moment, GpuError> {
        self.queue.recorder.stamp(|| self.finish())
    }

    fn between(&self, begin: &Moment, end: &Moment) -> Result<f64, GpuError> {
        begin.until(end)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // An encoder must end before it is dropped, and launches must end before their memory is reused. Errors are ignored here.
        let _ = autoreleasepool(|_| self.wait());
    }
}
