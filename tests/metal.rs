//! Metal: on a Mac the kernels on its GPU, elsewhere compiled by the C++ compiler and emulated. First each kernel's table, then whole
//! networks against the reference.

use std::path::Path;

use rtformer::backend::{Backend, Confidence, Gpu, GpuElement, Reference};
use rtformer::model::{Config, RtFormer};
use rtformer::pixels::{IdsMut, Mask};
use rtformer::weights::Weights;
use rtformer_kernels::gpu::tables;
use rtformer_kernels::testing::{noise, relative_error};

#[cfg(target_os = "macos")]
use rtformer_kernels::gpu::Metal as Device;
#[cfg(not(target_os = "macos"))]
use rtformer_kernels::gpu::emulated::Emulated as Device;

/// The GPU; or none, and a line that says so.
fn device() -> Option<Device> {
    #[cfg(not(target_os = "macos"))]
    return Device::metal();
    #[cfg(target_os = "macos")]
    match Device::new() {
        Ok(device) => Some(device),
        Err(e) => {
            assert!(std::env::var_os("RTFORMER_REQUIRE").is_none_or(|device| device != "metal"), "{e}");
            println!("SKIPPED: {e}");
            None
        }
    }
}

#[test]
fn metal_kernels_agree_with_their_definitions() {
    let Some(device) = device() else { return };
    for element in [GpuElement::F32, GpuElement::F16] {
        for (_, table) in tables::all() {
            table(&device, element);
        }
    }
}

fn load<B: Backend>(backend: &B, name: &str) -> RtFormer<B> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name);
    let weights = Weights::open(&path).unwrap();
    let config = Config::from_json(weights.metadata("config").unwrap()).unwrap();
    let mut reader = weights.reader(config.name());
    let network = RtFormer::load(backend, &config, &mut reader).unwrap();
    reader.finish().unwrap();
    network
}

/// Every stage of a network by its name, then logits at `size`, classes and their confidence of each image.
#[derive(Default)]
struct Seen {
    stages: Vec<(&'static str, Vec<f32>)>,
    masks: Vec<Mask>,
}

fn see<B: Backend>(backend: &B, weights: &str, [n, h, w]: [usize; 3]) -> Seen {
    let network = load(backend, weights);
    let mut seen = Seen::default();
    let logits = backend.run(|| {
        let photo = backend.upload(&noise(n * 3 * h * w, 11), [n, 3, h, w]).unwrap();
        let stages = &mut seen.stages;
        let mut look = |name, map: &B::Tensor| {
            stages.push((name, backend.download(map)?));
            Ok(())
        };
        network.observe(backend, photo, &mut look).unwrap()
    });
    let classes = backend.shape(&logits)[1];
    for image in 0..n {
        let mut full = vec![0.0; classes * h * w];
        backend.upsample(&logits, image, (h, w), &mut full).unwrap();
        seen.stages.push(("upsampled", full));
        let (mut mask, mut sure) = (Mask::new(w as u32, h as u32, classes), vec![0.0; h * w]);
        let confidence = Confidence { values: &mut sure, temperature: 1.5 };
        let IdsMut::U8(ids) = mask.ids_mut() else { panic!("these have few classes") };
        backend.argmax(&logits, image, (h, w), IdsMut::U8(ids), Some(confidence)).unwrap();
        seen.stages.push(("confidence", sure));
        seen.masks.push(mask);
    }
    seen
}

/// The networks, and the batch and size of their photos: every operation, widths that are no multiples of 8, odd sizes.
const NETWORKS: [(&str, [usize; 3]); 3] =
    [("tiny.safetensors", [2, 32, 32]), ("thirds.safetensors", [1, 33, 41]), ("uneven.safetensors", [1, 33, 65])];

#[test]
fn a_network_on_metal_is_the_reference() {
    let Some(device) = device() else { return };
    for (weights, size) in NETWORKS {
        let want = see(&Reference::folded(), weights, size);
        let got = see(&Gpu::new(device.clone(), "metal", GpuElement::F32), weights, size);
        assert!(want.stages.len() > 8, "{weights}: only {} stages", want.stages.len());
        for ((name, got), (_, want)) in got.stages.iter().zip(&want.stages) {
            let error = relative_error(got, want);
            println!("{weights} {name}: {error:e}");
            assert!(got.len() == want.len() && error < 1e-4, "{weights} {name}: {error}");
        }
        for (got, want) in got.masks.iter().zip(&want.masks) {
            let same = got.iter().zip(want.iter()).filter(|(a, b)| a == b).count();
            assert!(same as f64 >= 0.9999 * (size[1] * size[2]) as f64, "{weights}: only {same} pixels are the same");
        }
    }
}

/// Random networks are at the mercy of rounding; see `bf16_is_near` in `parity.rs`.
#[test]
fn a_network_on_metal_in_f16_is_near() {
    let Some(device) = device() else { return };
    let (weights, size) = NETWORKS[0];
    let want = see(&Reference::folded(), weights, size);
    let got = see(&Gpu::new(device, "metal", GpuElement::F16), weights, size);
    for ((name, got), (_, want)) in got.stages.iter().zip(&want.stages) {
        let error = relative_error(got, want);
        println!("{weights} {name} in f16: {error:e}");
        assert!(error < 0.02, "{weights} {name}: {error}");
    }
}
