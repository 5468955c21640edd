//! Tests of adaptive inference: the auxiliary head, patches, and the rule in the weights' metadata.

use std::path::{Path, PathBuf};

use rtformer::backend::{Area, Areas, Cpu, Isa, Reference};
use rtformer::model::ladder::{Patch, Step};
use rtformer::model::{Config, Noise, RtFormer};
use rtformer::pixels::{Image, Input, Mask, Normalization, Preparation};
use rtformer::weights::Weights;
use rtformer::{Calibrated, Device, Error, Padding, Policy, Precision, Segmenter, Size};

fn street() -> Image {
    Image::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/street/0016E5_07959.jpg")).unwrap()
}

fn open(threads: usize) -> Segmenter {
    Segmenter::builder().device(Device::Cpu).threads(threads).exits(true).logits(true).confidence(true).build().unwrap()
}

fn tiles(threshold: f32) -> Policy {
    Policy::Tiles { threshold }
}

/// The largest difference, relative to the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(f32::MIN_POSITIVE, |largest, v| largest.max(v.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

/// A network with random parameters and the prepared photo.
fn network<B: Areas>(b: &B, config: &Config, [width, height]: [u32; 2]) -> (RtFormer<B>, Vec<f32>, [usize; 4]) {
    let network = RtFormer::load(b, config, &mut Noise::new(7)).unwrap();
    let network = network.with_auxiliary(b, config, &mut Noise::new(8)).unwrap();
    let preparation =
        Preparation { pad_multiple: 32, ..Preparation::new(Normalization { mean: [0.45; 3], std: [0.25; 3] }) };
    let photo = image::imageops::crop_imm(&street().into_rgb(), 100, 60, width, height).to_image();
    let input = Input::prepare(&(&photo).into(), &preparation).unwrap();
    (network, input.data, [1, 3, input.height, input.width])
}

/// Small enough for slow backends: a map of 24x32 pixels.
const PART: [u32; 2] = [250, 190];

fn climbed<B: Areas>(b: &B, (network, data, shape): &(RtFormer<B>, Vec<f32>, [usize; 4]), step: &Step) -> Vec<f32> {
    let x = b.upload(data, *shape).unwrap();
    b.run(|| b.download(&network.climb(b, x, &mut |_| Ok(step.clone())).unwrap()).unwrap())
}

fn full<B: Areas>(b: &B, (network, data, shape): &(RtFormer<B>, Vec<f32>, [usize; 4])) -> Vec<f32> {
    let x = b.upload(data, *shape).unwrap();
    b.run(|| b.download(&network.forward(b, x).unwrap()).unwrap())
}

fn patch(seen: [usize; 4], kept: [usize; 4]) -> Patch {
    let area = |[top, left, height, width]: [usize; 4]| Area { top, left, height, width };
    Patch { seen: area(seen), kept: area(kept) }
}

fn small() -> Config {
    Config { base_channels: 8, head_channels: 16, spp_channels: 16, cross_size: 4, ..Config::slim(5) }
}

#[test]
fn never_exiting_is_the_full_network_bit_for_bit() {
    let photo = street();
    let plain = Segmenter::builder().device(Device::Cpu).threads(2).logits(true).confidence(true).build().unwrap();
    let want = plain.segment(&photo).unwrap();
    let never = open(2).with_policy(Policy::Full).unwrap();
    let scene = never.segment(&photo).unwrap();
    assert!(scene.mask() == want.mask() && scene.confidence() == want.confidence() && scene.logits() == want.logits());
    assert_eq!(scene.compute_share(), 1.0);
}

#[test]
fn step_full_is_the_forward_function_on_every_backend() {
    fn check<B: Areas>(b: &B) {
        let network = network(b, &small(), PART);
        assert!(climbed(b, &network, &Step::Full) == full(b, &network));
    }
    check(&Reference::folded());
    Isa::available().into_iter().for_each(|isa| check(&Cpu::new(isa, 2).unwrap()));
}

