//! GPUs: one host side for CUDA, Metal and their emulation on the CPU.
//!
//! Each kernel's folder holds two versions of the same code in two languages (twins), `<op>.cu` and `<op>.metal`, and `gpu.rs`, which
//! launches either as a safe function. `gpu.rs` checks the shapes and computes grid and parameters once, so the two cannot drift apart.
//! A [`Device`] only knows memory and how to start a kernel by name.
//!
//! # Contract between `gpu.rs` and a kernel
//!
//! An entry is named `<kernel>_f32` or `<kernel>_f16`, after the element type in which maps are stored. Sums are always computed in f32.
//! The arguments are the buffers in order, then the parameters: a struct by value in CUDA, a `constant` reference at the index after
//! the last buffer in Metal. An absent buffer is passed like any other, with its flag off. Fields of parameters are 32 bits wide.
//!
//! # Layers
//!
//! Nothing in this folder knows an operation. Operations are built on top of it, and choose among their kernels by what the device
//! reports ([`Capabilities`]).

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

/// Threads per block (threadgroup), unless a kernel says otherwise.
pub const BLOCK: u32 = 256;

/// A queue of a GPU, or of its emulation on the CPU. Launches, copies, reads and writes happen in the order in which they are requested.
/// Clones are the same queue.
pub trait Device: Clone + Send + Sync {
    /// Device memory. When dropped, it returns to a pool, in launch order. Other queues of the device may read it.
    type Buffer: Send + Sync;
    /// Memory visible to host and device: a pinned copy and a device copy on a GPU with its own memory, otherwise the same memory.
    type Mirror: Send + Sync;
    /// Recorded work, and the memory that it uses.
    type Program: Send + Sync;
    /// A point in time on the device.
    type Stamp: Send + Sync;

    /// The device's human-readable name.
    fn name(&self) -> String;

    /// What the device can do.
    fn capabilities(&self) -> Capabilities;

    /// Another queue of the same device, with its own pool.
    fn fork(&self) -> Result<Self, GpuError>;

    /// Uninitialised memory of at least one byte, aligned for 16-byte vectors.
    fn buffer(&self, bytes: usize) -> Result<Self::Buffer, GpuError>;

    /// The number of bytes that were requested.
    fn len(&self, buffer: &Self::Buffer) -> usize;

    /// Copies `bytes` to the beginning of a buffer; returns [`GpuError::Shape`] if they do not fit. Other queues see them once this one
    /// has finished.
    fn write(&self, to: &mut Self::Buffer, bytes: &[u8]) -> Result<(), GpuError>;

    /// Waits for all launches, then copies the beginning of a buffer; returns [`GpuError::Shape`] if it holds fewer `bytes`.
    fn read(&self, from: &Self::Buffer, bytes: &mut [u8]) -> Result<(), GpuError>;

    /// Memory visible to both sides, of at least one byte. It is initialised, but with unspecified contents.
    fn mirror(&self, bytes: usize) -> Result<Self::Mirror, GpuError>;

