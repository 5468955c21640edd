//! Checks that padding equals padding and cropping by hand, on every backend and through every function of the library.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use image::RgbImage;
use rtformer::backend::{Backend, Confidence, Cpu, Gpu, GpuElement, Isa, Reference};
use rtformer::model::{Config, RtFormer};
use rtformer::pixels::{IdsMut, Image, Input, Mask, Normalization, Pixels, Preparation};
use rtformer::weights::Weights;
use rtformer::{Builder, Device, Padding, Segmenter, Size, bench};
use rtformer_kernels::gpu::emulated::Emulated;

const CLASSES: usize = 5;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/tiny.safetensors")
}

/// A photo whose sides are not multiples.
fn photo(width: u32, height: u32) -> RgbImage {
    let photo = Image::open(tiny().with_file_name("photo.png")).unwrap().into_rgb();
    image::imageops::crop_imm(&photo, 5, 3, width, height).to_image()
}

/// The network's size, and the multiple; the photos have 41x27 pixels.
fn cases() -> [(Size, u32); 5] {
    [
        (Size::Native, 32),
        (Size::Native, 27), // the height already is a multiple
        (Size::Native, 1),  // no padding
        (Size::Exact { width: 33, height: 50 }, 16),
        (Size::Within { width: 60, height: 20 }, 32),
    ]
}

fn preparation(size: Size, pad_multiple: u32) -> Preparation {
    let dataset = Weights::open(tiny()).unwrap().dataset().unwrap();
    Preparation { normalization: Normalization { mean: dataset.mean, std: dataset.std }, size, pad_multiple }
}

/// The upper left part of each plane.
fn crop<T: Clone>(planes: &[T], (height, width): (usize, usize), (h, w): (usize, usize)) -> Vec<T> {
    let rows = planes.chunks(height * width).flat_map(|plane| plane.chunks(width).take(h));
    rows.flat_map(|row| row[..w].to_vec()).collect()
}

/// The results for one photo.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    mask: Mask,
    confidence: Vec<f32>,
    logits: Vec<f32>,
}

/// Reads out logits of size (height, width) at that size or another.
fn read_out<B: Backend>(b: &B, logits: &B::Tensor, (h, w): (usize, usize)) -> Seen {
    let mut mask = Mask::new(w as u32, h as u32, CLASSES);
    let (mut confidence, mut full) = (vec![0.0; h * w], vec![0.0; CLASSES * h * w]);
    let sure = Confidence { values: &mut confidence, temperature: 1.0 };
    b.argmax(logits, 0, (h, w), mask.ids_mut(), Some(sure)).unwrap();
    b.upsample(logits, 0, (h, w), &mut full).unwrap();
    Seen { mask, confidence, logits: full }
}

fn cropped(seen: &Seen, from: (usize, usize), to: (usize, usize)) -> Seen {
    let mut mask = Mask::new(to.1 as u32, to.0 as u32, CLASSES);
    if let (IdsMut::U8(ids), Some(all)) = (mask.ids_mut(), seen.mask.ids_u8()) {
        ids.copy_from_slice(&crop(all, from, to));
    }
    Seen { mask, confidence: crop(&seen.confidence, from, to), logits: crop(&seen.logits, from, to) }
}

/// A photo's results by hand: its prepared input is padded with zeros, everything is computed at the padded size and then cropped.
fn by_hand<B: Backend>(b: &B, network: &RtFormer<B>, photo: &RgbImage, size: Size, multiple: u32) -> Seen {
    let plain = Input::prepare(&photo.into(), &preparation(size, 1)).unwrap();
    let (h, w) = (plain.height, plain.width);
    let (height, width) = (h.next_multiple_of(multiple as usize), w.next_multiple_of(multiple as usize));
    let mut padded = vec![0.0; 3 * height * width];
    for (to, from) in padded.chunks_mut(height * width).zip(plain.data.chunks(h * w)) {
        to.chunks_mut(width).zip(from.chunks(w)).for_each(|(to, from)| to[..w].copy_from_slice(from));
    }
    let logits = b.run(|| network.forward(b, b.upload(&padded, [1, 3, height, width]).unwrap()).unwrap());
    let own = (photo.height() as usize, photo.width() as usize);
    if own == (h, w) {
        return cropped(&read_out(b, &logits, (height, width)), (height, width), own);
    }
    // Two steps: first to the input's size, without the padding, then to the photo's.
    let full = b.download(&b.resize(&logits, (height, width)).unwrap()).unwrap();
    let kept = b.upload(&crop(&full, (height, width), (h, w)), [1, CLASSES, h, w]).unwrap();
    read_out(b, &kept, own)
}

