//! The order of the channels in arrays.

use pyo3::prelude::*;
use rtformer::pixels::PixelFormat;

use crate::error::invalid;

/// The argument `channels`: `"rgb"` or `"bgr"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channels {
    Rgb,
    Bgr,
}

impl Channels {
    /// The format of an array with this number of channels; `None` if there is none.
    pub(crate) fn format(self, count: usize) -> Option<PixelFormat> {
        match (count, self) {
            (1, _) => Some(PixelFormat::Gray8),
            (3, Self::Rgb) => Some(PixelFormat::Rgb8),
            (3, Self::Bgr) => Some(PixelFormat::Bgr8),
            (4, Self::Rgb) => Some(PixelFormat::Rgba8),
            (4, Self::Bgr) => Some(PixelFormat::Bgra8),
            _ => None,
        }
    }

    /// The format with the same channels in reverse order, if there is one: RGB and BGR.
    pub(crate) fn reversed(format: PixelFormat) -> Option<PixelFormat> {
        match format {
            PixelFormat::Rgb8 => Some(PixelFormat::Bgr8),
            PixelFormat::Bgr8 => Some(PixelFormat::Rgb8),
            _ => None,
        }
    }

    /// The order with this name.
    pub(crate) fn named(name: &str) -> PyResult<Self> {
        match name {
            "rgb" => Ok(Self::Rgb),
            "bgr" => Ok(Self::Bgr),
            other => Err(invalid(format!("invalid channels {other:?}: expected \"rgb\" or \"bgr\""))),
        }
    }
}
