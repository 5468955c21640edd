//! `rtformer segment` from the command line.

mod classes;
mod identity;
#[cfg(unix)]
mod processes;
mod shards;
mod streams;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rtformer::pixels::{IdsMut, Mask};
use serde_json::Value;

const STREET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/street");
/// Random weights of a tiny, fast network with five classes.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/tiny.safetensors");

fn rtformer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtformer"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs `segment` with the tiny weights and writes to `out`.
fn segment(inputs: &[&Path], out: &Path, more: &[&str]) -> Output {
    let mut command = rtformer(&["segment", "--weights", TINY, "--out"]);
    command.arg(out).args(inputs).args(more).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {}", stderr(output)))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The lines of standard output, each parsed as JSON.
fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Sends a signal.
#[cfg(unix)]
fn kill(signal: &str, process: &std::process::Child) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &process.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// INT; or TERM if this process was started with INT ignored, like background jobs of a shell. Children inherit that, and the program
/// keeps it.
#[cfg(unix)]
fn interrupt() -> &'static str {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    if ignored & 0b10 == 0 { "INT" } else { "TERM" }
}

/// The bytes of every file under a folder, by its path relative to the folder.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files =
        walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    let named = files.map(|file| {
        let name = file.path().strip_prefix(folder).unwrap().to_string_lossy().replace('\\', "/");
        (name, fs::read(file.path()).unwrap())
    });
    named.collect()
}

/// Saves a small photo whose pixels differ for every seed.
fn photo(path: &Path, seed: u32) {
    let pixel = |x: u32, y: u32| image::Rgb([(x * 5 + seed) as u8, (y * 3 + seed * 7) as u8, (x * y + seed) as u8]);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_fn(64, 48, pixel).save(path).unwrap();
}

fn photos(folder: &Path, count: u32) {
    (0..count).for_each(|i| photo(&folder.join(format!("{i:04}.png")), i));
}

#[test]
fn folders_are_mirrored_and_every_output_is_correct() {
    let out = tempfile::tempdir().unwrap();
    let emit = ["--emit", "mask,overlay,confidence,logits,json", "--json"];
    let done = segment(&[Path::new(STREET)], out.path(), &emit);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let (files, reports) = (tree(out.path()), lines(&done));
    assert_eq!((files.len(), reports.len()), (6 * 5, 6));

    for report in &reports {
        let path = report["path"].as_str().unwrap();
        let stem = Path::new(path).strip_prefix(STREET).unwrap().with_extension("");
        let stem = stem.to_string_lossy().replace('\\', "/");
        let file = |suffix: &str| files.get(&format!("{stem}{suffix}")).unwrap_or_else(|| panic!("{stem}{suffix}"));
        let (width, height) = image::image_dimensions(path).unwrap();
        let pixels = (width * height) as usize;
        assert_eq!(report["size"], serde_json::json!([width, height]));

        let mut decoder = png::Decoder::new(std::io::Cursor::new(file(".mask.png")));
        decoder.set_transformations(png::Transformations::IDENTITY);
        let mut reader = decoder.read_info().unwrap();
        assert_eq!(reader.info().color_type, png::ColorType::Indexed);
        let mut ids = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut ids).unwrap();
        assert_eq!(ids.len(), pixels);

        let mut mask = Mask::new(width, height, 5);
        if let IdsMut::U8(out) = mask.ids_mut() {
            out.copy_from_slice(&ids);
        }
        assert_eq!(report["digest"], mask.digest());

        let classes = report["classes"].as_array().unwrap();
        for class in classes {
            let id = class["id"].as_u64().unwrap();
            let share = ids.iter().filter(|&&other| u64::from(other) == id).count() as f64 / pixels as f64;
            assert!((class["share"].as_f64().unwrap() - share).abs() < 1e-9, "{class}");
        }
        assert!((0.0..=1.0).contains(&report["mean_confidence"].as_f64().unwrap()));
        for stage in ["decode_ms", "prepare_ms", "model_ms", "argmax_ms", "encode_ms"] {
            assert!(report["timings"][stage].as_f64().unwrap() > 0.0, "{stage}: {report}");
        }

        let (header, logits) = file(".logits.npy").split_at(128);
        assert!(
            String::from_utf8_lossy(header)
                .contains(&format!("'<f4', 'fortran_order': False, 'shape': (5, {height}, {width})"))
        );
        let logits: Vec<_> = logits.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        for (pixel, &id) in ids.iter().enumerate() {
            let best =
                (1..5).fold(0, |a, b| if logits[b * pixels + pixel] > logits[a * pixels + pixel] { b } else { a });
            assert_eq!(best, usize::from(id), "pixel {pixel} of {stem}");
        }
        for picture in [".overlay.png", ".confidence.png"] {
            let decoded = image::load_from_memory(file(picture)).unwrap();
            assert_eq!((decoded.width(), decoded.height()), (width, height));
        }
        let written: Value = serde_json::from_slice(file(".json")).unwrap();
        assert_eq!(&written, report);
    }
}

