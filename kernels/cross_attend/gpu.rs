//! The launch of the cross-resolution attention: one pass, in which a block's scores live and die.

use crate::ShapeError;
use crate::conv::gpu::GpuNorm;
use crate::gpu::{BLOCK, Device, GpuError, GpuMaps, GpuShape, Launch};

/// Pixels of a block.
const TILE: usize = 16;
/// Channels that the kernel has room for.
const CHANNELS: usize = 256;

params! {
    /// Parameters of `cross_attend`. A block does 16 pixels of an image.
    pub struct CrossAttendParams { n: u32, h: u32, w: u32, c: u32, cs: u32, kv_cs: u32, side: u32, factor: f32 }
}

/// `x + softmax(norm(x) · keys / side) · values`.
///
/// - `x`: `[n, c, h, w]`, `c` at most 256; `kv`: `[n, 2c, side, side]`, the keys' channels before the values'
/// - accuracy: in f32 within `1e-5` of the definition, relative to the greatest output
/// - errors: [`ShapeError`] when a shape or element differs from these, else what the device says
pub fn cross_attend<D: Device>(
    device: &D,
    x: &GpuMaps<D::Buffer>,
    norm: &GpuNorm<D::Buffer>,
    kv: &GpuMaps<D::Buffer>,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    const OP: &str = "cross_attend";
    let (shape, side) = (x.shape(), kv.shape().height);
    let keys = GpuShape { n: shape.n, channels: 2 * shape.channels, height: side, width: side };
    kv.check(OP, "keys and values", keys, x.element())?;
    norm.check(OP, shape.channels)?;
    let few = shape.channels <= CHANNELS;
    ShapeError::ensure(few, OP, "channels", shape.channels, format_args!("at most {CHANNELS}"))?;
    let out = GpuMaps::blank(device, OP, shape, x.element())?;
    let params = CrossAttendParams {
        n: shape.n as u32,
        h: shape.height as u32,
        w: shape.width as u32,
        c: shape.channels as u32,
        cs: shape.stride() as u32,
        kv_cs: keys.stride() as u32,
        side: side as u32,
        factor: 1.0 / side as f32,
    };
    let launch = Launch {
        kernel: OP,
        element: x.element(),
        grid: [shape.pixels().div_ceil(TILE) as u32, 1, shape.n as u32],
        block: [BLOCK, 1, 1],
        buffers: &[x.buffer(), norm.scale.buffer(), norm.shift.buffer(), kv.buffer(), out.buffer()],
        params: &params.bytes(),
    };
    // SAFETY: the kernel reads pixels of both maps, channels below their strides, and writes those of the output, whose shape is
    // that of `x` and whose buffer is new; it has room for so many channels.
    unsafe { device.launch(&launch)? };
    Ok(out)
}
