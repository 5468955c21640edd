//! Converts and runs a checkpoint that Paddle saved; the network must be the same to the last bit.

use std::path::{Path, PathBuf};

use rtformer::backend::{Backend, Cpu, Reference};
use rtformer::model::RtFormer;
use rtformer::pixels::Image;
use rtformer::weights::{Checkpoint, Class, Dataset, Official, Store, Weights, save};
use rtformer::{Config, Device, Hints, Segmenter, Variant, infer_config};
use rtformer_kernels::Isa;
use safetensors::SafeTensors;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

/// Seven made-up classes.
fn seven() -> Dataset {
    let class = |id: u8| {
        let (name, color) = (format!("made up {id}"), [id, 2 * id, 255 - id]);
        Class { name, color, label_id: None, colors: Vec::new() }
    };
    Dataset {
        name: "seven".into(),
        classes: (0..7).map(class).collect(),
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        ignore_colors: Vec::new(),
        source: "random numbers".into(),
        license: "CC0-1.0".into(),
    }
}

const HINTS: Hints = Hints { variant: None, cross_size: Some(4), num_heads: Some(2) };

/// `thirds.pdparams` as `rtformer convert` writes it.
fn converted(folder: &Path) -> PathBuf {
    let path = folder.join("thirds.safetensors");
    let checkpoint = Checkpoint::open(golden("thirds.pdparams")).unwrap();
    let config = infer_config(&checkpoint, &seven(), HINTS).unwrap();
    save(&path, &checkpoint, &seven(), &config.to_json(), Store::F32).unwrap();
    path
}

/// The full-size logits for the golden's input.
fn logits<B: Backend>(backend: &B, weights: &Path, shape: [usize; 4], input: &[f32]) -> Vec<f32> {
    let weights = Weights::open(weights).unwrap();
    let config = Config::from_json(weights.metadata("config").unwrap()).unwrap();
    let mut reader = weights.reader(config.name());
    let network = RtFormer::load(backend, &config, &mut reader).unwrap();
    reader.finish().unwrap();
    let [_, _, h, w] = shape;
    let eighths = backend.run(|| network.forward(backend, backend.upload(input, shape).unwrap())).unwrap();
    let mut full = vec![0.0; config.num_classes * h * w];
    backend.upsample(&eighths, 0, (h, w), &mut full).unwrap();
    full
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect()
}

fn assert_same_and_golden<B: Backend>(label: &str, backend: &B, ours: &Path) {
    let bytes = std::fs::read(golden("thirds.55x41.safetensors")).unwrap();
    let case = SafeTensors::deserialize(&bytes).unwrap();
    let input = case.tensor("input").unwrap();
    let shape: [usize; 4] = input.shape().try_into().unwrap();
    let input = floats(input.data());
    let got = logits(backend, ours, shape, &input);
    let twin = logits(backend, &golden("thirds.safetensors"), shape, &input);
    assert!(
        got.iter().zip(&twin).all(|(a, b)| a.to_bits() == b.to_bits()),
        "{label}: the bits differ from the .safetensors"
    );
    let want = floats(case.tensor("logits").unwrap().data());
    assert_eq!(got.len(), want.len(), "{label}");
    let greatest = want.iter().fold(0_f32, |most, value| most.max(value.abs()));
    let worst = got.iter().zip(&want).fold(0_f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst <= 1e-4 * greatest, "{label}: off by {worst:e}, greatest value {greatest:e}");
}

#[test]
fn a_converted_checkpoint_matches_paddleseg() {
    let folder = tempfile::tempdir().unwrap();
    let ours = converted(folder.path());
    assert_same_and_golden("reference", &Reference::unfolded(), &ours);
    for isa in Isa::available() {
        assert_same_and_golden(isa.name(), &Cpu::new(isa, 2).unwrap(), &ours);
    }
}

