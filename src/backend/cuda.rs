//! Opens NVIDIA GPUs.

use rtformer_kernels::gpu::{Cuda, GpuElement};

use super::Gpu;
use crate::error::{Error, Result};

/// The NVIDIA GPU `number`, with maps stored as `element`.
///
/// ```
/// use rtformer::backend::{GpuElement, cuda};
///
/// match cuda(0, GpuElement::F16) {
///     Ok(gpu) => println!("{}", gpu.device_name()),
///     Err(error) => assert!(error.to_string().starts_with("device `cuda:0`: "), "says what is missing"),
/// }
/// ```
///
/// # Errors
/// [`Error::Device`] if there is no driver or no such GPU, or if either is too old. The text says what to do.
pub fn cuda(number: usize, element: GpuElement) -> Result<Gpu<Cuda>> {
    let name = format!("cuda:{number}");
    let device = Cuda::open(number).map_err(|e| Error::Device { device: name.clone(), reason: e.to_string() })?;
    Ok(Gpu::new(device, name, element))
}

/// The numbers of the NVIDIA GPUs that can be opened.
pub(crate) fn cuda_numbers() -> impl Iterator<Item = usize> {
    (0..Cuda::count().unwrap_or(0)).filter(|&number| Cuda::probe(number).is_ok())
}

/// Checks for this GPU. The error holds the reason if a driver is installed.
pub(crate) fn has_cuda(number: usize) -> Result<(), Option<String>> {
    Cuda::probe(number).map_err(|e| Cuda::has_driver().then(|| e.to_string()))
}