#[test]
fn outputs_are_identical_for_any_threads_and_batch() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("in"), 5);
    photo(&folder.path().join("in/other.png"), 9);
    let mut first: Option<BTreeMap<String, Vec<u8>>> = None;
    for (threads, batch) in [("1", "1"), ("2", "1"), ("3", "4"), ("1", "1024"), ("5", "2")] {
        let out = tempfile::tempdir().unwrap();
        let flags = ["--threads", threads, "--batch", batch, "--emit", "mask,confidence,logits"];
        let done = segment(&[&folder.path().join("in")], out.path(), &flags);
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        let files = tree(out.path());
        assert!(*first.get_or_insert(files.clone()) == files, "{threads} threads, batches of {batch}");
    }
}

#[test]
fn a_bad_photo_does_not_affect_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("in");
    photos(&root, 2);
    let whole = fs::read(root.join("0000.png")).unwrap();
    let mut huge = b"P6 40000 40000 255\n".to_vec();
    huge.extend([0; 64]);
    let bad: [(&str, &[u8], &str); 6] = [
        ("truncated.png", &whole[..whole.len() / 2], "truncated"),
        ("empty.jpg", b"", "empty"),
        ("huge.ppm", &huge, "40000x40000"),
        ("text.png", b"not a picture at all, but some words", "is not an image"),
        ("archive.jpg", b"PK\x03\x04 and so on and so on", "ZIP"),
        ("cut.jpg", &[0xff, 0xd8, 0xff, 0xe0, 0, 16], "JPEG"),
    ];
    for (name, bytes, _) in bad {
        fs::write(root.join(name), bytes).unwrap();
    }
    // A photo with a wrong extension is not a bad photo.
    fs::write(root.join("wrong.jpg"), &whole).unwrap();
    let out = folder.path().join("out");
    let done = segment(&[&root], &out, &["--json", "--emit", "mask", "--batch", "3"]);
    assert_eq!(code(&done), 1, "{}", stderr(&done));
    let names: Vec<_> = tree(&out).into_keys().collect();
    assert_eq!(names, ["0000.mask.png", "0001.mask.png", "wrong.mask.png"]);
    let (reports, said) = (lines(&done), stderr(&done));
    assert_eq!(reports.len(), 3 + bad.len());
    for (name, _, why) in bad {
        let line = said.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name} in {said}"));
        assert!(line.contains(why), "{line}");
        let report = reports.iter().find(|report| report["path"].as_str().unwrap().ends_with(name)).unwrap();
        assert!(report["error"].as_str().unwrap().contains(why), "{report}");
    }
    let stopped = segment(&[&root], &folder.path().join("fast"), &["--fail-fast", "--emit", "mask"]);
    assert_eq!(code(&stopped), 1);
}

#[test]
fn missing_inputs_are_reported_and_the_others_are_done() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    photo(&root.join("a.png"), 1);
    fs::create_dir(root.join("empty")).unwrap();
    let cases = [("none.png", "does not exist"), ("*.bmp", "matches no file"), ("empty", "holds no images")];
    for (i, (input, why)) in cases.into_iter().enumerate() {
        let out = root.join(format!("out{i}"));
        let done = segment(&[&root.join(input), &root.join("a.png")], &out, &[]);
        assert_eq!(code(&done), 1, "{input}");
        assert!(stderr(&done).contains(why), "{input}: {}", stderr(&done));
        assert!(out.join("a.mask.png").exists() && out.join("a.overlay.png").exists(), "{input}");
        let alone = segment(&[&root.join(input)], &root.join("alone"), &[]);
        assert_eq!((code(&alone), root.join("alone").exists()), (1, false), "{input}");
    }
}

