//! Functions for benchmarks: networks with random parameters, inputs that stay on the device, and profiles.

use crate::error::{Error, Result};
use crate::model::{Config, Noise, Variant};
use crate::pixels::{Input, Mask, Pixels};
use crate::segmenter::{Builder, Segmenter};
use crate::timing::timed;
use crate::weights::Dataset;

pub use crate::backend::OpTime;
pub use crate::segmenter::{FrameProfile, Resident};

/// A network with the sizes of `variant`, random parameters and Cityscapes' 19 classes.
///
/// ```
/// use rtformer::{Device, Segmenter, Variant, bench};
///
/// let segmenter = bench::random(Variant::Slim, Segmenter::builder().device(Device::Cpu))?;
/// assert_eq!(segmenter.model().num_classes(), 19);
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// As [`Builder::build`].
pub fn random(variant: Variant, builder: Builder) -> Result<Segmenter> {
    random_as(|classes| variant.config(classes), builder)
}

/// [`random`] for a network of any width: that of Slim is 32, that of Base 64. The head has twice and DAPPM four times as many channels.
///
/// ```
/// use rtformer::{Device, Segmenter, bench};
///
/// let segmenter = bench::random_of_width(12, Segmenter::builder().device(Device::Cpu))?;
/// assert_eq!(segmenter.model().name(), "RTFormer (base channels 12)");
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// As [`Builder::build`]; [`Error::Config`] if the width is 0 or more than 1024.
pub fn random_of_width(width: u32, builder: Builder) -> Result<Segmenter> {
    let width = width as usize;
    let sizes = |classes| Config {
        base_channels: width,
        head_channels: 2 * width,
        spp_channels: 4 * width,
        ..Config::slim(classes)
    };
    sizes(1).check()?;
    random_as(sizes, builder)
}

fn random_as(config: impl Fn(usize) -> Config, builder: Builder) -> Result<Segmenter> {
    let dataset = Dataset::named("cityscapes").ok_or_else(|| Error::Config("unknown data set `cityscapes`".into()))?;
    let model = config(dataset.classes.len()).into();
    builder.open(|builder| builder.load("random".into(), &model, &dataset, 1.0, &mut Noise::new(7)))
}

/// The milliseconds of each of `runs` frames, 8-bit frame to 8-bit mask, after `warmup` frames that are not measured: the stage `frame` of
/// `rtformer bench`.
///
/// ```
/// # use rtformer::{Device, Segmenter, bench};
/// # let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
/// let times = bench::frames(&segmenter, &image::RgbImage::new(64, 48), 1, 3)?;
/// assert!(times.len() == 3 && times.iter().all(|ms| *ms > 0.0));
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// As [`Segmenter::segment`].
pub fn frames(segmenter: &Segmenter, photo: &image::RgbImage, warmup: u32, runs: u32) -> Result<Vec<f64>> {
    let mut mask = Mask::new(0, 0, segmenter.model().num_classes());
    let mut once = || -> Result<f64> {
        let (done, milliseconds) = timed(|| segmenter.segment_into(photo, &mut mask));
        done.map(|_| milliseconds)
    };
    for _ in 0..warmup {
        once()?;
    }
    (0..runs).map(|_| once()).collect()
}

/// The network's input for a photo: resized if the builder set a size, and normalised.
///
/// ```
/// # use rtformer::{Device, Segmenter, bench};
/// # let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
/// let input = bench::prepare(&segmenter, &image::RgbImage::new(64, 48))?;
/// assert_eq!((input.width, input.height), (64, 48));
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Input`] if the network does not support the size.
pub fn prepare<'a>(segmenter: &Segmenter, photo: impl Into<Pixels<'a>>) -> Result<Input> {
    segmenter.prepare(&photo.into())
}

/// Copies inputs of one size to the device, so that the network can run on them repeatedly. They go through the network together.
///
/// ```
/// # use rtformer::pixels::Mask;
/// # use rtformer::{Device, Segmenter, bench};
/// # let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
/// let input = bench::prepare(&segmenter, &image::RgbImage::new(64, 48))?;
/// let resident = bench::resident(&segmenter, &[input])?;
/// let mut mask = Mask::new(64, 48, segmenter.model().num_classes());
/// for _ in 0..2 {
///     resident.mask(&mut mask)?; // time this: no photo, no upload
/// }
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Input`] for no input, or inputs of different sizes; otherwise as [`Segmenter::segment`].
pub fn resident<'a>(segmenter: &'a Segmenter, inputs: &[Input]) -> Result<Resident<'a>> {
    segmenter.resident(inputs)
}

/// Runs [`Segmenter::segment_into`], and measures the time of each operation.
///
/// The profile includes frames that other threads run on the same segmenter at the same time.
///
/// ```
/// # use rtformer::pixels::Mask;
/// # use rtformer::{Device, Segmenter, bench};
/// # let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
/// let mut mask = Mask::new(0, 0, segmenter.model().num_classes());
/// let frame = bench::profile(&segmenter, &image::RgbImage::new(64, 48), &mut mask)?;
/// assert!(frame.operations.iter().any(|op| op.name == "conv1.0" && op.flops > 0.0));
/// assert!(frame.operations.iter().map(|op| op.milliseconds).sum::<f64>() <= frame.milliseconds);
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// As [`Segmenter::segment`].
pub fn profile<'a>(segmenter: &Segmenter, photo: impl Into<Pixels<'a>>, mask: &mut Mask) -> Result<FrameProfile> {
    segmenter.profile(&photo.into(), mask)
}

/// The device's peak floating-point operations per second, measured by this call; `None` if unknown.
///
/// ```
/// # use rtformer::{Device, Segmenter, bench};
/// # let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu)?;
/// assert!(bench::peak_flops(&segmenter).is_some_and(|peak| peak > 0.0));
/// # Ok::<(), rtformer::Error>(())
/// ```
pub fn peak_flops(segmenter: &Segmenter) -> Option<f64> {
    segmenter.peak_flops()
}
