//! Runs `convert` on files that users have: `tests/data/field` holds examples, and the other inputs are derived from them.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use rtformer::weights::{Checkpoint, Weights};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Converts to `output` with the five classes of `dataset`; returns the exit code and standard error.
fn convert(input: &Path, output: &Path, dataset: &Path, flags: &[&str]) -> (i32, String) {
    let mut command = Command::cargo_bin("rtformer").unwrap();
    command.args(["convert", "--overwrite", "--cross-size", "3", "--num-heads", "4", "--dataset"]).arg(dataset);
    let output = command.args(flags).arg("-o").arg(output).arg(input).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The tensors of `tiny.safetensors` under changed names, with metadata.
fn renamed(change: impl Fn(&str) -> Vec<String>, metadata: &[(&str, &str)]) -> Vec<u8> {
    let tiny = Checkpoint::open(data("golden/tiny.safetensors")).unwrap();
    let (mut header, mut bytes) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, tensor) in &tiny.tensors {
        for name in change(name) {
            let start = bytes.len();
            bytes.extend(tensor.data.iter().flat_map(|number| number.to_le_bytes()));
            let entry =
                serde_json::json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, bytes.len()]});
            header.insert(name, entry);
        }
    }
    let start = bytes.len();
    bytes.extend(7_i64.to_le_bytes());
    header.insert(
        "conv1.1.num_batches_tracked".into(),
        serde_json::json!({"dtype": "I64", "shape": [], "data_offsets": [start, bytes.len()]}),
    );
    let metadata: serde_json::Map<_, _> =
        metadata.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    header.insert("__metadata__".into(), metadata.into());
    let header = serde_json::Value::from(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat()
}

#[test]
fn every_wrapping_of_a_network_converts_to_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("input"), folder.path().join("out.safetensors"));
    let want = Checkpoint::open(data("golden/tiny.safetensors")).unwrap().tensors;
    let field = |name: &str| std::fs::read(data("field/weights").join(name)).unwrap();
    let torch = |name: &str| name.replace("._mean", ".running_mean").replace("._variance", ".running_var");
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("plain", field("plain.safetensors"), "input: RTFormer (base channels 4), 5 classes of mine"),
        ("PyTorch's names", field("torch-names.safetensors"), "statistics from PyTorch's names"),
        ("a prefix in a pickle", field("module-prefix.pdparams"), "removed the prefix `module.` from every name"),
        ("a prefix", renamed(|name| vec![format!("_orig_mod.{name}")], &[]), "removed the prefix `_orig_mod.`"),
        (
            "prefixes",
            renamed(|name| vec![format!("module.backbone.{}", torch(name))], &[]),
            "the prefix `module.backbone.`",
        ),
        (
            "a second network in the file",
            renamed(|name| vec![format!("student.{name}"), format!("teacher.{name}")], &[]),
            "the file also holds `teacher` (use --part to choose)",
        ),
        (
            "a loss tensor in the file",
            renamed(
                |name| {
                    if name.starts_with("seghead_extra.conv1.w") {
                        vec![format!("net.{name}"), "loss.w".into()]
                    } else {
                        vec![format!("net.{name}")]
                    }
                },
                &[],
            ),
            "left out `loss.w`",
        ),
    ];
    for (why, bytes, note) in cases {
        std::fs::write(&input, bytes).unwrap();
        let (code, error) = convert(&input, &output, &data("field/datasets/mine.json"), &[]);
        assert!(code == 0 && error.contains(note), "{why}: {error}");
        assert!(Checkpoint::open(&output).unwrap().tensors == want, "{why}: the numbers differ");
    }
}

#[test]
fn an_array_with_two_names_is_two_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tied.safetensors");
    let tied = [("conv1.1.bias", "conv1.0.bias"), ("note", "conv1.0.bias is a name too")];
    let bytes = renamed(|name| if name == "conv1.1.bias" { Vec::new() } else { vec![name.to_owned()] }, &tied);
    std::fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.tensors["conv1.1.bias"], checkpoint.tensors["conv1.0.bias"]);
    assert_eq!(checkpoint.metadata.keys().collect::<Vec<_>>(), ["note"]);
}