#[test]
fn wrong_usage_fails_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (photo_path, out) = (folder.path().join("a.png"), folder.path().join("out"));
    photo(&photo_path, 1);
    let cases: [(&[&str], &str); 17] = [
        (&["--emit", "labelid"], "no label ids"), // the test network's data set has none
        (&["--emit", "masks"], "invalid value"),
        (&["--alpha", "1.5"], "between 0 and 1"),
        (&["--reject-below", "nan"], "between 0 and 1"),
        (&["--size", "big"], "WIDTHxHEIGHT"),
        (&["--size", "0x5"], "WIDTHxHEIGHT"),
        (&["--device", "gpu"], "unknown device; expected auto"),
        (&["--precision", "f64"], "f64"),
        (&["--batch", "0"], "0 is not in"),
        (&["--threads", "-1"], "unexpected argument"),
        (&["--threads", "1025"], "1025 is not in 0..=1024"),
        (&["--pad", "0"], "a multiple of 1 to 256"),
        (&["--pad", "yes"], "expected `none`"),
        (&["--resume", "--overwrite"], "cannot be used with"),
        (&["--weights", "slim-cityscapes"], "rtformer pull slim-cityscapes"),
        (&["--colour"], "unexpected argument"),
        (&["-q", "-v"], "cannot be used with"),
    ];
    for (flags, why) in cases {
        let mut command = rtformer(&["segment", "--out"]);
        command.arg(&out).arg(&photo_path).env("RTFORMER_CACHE", folder.path());
        if flags[0] != "--weights" {
            command.args(["--weights", TINY]);
        }
        let done = command.args(flags).output().unwrap();
        assert_eq!(code(&done), 2, "{flags:?}: {}", stderr(&done));
        assert!(stderr(&done).contains(why), "{flags:?}: {}", stderr(&done));
        assert!(!out.exists(), "{flags:?}");
    }
    for arguments in [&["segment"][..], &["segment", "a.png"], &["nonsense"], &[]] {
        assert_eq!(code(&rtformer(arguments).output().unwrap()), 2, "{arguments:?}");
    }
    // A device that is not available is not replaced by another.
    for device in ["metal", "cuda:99"] {
        let done = segment(&[&photo_path], &out, &["--device", device]);
        assert_eq!(code(&done), 2);
        assert!(stderr(&done).contains(device), "{}", stderr(&done));
    }
}

#[test]
fn outputs_that_cannot_be_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    photos(&root.join("in"), 2);
    fs::write(root.join("file"), "in the way").unwrap();
    let done = segment(&[&root.join("in")], &root.join("file"), &[]);
    assert_eq!(code(&done), 1);
    assert!(stderr(&done).contains("file") && stderr(&done).contains("cannot be written"), "{}", stderr(&done));

    // If a mask's name is that of a folder, only that photo fails.
    let out = root.join("out");
    fs::create_dir_all(out.join("0000.mask.png/x")).unwrap();
    let done = segment(&[&root.join("in")], &out, &["--emit", "mask", "--overwrite"]);
    assert_eq!(code(&done), 1);
    assert!(stderr(&done).contains("0000.mask.png: cannot be written"), "{}", stderr(&done));
    assert_eq!(tree(&out).into_keys().collect::<Vec<_>>(), ["0001.mask.png"]);
}

