//! The driver's calls: whether they are available, and what their error codes mean and what to do about them.

use std::ffi::{CStr, c_char, c_int, c_void};

use cudarc::driver::sys::{self, CUresult};

use crate::gpu::GpuError;

/// The oldest driver that reads PTX 8.2, which our kernels are compiled to: CUDA 12.2, release 535.
const OLDEST: i32 = 12_020;

/// The calls that this module and its neighbours use. All are older than [`OLDEST`]; a library that lacks one is not a valid driver.
const CALLS: [&str; 33] = [
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventRecordWithFlags",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuModuleGetFunction",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
];

/// Whether a library with the driver's name exists.
pub(super) fn is_there() -> bool {
    // SAFETY: loads libraries with the driver's names, as every program that uses the driver does.
    unsafe { sys::is_culib_present() }
}

/// Finds and initialises the driver; returns its number of GPUs.
pub(super) fn start() -> Result<c_int, GpuError> {
    if !is_there() {
        return Err(GpuError::Missing(format!("no NVIDIA driver found; install release {}", newest_hint())));
    }
    // SAFETY: the library can be loaded, so `culib` does not panic; symbols are looked up but not called.
    let lacks = CALLS.iter().find(|call| unsafe { sys::culib().get::<*const c_void>(call.as_bytes()) }.is_err());
    if let Some(call) = lacks {
        let hint = newest_hint();
        return Err(GpuError::Missing(format!("the NVIDIA driver has no `{call}`; install release {hint}")));
    }
    let (mut version, mut count) = (0, 0);
    // SAFETY: both calls write one int, and the second runs after `cuInit`.
    unsafe {
        check("cuDriverGetVersion", sys::cuDriverGetVersion(&raw mut version))?;
        new_enough(version)?;
        check("cuInit", sys::cuInit(0))?;
        check("cuDeviceGetCount", sys::cuDeviceGetCount(&raw mut count))?;
    }
    Ok(count)
}

fn newest_hint() -> &'static str {
    "535 or newer, or use `--device cpu`"
}

fn new_enough(version: i32) -> Result<(), GpuError> {
    if version >= OLDEST {
        return Ok(());
    }
    let (major, minor) = (version / 1000, version % 1000 / 10);
    let hint = newest_hint();
    Err(GpuError::Missing(format!(
        "the NVIDIA driver supports CUDA {major}.{minor}, expected at least 12.2; install release {hint}"
    )))
}

/// A device's name.
pub(super) fn name(device: sys::CUdevice) -> Result<String, GpuError> {
    let mut name: [c_char; 128] = [0; 128];
    // SAFETY: the call writes a string of at most 128 bytes, including its terminating zero.
    unsafe {
        check("cuDeviceGetName", sys::cuDeviceGetName(name.as_mut_ptr(), 128, device))?;
        Ok(CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned())
    }
}

/// The value of a device attribute.
pub(super) fn attribute(device: sys::CUdevice, attribute: sys::CUdevice_attribute) -> Result<i32, GpuError> {
    let mut value = 0;
    // SAFETY: the call writes one int.
    check("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) })?;
    Ok(value)
}

/// `Ok`, or the meaning of a call's error code. The caller reports out of memory, because it knows how much was needed.
pub(super) fn check(call: &'static str, code: CUresult) -> Result<(), GpuError> {
    let says = |what: &str| format!("{what} ({code:?} from `{call}`)");
    Err(match code {
        CUresult::CUDA_SUCCESS => return Ok(()),
        CUresult::CUDA_ERROR_NO_DEVICE => {
            GpuError::Missing(says("the NVIDIA driver shows no GPU; check CUDA_VISIBLE_DEVICES, or use `--device cpu`"))
        }
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH | CUresult::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            GpuError::Missing(says(
                "the NVIDIA driver's library and kernel module have different versions; restart the machine",
            ))
        }
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => {
            GpuError::Missing(says("another process uses the GPU exclusively; stop it, or use another GPU"))
        }
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
        | CUresult::CUDA_ERROR_INVALID_PTX => {
            GpuError::Missing(says("the NVIDIA driver cannot compile our kernels; install a newer one"))
        }
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
        | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
        | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUresult::CUDA_ERROR_INVALID_PC
        | CUresult::CUDA_ERROR_LAUNCH_FAILED => GpuError::Lost(format!("{code:?} from `{call}`")),
        _ => GpuError::Driver { call, reason: format!("{code:?}") },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_drivers_are_rejected_with_both_versions() {
        assert!(new_enough(12_020).is_ok() && new_enough(13_010).is_ok());
        let error = new_enough(11_080).unwrap_err().to_string();
        assert!(error.contains("11.8") && error.contains("12.2") && error.contains("535"), "{error}");
    }

    #[test]
    fn every_code_says_what_it_means() {
        assert_eq!(check("cuInit", CUresult::CUDA_SUCCESS), Ok(()));
        let of = |code| check("cuCall", code).unwrap_err();
        for (code, word) in [
            (CUresult::CUDA_ERROR_NO_DEVICE, "CUDA_VISIBLE_DEVICES"),
            (CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, "restart"),
            (CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "newer"),
            (CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE, "another process"),
        ] {
            let error = of(code);
            assert!(matches!(&error, GpuError::Missing(text) if text.contains(word)), "{error}");
        }
        for code in [CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, CUresult::CUDA_ERROR_ECC_UNCORRECTABLE] {
            assert!(matches!(of(code), GpuError::Lost(_)));
        }
        assert!(of(CUresult::CUDA_ERROR_INVALID_VALUE).to_string().contains("cuCall"));
    }
}