/// The convolutions of the high branch and the head reach five pixels, so a patch with that margin is not affected by its edges.
#[test]
fn a_patch_with_a_margin_of_five_pixels_equals_the_same_part_of_the_whole_map() {
    let cases = [
        (patch([3, 4, 17, 20], [8, 9, 7, 10]), true),
        (patch([0, 0, 13, 17], [0, 0, 8, 12]), true), // the map's own edge needs no margin
        (patch([9, 15, 15, 17], [14, 20, 10, 12]), true),
        (patch([6, 7, 11, 14], [8, 9, 7, 10]), false), // two pixels are too few
    ];
    let b = Cpu::new(Isa::best(), 2).unwrap();
    let network = network(&b, &small(), PART);
    let (height, width) = (24, 32);
    let whole = climbed(&b, &network, &Step::Refine(vec![patch([0, 0, height, width], [0, 0, height, width])]));
    let early = climbed(&b, &network, &Step::Exit);
    for (patch, same) in cases {
        let got = climbed(&b, &network, &Step::Refine(vec![patch]));
        let Area { top, left, height: h, width: w } = patch.kept;
        let (mut inside, mut outside) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for (i, value) in got.iter().enumerate() {
            let (y, x) = (i / width % height, i % width);
            let kept = (top..top + h).contains(&y) && (left..left + w).contains(&x);
            let (values, wanted) = if kept { (&mut inside, whole[i]) } else { (&mut outside, early[i]) };
            values.0.push(*value);
            values.1.push(wanted);
        }
        assert_eq!(inside.0.len(), 5 * h * w);
        let off = distance(&inside.0, &inside.1);
        assert!((off < 1e-4) == same, "{patch:?}: {off}");
        assert!(outside.0 == outside.1, "outside, the auxiliary head's logits stay");
    }
}

#[test]
fn the_cpu_refines_like_the_reference_with_any_number_of_threads() {
    let steps = [
        Step::Exit,
        Step::Refine(vec![patch([0, 0, 12, 20], [0, 2, 10, 16]), patch([14, 12, 10, 20], [16, 14, 8, 18])]),
    ];
    let b = Reference::folded();
    let reference = network(&b, &small(), PART);
    let want = steps.each_ref().map(|step| climbed(&b, &reference, step));
    for isa in Isa::available() {
        let [one, three] = [1, 3].map(|threads| {
            let cpu = Cpu::new(isa, threads).unwrap();
            let network = network(&cpu, &small(), PART);
            steps.each_ref().map(|step| climbed(&cpu, &network, step))
        });
        assert!(one == three, "{}", isa.name());
        for (got, want) in one.iter().zip(&want) {
            let off = distance(got, want);
            assert!(off < 1e-4, "{}: {off}", isa.name());
        }
    }
}

/// What a refined tile takes from the low branch is of half its resolution, so it differs a little from the full network's.
#[test]
fn refined_logits_are_near_the_full_networks() {
    let b = Cpu::new(Isa::best(), 2).unwrap();
    let weights = Segmenter::embedded_weights().unwrap();
    let config = Config::of(&weights).unwrap();
    let network = RtFormer::load(&b, &config, &mut weights.reader("the embedded weights")).unwrap();
    let network = network.with_auxiliary(&b, &config, &mut weights.reader("the embedded weights")).unwrap();
    let dataset = weights.dataset().unwrap();
    let preparation =
        Preparation { pad_multiple: 32, ..Preparation::new(Normalization { mean: dataset.mean, std: dataset.std }) };
    let input = Input::prepare(&(&street().into_rgb()).into(), &preparation).unwrap();
    let network = (network, input.data.clone(), [1, 3, input.height, input.width]);
    let whole = patch([0, 0, 48, 60], [0, 0, 48, 60]);
    let (got, want) = (climbed(&b, &network, &Step::Refine(vec![whole])), full(&b, &network));
    let rms = |values: &mut dyn Iterator<Item = f32>| (values.map(|v| v * v).sum::<f32>() / got.len() as f32).sqrt();
    let off = rms(&mut got.iter().zip(&want).map(|(a, b)| a - b)) / rms(&mut want.iter().copied());
    let best = |logits: &[f32], pixel: usize| {
        let pixels = 48 * 60;
        (0..config.num_classes).max_by(|a, b| logits[a * pixels + pixel].total_cmp(&logits[b * pixels + pixel]))
    };
    let equal = (0..48 * 60).filter(|&pixel| best(&got, pixel) == best(&want, pixel)).count() as f32 / (48.0 * 60.0);
    println!("refined logits: {off} of the root mean square away, {equal} of the pixels equal");
    assert!(off < 0.25 && off > 0.0, "{off}");
    assert!(equal > 0.93, "{equal}");
}

#[test]
fn a_batch_gives_the_scenes_of_its_photos() {
    let photo = street().into_rgb();
    let (width, height) = photo.dimensions();
    let flat = image::RgbImage::from_pixel(width, height, image::Rgb([120, 130, 140]));
    for policy in [tiles(0.3), Policy::Size { scale: 0.6 }] {
        let segmenter = open(2).with_policy(policy).unwrap();
        let photos = [&photo, &flat];
        for (scene, photo) in segmenter.segment_batch(photos).unwrap().iter().zip(photos) {
            let alone = segmenter.segment(photo).unwrap();
            assert!(scene.mask() == alone.mask() && scene.logits() == alone.logits(), "{policy}");
            assert!((scene.compute_share() - alone.compute_share()).abs() < 1e-12, "{policy}");
        }
    }
}

