//! Frames: what Python calls a picture, copied or read to pixels that belong to Rust.

use std::path::{Path, PathBuf};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString};
use rtformer::Image;
use rtformer::pixels::{Limits, PixelFormat, Pixels};

use crate::array;
use crate::channels::Channels;
use crate::error::{invalid, not_a_frame};

/// The modes of a Pillow image whose bytes are grey, RGB or RGBA.
const PLAIN_MODES: [&str; 3] = ["L", "RGB", "RGBA"];
/// The modes that Pillow converts to RGB without changing the range of the values.
const CONVERTED_MODES: [&str; 9] = ["1", "P", "PA", "LA", "La", "RGBa", "RGBX", "CMYK", "YCbCr"];

const EXPECTED: &str = "expected a path, the bytes of an image file, a Pillow image, or a uint8 array [height, width, channels] or \
                        [height, width] on the CPU";

/// A frame that does not need the interpreter any more.
pub(crate) enum Frame {
    File(PathBuf),
    /// An image file in memory.
    Encoded(PyBackedBytes),
    Raw(Raw),
}

/// Decoded pixels, row by row.
pub(crate) struct Raw {
    /// Rows without gaps.
    data: PyBackedBytes,
    width: u32,
    height: u32,
    format: PixelFormat,
}

/// A decoded frame.
pub(crate) enum Photo {
    Image(Image),
    Raw(Raw),
    /// Of a video.
    Frame(rtformer::video::Frame),
}

impl Frame {
    /// Copies the frame. Paths are only read by [`decode`](Self::decode).
    pub(crate) fn copy(object: &Bound<'_, PyAny>, channels: Channels) -> PyResult<Self> {
        let py = object.py();
        if object.is_instance_of::<PyString>() || object.hasattr(intern!(py, "__fspath__"))? {
            return Ok(Self::File(object.extract()?));
        }
        if object.is_instance_of::<PyBytes>() || object.is_instance_of::<PyByteArray>() {
            return Ok(Self::Encoded(object.extract()?)); // copies a bytearray, shares bytes, which cannot change
        }
        if object.is_instance_of::<PyMemoryView>() && object.getattr(intern!(py, "ndim"))?.extract::<usize>()? == 1 {
            return Ok(Self::Encoded(object.call_method0(intern!(py, "tobytes"))?.extract()?));
        }
        if array::is_array(object)? {
            return raw(object, channels).map(Self::Raw);
        }
        if object.hasattr(intern!(py, "mode"))? && object.hasattr(intern!(py, "getbands"))? {
            return raw(&as_array(&plain(object)?)?, Channels::Rgb).map(Self::Raw);
        }
        raw(&as_array(object)?, channels).map(Self::Raw)
    }

    /// Reads and decodes files.
    pub(crate) fn decode(self) -> rtformer::Result<Photo> {
        match self {
            Self::File(path) => Image::open(path).map(Photo::Image),
            Self::Encoded(bytes) => Image::decode(&bytes, "bytes", &Limits::default()).map(Photo::Image),
            Self::Raw(raw) => Ok(Photo::Raw(raw)),
        }
    }
}

impl Photo {
    /// The pixels. `name` is for errors about arrays, which have no name of their own.
    pub(crate) fn pixels<'a>(&'a self, name: Option<&'a Path>) -> rtformer::Result<Pixels<'a>> {
        match self {
            Self::Image(image) => Ok(image.into()),
            Self::Frame(frame) => Ok(frame.into()),
            Self::Raw(Raw { data, width, height, format }) => {
                let pixels = Pixels::new(data, *width, *height, *width as usize * format.channels(), *format)?;
                Ok(match name {
                    Some(name) => pixels.named(name),
                    None => pixels,
                })
            }
        }
    }
}

/// The Pillow image with a mode whose bytes can be used.
fn plain<'py>(image: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = image.py();
    let mode: String = image.getattr(intern!(py, "mode"))?.extract()?;
    match mode.as_str() {
        mode if PLAIN_MODES.contains(&mode) => Ok(image.clone()),
        mode if CONVERTED_MODES.contains(&mode) => image.call_method1(intern!(py, "convert"), (intern!(py, "RGB"),)),
        mode => Err(invalid(format!(
            "a Pillow image of mode {mode:?} has no 8-bit colours; convert it to \"RGB\", or pass the file's path"
        ))),
    }
}

/// The object as a NumPy array, without a copy if possible.
fn as_array<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let kind = || object.get_type().name().map_or_else(|_| "an object".into(), |name| name.to_string());
    let function = if object.hasattr(intern!(py, "__array_interface__"))? || object.is_instance_of::<PyMemoryView>() {
        intern!(py, "asarray")
    } else if object.hasattr(intern!(py, "__dlpack__"))? {
        intern!(py, "from_dlpack")
    } else {
        return Err(not_a_frame(format!("{} is not a frame: {EXPECTED}", kind())));
    };
    array::numpy(py)?.call_method1(function, (object,)).map_err(|cause| {
        let text = format!("{} cannot be read as an array on the CPU: {cause}; copy it to the CPU first", kind());
        let error = not_a_frame(text);
        error.set_cause(py, Some(cause));
        error
    })
}

/// Copies a NumPy array.
fn raw(frame: &Bound<'_, PyAny>, channels: Channels) -> PyResult<Raw> {
    let (shape, dtype) = (array::shape(frame)?, array::dtype(frame)?);
    if dtype != "uint8" {
        return Err(invalid(format!(
            "a frame of dtype {dtype} cannot be used: expected uint8, from 0 to 255; scale and convert it first"
        )));
    }
    let size = |side: usize| u32::try_from(side).ok();
    let found = match *shape {
        [height, width] => size(height).zip(size(width)).zip(channels.format(1)),
        [height, width, count] => size(height).zip(size(width)).zip(channels.format(count)),
        _ => None,
    };
    let Some(((height, width), format)) = found else {
        let hint = match *shape {
            [1 | 3 | 4, _, _] => "; move the channels to the end with frame.transpose(1, 2, 0)",
            [_, _, _, _] => "; use batch for several frames",
            _ => "",
        };
        return Err(invalid(format!(
            "a frame of shape {shape:?} cannot be used: expected [height, width], or [height, width, channels] with 1, 3 or 4 \
             channels{hint}"
        )));
    };
    // A view `rgb[:, :, ::-1]` of packed pixels is packed in the other order.
    let (data, format) = match Channels::reversed(format) {
        Some(format) if array::strides(frame)?.last() == Some(&-1) => {
            (array::bytes(&array::reversed_channels(frame)?)?, format)
        }
        _ => (array::bytes(frame)?, format),
    };
    Ok(Raw { data, width, height, format })
}
