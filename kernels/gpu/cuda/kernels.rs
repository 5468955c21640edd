//! Compiled kernels: the driver compiles them from PTX on first use.

use std::collections::HashMap;
use std::ffi::{CString, c_void};

use cudarc::driver::sys::{self, CUjit_option, CUresult};

use super::driver::check;
use super::ptx;
use crate::gpu::{GpuElement, GpuError};

/// The kernels of one context, which must be current in every call.
pub(super) struct Kernels {
    /// The device's index in the list of compilation targets.
    target: usize,
    /// By file name.
    modules: HashMap<&'static str, sys::CUmodule>,
    /// By kernel and element.
    entries: HashMap<(&'static str, &'static str), sys::CUfunction>,
}

// SAFETY: modules and functions are driver handles, which any thread may use.
unsafe impl Send for Kernels {}

impl Kernels {
    pub(super) fn new(target: usize) -> Self {
        Self { target, modules: HashMap::new(), entries: HashMap::new() }
    }

    /// A kernel's entry. Compiles it on first use.
    pub(super) fn entry(&mut self, kernel: &'static str, element: GpuElement) -> Result<sys::CUfunction, GpuError> {
        if let Some(&entry) = self.entries.get(&(kernel, element.suffix())) {
            return Ok(entry);
        }
        let name = format!("{kernel}_{}", element.suffix());
        let failed = |reason: String| GpuError::Kernel { kernel: name.clone(), reason };
        let file = ptx::file_of(&name).ok_or_else(|| failed("no .cu file defines it".into()))?;
        let module = if let Some(&module) = self.modules.get(file.name()) {
            module
        } else {
            let module = compile(file, self.target)?;
            self.modules.insert(file.name(), module);
            module
        };
        let symbol = CString::new(name.as_str()).map_err(|e| failed(e.to_string()))?;
        let mut entry = std::ptr::null_mut();
        // SAFETY: the module lives as long as `self`; the call reads a string and writes one handle.
        match unsafe { sys::cuModuleGetFunction(&raw mut entry, module, symbol.as_ptr()) } {
            CUresult::CUDA_SUCCESS => {}
            code => return Err(failed(format!("{code:?}"))),
        }
        self.entries.insert((kernel, element.suffix()), entry);
        Ok(entry)
    }

    /// Unloads all modules. No launch may be running.
    pub(super) fn unload(&mut self) {
        self.entries.clear();
        for (_, module) in self.modules.drain() {
            // SAFETY: it was loaded in `compile`, and nothing uses it any more.
            let _ = unsafe { sys::cuModuleUnload(module) };
        }
    }
}

/// Lets the driver compile a file's PTX for the device. The driver keeps the result in its cache on disk.
fn compile(file: &ptx::File, target: usize) -> Result<sys::CUmodule, GpuError> {
    const LOG: usize = 4096;
    let failed = |reason: String| GpuError::Kernel { kernel: format!("{}.cu", file.name()), reason };
    let text = CString::new(file.text(target)).map_err(|e| failed(e.to_string()))?;
    let mut log = vec![0u8; LOG];
    let mut options = [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(LOG)];
    let mut module = std::ptr::null_mut();
    // SAFETY: text and log have the stated lengths, each option has its value, and the call writes one handle.
    let code = unsafe {
        let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
        sys::cuModuleLoadDataEx(&raw mut module, text.as_ptr().cast(), 2, options, values)
    };
    check("cuModuleLoadDataEx", code).map(|()| module).map_err(|error| {
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned();
        if log.is_empty() { error } else { failed(format!("{error}: {log}")) }
    })
}
