//! Each kernel on the network's own shapes, as a share of a limit: FLOPs (as elements) or the ideal traffic in bytes.
//!
//! `cargo bench --bench kernels` runs on one thread. Compare with `peak` of the same run, which multiplies and adds in
//! registers only with the same instruction set. On a shared machine, do not compare with another run's figures.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use rtformer_kernels::conv::scratch_len;
use rtformer_kernels::testing::{Owned, fma_peak, noise};
use rtformer_kernels::{
    Activation, Confidence, ConvShape, CrossKeys, Element, Epilogue, Isa, Lanes, Layout, PackedConv, PackedWinograd,
    add, argmax, avg_pool, conv, cross_attend, ea_group_l1, ea_softmax, max_pool_to, resize_add, upsample, winograd,
};

/// The scalar definitions take seconds for work that takes milliseconds in a frame, so they run only if the CPU
/// supports no other instruction set.
fn instruction_sets() -> Vec<Isa> {
    let all = Isa::available();
    if all.len() == 1 { all } else { all.into_iter().filter(|isa| *isa != Isa::Scalar).collect() }
}

fn group<'a>(c: &'a mut Criterion, name: &str, throughput: Throughput) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(throughput).sample_size(20);
    group
}

/// The throughput of reading or writing `maps` whole maps.
fn traffic(layout: Layout, maps: usize) -> Throughput {
    Throughput::Bytes((maps * layout.len() * size_of::<f32>()) as u64)
}

fn peak(c: &mut Criterion) {
    for isa in instruction_sets() {
        let rounds = 100_000;
        let mut group = group(c, "peak", Throughput::Elements(fma_peak(isa, rounds)));
        group.bench_function(isa.name(), |b| b.iter(|| fma_peak(isa, rounds)));
    }
}

fn convolutions(c: &mut Criterion) {
    let conv3 =
        |in_channels, out_channels, stride| ConvShape { in_channels, out_channels, kernel: 3, stride, padding: 1 };
    let conv1 = |in_channels, out_channels| ConvShape { in_channels, out_channels, kernel: 1, stride: 1, padding: 0 };
    let layers = [
        ("stem/2048x1024", conv3(3, 32, 2), (1024, 2048)),
        ("stem.2/2048x1024", conv3(32, 32, 2), (512, 1024)),
        ("layer1/2048x1024", conv3(32, 32, 1), (256, 512)),
        ("layer2.down/2048x1024", conv3(32, 64, 2), (256, 512)),
        ("layer2/2048x1024", conv3(64, 64, 1), (128, 256)),
        ("layer3/2048x1024", conv3(128, 128, 1), (64, 128)),
        ("layer4.down/2048x1024", conv3(128, 256, 2), (64, 128)),
        ("layer4/2048x1024", conv3(256, 256, 1), (32, 64)),
        ("layer4.qkv/2048x1024", conv1(256, 256), (32, 64)),
        ("head.conv1/2048x1024", conv3(128, 128, 1), (128, 256)),
        ("head.conv2/2048x1024", conv1(128, 19), (128, 256)),
        ("stem/1024x512", conv3(3, 32, 2), (512, 1024)),
        ("layer1/1024x512", conv3(32, 32, 1), (128, 256)),
        ("layer2/1024x512", conv3(64, 64, 1), (64, 128)),
        ("layer4/1024x512", conv3(256, 256, 1), (16, 32)),
    ];
    for (name, shape, (height, width)) in layers {
        let ConvShape { in_channels, out_channels, kernel, .. } = shape;
        let lanes = if in_channels == 3 { 1 } else { 16 };
        let weight = noise(out_channels * in_channels * kernel * kernel, 1);
        let x = Owned::noise(Layout { channels: in_channels, height, width, lanes }, 2);
        let (out_height, out_width) = shape.out_size(height, width);
        let mut out = Owned::zeros(Layout::blocked(out_channels, out_height, out_width));
        let epilogue = Epilogue { residual: None, activation: Activation::Relu };
        // Winograd counts the multiplications of the direct convolution, although it does a quarter of them.
        let flops = || Throughput::Elements(2 * shape.macs(height, width) as u64);
        for (element, suffix) in [(Element::F32, ""), (Element::Bf16, "/bf16")] {
            let isas = || instruction_sets().into_iter().filter(|isa| isa.multiplies(element));
            if element == Element::Bf16 && lanes == 1 || isas().next().is_none() {
                continue;
            }
            let packed = PackedConv::pack(shape, &weight, None, lanes, element).expect("the shapes fit");
            let mut scratch = vec![Lanes::ZERO; scratch_len(&packed, &x.map().into())];
            let mut direct = group(c, &format!("conv/slim.{name}{suffix}"), flops());
            for isa in isas() {
                direct.bench_function(isa.name(), |b| {
                    b.iter(|| conv(isa, &packed, x.map(), out.view(), epilogue, &mut scratch));
                });
            }
            drop(direct);
            if !PackedWinograd::can(&shape) {
                continue;
            }
            let packed = PackedWinograd::pack(shape, &weight, None, element).expect("the shapes fit");
            let mut scratch = vec![Lanes::ZERO; packed.scratch_len()];
            let mut winograds = group(c, &format!("winograd/slim.{name}{suffix}"), flops());
            for isa in isas() {
                winograds.bench_function(isa.name(), |b| {
                    b.iter(|| winograd(isa, &packed, x.map(), out.view(), epilogue, &mut scratch));
                });
            }
        }
    }
}