fn load<B: Backend>(b: &B) -> RtFormer<B> {
    let weights = Weights::open(tiny()).unwrap();
    let config = Config::of(&weights).unwrap();
    RtFormer::load(b, &config, &mut weights.reader("tiny")).unwrap()
}

/// The results with the backend's own padding and cropping.
fn by_backend<B: Backend>(b: &B, network: &RtFormer<B>, photo: &RgbImage, size: Size, multiple: u32) -> Seen {
    let preparation = preparation(size, multiple);
    let extent = preparation.extent(photo.width(), photo.height()).unwrap();
    let logits = b.run(|| network.forward(b, b.prepare(&[photo.into()], &preparation).unwrap()).unwrap());
    let (h, w) = (photo.height() as usize, photo.width() as usize);
    if extent.kept != (h, w) {
        return read_out(b, &b.resize(&logits, extent).unwrap(), (h, w));
    }
    let mut mask = Mask::new(photo.width(), photo.height(), CLASSES);
    let (mut confidence, mut full) = (vec![0.0; h * w], vec![0.0; CLASSES * h * w]);
    let sure = Confidence { values: &mut confidence, temperature: 1.0 };
    b.argmax(&logits, 0, extent, mask.ids_mut(), Some(sure)).unwrap();
    b.upsample(&logits, 0, extent, &mut full).unwrap();
    Seen { mask, confidence, logits: full }
}

fn check<B: Backend>(name: &str, b: &B) {
    let (network, photo) = (load(b), photo(41, 27));
    for (size, multiple) in cases() {
        let want = by_hand(b, &network, &photo, size, multiple);
        assert!(by_backend(b, &network, &photo, size, multiple) == want, "{name} at {size}, padded to {multiple}");
    }
}

#[test]
fn on_the_reference() {
    check("reference", &Reference::folded());
}

#[test]
fn on_the_cpu_with_each_instruction_set() {
    for isa in Isa::available() {
        check(isa.name(), &Cpu::new(isa, 2).unwrap());
    }
}

#[test]
fn on_emulated_gpus() {
    for device in [Emulated::cuda(), Emulated::metal()].into_iter().flatten() {
        check("f32", &Gpu::new(device, "emulated", GpuElement::F32));
    }
    if let Some(device) = Emulated::cuda() {
        check("f16", &Gpu::new(device, "emulated", GpuElement::F16));
    }
}

/// The segmenter's results by hand.
fn segmenters_by_hand(segmenter: &Segmenter, photo: &RgbImage, size: Size, multiple: u32) -> Seen {
    if segmenter.device() == Device::Reference {
        let b = Reference::folded();
        return by_hand(&b, &load(&b), photo, size, multiple);
    }
    let b = Cpu::new(Isa::from_name(segmenter.instruction_set()).unwrap(), 1).unwrap();
    by_hand(&b, &load(&b), photo, size, multiple)
}