    /// The side that kernels see.
    fn device_side<'a>(&self, mirror: &'a Self::Mirror) -> &'a Self::Buffer;

    /// The side that the host sees; as many bytes as were requested.
    fn host_side(&self, mirror: &Self::Mirror) -> NonNull<u8>;

    /// Makes the host's writes visible to the device. A no-op if both sides share the same memory.
    ///
    /// # Safety
    /// The mirror must live, and the host must not access its side, until the queue has finished; if recorded, until the program has.
    unsafe fn copy_in(&self, mirror: &Self::Mirror) -> Result<(), GpuError>;

    /// Makes the device's writes visible to the host once the queue has finished.
    ///
    /// # Safety
    /// As for [`copy_in`](Self::copy_in).
    unsafe fn copy_out(&self, mirror: &Self::Mirror) -> Result<(), GpuError>;

    /// Starts a kernel; may return before it completes.
    ///
    /// # Safety
    /// Grid, buffers and parameters must keep every access of the kernel inside the buffers, and a buffer that it writes must not be one
    /// of the others that it reads or writes.
    unsafe fn launch(&self, launch: &Launch<'_, Self::Buffer>) -> Result<(), GpuError>;

    /// Waits for all launches and copies.
    fn finish(&self) -> Result<(), GpuError>;

    /// Waits, then frees this queue's unused memory.
    fn trim(&self) -> Result<(), GpuError>;

    /// Records what `work` launches and copies instead of running it. Memory that `work` allocates belongs to the program; memory that it
    /// only uses is kept alive for the program. Nobody else may use the queue meanwhile, and `work` cannot read, write or wait.
    fn record<T, E: From<GpuError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<(Self::Program, T), E>;

    /// Starts recorded work on this queue; may return before it completes.
    ///
    /// # Safety
    /// The requirements of [`copy_in`](Self::copy_in) and [`copy_out`](Self::copy_out) hold for the mirrors whose copies were recorded.
    unsafe fn start(&self, program: &Self::Program) -> Result<(), GpuError>;

    /// The time at which the queue reaches this point.
    fn stamp(&self) -> Result<Self::Stamp, GpuError>;

    /// Milliseconds from `begin` to `end`, once the queue has passed both.
    fn between(&self, begin: &Self::Stamp, end: &Self::Stamp) -> Result<f64, GpuError>;
}

/// What a device can do. Operations use it to choose among their kernels.
///
/// ```
/// use rtformer_kernels::gpu::{Capabilities, MatrixUnits};
///
// A device with unknown capabilities runs the plain kernels.
/// assert_eq!(Capabilities::default().matrix_units, MatrixUnits::None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Multiprocessors (cores of the GPU), each of which runs at least one block at a time; 0 if unknown.
    pub multiprocessors: u32,
    /// The units that multiply matrices.
    pub matrix_units: MatrixUnits,
}

/// Units of a device that multiply small matrices; they determine which kernels it can run.
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

/// One kernel launch.
#[derive(Debug)]
pub struct Launch<'a, B> {
    /// The entry's name without the element suffix.
    pub kernel: &'static str,
    /// The element type in which maps are stored.
    pub element: GpuElement,
    /// Number of blocks (threadgroups).
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: [u32; 3],
    /// Arguments, in order.
    pub buffers: &'a [&'a B],
    /// The last argument.
    pub params: &'a [u8],
}

/// Errors of a GPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// There is no such device, or its driver is missing or too old.
    #[error("{0}")]
    Missing(String),
    /// Out of memory, on the device or pinned on the host.
    #[error("not enough memory: needed {bytes} bytes of {memory}{}; use a smaller size or batch", free_text(*free))]
    OutOfMemory {
        /// Which memory.
        memory: MemoryKind,
        /// The number of bytes that were requested.
        bytes: usize,
        /// The number of free bytes, if the device reports it.
        free: Option<usize>,
    },
    /// An argument has the wrong shape.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A kernel could not be built, found or started, or it failed.
    #[error("kernel `{kernel}`: {reason}")]
    Kernel {
        /// The entry's name.
        kernel: String,
        /// The message of the driver or compiler.
        reason: String,
    },
    /// A call to the driver failed.
    #[error("{call}: {reason}")]
    Driver {
        /// The call's name.
        call: &'static str,
        /// The driver's message.
        reason: String,
    },
    /// The device failed; everything on it is lost.
    #[error("the device was lost: {0}; restart the program, or use `--device cpu`")]
    Lost(String),
}

/// Memory that can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// The device's own memory.
    Device,
    /// Host memory, pinned so that the device can copy from and to it.
    Pinned,
}

impl std::fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Device => "device memory",
            Self::Pinned => "pinned host memory",
        })
    }
}

fn free_text(free: Option<usize>) -> String {
    free.map_or_else(String::new, |free| format!(", {free} were free"))
}

/// The number of blocks of [`BLOCK`] threads that cover at least `threads`.
pub(crate) fn blocks(threads: usize) -> u32 {
    threads.div_ceil(BLOCK as usize) as u32
}

#[cfg(test)]
mod tests;
