//! GPUs: one host side for CUDA, Metal and their emulation on the CPU.
//!
//! A kernel's twins lie in its folder: `<op>.cu` and `<op>.metal`, one text in two languages, and `gpu.rs`, which launches either as a
//! safe function: it checks shapes and computes grid and parameters, once, so that there is nothing between the two that could drift.
//! A [`Device`] only knows memory and how to start a kernel by its name.
//!
//! # Contract between `gpu.rs` and a kernel
//!
//! An entry is `<kernel>_f32` or `<kernel>_f16`, by the element that maps are stored in; whatever is added up is added in f32. Its
//! arguments are the buffers in order and the parameters last: in CUDA a struct by value, in Metal a `constant` reference at the
//! index after the last buffer. An absent buffer is passed as any other, with its flag off. Fields of parameters are 32 bits wide.
//!
//! # Layers
//!
//! Nothing in this folder knows an operation. Operations are built on it, and choose among their kernels by what the device reports of
//! itself ([`Capabilities`]).

#[macro_use]
mod params;
mod cuda;
#[cfg(any(test, feature = "emulation"))]
pub mod emulated;
mod frame;
mod maps;
mod memories;
#[cfg(target_os = "macos")]
mod metal;
#[cfg(any(test, feature = "emulation", target_os = "macos"))]
mod metal_source;
#[cfg(any(test, feature = "emulation", target_os = "macos"))]
mod tape;

pub use cuda::{Cuda, CudaBuffer};
pub use frame::{Frame, Io};
pub use maps::{CHANNEL_STRIDE, GpuElement, GpuMaps, GpuShape, GpuVector};
#[cfg(target_os = "macos")]
pub use metal::{Metal, MetalBuffer};

use std::ptr::NonNull;

use crate::ShapeError;

/// Threads of a block (threadgroup), unless a kernel says otherwise.
pub const BLOCK: u32 = 256;

/// A queue of a GPU, or of its emulation on the CPU: launches, copies, reads and writes happen in the order in which they are asked for.
/// Clones are the same queue.
pub trait Device: Clone + Send + Sync {
    /// Device memory; goes back to a pool when it is dropped, in the order of launches. Other queues of the device may read it.
    type Buffer: Send + Sync;
    /// Memory of host and device: on a GPU with memory of its own a pinned copy and a device copy, else the same memory.
    type Mirror: Send + Sync;
    /// Work that was recorded, and the memory that it works in.
    type Program: Send + Sync;
    /// A moment on the device.
    type Stamp: Send + Sync;

    /// What it is called, for people.
    fn name(&self) -> String;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Another queue of the same device, with a pool of its own.
    fn fork(&self) -> Result<Self, GpuError>;

    /// Memory of unspecified contents, of at least one byte; aligned for vectors of sixteen bytes.
    fn buffer(&self, bytes: usize) -> Result<Self::Buffer, GpuError>;

    /// How many bytes were asked for.
    fn len(&self, buffer: &Self::Buffer) -> usize;

    /// Copies `bytes` to the beginning of a buffer; [`GpuError::Shape`] where they are more than it holds. Other queues see them when
    /// this one has finished.
    fn write(&self, to: &mut Self::Buffer, bytes: &[u8]) -> Result<(), GpuError>;

    /// Waits for all launches, then copies the beginning of a buffer; [`GpuError::Shape`] where it holds fewer `bytes`.
    fn read(&self, from: &Self::Buffer, bytes: &mut [u8]) -> Result<(), GpuError>;

    /// Memory of both sides, of at least one byte; initialised, but with what is not said.
    fn mirror(&self, bytes: usize) -> Result<Self::Mirror, GpuError>;

