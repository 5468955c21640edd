//! The launches of the grouped double normalization: statistics of every channel, then both normalizations in one pass.
//!
//! Two reads and one write of the map. The first kernel splits the pixels, so that a map of few channels keeps a GPU busy too; the
//! second puts the splits together again.

use crate::ShapeError;
use crate::gpu::{BLOCK, Device, GpuError, GpuMaps, Launch};

const OP: &str = "ea_norm";

/// The most splits of an image's pixels, and the fewest pixels that are worth one.
const SPLITS: usize = 32;
const PIXELS: usize = 64;
/// Pixels of a block of the second kernel.
const TILE: usize = 64;
/// Channels of a group that the second kernel has room for.
const GROUP: usize = 1024;

params! {
    /// Parameters of `ea_stats`. A block does 32 channels of every `splits`-th part of an image's pixels.
    pub struct EaStatsParams { n: u32, c: u32, cs: u32, pixels: u32, splits: u32 }
}

params! {
    /// Parameters of `ea_norm`. A block does a group's channels of 64 pixels.
    pub struct EaNormParams { n: u32, c: u32, cs: u32, pixels: u32, groups: u32, splits: u32 }
}

/// Softmax over the pixels of each channel, then every pixel divided by its sum over the channels of its group plus `1e-6`; in place.
///
/// - accuracy: in f32 within `1e-5` of the definitions, relative to the greatest output
/// - errors: [`ShapeError`] unless `groups` divides the channels into groups of at most 1024, else what the device says
pub fn ea_norm<D: Device>(device: &D, x: &mut GpuMaps<D::Buffer>, groups: usize) -> Result<(), GpuError> {
    let (shape, element) = (x.shape(), x.element());
    let channels = shape.channels;
    let divides = groups > 0 && channels.is_multiple_of(groups) && channels / groups <= GROUP && groups <= 65_535;
    let want = format_args!("a divisor of {channels} channels, into groups of at most {GROUP}");
    ShapeError::ensure(divides, OP, "groups", groups, want)?;
    let splits = shape.pixels().div_ceil(PIXELS).min(SPLITS);
    // The greatest logit and the sum of what is e^(logit - greatest), of each split and channel.
    let stats = device.buffer(2 * size_of::<f32>() * shape.n * splits * shape.stride())?;
    let [n, c, cs, pixels, groups, splits] =
        [shape.n, channels, shape.stride(), shape.pixels(), groups, splits].map(|v| v as u32);
    let launch = Launch {
        kernel: "ea_stats",
        element,
        grid: [cs.div_ceil(32), splits, n],
        block: [BLOCK, 1, 1],
        buffers: &[x.buffer(), &stats],
        params: &EaStatsParams { n, c, cs, pixels, splits }.bytes(),
    };
    // SAFETY: the kernel reads channels below the stride of the map's pixels, and writes a pair for each of the splits and channels.
    unsafe { device.launch(&launch)? };
    let launch = Launch {
        kernel: OP,
        element,
        grid: [pixels.div_ceil(TILE as u32), groups, n],
        block: [BLOCK, 1, 1],
        buffers: &[&stats, x.buffer()],
        params: &EaNormParams { n, c, cs, pixels, groups, splits }.bytes(),
    };
    // SAFETY: the kernel reads those pairs, and reads and writes the channels of a group, which are channels of the map; a group has
    // no more than the kernel has room for; each number is read and written by one thread.
    unsafe { device.launch(&launch)? };
    Ok(())
}
