//! The library's errors as Python exceptions. `rtformer/errors.py` defines the classes.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rtformer::{Error, ErrorKind};

/// The classes of `rtformer.errors`.
mod classes {
    pyo3::import_exception!(rtformer.errors, Error);
    pyo3::import_exception!(rtformer.errors, NotFoundError);
    pyo3::import_exception!(rtformer.errors, FileError);
    pyo3::import_exception!(rtformer.errors, ImageError);
    pyo3::import_exception!(rtformer.errors, VideoError);
    pyo3::import_exception!(rtformer.errors, WeightsError);
    pyo3::import_exception!(rtformer.errors, InputError);
    pyo3::import_exception!(rtformer.errors, FrameTypeError);
    pyo3::import_exception!(rtformer.errors, DeviceError);
    pyo3::import_exception!(rtformer.errors, OutOfMemoryError);
    pyo3::import_exception!(rtformer.errors, DownloadError);
    pyo3::import_exception!(rtformer.errors, InternalError);
}

/// The exception for an error of the library.
#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn exception(error: Error) -> PyErr {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::NotFound => classes::NotFoundError::new_err(text),
        ErrorKind::Io => classes::FileError::new_err(text),
        ErrorKind::Image => classes::ImageError::new_err(text),
        ErrorKind::Video => classes::VideoError::new_err(text),
        ErrorKind::Weights => classes::WeightsError::new_err(text),
        ErrorKind::Input => classes::InputError::new_err(text),
        ErrorKind::Device => classes::DeviceError::new_err(text),
        ErrorKind::OutOfMemory => classes::OutOfMemoryError::new_err(text),
        ErrorKind::Download => classes::DownloadError::new_err(text),
        ErrorKind::Internal => classes::InternalError::new_err(text),
        _ => classes::Error::new_err(text),
    }
}

/// An argument has an invalid value.
pub(crate) fn invalid(text: impl Into<String>) -> PyErr {
    classes::InputError::new_err(text.into())
}

/// A stream cannot go on.
pub(crate) fn closed(text: &str) -> PyErr {
    PyRuntimeError::new_err(text.to_owned())
}

/// An object is not a frame.
pub(crate) fn not_a_frame(text: impl Into<String>) -> PyErr {
    classes::FrameTypeError::new_err(text.into())
}