fn attention(c: &mut Criterion) {
    for (name, height, width) in [("2048x1024", 32, 64), ("1024x512", 16, 32)] {
        let layout = Layout::blocked(256, height, width);
        // Runs in place repeatedly: the values change, but the time does not depend on them.
        let mut x = Owned::noise(layout, 1);
        let mut softmax = group(c, &format!("ea_softmax/slim.layer4.low/{name}"), traffic(layout, 2));
        for isa in instruction_sets() {
            softmax.bench_function(isa.name(), |b| b.iter(|| ea_softmax(isa, x.view())));
        }
        softmax.finish();
        let mut l1 = group(c, &format!("ea_group_l1/slim.layer4.low/{name}"), traffic(layout, 2));
        for isa in instruction_sets() {
            l1.bench_function(isa.name(), |b| b.iter(|| ea_group_l1(isa, x.view(), 8)));
        }
    }
    for (name, height, width) in [("2048x1024", 128, 256), ("1024x512", 64, 128)] {
        let (channels, side) = (64, 12);
        let (layout, mut keys) = (Layout::blocked(channels, height, width), CrossKeys::default());
        let kv = Owned::noise(Layout::blocked(2 * channels, side, side), 1);
        let (x, residual, mut out) = (Owned::noise(layout, 2), Owned::noise(layout, 3), Owned::zeros(layout));
        // Both products; the softmax between them is overhead.
        let flops = || Throughput::Elements((2 * 2 * height * width * channels * side * side) as u64);
        for (element, suffix) in [(Element::F32, ""), (Element::Bf16, "/bf16")] {
            keys.pack(kv.map(), &noise(channels, 4), &noise(channels, 5), element).expect("the shapes fit");
            let mut scratch = vec![Lanes::ZERO; keys.scratch_len(layout)];
            let mut group = group(c, &format!("cross_attend/slim.layer4.high/{name}{suffix}"), flops());
            for isa in instruction_sets().into_iter().filter(|isa| isa.multiplies(element)) {
                group.bench_function(isa.name(), |b| {
                    b.iter(|| cross_attend(isa, x.map(), &keys, Some(residual.map()), out.view(), &mut scratch));
                });
            }
        }
    }
}

