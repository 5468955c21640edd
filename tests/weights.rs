//! Invalid weights: every file is rejected with a message that names the file and the fault.

use std::path::{Path, PathBuf};

use rtformer::weights::{Checkpoint, Dataset, Store, Weights, save};
use rtformer::{Config, Device, Error, Segmenter};
use serde_json::{Map, Value, json};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

/// The parts of a safetensors file.
#[derive(Clone)]
struct Draft {
    metadata: Map<String, Value>,
    /// Name, type, shape, bytes.
    tensors: Vec<(String, String, Value, Vec<u8>)>,
}

impl Draft {
    /// The smallest golden network: base 2, layers of 1, 3 and 2 blocks, 2 heads, 3 classes.
    fn uneven() -> Self {
        let bytes = std::fs::read(golden("uneven.safetensors")).unwrap();
        let start = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let mut header: Map<String, Value> = serde_json::from_slice(&bytes[8..start]).unwrap();
        let metadata = header.remove("__metadata__").unwrap().as_object().unwrap().clone();
        let tensors = header.into_iter().map(|(name, info)| {
            let offset = |i: usize| start + info["data_offsets"][i].as_u64().unwrap() as usize;
            let dtype = info["dtype"].as_str().unwrap().to_owned();
            (name, dtype, info["shape"].clone(), bytes[offset(0)..offset(1)].to_vec())
        });
        Self { metadata, tensors: tensors.collect() }
    }

    fn tensor(&mut self, name: &str) -> &mut (String, String, Value, Vec<u8>) {
        self.tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap()
    }

    /// The first number of a tensor.
    fn first_number(&mut self, name: &str, number: f32) {
        self.tensor(name).3[..4].copy_from_slice(&number.to_le_bytes());
    }

    /// Stores a tensor's numbers as bytes; the caller adds its scales.
    fn eight_bits(&mut self, name: &str) {
        let tensor = self.tensor(name);
        tensor.1 = "I8".into();
        tensor.3 = vec![7; tensor.3.len() / 4];
    }

    fn say(&mut self, key: &str, value: &str) {
        self.metadata.insert(key.into(), value.into());
    }

    /// Changes one entry of the model's configuration.
    fn config(&mut self, key: &str, value: Value) {
        let mut config: Value = serde_json::from_str(self.metadata["config"].as_str().unwrap()).unwrap();
        config[key] = value;
        self.say("config", &config.to_string());
    }

    /// Header and data.
    fn parts(&self) -> (Map<String, Value>, Vec<u8>) {
        let mut header = Map::new();
        header.insert("__metadata__".into(), self.metadata.clone().into());
        let mut data = Vec::new();
        for (name, dtype, shape, bytes) in &self.tensors {
            let offsets = [data.len(), data.len() + bytes.len()];
            header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
            data.extend(bytes);
        }
        (header, data)
    }

    fn file(&self) -> Vec<u8> {
        let (header, data) = self.parts();
        assemble(&Value::from(header).to_string(), &data)
    }

    /// The file with a changed header and unchanged data.
    fn lying(&self, lie: impl FnOnce(&mut Map<String, Value>)) -> Vec<u8> {
        let (mut header, data) = self.parts();
        lie(&mut header);
        assemble(&Value::from(header).to_string(), &data)
    }
}

fn assemble(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn text(result: Result<Segmenter, Error>, why: &str) -> String {
    match result {
        Err(error) => error.to_string(),
        Ok(segmenter) => panic!("{why}: opened as {segmenter}"),
    }
}

#[test]
fn a_reassembled_file_opens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    std::fs::write(&path, Draft::uneven().file()).unwrap();
    assert_eq!(Segmenter::open(&path, Device::Cpu).unwrap().model().name(), "RTFormer (base channels 2)");
}

