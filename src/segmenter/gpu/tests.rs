//! Photos on an emulated GPU: a batch gives the same results as each photo alone, with any lanes and plans.

use image::{Rgb, RgbImage, Rgba, RgbaImage};
use rtformer_kernels::gpu::GpuElement;
use rtformer_kernels::gpu::emulated::Emulated;

use super::lane::PLANS;
use super::*;
use crate::Segmenter;
use crate::backend::Confidence;
use crate::pixels::{Mask, Normalization, PixelFormat, Size};
use crate::segmenter::builder::Builder;
use crate::segmenter::engine::Product;
use crate::segmenter::{Features, Padding};
use crate::weights::Weights;

const TINY: &str = "tests/data/golden/tiny.safetensors";

fn emulated(size: Size) -> Option<OnGpu<Emulated>> {
    Emulated::cuda().map(|device| engine(device, size, 1))
}

fn engine(device: Emulated, size: Size, pad_multiple: u32) -> OnGpu<Emulated> {
    let gpu = Gpu::new(device, "emulated", GpuElement::F32);
    let weights = Weights::open(TINY).unwrap();
    let (model, dataset) = (Model::of(&weights).unwrap(), weights.dataset().unwrap());
    let normalization = Normalization { mean: dataset.mean, std: dataset.std };
    let preparation = Preparation { normalization, size, pad_multiple };
    OnGpu::new(gpu, &model, &mut weights.reader("tiny"), preparation).unwrap()
}

fn photo(seed: u32) -> RgbImage {
    RgbImage::from_fn(40, 33, |x, y| Rgb([x * 5 + seed, y * 7, x * y + seed * 3].map(|v| v as u8)))
}

/// The masks, confidences and logits of photos of one size.
fn everything(engine: &OnGpu<Emulated>, photos: &[Pixels<'_>], together: usize) -> Vec<(Mask, Vec<f32>, Vec<f32>)> {
    let [w, h] = [photos[0].width(), photos[0].height()];
    let pixels = (w * h) as usize;
    let blank = || (Mask::new(w, h, 5), vec![0.0; pixels], vec![0.0; 5 * pixels]);
    let mut results: Vec<_> = photos.iter().map(|_| blank()).collect();
    let wanted = results.iter_mut().map(|(mask, confidence, logits)| Wanted {
        size: (h as usize, w as usize),
        ids: Some(mask.ids_mut()),
        confidence: Some(Confidence { values: confidence, temperature: 1.5 }),
        logits: Some(logits),
        features: None,
    });
    engine.run_together(photos, &mut wanted.collect::<Vec<_>>(), together).unwrap();
    results
}

fn cpu(size: Size, padding: Padding) -> Segmenter {
    let builder = Builder::default().weights(TINY).device(crate::Device::Cpu);
    builder.size(size).pad(padding).logits(true).build().unwrap()
}

/// One by one, in pairs, and on two lanes: the results are those of each photo alone, and those of the CPU.
fn check_batches(device: &Emulated) {
    let cases = [
        (Size::Native, 1),
        (Size::Exact { width: 32, height: 24 }, 1),
        (Size::Native, 16),                         // padded on the device
        (Size::Exact { width: 30, height: 24 }, 8), // padded on the host
    ];
    for (size, multiple) in cases {
        let engine = engine(device.clone(), size, multiple);
        let photos: Vec<_> = (0..5).map(photo).collect();
        let pixels: Vec<Pixels<'_>> = photos.iter().map(Into::into).collect();
        let alone: Vec<_> = pixels.iter().flat_map(|one| everything(&engine, std::slice::from_ref(one), 1)).collect();
        // Lanes and plans are reused from the second run on.
        // Once is enough for padded photos: the emulation is slow.
        for &together in if multiple == 1 { &[1, 2, 1, 5][..] } else { &[2] } {
            assert!(everything(&engine, &pixels, together) == alone, "{together} together at {size}");
        }
        let cpu = cpu(size, Padding::Multiple(multiple));
        for (photo, (mask, _, logits)) in photos.iter().zip(&alone) {
            let scene = cpu.segment(photo).unwrap();
            let want = scene.logits().unwrap();
            let largest = want.iter().fold(0.0, |largest: f32, v| largest.max(v.abs()));
            assert!(logits.iter().zip(want).all(|(a, b)| (a - b).abs() <= 1e-4 * largest), "{size}");
            let same = mask.iter().zip(scene.mask().iter()).filter(|(a, b)| a == b).count();
            assert!(same + 3 >= 40 * 33, "{size}: {same} pixels of 1320");
        }
    }
}

#[test]
fn a_batch_on_cuda_gives_the_results_of_each_photo_alone_and_of_the_cpu() {
    let Some(device) = &Emulated::cuda() else { return };
    check_batches(device);
}

#[test]
fn a_batch_on_metal_gives_the_results_of_each_photo_alone_and_of_the_cpu() {
    let Some(device) = &Emulated::metal() else { return };
    check_batches(device);
}

#[test]
fn every_pixel_format_gives_the_same_results() {
    let Some(engine) = emulated(Size::Native) else { return };
    let rgb = photo(3);
    let want = everything(&engine, &[(&rgb).into()], 1);
    let rgba = RgbaImage::from_fn(40, 33, |x, y| Rgba([rgb[(x, y)][0], rgb[(x, y)][1], rgb[(x, y)][2], 77]));
    assert!(everything(&engine, &[(&rgba).into()], 1) == want);
    // Rows with padding at the end, blue first.
    let mut frame = vec![9; 33 * 130];
    for (y, row) in frame.chunks_mut(130).enumerate() {
        for x in 0..40 {
            let Rgb([r, g, b]) = rgb[(x as u32, y as u32)];
            row[3 * x..3 * x + 3].copy_from_slice(&[b, g, r]);
        }
    }
    let bgr = Pixels::new(&frame, 40, 33, 130, PixelFormat::Bgr8).unwrap();
    assert!(everything(&engine, std::slice::from_ref(&bgr), 1) == want);
    assert!(everything(&engine, &[bgr, (&rgb).into()], 2) == [want.clone(), want].concat(), "two formats in a batch");
}

#[test]
fn features_are_those_of_the_cpu() {
    let Some(engine) = emulated(Size::Native) else { return };
    let photos = [photo(1), photo(2)];
    let pixels: Vec<Pixels<'_>> = photos.iter().map(Into::into).collect();
    let mut results = [(); 2].map(|()| (Mask::new(40, 33, 5), Features::default()));
    let wanted = results.iter_mut().map(|(mask, features)| Wanted {
        size: (33, 40),
        ids: Some(mask.ids_mut()),
        confidence: None,
        logits: None,
        features: Some(features),
    });
    let extent = engine.preparation.extent(40, 33).unwrap();
    engine.run_plainly(&pixels, &mut wanted.collect::<Vec<_>>(), extent).unwrap();
    let cpu = Builder::default().weights(TINY).device(crate::Device::Cpu).features(true).build().unwrap();
    for (photo, (mask, features)) in photos.iter().zip(&results) {
        let scene = cpu.segment(photo).unwrap();
        let want = scene.features().unwrap();
        assert_eq!((features.channels, features.height, features.width), (want.channels, want.height, want.width));
        let largest = want.values.iter().fold(0.0, |largest: f32, v| largest.max(v.abs()));
        assert!(features.values.iter().zip(&want.values).all(|(a, b)| (a - b).abs() <= 1e-4 * largest));
        let same = mask.iter().zip(scene.mask().iter()).filter(|(a, b)| a == b).count();
        assert!(same + 3 >= 40 * 33, "{same} pixels of 1320");
    }
}

#[test]
fn threads_have_a_lane_each_and_lanes_keep_few_plans() {
    let Some(engine) = emulated(Size::Native) else { return };
    let sizes: Vec<_> = (0..7).map(|i| RgbImage::from_pixel(16 + 8 * i, 16, Rgb([90, 40, 200]))).collect();
    let want: Vec<_> = sizes.iter().map(|photo| everything(&engine, &[photo.into()], 1)).collect();
    assert!(engine.lanes.lock().iter().all(|lane| lane.plans.len() == PLANS));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for (photo, want) in sizes.iter().zip(&want) {
                    assert!(everything(&engine, &[photo.into()], 1) == *want);
                }
            });
        }
    });
    assert!((1..=3).contains(&engine.lanes.lock().len()));
}

