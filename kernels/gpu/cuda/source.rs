//! The kernels' sources, to be compiled for the host and emulated.

use std::path::Path;
use std::sync::OnceLock;

use crate::gpu::emulated::{Dialect, Emulated, Source};

macro_rules! files {
    ($($path:literal),* $(,)?) => { [$(($path, include_str!(concat!("../../", $path)))),*] };
}

/// Path and text of each; headers ahead of who includes them.
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

/// Whether others include it.
pub(super) fn is_header(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "cuh")
}

/// One of them, or a changed text of it, as the emulation takes it.
pub(super) fn source<'a>(path: &'a str, text: &'a str) -> Source<'a> {
    Source { name: path.rsplit('/').next().unwrap_or(path), text, compiled: !is_header(path) }
}

/// All of them.
pub(super) fn sources() -> [Source<'static>; FILES.len()] {
    FILES.map(|(path, text)| source(path, text))
}

impl Emulated {
    /// An NVIDIA GPU with our kernels, with the capabilities of a [`super::Cuda`]; `None`, and a line that says so, where there
    /// is no C++ compiler.
    ///
    /// # Panics
    /// When they do not compile.
    pub fn cuda() -> Option<Self> {
        static CUDA: OnceLock<Option<Emulated>> = OnceLock::new();
        let cuda = CUDA.get_or_init(|| Self::new(Dialect::Cuda, &sources()).unwrap_or_else(|e| panic!("{e}")));
        if cuda.is_none() {
            println!("SKIPPED: no C++ compiler (CXX, c++, g++, clang++) to emulate CUDA with");
        }
        // A GPU of one multiprocessor: even small maps are of many blocks, so that every kernel has its turn.
        cuda.clone().map(|cuda| cuda.with(super::capabilities(1)))
    }
}
