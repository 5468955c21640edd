//! Feature maps and parameters in device memory. Their types guarantee that they fit, so launches only need to compare shapes.

use super::{Device, GpuError};
use crate::ShapeError;

/// Channels of a map are padded to a multiple of this.
pub const CHANNEL_STRIDE: usize = 8;

/// The element type of maps; sums are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuElement {
    /// Single precision.
    #[default]
    F32,
    /// Half precision: half the memory traffic, and products on matrix units.
    F16,
}

impl GpuElement {
    /// Bytes per number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// The suffix of entry names.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// The stored form of numbers; f16 is rounded to nearest.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_ne_bytes()).collect(),
        }
    }

    /// The inverse of [`encode`](Self::encode).
    #[cfg(any(test, feature = "emulation"))]
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b)).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_ne_bytes(*b).to_f32()).collect(),
        }
    }
}

/// Logically `[n, channels, height, width]`; in memory `[n][height][width][channels]`, with channels padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuShape {
    /// Images.
    pub n: usize,
    /// Channels per pixel.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Pixels per row.
    pub width: usize,
}

impl GpuShape {
    /// The distance from one pixel to the next, in numbers.
    pub fn stride(self) -> usize {
        self.channels.next_multiple_of(CHANNEL_STRIDE)
    }

    /// Pixels per image.
    pub fn pixels(self) -> usize {
        self.height.saturating_mul(self.width)
    }

    /// Numbers in memory, including padding.
    pub fn len(self) -> usize {
        self.n.saturating_mul(self.pixels()).saturating_mul(self.stride())
    }

    /// Whether the shape has no elements; maps never do.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Kernels count in 32 bits, and a grid has at most 65,535 images.
    pub(crate) fn check(self, op: &'static str) -> Result<(), ShapeError> {
        let fits = !self.is_empty() && i32::try_from(self.len()).is_ok() && self.n <= 65_535;
        ShapeError::ensure(fits, op, "shape of a map", self, "of 1 to 2^31 - 1 numbers and at most 65,535 images")
    }
}

/// A batch of maps in device memory.
#[derive(Debug)]
pub struct GpuMaps<B> {
    buffer: B,
    shape: GpuShape,
    element: GpuElement,
}

impl<B> GpuMaps<B> {
    /// Maps whose numbers, including padding, must all still be written by a launch.
    pub(crate) fn blank<D: Device<Buffer = B>>(
        device: &D,
        op: &'static str,
        shape: GpuShape,
        element: GpuElement,
    ) -> Result<Self, GpuError> {
        shape.check(op)?;
        Ok(Self { buffer: device.buffer(shape.len() * element.bytes())?, shape, element })
    }

    /// Maps with exactly these bytes.
    #[cfg(any(test, feature = "emulation"))]
    pub(crate) fn of_bytes<D: Device<Buffer = B>>(
        device: &D,
        shape: GpuShape,
        element: GpuElement,
        bytes: &[u8],
    ) -> Result<Self, GpuError> {
        let mut maps = Self::blank(device, "upload", shape, element)?;
        ShapeError::check("upload", "bytes of the maps", bytes.len(), device.len(&maps.buffer))?;
        device.write(&mut maps.buffer, bytes)?;
        Ok(maps)
    }

    /// `[n, channels, height, width]`.
    pub fn shape(&self) -> GpuShape {
        self.shape
    }

    /// The element type.
    pub fn element(&self) -> GpuElement {
        self.element
    }

    /// The maps' memory.
    pub fn buffer(&self) -> &B {
        &self.buffer
    }

    /// `Ok` if the maps have this shape and element type.
    pub(crate) fn check(
        &self,
        op: &'static str,
        what: &'static str,
        shape: GpuShape,
        element: GpuElement,
    ) -> Result<(), ShapeError> {
        ShapeError::check(op, what, (self.shape, self.element), (shape, element))
    }
}

/// A layer's floats, one per channel, padded with zeros like the channels of a map.
#[derive(Debug)]
pub struct GpuVector<B> {
    buffer: B,
    len: usize,
}

impl<B> GpuVector<B> {
    /// Uploads values to the device.
    pub fn new<D: Device<Buffer = B>>(device: &D, values: &[f32]) -> Result<Self, GpuError> {
        ShapeError::at_least("upload", "length of a layer's parameters", values.len(), 1)?;
        let mut padded = values.to_vec();
        padded.resize(values.len().next_multiple_of(CHANNEL_STRIDE), 0.0);
        let mut buffer = device.buffer(padded.len() * size_of::<f32>())?;
        device.write(&mut buffer, &GpuElement::F32.encode(&padded))?;
        Ok(Self { buffer, len: values.len() })
    }

    /// The length without padding.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always false: an empty vector cannot be created.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The vector's memory.
    pub fn buffer(&self) -> &B {
        &self.buffer
    }
}
