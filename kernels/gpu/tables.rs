//! Every kernel's table of shapes, for any device: emulated or real. Each row says why it is there, and is compared with the scalar
//! definition.
//!
//! These are functions and not tests, because a table is as good for a GPU as for its emulation, in this crate's tests as in the next's.
//! They panic where a kernel is wrong.

#![allow(clippy::missing_panics_doc, reason = "to panic is what they are for: see above")]

use std::fmt::Debug;

use super::argmax::GpuIds;
use super::conv::{GpuConv, GpuEpilogue, GpuNorm};
use super::{
    Device, GpuElement, GpuMaps, GpuShape, argmax, concat, conv, cross_attend, ea_norm, pack, pointwise, pool, prepare,
    resize_add,
};
use crate::testing::{Owned, assert_close, noise};
use crate::{
    Activation, Confidence, ConvShape, CrossKeys, Element, Epilogue, Extent, Input, Isa, Lanes, Layout, PackedConv,
    Prologue, ea_group_l1, ea_softmax,
};

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

const SHAPES: [GpuShape; 6] = [
    shape(1, 1, 1, 1),   // the smallest map
    shape(2, 3, 5, 7),   // the photo's channels; two images
    shape(1, 8, 16, 16), // no padding; one block exactly
    shape(1, 17, 3, 33), // one channel in the last eight
    shape(3, 9, 1, 257), // one pixel in the second block
    shape(2, 64, 9, 11),
];

/// `pack` and `unpack`.
pub fn packs<D: Device>(device: &D, element: GpuElement) {
    for shape in SHAPES {
        let _row = Row::of(device, element, shape);
        let plain = noise(shape.n * shape.channels * shape.pixels(), 1);
        let packed = pack::pack(device, &plain, shape, element).expect("the shapes fit");
        assert_eq!(download(device, &packed), stored(element, plain));
        let mut back = vec![f32::NAN; shape.n * shape.channels * shape.pixels()];
        pack::unpack(device, &packed, &mut back).expect("the shapes fit");
        assert_eq!(back, download(device, &packed));
    }
}

/// `prepare`, which is exact.
pub fn preparations<D: Device>(device: &D, element: GpuElement) {
    let layouts = [
        (1, [0, 0, 0]), // grey
        (3, [0, 1, 2]),
        (3, [2, 1, 0]), // BGR, as cameras have it
        (4, [0, 1, 2]), // with an alpha, which nobody looks at
        (4, [2, 1, 0]),
    ];
    let of = |n, full, kept| (n, Extent { full, kept });
    let sizes = [
        of(1, (1, 1), (1, 1)),     // the smallest photo
        of(1, (16, 16), (16, 16)), // one block exactly, and every value once
        of(3, (1, 257), (1, 257)), // three pixels in the last block; images begin in the middle of one
        of(1, (5, 103), (5, 103)), // some rows, three pixels in the last block
        of(1, (8, 8), (5, 8)),     // padded below
        of(2, (4, 32), (4, 17)),   // padded beside, two images
        of(3, (8, 16), (3, 5)),    // both
    ];
    let values = noise(3 * 256, 1);
    let values: [[f32; 256]; 3] = std::array::from_fn(|i| std::array::from_fn(|j| values[256 * i + j]));
    let table = prepare::Table::new(device, &values).expect("there is memory");
    for ((bytes, offsets), (n, size)) in layouts.into_iter().flat_map(|layout| sizes.map(|size| (layout, size))) {
        let layout = prepare::PixelLayout { bytes, offsets };
        let _row = Row::of(device, element, (layout, n, size));
        let photo = size.kept.0 * size.kept.1;
        // The bytes of a pixel differ, and so do neighbours' and images'.
        let pixels: Vec<_> =
            (0..n * photo).flat_map(|pixel| (0..bytes).map(move |byte| (pixel + 85 * byte) as u8)).collect();
        let mut buffer = device.buffer(pixels.len()).expect("there is memory");
        device.write(&mut buffer, &pixels).expect("it is that long");
        let got = prepare::prepare(device, &buffer, layout, &table, n, size, element).expect("the shapes fit");
        let images = pixels.chunks(photo * bytes);
        let want = images.flat_map(|image| crate::prepare::scalar::prepare(image, layout, &values, size)).collect();
        assert_eq!(download(device, &got), stored(element, want));
    }
}