#[test]
fn wrong_tensors_are_named() {
    type Edit = fn(&mut Draft);
    let cases: [(&str, Edit, &str); 26] = [
        ("a missing tensor", |d| d.tensors.retain(|t| t.0 != "conv1.0.weight"), "tensor `conv1.0.weight` is missing"),
        (
            "no tensors",
            |d| d.tensors.clear(),
            "is missing, RTFormer (base channels 2) needs it with shape [2, 3, 3, 3]",
        ),
        (
            "an unknown tensor",
            |d| d.tensors.push(("zebra".into(), "F32".into(), json!([1]), vec![0; 4])),
            "does not use 1 of the tensors",
        ),
        (
            "a name with a terminal escape sequence",
            |d| {
                d.tensors.push(("\u{1b}[2Jgone".into(), "F32".into(), json!([1]), vec![0; 4]));
            },
            "the first is `\\u{1b}[2Jgone`",
        ),
        (
            "another shape with the same number of elements",
            |d| d.tensor("conv1.0.weight").2 = json!([3, 2, 3, 3]),
            "`conv1.0.weight` is [3, 2, 3, 3]",
        ),
        (
            "a vector instead of a kernel",
            |d| d.tensor("conv1.0.weight").2 = json!([54]),
            "needs [2, 3, 3, 3]; is this another model's file?",
        ),
        ("integers", |d| d.tensor("conv1.0.bias").1 = "I32".into(), "`conv1.0.bias` is stored as I32"),
        (
            "8 bits without scales",
            |d| d.eight_bits("conv1.0.weight"),
            "`conv1.0.weight` is stored as I8, which needs F32 [2] in `conv1.0.weight.scale`, but there is none",
        ),
        (
            "a scale for another number of channels",
            |d| {
                d.eight_bits("conv1.0.weight");
                d.tensors.push(("conv1.0.weight.scale".into(), "F32".into(), json!([3]), vec![0; 12]));
            },
            "in `conv1.0.weight.scale`, but it is F32 [3]",
        ),
        (
            "scales in half precision",
            |d| {
                d.eight_bits("conv1.0.weight");
                d.tensors.push(("conv1.0.weight.scale".into(), "F16".into(), json!([2]), vec![0; 4]));
            },
            "but it is F16 [2]",
        ),
        (
            "scales that are NaN",
            |d| {
                d.eight_bits("conv1.0.weight");
                let scales = [f32::NAN; 2].iter().flat_map(|n| n.to_le_bytes()).collect();
                d.tensors.push(("conv1.0.weight.scale".into(), "F32".into(), json!([2]), scales));
            },
            "`conv1.0.weight` holds NaN",
        ),
        (
            "scales for a tensor that needs none",
            |d| d.tensors.push(("conv1.0.weight.scale".into(), "F32".into(), json!([2]), vec![0; 8])),
            "does not use 1 of the tensors",
        ),
        (
            "a temperature that is not a number",
            |d| d.say("temperature", "warm"),
            "`temperature` in its metadata is invalid: `warm` is not a number",
        ),
        ("a temperature of zero", |d| d.say("temperature", "0"), "a temperature of 0; expected a number above zero"),
        ("NaN", |d| d.first_number("conv1.0.weight", f32::NAN), "`conv1.0.weight` holds NaN at index 0"),
        ("infinity", |d| d.first_number("conv1.0.bias", f32::INFINITY), "`conv1.0.bias` holds inf"),
        ("minus infinity", |d| d.first_number("spp.scale0.2.weight", f32::NEG_INFINITY), "holds -inf"),
        ("a negative variance", |d| d.first_number("conv1.1._variance", -0.5), "`conv1.1._variance` holds -0.5"),
        (
            "numbers too large for f32",
            |d| {
                let tensor = d.tensor("conv1.0.bias");
                (tensor.1, tensor.3) = ("F64".into(), [1e300_f64, 0.0].iter().flat_map(|n| n.to_le_bytes()).collect());
            },
            "`conv1.0.bias` holds inf",
        ),
        (
            "numbers that exceed f32 when folded",
            |d| {
                d.first_number("conv1.0.weight", 1e30);
                d.first_number("conv1.1.weight", 1e30);
            },
            "folding the norm into `conv1.0` gives numbers outside the range of f32",
        ),
        ("another width", |d| d.config("base_channels", json!(4)), "needs [4, 3, 3, 3]"),
        ("one block too many", |d| d.config("layer_nums", json!([2, 3, 2, 2])), "tensor `layer1.1."),
        ("one block too few", |d| d.config("layer_nums", json!([1, 2, 2, 2])), "`layer2.2."),
        ("one injection too many", |d| d.config("use_injection", json!([true, true])), "tensor `layer4."),
        ("one injection too few", |d| d.config("use_injection", json!([false, false])), "`layer5."),
        ("a narrower DAPPM", |d| d.config("spp_channels", json!(2)), "`spp."),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    for (why, edit, want) in cases {
        let mut draft = Draft::uneven();
        edit(&mut draft);
        std::fs::write(&path, draft.file()).unwrap();
        Weights::open(&path).unwrap_or_else(|e| panic!("{why}: the header is valid: {e}"));
        for device in [Device::Cpu, Device::Reference] {
            let text = text(Segmenter::open(&path, device), why);
            assert!(text.contains("bad.safetensors: ") && text.contains(want), "{why}: {text}");
        }
    }
}

#[test]
fn the_auxiliary_head_may_be_anything_or_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.safetensors");
    let mut draft = Draft::uneven();
    draft.first_number("seghead_extra.conv1.weight", f32::NAN);
    std::fs::write(&path, draft.file()).unwrap();
    Segmenter::open(&path, Device::Cpu).unwrap();
    draft.tensors.retain(|tensor| !tensor.0.starts_with("seghead_extra."));
    std::fs::write(&path, draft.file()).unwrap();
    Segmenter::open(&path, Device::Cpu).unwrap();
}

