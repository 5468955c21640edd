//! `rtformer info` and `convert`, and the errors of every command.

use std::fs;
use std::path::Path;

use rtformer::Segmenter;
use rtformer::pixels::Image;
use serde_json::Value;

use super::{classes, golden, rtformer, run, text};

#[test]
fn info_describes_a_file() {
    let thirds = golden("thirds.safetensors");
    let (code, out, _) = run(rtformer(&["info"]).arg(&thirds));
    assert_eq!(code, 0);
    for word in ["base channels 3", "7 classes", "temperature   1\n", "golden", "CC0-1.0", "#255b97  class 1", "F32"] {
        assert!(out.contains(word), "no `{word}` in {out}");
    }
    let (code, json, _) = run(rtformer(&["info", "--json"]).arg(&thirds));
    assert_eq!(code, 0);
    let info: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&info["config"]["num_heads"], &info["bytes"]), (&2.into(), &191_892.into()));
    assert_eq!(info["classes"][1], serde_json::json!({"id": 1, "name": "class 1", "color": [37, 91, 151]}));
    assert!(info.get("version").is_none(), "the description of a file does not include the program");

    let (code, json, _) = run(&mut rtformer(&["info", "--json"]));
    assert_eq!(code, 0);
    let info: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&info["weights"], &info["version"]), (&"embedded".into(), &env!("CARGO_PKG_VERSION").into()));
    assert!(info["instruction_sets"].as_array().unwrap().contains(&"scalar".into()));
}

#[test]
fn a_converted_checkpoint_is_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = classes(folder.path(), 7);
    let output = folder.path().join("new/thirds.safetensors");
    let mut command =
        rtformer(&["convert", "--cross-size", "4", "--num-heads", "2", "--dataset", text(&dataset), "-o"]);
    let (code, out, error) = run(command.arg(&output).arg(golden("thirds.pdparams")));
    assert_eq!((code, out.as_str()), (0, ""), "{error}");
    assert!(error.contains("thirds.pdparams: RTFormer (base channels 3), 7 classes of mine"), "{error}");
    assert!(error.contains("cross size 4 (given), 2 heads (given)"), "{error}");
    // From a file that rtformer wrote: the cross size and the heads come from the file.
    let again = folder.path().join("again.safetensors");
    let (code, _, error) = run(rtformer(&["convert", "-o"]).arg(&again).arg(&output));
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("cross size 4 (from the file), 2 heads (from the file)"), "{error}");
    assert_eq!(fs::read(&output).unwrap(), fs::read(&again).unwrap());

    let photo = Image::open(golden("photo.png")).unwrap();
    let scene = |path: &Path| {
        let segmenter = Segmenter::builder().weights(path).logits(true).build().unwrap();
        segmenter.segment(&photo).unwrap()
    };
    let (got, want) = (scene(&output), scene(&golden("thirds.safetensors")));
    assert_eq!(got.logits(), want.logits());
    assert_eq!(got.mask(), want.mask());

    let (code, _, error) = run(rtformer(&["convert", "--store", "bf16", "-o"]).arg(&output).arg(&again));
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("thirds.safetensors: exists already; use --overwrite"), "{error}");
    let (code, ..) = run(rtformer(&["convert", "--store", "bf16", "--overwrite", "-o"]).arg(&again).arg(&again));
    assert_eq!(code, 0);
    assert!(fs::metadata(&again).unwrap().len() < fs::metadata(&output).unwrap().len());
}

#[test]
fn the_given_temperature_is_stored_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (given, again) = (folder.path().join("given.safetensors"), folder.path().join("again.safetensors"));
    let (code, _, error) =
        run(rtformer(&["convert", "--temperature", "1.25", "-o"]).arg(&given).arg(golden("tiny.safetensors")));
    assert_eq!(code, 0, "{error}");
    let (code, _, error) = run(rtformer(&["convert", "--store", "int8", "-o"]).arg(&again).arg(&given));
    assert_eq!(code, 0, "{error}");
    for (path, want) in [(&golden("tiny.safetensors"), 1.0), (&given, 1.25), (&again, 1.25)] {
        let (_, json, _) = run(rtformer(&["info", "--json"]).arg(path));
        let info: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(info["temperature"], want, "{}", path.display());
    }
}

#[test]
fn a_file_of_another_model_is_not_converted() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, other, output] = ["ours", "other", "output"].map(|name| folder.path().join(name));
    let (code, _, error) =
        run(rtformer(&["convert", "--store", "f16", "-o"]).arg(&ours).arg(golden("tiny.safetensors")));
    assert_eq!(code, 0, "{error}");
    let mut bytes = fs::read(&ours).unwrap();
    let (model, fake) = (br#""model":"rtformer""#, br#""model":"segnet_a""#);
    let at = bytes.windows(model.len()).position(|some| some == model).unwrap();
    bytes[at..at + fake.len()].copy_from_slice(fake);
    fs::write(&other, bytes).unwrap();
    // A data set of the user's own does not make it an RTFormer.
    for dataset in [None, Some(classes(folder.path(), 5))] {
        let mut command = rtformer(&["convert", "-o"]);
        command.arg(&output).arg(&other).args(dataset.iter().flat_map(|path| ["--dataset", text(path)]));
        let (code, _, error) = run(&mut command);
        assert_eq!(code, 1, "{error}");
        assert!(error.contains("other: holds the model `segnet_a`; this version runs `rtformer` only"), "{error}");
        assert!(!output.exists());
    }
}

