//! An emulated GPU: kernels compiled by the host's C++ compiler against a small shim of their language, and run on the CPU.
//!
//! It is slow and strict (`fibers.h`), and for tests only. Memory is full of NaN until written, and lies between guards that are
//! checked after every launch.

mod compile;
mod memory;

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use libloading::{Library, Symbol};

use super::tape::{Moment, OwnedLaunch, Recorder, Step, Tape};
use super::{Capabilities, Device, GpuError, Launch, metal_source};
use crate::ShapeError;

pub use compile::{Dialect, Source};
pub(super) use compile::{built, compiled};
pub use memory::{EmulatedBuffer, Memory};

/// An emulated GPU, which runs everything synchronously. Clones are the same queue.
#[derive(Clone)]
pub struct Emulated {
    library: Arc<Library>,
    dialect: Dialect,
    /// The index of its variant in the library.
    variant: usize,
    /// The number of launches so far. It seeds the order of threads and blocks, so no two launches use the same order.
    launches: Arc<AtomicU64>,
    capabilities: Capabilities,
    recorder: Arc<Recorder<Memory>>,
    /// The number of allocations so far, so that neighbouring buffers have different poison.
    made: Arc<AtomicU64>,
}

impl Emulated {
    /// A Mac's GPU with our kernels. Returns `None` and prints a line if there is no C++ compiler.
    ///
    /// # Panics
    /// If the kernels do not compile.
    pub fn metal() -> Option<Self> {
        static METAL: OnceLock<Option<Emulated>> = OnceLock::new();
        let metal = METAL.get_or_init(|| {
            let sources: Vec<_> =
                metal_source::FILES.iter().map(|&(name, text)| Source { name, text, compiled: true }).collect();
            let metal = Self::new(Dialect::Metal, &sources).unwrap_or_else(|e| panic!("{e}"));
            metal.map(|metal| metal.with(metal_source::CAPABILITIES))
        });
        if metal.is_none() {
            println!("SKIPPED: no C++ compiler (CXX, c++, g++, clang++) for the Metal emulation");
        }
        metal.clone()
    }

    /// A GPU with these kernels; `None` if there is no C++ compiler.
    ///
    /// # Errors
    /// [`GpuError::Kernel`] with the compiler's message, or if a file cannot be written or loaded.
    pub fn new(dialect: Dialect, sources: &[Source<'_>]) -> Result<Option<Self>, GpuError> {
        Ok(Self::variants(dialect, &[sources.to_vec()])?.and_then(|mut all| all.pop()))
    }

    /// A GPU for each variant of some kernels, all compiled together; `None` if there is no C++ compiler.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn variants(dialect: Dialect, variants: &[Vec<Source<'_>>]) -> Result<Option<Vec<Self>>, GpuError> {
        let Some(finished) = compiled(dialect, variants)? else { return Ok(None) };
        let failed = |e| GpuError::Kernel { kernel: format!("{dialect:?}"), reason: format!("cannot be loaded: {e}") };
        // SAFETY: our own library, whose initialisers only fill a list of entries.
        let library = unsafe { Library::new(&finished) }.map_err(failed)?;
        let library = Arc::new(library);
        let variant = |variant| Self {
            library: Arc::clone(&library),
            dialect,
            variant,
            launches: Arc::default(),
            capabilities: Capabilities::default(),
            recorder: Arc::default(),
            made: Arc::default(),
        };
        Ok(Some((0..variants.len()).map(variant).collect()))
    }

    /// The same GPU, which reports these capabilities; by default it reports none.
    pub fn with(self, capabilities: Capabilities) -> Self {
        Self { capabilities, ..self }
    }
}

impl std::fmt::Debug for Emulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Emulated({:?}, variant {})", self.dialect, self.variant)
    }
}

impl Emulated {
    /// Runs a kernel, then checks the guards.
    ///
    /// # Safety
    /// As for [`Device::launch`].
    unsafe fn run(&self, launch: &OwnedLaunch<Memory>) -> Result<(), GpuError> {
        type Entry = unsafe extern "C" fn(
            *const c_char,
            *const u32,
            *const u32,
            *const *mut u8,
            u32,
            *const c_void,
            u32,
            u64,
            *mut c_char,
            usize,
        ) -> c_int;
        let kernel = format!("{}_{}", launch.kernel, launch.element.suffix());
        let failed = |reason: String| GpuError::Kernel { kernel: kernel.clone(), reason };
        let name = CString::new(format!("{}.{kernel}", self.variant)).map_err(|e| failed(e.to_string()))?;
        let buffers: Vec<_> = launch.buffers.iter().map(|(memory, _)| memory.start()).collect();
        // Aligned as the kernel may expect.
        let mut params = vec![0u128; launch.params.len().div_ceil(16)];
        bytemuck::cast_slice_mut(&mut params)[..launch.params.len()].copy_from_slice(&launch.params);
        let mut text = [0u8; 256];
        let seed = self.launches.fetch_add(1, Ordering::Relaxed);
        // SAFETY: `fibers.h` defines this function with these parameters, and it lives as long as the library.
        let entry: Symbol<'_, Entry> =
            unsafe { self.library.get("emulation_launch") }.map_err(|e| failed(e.to_string()))?;
        // SAFETY: every pointer is to memory that lives during the call and has the stated length; the caller guarantees that the kernel
        // stays inside its buffers.
        let code = unsafe {
            entry(
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.block.as_ptr(),
                buffers.as_ptr(),
                buffers.len() as u32,
                params.as_ptr().cast(),
                launch.params.len() as u32,
                seed,
                text.as_mut_ptr().cast(),
                text.len(),
            )
        };
        if code != 0 {
            let reason = text.split(|byte| *byte == 0).next().unwrap_or_default();
            return Err(failed(String::from_utf8_lossy(reason).into_owned()));
        }
        match launch.buffers.iter().position(|(memory, len)| !memory.is_sound(*len)) {
            Some(i) => Err(failed(format!("it wrote outside buffer {i}"))),
            None => Ok(()),
        }
    }
}

