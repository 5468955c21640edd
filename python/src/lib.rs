//! The Python module `rtformer._rtformer`: the library's public API, for Python. `rtformer/__init__.py` re-exports it.
//!
//! A frame is copied while the thread is attached to the interpreter; inference runs detached; results are moved to NumPy
//! without a copy.

#![allow(clippy::doc_markdown, reason = "the comments on what Python sees are its docstrings, which are not Markdown")]

mod array;
mod channels;
mod error;
mod evaluation;
mod frame;
mod scene;
mod segmenter;
mod shares;
mod stream;
mod video;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _rtformer {
    use std::ffi::OsString;

    use super::{Bound, PyModule, PyModuleMethods, PyResult, Python, pyfunction};

    #[pymodule_export]
    use super::scene::Scene;
    #[pymodule_export]
    use super::segmenter::Segmenter;
    #[pymodule_export]
    use super::shares::{ClassShare, Timings};
    #[pymodule_export]
    use super::stream::Stream;
    #[pymodule_export]
    use super::video::Video;

    /// Runs the command line; `args` begins with the program's name. Returns the exit code. A process can call it once.
    #[pyfunction]
    fn _main(py: Python<'_>, args: Vec<OsString>) -> u8 {
        py.detach(|| rtformer::cli::main(args))
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Decoding turns a panic of a decoder into an error, so its message is only noise.
        rtformer::pixels::hide_decoder_panics();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