    /// What kernels see of it.
    fn device_side<'a>(&self, mirror: &'a Self::Mirror) -> &'a Self::Buffer;

    /// Where the host sees it; as many bytes as were asked for.
    fn host_side(&self, mirror: &Self::Mirror) -> NonNull<u8>;

    /// Makes the device see what the host wrote. Where both sides are the same memory there is nothing to do.
    ///
    /// # Safety
    /// The mirror lives, and the host leaves its side alone, until the queue has finished; when this is recorded, until the program has.
    unsafe fn copy_in(&self, mirror: &Self::Mirror) -> Result<(), GpuError>;

    /// Makes the host see what the device wrote, when the queue has finished.
    ///
    /// # Safety
    /// As for [`copy_in`](Self::copy_in).
    unsafe fn copy_out(&self, mirror: &Self::Mirror) -> Result<(), GpuError>;

    /// Starts a kernel; need not wait for it.
    ///
    /// # Safety
    /// Grid, buffers and parameters keep every access of the kernel inside the buffers, and no buffer that it writes is among the
    /// others that it reads or writes.
    unsafe fn launch(&self, launch: &Launch<'_, Self::Buffer>) -> Result<(), GpuError>;

    /// Waits for all launches and copies.
    fn finish(&self) -> Result<(), GpuError>;

    /// Waits, and frees the memory of this queue that nobody uses.
    fn trim(&self) -> Result<(), GpuError>;

    /// Records what `work` launches and copies in place of doing it. Memory that it asks for is the program's; memory that it only
    /// uses is kept for the program. Nobody else may use the queue meanwhile, and `work` can neither read, write nor wait.
    fn record<T, E: From<GpuError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<(Self::Program, T), E>;

    /// Starts what was recorded on this queue; need not wait for it.
    ///
    /// # Safety
    /// What [`copy_in`](Self::copy_in) and [`copy_out`](Self::copy_out) say of the mirrors whose copies were recorded.
    unsafe fn start(&self, program: &Self::Program) -> Result<(), GpuError>;

    /// The moment when the queue comes to this point.
    fn stamp(&self) -> Result<Self::Stamp, GpuError>;

    /// Milliseconds from one to the next, once the queue has come by both.
    fn between(&self, begin: &Self::Stamp, end: &Self::Stamp) -> Result<f64, GpuError>;
}

/// What a device can do. Operations choose among their kernels by it.
///
/// ```
/// use rtformer_kernels::gpu::{Capabilities, MatrixUnits};
///
/// // A device of which nothing is known runs the plain kernels.
/// assert_eq!(Capabilities::default().matrix_units, MatrixUnits::None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Multiprocessors (cores of the GPU), each of which runs at least one block at a time; 0 if unknown.
    pub multiprocessors: u32,
    /// The units that multiply matrices.
    pub matrix_units: MatrixUnits,
}

/// Units of a device that multiply small matrices, and the kernels that it therefore has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MatrixUnits {
    /// None that our kernels use.
    #[default]
    None,
    /// NVIDIA's tensor cores: products of f16, sums of f32.
    TensorCores,
    /// Matrices of a Metal simdgroup: products of f16 or f32, sums of f32.
    Simdgroups,
}

/// One start of a kernel.
#[derive(Debug)]
pub struct Launch<'a, B> {
    /// The entry's name without its element.
    pub kernel: &'static str,
    /// The element that maps are stored in.
    pub element: GpuElement,
    /// Blocks (threadgroups).
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Arguments, in order.
    pub buffers: &'a [&'a B],
    /// The last argument.
    pub params: &'a [u8],
}

/// What a GPU can refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// There is no such device, or its driver is missing or too old.
    #[error("{0}")]
    Missing(String),
    /// No more memory, on the device or pinned on the host.
    #[error("{bytes} bytes of {memory} were needed{}; use a smaller size or batch", free_text(*free))]
    OutOfMemory {
        /// Which memory.
        memory: MemoryKind,
        /// The bytes that were asked for.
        bytes: usize,
        /// The bytes that were free, if the device reports them.
        free: Option<usize>,
    },
    /// An argument does not fit.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A kernel could not be built, found or started, or failed.
    #[error("kernel `{kernel}`: {reason}")]
    Kernel {
        /// Its entry's name.
        kernel: String,
        /// What the driver or compiler said.
        reason: String,
    },
    /// A call to the driver failed.
    #[error("{call}: {reason}")]
    Driver {
        /// Its name.
        call: &'static str,
        /// What the driver said.
        reason: String,
    },
    /// The device failed, and with it everything on it.
    #[error("the device was lost: {0}; start again, or use `--device cpu`")]
    Lost(String),
}

/// Memory that can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// The device's own.
    Device,
    /// The host's, pinned so that the device can copy from and to it.
    Pinned,
}

impl std::fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Device => "memory for the device",
            Self::Pinned => "pinned host memory",
        })
    }
}

fn free_text(free: Option<usize>) -> String {
    free.map_or_else(String::new, |free| format!(", {free} were free"))
}

/// Blocks of [`BLOCK`] threads that make at least `threads`.
pub(crate) fn blocks(threads: usize) -> u32 {
    threads.div_ceil(BLOCK as usize) as u32
}

#[cfg(test)]
mod tests;