#[test]
fn a_profile_contains_every_operation_and_its_bytes() {
    let Some(engine) = emulated(Size::Native) else { return };
    let photo = photo(1);
    for run in 0..3 {
        engine.profile(true);
        everything(&engine, &[(&photo).into()], 1);
        let operations = engine.profile(false);
        let names: Vec<_> = operations.iter().map(|operation| operation.name.as_str()).collect();
        assert_eq!(names[..4], ["prepare", "copy in", "normalise", "conv1.0"], "run {run}");
        assert_eq!(names.last(), Some(&"copy out"));
        assert!(operations.iter().all(|operation| operation.bytes > 0.0 && operation.milliseconds >= 0.0));
    }
    assert!(engine.profile(false).is_empty());
}

#[test]
fn resident_inputs_can_be_computed_repeatedly() {
    let Some(device) = Emulated::cuda() else { return };
    for multiple in [1, 16] {
        compute_repeatedly(&engine(device.clone(), Size::Native, multiple));
    }
}

fn compute_repeatedly(engine: &OnGpu<Emulated>) {
    let inputs = [0, 1].map(|seed| Input::prepare(&(&photo(seed)).into(), &engine.preparation).unwrap());
    let resident = engine.upload(&inputs).unwrap();
    for _ in 0..3 {
        assert!(resident.compute(Product::Mask).unwrap() && resident.compute(Product::Logits).unwrap());
    }
    let (mut mask, alone) = (Mask::new(40, 33, 5), everything(engine, &[(&photo(0)).into()], 1));
    resident
        .run(&mut [Wanted {
            size: (33, 40),
            ids: Some(mask.ids_mut()),
            confidence: None,
            logits: None,
            features: None,
        }])
        .unwrap();
    assert_eq!(mask, alone[0].0);
}
