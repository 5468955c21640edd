//! Compresses the kernels' PTX, 1.2 MB of text, into one file of 0.2 MB, which the library embeds.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The output folder of `ptx.py`; it contains nothing else.
const FOLDER: &str = "gpu/cuda/ptx";
/// The highest level that is still fast enough: well under a second.
const LEVEL: u8 = 9;

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={FOLDER}");
    let variable = |name| env::var_os(name).map(PathBuf::from).ok_or(io::ErrorKind::NotFound);
    let texts = texts(&variable("CARGO_MANIFEST_DIR")?.join(FOLDER))?;
    fs::write(variable("OUT_DIR")?.join("ptx.deflate"), miniz_oxide::deflate::compress_to_vec(texts.as_bytes(), LEVEL))
}

/// All files, each after a line `// <name>.<target>`. The files have no other comments, because `ptx.py` removes them.
fn texts(folder: &Path) -> io::Result<String> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    let mut all = String::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "ptx")) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        // Git may convert the line endings of text files.
        let text = fs::read_to_string(path)?.replace('\r', "");
        all += &format!("// {name}\n{text}");
    }
    Ok(all)
}
