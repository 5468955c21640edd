//! The launches of the readout: bilinear logits, their argmax and its confidence, at the photo's size.

use super::Confidence;
use crate::gpu::{Device, GpuError, GpuMaps, GpuShape, Launch};
use crate::resize_add::Axis;
use crate::{Extent, ShapeError};

/// Threads per block: columns by rows of the output, one thread per pixel.
const BLOCK: [u32; 3] = [32, 8, 1];

params! {
    /// Parameters of `upsample`.
    pub struct UpsampleParams {
        image: u32, classes: u32, cs: u32, h: u32, w: u32, out_h: u32, out_w: u32, ratio_y: f32, ratio_x: f32,
    }
}

params! {
    /// Parameters of `argmax`.
    pub struct ArgmaxParams {
        image: u32, classes: u32, cs: u32, h: u32, w: u32, out_h: u32, out_w: u32, ratio_y: f32, ratio_x: f32, flags: u32,
        temperature: f32,
    }
}

/// Ids have 16 bits.
pub const WIDE: u32 = 1;
/// The confidence is requested.
pub const CONFIDENCE: u32 = 1 << 1;

/// Where the class ids are written.
#[derive(Debug)]
pub enum GpuIds<'a> {
    /// Up to 256 classes.
    U8(&'a mut [u8]),
    /// Up to 65,536 classes.
    U16(&'a mut [u16]),
}

/// Where the class ids and their confidence are written in device memory.
#[derive(Debug)]
pub struct Found<'a, B> {
    /// `[height, width]` of u8, or of u16 if `wide`.
    pub ids: &'a B,
    /// Whether ids have 16 bits.
    pub wide: bool,
    /// `[height, width]` of f32, and the temperature of the softmax.
    pub confidence: Option<(&'a B, f32)>,
}

/// The class with the largest upsampled logit of image `image`; among equals the lowest class wins. The result stays in device memory.
///
/// - `size`: height and width of the output; with an [`Extent`], logits are scaled to the full size, and the output is the kept part
/// - accuracy: in f32 logits within `1e-6` of the definition, relative to the largest; confidence within `1e-5`
/// - errors: [`ShapeError`] if a buffer is too short, the ids cannot represent all classes, the image does not exist, or the
///   temperature is not positive; otherwise those of the device
pub fn argmax_to<D: Device>(
    device: &D,
    logits: &GpuMaps<D::Buffer>,
    image: usize,
    size: impl Into<Extent>,
    found: &Found<'_, D::Buffer>,
) -> Result<(), GpuError> {
    const OP: &str = "argmax";
    let (plain, pixels) = output(OP, logits.shape(), image, size.into())?;
    let (bytes, nameable, wide) = if found.wide { (2, 1 << 16, WIDE) } else { (1, 1 << 8, 0) };
    let classes = logits.shape().channels;
    ShapeError::ensure(classes <= nameable, OP, "number of classes", classes, format_args!("at most {nameable}"))?;
    ShapeError::at_least(OP, "bytes of the ids", device.len(found.ids), pixels * bytes)?;
    if let Some((sure, temperature)) = found.confidence {
        ShapeError::at_least(OP, "bytes of the confidence", device.len(sure), pixels * size_of::<f32>())?;
        ShapeError::ensure(temperature > 0.0, OP, "temperature", temperature, "positive")?;
    }
    let UpsampleParams { image, classes, cs, h, w, out_h, out_w, ratio_y, ratio_x } = plain;
    let (flags, temperature) = found.confidence.map_or((wide, 1.0), |(_, t)| (wide | CONFIDENCE, t));
    let params = ArgmaxParams { image, classes, cs, h, w, out_h, out_w, ratio_y, ratio_x, flags, temperature };
    let launch = Launch {
        kernel: OP,
        element: logits.element(),
        grid: grid(&plain),
        block: BLOCK,
        buffers: &[logits.buffer(), found.ids, found.confidence.map_or(found.ids, |(sure, _)| sure)],
        params: &params.bytes(),
    };
    // SAFETY: taps are clamped to the pixels of an existing image, and each thread writes its own output pixel, into buffers of the
    // checked length; without the flag, nothing is written to the last buffer.
    unsafe { device.launch(&launch) }
}

/// [`argmax_to`], with the result copied to the host.
///
/// - `ids`: `[height, width]`; `confidence`: as in [`crate::argmax()`]
/// - errors: as [`argmax_to`], and [`ShapeError`] if the length of either differs
pub fn argmax<D: Device>(
    device: &D,
    logits: &GpuMaps<D::Buffer>,
    image: usize,
    size: impl Into<Extent>,
    ids: GpuIds<'_>,
    confidence: Option<Confidence<'_>>,
) -> Result<(), GpuError> {
    const OP: &str = "argmax";
    let size = size.into();
    let (_, pixels) = output(OP, logits.shape(), image, size)?;
    let (len, wide) = match &ids {
        GpuIds::U8(ids) => (ids.len(), false),
        GpuIds::U16(ids) => (ids.len(), true),
    };
    ShapeError::check(OP, "length of the ids", len, pixels)?;
    if let Some(confidence) = &confidence {
        ShapeError::check(OP, "length of the confidence", confidence.values.len(), pixels)?;
    }
    let found = device.buffer(if wide { 2 * pixels } else { pixels })?;
    let sure = confidence.as_ref().map(|_| device.buffer(pixels * size_of::<f32>())).transpose()?;
    let temperature = confidence.as_ref().map_or(1.0, |confidence| confidence.temperature);
    let to = Found { ids: &found, wide, confidence: sure.as_ref().map(|sure| (sure, temperature)) };
    argmax_to(device, logits, image, size, &to)?;
    match ids {
        GpuIds::U8(ids) => device.read(&found, ids)?,
        GpuIds::U16(ids) => device.read(&found, bytemuck::cast_slice_mut(ids))?,
    }
    match (confidence, sure) {
        (Some(confidence), Some(sure)) => device.read(&sure, bytemuck::cast_slice_mut(confidence.values)),
        _ => Ok(()),
    }
}

/// The upsampled logits of image `image`: exactly the values that [`argmax_to`] compares. They stay in device memory.
///
/// - `size`: as for [`argmax_to`]; `out`: `[classes, height, width]` f32
/// - accuracy: in f32 within `1e-6` of the definition, relative to the largest
/// - errors: [`ShapeError`] if `out` is too short or the image does not exist, otherwise those of the device
pub fn upsample_to<D: Device>(
    device: &D,
    logits: &GpuMaps<D::Buffer>,
    image: usize,
    size: impl Into<Extent>,
    out: &D::Buffer,
) -> Result<(), GpuError> {
    const OP: &str = "upsample";
    let (params, pixels) = output(OP, logits.shape(), image, size.into())?;
    let floats = pixels.saturating_mul(logits.shape().channels);
    ShapeError::at_least(OP, "bytes of the logits", device.len(out), floats.saturating_mul(size_of::<f32>()))?;
    let launch = Launch {
        kernel: OP,
        element: logits.element(),
        grid: grid(&params),
        block: BLOCK,
        buffers: &[logits.buffer(), out],
        params: &params.bytes(),
    };
    // SAFETY: taps are clamped to the pixels of an existing image, and each thread writes one pixel of each plane.
    unsafe { device.launch(&launch) }
}

/// [`upsample_to`], with the result copied to the host.
///
/// - errors: as [`upsample_to`], and [`ShapeError`] if the length of `out` differs
pub fn upsample<D: Device>(
    device: &D,
    logits: &GpuMaps<D::Buffer>,
    image: usize,
    size: impl Into<Extent>,
    out: &mut [f32],
) -> Result<(), GpuError> {
    const OP: &str = "upsample";
    let size = size.into();
    let (_, pixels) = output(OP, logits.shape(), image, size)?;
    ShapeError::check(OP, "length of the logits", out.len(), pixels.saturating_mul(logits.shape().channels))?;
    let planes = device.buffer(size_of_val(out))?;
    upsample_to(device, logits, image, size, &planes)?;
    device.read(&planes, bytemuck::cast_slice_mut(out))
}

/// Parameters and number of pixels of an output.
fn output(
    op: &'static str,
    shape: GpuShape,
    image: usize,
    size: Extent,
) -> Result<(UpsampleParams, usize), ShapeError> {
    let (height, width) = size.kept;
    size.check(op)?;
    ShapeError::ensure(image < shape.n, op, "image", image, format_args!("below {}", shape.n))?;
    // Every logit of the output can be indexed in 32 bits, and the grid's rows in 16.
    let full = GpuShape { n: 1, height, width, ..shape };
    full.check(op)?;
    let [rows, fits] = [height.div_ceil(BLOCK[1] as usize), 65_535];
    ShapeError::ensure(rows <= fits, op, "height of the output", height, "at most 524,280")?;
    let [image, classes, cs, h, w, out_h, out_w] =
        [image, shape.channels, shape.stride(), shape.height, shape.width, height, width].map(|v| v as u32);
    let ratio_y = Axis::new(shape.height, size.full.0).ratio();
    let ratio_x = Axis::new(shape.width, size.full.1).ratio();
    let params = UpsampleParams { image, classes, cs, h, w, out_h, out_w, ratio_y, ratio_x };
    Ok((params, full.pixels()))
}

fn grid(params: &UpsampleParams) -> [u32; 3] {
    [params.out_w.div_ceil(BLOCK[0]), params.out_h.div_ceil(BLOCK[1]), 1]
}
