//! A GPU that is not there: kernels compiled by the host's C++ compiler against a small shim of their language, and run on the CPU.
//!
//! Slow and strict (`emulation/fibers.h`): it is for tests. Memory is full of NaN until it is written, and stands between guards that
//! are looked at after every launch.

use std::cell::UnsafeCell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use libloading::{Library, Symbol};

use super::memories::Pooled;
use super::tape::{Moment, OwnedLaunch, Recorder, Step, Tape};
use super::{Device, GpuElement, GpuError, Launch, conv, cross_attend, metal_source};
use crate::ShapeError;

/// Words of sixteen bytes ahead of a buffer's memory and behind it.
const GUARD: usize = 256;
/// Not a number, in single and in half precision; a memory's own, so that what is read from one's guard shows in another's.
const POISONS: std::ops::RangeInclusive<u16> = 0xffc0..=0xffff;

/// A language that kernels are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `.cu` files; entries are what is `__global__`.
    Cuda,
    /// `.metal` files; entries are what `KERNEL_ENTRY` names.
    Metal,
}

/// A file of kernels.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Source<'a> {
    /// By which others include it.
    pub name: &'a str,
    /// Its contents.
    pub text: &'a str,
    /// Whether it is compiled, or only there to be included.
    pub compiled: bool,
}

/// The shim.
const SHIM: [(&str, &str); 4] = [
    ("fibers.h", include_str!("emulation/fibers.h")),
    ("metal.h", include_str!("emulation/metal.h")),
    ("cuda.h", include_str!("emulation/cuda.h")),
    ("cuda_fp16.h", include_str!("emulation/cuda_fp16.h")),
];

/// A choice between kernels that compute the same, as a real device makes it.
type Choice<P, K> = fn(GpuElement, &P) -> K;

/// An emulated GPU, which does everything at once. Clones are the same queue.
#[derive(Clone)]
pub struct Emulated {
    library: Arc<Library>,
    dialect: Dialect,
    /// Which of the library's kernels.
    variant: usize,
    /// How many there were: no two meet the same order of threads and blocks.
    launches: Arc<AtomicU64>,
    conv_kernel: Choice<conv::ConvParams, conv::ConvKernel>,
    attend_kernel: Choice<cross_attend::CrossAttendParams, cross_attend::AttendKernel>,
    recorder: Arc<Recorder<Memory>>,
    /// How many were made: neighbours have different poison.
    made: Arc<AtomicU64>,
}

/// Memory of an emulated GPU.
pub type EmulatedBuffer = Pooled<Memory>;

/// Words of memory between guards.
#[derive(Clone)]
pub struct Memory(Arc<Words>);

/// And the poison that they are full of.
struct Words(Box<[UnsafeCell<u128>]>, [u8; 2]);

// SAFETY: the memory is written through a shared reference by launches, and by `write`, whose callers promise that nobody else uses it
// meanwhile.
unsafe impl Sync for Words {}

impl Memory {
    fn new(len: usize, number: u64) -> Self {
        let poison = (POISONS.start() + (number % POISONS.len() as u64) as u16).to_ne_bytes();
        let words = std::iter::repeat_with(|| UnsafeCell::new(0)).take(len.div_ceil(16) + 2 * GUARD).collect();
        Self(Arc::new(Words(words, poison)))
    }

    /// The first byte of its memory, aligned to sixteen.
    fn start(&self) -> *mut u8 {
        self.0.0[GUARD..].as_ptr().cast_mut().cast()
    }

    /// All of its words, guards included, as bytes.
    fn all(&self) -> (*mut u8, usize) {
        (self.0.0.as_ptr().cast_mut().cast(), self.0.0.len() * 16)
    }

    /// Forgets what was there.
    fn poison(&self) {
        let (first, len) = self.all();
        // SAFETY: all of its words; it was just handed out, and nobody else has it.
        let all = unsafe { std::slice::from_raw_parts_mut(first, len) };
        all.as_chunks_mut().0.fill(self.0.1);
    }

    /// Forgets what is behind the first `len` bytes: a recording's buffers of nearly one size take turns in one memory.
    fn poison_behind(&self, len: usize) {
        let (first, all) = self.all();
        // SAFETY: all of its words, as bytes; nothing is launched meanwhile.
        let all = unsafe { std::slice::from_raw_parts_mut(first, all) };
        let end = GUARD * 16 + len;
        if len % 2 == 1 {
            all[end] = self.0.1[1];
        }
        all.as_chunks_mut().0[end.div_ceil(2)..].fill(self.0.1);
    }

    fn bytes(&self, len: usize) -> &[u8] {
        // SAFETY: the words between the guards are at least as many bytes as were asked for; nothing is launched meanwhile.
        unsafe { std::slice::from_raw_parts(self.start(), len) }
    }