/// A photo that needs more memory than is available fails with a message that says so. The others are done.
#[cfg(target_os = "linux")]
#[test]
fn a_photo_that_does_not_fit_into_memory_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("in"), folder.path().join("out"));
    photos(&root, 4);
    // 20 megapixels: 60 MB of pixels, and 320 MB for the first feature map alone.
    image::RgbImage::from_pixel(5120, 4096, image::Rgb([90, 120, 200])).save(root.join("0001b.png")).unwrap();
    let script = format!(
        "ulimit -v 600000; exec '{}' segment --weights '{TINY}' --threads 1 --device cpu -o '{}' '{}' --emit mask",
        env!("CARGO_BIN_EXE_rtformer"),
        out.display(),
        root.display()
    );
    // Limits the C library's memory pools, which reserve address space for each thread.
    let done = Command::new("sh").args(["-c", &script]).env("MALLOC_ARENA_MAX", "1").output().unwrap();
    let said = stderr(&done);
    assert_eq!(code(&done), 1, "{said}");
    let line = said.lines().find(|line| line.contains("0001b.png")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("out of memory") && line.contains("MiB") && !line.contains("report"), "{line}");
    assert_eq!(tree(&out).len(), 4, "{said}");
}

/// A limit on the file size makes a write fail half-way, like a full disk.
#[cfg(unix)]
#[test]
fn a_write_that_fails_half_way_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path(), folder.path().join("out"));
    photos(&root.join("in"), 3);
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec '{}' segment --weights '{TINY}' -o '{}' '{}' --emit mask,logits",
        env!("CARGO_BIN_EXE_rtformer"),
        out.display(),
        root.join("in").display()
    );
    let done = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(code(&done), 1, "{}", stderr(&done));
    assert_eq!(stderr(&done).matches(".logits.npy: cannot be written").count(), 3, "{}", stderr(&done));
    assert_eq!(tree(&out).into_keys().collect::<Vec<_>>(), ["0000.mask.png", "0001.mask.png", "0002.mask.png"]);
}

#[test]
fn existing_outputs_are_kept_resumed_or_replaced_as_requested() {
    let folder = tempfile::tempdir().unwrap();
    let (root, out) = (folder.path().join("in"), folder.path().join("out"));
    photos(&root, 4);
    assert_eq!(code(&segment(&[&root], &out, &[])), 0);
    let whole = tree(&out);
    let refused = segment(&[&root], &out, &[]);
    assert_eq!(code(&refused), 2);
    assert!(stderr(&refused).contains("--resume") && stderr(&refused).contains("7 more"), "{}", stderr(&refused));

    fs::remove_file(out.join("0002.overlay.png")).unwrap();
    fs::write(out.join(".rtformer-abc.part"), "half").unwrap();
    let resumed = segment(&[&root], &out, &["--resume", "--json"]);
    assert_eq!(code(&resumed), 0);
    let reports = lines(&resumed);
    assert_eq!(reports.len(), 1, "only the photo that lacks an output");
    assert!(reports[0]["path"].as_str().unwrap().ends_with("0002.png"));
    assert_eq!(tree(&out), whole, "the temporary file is removed");

    assert_eq!(code(&segment(&[&root], &out, &["--overwrite"])), 0);
    assert_eq!(tree(&out), whole);
}

#[test]
fn two_photos_never_share_an_output() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    photo(&root.join("x/a.png"), 1);
    photo(&root.join("x/a.bmp"), 2);
    photo(&root.join("y/a.png"), 3);
    let out = root.join("out");
    let done = segment(&[&root.join("x"), &root.join("y")], &out, &["--emit", "overlay"]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let overlays: std::collections::BTreeSet<_> = tree(&out).into_values().collect();
    assert_eq!(overlays.len(), 3);
}

#[test]
fn standard_input_is_a_photo() {
    let folder = tempfile::tempdir().unwrap();
    photo(&folder.path().join("a.png"), 1);
    let run = |file: &str, out: &Path| {
        let mut command = rtformer(&["segment", "-", "--weights", TINY, "--json", "--out"]);
        command.arg(out).stdin(fs::File::open(folder.path().join(file)).unwrap()).output().unwrap()
    };
    let done = run("a.png", &folder.path().join("out"));
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    assert_eq!(
        tree(&folder.path().join("out")).into_keys().collect::<Vec<_>>(),
        ["stdin.mask.png", "stdin.overlay.png"]
    );
    assert_eq!(lines(&done)[0]["path"], "-");
    fs::write(folder.path().join("b"), "no photo").unwrap();
    let failed = run("b", &folder.path().join("none"));
    assert_eq!(code(&failed), 1);
    assert!(stderr(&failed).contains("-: is not an image"), "{}", stderr(&failed));
}