#[test]
fn a_smaller_size_is_that_of_the_builder() {
    let photo = street();
    let size = Size::Exact { width: 240, height: 180 };
    let want = Segmenter::builder().device(Device::Cpu).size(size).build().unwrap().segment(&photo).unwrap();
    let scene = open(2).with_policy(Policy::Size { scale: 0.5 }).unwrap().segment(&photo).unwrap();
    assert!(scene.mask() == want.mask());
    assert!((0.2..0.4).contains(&scene.compute_share()), "{}", scene.compute_share());
}

#[test]
fn invalid_policies_are_refused() {
    let segmenter = open(1);
    for policy in [tiles(-0.1), tiles(f32::NAN), tiles(1.5), Policy::Size { scale: 0.0 }, Policy::Size { scale: 2.0 }] {
        let text = segmenter.with_policy(policy).unwrap_err().to_string();
        assert!(text.contains("expected a number from"), "{text}");
    }
    let plain = Segmenter::builder().device(Device::Cpu).build().unwrap();
    assert!(matches!(plain.with_policy(tiles(0.5)), Err(Error::Config(_))), "the head is not loaded");
    for text in ["", "tile:1", "tiles", "tiles:x", "size:", "full:1"] {
        assert!(text.parse::<Policy>().is_err(), "{text}");
    }
}

/// A change that makes a rule wrong.
type Change = fn(&mut Calibrated);

fn rule(weights: &Weights) -> Calibrated {
    Calibrated {
        rungs: ["exit", "tiles", "full"].map(String::from).to_vec(),
        confidence: Calibrated::CONFIDENCE.into(),
        tile: Calibrated::TILE,
        threshold: Some(0.3),
        scale: None,
        risk: "consistency".into(),
        epsilon: 0.02,
        delta: 0.05,
        bound: "hb".into(),
        n: 500,
        groups: 500,
        empirical_risk: 0.01,
        p_value: Some(0.01),
        compute_share: 0.7,
        time_share: 0.8,
        size: "native".into(),
        pad_multiple: 32,
        precision: "f32".into(),
        tensors: weights.tensors_digest(),
    }
}

/// Writes the embedded weights with this rule.
fn written(folder: &Path, change: impl FnOnce(&mut Calibrated)) -> PathBuf {
    let (weights, path) = (Segmenter::embedded_weights().unwrap(), folder.join("calibrated.safetensors"));
    let mut rule = rule(&weights);
    change(&mut rule);
    rule.save(&weights, &path).unwrap();
    path
}

#[test]
fn a_rule_is_applied_where_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), |_| ());
    let segmenter = Segmenter::builder().weights(&path).adaptive(0.03).pad(Padding::Multiple(32)).build().unwrap();
    assert_eq!((segmenter.policy(), segmenter.device()), (tiles(0.3), Device::Cpu));
    assert_eq!(Calibrated::of(&Weights::open(&path).unwrap()).unwrap().unwrap().policy(), tiles(0.3));
    let padded = Segmenter::builder().device(Device::Cpu).exits(true).pad(Padding::Multiple(32)).build().unwrap();
    let again = padded.with_policy(tiles(0.3)).unwrap().segment(&street()).unwrap();
    assert!(segmenter.segment(&street()).unwrap().mask() == again.mask());
    // Without `adaptive`, the file is the full network.
    assert_eq!(Segmenter::open(&path, Device::Cpu).unwrap().policy(), Policy::Full);
    // A rule may also be to never stop early, or to use a smaller size.
    for (scale, policy) in [(None, Policy::Full), (Some(0.8), Policy::Size { scale: 0.8 })] {
        let path = written(folder.path(), |rule| (rule.threshold, rule.scale) = (None, scale));
        let builder = Segmenter::builder().weights(&path).adaptive(0.02).pad(Padding::Multiple(32));
        assert_eq!(builder.build().unwrap().policy(), policy);
    }
}

