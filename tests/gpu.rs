//! CUDA. On a machine with an NVIDIA GPU, runs every kernel's table on it, whole networks against the reference, and the shipped weights
//! on photos. On any machine, runs whole networks through the same kernels, compiled by the C++ compiler and emulated (the tables are in
//! the kernels' own tests).
//!
//! Without a GPU, a test that needs one prints `skipped: no CUDA device` and passes; with `RTFORMER_REQUIRE=cuda` it fails instead.

mod network;

use rtformer::backend::GpuElement;
use rtformer::pixels::{Image, Mask};
use rtformer::{Device, Precision, Segmenter};
use rtformer_kernels::gpu::Cuda;
use rtformer_kernels::gpu::emulated::Emulated;
use rtformer_kernels::tables;

/// The first GPU. Returns `None` and prints a line if there is none.
fn device() -> Option<Cuda> {
    match Cuda::open(0) {
        Ok(device) => Some(device),
        Err(e) => {
            assert!(std::env::var_os("RTFORMER_REQUIRE").is_none_or(|wanted| wanted != "cuda"), "{e}");
            println!("skipped: no CUDA device ({e})");
            None
        }
    }
}

#[test]
fn kernels_agree_with_their_definitions() {
    let Some(device) = device() else { return };
    for element in [GpuElement::F32, GpuElement::F16] {
        for (name, table) in tables::all() {
            println!("{name} in {}", element.suffix());
            table(&device, element);
        }
    }
}

#[test]
fn networks_on_the_gpu_are_the_reference() {
    let Some(device) = device() else { return };
    network::is_the_reference(&device);
    network::is_near_in_f16(device);
}

/// Runs the tests that need a GPU with a stand-in for the driver, which checks its calls strictly.
#[test]
fn what_needs_a_gpu_passes_on_a_stand_in_for_the_driver() {
    let Some(folder) = Emulated::driver() else { return };
    for order in ["late", "early", "1"] {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "kernels_agree_with_their_definitions", "networks_on_the_gpu_are_the_reference"]);
        child.env("LD_LIBRARY_PATH", &folder).env("RTFORMER_STAND_IN", format!("order={order}"));
        let output = child.env("RTFORMER_REQUIRE", "cuda").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{order}: {}{}", text(&output.stdout), text(&output.stderr));
        assert!(text(&output.stdout).contains("2 passed"), "{}", text(&output.stdout));
    }
}

#[test]
fn emulated_networks_are_the_reference() {
    let Some(device) = Emulated::cuda() else { return };
    network::is_the_reference(&device);
}

#[test]
fn emulated_networks_in_f16_are_near() {
    let Some(device) = Emulated::cuda() else { return };
    network::is_near_in_f16(device);
}

fn photos() -> Vec<Image> {
    let folder = network::data("street/0016E5");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| Image::open(path).unwrap()).collect()
}

fn masks(segmenter: &Segmenter, photos: &[Image]) -> Vec<Mask> {
    photos.iter().map(|photo| segmenter.segment(photo).unwrap().mask().clone()).collect()
}

/// The share of all pixels that have the same class.
fn agreement(a: &[Mask], b: &[Mask]) -> f64 {
    let pairs = || a.iter().zip(b).flat_map(|(a, b)| a.iter().zip(b.iter()));
    pairs().filter(|(a, b)| a == b).count() as f64 / pairs().count() as f64
}

#[test]
fn the_shipped_weights_give_the_masks_of_the_cpu_and_nearly_so_in_f16() {
    if device().is_none() {
        return;
    }
    let of = |device, precision| Segmenter::builder().device(device).precision(precision).build().unwrap();
    let photos = photos();
    let exact = masks(&of(Device::Cpu, Precision::F32), &photos);
    let single = agreement(&masks(&of(Device::Cuda(0), Precision::F32), &photos), &exact);
    let half = agreement(&masks(&of(Device::Cuda(0), Precision::F16), &photos), &exact);
    println!("{:.4} % of the pixels in f32, {:.4} % in f16", 100.0 * single, 100.0 * half);
    assert!(single >= 0.9999 && half >= 0.995, "{single}, {half}");
}

#[test]
fn threads_share_a_gpu_with_a_segmenter_each_or_one_for_all() {
    if device().is_none() {
        return;
    }
    let photos = photos();
    let open = || Segmenter::embedded(Device::Cuda(0)).unwrap();
    let shared = open();
    let want = masks(&shared, &photos);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert!(masks(&open(), &photos) == want, "each thread has its own segmenter"));
            scope.spawn(|| assert!(masks(&shared, &photos) == want, "the threads share a segmenter"));
        }
    });
}