impl Device for Emulated {
    type Buffer = EmulatedBuffer;
    type Mirror = EmulatedBuffer;
    type Program = Tape<Memory>;
    type Stamp = Moment;

    fn name(&self) -> String {
        format!("emulated {:?}", self.dialect)
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn fork(&self) -> Result<Self, GpuError> {
        Ok(Self { recorder: Arc::default(), ..self.clone() })
    }

    fn buffer(&self, bytes: usize) -> Result<EmulatedBuffer, GpuError> {
        ShapeError::at_least("buffer", "bytes", bytes, 1)?;
        let buffer = self.recorder.memories.buffer(
            bytes,
            |room| Ok(Memory::new(room, self.made.fetch_add(1, Ordering::Relaxed))),
            || Ok(()),
        )?;
        buffer.memory().poison();
        Ok(buffer)
    }

    fn len(&self, buffer: &EmulatedBuffer) -> usize {
        buffer.len()
    }

    fn write(&self, to: &mut EmulatedBuffer, bytes: &[u8]) -> Result<(), GpuError> {
        ShapeError::at_least("write", "bytes of the buffer", to.len(), bytes.len())?;
        self.recorder.may_wait("write")?;
        // SAFETY: the buffer is borrowed exclusively, and is at least this long.
        unsafe { std::slice::from_raw_parts_mut(to.memory().start(), bytes.len()) }.copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, from: &EmulatedBuffer, bytes: &mut [u8]) -> Result<(), GpuError> {
        ShapeError::at_least("read", "bytes of the buffer", from.len(), bytes.len())?;
        self.recorder.may_wait("read")?;
        bytes.copy_from_slice(from.memory().bytes(bytes.len()));
        Ok(())
    }

    fn mirror(&self, bytes: usize) -> Result<EmulatedBuffer, GpuError> {
        self.buffer(bytes)
    }

    fn device_side<'a>(&self, mirror: &'a EmulatedBuffer) -> &'a EmulatedBuffer {
        mirror
    }

    fn host_side(&self, mirror: &EmulatedBuffer) -> NonNull<u8> {
        NonNull::new(mirror.memory().start()).unwrap_or(NonNull::dangling())
    }

    unsafe fn copy_in(&self, _: &EmulatedBuffer) -> Result<(), GpuError> {
        Ok(())
    }

    unsafe fn copy_out(&self, _: &EmulatedBuffer) -> Result<(), GpuError> {
        Ok(())
    }

    unsafe fn launch(&self, launch: &Launch<'_, EmulatedBuffer>) -> Result<(), GpuError> {
        match self.recorder.launch(launch) {
            // SAFETY: guaranteed by the caller.
            Some(launch) => unsafe { self.run(&launch) },
            None => Ok(()),
        }
    }

    fn finish(&self) -> Result<(), GpuError> {
        self.recorder.may_wait("finish")
    }

    fn trim(&self) -> Result<(), GpuError> {
        self.finish()?;
        self.recorder.memories.trim();
        Ok(())
    }

    fn record<T, E: From<GpuError>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<(Tape<Memory>, T), E> {
        self.recorder.record(work)
    }

    unsafe fn start(&self, program: &Tape<Memory>) -> Result<(), GpuError> {
        self.recorder.may_wait("start")?;
        program.steps.iter().try_for_each(|step| match step {
            Step::Launch(launch) => {
                launch.buffers.iter().for_each(|(memory, len)| memory.poison_behind(*len));
                // SAFETY: guaranteed by the caller that recorded it, and the tape keeps the memory.
                unsafe { self.run(launch) }
            }
            Step::Stamp(moment) => {
                moment.note();
                Ok(())
            }
        })
    }

    fn stamp(&self) -> Result<Moment, GpuError> {
        self.recorder.stamp(|| Ok(()))
    }

    fn between(&self, begin: &Moment, end: &Moment) -> Result<f64, GpuError> {
        begin.until(end)
    }
}