    /// Whether nothing was written beside its first `len` bytes.
    fn is_sound(&self, len: usize) -> bool {
        let (first, all) = self.all();
        // SAFETY: all of its words, as bytes; nothing is launched meanwhile.
        let all = unsafe { std::slice::from_raw_parts(first, all) };
        let (end, pairs) = (GUARD * 16 + len, all.as_chunks().0);
        let mut guards = pairs[..GUARD * 8].iter().chain(&pairs[end.div_ceil(2)..]);
        guards.all(|pair| *pair == self.0.1) && (len.is_multiple_of(2) || all[end] == self.0.1[1])
    }
}

/// The C++ compiler of this machine.
fn compiler() -> Option<PathBuf> {
    let named = std::env::var_os("CXX").map(PathBuf::from);
    let candidates = named.into_iter().chain(["c++", "g++", "clang++"].map(PathBuf::from));
    candidates
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
}

impl Emulated {
    /// A Mac's GPU with our kernels; `None`, and a line that says so, where there is no C++ compiler.
    ///
    /// # Panics
    /// When they do not compile.
    pub fn metal() -> Option<Self> {
        static METAL: OnceLock<Option<Emulated>> = OnceLock::new();
        let metal = METAL.get_or_init(|| {
            let sources: Vec<_> =
                metal_source::FILES.iter().map(|&(name, text)| Source { name, text, compiled: true }).collect();
            let metal = Self::new(Dialect::Metal, &sources).unwrap_or_else(|e| panic!("{e}"));
            metal.map(|metal| metal.choosing(metal_source::conv_kernel, |_, _| cross_attend::AttendKernel::PLAIN))
        });
        if metal.is_none() {
            println!("SKIPPED: no C++ compiler (CXX, c++, g++, clang++) to emulate Metal with");
        }
        metal.clone()
    }

    /// A GPU with these kernels; `None` where there is no C++ compiler.
    ///
    /// # Errors
    /// [`GpuError::Kernel`] with the compiler's words, or for a file that cannot be written or loaded.
    pub fn new(dialect: Dialect, sources: &[Source<'_>]) -> Result<Option<Self>, GpuError> {
        Ok(Self::variants(dialect, &[sources.to_vec()])?.and_then(|mut all| all.pop()))
    }

    /// A GPU for each variant of some kernels, all compiled together; `None` where there is no C++ compiler.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn variants(dialect: Dialect, variants: &[Vec<Source<'_>>]) -> Result<Option<Vec<Self>>, GpuError> {
        let Some(finished) = compiled(dialect, variants)? else { return Ok(None) };
        let failed = |e| GpuError::Kernel { kernel: format!("{dialect:?}"), reason: format!("cannot be loaded: {e}") };
        // SAFETY: our own library, whose initialisers fill a list of entries and nothing else.
        let library = unsafe { Library::new(&finished) }.map_err(failed)?;
        let library = Arc::new(library);
        let variant = |variant| Self {
            library: Arc::clone(&library),
            dialect,
            variant,
            launches: Arc::default(),
            conv_kernel: |_, _| conv::ConvKernel::PLAIN,
            attend_kernel: |_, _| cross_attend::AttendKernel::PLAIN,
            recorder: Arc::default(),
            made: Arc::default(),
        };
        Ok(Some((0..variants.len()).map(variant).collect()))
    }

    /// The same with another choice of kernels.
    pub fn choosing(
        self,
        conv_kernel: Choice<conv::ConvParams, conv::ConvKernel>,
        attend_kernel: Choice<cross_attend::CrossAttendParams, cross_attend::AttendKernel>,
    ) -> Self {
        Self { conv_kernel, attend_kernel, ..self }
    }
}

/// How everything is compiled. What is hidden is not shared between libraries, as inline functions and their statics otherwise are.
const FLAGS: [&str; 10] = [
    "-std=c++17",
    "-O1",
    "-w",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-U_FORTIFY_SOURCE",
    "-I.",
];

/// The library of variants of sources; `None` where there is no C++ compiler.
pub(super) fn compiled(dialect: Dialect, variants: &[Vec<Source<'_>>]) -> Result<Option<PathBuf>, GpuError> {
    let mut hash = DefaultHasher::new();
    (SHIM, FLAGS, dialect, variants).hash(&mut hash);
    built(&format!("emulation-{:016x}.so", hash.finish()), |compiler, folder| {
        build(compiler, folder, dialect, variants)
    })
}

/// What `make` makes by the compiler in a new folder, under `name` beside the running program, which is in a build folder: programs of
/// one build share what was compiled from the same text. `None` where there is no C++ compiler.
pub(super) fn built(
    name: &str,
    make: impl FnOnce(&Path, &Path) -> Result<PathBuf, String>,
) -> Result<Option<PathBuf>, GpuError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let Some(compiler) = compiler() else { return Ok(None) };
    let failed = |reason| GpuError::Kernel { kernel: name.to_owned(), reason };
    let program = std::env::current_exe().map_err(|e| failed(format!("no program: {e}")))?;
    let parent = program.parent().unwrap_or(Path::new("."));
    let finished = parent.join(name);
    if !finished.exists() {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("emulation-{}-{number}", std::process::id()));
        let made = make(&compiler, &folder).and_then(|made| match fs::rename(made, &finished) {
            // Another program may have been first.
            Err(e) if !finished.exists() => Err(e.to_string()),
            _ => Ok(()),
        });
        let _ = fs::remove_dir_all(&folder);
        made.map_err(|e| failed(format!("cannot be compiled: {e}")))?;
    }
    Ok(Some(finished))
}

