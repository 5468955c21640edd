//! `bench`, `info`, `convert` and `pull` as a person types them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use assert_cmd::Command;
use rtformer::backend::Reference;
use rtformer::model::{Noise, Parameters, RtFormer};
use rtformer::pixels::Image;
use rtformer::{Config, Device, Segmenter};
use serde_json::Value;

/// The command, untouched by what the machine's owner has set.
fn rtformer(args: &[&str]) -> Command {
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("rtformer");
    for proxy in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
        command.env_remove(proxy).env_remove(proxy.to_lowercase());
    }
    for own in ["RTFORMER_CACHE", "RTFORMER_MIRROR", "RTFORMER_OFFLINE"] {
        command.env_remove(own);
    }
    command.args(args);
    command
}

/// Runs it: exit code, standard output, standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A data set's description of so many classes.
fn classes(folder: &Path, count: usize) -> PathBuf {
    let classes: Vec<_> =
        (0..count).map(|i| serde_json::json!({"name": format!("class {i}"), "color": [i, 0, 0]})).collect();
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let dataset = serde_json::json!({"name": "mine", "classes": classes, "mean": mean, "std": std});
    let path = folder.join(format!("{count}.json"));
    fs::write(&path, dataset.to_string()).unwrap();
    path
}

#[test]
fn bench_writes_four_figures_and_where_they_are_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures/bench.json");
    let args = ["bench", "--size", "64x48", "--runs", "2", "--warmup", "0", "--threads", "1", "--profile", "--json"];
    let (code, table, error) = run(rtformer(&args).arg(&file));
    assert_eq!(code, 0, "{error}");
    for word in ["RTFormer-Slim", "64x48 of noise", "commit", "median", "FPS", "paper", "frame", "conv1.0", "between"] {
        assert!(table.contains(word), "no `{word}` in {table}");
    }
    let report: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for stage in ["paper", "mask", "frame", "file"] {
        let figure = |key: &str| report["stages"][stage][key].as_f64().unwrap_or_else(|| panic!("{stage}: no {key}"));
        assert!(figure("min_ms") > 0.0 && figure("min_ms") <= figure("median_ms"), "{stage}");
        assert!(figure("median_ms") <= figure("p90_ms") && figure("p90_ms") <= figure("p99_ms"), "{stage}");
        assert!((figure("fps") * figure("median_ms") - 1000.0).abs() < 1.0, "{stage}");
        assert_eq!(report["stages"][stage]["runs"], 2);
    }
    assert_eq!(report["size"], serde_json::json!([64, 48]));
    assert_eq!((&report["variant"], &report["classes"], &report["threads"]), (&"slim".into(), &19.into(), &1.into()));
    assert_eq!((&report["runs"], &report["warmup"]), (&2.into(), &0.into()));
    for key in ["model", "instruction_set", "precision", "device", "commit", "version"] {
        assert!(report[key].as_str().is_some_and(|text| !text.is_empty()), "{key}");
    }
    for key in ["cpu", "cores", "os", "arch"] {
        assert!(!report["machine"][key].is_null(), "machine.{key}");
    }
}

