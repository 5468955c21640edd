//! The kernels' sources, compiled for the host and emulated.

use std::path::Path;
use std::sync::OnceLock;

use crate::gpu::emulated::{Dialect, Emulated, Source};

macro_rules! files {
    ($($path:literal),* $(,)?) => { [$(($path, include_str!(concat!("../../", $path)))),*] };
}

/// Path and text of each file; headers come before the files that include them.
pub(super) const FILES: [(&str, &str); 16] = files![
    "gpu/common.cuh",
    "gpu/mma.cuh",
    "conv/conv.cuh",
    "cross_attend/cross_attend.cuh",
    "argmax/argmax.cu",
    "concat/concat.cu",
    "conv/conv.cu",
    "conv/conv_mma.cu",
    "cross_attend/cross_attend.cu",
    "cross_attend/cross_attend_mma.cu",
    "ea_norm/ea_norm.cu",
    "pack/pack.cu",
    "pointwise/pointwise.cu",
    "pool/pool.cu",
    "prepare/prepare.cu",
    "resize_add/resize_add.cu",
];

/// Whether other files include it.
pub(super) fn is_header(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "cuh")
}

/// One of the files, or a modified text of it, as the emulation expects it.
pub(super) fn source<'a>(path: &'a str, text: &'a str) -> Source<'a> {
    Source { name: path.rsplit('/').next().unwrap_or(path), text, compiled: !is_header(path) }
}

/// All files.
pub(super) fn sources() -> [Source<'static>; FILES.len()] {
    FILES.map(|(path, text)| source(path, text))
}

impl Emulated {
    /// An NVIDIA GPU with our kernels and the capabilities of a [`super::Cuda`]. Returns `None` and prints a line if there is no C++
    /// compiler.
    ///
    /// # Panics
    /// If the kernels do not compile.
    pub fn cuda() -> Option<Self> {
        static CUDA: OnceLock<Option<Emulated>> = OnceLock::new();
        let cuda = CUDA.get_or_init(|| Self::new(Dialect::Cuda, &sources()).unwrap_or_else(|e| panic!("{e}")));
        if cuda.is_none() {
            println!("SKIPPED: no C++ compiler (CXX, c++, g++, clang++) for the CUDA emulation");
        }
        // A GPU with one multiprocessor: even small maps then use many blocks, so every kernel is exercised.
        cuda.clone().map(|cuda| cuda.with(super::capabilities(1)))
    }
}
