//! The launches of the bilinear resize.

use super::Axis;
use crate::Extent;
use crate::gpu::{BLOCK, CHANNEL_STRIDE, Device, GpuError, GpuMaps, GpuShape, Launch, blocks};

params! {
    /// Parameters of `resize` and `resize_add`. A thread computes eight channels of an output pixel. Ratios are input pixels per output
    /// pixel; the host computes them, so that every kernel uses the same quotient.
    pub struct ResizeParams { n: u32, cs: u32, h: u32, w: u32, out_h: u32, out_w: u32, ratio_y: f32, ratio_x: f32 }
}

/// The kept part of `x` at the size of `to`; see [`crate::resize()`].
///
/// - accuracy: in f32 within `1e-6` of the definition, relative to the largest output
/// - errors: [`crate::ShapeError`] if the size is 0 or too large to index, or the kept part lies outside it, otherwise those of the device
pub fn resize<D: Device>(
    device: &D,
    x: &GpuMaps<D::Buffer>,
    to: impl Into<Extent>,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    let Extent { full, kept } = to.into();
    Extent { full, kept }.check("resize")?;
    launch(device, "resize", x, None, full, GpuShape { height: kept.0, width: kept.1, ..x.shape() })
}

/// `x` at the size of `base`, plus `base`.
///
/// - accuracy: in f32 within `1e-6` of the definition, relative to the largest output
/// - errors: [`crate::ShapeError`] unless `base` has the images, channels and element of `x`, otherwise those of the device
pub fn resize_add<D: Device>(
    device: &D,
    x: &GpuMaps<D::Buffer>,
    base: &GpuMaps<D::Buffer>,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    let GpuShape { n, channels, .. } = x.shape();
    base.check("resize_add", "map to add", GpuShape { n, channels, ..base.shape() }, x.element())?;
    let GpuShape { height, width, .. } = base.shape();
    launch(device, "resize_add", x, Some(base), (height, width), base.shape())
}

fn launch<D: Device>(
    device: &D,
    kernel: &'static str,
    x: &GpuMaps<D::Buffer>,
    base: Option<&GpuMaps<D::Buffer>>,
    full: (usize, usize),
    shape: GpuShape,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    let out = GpuMaps::blank(device, kernel, shape, x.element())?;
    let GpuShape { height, width, .. } = x.shape();
    let params = ResizeParams {
        n: shape.n as u32,
        cs: shape.stride() as u32,
        h: height as u32,
        w: width as u32,
        out_h: shape.height as u32,
        out_w: shape.width as u32,
        ratio_y: Axis::new(height, full.0).ratio(),
        ratio_x: Axis::new(width, full.1).ratio(),
    };
    let buffers: Vec<_> = [Some(x), base, Some(&out)].into_iter().flatten().map(GpuMaps::buffer).collect();
    let launch = Launch {
        kernel,
        element: x.element(),
        grid: [blocks(shape.pixels() * shape.stride() / CHANNEL_STRIDE), 1, shape.n as u32],
        block: [BLOCK, 1, 1],
        buffers: &buffers,
        params: &params.bytes(),
    };
    // SAFETY: taps are clamped to the input's pixels, and base and output have the same shape, within which the kernel stays; the
    // output's buffer is new.
    unsafe { device.launch(&launch)? };
    Ok(out)
}