#[test]
fn a_profile_accounts_for_the_whole_frame() {
    let tiny = golden("tiny.safetensors");
    let args = [
        "bench",
        "--size",
        "128x96",
        "--runs",
        "5",
        "--stages",
        "frame",
        "--profile",
        "--json",
        "-",
        "-q",
        "--weights",
    ];
    let (code, json, error) = run(rtformer(&args).arg(&tiny));
    assert_eq!((code, error.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&json).unwrap();
    let profile = &report["profile"];
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    let lines = profile["lines"].as_array().unwrap();
    assert!(lines.len() > 50, "{} operations", lines.len());
    for want in ["prepare", "conv1.0", "seghead.conv2", "argmax"] {
        assert!(lines.iter().any(|line| line["name"] == want), "no {want}");
    }
    let (frame, between) = (number(&profile["frame_ms"]), number(&profile["between_ms"]));
    let sum: f64 = lines.iter().map(|line| number(&line["ms"])).sum();
    assert!((sum + between - frame).abs() < 1e-3, "{sum} and {between} between are not the frame's {frame} ms");
    assert!(between > -1e-3 && frame > 0.0, "{between} of {frame} ms between the operations");
    let shares: f64 = lines.iter().map(|line| number(&line["share"])).sum();
    assert!((shares - sum / frame).abs() < 0.01, "shares come to {shares}, {sum} of {frame} ms");
    assert!(number(&profile["peak_gflops"]) > 0.0 && number(&profile["gflops"]) > 0.0);
    let conv = lines.iter().find(|line| line["name"] == "conv1.0").unwrap();
    assert!(number(&conv["gflops"]) > 0.0 && number(&conv["peak_share"]) > 0.0);
    let stages: Vec<_> = report["stages"].as_object().unwrap().keys().collect();
    assert_eq!(stages, ["frame"], "only what was asked for");
}

#[test]
fn bench_measures_on_a_photo() {
    let (photo, tiny) = (golden("photo.png"), golden("tiny.safetensors"));
    let args = ["bench", "--runs", "1", "--warmup", "0", "--json", "-", "-q", "--weights"];
    let (code, json, error) = run(rtformer(&args).arg(&tiny).arg("--photo").arg(&photo));
    assert_eq!((code, error.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&report["photo"], &report["size"]), (&text(&photo).into(), &serde_json::json!([96, 64])));
}

/// A report with the quartiles and medians of its stages, and milliseconds of operations.
fn report(stages: &[(&str, [f64; 3])], lines: &[(&str, f64)], changes: &[(&str, Value)]) -> Value {
    let figures = |[p25, median, p75]: [f64; 3]| {
        serde_json::json!({"median_ms": median, "p25_ms": p25, "p75_ms": p75, "p90_ms": p75, "p99_ms": p75, "min_ms": p25,
            "fps": 1000.0 / median, "runs": 9})
    };
    let stages: serde_json::Map<_, _> = stages.iter().map(|(name, of)| ((*name).to_owned(), figures(*of))).collect();
    let lines: Vec<_> = lines
        .iter()
        .map(|(name, ms)| serde_json::json!({"name": name, "ms": ms, "share": 0.1, "gflops": 0.0, "peak_share": null}))
        .collect();
    let mut report = serde_json::json!({
        "stages": stages, "model": "RTFormer-Slim", "variant": "slim", "size": [64, 48], "classes": 19,
        "machine": {"cpu": "a CPU", "cores": 2, "os": "linux", "arch": "x86_64"},
        "threads": 2, "instruction_set": "avx2", "precision": "f32", "device": "cpu", "commit": "0123456789ab",
        "version": "0.1.0", "runs": 9, "warmup": 1,
        "profile": {"frames": 5, "frame_ms": 10.0, "between_ms": 0.5, "gflops": 1.0, "peak_share": null,
            "peak_gflops": null, "lines": lines},
    });
    for (key, value) in changes {
        report[key] = value.clone();
    }
    report
}

#[test]
fn compare_tells_a_change_from_noise() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, report: &Value| {
        let path = folder.path().join(name);
        fs::write(&path, report.to_string()).unwrap();
        path
    };
    let small: Vec<_> = (0..20).map(|i| (format!("layer{i}"), 0.01 * f64::from(i))).collect();
    let mut lines: Vec<(&str, f64)> = small.iter().map(|(name, ms)| (name.as_str(), *ms)).collect();
    lines.extend([("relu", 1.0), ("conv", 4.0), ("relu", 1.0), ("gone", 2.0)]);
    let stages =
        [("paper", [9.0, 10.0, 11.0]), ("mask", [9.0, 10.0, 11.0]), ("frame", [19.0, 20.0, 21.0]), ("file", [30.0; 3])];
    let a = write("a.json", &report(&stages, &lines, &[]));
    let stages = [("paper", [10.0, 10.5, 12.0]), ("mask", [4.0, 5.0, 6.0]), ("frame", [29.0, 30.0, 31.0])];
    let b = write("b.json", &report(&stages, &[("conv", 2.0), ("relu", 2.5), ("new", 3.0)], &[]));

    let (code, out, error) = run(rtformer(&["bench", "--compare"]).arg(&a).arg(&b));
    assert_eq!((code, error.as_str()), (0, ""), "nothing to warn of");
    let row = |name: &str| {
        let line = out.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("no `{name}` in {out}"))
    };
    for (name, want) in [
        ("paper", "1.050  within the spread: half of A's runs took 9.00 to 11.00, of B's 10.00 to 12.00"),
        ("mask", "0.500  B is 2.00 times faster"),
        ("frame", "1.500  B is 1.50 times slower"),
    ] {
        assert!(row(name).ends_with(want), "{}", row(name));
    }
    assert!(!out.contains("file "), "it is in A alone: {out}");
    let cells = |name: &str| row(name).split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(cells("relu"), ["2.000", "2.500", "+0.500", "1.250"], "both of a name as one");
    assert_eq!(cells("conv"), ["4.000", "2.000", "-2.000", "0.500"]);
    assert_eq!(cells("new"), ["-", "3.000", "+3.000", "-"]);
    assert_eq!(cells("gone"), ["2.000", "-", "-2.000", "-"]);
    let order: Vec<_> =
        ["new", "conv", "gone", "relu", "layer19", "others"].map(|name| out.find(&format!("\n{name} "))).into();
    assert!(order.is_sorted() && order[0].is_some(), "{order:?} in {out}");
    // 24 names, of which 12 are shown: layer0 to layer11 are together.
    assert_eq!(cells("others"), ["0.660", "0.000", "-0.660", "0.000"]);
    assert_eq!(cells("between"), ["0.500", "0.500", "+0.000", "1.000"]);
}

