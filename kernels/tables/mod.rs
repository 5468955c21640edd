//! Every kernel's table of shapes, for any device: emulated or real. Each row says why it is there, and is compared with the scalar
//! definition.
//!
//! These are functions and not tests, because a table is as good for a GPU as for its emulation, in this crate's tests as in the next's.
//! They panic where a kernel is wrong.

#![allow(clippy::missing_panics_doc, reason = "to panic is what they are for: see above")]

mod batches;
mod elementwise;
mod neighbourhoods;
mod products;
mod readouts;

use std::fmt::Debug;

use crate::Layout;
use crate::conv::gpu::GpuNorm;
use crate::gpu::{Device, GpuElement, GpuMaps, GpuShape};
use crate::testing::{Owned, noise};

pub use batches::batches;
#[cfg(test)]
pub(crate) use batches::batches_by;
pub use elementwise::{concatenations, packs, pointwise_operations, preparations};
pub use neighbourhoods::{normalizations, pools, resizes};
pub use products::{attentions, convolutions};
#[cfg(test)]
pub(crate) use products::{attentions_by, convolutions_by};
pub use readouts::readouts;

/// A kernel's name, and its table.
pub type Table<D> = (&'static str, fn(&D, GpuElement));

/// All tables.
pub fn all<D: Device>() -> Vec<Table<D>> {
    vec![
        ("pack", packs),
        ("prepare", preparations),
        ("pointwise", pointwise_operations),
        ("concat", concatenations),
        ("conv", convolutions),
        ("resize_add", resizes),
        ("pool", pools),
        ("ea_norm", normalizations),
        ("cross_attend", attentions),
        ("argmax", readouts),
        ("batch", batches),
    ]
}

/// Says which row failed when a test panics inside it.
struct Row(String);

impl Row {
    fn of<D: Device>(device: &D, element: GpuElement, what: impl Debug) -> Self {
        Self(format!("{what:?} in {} on {}", element.suffix(), device.name()))
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: {}", self.0);
        }
    }
}

/// What is stored when these are.
fn stored(element: GpuElement, values: Vec<f32>) -> Vec<f32> {
    match element {
        GpuElement::F32 => values,
        GpuElement::F16 => values.into_iter().map(|v| half::f16::from_f32(v).to_f32()).collect(),
    }
}

/// How far from the definition an output may be, relative to the greatest: a little in f32, one rounding in f16.
fn tolerance(element: GpuElement) -> f32 {
    match element {
        GpuElement::F32 => 1e-5,
        GpuElement::F16 => 6e-4,
    }
}

/// Images `[n, channels, height, width]` in device memory, put there by the host alone.
fn upload<D: Device>(device: &D, element: GpuElement, images: &[f32], shape: GpuShape) -> GpuMaps<D::Buffer> {
    let mut padded = vec![0.0; shape.len()];
    for (i, value) in images.iter().enumerate() {
        let (image, rest) = (i / (shape.channels * shape.pixels()), i % (shape.channels * shape.pixels()));
        let (channel, pixel) = (rest / shape.pixels(), rest % shape.pixels());
        padded[(image * shape.pixels() + pixel) * shape.stride() + channel] = *value;
    }
    GpuMaps::of_bytes(device, shape, element, &element.encode(&padded)).expect("the bytes are of that shape")
}

/// The images in maps, brought back by the host alone. Their padding channels have to be zero.
fn download<D: Device>(device: &D, maps: &GpuMaps<D::Buffer>) -> Vec<f32> {
    let (shape, element) = (maps.shape(), maps.element());
    let mut bytes = vec![0; shape.len() * element.bytes()];
    device.read(maps.buffer(), &mut bytes).expect("the buffer is that long");
    let padded = element.decode(&bytes);
    let mut images = vec![0.0; shape.n * shape.channels * shape.pixels()];
    for (i, value) in padded.iter().enumerate() {
        let (place, channel) = (i / shape.stride(), i % shape.stride());
        let (image, pixel) = (place / shape.pixels(), place % shape.pixels());
        if channel < shape.channels {
            images[(image * shape.channels + channel) * shape.pixels() + pixel] = *value;
        } else {
            assert!(*value == 0.0, "padding channel {channel} of pixel {pixel} is {value}");
        }
    }
    images
}

/// One image as a map of the CPU.
fn owned(images: &[f32], image: usize, shape: GpuShape) -> Owned {
    let len = shape.channels * shape.pixels();
    Owned::from_nchw(&images[image * len..][..len], layout(shape))
}

fn layout(shape: GpuShape) -> Layout {
    Layout::blocked(shape.channels, shape.height, shape.width)
}

const fn shape(n: usize, channels: usize, height: usize, width: usize) -> GpuShape {
    GpuShape { n, channels, height, width }
}

/// What `work` makes of each image, one after another.
fn each_image(n: usize, to: GpuShape, mut work: impl FnMut(usize, &mut Owned)) -> Vec<f32> {
    let mut all = Vec::new();
    for image in 0..n {
        let mut out = Owned::zeros(layout(to));
        work(image, &mut out);
        all.extend(out.to_nchw());
    }
    all
}

/// A norm on both sides; scales of either sign.
fn norm<D: Device>(device: &D, channels: usize, seed: u64) -> (GpuNorm<D::Buffer>, Vec<f32>, Vec<f32>) {
    let (scale, shift) = (noise(channels, seed), noise(channels, seed + 1));
    (GpuNorm::new(device, &scale, &shift).expect("the lengths fit"), scale, shift)
}