#[test]
fn a_failing_command_names_the_reason_and_writes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&folder.path().join(name)).to_owned();
    let (seven, six) = (classes(folder.path(), 7), classes(folder.path(), 6));
    let (seven, six) = (text(&seven), text(&six));
    let whole = fs::read(golden("thirds.pdparams")).unwrap();
    fs::write(path("cut.pdparams"), &whole[..whole.len() / 2]).unwrap();
    fs::write(path("other.json"), r#"{"stages": {}}"#).unwrap();
    fs::write(path("broken.json"), "{").unwrap();
    let (cut, none, out, thirds) = (path("cut.pdparams"), path("none"), path("out"), golden("thirds.pdparams"));
    let thirds = text(&thirds);
    let convert = |input: &str, rest: &[&str]| {
        let args = ["convert", input, "-o", &out].into_iter().chain(rest.iter().copied()).map(str::to_owned);
        args.collect::<Vec<_>>()
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let compare = |name: &str| vec!["bench".to_owned(), "--compare".into(), path(name), path(name)];
    let cases = [
        (convert(&none, &["--dataset", seven]), 1, "none: cannot be read"),
        (convert(&cut, &["--dataset", seven]), 1, "cut.pdparams: byte"),
        (
            convert(thirds, &["--dataset", six, "--num-heads", "2"]),
            1,
            "thirds.pdparams: model configuration: the checkpoint has 7 classes, but the data set `mine` has 6",
        ),
        (
            convert(thirds, &["--dataset", seven, "--num-heads", "2", "--variant", "base"]),
            1,
            "thirds.pdparams: model configuration: the checkpoint is RTFormer (base channels 3), not the requested variant `base`",
        ),
        (convert(thirds, &["--dataset", seven, "--num-heads", "5"]), 1, "num_heads is 5"),
        (convert(thirds, &["--dataset", seven, "--cross-size", "0"]), 1, "cross_size is 0"),
        (convert(thirds, &[]), 2, "thirds.pdparams: does not contain its classes; use --dataset to name its data set"),
        (
            convert(thirds, &["--dataset", "coco"]),
            2,
            "invalid --dataset `coco`: expected cityscapes, ade20k, camvid or an existing JSON file",
        ),
        (convert(thirds, &["--dataset", seven, "--store", "int4"]), 2, "expected f32, f16, bf16 or int8"),
        (convert(thirds, &["--dataset", seven, "--temperature", "0"]), 2, "above zero"),
        (convert(thirds, &["--dataset", seven, "--temperature", "warm"]), 2, "expected a number"),
        (vec!["info".into(), thirds.into()], 1, "rtformer convert"),
        (vec!["info".into(), none.clone()], 1, "none: cannot be read"),
        (words("info slim-cityscapes"), 2, "rtformer pull slim-cityscapes"),
        (words("bench --size native"), 2, "invalid --size `native`: expected WIDTHxHEIGHT"),
        (words("bench --size within:64x64"), 2, "invalid --size `within:64x64`: expected WIDTHxHEIGHT"),
        (words("bench --size 65535x65535"), 2, "pixels, expected at most"),
        (words("bench --size 0x4"), 2, "invalid size `0x4`"),
        (words("bench --runs 0"), 2, "--runs"),
        (words("bench --variant slim --weights embedded"), 2, "cannot be used with"),
        (words("bench --variant large"), 2, "expected slim or base"),
        (words("bench --size 8x8 --device cuda:99"), 2, "device `cuda:99`: "),
        (words("bench --size 8x8 --stages paper,all"), 2, "[possible values: paper, mask, frame, file]"),
        (words("bench --size 8x8 --photo a.png"), 1, "a.png: cannot be read"),
        (words("bench --photo none.png"), 1, "none.png: cannot be read"),
        (words("bench --compare a.json"), 2, "2 values required"),
        (words("bench --compare a.json b.json --runs 3"), 2, "cannot be used with"),
        (words("bench --compare a.json b.json --threads 1"), 2, "cannot be used with"),
        (words("bench --compare none.json none.json"), 1, "none.json: cannot be read"),
        (
            compare("other.json"),
            1,
            "other.json: is not a report from `rtformer bench --json` of this version: missing field",
        ),
        (compare("broken.json"), 1, "broken.json: is not a report"),
        (words("pull slim"), 2, "unknown model `slim`: expected one of slim-cityscapes"),
        (words("pull slim-ade20k --mirror ftp://mirror"), 2, "invalid mirror `ftp://mirror`"),
        (words("pull slim-ade20k --offline"), 1, "not downloaded because of offline mode"),
        (words("pull slim-ade20k --proxy ::"), 1, "`::` is not a proxy"),
    ];
    for (args, want_code, want) in cases {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let (code, out, error) = run(rtformer(&args).env("RTFORMER_CACHE", folder.path().join("cache")));
        assert_eq!((code, out.as_str()), (want_code, ""), "{args:?}: {error}");
        assert!(error.contains(want), "{args:?}: {error}");
    }
    assert!(!Path::new(&out).exists());
}
