//! The launches of the grouped double normalization: statistics of every channel, then both normalizations in one pass.
//!
//! The map is read twice and written once. The first kernel splits the pixels, so that a map with few channels also keeps a GPU busy;
//! the second combines the splits.

use crate::ShapeError;
use crate::gpu::{BLOCK, Device, GpuError, GpuMaps, Launch};

const OP: &str = "ea_norm";

/// The largest number of splits of an image's pixels, and the smallest number of pixels per split.
const SPLITS: usize = 32;
const PIXELS: usize = 64;
/// Pixels per block of the second kernel.
const TILE: usize = 64;
/// The largest number of channels per group that the second kernel supports.
const GROUP: usize = 1024;

params! {
    /// Parameters of `ea_stats`. A block computes 32 channels of every `splits`-th part of an image's pixels.
    pub struct EaStatsParams { n: u32, c: u32, cs: u32, pixels: u32, splits: u32 }
}

params! {
    /// Parameters of `ea_norm`. A block computes a group's channels of 64 pixels.
    pub struct EaNormParams { n: u32, c: u32, cs: u32, pixels: u32, groups: u32, splits: u32 }
}

/// Softmax over the pixels of each channel, then every pixel divided by its sum over the channels of its group plus `1e-6`; in place.
///
/// - accuracy: in f32 within `1e-5` of the definitions, relative to the largest output
/// - errors: [`ShapeError`] unless `groups` divides the channels into groups of at most 1024, otherwise those of the device
pub fn ea_norm<D: Device>(device: &D, x: &mut GpuMaps<D::Buffer>, groups: usize) -> Result<(), GpuError> {
    let (shape, element) = (x.shape(), x.element());
    let channels = shape.channels;
    let divides = groups > 0 && channels.is_multiple_of(groups) && channels / groups <= GROUP && groups <= 65_535;
    let want = format_args!("a divisor of {channels} channels, into groups of at most {GROUP}");
    ShapeError::ensure(divides, OP, "groups", groups, want)?;
    let splits = shape.pixels().div_ceil(PIXELS).min(SPLITS);
    // The largest logit and the sum of e^(logit - largest), per split and channel.
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
    // SAFETY: the kernel reads channels below the stride of the map's pixels, and writes one pair per split and channel.
    unsafe { device.launch(&launch)? };
    let launch = Launch {
        kernel: OP,
        element,
        grid: [pixels.div_ceil(TILE as u32), groups, n],
        block: [BLOCK, 1, 1],
        buffers: &[&stats, x.buffer()],
        params: &EaNormParams { n, c, cs, pixels, groups, splits }.bytes(),
    };
    // SAFETY: the kernel reads those pairs, and reads and writes the channels of a group, all of which belong to the map. It supports
    // groups of this size. Each number is read and written by one thread.
    unsafe { device.launch(&launch)? };
    Ok(())
}
