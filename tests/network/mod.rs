//! Compares whole tiny networks on a GPU, real or emulated, with the reference.

use std::path::{Path, PathBuf};

use rtformer::backend::{Backend, Confidence, Gpu, GpuElement, Reference};
use rtformer::model::{Config, RtFormer};
use rtformer::pixels::{IdsMut, Mask};
use rtformer::weights::Weights;
use rtformer_kernels::gpu::Device;
use rtformer_kernels::testing::{noise, relative_error};

/// A file of tests/data: in the source folder, or, if the test was copied to another machine, below its working folder.
pub(crate) fn data(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    if built.exists() { built.join("tests/data").join(name) } else { Path::new("tests/data").join(name) }
}

fn load<B: Backend>(backend: &B, name: &str) -> RtFormer<B> {
    let weights = Weights::open(data("golden").join(name)).unwrap();
    let config = Config::from_json(weights.metadata("config").unwrap()).unwrap();
    let mut reader = weights.reader(config.name());
    let network = RtFormer::load(backend, &config, &mut reader).unwrap();
    reader.finish().unwrap();
    network
}

/// Every stage of a network by name, then logits at `size`, and the classes and confidence of each image.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) stages: Vec<(&'static str, Vec<f32>)>,
    pub(crate) masks: Vec<Mask>,
}

pub(crate) fn see<B: Backend>(backend: &B, weights: &str, [n, h, w]: [usize; 3]) -> Seen {
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

/// The networks, and the batch and size of their photos: every operation, widths that are not multiples of 8, odd sizes.
pub(crate) const NETWORKS: [(&str, [usize; 3]); 3] =
    [("tiny.safetensors", [2, 32, 32]), ("thirds.safetensors", [1, 33, 41]), ("uneven.safetensors", [1, 33, 65])];

/// In f32, every stage of every network equals the reference's within 1e-4.
pub(crate) fn is_the_reference<D: Device + Clone>(device: &D) {
    for (weights, size) in NETWORKS {
        let want = see(&Reference::folded(), weights, size);
        let got = see(&Gpu::new(device.clone(), "gpu", GpuElement::F32), weights, size);
        assert!(want.stages.len() > 8, "{weights}: found only {} stages", want.stages.len());
        for ((name, got), (_, want)) in got.stages.iter().zip(&want.stages) {
            let error = relative_error(got, want);
            println!("{weights} {name}: {error:e}");
            assert!(got.len() == want.len() && error < 1e-4, "{weights} {name}: {error}");
        }
        for (got, want) in got.masks.iter().zip(&want.masks) {
            let same = got.iter().zip(want.iter()).filter(|(a, b)| a == b).count();
            assert!(same as f64 >= 0.9999 * (size[1] * size[2]) as f64, "{weights}: only {same} pixels agree");
        }
    }
}

/// In f16, the results are near. Random networks are very sensitive to rounding; see `bf16_is_near` in `parity.rs`.
pub(crate) fn is_near_in_f16<D: Device>(device: D) {
    let (weights, size) = NETWORKS[0];
    let want = see(&Reference::folded(), weights, size);
    let got = see(&Gpu::new(device, "gpu", GpuElement::F16), weights, size);
    for ((name, got), (_, want)) in got.stages.iter().zip(&want.stages) {
        let error = relative_error(got, want);
        println!("{weights} {name} in f16: {error:e}");
        assert!(error < 0.02, "{weights} {name}: {error}");
    }
}