#[test]
fn compare_warns_of_what_else_differs() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let stages = [("mask", [9.0, 10.0, 11.0])];
    fs::write(path("a.json"), report(&stages, &[], &[]).to_string()).unwrap();
    let machine = serde_json::json!({"cpu": "another CPU", "cores": 2, "os": "linux", "arch": "x86_64"});
    let cases = [
        ("machine", machine, "machine: a CPU, 2 cores; linux x86_64, and another CPU, 2 cores; linux x86_64"),
        ("threads", 4.into(), "threads: 2, and 4"),
        ("size", serde_json::json!([48, 64]), "size: 64x48, and 48x64"),
        ("model", "RTFormer-Base".into(), "model: RTFormer-Slim, and RTFormer-Base"),
        ("weights", "mine".into(), "weights: random, and mine"),
        ("precision", "bf16".into(), "precision: f32, and bf16"),
        ("instruction_set", "avx512".into(), "instruction set: avx2, and avx512"),
        ("photo", "street.jpg".into(), "frame: noise, and street.jpg"),
    ];
    for (key, value, want) in cases {
        fs::write(path("b.json"), report(&stages, &[], &[(key, value)]).to_string()).unwrap();
        let (code, out, error) = run(rtformer(&["bench", "--compare"]).arg(path("a.json")).arg(path("b.json")));
        assert_eq!(code, 0, "{error}");
        assert!(
            error.starts_with("warning: A and B differ in ") && error.contains(want) && error.lines().count() == 1,
            "{key}: {error}"
        );
        assert!(out.contains("mask"), "compared all the same: {out}");
    }
}

#[test]
fn compare_reads_what_bench_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (file, tiny) = (folder.path().join("a.json"), golden("tiny.safetensors"));
    let args = ["bench", "--size", "32x32", "--runs", "1", "--warmup", "0", "--profile", "--weights"];
    let (code, _, error) = run(rtformer(&args).arg(&tiny).arg("--json").arg(&file));
    assert_eq!(code, 0, "{error}");
    let (code, out, error) = run(rtformer(&["bench", "--compare"]).arg(&file).arg(&file));
    assert_eq!((code, error.as_str()), (0, ""));
    for word in ["paper", "file", "within the spread", "others", "between"] {
        assert!(out.contains(word), "no `{word}` in {out}");
    }
}

