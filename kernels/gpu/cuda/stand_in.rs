//! A library of the NVIDIA driver's name that runs the emulated kernels (`emulated/driver.cpp`), so that what is tested on a machine
//! without a GPU is the very program that would run on one. For tests alone.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::source::sources;
use crate::gpu::emulated::{Dialect, Emulated, built, compiled};

const SOURCE: &str = include_str!("../emulated/driver.cpp");
const FLAGS: [&str; 8] =
    ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-pthread"];
/// The kernels are found beside it, and it stays until the program ends, which is when it says what is left.
const LINKED: [&str; 2] = ["-Wl,-rpath,$ORIGIN", "-Wl,-z,nodelete"];
const KERNELS: &str = "kernels.so";

impl Emulated {
    /// The folder of a stand-in for NVIDIA's driver, for the `LD_LIBRARY_PATH` of a child process; what it can pretend on request,
    /// `emulated/driver.cpp` says. `None`, and a line that says so, where there is no C++ compiler, or no such loader.
    ///
    /// # Panics
    /// When it does not compile.
    pub fn driver() -> Option<PathBuf> {
        if !cfg!(target_os = "linux") {
            println!("SKIPPED: the stand-in for NVIDIA's driver is for Linux");
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
            println!("SKIPPED: no C++ compiler (CXX, c++, g++, clang++) to make a stand-in for NVIDIA's driver with");
        }
        folder
    }
}

/// Compiles it in a new folder, which is the one that is wanted.
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
    // The name that is looked for first: a GPU's own machine has it too.
    fs::hard_link(folder.join("libcuda.so.1"), folder.join("libcuda.so")).map_err(words)?;
    Ok(folder.to_path_buf())
}

#[cfg(test)]
mod tests;