/// `relu` and `add`.
pub fn pointwise_operations<D: Device>(device: &D, element: GpuElement) {
    for shape in SHAPES {
        let _row = Row::of(device, element, shape);
        let values = |seed| stored(element, noise(shape.n * shape.channels * shape.pixels(), seed));
        let (a, b) = (values(1), values(2));
        let (x, y) = (upload(device, element, &a, shape), upload(device, element, &b, shape));
        let want: Vec<_> = a.iter().map(|v| v.max(0.0)).collect();
        assert_eq!(download(device, &pointwise::relu(device, &x).expect("the shapes fit")), want);
        let want = stored(element, a.iter().zip(&b).map(|(a, b)| a + b).collect());
        assert_eq!(download(device, &pointwise::add(device, &x, &y).expect("the shapes fit")), want);
    }
}

/// `concat`.
pub fn concatenations<D: Device>(device: &D, element: GpuElement) {
    let rows: [(usize, usize, usize, &[usize]); 7] = [
        (1, 1, 1, &[1]),
        (2, 3, 5, &[16, 8]),
        (1, 4, 9, &[3, 5]),    // no padding behind both
        (2, 3, 7, &[5, 6, 1]), // four of padding
        (1, 2, 3, &[3, 8]),    // five of padding, behind a part that has none
        (1, 2, 33, &[17, 8, 24, 2]),
        (1, 16, 16, &[24, 24, 24, 24, 24]), // DAPPM's five views
    ];
    for (n, height, width, widths) in rows {
        let _row = Row::of(device, element, (n, height, width, widths));
        let pixels = height * width;
        let parts: Vec<_> = widths
            .iter()
            .enumerate()
            .map(|(i, &channels)| stored(element, noise(n * channels * pixels, i as u64)))
            .collect();
        let mut want = Vec::new();
        for image in 0..n {
            for (part, &channels) in parts.iter().zip(widths) {
                want.extend_from_slice(&part[image * channels * pixels..][..channels * pixels]);
            }
        }
        let maps: Vec<_> = parts
            .iter()
            .zip(widths)
            .map(|(part, &channels)| upload(device, element, part, shape(n, channels, height, width)))
            .collect();
        let got = concat::concat(device, &maps.iter().collect::<Vec<_>>()).expect("the shapes fit");
        assert_eq!(download(device, &got), want);
    }
}