#[test]
fn bench_of_a_weights_file_gives_nothing_but_json_when_asked() {
    let tiny = golden("tiny.safetensors");
    let args = ["bench", "--size", "64x64", "--runs", "2", "--warmup", "1", "--json", "-", "-q", "--weights"];
    let (code, json, error) = run(rtformer(&args).arg(&tiny));
    assert_eq!((code, error.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["weights"], text(&tiny));
    assert_eq!(report["classes"], 5);
    assert!(report.get("variant").is_none() && report.get("profile").is_none());
}

#[test]
fn info_says_what_a_file_is() {
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
    assert!(info.get("version").is_none(), "a file's info is about the file");

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
    // Ours to ours: what no shape tells is in the file.
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
    assert!(error.contains("thirds.safetensors: is there already; --overwrite"), "{error}");
    let (code, ..) = run(rtformer(&["convert", "--store", "bf16", "--overwrite", "-o"]).arg(&again).arg(&again));
    assert_eq!(code, 0);
    assert!(fs::metadata(&again).unwrap().len() < fs::metadata(&output).unwrap().len());
}

#[test]
fn a_temperature_that_was_given_stays_with_the_file() {
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
fn what_cannot_be_done_is_said_and_leaves_nothing_behind() {
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
            "thirds.pdparams: model configuration: the checkpoint has 7 classes, data set `mine` has 6",
        ),
        (
            convert(thirds, &["--dataset", seven, "--num-heads", "2", "--variant", "base"]),
            1,
            "thirds.pdparams: model configuration: the checkpoint is RTFormer (base channels 3), not the variant `base`",
        ),
        (convert(thirds, &["--dataset", seven, "--num-heads", "5"]), 1, "num_heads is 5"),
        (convert(thirds, &["--dataset", seven, "--cross-size", "0"]), 1, "cross_size is 0"),
        (
            convert(thirds, &[]),
            2,
            "thirds.pdparams: does not say what its classes are; name its data set with --dataset",
        ),
        (convert(thirds, &["--dataset", "coco"]), 2, "--dataset coco is neither cityscapes, ade20k, camvid nor a file"),
        (convert(thirds, &["--dataset", seven, "--store", "int4"]), 2, "there are f32, f16, bf16 and int8"),
        (convert(thirds, &["--dataset", seven, "--temperature", "0"]), 2, "above zero"),
        (convert(thirds, &["--dataset", seven, "--temperature", "warm"]), 2, "it is no number"),
        (vec!["info".into(), thirds.into()], 1, "rtformer convert"),
        (vec!["info".into(), none.clone()], 1, "none: cannot be read"),
        (words("info slim-cityscapes"), 2, "rtformer pull slim-cityscapes"),
        (words("bench --size native"), 2, "--size native is no frame's size"),
        (words("bench --size within:64x64"), 2, "--size within:64x64 is no frame's size"),
        (words("bench --size 65535x65535"), 2, "a photo has at most"),
        (words("bench --size 0x4"), 2, "size `0x4` is none"),
        (words("bench --runs 0"), 2, "--runs"),
        (words("bench --variant slim --weights embedded"), 2, "cannot be used with"),
        (words("bench --variant large"), 2, "[possible values: slim, base]"),
        (words("bench --size 8x8 --device cuda:99"), 2, "device `cuda:99`: "),
        (words("bench --size 8x8 --stages paper,all"), 2, "[possible values: paper, mask, frame, file]"),
        (words("bench --size 8x8 --photo a.png"), 2, "cannot be used with"),
        (words("bench --photo none.png"), 1, "none.png: cannot be read"),
        (words("bench --compare a.json"), 2, "2 values required"),
        (words("bench --compare a.json b.json --runs 3"), 2, "cannot be used with"),
        (words("bench --compare a.json b.json --threads 1"), 2, "cannot be used with"),
        (words("bench --compare none.json none.json"), 1, "none.json: cannot be read"),
        (
            compare("other.json"),
            1,
            "other.json: is no report that `rtformer bench --json` of this version writes: missing field",
        ),
        (compare("broken.json"), 1, "broken.json: is no report"),
        (words("pull slim"), 2, "there is no model `slim` to pull; there are slim-cityscapes"),
        (words("pull slim-ade20k --mirror ftp://mirror"), 2, "the mirror `ftp://mirror`"),
        (words("pull slim-ade20k --offline"), 1, "not downloaded, as we are offline"),
        (words("pull slim-ade20k --proxy ::"), 1, "`::` is no proxy"),
    ];
    for (args, want_code, want) in cases {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let (code, out, error) = run(rtformer(&args).env("RTFORMER_CACHE", folder.path().join("cache")));
        assert_eq!((code, out.as_str()), (want_code, ""), "{args:?}: {error}");
        assert!(error.contains(want), "{args:?}: {error}");
    }
    assert!(!Path::new(&out).exists());
}

