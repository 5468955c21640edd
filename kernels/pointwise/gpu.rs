//! The launches of the pointwise operations.

use crate::gpu::{BLOCK, CHANNEL_STRIDE, Device, GpuError, GpuMaps, Launch, blocks};

params! {
    /// Parameters of `relu` and `add`: the count of numbers, a multiple of 8. A thread computes eight of them.
    pub struct PointwiseParams { len: u32 }
}

/// `max(x, 0)`; exact.
///
/// - errors: those of the device
pub fn relu<D: Device>(device: &D, x: &GpuMaps<D::Buffer>) -> Result<GpuMaps<D::Buffer>, GpuError> {
    each(device, "relu", &[x])
}

/// `a + b`, of equal shape and element; one rounding.
///
/// - errors: [`crate::ShapeError`] if they differ, otherwise those of the device
pub fn add<D: Device>(
    device: &D,
    a: &GpuMaps<D::Buffer>,
    b: &GpuMaps<D::Buffer>,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    b.check("add", "second input", a.shape(), a.element())?;
    each(device, "add", &[a, b])
}

fn each<D: Device>(
    device: &D,
    kernel: &'static str,
    inputs: &[&GpuMaps<D::Buffer>],
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    let (shape, element) = (inputs[0].shape(), inputs[0].element());
    let out = GpuMaps::blank(device, kernel, shape, element)?;
    let buffers: Vec<_> = inputs.iter().map(|x| x.buffer()).chain([out.buffer()]).collect();
    let launch = Launch {
        kernel,
        element,
        grid: [blocks(shape.len() / CHANNEL_STRIDE), 1, 1],
        block: [BLOCK, 1, 1],
        buffers: &buffers,
        params: &PointwiseParams { len: shape.len() as u32 }.bytes(),
    };
    // SAFETY: inputs and output are `len` numbers long, and the kernel accesses only those; the output's buffer is new.
    unsafe { device.launch(&launch)? };
    Ok(out)
}
