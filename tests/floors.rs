//! The house of `ARCHITECTURE.md` as a test: a file imports only from the floors under its own, neighbours of one floor never
//! import each other, candle stays behind its doors, and every unsafe line stays in the cellar.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the ground up; the rooms of one floor are neighbours.
const FLOORS: [&[&str]; 9] = [
    &["error", "timing"],
    &["memory"],
    &["files"],
    &["pixels", "weights"],
    &["backend"],
    &["model"],
    &["convert", "segmenter"],
    &["eval"],
    &["cli"],
];

/// Only the backends name candle.
const CANDLE: &str = "backend/";

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The rooms that a line of code names by `crate::` (or, in the binary, `rtformer::`), tests and comments left out.
fn rooms_named(text: &str) -> Vec<&str> {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(rest))
        .collect()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn a_file_imports_only_from_the_floors_under_its_own() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut checked = 0;
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap();
        let room = relative.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        if matches!(room.as_str(), "lib" | "main") {
            continue;
        }
        let own =
            floor(&room).unwrap_or_else(|| panic!("src/{}: `{room}` is on no floor of this test", relative.display()));
        for named in rooms_named(&fs::read_to_string(&path).unwrap()) {
            // Inside the library, names without a floor are items of the crate's root.
            let Some(other) = floor(named) else { continue };
            let allowed = named == room || other < own || room == "cli";
            assert!(allowed, "src/{} (floor {own}) names `{named}` (floor {other})", relative.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} imports seen: does this test still read the sources?");
}

#[test]
fn candle_and_unsafe_stay_behind_their_doors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let src = root.join("src");
    assert!(fs::read_to_string(src.join("lib.rs")).unwrap().contains("#![forbid(unsafe_code)]"));
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
        if fs::read_to_string(&path).unwrap().contains("candle_") {
            assert!(relative.starts_with(CANDLE), "src/{relative} names candle");
        }
    }
}

#[test]
fn the_architecture_names_every_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for folder in ["src", "kernels"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            if name != "Cargo.toml" {
                assert!(map.contains(&name), "ARCHITECTURE.md does not name {folder}/{name}");
            }
        }
    }
}

/// A kernel that a GPU is given has a twin in Metal, which is listed among those that are compiled.
#[test]
fn gpu_kernels_have_their_twins() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let listed = fs::read_to_string(kernels.join("gpu/metal_source.rs")).unwrap();
    let mut checked = 0;
    for launch in sources(&kernels).iter().filter(|path| path.ends_with("gpu.rs")) {
        let folder = launch.parent().unwrap();
        let name = folder.file_name().unwrap().to_string_lossy();
        let twin = format!("{name}.metal");
        let text = fs::read_to_string(folder.join(&twin)).unwrap_or_else(|e| panic!("kernels/{name}/{twin}: {e}"));
        assert!(listed.contains(&format!("\"{twin}\"")), "gpu/metal_source.rs does not list {twin}");
        assert!(text.starts_with("// "), "{twin} does not open with its contract");
        checked += 1;
    }
    assert!(checked >= 9, "only {checked} kernels seen: does this test still read the sources?");
}
