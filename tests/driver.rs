//! Runs the program and the library on `--device cuda` on a machine without a GPU, with the driver's own calls. Child processes find a
//! stand-in for NVIDIA's driver (`kernels/gpu/emulated/driver.cpp`), which runs the emulated kernels, ends a process that misuses it with
//! code 70, and fails on request.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rtformer::pixels::{Image, Mask};
use rtformer::{Device, Precision, Segmenter};
use rtformer_kernels::gpu::emulated::Emulated;

/// Random weights of a tiny network with five classes; a photo takes a moment.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/tiny.safetensors");
/// When the stand-in runs queued work: as late as possible, at once, or at random times.
const ORDERS: [&str; 3] = ["late", "early", "7"];

/// Runs `segment` with the stand-in, whose behaviour `pretends` changes.
fn segment_on(device: &str, driver: &Path, pretends: &str, photos: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtformer"));
    command.env("LD_LIBRARY_PATH", driver).env("RTFORMER_STAND_IN", pretends).stdin(Stdio::null());
    command.args(["segment", "--device", device, "--emit", "mask", "--out"]).arg(out).args(more).arg(photos);
    command
}

/// In f32, which the emulation runs fastest.
fn segment(driver: &Path, pretends: &str, photos: &Path, out: &Path, more: &[&str]) -> Command {
    segment_on("cuda", driver, pretends, photos, out, &[&["--precision", "f32"], more].concat())
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("killed by a signal: {}", stderr(output)))
}

/// Small photos, each a part of another street scene: four of one size, then two of another.
fn photos(folder: &Path) {
    let street = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/street/0016E5");
    let mut scenes: Vec<PathBuf> = fs::read_dir(street).unwrap().map(|entry| entry.unwrap().path()).collect();
    scenes.sort();
    let scenes: Vec<_> = scenes.iter().map(|path| image::open(path).unwrap().to_rgb8()).collect();
    for (i, (width, height)) in [(64, 48), (64, 48), (64, 48), (64, 48), (40, 56), (40, 56)].into_iter().enumerate() {
        let scene = &scenes[i % scenes.len()];
        let (x, y) = (37 * i as u32 % (scene.width() - width), 29 * i as u32 % (scene.height() - height));
        let path = folder.join(format!("{i}.png"));
        image::imageops::crop_imm(scene, x, y, width, height).to_image().save(path).unwrap();
    }
}

fn opened(folder: &Path) -> Vec<Image> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| Image::open(path).unwrap()).collect()
}

/// Every file in a folder with its bytes; empty if there is no folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// The share of all pixels of the masks that have the same class.
fn agreement(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>) -> f64 {
    assert!(a.keys().eq(b.keys()), "{:?}, {:?}", a.keys(), b.keys());
    let pixels = |files: &BTreeMap<String, Vec<u8>>| -> Vec<[u8; 3]> {
        let pictures = files.values().map(|file| image::load_from_memory(file).unwrap().to_rgb8());
        pictures.flat_map(|picture| picture.pixels().map(|pixel| pixel.0).collect::<Vec<_>>()).collect()
    };
    let (a, b) = (pixels(a), pixels(b));
    a.iter().zip(&b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

#[test]
fn the_shipped_weights_give_the_masks_of_the_cpu() {
    let Some(driver) = Emulated::driver() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (input, at) = (folder.path().join("in"), |name: &str| folder.path().join(name));
    fs::create_dir(&input).unwrap();
    photos(&input);
    let run = |name: &str, pretends: &str, more: &[&str]| {
        let output = segment_on("cuda", &driver, pretends, &input, &at(name), more).output().unwrap();
        assert_eq!(code(&output), 0, "{name}: {}", stderr(&output));
        files(&at(name))
    };
    let want = segment_on("cpu", &driver, "", &input, &at("cpu"), &[]).output().unwrap();
    assert_eq!(code(&want), 0, "{}", stderr(&want));
    let want = files(&at("cpu"));
    assert_eq!(want.len(), 6);
    let exact = run("late", "order=late", &["--precision", "f32"]);
    let single = agreement(&exact, &want);
    assert!(
        run("batch", "order=early", &["--precision", "f32", "--batch", "3"]) == exact,
        "a batch gives the same masks as single photos"
    );
    // A GPU with another number of multiprocessors uses other kernels; an older one uses other PTX.
    let half = agreement(&run("half", "order=7,capability=75", &["--precision", "f16"]), &want);
    println!("{:.3} % of the pixels in f32, {:.3} % in f16", 100.0 * single, 100.0 * half);
    assert!(single >= 0.9995 && half >= 0.98, "{single}, {half}");
}

#[test]
fn bench_measures_cuda_and_auto_selects_it() {
    let Some(driver) = Emulated::driver() else { return };
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtformer"));
        let output =
            command.args(arguments).args(["--weights", TINY]).env("LD_LIBRARY_PATH", &driver).output().unwrap();
        assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
        (String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output))
    };
    let bench = ["bench", "--device", "cuda", "--precision", "f32", "--size", "64x48", "--runs", "2", "--profile"];
    let (table, _) = run(&bench);
    for word in ["cuda:0", "frame", "conv1.0", "between"] {
        assert!(table.contains(word), "no `{word}` in {table}");
    }
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path());
    let (photo, out) = (folder.path().join("0.png"), folder.path().join("out"));
    let (_, said) = run(&["segment", "--device", "auto", "--out", out.to_str().unwrap(), photo.to_str().unwrap()]);
    assert!(said.contains("cuda:0"), "{said}");
}