#[test]
fn files_that_are_not_models_are_named_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("input.pdparams"), folder.path().join("out.safetensors"));
    let field = |name: &str| std::fs::read(data("field/weights").join(name)).unwrap();
    let golden = |name: &str| std::fs::read(data("golden").join(name)).unwrap();
    let cases = [
        (field("model.pdopt"), "holds the state of an optimizer, not a model; convert the model's file"),
        (field("xml-error.pdparams"), "is a web page or a server's error page, not the file; download it again"),
        (golden("torch.optimizer.pth"), "holds the state of an optimizer"),
        (golden("torch.script.pt"), "is a TorchScript archive; save its parameters"),
        (golden("torch.legacy.pth"), "is PyTorch's format from before 1.6"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec(), "git lfs pull"),
        (golden("photo.png"), "is a PNG image"),
        (golden("pickle.p4.pdparams"), "has no `conv1.0.weight`, which every RTFormer has; its first tensor is `"),
    ];
    for (bytes, want) in cases {
        std::fs::write(&input, bytes).unwrap();
        let (code, error) = convert(&input, &output, &data("field/datasets/mine.json"), &[]);
        assert!(code == 1 && error.contains("input.pdparams") && error.contains(want), "{want}: {code} {error}");
        assert!(!output.exists(), "{want}: an output file exists");
    }
}

#[test]
fn a_description_of_classes_is_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (data("field/weights/plain.safetensors"), folder.path().join("out.safetensors"));
    let (code, error) = convert(&input, &output, &data("field/datasets/bom.json"), &[]);
    assert_eq!(code, 0, "{error}");
    let (code, error) = convert(&input, &output, &data("field/datasets/mean-0-255.json"), &[]);
    assert!(code == 1 && error.contains("mean-0-255.json") && error.contains("123.675 / 255 = 0.485"), "{error}");
}

#[test]
fn metadata_are_kept_and_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.safetensors"), folder.path().join("second.safetensors"));
    let said = [("explainer", "{\"atoms\": [1]}"), ("adaptive", "[0.5]"), ("format", "pt"), ("model", "rtformer")];
    let input = folder.path().join("input.safetensors");
    std::fs::write(&input, renamed(|name| vec![name.to_owned()], &said)).unwrap();
    let mine = data("field/datasets/mine.json");
    let (code, error) = convert(&input, &first, &mine, &["--pad-multiple", "32", "--temperature", "1.5"]);
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("left out `explainer`"), "it belongs to the tensors as they were: {error}");
    let (code, error) = convert(&first, &second, &mine, &["--store", "int8"]);
    assert_eq!(code, 0, "{error}");
    for path in [&first, &second] {
        let weights = Weights::open(path).unwrap();
        assert_eq!((weights.pad_multiple().unwrap(), weights.temperature().unwrap()), (Some(32), 1.5));
        let wants = [("format", "rtformer-1"), ("model", "rtformer"), ("dataset", "mine"), said[1]];
        for (key, want) in wants {
            assert_eq!(weights.metadata(key), Some(want), "{}", path.display());
        }
        assert_eq!(weights.metadata("explainer"), None, "{}", path.display());
    }
    let info = |flags: &[&str]| {
        let output = Command::cargo_bin("rtformer").unwrap().arg("info").arg(&second).args(flags).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(info(&[]).contains("padding       to a multiple of 32 pixels"), "{}", info(&[]));
    assert!(info(&["--json"]).contains("\"pad_multiple\": 32"));
    assert!(info(&[]).contains("`adaptive` in its metadata is invalid"), "{}", info(&[]));
    let (code, error) = convert(&second, &first, &mine, &["--pad-multiple", "none"]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(Weights::open(&first).unwrap().pad_multiple().unwrap(), None);
    for multiple in ["0", "257", "-1", "1.5", "never", ""] {
        let (code, error) = convert(&second, &first, &mine, &[&format!("--pad-multiple={multiple}")]);
        assert!(code == 2 && error.contains("--pad-multiple"), "{multiple}: {code} {error}");
    }
}
