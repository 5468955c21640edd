//! Opens the GPU of a Mac.

use rtformer_kernels::gpu::{GpuElement, Metal};

use super::Gpu;
use crate::error::{Error, Result};

/// The GPU of this Mac, with maps stored as `element`.
///
/// # Errors
/// [`Error::Device`] if there is none, or if it rejects the kernels.
pub fn metal(element: GpuElement) -> Result<Gpu<Metal>> {
    let device = Metal::new().map_err(|e| Error::Device { device: "metal".into(), reason: e.to_string() })?;
    Ok(Gpu::new(device, "metal", element))
}