#[test]
fn a_dry_run_writes_nothing_and_json_needs_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("in"), 2);
    let out = folder.path().join("out");
    let done = segment(&[&folder.path().join("in")], &out, &["--dry-run"]);
    assert_eq!((code(&done), out.exists()), (0, false));
    assert_eq!(String::from_utf8_lossy(&done.stdout).lines().count(), 2);
    assert!(String::from_utf8_lossy(&done.stdout).contains("0001.overlay.png"));

    let printed =
        rtformer(&["segment", "--weights", TINY, "--json", "-q"]).arg(folder.path().join("in")).output().unwrap();
    assert_eq!((code(&printed), lines(&printed).len(), stderr(&printed)), (0, 2, String::new()));
}

#[test]
fn pixels_below_the_threshold_become_the_ignore_id() {
    let folder = tempfile::tempdir().unwrap();
    photo(&folder.path().join("a.png"), 1);
    let share = |below: &str| {
        let out = tempfile::tempdir().unwrap();
        let done = segment(&[&folder.path().join("a.png")], out.path(), &["--reject-below", below, "--json"]);
        let report = &lines(&done)[0];
        let classes: f64 = report["classes"].as_array().unwrap().iter().map(|c| c["share"].as_f64().unwrap()).sum();
        let rejected = report["rejected"].as_f64().unwrap();
        assert!((classes + rejected - 1.0).abs() < 1e-9);
        rejected
    };
    let (none, some, more) = (share("0"), share("0.6"), share("0.9"));
    assert!(none == 0.0 && none < some && some < more, "{none} {some} {more}");
}

/// `--pad` has the same effect as the library's `Builder::pad`.
#[test]
fn photos_are_padded_as_requested() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    photo(&path, 1);
    let digest = |flags: &[&str]| {
        let mut command = rtformer(&["segment", "--weights", TINY, "--json", "-q", "--device", "cpu"]);
        let done = command.arg(&path).args(flags).output().unwrap();
        assert_eq!(code(&done), 0, "{}", stderr(&done));
        lines(&done)[0]["digest"].as_str().unwrap().to_owned()
    };
    let library = |padding| {
        let builder = rtformer::Segmenter::builder().weights(TINY).device(rtformer::Device::Cpu).pad(padding);
        builder.build().unwrap().segment(&rtformer::Image::open(&path).unwrap()).unwrap().mask().digest()
    };
    assert_eq!(digest(&["--pad", "64"]), library(rtformer::Padding::Multiple(64)));
    assert_eq!(digest(&["--pad", "none"]), library(rtformer::Padding::None));
    assert_eq!(digest(&[]), digest(&["--pad", "none"]), "these weights do not set padding");
    assert_ne!(digest(&["--pad", "64"]), digest(&[]));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_complete_files_and_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("in");
    photos(&root, 400);
    let whole = tempfile::tempdir().unwrap();
    assert_eq!(code(&segment(&[&root], whole.path(), &["-q"])), 0);
    for signal in [interrupt(), "KILL"] {
        let out = folder.path().join(signal);
        let mut command = rtformer(&["segment", "--weights", TINY, "-q", "--out"]);
        let mut running = command.arg(&out).arg(&root).spawn().unwrap();
        while !out.join("0004.overlay.png").exists() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        kill(signal, &running);
        let status = running.wait().unwrap();
        assert_eq!(status.code(), (signal != "KILL").then_some(130));
        let left = tree(&out);
        assert!(left.len() < 800, "the run was stopped early");
        for (name, bytes) in &left {
            let expected = tree(whole.path());
            // A killed program cannot remove its unfinished files, which have temporary names.
            assert!(expected.get(name) == Some(bytes) || signal == "KILL" && name.contains(".rtformer-"), "{name}");
        }
        let resumed = segment(&[&root], &out, &["--resume", "--json", "-q"]);
        assert_eq!(code(&resumed), 0);
        assert!(lines(&resumed).len() < 400, "finished photos are not segmented again");
        assert!(tree(&out) == tree(whole.path()), "no output is missing, and no other file is left");
    }
}