/// A head that never ran keeps the statistics of a fresh norm: mean 0 and variance 1.
#[test]
fn every_norm_of_the_embedded_weights_has_seen_photos() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/rtformer-slim-camvid.safetensors");
    let tensors = Checkpoint::open(weights).unwrap().tensors;
    let fresh = |norm: &str| {
        let all =
            |statistic: &str, value: f32| tensors[&format!("{norm}.{statistic}")].data.iter().all(|&x| x == value);
        all("_mean", 0.0) || all("_variance", 1.0)
    };
    let norms: Vec<&str> = tensors.keys().filter_map(|name| name.strip_suffix("._variance")).collect();
    assert!(norms.contains(&"seghead_extra.bn2"), "{norms:?}");
    let unused: Vec<&&str> = norms.iter().filter(|norm| fresh(norm)).collect();
    assert!(unused.is_empty(), "fresh: {unused:?}");
}

#[test]
fn wrong_metadata_are_named() {
    type Edit = fn(&mut Draft);
    let cases: [(&str, Edit, &str); 37] = [
        ("no metadata", |d| d.metadata.clear(), "no `config`"),
        ("no configuration", |d| drop(d.metadata.remove("config")), "`rtformer convert`"),
        ("no classes", |d| drop(d.metadata.remove("classes")), "has no `classes` in its metadata"),
        ("no palette", |d| drop(d.metadata.remove("palette")), "has no `palette`"),
        ("no mean", |d| drop(d.metadata.remove("mean")), "has no `mean`"),
        ("no deviation", |d| drop(d.metadata.remove("std")), "has no `std`"),
        ("a configuration that is not JSON", |d| d.say("config", "RTFormer-Slim"), "`RTFormer-Slim` is invalid"),
        ("an empty configuration", |d| d.say("config", ""), "is invalid: EOF"),
        ("half a configuration", |d| d.say("config", r#"{"base_channels": 2"#), "is invalid: EOF"),
        ("a configuration with a terminal escape sequence", |d| d.say("config", "\u{1b}[2J"), "` [2J` is invalid"),
        ("a list", |d| d.say("config", "[1, 2]"), "is invalid"),
        ("an unknown entry", |d| d.config("depth", json!(3)), "unknown field `depth`"),
        ("a negative width", |d| d.config("base_channels", json!(-2)), "is invalid"),
        ("a width of zero", |d| d.config("base_channels", json!(0)), "base_channels is 0; expected 1 to 1024"),
        ("a huge width", |d| d.config("base_channels", json!(u64::MAX)), "base_channels is 18446744073709551615"),
        ("a fraction", |d| d.config("base_channels", json!(2.5)), "is invalid"),
        ("zero heads", |d| d.config("num_heads", json!(0)), "num_heads is 0"),
        (
            "heads that do not divide the channels",
            |d| d.config("num_heads", json!(3)),
            "num_heads is 3; expected a divisor of",
        ),
        ("a cross size of zero", |d| d.config("cross_size", json!(0)), "cross_size is 0"),
        ("a cross size that is too large", |d| d.config("cross_size", json!(65)), "cross_size is 65"),
        ("two layers", |d| d.config("layer_nums", json!([1, 3])), "layer_nums is [1, 3]"),
        ("a layer of zero blocks", |d| d.config("layer_nums", json!([1, 0, 2, 2])), "layer_nums is [1, 0, 2, 2]"),
        ("a layer of a million blocks", |d| d.config("layer_nums", json!([1, 3, 1_000_000, 2])), "layer_nums is"),
        ("one injection", |d| d.config("use_injection", json!([true])), "is invalid"),
        (
            "a number of classes other than the names",
            |d| d.config("num_classes", json!(4)),
            "names 3 classes, but its configuration has 4",
        ),
        ("classes that are not JSON", |d| d.say("classes", "road, car, tree"), "`classes` in its metadata is invalid"),
        (
            "one name too many",
            |d| {
                d.say("classes", r#"["a", "b", "c", "d"]"#);
                d.say("palette", "[[0,0,0],[1,1,1],[2,2,2],[3,3,3]]");
            },
            "names 4 classes, but its configuration has 3",
        ),
        ("a duplicate name", |d| d.say("classes", r#"["a", "b", "a"]"#), "class 2 is the second one with the name `a`"),
        ("a class without a name", |d| d.say("classes", r#"["a", "", "c"]"#), "class 1 has no name"),
        ("a palette that is too short", |d| d.say("palette", "[[0,0,0],[1,1,1]]"), "3 classes, 2 colours in `palette`"),
        (
            "a colour above 255",
            |d| d.say("palette", "[[0,0,0],[1,1,256],[2,2,2]]"),
            "`palette` in its metadata is invalid",
        ),
        ("too few labels", |d| d.say("label_ids", "[7, 8]"), "and 2 `label_ids`"),
        ("a mean of two numbers", |d| d.say("mean", "[0.5, 0.5]"), "`mean` in its metadata is invalid"),
        (
            "another model",
            |d| d.say("model", "unet\u{7}"),
            "holds the model `unet\\u{7}`; this version runs `rtformer` only",
        ),
        ("a deviation of zero", |d| d.say("std", "[0.2, 0.0, 0.2]"), "std[1] is 0; expected 0.001 to 1"),
        ("a mean of 0 to 255", |d| d.say("mean", "[123.675, 116.28, 103.53]"), "mean[0] is 123.675; expected 0 to 1"),
        (
            "a newer format",
            |d| d.say("format", "rtformer-2"),
            "has format `rtformer-2`, but this program reads `rtformer-1`",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    for (why, edit, want) in cases {
        let mut draft = Draft::uneven();
        edit(&mut draft);
        std::fs::write(&path, draft.file()).unwrap();
        let text = text(Segmenter::open(&path, Device::Cpu), why);
        assert!(text.contains("bad.safetensors: ") && text.contains(want), "{why}: {text}");
    }
    // An error is one line, however long the text in the file is.
    let mut draft = Draft::uneven();
    draft.say("config", &"x".repeat(1 << 20));
    std::fs::write(&path, draft.file()).unwrap();
    assert!(text(Segmenter::open(&path, Device::Cpu), "a long configuration").len() < 1000);
}

#[test]
fn a_pad_multiple_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pad.safetensors");
    let cases = [
        ("1", Ok(1)), // pads nothing
        ("32", Ok(32)),
        ("24", Ok(24)), // not a power of two
        ("256", Ok(256)),
        ("0", Err("a multiple of 0; expected 1 to 256")),
        ("257", Err("a multiple of 257; expected 1 to 256")),
        ("4294967296", Err("`4294967296` is not a whole number")), // past u32
        ("-32", Err("`-32` is not a whole number")),
        ("1.5", Err("`1.5` is not a whole number")),
        ("none", Err("`none` is not a whole number")),
        ("", Err("`` is not a whole number")),
        ("[32]", Err("`[32]` is not a whole number")),
    ];
    for (value, want) in cases {
        let mut draft = Draft::uneven();
        draft.say("pad_multiple", value);
        std::fs::write(&path, draft.file()).unwrap();
        match (Weights::open(&path).unwrap().pad_multiple(), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, Some(want)),
            (Err(error), Err(want)) => {
                let text = error.to_string();
                let named = text.contains("pad.safetensors: ") && text.contains("`pad_multiple`");
                assert!(named && text.contains(want), "{value}: {text}");
            }
            (got, want) => panic!("{value}: {got:?}, wanted {want:?}"),
        }
    }
}

#[test]
fn a_false_header_is_rejected() {
    let draft = Draft::uneven();
    let whole = draft.file();
    let with_length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    let header = |text: &str| assemble(text, &[0; 8]);
    let offsets = |name: &'static str, from: i64, to: i64| {
        draft.lying(|header| {
            for (i, by) in [from, to].into_iter().enumerate() {
                let offset = &mut header[name]["data_offsets"][i];
                *offset = (offset.as_i64().unwrap() + by).into();
            }
        })
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a header larger than any memory", with_length(u64::MAX), "its header claims 18446744073709551615 bytes"),
        (
            "a header of a terabyte",
            with_length(1 << 40),
            "its header claims 1099511627776 bytes, but the whole file has",
        ),
        ("a header longer than the file", with_length(whole.len() as u64), "its header claims"),
        ("a header that ends early", with_length(100), "its header is not a safetensors header"),
        ("no header", with_length(0), "header"),
        ("not UTF-8", assemble_bytes(b"{\"\xff\xfe\": 1}", &[]), "its header is not UTF-8"),
        ("not JSON", header("{tensors}"), "its header is not a safetensors header"),
        ("a list in the header", header(r#"{"w": [1, 2]}"#), "its header is not a safetensors header"),
        (
            "a type that does not exist",
            header(r#"{"w": {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}}"#),
            "F31",
        ),
        (
            "a negative size",
            header(r#"{"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}"#),
            "not a safetensors",
        ),
        ("metadata that are numbers", header(r#"{"__metadata__": {"config": 5}}"#), "not a safetensors header"),
        ("overlapping tensors", offsets("conv1.0.weight", -4, -4), "its header is wrong: the bytes of"),
        ("a gap", offsets("conv1.0.weight", 4, 4), "its header is wrong: the bytes of"),
        (
            "past the end",
            header(r#"{"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}"#),
            "do not end where the file ends",
        ),
        (
            "an end before the start",
            header(r#"{"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}"#),
            "its header is wrong",
        ),
        (
            "a type too narrow",
            header(r#"{"w": {"dtype": "F16", "shape": [2], "data_offsets": [0, 8]}}"#),
            "shape and type do not match",
        ),
        (
            "a type too wide",
            header(r#"{"w": {"dtype": "F64", "shape": [2], "data_offsets": [0, 8]}}"#),
            "shape and type do not match",
        ),
        (
            "a shape that overflows",
            header(r#"{"w": {"dtype": "F32", "shape": [4294967296, 4294967296, 2], "data_offsets": [0, 8]}}"#),
            "a tensor's shape overflows",
        ),
        (
            "offsets that overflow",
            header(
                r#"{"w": {"dtype": "F32", "shape": [2], "data_offsets": [18446744073709551608, 18446744073709551615]}}"#,
            ),
            "its header is wrong",
        ),
        ("one byte too many", [&whole[..], b"\0"].concat(), "do not end where the file ends"),
        ("one byte too few", whole[..whole.len() - 1].to_vec(), "truncated or damaged"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    for (why, bytes, want) in cases {
        std::fs::write(&path, bytes).unwrap();
        let text = match Weights::open(&path) {
            Err(error) => error.to_string(),
            Ok(weights) => panic!("{why}: opened as {weights:?}"),
        };
        assert!(text.contains("bad.safetensors: ") && text.contains(want), "{why}: {text}");
        assert!(Checkpoint::open(&path).is_err(), "{why}");
    }
}

fn assemble_bytes(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

#[test]
fn files_that_are_not_weights_are_named_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let cases = [
        ("a missing file", folder.path().join("none.safetensors"), "none.safetensors: cannot be read"),
        ("a folder", folder.path().to_path_buf(), "it is a folder; name a file in it"),
        ("empty", at("empty.safetensors", b""), "is empty; download or convert it again"),
        ("seven bytes", at("short.safetensors", &[0; 7]), "is not a .safetensors file"),
        ("text", at("text.safetensors", b"the weights are on my other machine"), "a text that begins with `the"),
        ("a photo", golden("photo.png"), "is a PNG image, not a .safetensors file"),
        ("a web page", at("page.safetensors", b"<!DOCTYPE html><title>404"), "a web page"),
        ("a Git LFS pointer", at("lfs.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        ("Paddle's", golden("thirds.pdparams"), "convert it to a .safetensors file with `rtformer convert`"),
        ("PyTorch's", golden("torch.pth"), "`rtformer convert`"),
        ("tensors that are not a model", golden("pickle.safetensors"), "no `config`"),
        ("a golden test case", golden("tiny.32x32.safetensors"), "no `config`"),
    ];
    for (why, path, want) in cases {
        let text = text(Segmenter::open(&path, Device::Cpu), why);
        assert!(text.contains(&*path.to_string_lossy()) && text.contains(want), "{why}: {text}");
    }
}

#[test]
fn a_truncated_file_is_an_error_wherever_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    let whole = Draft::uneven().file();
    let ends = (0..64).chain((64..whole.len() - 64).step_by(509)).chain(whole.len() - 64..whole.len());
    for end in ends {
        std::fs::write(&path, &whole[..end]).unwrap();
        let text = Weights::open(&path).unwrap_err().to_string();
        assert!(text.contains("bad.safetensors: "), "{end} bytes: {text}");
    }
}

#[test]
fn wrong_bytes_are_an_error_or_other_numbers_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    let whole = Draft::uneven().file();
    let header = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let mut state = 99_u64;
    let mut below = |end: usize| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    };
    let mut opened = 0;
    for _ in 0..1_000 {
        let mut bytes = whole.clone();
        for _ in 0..=below(2) {
            let at = below(8 + header);
            bytes[at] = if below(2) == 0 { bytes[at] ^ (1 << below(8)) } else { b"0123456789[]{}\","[below(16)] };
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(weights) = Weights::open(&path) {
            opened += 1;
            assert!(weights.parameters() <= whole.len());
            drop(weights.dtypes());
            drop(Checkpoint::open(&path));
            if opened % 8 == 0 {
                drop(Segmenter::builder().weights(&path).device(Device::Cpu).threads(1).build());
            }
        }
    }
    assert!(opened > 10, "only {opened} opened: does the test change only the header?");
}

#[test]
fn every_storage_holds_the_model() {
    /// Bytes per number, and the stored value of a number, given the largest number of its output channel.
    type Way = (usize, fn(f32, f32) -> f32);
    let folder = tempfile::tempdir().unwrap();
    let source = Weights::open(golden("thirds.safetensors")).unwrap();
    let (dataset, config): (Dataset, _) = (source.dataset().unwrap(), source.metadata("config").unwrap());
    let checkpoint = Checkpoint::of(&source).unwrap();
    let exact: Way = (4, |number, _| number);
    let f16: Way = (2, |number, _| half::f16::from_f32(number).to_f32());
    let bf16: Way = (2, |number, _| half::bf16::from_f32(number).to_f32());
    let int8: Way = (1, |number, greatest| (number / (greatest / 127.0)).round_ties_even() * (greatest / 127.0));
    // Bytes per number of a 3x3 convolution, of another kernel, and the size of the scales.
    let cases = [
        (Store::F32, exact, exact, 0),
        (Store::F16, f16, f16, 0),
        (Store::Bf16, bf16, bf16, 0),
        (Store::Int8, int8, f16, 4),
    ];
    for (store, three, other, scale) in cases {
        let path = folder.path().join(format!("{store}.safetensors"));
        save(&path, &checkpoint, &dataset, config, store).unwrap();
        let file = std::fs::read(&path).unwrap();
        let header = u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
        let read = Checkpoint::open(&path).unwrap();
        assert_eq!(read.tensors.len(), checkpoint.tensors.len());
        let mut bytes = 0;
        for (name, tensor) in &checkpoint.tensors {
            let is_three = matches!(tensor.shape[..], [_, _, 3, 3]);
            let (width, round) = match tensor.shape.len() {
                0 | 1 => exact,
                _ if is_three => three,
                _ => other,
            };
            bytes += width * tensor.data.len() + if is_three { scale * tensor.shape[0] } else { 0 };
            assert_eq!(read.tensors[name].shape, tensor.shape, "{store}: {name}");
            let channel = tensor.data.len() / tensor.shape.first().copied().unwrap_or(1);
            for (got, numbers) in read.tensors[name].data.chunks(channel).zip(tensor.data.chunks(channel)) {
                let greatest = numbers.iter().fold(0.0, |greatest: f32, number| greatest.max(number.abs()));
                let want = numbers.iter().map(|&number| round(number, greatest));
                assert!(got.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits() || a == &b), "{store}: {name}");
            }
        }
        assert_eq!(file.len(), 8 + header + bytes, "{store}: the file holds only the header and the numbers");
        let segmenter = Segmenter::open(&path, Device::Cpu).unwrap();
        assert_eq!(segmenter.model(), &Config::from_json(config).unwrap().into());
        assert_eq!(segmenter.dataset(), &dataset);
        let photo = image::RgbImage::from_fn(40, 33, |x, y| image::Rgb([6 * x as u8, 7 * y as u8, 9]));
        assert_eq!(segmenter.segment(&photo).unwrap().mask().width(), 40, "{store}");
    }
}

/// Uses the public API, and a witness file that appears if a payload runs.
#[test]
fn a_pickle_is_never_executed() {
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("executed");
    let command = format!("touch {}", witness.display());
    let argument = [b"X", &(command.len() as u32).to_le_bytes()[..], command.as_bytes()].concat();
    for function in
        ["os\nsystem", "posix\nsystem", "nt\nsystem", "subprocess\ngetoutput", "builtins\neval", "__builtin__\nexec"]
    {
        let call = [b"c", function.as_bytes(), b"\n", &argument, b"\x85R"].concat();
        // On its own, as a value next to tensors, and in a list.
        for program in [call.clone(), [b"}X\x01\0\0\0w", &call[..], b"s"].concat(), [b"]", &call[..], b"a"].concat()] {
            for protocol in 2..=5 {
                let path = folder.path().join("model.pdparams");
                std::fs::write(&path, [&[0x80, protocol][..], &program, b"."].concat()).unwrap();
                let text = Checkpoint::open(&path).unwrap_err().to_string();
                let name = function.replace('\n', ".");
                assert!(text.contains("model.pdparams: ") && text.contains(&name), "{text}");
                assert!(text.contains("nothing was executed"), "{text}");
            }
        }
    }
    assert!(!witness.exists());
}