#[test]
fn a_rule_that_does_not_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let builder = || Segmenter::builder().adaptive(0.02).pad(Padding::Multiple(32));
    let refusal = |path: &Path, builder: rtformer::Builder| {
        let error = builder.weights(path).build().unwrap_err();
        assert!(matches!(error, Error::Weights { .. }), "{error}");
        error.to_string()
    };
    let good = written(folder.path(), |_| ());
    let cases = [
        (builder().adaptive(0.01), "for a risk of at most 0.02, not 0.01"),
        (builder().adaptive(f64::NAN), "not NaN"),
        (builder().size(Size::Exact { width: 320, height: 240 }), "with the size native, not 320x240"),
        (builder().pad(Padding::None), "with the padding 32, not 1"),
        (builder().precision(Precision::Bf16), "with the precision f32, not bf16"),
    ];
    for (builder, wanted) in cases {
        let text = refusal(&good, builder);
        assert!(text.contains(wanted) && text.contains("rtformer calibrate"), "{text}");
    }
    let cases: [(Change, &str); 4] = [
        (|rule| rule.tensors = "0".repeat(64), "with other tensors"),
        (|rule| rule.threshold = Some(7.0), "invalid policy `tiles:7`"),
        (|rule| rule.tile = 100, "tiles of 100 pixels"),
        (|rule| rule.confidence = "mood".into(), "the confidence `mood`"),
    ];
    for (change, wanted) in cases {
        let text = refusal(&written(folder.path(), change), builder());
        assert!(text.contains(wanted), "{text}");
    }
    let weights = Segmenter::embedded_weights().unwrap();
    for text in ["", "{}", "[1]", "{\"threshold\": 0.5}"] {
        let path = folder.path().join("broken.safetensors");
        weights.save_with("adaptive", text, &path).unwrap();
        let text = refusal(&path, builder());
        assert!(text.contains("`adaptive` in its metadata is invalid"), "{text}");
    }
}

#[test]
fn rectangles_are_copied_on_every_backend() {
    fn check<B: Areas>(b: &B, name: &str) {
        for [n, c, h, w] in [[1, 3, 5, 7], [2, 17, 6, 4], [1, 16, 1, 1], [3, 33, 4, 9]] {
            let data: Vec<f32> = (0..n * c * h * w).map(|i| i as f32).collect();
            let x = b.upload(&data, [n, c, h, w]).unwrap();
            let area = Area { top: h / 3, left: w / 2, height: h - h / 2, width: w - w / 2 };
            let part = b.crop(&x, area).unwrap();
            let value = |image: usize, y: usize, x: usize| data[(image * h + y) * w + x];
            let mut want = Vec::new();
            for plane in 0..n * c {
                for y in area.top..area.top + area.height {
                    want.extend((area.left..area.left + area.width).map(|x| value(plane, y, x)));
                }
            }
            assert_eq!(b.download(&part).unwrap(), want, "{name}");
            // The border of zeros is part of a map: a convolution would see it. Resizing to the same size reads no border.
            let black = b.upload(&vec![0.0; data.len()], [n, c, h, w]).unwrap();
            let pasted = b.paste(black, &part, (area.top, area.left)).unwrap();
            let got = b.download(&pasted).unwrap();
            let inside = |i: usize| {
                let (y, x) = (i / w % h, i % w);
                (area.top..area.top + area.height).contains(&y) && (area.left..area.left + area.width).contains(&x)
            };
            assert!(got.iter().enumerate().all(|(i, v)| *v == if inside(i) { data[i] } else { 0.0 }), "{name}");
            // Outside, empty, or of another number of channels.
            assert!(b.crop(&x, Area { width: w, ..area }).is_err() || area.left == 0);
            assert!(b.crop(&x, Area { height: 0, ..area }).is_err());
            assert!(b.crop(&x, Area { top: usize::MAX, ..area }).is_err());
            let other = b.upload(&vec![0.0; n * (c + 1)], [n, c + 1, 1, 1]).unwrap();
            assert!(b.paste(x.clone(), &other, (0, 0)).is_err());
            assert!(b.paste(x, &part, (h, 0)).is_err());
        }
    }
    check(&Reference::folded(), "reference");
    Isa::available().into_iter().for_each(|isa| check(&Cpu::new(isa, 2).unwrap(), isa.name()));
}

/// Multiplications of all operations of a frame, in FLOPs.
fn profiled(segmenter: &Segmenter, photo: &image::RgbImage) -> f64 {
    let mut mask = Mask::new(0, 0, 11);
    let profile = rtformer::bench::profile(segmenter, photo, &mut mask).unwrap();
    profile.operations.iter().map(|operation| operation.flops).sum()
}

#[test]
fn a_profile_has_fewer_operations_the_less_is_computed() {
    let (segmenter, photo) = (open(2), street().into_rgb());
    let policies = [Policy::Full, tiles(0.9), tiles(0.1), tiles(0.0)];
    let counts = policies.map(|policy| profiled(&segmenter.with_policy(policy).unwrap(), &photo));
    assert!(counts.is_sorted_by(|a, b| a > b), "{counts:?}");
    // The profile and the share that a scene states agree: both count multiplications, the profile those of all operations.
    let early = segmenter.with_policy(tiles(0.0)).unwrap().segment(&photo).unwrap().compute_share();
    assert!((counts[3] / counts[0] - early).abs() < 0.05, "{counts:?}, {early}");
}