#[test]
fn a_converted_checkpoint_loads_into_a_segmenter() {
    let folder = tempfile::tempdir().unwrap();
    let ours = converted(folder.path());
    let photo = Image::open(golden("photo.png")).unwrap();
    let scene = |path: PathBuf| {
        let segmenter = Segmenter::builder().weights(path).device(Device::Cpu).logits(true).build().unwrap();
        let scene = segmenter.segment(&photo).unwrap();
        (segmenter.model().clone(), scene.logits().unwrap().to_vec(), scene.into_mask())
    };
    assert_eq!(scene(ours.clone()), scene(golden("thirds.safetensors")));
    let segmenter = Segmenter::open(&ours, Device::Cpu).unwrap();
    assert_eq!(segmenter.dataset(), &seven());
    assert_eq!(segmenter.palette().color(6), [6, 12, 249]);
}

#[test]
fn a_checkpoint_must_agree_with_the_data_set_and_the_hints() {
    let whole = Checkpoint::open(golden("thirds.pdparams")).unwrap();
    let six = Dataset { classes: seven().classes[..6].to_vec(), ..seven() };
    let without = |name: &str| {
        let mut checkpoint = whole.clone();
        checkpoint.tensors.remove(name).unwrap();
        checkpoint
    };
    let renamed = |from: &str, to: &str| {
        let mut checkpoint = without(from);
        checkpoint.tensors.insert(to.into(), whole.tensors[from].clone());
        checkpoint
    };
    let reshaped = |name: &str, shape: &[usize]| {
        let mut checkpoint = whole.clone();
        checkpoint.tensors.get_mut(name).unwrap().shape = shape.to_vec();
        checkpoint
    };
    let cases = [
        ("a wrong data set", whole.clone(), six, HINTS, "the checkpoint has 7 classes, but the data set `seven` has 6"),
        (
            "a variant",
            whole.clone(),
            seven(),
            Hints { variant: Some(Variant::Slim), ..HINTS },
            "not the requested variant `slim`",
        ),
        (
            "heads that do not divide the channels",
            whole.clone(),
            seven(),
            Hints { num_heads: Some(5), ..HINTS },
            "num_heads is 5",
        ),
        ("no heads", whole.clone(), seven(), Hints { num_heads: Some(0), ..HINTS }, "num_heads is 0"),
        ("no stem", without("conv1.0.weight"), seven(), HINTS, "the checkpoint has no `conv1.0.weight`"),
        ("a missing bias", without("conv1.0.bias"), seven(), HINTS, "tensor `conv1.0.bias` is missing"),
        ("an extra tensor", renamed("seghead_extra.conv1.weight", "extra"), seven(), HINTS, "the first is `extra`"),
        ("a wrong shape", reshaped("conv1.0.bias", &[3, 1]), seven(), HINTS, "`conv1.0.bias` is [3, 1]"),
        ("an empty stem", reshaped("conv1.0.weight", &[]), seven(), HINTS, "`conv1.0.weight`"),
        ("a stem too wide", reshaped("conv1.0.weight", &[usize::MAX, 3, 3, 3]), seven(), HINTS, "base_channels is"),
        ("no tensors", Checkpoint::default(), seven(), HINTS, "is it another model's?"),
    ];
    for (why, checkpoint, dataset, hints, want) in cases {
        let text = infer_config(&checkpoint, &dataset, hints).unwrap_err().to_string();
        assert!(text.contains(want), "{why}: {text}");
    }
}

/// Checks the published configurations, with checkpoints that Paddle wrote in `reference.py full`: the configuration
/// that `pull` infers is correct, and all numbers are unchanged.
#[test]
fn full_width_checkpoints_convert_completely() {
    let Some(folder) = std::env::var_os("RTFORMER_GOLDENS").map(PathBuf::from) else {
        println!("skipped: set RTFORMER_GOLDENS to the folder of full-width goldens");
        return;
    };
    for official in Official::all() {
        let checkpoint = Checkpoint::open(folder.join(format!("{}.pdparams", official.name))).unwrap();
        let dataset = Dataset::named(official.dataset).unwrap();
        let variant = official.name.split('-').next().map(|name| name.parse().unwrap());
        let hints = Hints { variant, cross_size: Some(official.cross_size), num_heads: None };
        let config = infer_config(&checkpoint, &dataset, hints).unwrap();
        let twin = Weights::open(folder.join(format!("{}.safetensors", official.name))).unwrap();
        assert_eq!(config, Config::of(&twin).unwrap(), "{}", official.name);
        assert!(checkpoint == Checkpoint::of(&twin).unwrap(), "{}: the numbers differ", official.name);
    }
}
