//! Metal: on a Mac the kernels on its GPU, elsewhere compiled by the C++ compiler and emulated. First each kernel's table, then whole
//! networks against the reference.

mod network;

use rtformer::backend::GpuElement;
use rtformer_kernels::gpu::tables;

#[cfg(target_os = "macos")]
use rtformer_kernels::gpu::Metal as Device;
#[cfg(not(target_os = "macos"))]
use rtformer_kernels::gpu::emulated::Emulated as Device;

/// The GPU; or none, and a line that says so.
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

#[test]
fn metal_kernels_agree_with_their_definitions() {
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
