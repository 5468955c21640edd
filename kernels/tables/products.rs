//! Operations that multiply matrices. A device has several kernels for each.

use super::{Row, download, each_image, norm, owned, shape, stored, tolerance, upload};
use crate::conv::gpu::{self as conv, GpuConv, GpuEpilogue};
use crate::cross_attend::gpu as cross_attend;
use crate::gpu::{Device, GpuElement};
use crate::testing::{assert_close, noise};
use crate::{Activation, ConvShape, CrossKeys, Element, Epilogue, Input, Isa, Lanes, PackedConv, Prologue};

/// `conv`: every window and stride with every prologue, residual and activation.
pub fn convolutions<D: Device>(device: &D, element: GpuElement) {
    convolutions_by(device, element, None);
}

/// [`convolutions`] by one kernel, whichever the shape.
pub(crate) fn convolutions_by<D: Device>(device: &D, element: GpuElement, kernel: Option<conv::Kernel>) {
    let capabilities = device.capabilities();
    let choose = |params: &_| kernel.unwrap_or_else(|| conv::Kernel::choose(capabilities, element, params));
    // Input, output channels, kernel, stride.
    let rows = [
        (shape(1, 1, 1, 1), 1, 1, 1), // the smallest map
        (shape(1, 1, 1, 1), 1, 3, 1), // nothing but border
        (shape(1, 1, 1, 1), 1, 3, 2),
        (shape(2, 5, 2, 2), 3, 3, 2), // an even size: the last window ends before the border; two images
        (shape(1, 5, 3, 3), 3, 3, 2), // an odd size: it ends in it
        (shape(1, 3, 9, 31), 32, 3, 2), // the stem: three channels of eight
        (shape(1, 16, 8, 8), 64, 3, 1), // one block exactly
        (shape(2, 17, 5, 13), 65, 1, 1), // one pixel, and one channel, more than a block
        (shape(1, 24, 7, 6), 40, 1, 2), // half a slab of input channels at the end
        (shape(1, 33, 6, 7), 19, 1, 1), // the head: 19 classes
        (shape(1, 40, 4, 11), 72, 3, 1),
        (shape(1, 130, 2, 5), 16, 3, 1),
    ];
    for (input, out_channels, kernel, stride) in rows {
        let spec = ConvShape { in_channels: input.channels, out_channels, kernel, stride, padding: kernel / 2 };
        let (height, width) = spec.out_size(input.height, input.width);
        let output = shape(input.n, out_channels, height, width);
        let x = stored(element, noise(input.n * input.channels * input.pixels(), 1));
        let weight = stored(element, noise(out_channels * input.channels * kernel * kernel, 2));
        let bias = noise(out_channels, 3);
        let around = stored(element, noise(output.n * output.channels * output.pixels(), 4));
        let (maps, residual) = (upload(device, element, &x, input), upload(device, element, &around, output));
        let packed = PackedConv::pack(spec, &weight, Some(&bias), 16, Element::F32).expect("the shapes fit");
        for prologue in [None, Some(false), Some(true)] {
            let (on_device, scale, shift) = norm(device, input.channels, 5);
            let on_device = prologue.map(|relu| (on_device, relu));
            let layer = GpuConv::new(device, spec, &weight, &bias, on_device, element).expect("the shapes fit");
            let (scale, shift) = (Lanes::from_channels(&scale), Lanes::from_channels(&shift));
            for (with, activation) in [
                (false, Activation::None),
                (true, Activation::None),
                (false, Activation::Relu),
                (true, Activation::Relu),
                (false, Activation::Gelu),
                (true, Activation::Gelu),
            ] {
                let _row = Row::of(device, element, (input, spec, prologue, with, activation));
                let epilogue = GpuEpilogue { residual: with.then_some(&residual), activation };
                let got = conv::conv_by(device, choose, &layer, &maps, &epilogue).expect("the shapes fit");
                assert_eq!(got.shape(), output);
                let want = each_image(input.n, output, |image, out| {
                    let (x, around) = (owned(&x, image, input), owned(&around, image, output));
                    let prologue = prologue.map(|relu| Prologue { scale: &scale, shift: &shift, relu });
                    let input = Input { map: x.map(), prologue };
                    let epilogue = Epilogue { residual: with.then(|| around.map()), activation };
                    let mut scratch = vec![Lanes::ZERO; crate::conv::scratch_len(&packed, &input)];
                    crate::conv(Isa::Scalar, &packed, input, out.view(), epilogue, &mut scratch)
                        .expect("the shapes fit");
                });
                assert_close(&download(device, &got), &want, tolerance(element));
            }
        }
    }
}

/// `cross_attend`.
pub fn attentions<D: Device>(device: &D, element: GpuElement) {
    attentions_by(device, element, None);
}

/// [`attentions`] by one kernel, whichever the shape.
pub(crate) fn attentions_by<D: Device>(device: &D, element: GpuElement, kernel: Option<cross_attend::Kernel>) {
    let capabilities = device.capabilities();
    let choose = |params: &_| kernel.unwrap_or_else(|| cross_attend::Kernel::choose(capabilities, element, params));
    let rows = [
        (shape(1, 1, 1, 1), 1),   // one pixel asks one key
        (shape(2, 3, 2, 5), 2),   // four keys of a tile of sixteen; two images
        (shape(1, 5, 7, 3), 3),   // one pixel block and five pixels
        (shape(1, 16, 4, 4), 4),  // one tile of keys, one block of pixels
        (shape(1, 17, 3, 9), 5),  // one channel, and some keys, more
        (shape(1, 64, 2, 9), 12), // slim
        (shape(1, 65, 1, 17), 8), // one channel more than a slab of keys
        (shape(1, 200, 1, 3), 6),
    ];
    for (from, side) in rows {
        let _row = Row::of(device, element, (from, side));
        let x = stored(element, noise(from.n * from.channels * from.pixels(), 1));
        let both = shape(from.n, 2 * from.channels, side, side);
        // Some scores far above the others.
        let kv: Vec<_> = noise(both.n * both.channels * both.pixels(), 2).iter().map(|v| 3.0 * v).collect();
        let kv = stored(element, kv);
        let (on_device, scale, shift) = norm(device, from.channels, 3);
        let (maps, answers) = (upload(device, element, &x, from), upload(device, element, &kv, both));
        let got = cross_attend::cross_attend_by(device, choose, &maps, &on_device, &answers).expect("the shapes fit");
        let want = each_image(from.n, from, |image, out| {
            let (x, kv) = (owned(&x, image, from), owned(&kv, image, both));
            let mut keys = CrossKeys::default();
            keys.pack(kv.map(), &scale, &shift, Element::F32).expect("the shapes fit");
            let mut scratch = vec![Lanes::ZERO; keys.scratch_len(x.map().layout())];
            crate::cross_attend(Isa::Scalar, x.map(), &keys, Some(x.map()), out.view(), &mut scratch)
                .expect("the shapes fit");
        });
        assert_close(&download(device, &got), &want, tolerance(element));
    }
}