#[test]
fn by_every_way_through_the_library() {
    let photos = [photo(41, 27), photo(41, 27), photo(30, 33)];
    for device in [Device::Cpu, Device::Reference] {
        for (size, multiple) in cases() {
            let builder = Segmenter::builder().weights(tiny()).device(device).size(size);
            let builder = builder.pad(Padding::Multiple(multiple)).confidence(true).logits(true);
            let segmenter = builder.build().unwrap();
            assert_eq!(segmenter.pad_multiple(), multiple);
            let what = format!("{device} at {size}, padded to {multiple}");
            let pixels = photos.each_ref().map(Pixels::from);
            // For a batch, candle's matrix product rounds in another order.
            let together = if device == Device::Reference { 1 } else { pixels.len() };
            let batches = pixels.chunks(together).map(|batch| segmenter.segment_batch(batch).unwrap());
            let scenes: Vec<_> = batches.flatten().collect();
            let mut reused = Mask::new(1, 1, CLASSES);
            for (photo, scene) in photos.iter().zip(&scenes) {
                let want = segmenters_by_hand(&segmenter, photo, size, multiple);
                let [confidence, logits] = [scene.confidence(), scene.logits()].map(|floats| floats.unwrap().to_vec());
                assert!(Seen { mask: scene.mask().clone(), confidence, logits } == want, "{what}");
                segmenter.segment_into(photo, &mut reused).unwrap();
                assert!(reused == want.mask, "{what}: into a mask");

                let input = bench::prepare(&segmenter, photo).unwrap();
                let resident = bench::resident(&segmenter, &vec![input; together.min(2)]).unwrap();
                resident.compute_masks().and_then(|()| resident.compute_logits()).unwrap();
                let mut logits = Vec::new();
                resident.mask(&mut reused).and_then(|()| resident.logits(&mut logits)).unwrap();
                if size == Size::Native {
                    assert!(reused == want.mask && logits == want.logits, "{what}: resident");
                }
            }
        }
    }
}

/// An input that contradicts itself is an error, whatever the contradiction.
#[test]
fn inputs_that_contradict_themselves_are_refused() {
    let segmenter = Segmenter::builder().weights(tiny()).device(Device::Cpu).build().unwrap();
    let input = bench::prepare(&segmenter, &photo(41, 27)).unwrap();
    let cases = [
        ("too few floats", Input { data: vec![0.0; 7], ..input.clone() }),
        ("more rows than floats", Input { height: 28, ..input.clone() }),
        ("a photo larger than the input", Input { kept: (28, 41), ..input.clone() }),
        ("no photo", Input { kept: (0, 41), ..input.clone() }),
    ];
    for (why, wrong) in cases {
        assert!(
            matches!(bench::resident(&segmenter, std::slice::from_ref(&wrong)).err(), Some(rtformer::Error::Input(_))),
            "{why}"
        );
        assert!(bench::resident(&segmenter, &[input.clone(), wrong]).is_err(), "{why}, in a batch with a valid input");
    }
    assert!(bench::resident(&segmenter, &[input]).is_ok() && bench::resident(&segmenter, &[]).is_err());
}

/// A copy of the tiny network whose metadata request padding.
fn with_key(folder: &Path, multiple: &str) -> PathBuf {
    let bytes = std::fs::read(tiny()).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let mut metadata: HashMap<String, String> = header.metadata().clone().unwrap();
    metadata.insert("pad_multiple".into(), multiple.into());
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let path = folder.join(format!("{multiple}.safetensors"));
    safetensors::serialize_to_file(file.tensors(), Some(metadata), &path).unwrap();
    path
}

#[test]
fn as_the_weights_say_unless_the_user_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let (keyed, photo) = (with_key(folder.path(), "16"), photo(41, 27));
    let built = |weights: &Path, padding| {
        let builder: Builder = Segmenter::builder().weights(weights).device(Device::Cpu).logits(true);
        builder.pad(padding).build()
    };
    let logits = |weights: &Path, padding| {
        let scene = built(weights, padding).unwrap().segment(&photo).unwrap();
        scene.logits().unwrap().to_vec()
    };
    let (none, sixteen) = (logits(&tiny(), Padding::None), logits(&tiny(), Padding::Multiple(16)));
    assert!(none != sixteen, "padding must change the result");
    let cases = [
        ("a file without the key, like PaddleSeg's", tiny(), Padding::FromWeights, &none),
        ("a file with the key", keyed.clone(), Padding::FromWeights, &sixteen),
        ("`none` against the key", keyed.clone(), Padding::None, &none),
        ("a multiple of 1 means no padding", keyed, Padding::Multiple(1), &none),
    ];
    for (why, weights, padding, want) in cases {
        assert!(&logits(&weights, padding) == want, "{why}");
    }
    for refused in [0, 257] {
        let error = built(&tiny(), Padding::Multiple(refused)).unwrap_err().to_string();
        assert!(error.contains(&format!("{refused}")) && error.contains("1 to 256"), "{error}");
    }
    let broken = built(&with_key(folder.path(), "many"), Padding::FromWeights).unwrap_err().to_string();
    assert!(broken.contains("pad_multiple"), "{broken}");
}
