//! The launches that concatenate channels: one per part.

use crate::ShapeError;
use crate::gpu::{BLOCK, Device, GpuError, GpuMaps, GpuShape, Launch, blocks};

const OP: &str = "concat";

params! {
    /// Parameters of `concat`: channels `offset .. offset + width` of the output come from the part; those past its last are zero.
    pub struct ConcatParams { n: u32, pixels: u32, part_c: u32, part_cs: u32, out_cs: u32, offset: u32, width: u32 }
}

/// The parts' channels, one part after another.
///
/// - `parts`: at least one, with equal elements and shapes except for the number of channels
/// - accuracy: exact
/// - errors: [`ShapeError`] if the parts differ, otherwise those of the device
pub fn concat<D: Device>(device: &D, parts: &[&GpuMaps<D::Buffer>]) -> Result<GpuMaps<D::Buffer>, GpuError> {
    ShapeError::at_least(OP, "number of parts", parts.len(), 1)?;
    let (first, element) = (parts[0].shape(), parts[0].element());
    for part in parts {
        part.check(OP, "part", GpuShape { channels: part.shape().channels, ..first }, element)?;
    }
    let shape = GpuShape { channels: parts.iter().map(|part| part.shape().channels).sum(), ..first };
    let out = GpuMaps::blank(device, OP, shape, element)?;
    let mut offset = 0;
    for (i, part) in parts.iter().enumerate() {
        let channels = part.shape().channels;
        let width = if i + 1 == parts.len() { shape.stride() - offset } else { channels };
        let params = ConcatParams {
            n: shape.n as u32,
            pixels: shape.pixels() as u32,
            part_c: channels as u32,
            part_cs: part.shape().stride() as u32,
            out_cs: shape.stride() as u32,
            offset: offset as u32,
            width: width as u32,
        };
        let launch = Launch {
            kernel: OP,
            element,
            grid: [blocks(shape.pixels() * width), 1, shape.n as u32],
            block: [BLOCK, 1, 1],
            buffers: &[part.buffer(), out.buffer()],
            params: &params.bytes(),
        };
        // SAFETY: the kernel reads the part's channels and writes `offset .. offset + width`, which is below the output's stride. Part and
        // output have the same number of images and pixels; the output's buffer is new.
        unsafe { device.launch(&launch)? };
        offset += channels;
    }
    Ok(out)
}
