//! Compares our network with PaddleSeg's, stage by stage, on goldens that `tests/data/reference.py` made with PaddleSeg
//! itself.
//!
//! The small goldens are in the repository. `RTFORMER_GOLDENS=DIR` adds the full-width goldens that
//! `reference.py full --out DIR` writes: Slim, Base and both ADE20K configurations at 512x1024, 360x480 in a batch of
//! two, and 320x333.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rtformer::backend::{Algorithm, Backend, Confidence, Cpu, Element, Reference};
use rtformer::model::{Config, RtFormer};
use rtformer::pixels::{IdsMut, Mask};
use rtformer::weights::Weights;
use rtformer::{Device, Precision, Segmenter};
use rtformer_kernels::Isa;
use safetensors::{Dtype, SafeTensors};

/// The largest difference divided by the largest value, for every stage.
const TOLERANCE: f32 = 1e-4;
/// The share of a mask's pixels that must be equal.
const SAME_PIXELS: f64 = 0.9999;

/// A golden: an input and PaddleSeg's outputs for it.
struct Golden {
    name: String,
    floats: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    mask: Vec<u8>,
}

impl Golden {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut golden = Self {
            name: path.file_stem().unwrap().to_string_lossy().into(),
            floats: BTreeMap::new(),
            mask: Vec::new(),
        };
        for (name, tensor) in file.tensors() {
            match tensor.dtype() {
                Dtype::F32 => {
                    let floats =
                        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                    golden.floats.insert(name, (tensor.shape().to_vec(), floats));
                }
                Dtype::U8 if name == "mask" => golden.mask = tensor.data().to_vec(),
                other => panic!("{}: `{name}` is {other:?}", path.display()),
            }
        }
        golden
    }

    fn input(&self) -> ([usize; 4], &[f32]) {
        let (shape, data) = &self.floats["input"];
        (shape[..].try_into().unwrap(), data)
    }
}

/// Every model with its goldens: the small ones always, the full-width ones if available.
fn models() -> Vec<(PathBuf, Vec<PathBuf>)> {
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    let full = std::env::var_os("RTFORMER_GOLDENS").map(PathBuf::from);
    let mut models = Vec::new();
    for folder in std::iter::once(small).chain(full) {
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let dots = |path: &Path| path.file_name().unwrap().to_string_lossy().matches('.').count();
        let tensors = files.iter().filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
        for weights in tensors.clone().filter(|path| dots(path) == 1) {
            let stem = format!("{}.", weights.file_stem().unwrap().to_string_lossy());
            let belongs = |path: &&PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&stem);
            let cases: Vec<_> = tensors.clone().filter(belongs).filter(|path| dots(path) == 2).cloned().collect();
            if !cases.is_empty() {
                models.push((weights.clone(), cases));
            }
        }
    }
    assert!(models.len() >= 3, "the committed goldens are missing");
    models
}

fn load<B: Backend>(backend: &B, path: &Path) -> RtFormer<B> {
    let weights = Weights::open(path).unwrap();
    let config = Config::from_json(weights.metadata("config").unwrap()).unwrap();
    let mut reader = weights.reader(config.name());
    let network = RtFormer::load(backend, &config, &mut reader).unwrap();
    reader.finish().unwrap();
    network
}

/// Fails unless `got` equals `want` within the tolerance; the message states the difference.
fn assert_close(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let greatest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    let worst = got
        .iter()
        .zip(want)
        .fold(0f32, |m, (a, b)| if (a - b).is_nan() { f32::INFINITY } else { m.max((a - b).abs()) });
    assert!(worst <= TOLERANCE * greatest, "{what}: off by {worst:e}, greatest value {greatest:e}");
}

