//! Compiles kernels with the host's C++ compiler, against a shim of their language.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::gpu::GpuError;

/// A kernel language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `.cu` files; entries are the `__global__` functions.
    Cuda,
    /// `.metal` files; entries are named by `KERNEL_ENTRY`.
    Metal,
}

/// A file of kernels.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Source<'a> {
    /// The name by which other files include it.
    pub name: &'a str,
    /// Its contents.
    pub text: &'a str,
    /// Whether it is compiled, or only included.
    pub compiled: bool,
}

/// The shim's files.
const SHIM: [(&str, &str); 4] = [
    ("fibers.h", include_str!("fibers.h")),
    ("metal.h", include_str!("metal.h")),
    ("cuda.h", include_str!("cuda.h")),
    ("cuda_fp16.h", include_str!("cuda_fp16.h")),
];

/// The C++ compiler of this machine.
fn compiler() -> Option<PathBuf> {
    let named = std::env::var_os("CXX").map(PathBuf::from);
    let candidates = named.into_iter().chain(["c++", "g++", "clang++"].map(PathBuf::from));
    candidates
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
}

/// The compiler flags. Hidden symbols are not shared between libraries, as inline functions and their statics otherwise are.
const FLAGS: [&str; 10] = [
    "-std=c++17",
    "-O1",
    "-w",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-U_FORTIFY_SOURCE",
    "-I.",
];

/// The library of variants of sources; `None` if there is no C++ compiler.
pub(in crate::gpu) fn compiled(dialect: Dialect, variants: &[Vec<Source<'_>>]) -> Result<Option<PathBuf>, GpuError> {
    let mut hash = DefaultHasher::new();
    (SHIM, FLAGS, dialect, variants).hash(&mut hash);
    built(&format!("emulation-{:016x}.so", hash.finish()), |compiler, folder| {
        build(compiler, folder, dialect, variants)
    })
}

/// The file that `make` builds with the compiler in a new folder. It is stored as `name` beside the running program, which is in a build
/// folder, so programs of one build share what was compiled from the same text. `None` if there is no C++ compiler.
pub(in crate::gpu) fn built(
    name: &str,
    make: impl FnOnce(&Path, &Path) -> Result<PathBuf, String>,
) -> Result<Option<PathBuf>, GpuError> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let Some(compiler) = compiler() else { return Ok(None) };
    let failed = |reason| GpuError::Kernel { kernel: name.to_owned(), reason };
    let program = std::env::current_exe().map_err(|e| failed(format!("cannot find the running program: {e}")))?;
    let parent = program.parent().unwrap_or(Path::new("."));
    let finished = parent.join(name);
    if !finished.exists() {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("emulation-{}-{number}", std::process::id()));
        let made = make(&compiler, &folder).and_then(|made| match fs::rename(made, &finished) {
            // Another program may have finished first.
            Err(e) if !finished.exists() => Err(e.to_string()),
            _ => Ok(()),
        });
        let _ = fs::remove_dir_all(&folder);
        made.map_err(|e| failed(format!("cannot be compiled: {e}")))?;
    }
    Ok(Some(finished))
}

/// Compiles variants of sources in a new folder; returns the library or the compiler's message. Each variant is a namespace.
fn build(compiler: &Path, folder: &Path, dialect: Dialect, variants: &[Vec<Source<'_>>]) -> Result<PathBuf, String> {
    let write = |path: PathBuf, text: &str| fs::write(path, text).map_err(|e| e.to_string());
    fs::create_dir_all(folder).map_err(|e| e.to_string())?;
    for (name, text) in SHIM {
        write(folder.join(name), text)?;
    }
    let shim = match dialect {
        Dialect::Cuda => "cuda.h",
        Dialect::Metal => "metal.h",
    };
    let mut all = format!("#include \"{shim}\"\n");
    for (variant, sources) in variants.iter().enumerate() {
        let name = format!("variant{variant}");
        let folder = folder.join(&name);
        fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        all += &format!("#undef VARIANT\n#define VARIANT \"{variant}.\"\nnamespace {name} {{\n");
        for source in sources {
            // Included once per variant, if the file asks for it.
            let guard = format!("{name}_{}", source.name.replace('.', "_"));
            let once = format!(
                "#ifndef {guard}\n#define {guard}\n#line 1\n{}\n#endif\n",
                // Namespaces distinguish variants, but C names have no namespace.
                source.text.replace("#pragma once", "").replace("extern \"C\" ", "")
            );
            write(folder.join(source.name), &once)?;
            if source.compiled {
                all += &format!("#include \"{name}/{}\"\n", source.name);
            }
            if source.compiled && dialect == Dialect::Cuda {
                for entry in cuda_entries(source.text) {
                    all += &format!("KERNEL_ENTRY({entry}, {entry});\n");
                }
            }
        }
        all += "}\n";
    }
    write(folder.join("all.cpp"), &all)?;
    let output = Command::new(compiler)
        .current_dir(folder)
        .args(FLAGS)
        .args(["-o", "all.so", "all.cpp"])
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(folder.join("all.so"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The names of `__global__` functions: `extern "C" __global__ void [__launch_bounds__(..)] name(`.
fn cuda_entries(text: &str) -> Vec<&str> {
    text.split("extern \"C\" __global__ ").skip(1).filter_map(cuda_entry).collect()
}

fn cuda_entry(declaration: &str) -> Option<&str> {
    let bounds = declaration.split_once("__launch_bounds__").filter(|(ahead, _)| !ahead.contains('('));
    let rest = bounds.map_or(declaration, |(_, rest)| after_bracket(rest));
    rest.split('(').next()?.split_whitespace().last()
}

/// The text after the next closing bracket.
fn after_bracket(text: &str) -> &str {
    text.split_once(')').map_or(text, |(_, rest)| rest)
}
