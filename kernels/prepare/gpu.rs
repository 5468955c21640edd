//! The launch that converts 8-bit pixels to the network's input.

use crate::gpu::{BLOCK, Device, GpuElement, GpuError, GpuMaps, GpuShape, Launch, blocks};
use crate::{Extent, ShapeError};

const OP: &str = "prepare";

params! {
    /// Parameters of `prepare`: the map's pixels, the bytes per pixel of the photo, the offsets of red, green and blue in it, and the
    /// sizes of map and photo. A thread computes one pixel of the map.
    pub struct PrepareParams {
        pixels: u32, bytes: u32, red: u32, green: u32, blue: u32, h: u32, w: u32, photo_h: u32, photo_w: u32,
    }
}

/// The order of a pixel's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelLayout {
    /// Bytes per pixel: 1 to 4.
    pub bytes: usize,
    /// The offsets of red, green and blue; all 0 in a grey photo.
    pub offsets: [usize; 3],
}

impl PixelLayout {
    fn check(self) -> Result<(), ShapeError> {
        let fits = (1..=4).contains(&self.bytes) && self.offsets.iter().all(|&at| at < self.bytes);
        ShapeError::ensure(fits, OP, "order of a pixel's bytes", self, "of 1 to 4 bytes, with every offset below that")
    }
}

/// The number for each byte value, for red, green and blue, in device memory.
#[derive(Debug)]
pub struct Table<B> {
    buffer: B,
}

impl<B> Table<B> {
    /// Uploads it to the device.
    ///
    /// - errors: those of the device
    pub fn new<D: Device<Buffer = B>>(device: &D, values: &[[f32; 256]; 3]) -> Result<Self, GpuError> {
        let values = values.as_flattened();
        let mut buffer = device.buffer(size_of_val(values))?;
        device.write(&mut buffer, bytemuck::cast_slice(values))?;
        Ok(Self { buffer })
    }
}

/// Replaces each byte by its number in the table.
///
/// - `pixels`: `[n, height, width, bytes]` of the kept size, without padding between rows, in device memory; anything after them is
///   ignored
/// - `n`, `size`: the result is `[n, 3, height, width]` of the full size, zero outside the kept part
/// - accuracy: exact in f32; in f16 rounded to nearest
/// - errors: [`ShapeError`] if a layout or size is invalid or there are too few pixel bytes, otherwise those of the device
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
    // Must come before the products of its sides, which it bounds.
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
    // SAFETY: the photos' buffer has one pixel with this many bytes for each pixel of the kept part, of which the kernel reads those at
    // the offsets. The table has 256 numbers for each of the three. The output has one piece per pixel, and its buffer is new.
    unsafe { device.launch(&launch)? };
    Ok(out)
}
