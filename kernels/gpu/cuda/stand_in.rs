//! A library with the NVIDIA driver's name that runs the emulated kernels (`emulated/driver.cpp`). With it, a machine without a GPU
//! tests the same program that would run on one. For tests only.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::source::sources;
use crate::gpu::emulated::{Dialect, Emulated, built, compiled};

const SOURCE: &str = include_str!("../emulated/driver.cpp");
const FLAGS: [&str; 8] =
    ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-pthread"];
/// The kernels are found beside the library. It stays loaded until the program ends, when it reports leaks.
const LINKED: [&str; 2] = ["-Wl,-rpath,$ORIGIN", "-Wl,-z,nodelete"];
const KERNELS: &str = "kernels.so";

impl Emulated {
    /// The folder of a stand-in for NVIDIA's driver, for the `LD_LIBRARY_PATH` of a child process. `emulated/driver.cpp` lists the
    /// behaviours that it can simulate. Returns `None` and prints a line if there is no C++ compiler or no suitable loader.
    ///
    /// # Panics
    /// If it does not compile.
    pub fn driver() -> Option<PathBuf> {
        if !cfg!(target_os = "linux") {
            println!("SKIPPED: the stand-in for NVIDIA's driver needs Linux");
            return None;
        }
        let kernels = compiled(Dialect::Cuda, &[sources().to_vec()]).unwrap_or_else(|e| panic!("{e}"));
        let folder = kernels.and_then(|kernels| {
            let mut hash = DefaultHasher::new();
            (SOURCE, FLAGS, LINKED, &kernels).hash(&mut hash);
            let name = format!("driver-{:016x}", hash.finish());
            built(&name, |compiler, folder| build(compiler, folder, &kernels)).unwrap_or_else(|e| panic!("{e}"))
        });
        if folder.is_none() {
            println!("SKIPPED: no C++ compiler (CXX, c++, g++, clang++) for the stand-in for NVIDIA's driver");
        }
        folder
    }
}

/// Compiles it in a new folder, and returns that folder.
fn build(compiler: &Path, folder: &Path, kernels: &Path) -> Result<PathBuf, String> {
    let words = |e: std::io::Error| e.to_string();
    fs::create_dir_all(folder).map_err(words)?;
    fs::write(folder.join("driver.cpp"), SOURCE).map_err(words)?;
    fs::copy(kernels, folder.join(KERNELS)).map_err(words)?;
    let output = Command::new(compiler)
        .current_dir(folder)
        .args(FLAGS)
        .args(["-o", "libcuda.so.1", "driver.cpp", "-L.", &format!("-l:{KERNELS}")])
        .args(LINKED)
        .output()
        .map_err(words)?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    // The name that is looked up first; a machine with a GPU has it too.
    fs::hard_link(folder.join("libcuda.so.1"), folder.join("libcuda.so")).map_err(words)?;
    Ok(folder.to_path_buf())
}

#[cfg(test)]
mod tests;