// ---- a server that answers what a test wrote down, and a checkpoint as PaddleSeg publishes them

/// Head and body, sent before the connection is closed.
struct Reply(String, Vec<u8>);

impl Reply {
    /// `sent` of a file of `length` bytes.
    fn ok(sent: &[u8], length: usize) -> Self {
        Self(format!("HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: {length}"), sent.to_vec())
    }

    fn rest(whole: &[u8], from: usize) -> Self {
        let (rest, length) = (&whole[from..], whole.len());
        let range = format!("Content-Range: bytes {from}-{}/{length}", length - 1);
        Self(format!("HTTP/1.1 206 Partial Content\r\n{range}\r\nContent-Length: {}", rest.len()), rest.to_vec())
    }
}

/// One reply to each request; the requests' heads come back in lower case.
fn serve(replies: Vec<Reply>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mirror", listener.local_addr().unwrap());
    let (heads, received) = channel();
    thread::spawn(move || {
        for Reply(head, body) in replies {
            let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
            let lines = BufReader::new(&stream).lines().map(Result::unwrap);
            let asked = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase() + "\n").collect();
            let _ = heads.send(asked); // not every test looks at the requests
            stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
            let _ = stream.write_all(&body); // a client that is refused may hang up
        }
    });
    (url, received)
}