#[test]
fn processes_share_a_gpu() {
    let Some(driver) = Emulated::driver() else { return };
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    fs::create_dir(&input).unwrap();
    photos(&input);
    let out = |i: usize| folder.path().join(i.to_string());
    let start = |i: usize| -> Child {
        let mut command = segment(&driver, "order=3", &input, &out(i), &["--weights", TINY]);
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..3).map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    assert!(files(&out(0)).len() == 6 && files(&out(0)) == files(&out(1)) && files(&out(1)) == files(&out(2)));
}

/// Runs itself as a child process with the stand-in.
#[test]
fn threads_share_a_gpu_with_a_segmenter_each_or_one_for_all() {
    const SELF: &str = "threads_share_a_gpu_with_a_segmenter_each_or_one_for_all";
    if let Some(input) = std::env::var_os("RTFORMER_TEST_PHOTOS") {
        return share_among_threads(&opened(Path::new(&input)));
    }
    let Some(driver) = Emulated::driver() else { return };
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path());
    for order in ORDERS {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", SELF])
            .env("RTFORMER_TEST_PHOTOS", folder.path())
            .env("LD_LIBRARY_PATH", &driver)
            .env("RTFORMER_STAND_IN", format!("order={order}"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{order}: {said}{}", stderr(&output));
    }
}

fn share_among_threads(photos: &[Image]) {
    let open = |precision| {
        Segmenter::builder()
            .weights(TINY)
            .device(Device::Cuda(0))
            .precision(precision)
            .confidence(true)
            .build()
            .unwrap()
    };
    let run = |segmenter: &Segmenter, photo: &Image| -> (Mask, Vec<f32>) {
        let scene = segmenter.segment(photo).unwrap();
        (scene.mask().clone(), scene.confidence().unwrap().to_vec())
    };
    // The emulation is slowest with tensor cores: for those, use one photo of each size.
    for (precision, photos) in [(Precision::F32, photos), (Precision::F16, &photos[3..5])] {
        let shared = open(precision);
        let want: Vec<_> = photos.iter().map(|photo| run(&shared, photo)).collect();
        std::thread::scope(|scope| {
            for first in [0, 2, 5] {
                let (open, run, shared, want) = (&open, &run, &shared, &want);
                scope.spawn(move || {
                    let own = open(precision);
                    // Each thread begins with another photo, and returns to sizes that it has used before.
                    for i in (first..first + photos.len()).map(|i| i % photos.len()) {
                        assert!(run(shared, &photos[i]) == want[i], "a shared segmenter, photo {i} in {precision}");
                        assert!(
                            first > 0 || run(&own, &photos[i]) == want[i],
                            "the thread's own segmenter, photo {i} in {precision}"
                        );
                    }
                });
            }
        });
    }
}

#[test]
fn an_unusable_gpu_is_an_error_that_says_what_to_do() {
    let Some(driver) = Emulated::driver() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/photo.png");
    let cases: [(&str, &[&str]); 9] = [
        ("version=11080", &["CUDA 11.8", "12.2", "535", "--device cpu"]),
        ("devices=0", &["no GPU", "CUDA_VISIBLE_DEVICES", "--device cpu"]),
        ("capability=61", &["Stand-in 0", "6.1", "7.5", "--device cpu"]),
        ("memory=200000", &["bytes of device memory", "were free", "smaller size"]),
        ("pinned=1000", &["bytes of pinned host memory", "smaller size"]),
        ("fail=cuInit:803", &["restart the machine"]),
        ("fail=cuDevicePrimaryCtxRetain:46", &["another process uses the GPU"]),
        ("fail=cuModuleLoadDataEx:222", &["cannot compile our kernels", "newer"]),
        ("lost_after=0", &["device was lost", "CUDA_ERROR_LAUNCH_FAILED", "--device cpu"]),
    ];
    for (pretends, words) in cases {
        let output = segment(&driver, pretends, &photo, &out, &["--weights", TINY]).output().unwrap();
        let said = stderr(&output);
        // A fault that shows only with the first frame fails the photo; the device itself was usable.
        let late = ["lost", "Module", "pinned"].iter().any(|what| pretends.contains(what));
        assert_eq!(code(&output), if late { 1 } else { 2 }, "{pretends}: {said}");
        assert!(said.contains("device `cuda:0`: "), "{pretends}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{pretends}: {said}");
        assert!(files(&out).is_empty(), "{pretends}");
    }
    let second = segment_on("cuda:1", &driver, "", &photo, &out, &[]).output().unwrap();
    assert_eq!(code(&second), 2);
    assert!(stderr(&second).contains("there is no GPU 1; the driver shows 1"), "{}", stderr(&second));
    // With `auto`, a GPU that cannot be used is reported and not used.
    let output = segment_on("auto", &driver, "devices=0", &photo, &out, &[]).output().unwrap();
    assert!(code(&output) == 0 && stderr(&output).contains("the NVIDIA GPU cannot be used: "), "{}", stderr(&output));
}

#[test]
fn every_gpu_is_listed() {
    let Some(driver) = Emulated::driver() else { return };
    // Lists every GPU that the driver shows, except those that are too old.
    for (pretends, want) in [
        ("devices=3", &["cuda:0", "cuda:1", "cuda:2", "cpu", "reference"][..]),
        ("devices=2,capability=61", &["cpu", "reference"]),
        ("devices=0", &["cpu", "reference"]),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rtformer"));
        command.args(["info", "--json"]).env("LD_LIBRARY_PATH", &driver).env("RTFORMER_STAND_IN", pretends);
        let output = command.output().unwrap();
        assert_eq!(code(&output), 0, "{pretends}: {}", stderr(&output));
        let info: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let devices = info["devices"].as_array().unwrap();
        let devices: Vec<_> = devices.iter().filter_map(|name| name.as_str()).filter(|name| *name != "metal").collect();
        assert_eq!(devices, want, "{pretends}");
    }
}

#[test]
fn a_library_that_lacks_a_call_is_not_a_driver() {
    let Some(driver) = Emulated::driver() else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["kernels.so", "libcuda.so.1"] {
        fs::copy(driver.join(name), folder.path().join(name)).unwrap();
    }
    let mut library = fs::read(driver.join("libcuda.so")).unwrap();
    let name = b"\0cuGraphLaunch\0";
    let at = library.windows(name.len()).position(|bytes| bytes == name).expect("the name is in the table of names");
    library[at + 1] = b'x';
    fs::write(folder.path().join("libcuda.so"), library).unwrap();
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/photo.png");
    let output = segment(folder.path(), "", &photo, &folder.path().join("out"), &[]).output().unwrap();
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("has no `cuGraphLaunch`") && said.contains("535"), "{said}");
}