/// `conv`: every window and stride with every prologue, residual and activation.
pub fn convolutions<D: Device>(device: &D, element: GpuElement) {
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
                let got = conv::conv(device, &layer, &maps, &epilogue).expect("the shapes fit");
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

/// `resize` and `resize_add`.
pub fn resizes<D: Device>(device: &D, element: GpuElement) {
    let rows = [
        (shape(1, 1, 1, 1), (1, 1)), // the smallest map
        (shape(2, 3, 1, 1), (5, 7)), // one pixel to any size: DAPPM's global view
        (shape(1, 5, 2, 3), (4, 6)), // the usual factors ...
        (shape(1, 17, 4, 8), (32, 64)),
        (shape(1, 9, 12, 15), (45, 60)), // ... an unusual one, 360x480
        (shape(2, 16, 9, 70), (4, 23)),  // smaller
        (shape(1, 2, 5, 6), (5, 131)),   // one direction
        (shape(1, 8, 3, 4), (1, 257)),   // one more than a block
    ];
    for (from, (height, width)) in rows {
        let _row = Row::of(device, element, (from, height, width));
        let to = GpuShape { height, width, ..from };
        let x = stored(element, noise(from.n * from.channels * from.pixels(), 1));
        let base = stored(element, noise(to.n * to.channels * to.pixels(), 2));
        let (small, large) = (upload(device, element, &x, from), upload(device, element, &base, to));
        let want = |add: bool| {
            each_image(from.n, to, |image, out| {
                let (x, base) = (owned(&x, image, from), owned(&base, image, to));
                crate::resize_add(Isa::Scalar, x.map(), add.then(|| base.map()), out.view()).expect("the shapes fit");
            })
        };
        let got = resize_add::resize(device, &small, (height, width)).expect("the shapes fit");
        let whole = download(device, &got);
        assert_close(&whole, &want(false), tolerance(element));
        // A part of the result is the whole, cropped.
        let kept = (height.div_ceil(2), width - width / 3);
        let part = resize_add::resize(device, &small, Extent { full: (height, width), kept }).expect("the shapes fit");
        let rows = whole.chunks(height * width).flat_map(|plane| plane.chunks(width).take(kept.0));
        assert_eq!(download(device, &part), rows.flat_map(|row| row[..kept.1].to_vec()).collect::<Vec<_>>());
        let outside = Extent { full: (height, width), kept: (height + 1, width) };
        assert!(resize_add::resize(device, &small, outside).is_err());
        let got = resize_add::resize_add(device, &small, &large).expect("the shapes fit");
        assert_close(&download(device, &got), &want(true), tolerance(element));
    }
}

/// `avg_pool`, `global_avg_pool` and `max_pool_to`.
pub fn pools<D: Device>(device: &D, element: GpuElement) {
    let windows = [
        (shape(1, 1, 1, 1), [5, 2, 2]), // less than a window
        (shape(2, 3, 7, 5), [5, 2, 2]), // odd
        (shape(1, 17, 12, 15), [9, 4, 4]),
        (shape(1, 33, 12, 15), [17, 8, 8]), // a window larger than the map
        (shape(1, 8, 32, 33), [17, 8, 8]),
        (shape(1, 5, 6, 6), [2, 2, 0]),   // no border
        (shape(1, 2, 17, 16), [3, 1, 1]), // a pixel in many windows; more than a block
        (shape(1, 4, 9, 7), [1, 3, 0]),   // pixels in none
        (shape(1, 1, 3, 40), [7, 1, 3]),  // larger than the map in one direction
    ];
    for (from, [kernel, stride, padding]) in windows {
        let _row = Row::of(device, element, (from, kernel, stride, padding));
        let x = stored(element, noise(from.n * from.channels * from.pixels(), 1));
        let maps = upload(device, element, &x, from);
        let got = pool::avg_pool(device, &maps, [kernel, stride, padding]).expect("the window fits");
        let want = each_image(from.n, got.shape(), |image, out| {
            let x = owned(&x, image, from);
            crate::avg_pool(Isa::Scalar, x.map(), kernel, stride, padding, out.view()).expect("the shapes fit");
        });
        assert_close(&download(device, &got), &want, tolerance(element));
    }

    // Fewer pixels than parts, some more, and many; channels past a block.
    for from in [shape(1, 1, 1, 1), shape(2, 3, 2, 5), shape(1, 33, 7, 9), shape(1, 72, 5, 31)] {
        let _row = Row::of(device, element, ("global", from));
        let x = stored(element, noise(from.n * from.channels * from.pixels(), 1));
        let got = pool::global_avg_pool(device, &upload(device, element, &x, from)).expect("the shapes fit");
        let want = each_image(from.n, got.shape(), |image, out| {
            crate::global_avg_pool(Isa::Scalar, owned(&x, image, from).map(), out.view()).expect("the shapes fit");
        });
        let error = download(device, &got).iter().zip(&want).fold(0.0f32, |e, (a, b)| e.max((a - b).abs()));
        assert!(error < tolerance(element), "{error}");
    }

    let adaptive = [
        (shape(1, 1, 1, 1), 1),
        (shape(2, 3, 12, 12), 12),  // every window is one pixel
        (shape(1, 17, 13, 31), 12), // windows overlap
        (shape(1, 33, 5, 7), 12),   // fewer pixels than windows
        (shape(1, 8, 24, 40), 17),  // more than a block
    ];
    for (from, side) in adaptive {
        let _row = Row::of(device, element, (from, side));
        let x = stored(element, noise(from.n * from.channels * from.pixels(), 1));
        let (on_device, scale, shift) = norm(device, from.channels, 2);
        let maps = upload(device, element, &x, from);
        let got = pool::max_pool_to(device, &maps, &on_device, side).expect("the shapes fit");
        let (scale, shift) = (Lanes::from_channels(&scale), Lanes::from_channels(&shift));
        let want = each_image(from.n, got.shape(), |image, out| {
            let x = owned(&x, image, from);
            crate::max_pool_to(Isa::Scalar, x.map(), &scale, &shift, out.view()).expect("the shapes fit");
        });
        assert_close(&download(device, &got), &want, tolerance(element));
    }
}

/// `ea_norm`.
pub fn normalizations<D: Device>(device: &D, element: GpuElement) {
    let rows = [
        (shape(1, 1, 1, 1), 1), // the smallest map
        (shape(2, 3, 2, 5), 3), // every channel its own group
        (shape(1, 5, 7, 3), 1),
        (shape(1, 16, 9, 7), 2),   // one pixel less than a block of the second kernel
        (shape(1, 17, 5, 13), 17), // one more; two splits
        (shape(2, 33, 5, 4), 3),   // groups across eights
        (shape(1, 144, 6, 7), 8),  // groups of 18
        (shape(1, 40, 33, 65), 1), // as many splits as there are; a group of more than a simdgroup
        (shape(1, 320, 2, 3), 1),  // a group of more than a block
    ];
    for (shape, groups) in rows {
        let _row = Row::of(device, element, (shape, groups));
        let mut x = noise(shape.n * shape.channels * shape.pixels(), 7);
        for v in &mut x {
            *v *= 10.0;
        }
        x[0] = 60.0; // one far above the others, as trained networks have them
        let x = stored(element, x);
        let mut maps = upload(device, element, &x, shape);
        ea_norm::ea_norm(device, &mut maps, groups).expect("the shapes fit");
        let want = each_image(shape.n, shape, |image, out| {
            *out = owned(&x, image, shape);
            ea_softmax(Isa::Scalar, out.view()).expect("the view is whole");
            ea_group_l1(Isa::Scalar, out.view(), groups).expect("the view is whole");
        });
        assert_close(&download(device, &maps), &want, tolerance(element));
    }
}

/// `cross_attend`.
pub fn attentions<D: Device>(device: &D, element: GpuElement) {
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
        let got = cross_attend::cross_attend(device, &maps, &on_device, &answers).expect("the shapes fit");
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

/// `argmax` with and without its confidence, in ids of 8 and 16 bits, and `upsample`.
pub fn readouts<D: Device>(device: &D, element: GpuElement) {
    let rows = [
        (shape(1, 1, 1, 1), (1, 1)), // one class
        (shape(2, 2, 1, 1), (4, 33)),
        (shape(1, 19, 4, 5), (32, 40)),  // Cityscapes
        (shape(2, 11, 3, 4), (19, 31)),  // an unusual factor
        (shape(1, 150, 2, 3), (16, 24)), // ADE20K
        (shape(1, 5, 9, 8), (4, 3)),     // smaller
        (shape(1, 300, 1, 2), (2, 9)),   // more classes than a byte names
    ];
    let padded = [
        (shape(2, 11, 3, 4), Extent { full: (24, 32), kept: (19, 31) }), // logits of a padded photo
        (shape(1, 5, 4, 4), Extent { full: (32, 32), kept: (32, 9) }),
    ];
    for (from, size) in rows.map(|(from, size)| (from, Extent::from(size))).into_iter().chain(padded) {
        let _row = Row::of(device, element, (from, size));
        let x = stored(element, noise(from.n * from.channels * from.pixels(), 1));
        let maps = upload(device, element, &x, from);
        for image in 0..from.n {
            let logits = owned(&x, image, from);
            let pixels = size.kept.0 * size.kept.1;
            let mut full = vec![0.0; from.channels * pixels];
            let mut planes: Vec<_> = full.chunks_mut(pixels).collect();
            crate::upsample(Isa::Scalar, logits.map(), size, 0..size.kept.0, &mut planes).expect("the shapes fit");
            let mut got = vec![f32::NAN; full.len()];
            argmax::upsample(device, &maps, image, size, &mut got).expect("the shapes fit");
            assert_close(&got, &full, 1e-6);

            let (mut want, mut sure) = (vec![0u16; pixels], vec![0.0; pixels]);
            let confidence = Confidence { values: &mut sure, temperature: 0.7 };
            crate::argmax(Isa::Scalar, logits.map(), size, 0..size.kept.0, &mut want, Some(confidence))
                .expect("the shapes fit");
            let (mut ids, mut got) = (vec![u16::MAX; pixels], vec![f32::NAN; pixels]);
            let confidence = Confidence { values: &mut got, temperature: 0.7 };
            argmax::argmax(device, &maps, image, size, GpuIds::U16(&mut ids), Some(confidence))
                .expect("the shapes fit");
            assert_close(&got, &sure, 1e-5);
            same_winners(&ids, &want, &full);
            if from.channels <= 256 {
                let mut ids = vec![u8::MAX; pixels];
                argmax::argmax(device, &maps, image, size, GpuIds::U8(&mut ids), None).expect("the shapes fit");
                same_winners(&ids.iter().map(|id| u16::from(*id)).collect::<Vec<_>>(), &want, &full);
            }
        }
    }
    // The lowest of equals.
    let maps = upload(device, element, &[0.5; 7 * 6], shape(1, 7, 2, 3));
    let mut ids = [u8::MAX; 4 * 6];
    argmax::argmax(device, &maps, 0, (4, 6), GpuIds::U8(&mut ids), None).expect("the shapes fit");
    assert_eq!(ids, [0; 4 * 6]);
}

/// The same classes, but where two logits are so near that a fused multiply-add decides.
fn same_winners(got: &[u16], want: &[u16], full: &[f32]) {
    for (pixel, (&a, &b)) in got.iter().zip(want).enumerate() {
        let logit = |class: u16| full[usize::from(class) * want.len() + pixel];
        assert!(a == b || logit(b) - logit(a) < 1e-5, "pixel {pixel} is {a}, not {b}");
    }
}

/// A photo's result is the same to the bit, whether it is alone or one of three.
pub fn batches<D: Device>(device: &D, element: GpuElement) {
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
            note(what, &conv::conv(device, conv, &x, &epilogue).expect("the shapes fit"));
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
