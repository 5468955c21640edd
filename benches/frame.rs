//! Frames per second: one photo through the whole network, at common sizes.
//!
//! `cargo bench --bench frame`; `RTFORMER_ISA` and `RAYON_NUM_THREADS` select the instruction set and the number of
//! threads.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use image::RgbImage;
use rtformer::pixels::Mask;
use rtformer::{Segmenter, Variant, bench, pixels};
use rtformer_kernels::testing::noise;

/// Height and width: Cityscapes, half of Cityscapes, CamVid.
const SIZES: [(u32, u32); 3] = [(1024, 2048), (512, 1024), (360, 480)];

fn frames(c: &mut Criterion) {
    for variant in Variant::ALL {
        let segmenter = bench::random(variant, Segmenter::builder()).expect("random weights always load");
        let mut group = c.benchmark_group(format!("frame/{variant}/{}", segmenter.instruction_set()));
        group.sample_size(10).throughput(Throughput::Elements(1));
        for (height, width) in SIZES {
            let values = noise((height * width * 3) as usize, 1);
            let bytes = values.iter().map(|v| (127.5 + 127.5 * v).clamp(0.0, 255.0) as u8).collect();
            let photo = RgbImage::from_raw(width, height, bytes).expect("three bytes per pixel");
            let input = bench::prepare(&segmenter, &photo).expect("native size");
            let resident = bench::resident(&segmenter, &[input]).expect("room for a frame");
            let size = format!("{width}x{height}");

            let mut logits = Vec::new();
            group.bench_function(BenchmarkId::new("paper", &size), |b| b.iter(|| resident.logits(&mut logits)));
            let mut mask = Mask::new(width, height, segmenter.model().num_classes());
            group.bench_function(BenchmarkId::new("mask", &size), |b| b.iter(|| resident.mask(&mut mask)));
            let pixels = pixels::Pixels::from(&photo);
            group.bench_function(BenchmarkId::new("frame", &size), |b| {
                b.iter(|| segmenter.segment_into(&pixels, &mut mask));
            });
        }
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