/// A Slim for Cityscapes as `paddle.save` writes it: protocol 4, a dictionary of numpy arrays.
fn official_shaped() -> Vec<u8> {
    struct Recorded(Noise, Vec<u8>);
    impl Parameters for Recorded {
        fn take(&mut self, name: &str, want: &[usize]) -> rtformer::Result<Vec<f32>> {
            let data = self.0.take(name, want)?;
            let bytes: Vec<u8> = data.iter().flat_map(|number| number.to_le_bytes()).collect();
            let ints = |numbers: &[usize]| {
                let each = numbers.iter().flat_map(|&n| [vec![b'J'], (n as i32).to_le_bytes().to_vec()].concat());
                [vec![b'('], each.collect(), vec![b't']].concat()
            };
            let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
            let raw = |raw: &[u8]| [b"B", &(raw.len() as u32).to_le_bytes()[..], raw].concat();
            self.1.extend(text(name));
            self.1.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n");
            self.1.extend([ints(&[0]), raw(b"b"), b"\x87R(K\x01".to_vec(), ints(want)].concat());
            self.1.extend([b"cnumpy\ndtype\n".to_vec(), text("f4"), b"\x89\x88\x87R(K\x03".to_vec()].concat());
            self.1.extend([text("<"), b"NNNtb\x89".to_vec(), raw(&bytes), b"tbs".to_vec()].concat());
            Ok(data)
        }
    }
    let mut recorded = Recorded(Noise::new(1), b"\x80\x04}".to_vec());
    RtFormer::load(&Reference::unfolded(), &Config::slim(19), &mut recorded).unwrap();
    recorded.1.push(b'.');
    recorded.1
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn pull_resumes_converts_and_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let pull = |args: &[&str], mirror: &str| {
        let mut command = rtformer(&["pull"]);
        run(command.args(args).env("RTFORMER_CACHE", &cache).env("RTFORMER_MIRROR", mirror))
    };
    let whole = official_shaped();
    let (mirror, asked) = serve(vec![Reply::ok(&whole[..1_000_000], whole.len()), Reply::rest(&whole, 1_000_000)]);
    let (code, _, error) = pull(&["slim-cityscapes"], &mirror);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains(&format!("broke off after 1000000 of {} bytes", whole.len())), "{error}");
    assert!(
        asked.recv().unwrap().starts_with("get /mirror/cityscapes/rtformer_slim_cityscapes_1024x512_120k/model.pd")
    );
    assert!(files(&cache).iter().all(|name| name.contains(".part")), "{:?}", files(&cache));

    let (code, _, error) = pull(&["slim-cityscapes"], &mirror);
    assert_eq!(code, 0, "{error}");
    assert!(asked.recv().unwrap().contains("range: bytes=1000000-"));
    assert!(error.contains("--weights slim-cityscapes") && error.contains("cross size 12 (given)"), "{error}");
    assert_eq!(files(&cache), ["slim-cityscapes.safetensors"]);
    let model = cache.join("slim-cityscapes.safetensors");
    let segmenter = Segmenter::open(&model, Device::Cpu).unwrap();
    assert_eq!(segmenter.config(), &Config::slim(19));
    assert_eq!(segmenter.dataset().classes[13].name, "car");

    // Nobody serves any more.
    for args in [&["slim-cityscapes"][..], &["slim-cityscapes", "--offline"]] {
        let (code, _, error) = pull(args, &mirror);
        assert!(code == 0 && error.contains("slim-cityscapes is here already"), "{error}");
    }
    let (code, list, _) = pull(&["--list"], "");
    assert!(code == 0 && list.lines().count() == 4 && list.starts_with("slim-cityscapes  here "), "{list}");
    let (code, ..) = run(rtformer(&["info", "slim-cityscapes"]).env("RTFORMER_CACHE", &cache));
    assert_eq!(code, 0);

    // A file that was put there by hand.
    let before = fs::read(&model).unwrap();
    fs::remove_file(&model).unwrap();
    let (code, _, error) = pull(&["slim-cityscapes", "--offline"], "");
    assert!(code == 1 && error.contains("slim-cityscapes.pdparams"), "{error}");
    fs::write(cache.join("slim-cityscapes.pdparams"), &whole).unwrap();
    let mut offline = rtformer(&["pull", "slim-cityscapes"]);
    let (code, _, error) = run(offline.env("RTFORMER_CACHE", &cache).env("RTFORMER_OFFLINE", "1"));
    assert_eq!(code, 0, "{error}");
    assert!(fs::read(&model).unwrap() == before, "the same model again");
}

#[test]
fn what_is_no_checkpoint_never_becomes_a_model() {
    let slim = official_shaped();
    let page = b"<!DOCTYPE html><title>Sign in</title>";
    let cases: [(&[u8], &str); 4] = [
        (page, "a web page"),
        (b"", "is empty"),
        (&slim[..slim.len() / 2], "the file is truncated"), // and the server says that it is whole
        (&slim, "not the variant `base`"),
    ];
    for (body, want) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (mirror, _asked) = serve(vec![Reply::ok(body, body.len())]);
        let args = ["pull", "base-cityscapes", "--mirror", &mirror];
        let (code, _, error) = run(rtformer(&args).env("RTFORMER_CACHE", folder.path()));
        assert_eq!(code, 1, "{error}");
        assert!(error.contains(want) && error.contains("the download was removed, so pull it again"), "{error}");
        assert_eq!(files(folder.path()), [""; 0], "{want}");
    }
}
