//! The launch of the cross-resolution attention: a single pass, in which scores never leave their block.

use crate::ShapeError;
use crate::conv::gpu::GpuNorm;
use crate::gpu::{BLOCK, Capabilities, Device, GpuElement, GpuError, GpuMaps, GpuShape, Launch, MatrixUnits};

/// A kernel that computes this attention, and the part of the output that one of its blocks computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// The entry without its element suffix.
    pub(crate) name: &'static str,
    /// Pixels per block, consecutive within an image.
    pixels: u32,
    /// Threads per block.
    threads: u32,
}

impl Kernel {
    /// Plain multiply-adds; available on every device, for both elements.
    pub(crate) const PLAIN: Self = Self { name: "cross_attend", pixels: 16, threads: BLOCK };
    /// Tensor cores, in f16, for up to 64 channels.
    pub(crate) const TENSOR_64: Self = Self { name: "cross_attend_mma_64", pixels: 64, threads: 128 };
    /// Tensor cores, in f16, for up to 128 channels.
    pub(crate) const TENSOR_128: Self = Self { name: "cross_attend_mma_128", pixels: 64, threads: 128 };

    /// The kernel for an attention on a device: tensor cores if the values' channels begin at a multiple of eight and a warp's means fit
    /// into its registers.
    pub(crate) fn choose(device: Capabilities, element: GpuElement, attend: &CrossAttendParams) -> Self {
        match (device.matrix_units, element, attend.c) {
            (MatrixUnits::TensorCores, GpuElement::F16, c @ ..=128) if c.is_multiple_of(8) => {
                if c <= 64 {
                    Self::TENSOR_64
                } else {
                    Self::TENSOR_128
                }
            }
            _ => Self::PLAIN,
        }
    }
}

/// The largest number of channels that the kernels support.
const CHANNELS: usize = 256;

params! {
    /// Parameters of `cross_attend` and its twins.
    pub struct CrossAttendParams { n: u32, h: u32, w: u32, c: u32, cs: u32, kv_cs: u32, side: u32, factor: f32 }
}

/// `x + softmax(norm(x) · keys / side) · values`.
///
/// - `x`: `[n, c, h, w]`, `c` at most 256; `kv`: `[n, 2c, side, side]`, the keys' channels before the values'
/// - accuracy: in f32 within `1e-5` of the definition, relative to the largest output
/// - errors: [`ShapeError`] if a shape or element differs from these, otherwise those of the device
pub fn cross_attend<D: Device>(
    device: &D,
    x: &GpuMaps<D::Buffer>,
    norm: &GpuNorm<D::Buffer>,
    kv: &GpuMaps<D::Buffer>,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    let capabilities = device.capabilities();
    cross_attend_by(device, |params| Kernel::choose(capabilities, x.element(), params), x, norm, kv)
}

/// [`cross_attend`] with the kernel that `choose` selects.
///
/// - errors: as [`cross_attend`], and an error of the device if it lacks that kernel
pub(crate) fn cross_attend_by<D: Device>(
    device: &D,
    choose: impl FnOnce(&CrossAttendParams) -> Kernel,
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
    let kernel = choose(&params);
    let launch = Launch {
        kernel: kernel.name,
        element: x.element(),
        grid: [shape.pixels().div_ceil(kernel.pixels as usize) as u32, 1, shape.n as u32],
        block: [kernel.threads, 1, 1],
        buffers: &[x.buffer(), norm.scale.buffer(), norm.shift.buffer(), kv.buffer(), out.buffer()],
        params: &params.bytes(),
    };
    // SAFETY: the kernel reads pixels of both maps, channels below their strides, and writes those of the output, whose shape is
    // that of `x` and whose buffer is new. It supports this many channels.
    unsafe { device.launch(&launch)? };
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_uses_tensor_cores_where_possible() {
        let name = |matrix_units, element, c| {
            let device = Capabilities { multiprocessors: 132, matrix_units };
            Kernel::choose(device, element, &CrossAttendParams { c, ..CrossAttendParams::default() }).name
        };
        let tensor = |element, c| name(MatrixUnits::TensorCores, element, c);
        assert_eq!(tensor(GpuElement::F32, 64), "cross_attend", "tensor cores have no exact f32 product");
        for (c, want) in [(64, "cross_attend_mma_64"), (72, "cross_attend_mma_128"), (128, "cross_attend_mma_128")] {
            assert_eq!(tensor(GpuElement::F16, c), want);
        }
        assert_eq!((tensor(GpuElement::F16, 63), tensor(GpuElement::F16, 136)), ("cross_attend", "cross_attend"));
        assert_eq!(name(MatrixUnits::Simdgroups, GpuElement::F16, 64), "cross_attend", "Metal has one kernel");
    }
}
