//! The time of a frame outside the convolutions: preparing the photo, and reading out the mask.
//!
//! `cargo bench --bench stages`. `rtformer bench --profile` shows the layers of the network.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use image::RgbImage;
use rtformer::backend::{Backend, Confidence, Cpu};
use rtformer::pixels::{Mask, Normalization, Pixels, Preparation, Size, render};
use rtformer_kernels::Isa;
use rtformer_kernels::testing::noise;

const HEIGHT: u32 = 1024;
const WIDTH: u32 = 2048;
const CLASSES: usize = 19;

fn stages(c: &mut Criterion) {
    let pixels = u64::from(HEIGHT * WIDTH);
    let bytes = noise(3 * pixels as usize, 1).iter().map(|v| (127.5 + 127.5 * v).clamp(0.0, 255.0) as u8).collect();
    let photo = RgbImage::from_raw(WIDTH, HEIGHT, bytes).expect("three bytes per pixel");
    let normalization = Normalization { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

    let mut group = c.benchmark_group("prepare");
    group.throughput(Throughput::Bytes(pixels * 3 * (1 + 4))); // bytes in, floats out
    let cpu = Cpu::new(Isa::best(), 0).expect("threads");
    for (name, size) in [("native", Size::Native), ("half", Size::Exact { width: WIDTH / 2, height: HEIGHT / 2 })] {
        let preparation = Preparation { size, ..Preparation::new(normalization) };
        group.bench_function(name, |b| b.iter(|| cpu.prepare(&[Pixels::from(&photo)], &preparation)));
    }
    group.finish();

    let mut group = c.benchmark_group("argmax/19 classes x8");
    group.throughput(Throughput::Elements(pixels)).sample_size(20);
    let (h, w) = (HEIGHT as usize / 8, WIDTH as usize / 8);
    let logits = noise(CLASSES * h * w, 2);
    let mut mask = Mask::new(WIDTH, HEIGHT, CLASSES);
    let mut confidence = vec![0.0; pixels as usize];
    for isa in Isa::available() {
        let cpu = Cpu::new(isa, 0).expect("threads");
        let logits = cpu.upload(&logits, [1, CLASSES, h, w]).expect("room for logits");
        let size = (HEIGHT as usize, WIDTH as usize);
        group.bench_function(format!("{}/mask", isa.name()), |b| {
            b.iter(|| cpu.argmax(&logits, 0, size, mask.ids_mut(), None));
        });
        group.bench_function(format!("{}/confidence", isa.name()), |b| {
            b.iter(|| {
                let confidence = Confidence { values: &mut confidence, temperature: 1.0 };
                cpu.argmax(&logits, 0, size, mask.ids_mut(), Some(confidence))
            });
        });
    }
    group.finish();

    let colors = (0..CLASSES as u8).map(|i| [i * 13, 255 - i * 13, i * 7]).collect();
    let palette = rtformer::pixels::Palette::new(colors);
    let mut group = c.benchmark_group("render");
    group.throughput(Throughput::Elements(pixels)).sample_size(20);
    group.bench_function("mask.png", |b| {
        b.iter(|| rtformer::pixels::IndexedPicture::new(&mask, &palette).write_to(std::io::sink()));
    });
    group.bench_function("overlay", |b| b.iter(|| render::overlay(&Pixels::from(&photo), &mask, &palette, 0.5)));
}

criterion_group!(benches, stages);
criterion_main!(benches);
