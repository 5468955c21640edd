//! The launch that makes 8-bit pixels the network's input.

use crate::gpu::{BLOCK, Device, GpuElement, GpuError, GpuMaps, GpuShape, Launch, blocks};
use crate::{Extent, ShapeError};

const OP: &str = "prepare";

params! {
    /// Parameters of `prepare`: the map's pixels, the bytes of a photo's pixel, where in it red, green and blue are, and the sizes of
    /// map and photo. A thread does a pixel of the map.
    pub struct PrepareParams {
        pixels: u32, bytes: u32, red: u32, green: u32, blue: u32, h: u32, w: u32, photo_h: u32, photo_w: u32,
    }
}

/// The order of a pixel's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelLayout {
    /// How many there are: 1 to 4.
    pub bytes: usize,
    /// Where red, green and blue are; all at 0 in a grey photo.
    pub offsets: [usize; 3],
}

impl PixelLayout {
    fn check(self) -> Result<(), ShapeError> {
        let fits = (1..=4).contains(&self.bytes) && self.offsets.iter().all(|&at| at < self.bytes);
        ShapeError::ensure(fits, OP, "order of a pixel's bytes", self, "of 1 to 4 bytes, with every offset below that")
    }
}

/// What each value of a byte becomes, for red, green and blue, in device memory.
#[derive(Debug)]
pub struct Table<B> {
    buffer: B,
}

impl<B> Table<B> {
    /// Takes it to the device.
    ///
    /// - errors: what the device says
    pub fn new<D: Device<Buffer = B>>(device: &D, values: &[[f32; 256]; 3]) -> Result<Self, GpuError> {
        let values = values.as_flattened();
        let mut buffer = device.buffer(size_of_val(values))?;
        device.write(&mut buffer, bytemuck::cast_slice(values))?;
        Ok(Self { buffer })
    }
}

/// Each byte becomes what the table says.
///
/// - `pixels`: `[n, height, width, bytes]` of the kept size, without padding between rows, in device memory; what is behind them does
///   not matter
/// - `n`, `size`: the result is `[n, 3, height, width]` of the full size, zero outside of the kept part
/// - accuracy: exact in f32; in f16 rounded to nearest
/// - errors: [`ShapeError`] for a layout or size that is invalid, or if the pixels are fewer bytes, else what the device says
pub fn prepare<D: Device>(
    device: &D,
    pixels: &D::Buffer,
    layout: PixelLayout,
    table: &Table<D::Buffer>,
    n: usize,
    size: impl Into<Extent>,
    element: GpuElement,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    layout.check()?;
    let size = size.into();
    size.check(OP)?;
    let (Extent { full: (height, width), kept: (photo_height, photo_width) }, channels) = (size, 3);
    let shape = GpuShape { n, channels, height, width };
    // Ahead of products of its sides, which it bounds.
    let out = GpuMaps::blank(device, OP, shape, element)?;
    let count = shape.n * shape.pixels();
    let photos = n * photo_height * photo_width * layout.bytes;
    ShapeError::at_least(OP, "bytes of the pixels", device.len(pixels), photos)?;
    let PixelLayout { bytes, offsets: [red, green, blue] } = layout;
    let grid = [blocks(count), 1, 1];
    let [count, bytes, red, green, blue] = [count, bytes, red, green, blue].map(|v| v as u32);
    let [h, w, photo_h, photo_w] = [height, width, photo_height, photo_width].map(|v| v as u32);
    let params = PrepareParams { pixels: count, bytes, red, green, blue, h, w, photo_h, photo_w };
    let launch = Launch {
        kernel: OP,
        element,
        grid,
        block: [BLOCK, 1, 1],
        buffers: &[pixels, &table.buffer, out.buffer()],
        params: &params.bytes(),
    };
    // SAFETY: the photos' buffer has a pixel of so many bytes for each of the kept part, of which the kernel reads those at the offsets;
    // the table has 256 numbers for each of the three; the output has a piece a pixel, and its buffer is new.
    unsafe { device.launch(&launch)? };
    Ok(out)
}
