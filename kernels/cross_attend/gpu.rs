//! The launch of the cross-resolution attention: one pass, in which a block's scores live and die.

use crate::ShapeError;
use crate::conv::gpu::GpuNorm;
use crate::gpu::{BLOCK, Device, GpuError, GpuMaps, GpuShape, Launch};

/// A kernel that computes this attention, and the part of the output that one of its blocks computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttendKernel {
    /// The entry without its element.
    pub name: &'static str,
    /// Pixels of a block, consecutive ones of an image.
    pub pixels: u32,
    /// Threads of a block.
    pub threads: u32,
}

impl AttendKernel {
    /// On plain multiply-adds; every device has it, for either element.
    pub const PLAIN: Self = Self { name: "cross_attend", pixels: 16, threads: BLOCK };
}

/// Channels that the kernels have room for.
const CHANNELS: usize = 256;

params! {
    /// Parameters of `cross_attend` and its twins.
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
    let kernel = device.attend_kernel(x.element(), &params);
    let launch = Launch {
        kernel: kernel.name,
        element: x.element(),
        grid: [shape.pixels().div_ceil(kernel.pixels as usize) as u32, 1, shape.n as u32],
        block: [kernel.threads, 1, 1],
        buffers: &[x.buffer(), norm.scale.buffer(), norm.shift.buffer(), kv.buffer(), out.buffer()],
        params: &params.bytes(),
    };
    // SAFETY: the kernel reads pixels of both maps, channels below their strides, and writes those of the output, whose shape is
    // that of `x` and whose buffer is new; it has room for so many channels.
    unsafe { device.launch(&launch)? };
    Ok(out)
}
