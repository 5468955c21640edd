//! The launches that turn `[n, c, h, w]` into maps and back.

use crate::ShapeError;
use crate::gpu::{BLOCK, Device, GpuElement, GpuError, GpuMaps, GpuShape, Launch, blocks};

const OP: &str = "pack";

params! {
    /// Parameters of `pack` and `unpack`; the map's channels are `cs` apart.
    pub struct PackParams { n: u32, c: u32, h: u32, w: u32, cs: u32 }
}

impl PackParams {
    fn of(shape: GpuShape) -> Self {
        let [n, c, h, w, cs] = [shape.n, shape.channels, shape.height, shape.width, shape.stride()].map(|v| v as u32);
        Self { n, c, h, w, cs }
    }
}

/// Uploads images `[n, channels, height, width]` to the device; padding channels become zero.
///
/// - accuracy: exact in f32; in f16 rounded to nearest
/// - errors: [`ShapeError`] if `images` has another length, otherwise those of the device
pub fn pack<D: Device>(
    device: &D,
    images: &[f32],
    shape: GpuShape,
    element: GpuElement,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    shape.check(OP)?;
    ShapeError::check(OP, "length of the images", images.len(), shape.n * shape.channels * shape.pixels())?;
    let mut plain = device.buffer(size_of_val(images))?;
    device.write(&mut plain, bytemuck::cast_slice(images))?;
    pack_from(device, &plain, shape, element)
}

/// [`pack`] for images that are in device memory as f32.
///
/// - errors: [`ShapeError`] if `images` holds fewer bytes, otherwise those of the device
pub fn pack_from<D: Device>(
    device: &D,
    images: &D::Buffer,
    shape: GpuShape,
    element: GpuElement,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    let out = GpuMaps::blank(device, OP, shape, element)?;
    let bytes = size_of::<f32>() * shape.n * shape.channels * shape.pixels();
    ShapeError::at_least(OP, "bytes of the images", device.len(images), bytes)?;
    let launch = Launch {
        kernel: OP,
        element,
        grid: [blocks(shape.pixels()), 1, shape.n as u32],
        block: [BLOCK, 1, 1],
        buffers: &[images, out.buffer()],
        params: &PackParams::of(shape).bytes(),
    };
    // SAFETY: both buffers are as long as the shape says; the kernel reads the shape's pixels, and writes them up to the stride.
    unsafe { device.launch(&launch)? };
    Ok(out)
}

/// Copies maps back to the host as images `[n, channels, height, width]`.
///
/// - accuracy: exact
/// - errors: [`ShapeError`] if `images` has another length, otherwise those of the device
pub fn unpack<D: Device>(device: &D, x: &GpuMaps<D::Buffer>, images: &mut [f32]) -> Result<(), GpuError> {
    const OP: &str = "unpack";
    let shape = x.shape();
    ShapeError::check(OP, "length of the images", images.len(), shape.n * shape.channels * shape.pixels())?;
    let plain = device.buffer(size_of_val(images))?;
    let launch = Launch {
        kernel: OP,
        element: x.element(),
        grid: [blocks(shape.pixels()), 1, shape.n as u32],
        block: [BLOCK, 1, 1],
        buffers: &[x.buffer(), &plain],
        params: &PackParams::of(shape).bytes(),
    };
    // SAFETY: as in `pack`, with input and output exchanged.
    unsafe { device.launch(&launch)? };
    device.read(&plain, bytemuck::cast_slice_mut(images))
}
