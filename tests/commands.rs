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
    for word in ["RTFormer-Slim", "64x48", "commit", "median", "FPS", "paper", "frame", "conv1.0", "total"] {
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
    let profile = report["profile"].as_array().unwrap();
    assert!(profile.len() > 50, "{} operations", profile.len());
    for key in ["name", "ms", "gflops", "peak_share"] {
        assert!(profile[0].get(key).is_some(), "profile: {key}");
    }
    assert!(report["peak_gflops"].as_f64().unwrap() > 0.0);
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
    let (cut, none, out, thirds) = (path("cut.pdparams"), path("none"), path("out"), golden("thirds.pdparams"));
    let thirds = text(&thirds);
    let convert = |input: &str, rest: &[&str]| {
        let args = ["convert", input, "-o", &out].into_iter().chain(rest.iter().copied()).map(str::to_owned);
        args.collect::<Vec<_>>()
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
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
        (words("bench --size 8x8 --device cuda"), 1, "no CUDA backend yet"),
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
