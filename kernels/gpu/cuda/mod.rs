//! NVIDIA GPUs, through the driver alone: it is looked for at run time, and compiles the PTX that lies beside each `.cu`.
//!
//! One stream a device: launches, copies in and copies out happen in the order in which they are asked for, by whichever thread.

mod driver;
mod pool;
mod ptx;
#[cfg(any(test, feature = "emulation"))]
mod source;
#[cfg(test)]
mod tests;

pub use pool::CudaBuffer;

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUjit_option, CUresult};

use self::driver::{attribute, check};
use self::pool::Pool;
use super::conv::{ConvKernel, ConvParams};
use super::cross_attend::{AttendKernel, CrossAttendParams};
use super::{Device, GpuElement, GpuError, Launch};
use crate::ShapeError;

/// An address in device memory.
type Memory = sys::CUdeviceptr;

/// One NVIDIA GPU. Cloning it shares it.
#[derive(Clone)]
pub struct Cuda {
    context: Arc<Context>,
    name: String,
    /// Compute capability, as `90` for 9.0.
    capability: i32,
    /// How many blocks run at once at the least.
    multiprocessors: u32,
}

/// The driver's state for this process on one device: context, stream, memory, compiled kernels.
struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
    stream: sys::CUstream,
    pool: Pool,
    /// PTX of the device's target, by file.
    target: usize,
    kernels: Mutex<Kernels>,
}

#[derive(Default)]
struct Kernels {
    /// By the file's number in [`ptx::FILES`].
    modules: HashMap<usize, sys::CUmodule>,
    /// By kernel and element.
    entries: HashMap<(&'static str, &'static str), sys::CUfunction>,
}

// SAFETY: contexts, streams, modules and functions are the driver's handles, which any thread may use; it locks what it must.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Cuda {
    /// Opens GPU `number`, as the driver counts them.
    ///
    /// - errors: [`GpuError::Missing`] without a driver, with one that is too old, without such a GPU, or with one that is too old
    pub fn open(number: usize) -> Result<Self, GpuError> {
        let Found { device, name, capability, multiprocessors, target } = Found::new(number)?;
        Ok(Self { context: Arc::new(Context::new(device, target)?), name, capability, multiprocessors })
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

    fn name(&self) -> String {
        self.name.clone()
    }

    fn buffer(&self, bytes: usize) -> Result<CudaBuffer, GpuError> {
        CudaBuffer::new(&self.context, bytes)
    }

    fn len(&self, buffer: &CudaBuffer) -> usize {
        buffer.len()
    }

    fn write(&self, to: &mut CudaBuffer, bytes: &[u8]) -> Result<(), GpuError> {
        ShapeError::ensure(
            bytes.len() <= to.len(),
            "write",
            "bytes",
            bytes.len(),
            format_args!("at most {}", to.len()),
        )?;
        self.context.enter()?;
        // SAFETY: the buffer has room for them, and they may be used again when the call returns: pageable memory is staged.
        let code =
            unsafe { sys::cuMemcpyHtoDAsync_v2(to.at(), bytes.as_ptr().cast(), bytes.len(), self.context.stream) };
        check("cuMemcpyHtoD", code)
    }

    fn read(&self, from: &CudaBuffer, bytes: &mut [u8]) -> Result<(), GpuError> {
        let fits = bytes.len() <= from.len();
        ShapeError::ensure(fits, "read", "bytes", bytes.len(), format_args!("at most {}", from.len()))?;
        self.context.enter()?;
        // SAFETY: the buffer has as many, and `bytes` outlives the copy: it is waited for.
        let code = unsafe {
            sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from.at(), bytes.len(), self.context.stream)
        };
        let copied = check("cuMemcpyDtoH", code);
        self.context.finish().and(copied)
    }

    unsafe fn launch(&self, launch: &Launch<'_, CudaBuffer>) -> Result<(), GpuError> {
        let foreign = launch.buffers.iter().any(|buffer| !buffer.is_of(&self.context));
        ShapeError::ensure(!foreign, launch.kernel, "device of the buffers", "another", "the one that launches")?;
        self.context.enter()?;
        let entry = self.context.entry(launch.kernel, launch.element)?;
        let mut addresses: Vec<Memory> = launch.buffers.iter().map(|buffer| buffer.at()).collect();
        let pointers = addresses.iter_mut().map(|address| (&raw mut *address).cast::<c_void>());
        let mut arguments: Vec<_> = pointers.chain([launch.params.as_ptr().cast_mut().cast()]).collect();
        let ([x, y, z], [bx, by, bz]) = (launch.grid, launch.block);
        // SAFETY: the entry takes these buffers and parameters, as the caller promises; the driver copies all of them ahead of
        // returning, and only reads the parameters.
        let code = unsafe {
            let (stream, none) = (self.context.stream, std::ptr::null_mut());
            sys::cuLaunchKernel(entry, x, y, z, bx, by, bz, 0, stream, arguments.as_mut_ptr(), none)
        };
        check("cuLaunchKernel", code)
    }

    fn finish(&self) -> Result<(), GpuError> {
        self.context.enter()?;
        self.context.finish()
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

impl Context {
    fn new(device: sys::CUdevice, target: usize) -> Result<Self, GpuError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: the device is one of the driver's; the call writes one handle, which `drop` gives back.
        check("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut handle, device) })?;
        let stream = std::ptr::null_mut();
        let mut new = Self { device, handle, stream, pool: Pool::default(), target, kernels: Mutex::default() };
        new.enter()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current; the call writes one handle, which `drop` gives back.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&raw mut new.stream, flags) })?;
        Ok(new)
    }

    /// Makes the context the calling thread's.
    fn enter(&self) -> Result<(), GpuError> {
        // SAFETY: the context is retained as long as `self` lives.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.handle) })
    }

    /// Waits for all that was asked for.
    fn finish(&self) -> Result<(), GpuError> {
        // SAFETY: the stream lives as long as `self`.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream) })
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
        // Errors are not for anybody here: a lost device says so to whoever used it.
        if self.enter().is_ok() {
            let _ = self.finish();
            for memory in self.pool.drain() {
                // SAFETY: `cuMemAlloc` gave it, and nobody holds it: buffers keep the context alive.
                let _ = unsafe { sys::cuMemFree_v2(memory) };
            }
            if !self.stream.is_null() {
                // SAFETY: it was created in `new`, and has no more work.
                let _ = unsafe { sys::cuStreamDestroy_v2(self.stream) };
            }
        }
        // Modules go with the context, when the last who retains it lets go.
        // SAFETY: it was retained in `new`, once.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}
