//! The launches of the pooling operations.

use crate::ShapeError;
use crate::conv::gpu::GpuNorm;
use crate::gpu::{BLOCK, CHANNEL_STRIDE, Device, GpuError, GpuMaps, GpuShape, Launch, blocks};

params! {
    /// Parameters of `avg_pool`. A thread computes eight channels of an output pixel.
    pub struct AvgPoolParams {
        n: u32, cs: u32, h: u32, w: u32, out_h: u32, out_w: u32, window: u32, stride: u32, padding: u32,
    }
}

params! {
    /// Parameters of `global_avg_pool`. A block computes 32 channels of an image.
    pub struct GlobalAvgPoolParams { n: u32, cs: u32, h: u32, w: u32 }
}

params! {
    /// Parameters of `max_pool_to`. A thread computes eight channels of an output pixel.
    pub struct MaxPoolToParams { n: u32, cs: u32, h: u32, w: u32, side: u32 }
}

/// Means of windows of `kernel` by `kernel`, every `stride` pixels, starting `padding` pixels before the edge. The zero border counts.
///
/// - `x`: `[n, c, h, w]` → `[n, c, (h + 2 * padding - kernel) / stride + 1, ..]`
/// - accuracy: in f32 within `1e-5` of the definition, relative to the largest output
/// - errors: [`ShapeError`] if a window is larger than the padded map, the kernel or stride is 0, or the padding is not below the
///   kernel; otherwise those of the device
pub fn avg_pool<D: Device>(
    device: &D,
    x: &GpuMaps<D::Buffer>,
    [kernel, stride, padding]: [usize; 3],
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    const OP: &str = "avg_pool";
    let GpuShape { n, channels, height, width } = x.shape();
    let window = (kernel, stride, padding);
    let sound = kernel > 0 && kernel < 1 << 16 && stride > 0 && stride < 1 << 16 && padding < kernel;
    ShapeError::ensure(sound, OP, "(kernel, stride, padding)", window, "positive, with the padding below the kernel")?;
    let fits = height.min(width) + 2 * padding >= kernel;
    ShapeError::ensure(fits, OP, "size of the input", (height, width), "at least the kernel without its padding")?;
    let out = |len: usize| (len + 2 * padding - kernel) / stride + 1;
    let shape = GpuShape { n, channels, height: out(height), width: out(width) };
    let out = GpuMaps::blank(device, OP, shape, x.element())?;
    let params = AvgPoolParams {
        n: n as u32,
        cs: shape.stride() as u32,
        h: height as u32,
        w: width as u32,
        out_h: shape.height as u32,
        out_w: shape.width as u32,
        window: kernel as u32,
        stride: stride as u32,
        padding: padding as u32,
    };
    let launch = Launch {
        kernel: OP,
        element: x.element(),
        grid: [blocks(shape.pixels() * shape.stride() / CHANNEL_STRIDE), 1, n as u32],
        block: [BLOCK, 1, 1],
        buffers: &[x.buffer(), out.buffer()],
        params: &params.bytes(),
    };
    // SAFETY: the kernel reads pixels inside the input and writes those of the output's shape; its buffer is new.
    unsafe { device.launch(&launch)? };
    Ok(out)
}

/// The mean of each channel: `[n, c, h, w]` → `[n, c, 1, 1]`.
///
/// - accuracy: in f32 within `1e-5` of the definition, relative to the largest input
/// - errors: those of the device
pub fn global_avg_pool<D: Device>(device: &D, x: &GpuMaps<D::Buffer>) -> Result<GpuMaps<D::Buffer>, GpuError> {
    const OP: &str = "global_avg_pool";
    let shape = x.shape();
    let out = GpuMaps::blank(device, OP, GpuShape { height: 1, width: 1, ..shape }, x.element())?;
    let [n, cs, h, w] = [shape.n, shape.stride(), shape.height, shape.width].map(|v| v as u32);
    let launch = Launch {
        kernel: OP,
        element: x.element(),
        grid: [cs.div_ceil(32), 1, n],
        block: [BLOCK, 1, 1],
        buffers: &[x.buffer(), out.buffer()],
        params: &GlobalAvgPoolParams { n, cs, h, w }.bytes(),
    };
    // SAFETY: the kernel reads the input's pixels and writes one pixel per image, channels below the stride; its buffer is new.
    unsafe { device.launch(&launch)? };
    Ok(out)
}

/// The adaptive maximum of `scale * x + shift`: `[n, c, h, w]` → `[n, c, side, side]`.
///
/// Window `i` over a length of `l` is `floor(i * l / side) .. ceil((i + 1) * l / side)`.
///
/// - accuracy: in f32 one or two roundings
/// - errors: [`ShapeError`] if the norm has another number of channels or the side is 0, otherwise those of the device
pub fn max_pool_to<D: Device>(
    device: &D,
    x: &GpuMaps<D::Buffer>,
    norm: &GpuNorm<D::Buffer>,
    side: usize,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    const OP: &str = "max_pool_to";
    let shape = x.shape();
    norm.check(OP, shape.channels)?;
    // Window indices times lengths must fit in 32 bits.
    let fits = side > 0 && (side + 1).saturating_mul(shape.height.max(shape.width)) < 1 << 32;
    ShapeError::ensure(fits, OP, "side", side, "at least 1, with (side + 1) * length below 2^32")?;
    let out_shape = GpuShape { height: side, width: side, ..shape };
    let out = GpuMaps::blank(device, OP, out_shape, x.element())?;
    let [n, cs, h, w, side] = [shape.n, shape.stride(), shape.height, shape.width, side].map(|v| v as u32);
    let launch = Launch {
        kernel: OP,
        element: x.element(),
        grid: [blocks(out_shape.pixels() * shape.stride() / CHANNEL_STRIDE), 1, n],
        block: [BLOCK, 1, 1],
        buffers: &[x.buffer(), norm.scale.buffer(), norm.shift.buffer(), out.buffer()],
        params: &MaxPoolToParams { n, cs, h, w, side }.bytes(),
    };
    // SAFETY: windows lie inside the input, the norm is as long as its stride, and the kernel writes the output's pixels in a new buffer.
    unsafe { device.launch(&launch)? };
    Ok(out)
}
