//! Metal. On a Mac, runs every kernel's table on its GPU, whole networks against the reference, and the shipped weights on photos.
//! Elsewhere, runs whole networks through the same kernels, compiled by the C++ compiler and emulated (the kernels' own tests run the
//! tables under emulation).

mod network;

#[cfg(target_os = "macos")]
use rtformer_kernels::gpu::Metal as Device;
#[cfg(not(target_os = "macos"))]
use rtformer_kernels::gpu::emulated::Emulated as Device;

/// The GPU. Returns `None` and prints a line if there is none.
fn device() -> Option<Device> {
    #[cfg(not(target_os = "macos"))]
    return Device::metal();
    #[cfg(target_os = "macos")]
    match Device::new() {
        Ok(device) => Some(device),
        Err(e) => {
            assert!(std::env::var_os("RTFORMER_REQUIRE").is_none_or(|device| device != "metal"), "{e}");
            println!("SKIPPED: {e}");
            None
        }
    }
}

#[cfg(target_os = "macos")]
#[test]
fn metal_kernels_agree_with_their_definitions() {
    use rtformer::backend::GpuElement;
    use rtformer_kernels::tables;

    let Some(device) = device() else { return };
    for element in [GpuElement::F32, GpuElement::F16] {
        for (_, table) in tables::all() {
            table(&device, element);
        }
    }
}

#[test]
fn a_network_on_metal_is_the_reference() {
    let Some(device) = device() else { return };
    network::is_the_reference(&device);
}

#[test]
fn a_network_on_metal_in_f16_is_near() {
    let Some(device) = device() else { return };
    network::is_near_in_f16(device);
}

/// Uses photos of one size, so that all but the first run as recorded work.
#[cfg(target_os = "macos")]
#[test]
fn the_shipped_weights_on_metal_give_the_masks_of_the_cpu_and_nearly_so_in_f16() {
    use rtformer::pixels::Image;
    use rtformer::{Device, Precision, Segmenter};

    if device().is_none() {
        return;
    }
    let street = std::fs::read_dir(network::data("street/0016E5")).unwrap();
    let photos: Vec<_> = street.map(|entry| Image::open(entry.unwrap().path()).unwrap()).collect();
    let of = |device, precision| Segmenter::builder().device(device).precision(precision).build().unwrap();
    let cpu = of(Device::Cpu, Precision::F32);
    for (precision, least) in [(Precision::F32, 0.9999), (Precision::F16, 0.995)] {
        let metal = of(Device::Metal, precision);
        for photo in &photos {
            let (got, want) = (metal.segment(photo).unwrap(), cpu.segment(photo).unwrap());
            let same = got.mask().iter().zip(want.mask().iter()).filter(|(a, b)| a == b).count();
            let share = same as f64 / got.mask().iter().count() as f64;
            println!("{:.4} % of the pixels in {precision}", 100.0 * share);
            assert!(share >= least, "{share} in {precision}");
        }
    }
}