/// Whenever the GPU is lost, files are complete or absent, and every photo without a file is reported as failed.
#[test]
fn a_gpu_lost_midway_fails_the_remaining_photos() {
    let Some(driver) = Emulated::driver() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (input, at) = (folder.path().join("in"), |name: &str| folder.path().join(name));
    fs::create_dir(&input).unwrap();
    photos(&input);
    let run = |name: &str, pretends: &str| {
        segment(&driver, pretends, &input, &at(name), &["--weights", TINY, "--batch", "1"]).output().unwrap()
    };
    let whole = run("whole", "");
    assert_eq!(code(&whole), 0, "{}", stderr(&whole));
    let want = files(&at("whole"));
    let mut counts = Vec::new();
    for launches in [3, 150, 290, 420] {
        let name = launches.to_string();
        // An uncorrectable memory error also loses the device.
        let lost = if launches == 290 { 214 } else { 719 };
        let output = run(&name, &format!("lost_after={launches},lost={lost}"));
        let (got, said) = (files(&at(&name)), stderr(&output));
        assert_eq!(code(&output), 1, "{said}");
        assert!(got.iter().all(|(name, bytes)| want.get(name) == Some(bytes)), "{:?}", got.keys());
        assert!(said.contains("the device was lost") && said.contains("--device cpu"), "{said}");
        let failed = want.len() - got.len();
        assert!(said.contains(&format!("{failed} failed")), "{said}");
        let named = |photo: &String| said.contains(&photo.replace(".mask", ""));
        assert!(want.keys().filter(|photo| !got.contains_key(*photo)).all(named), "{said}");
        counts.push(got.len());
    }
    assert!(counts.is_sorted() && counts[0] == 0 && counts[3] > 0, "{counts:?}");
}

/// A frame that does not fit fails its photo, with the needed and the free memory; smaller photos still succeed.
#[test]
fn a_photo_that_does_not_fit_into_memory_fails_alone() {
    let Some(driver) = Emulated::driver() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir(&input).unwrap();
    let photo = |name: &str, width, height| {
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]))
            .save(input.join(name))
            .unwrap();
    };
    photo("0.png", 64, 48);
    photo("1.png", 1024, 1024);
    photo("2.png", 64, 48);
    let output = segment(&driver, "memory=4000000", &input, &out, &["--weights", TINY]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.contains("bytes of device memory") && said.contains("were free"), "{said}");
    assert_eq!(files(&out).keys().collect::<Vec<_>>(), ["0.mask.png", "2.mask.png"], "{said}");
}

/// If frames of one size leave no pinned memory for another size, their memory is freed and the photo is tried once more.
#[test]
fn pinned_memory_of_other_sizes_is_freed_when_it_is_short() {
    let Some(driver) = Emulated::driver() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir(&input).unwrap();
    photos(&input);
    // A frame of 64x48 needs 12 KB for its bytes and ids, one of 40x56 needs 9.5 KB: both do not fit.
    let output = segment(&driver, "pinned=16000", &input, &out, &["--weights", TINY, "--batch", "1"]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(files(&out).len(), 6);
}