fn pointwise(c: &mut Criterion) {
    let layout = Layout::blocked(64, 128, 256);
    let (x, y, mut out) = (Owned::noise(layout, 1), Owned::noise(layout, 2), Owned::zeros(layout));
    let small = Owned::noise(Layout::blocked(64, 32, 64), 3);
    let mut added = group(c, "add/slim.layer2/2048x1024", traffic(layout, 3));
    for isa in instruction_sets() {
        added.bench_function(isa.name(), |b| b.iter(|| add(isa, x.map(), y.map(), out.view())));
    }
    added.finish();
    let mut resized = group(c, "resize_add/slim.layer4.x4/2048x1024", traffic(layout, 2));
    for isa in instruction_sets() {
        resized.bench_function(isa.name(), |b| b.iter(|| resize_add(isa, small.map(), Some(y.map()), out.view())));
    }
}

fn pools(c: &mut Criterion) {
    for (size, height, width) in [("1024x512", 16, 32), ("2048x1024", 32, 64)] {
        let layout = Layout::blocked(256, height, width);
        let x = Owned::noise(layout, 1);
        for (kernel, stride) in [(5, 2), (9, 4), (17, 8)] {
            let mut out = Owned::zeros(Layout::blocked(256, height.div_ceil(stride), width.div_ceil(stride)));
            let mut group = group(c, &format!("avg_pool/slim.spp.{kernel}/{size}"), traffic(layout, 1));
            for isa in instruction_sets() {
                group.bench_function(isa.name(), |b| {
                    b.iter(|| avg_pool(isa, x.map(), kernel, stride, stride, out.view()).expect("the shapes fit"));
                });
            }
        }
    }
    let layout = Layout::blocked(256, 32, 64);
    let (x, ones) = (Owned::noise(layout, 1), vec![Lanes([1.0; 16]); layout.blocks()]);
    let mut out = Owned::zeros(Layout::blocked(256, 12, 12));
    let mut group = group(c, "max_pool_to/slim.layer4.cross_kv/2048x1024", traffic(layout, 1));
    for isa in instruction_sets() {
        group.bench_function(isa.name(), |b| b.iter(|| max_pool_to(isa, x.map(), &ones, &ones, out.view())));
    }
}

fn masks(c: &mut Criterion) {
    let (classes, height, width) = (19, 1024, 2048);
    let layout = Layout::blocked(classes, height / 8, width / 8);
    let noisy = Owned::noise(layout, 1);
    // Areas of about the size found in a street photo: nine of ten pixels of the logits have neighbours of their own
    // class.
    let coarse = Owned::noise(Layout::blocked(classes, layout.height / 32, layout.width / 32), 1);
    let mut smooth = Owned::zeros(layout);
    resize_add(Isa::best(), coarse.map(), None, smooth.view()).expect("the channels are the same");
    let (mut ids, mut sure) = (vec![0u8; height * width], vec![0.0; height * width]);
    let mut group = group(c, "argmax/cityscapes.x8/2048x1024", Throughput::Elements((height * width) as u64));
    for (name, logits) in [("noise", &noisy), ("areas", &smooth)] {
        for isa in instruction_sets() {
            group.bench_function(format!("{}/ids of {name}", isa.name()), |b| {
                b.iter(|| argmax(isa, logits.map(), (height, width), 0..height, &mut ids, None));
            });
            group.bench_function(format!("{}/confidence of {name}", isa.name()), |b| {
                b.iter(|| {
                    let confidence = Confidence { values: &mut sure, temperature: 1.0 };
                    argmax(isa, logits.map(), (height, width), 0..height, &mut ids, Some(confidence))
                });
            });
        }
    }
    let mut full = vec![0.0; classes * height * width];
    for isa in instruction_sets() {
        let mut planes: Vec<_> = full.chunks_mut(height * width).collect();
        group.bench_function(format!("{}/logits", isa.name()), |b| {
            b.iter(|| upsample(isa, noisy.map(), (height, width), 0..height, &mut planes));
        });
    }
}

criterion_group!(benches, peak, convolutions, attention, pointwise, pools, masks);
criterion_main!(benches);