fn check<B: Backend>(label: &str, backend: &B) {
    for (weights, cases) in models() {
        let network = load(backend, &weights);
        for case in cases {
            let golden = Golden::read(&case);
            let ([n, c, h, w], data) = golden.input();
            let mut seen = 0;
            let logits = backend.run(|| {
                let x = backend.upload(data, [n, c, h, w]).unwrap();
                let mut see = |stage: &str, x: &B::Tensor| {
                    if let Some((shape, want)) = golden.floats.get(stage) {
                        assert_eq!(backend.shape(x)[..], shape[..], "{label} {} {stage}", golden.name);
                        assert_close(&format!("{label} {} {stage}", golden.name), &backend.download(x)?, want);
                        seen += 1;
                    }
                    Ok(())
                };
                network.observe(backend, x, &mut see).unwrap()
            });
            assert!(seen >= 6, "{label} {}: only {seen} stages compared", golden.name);
            let classes = backend.shape(&logits)[1];
            for image in 0..n {
                let what = format!("{label} {} image {image}", golden.name);
                let mut mask = Mask::new(w as u32, h as u32, classes);
                let IdsMut::U8(ids) = mask.ids_mut() else { panic!("goldens have few classes") };
                let mut confidence = vec![0.0; h * w];
                let wanted = Confidence { values: &mut confidence, temperature: 1.0 };
                backend.argmax(&logits, image, (h, w), IdsMut::U8(ids), Some(wanted)).unwrap();
                let want = &golden.mask[image * h * w..][..h * w];
                let same = ids.iter().zip(want).filter(|(a, b)| a == b).count();
                assert!(same as f64 >= SAME_PIXELS * (h * w) as f64, "{what}: only {same} of {} pixels equal", h * w);
                let floor = 1.0 / classes as f32 * 0.999;
                assert!(
                    confidence.iter().all(|p| (floor..=1.0001).contains(p)),
                    "{what}: a confidence is out of range"
                );
                if let Some((_, want)) = golden.floats.get("logits") {
                    let mut full = vec![0.0; classes * h * w];
                    backend.upsample(&logits, image, (h, w), &mut full).unwrap();
                    assert_close(&format!("{what} logits"), &full, &want[image * full.len()..][..full.len()]);
                }
            }
        }
    }
}

#[test]
fn the_unfolded_reference_matches_paddleseg() {
    check("unfolded reference", &Reference::unfolded());
}

#[test]
fn the_reference_with_folded_norms_matches_paddleseg() {
    check("folded reference", &Reference::folded());
}

#[test]
fn the_cpu_matches_paddleseg_on_every_instruction_set_with_every_algorithm() {
    for isa in Isa::available() {
        for algorithm in [Algorithm::Fastest, Algorithm::Direct, Algorithm::Winograd] {
            check(&format!("{} {algorithm:?}", isa.name()), &Cpu::new(isa, 2).unwrap().algorithm(algorithm));
        }
    }
}

/// bf16 products have 8 bits, which affects random networks most, although their encoder multiplies in f32. A trained network keeps the
/// class of 997 of 1000 pixels.
#[test]
fn bf16_is_near() {
    for isa in Isa::available().into_iter().filter(|isa| isa.multiplies(Element::Bf16)) {
        for (weights, cases) in models() {
            for case in cases {
                check_bf16(isa, &weights, &Golden::read(&case));
            }
        }
    }
}

/// Unlike the goldens' random networks, the embedded one multiplies in bf16 in its encoder, too.
#[test]
fn bf16_keeps_the_classes_of_a_trained_network() {
    let photo = image::open("tests/data/street/0016E5_07959.jpg").unwrap().to_rgb8();
    for isa in Isa::available().into_iter().filter(|isa| isa.multiplies(Element::Bf16)) {
        let open = |weights: &str, precision| {
            let builder = Segmenter::builder().device(Device::Cpu).isa(isa);
            builder.weights(weights).precision(precision).build().unwrap()
        };
        let mask = |precision| {
            let segmenter = open("weights/rtformer-slim-camvid.safetensors", precision);
            assert_eq!(segmenter.arithmetic(), precision.to_string(), "{}", isa.name());
            segmenter.segment(&photo).unwrap().mask().clone()
        };
        let (want, got) = (mask(Precision::F32), mask(Precision::Bf16));
        let kept = want.iter().zip(got.iter()).filter(|(a, b)| a == b).count() as f64 / want.iter().count() as f64;
        assert!(kept > 0.997 && got != want, "{}: {kept}", isa.name());
        let random = open("tests/data/golden/tiny.safetensors", Precision::Bf16);
        assert_eq!(random.arithmetic(), "bf16, encoder in f32", "{}", isa.name());
    }
}

