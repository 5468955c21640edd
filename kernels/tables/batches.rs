//! Photos together.

use super::{Row, download, norm, shape, stored, upload};
use crate::argmax::gpu as argmax;
use crate::concat::gpu as concat;
use crate::conv::gpu::{self as conv, GpuConv, GpuEpilogue};
use crate::cross_attend::gpu as cross_attend;
use crate::ea_norm::gpu as ea_norm;
use crate::gpu::{Device, GpuElement, GpuMaps, GpuShape};
use crate::pointwise::gpu as pointwise;
use crate::pool::gpu as pool;
use crate::resize_add::gpu as resize_add;
use crate::testing::noise;
use crate::{Activation, ConvShape};

/// A photo's result is the same to the bit, whether it is alone or one of three.
pub fn batches<D: Device>(device: &D, element: GpuElement) {
    batches_by(device, element, None);
}

/// [`batches`] with convolutions by one kernel, whichever the shape.
pub(crate) fn batches_by<D: Device>(device: &D, element: GpuElement, kernel: Option<conv::Kernel>) {
    let capabilities = device.capabilities();
    let choose = |params: &_| kernel.unwrap_or_else(|| conv::Kernel::choose(capabilities, element, params));
    // So many pixels that the normalization has two splits; so few that a batch may take other tiles than an image.
    let one = shape(1, 40, 9, 13);
    let len = one.channels * one.pixels();
    let x = stored(element, noise(3 * len, 1));
    let (one_norm, ..) = norm(device, one.channels, 2);
    let (two_norm, ..) = norm(device, 2 * one.channels, 4);
    let layer = |kernel: usize, stride| {
        let spec = ConvShape { in_channels: one.channels, out_channels: 40, kernel, stride, padding: kernel / 2 };
        let weight = noise(40 * one.channels * kernel * kernel, 6);
        let prologue = (kernel == 3).then(|| (norm(device, one.channels, 7).0, true));
        GpuConv::new(device, spec, &weight, &noise(40, 9), prologue, element).expect("the shapes fit")
    };
    let layers = [layer(3, 1), layer(3, 2), layer(1, 1)];

    // What each operation makes of some images.
    let results = |images: &[f32]| {
        let of = GpuShape { n: images.len() / len, ..one };
        let x = upload(device, element, images, of);
        let mut all = Vec::new();
        let mut note = |what, maps: &GpuMaps<D::Buffer>| all.push((what, download(device, maps)));
        for (conv, what) in layers.iter().zip(["conv 3x3", "conv 3x3 at stride 2", "conv 1x1"]) {
            let epilogue = GpuEpilogue { residual: None, activation: Activation::Gelu };
            note(what, &conv::conv_by(device, choose, conv, &x, &epilogue).expect("the shapes fit"));
        }
        note("relu", &pointwise::relu(device, &x).expect("the shapes fit"));
        note("add", &pointwise::add(device, &x, &x).expect("the shapes fit"));
        let two = concat::concat(device, &[&x, &x]).expect("the shapes fit");
        note("concat", &two);
        let larger = resize_add::resize(device, &x, (18, 31)).expect("the shapes fit");
        note("resize", &larger);
        note("resize_add", &resize_add::resize_add(device, &x, &larger).expect("the shapes fit"));
        note("avg_pool", &pool::avg_pool(device, &x, [5, 2, 2]).expect("the shapes fit"));
        note("global_avg_pool", &pool::global_avg_pool(device, &x).expect("the shapes fit"));
        let kv = pool::max_pool_to(device, &two, &two_norm, 4).expect("the shapes fit");
        note("max_pool_to", &kv);
        note("cross_attend", &cross_attend::cross_attend(device, &x, &one_norm, &kv).expect("the shapes fit"));
        let mut normed = upload(device, element, images, of);
        ea_norm::ea_norm(device, &mut normed, 8).expect("the shapes fit");
        note("ea_norm", &normed);
        let mut logits = vec![f32::NAN; of.n * one.channels * 18 * 31];
        for (image, logits) in logits.chunks_mut(one.channels * 18 * 31).enumerate() {
            argmax::upsample(device, &x, image, (18, 31), logits).expect("the shapes fit");
        }
        all.push(("upsample", logits));
        all
    };
    let together = results(&x);
    for (image, alone) in x.chunks(len).enumerate() {
        for ((what, all), (_, alone)) in together.iter().zip(results(alone)) {
            let _row = Row::of(device, element, (what, image));
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(&all[image * alone.len()..][..alone.len()]) == bits(&alone), "{what} depends on the batch");
        }
    }
}