/// Compiles variants of sources in a new folder; the library, or what the compiler says. Each variant is a namespace.
fn build(compiler: &Path, folder: &Path, dialect: Dialect, variants: &[Vec<Source<'_>>]) -> Result<PathBuf, String> {
    let write = |path: PathBuf, text: &str| fs::write(path, text).map_err(|e| e.to_string());
    fs::create_dir_all(folder).map_err(|e| e.to_string())?;
    for (name, text) in SHIM {
        write(folder.join(name), text)?;
    }
    let shim = match dialect {
        Dialect::Cuda => "cuda.h",
        Dialect::Metal => "metal.h",
    };
    let mut all = format!("#include \"{shim}\"\n");
    for (variant, sources) in variants.iter().enumerate() {
        let name = format!("variant{variant}");
        let folder = folder.join(&name);
        fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        all += &format!("#undef VARIANT\n#define VARIANT \"{variant}.\"\nnamespace {name} {{\n");
        for source in sources {
            // Once in each variant, where the file asks for once.
            let guard = format!("{name}_{}", source.name.replace('.', "_"));
            let once = format!(
                "#ifndef {guard}\n#define {guard}\n#line 1\n{}\n#endif\n",
                // Namespaces tell variants apart, and names of C have none.
                source.text.replace("#pragma once", "").replace("extern \"C\" ", "")
            );
            write(folder.join(source.name), &once)?;
            if source.compiled {
                all += &format!("#include \"{name}/{}\"\n", source.name);
            }
            if source.compiled && dialect == Dialect::Cuda {
                for entry in cuda_entries(source.text) {
                    all += &format!("KERNEL_ENTRY({entry}, {entry});\n");
                }
            }
        }
        all += "}\n";
    }
    write(folder.join("all.cpp"), &all)?;
    let output = Command::new(compiler)
        .current_dir(folder)
        .args(FLAGS)
        .args(["-o", "all.so", "all.cpp"])
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(folder.join("all.so"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The names of what is `__global__`: `extern "C" __global__ void [__launch_bounds__(..)] name(`.
fn cuda_entries(text: &str) -> Vec<&str> {
    text.split("extern \"C\" __global__ ").skip(1).filter_map(cuda_entry).collect()
}

fn cuda_entry(declaration: &str) -> Option<&str> {
    let bounds = declaration.split_once("__launch_bounds__").filter(|(ahead, _)| !ahead.contains('('));
    let rest = bounds.map_or(declaration, |(_, rest)| after_bracket(rest));
    rest.split('(').next()?.split_whitespace().last()
}

/// What follows the bracket that closes here.
fn after_bracket(text: &str) -> &str {
    text.split_once(')').map_or(text, |(_, rest)| rest)
}

impl std::fmt::Debug for Emulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Emulated({:?}, variant {})", self.dialect, self.variant)
    }
}

impl Emulated {
    /// Runs a kernel, and looks at the guards.
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
        // Aligned as a kernel may expect its parameters to be.
        let mut params = vec![0u128; launch.params.len().div_ceil(16)];
        // SAFETY: the words are at least as long as the bytes, and any bytes make a word.
        let aligned = unsafe { std::slice::from_raw_parts_mut(params.as_mut_ptr().cast::<u8>(), launch.params.len()) };
        aligned.copy_from_slice(&launch.params);
        let mut text = [0u8; 256];
        let seed = self.launches.fetch_add(1, Ordering::Relaxed);
        // SAFETY: `fibers.h` has this function with these parameters, and it lives as long as the library.
        let entry: Symbol<'_, Entry> =
            unsafe { self.library.get("emulation_launch") }.map_err(|e| failed(e.to_string()))?;
        // SAFETY: every pointer is to memory that lives during the call and is as long as said; that the kernel keeps inside its
        // buffers is the caller's promise.
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
            Some(i) => Err(failed(format!("it wrote outside of buffer {i}"))),
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
        // SAFETY: the buffer is borrowed exclusively, and is that long.
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
            // SAFETY: the caller's promise.
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
                // SAFETY: who recorded it promised as much, and the tape keeps the memory.
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

    fn conv_kernel(&self, element: GpuElement, conv: &conv::ConvParams) -> conv::ConvKernel {
        (self.conv_kernel)(element, conv)
    }

    fn attend_kernel(
        &self,
        element: GpuElement,
        attend: &cross_attend::CrossAttendParams,
    ) -> cross_attend::AttendKernel {
        (self.attend_kernel)(element, attend)
    }
}