fn check_bf16(isa: Isa, weights: &Path, golden: &Golden) {
    let (shape, data) = golden.input();
    let [.., h, w] = shape;
    let run = |cpu: &Cpu| {
        let network = load(cpu, weights);
        let logits = cpu.run(|| network.forward(cpu, cpu.upload(data, shape).unwrap()).unwrap());
        let mut full = vec![0.0; cpu.shape(&logits)[1] * h * w];
        cpu.upsample(&logits, 0, (h, w), &mut full).unwrap();
        (cpu.download(&logits).unwrap(), best_two(&full, h * w))
    };
    let (want, exact) = run(&Cpu::new(isa, 2).unwrap());
    // A pixel is clear if its best logit is above the second best by a tenth of the largest.
    let clear = 0.1 * want.iter().fold(0f32, |m, v| m.max(v.abs()));
    for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
        let bf16 = |threads| Cpu::new(isa, threads).unwrap().bf16().unwrap().algorithm(algorithm);
        let (got, classes) = run(&bf16(2));
        let what = format!("{} {algorithm:?} {}", isa.name(), golden.name);
        let share = |least: f32| {
            let pixels = exact.iter().zip(&classes).filter(|((_, gap), _)| *gap >= least);
            let kept = pixels.clone().filter(|(a, b)| a.0 == b.0).count();
            kept as f64 / pixels.count().max(1) as f64
        };
        let error = rtformer_kernels::testing::relative_error(&got, &want);
        let (same, kept) = (share(0.0), share(clear));
        println!(
            "{what}: logits within {error:.3}; {:.2} % of the pixels keep their class, {:.2} % of the clear ones",
            100.0 * same,
            100.0 * kept
        );
        assert!(error < 0.07 && same > 0.93 && kept > 0.9995, "{what}: {error}, {same}, {kept}");
        assert_ne!(got, want, "{what}: the bits equal those of f32");
        assert_eq!(run(&bf16(3)).0, got, "{what}: threads change the bits");
    }
}

/// The class of each pixel, and by how much its logit is above the second best.
fn best_two(logits: &[f32], pixels: usize) -> Vec<(usize, f32)> {
    let of = |pixel: usize| {
        let mut best = [(0, f32::NEG_INFINITY); 2];
        for (class, &logit) in logits.iter().skip(pixel).step_by(pixels).enumerate() {
            if logit > best[0].1 {
                best = [(class, logit), best[0]];
            } else if logit > best[1].1 {
                best[1] = (class, logit);
            }
        }
        (best[0].0, best[0].1 - best[1].1)
    };
    (0..pixels).map(of).collect()
}

/// One thread and three give the same bits, and so do a photo alone and the same photo in a batch.
#[test]
fn threads_and_batches_change_nothing() {
    let golden = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name);
    let case = Golden::read(&golden("tiny.48x64-b2.safetensors"));
    let ([n, c, h, w], data) = case.input();
    for isa in Isa::available() {
        let run = |threads: usize, data: &[f32], n: usize| {
            let cpu = Cpu::new(isa, threads).unwrap();
            let network = load(&cpu, &golden("tiny.safetensors"));
            let forward = || network.forward(&cpu, cpu.upload(data, [n, c, h, w]).unwrap()).unwrap();
            let logits = cpu.run(forward);
            // Run again with reused buffers, which must not change the result.
            assert_eq!(cpu.download(&cpu.run(forward)).unwrap(), cpu.download(&logits).unwrap(), "{}", isa.name());
            cpu.download(&logits).unwrap()
        };
        let together = run(1, data, n);
        assert_eq!(run(3, data, n), together, "{}: threads", isa.name());
        let alone: Vec<f32> = data.chunks_exact(c * h * w).flat_map(|photo| run(2, photo, 1)).collect();
        assert_eq!(alone, together, "{}: batches", isa.name());
    }
}
