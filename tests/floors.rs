//! Tests the layers of `ARCHITECTURE.md`: a file imports only from layers below its own, modules of one layer never import each other,
//! files have no import cycles, only the backends name candle, and all unsafe code is in `kernels/`.

mod imports;

use std::fs;
use std::path::{Path, PathBuf};

use imports::Crate;

/// The modules of `src/`, lowest layer first; each list is one layer.
const FLOORS: &[&[&str]] = &[
    &["error", "process", "timing"],
    &["memory"],
    &["files"],
    &["pixels", "weights"],
    &["backend"],
    &["model"],
    &["convert", "segmenter"],
    &["bench"],
    &["eval"],
    &["explain", "plan", "video"],
    &["cli"],
];

/// The modules of `kernels/`: numbers and errors, memory, devices, operations, operations built on others, their tables of shapes.
const KERNEL_FLOORS: &[&[&str]] = &[
    &["caches", "element", "error", "mapped", "simd"],
    &["extent", "isa", "map"],
    &["gpu", "pages", "peak"],
    &["arena"],
    &["concat", "conv", "ea_norm", "pack", "pointwise", "prepare", "resize_add"],
    &["argmax", "cross_attend", "pool", "winograd"],
    &["testing"],
    &["tables"],
];

/// Only the backends name candle.
const CANDLE: &str = "backend/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

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

/// The top-level module that a file belongs to; `None` for the crate's roots.
fn module(file: &str) -> Option<&str> {
    let name = file.split('/').next().unwrap_or(file);
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (!matches!(name, "lib" | "main")).then_some(name)
}

/// Imports that do not point to a lower layer; one message each.
fn upward_imports(source: &Crate, floors: &[&[&str]]) -> Vec<String> {
    let floor = |name: &str| floors.iter().position(|modules| modules.contains(&name));
    let mut faults = Vec::new();
    for ((from, to), names) in source.imports() {
        let (Some(own), Some(other)) = (module(&from), module(&to)) else { continue };
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        match (floor(own), floor(other)) {
            _ if own == other => {}
            (Some(above), Some(below)) if below < above => {}
            (Some(own), Some(other)) => {
                faults.push(format!("{from} (layer {own}) imports {to} (layer {other}): {names}"));
            }
            (None, _) => faults.push(format!("{from}: `{own}` is in no layer of this test")),
            (_, None) => faults.push(format!("{to}: `{other}` is in no layer of this test")),
        }
    }
    faults
}

fn crates() -> [(Crate, &'static [&'static [&'static str]]); 2] {
    [
        (Crate::read(&root().join("src"), "rtformer"), FLOORS),
        (Crate::read(&root().join("kernels"), "rtformer_kernels"), KERNEL_FLOORS),
    ]
}

#[test]
fn a_file_imports_only_from_layers_below_its_own() {
    for (source, floors) in crates() {
        let imports = source.imports();
        assert!(imports.len() > 60, "found only {} imports: does this test still read the sources?", imports.len());
        let faults = upward_imports(&source, floors);
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

#[test]
fn files_have_no_import_cycles() {
    for (source, _) in crates() {
        let ties: Vec<_> = source.cycles().into_values().collect();
        assert!(ties.is_empty(), "files import each other in a cycle:{}", ties.join("\n"));
    }
}

/// The same check on small crates with a planted import cycle or upward import.
#[test]
fn planted_cycles_and_upward_imports_are_found() {
    struct Case {
        why: &'static str,
        files: &'static [(&'static str, &'static str)],
        circles: usize,
        upward: usize,
    }
    const LIB: (&str, &str) = ("lib.rs", "mod low; mod high;");
    let cases = [
        Case {
            why: "an import from a lower layer is allowed",
            files: &[LIB, ("low.rs", "pub struct Low;"), ("high.rs", "use crate::low::Low;")],
            circles: 0,
            upward: 0,
        },
        Case {
            why: "an import from a higher layer is not",
            files: &[LIB, ("low.rs", "use crate::high::High;"), ("high.rs", "pub struct High;")],
            circles: 0,
            upward: 1,
        },
        Case {
            why: "siblings by `super`, one of them inside braces",
            files: &[LIB, ("low.rs", "use super::{high::{self, High}};"), ("high.rs", "use super::low::Low as _;")],
            circles: 1,
            upward: 1,
        },
        Case {
            why: "a re-export by the parent is the sibling's",
            files: &[
                ("lib.rs", "mod low; mod high; pub use low::Low; pub use high::*;"),
                ("low.rs", "use crate::High; pub struct Low;"),
                ("high.rs", "use crate::Low; pub struct High;"),
            ],
            circles: 1,
            upward: 1,
        },
        Case {
            why: "paths in the code, by the crate's own name, in a macro",
            files: &[
                LIB,
                ("low.rs", "fn f() { if true { println!(\"{}\", planted::high::f()) } }"),
                ("high.rs", "pub fn f() -> crate::low::Low { todo!() }"),
            ],
            circles: 1,
            upward: 1,
        },
        Case {
            why: "a parent and its children may use each other: it uses them, and they use what it defines",
            files: &[
                LIB,
                ("low/mod.rs", "mod a; mod b; pub use a::A; struct Own; fn f() { b::f() }"),
                ("low/a.rs", "use super::Own; pub struct A(Own);"),
                ("low/b.rs", "use super::{A, Own}; pub(in crate::low) fn f() {}"),
                ("high.rs", "use crate::low::A;"),
            ],
            circles: 0,
            upward: 0,
        },
        Case {
            why: "a cycle of three, one of them in a folder, one imported in a function",
            files: &[
                LIB,
                ("low/mod.rs", "mod a; mod b; mod c;"),
                ("low/a.rs", "pub use self::inner::A; mod inner { use super::super::b::B; pub struct A; }"),
                ("low/b.rs", "pub struct B; fn f() { use crate::low::c; c::f() }"),
                ("low/c/mod.rs", "pub fn f() -> super::a::A { todo!() }"),
                ("high.rs", ""),
            ],
            circles: 1,
            upward: 0,
        },
        Case {
            why: "a cycle through a parent's own definition",
            files: &[
                LIB,
                ("low/mod.rs", "mod a; use crate::high::High; pub struct Own(High);"),
                ("low/a.rs", "use super::Own; pub struct A(Own);"),
                ("high.rs", "use crate::low::a::A; pub struct High;"),
            ],
            circles: 1,
            upward: 1,
        },
        Case {
            why: "tests, comments, strings and other crates' modules do not count",
            files: &[
                LIB,
                (
                    "low.rs",
                    "//! `crate::high`\n#[cfg(test)] mod tests;\n#[cfg(test)] use crate::high::High;\nuse std::high::low;",
                ),
                ("high.rs", "use crate::low::Low; /* super::high */ const S: &str = \"crate::low\";"),
            ],
            circles: 0,
            upward: 0,
        },
    ];
    for Case { why, files, circles, upward } in cases {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let planted = Crate::read(folder.path(), "planted");
        let found = planted.cycles();
        assert_eq!(found.len(), circles, "{why}: {found:#?}, {:#?}", planted.imports());
        let found = upward_imports(&planted, &[&["low"], &["high"]]);
        assert_eq!(found.len(), upward, "{why}: {found:#?}");
    }
}

#[test]
fn only_backends_name_candle_and_only_kernels_are_unsafe() {
    let src = root().join("src");
    assert!(fs::read_to_string(src.join("lib.rs")).unwrap().contains("#![forbid(unsafe_code)]"));
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
        if fs::read_to_string(&path).unwrap().contains("candle_") {
            assert!(relative.starts_with(CANDLE), "src/{relative} names candle");
        }
    }
}

/// The program and the Python package are users of the library like any other: they name only what is public.
#[test]
fn the_program_and_python_use_only_the_public_api() {
    let mut private: Vec<String> = Vec::new();
    for path in sources(&root().join("src")).iter().filter(|path| !path.starts_with(root().join("src/cli"))) {
        let text = fs::read_to_string(path).unwrap();
        for item in text.lines().filter_map(|line| line.strip_prefix("pub(crate) ")) {
            let words: Vec<_> = item.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
            let kinds = ["fn", "struct", "enum", "trait", "const", "static", "mod", "type"];
            private.extend(words.windows(2).find(|pair| kinds.contains(&pair[0])).map(|pair| pair[1].to_owned()));
        }
    }
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    private
        .extend(lib.lines().filter_map(|line| line.strip_prefix("mod ")).map(|name| name.trim_end_matches(';').into()));
    assert!(private.len() > 10, "found only {private:?}: does this test still read the sources?");
    let (cli, python) = (sources(&root().join("src/cli")), sources(&root().join("python/src")));
    assert!(cli.len() > 20 && python.len() > 4);
    for path in cli.iter().chain(&python) {
        let text = fs::read_to_string(path).unwrap();
        for (number, line) in text.lines().enumerate() {
            for used in line.split("rtformer::").skip(1) {
                let part_of_path = |c: char| c.is_alphanumeric() || "_:{}, ".contains(c);
                let used = &used[..used.find(|c| !part_of_path(c)).unwrap_or(used.len())];
                let mut names = used.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                let hidden = names.find(|name| private.iter().any(|private| private == name));
                let at = format!("{}:{}", path.display(), number + 1);
                assert_eq!(hidden, None, "{at} names what other users of the library cannot");
            }
        }
        let program = cli.contains(path);
        assert!(!program || !text.contains("crate::"), "{} names the library's modules by `crate::`", path.display());
        assert!(program || !text.contains("unsafe"), "{} is unsafe", path.display());
    }
}

#[test]
fn architecture_md_names_every_module() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for folder in ["src", "kernels"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            if name != "Cargo.toml" {
                assert!(map.contains(&name), "ARCHITECTURE.md does not name {folder}/{name}");
            }
        }
    }
}

/// Every kernel that runs on a GPU has a Metal twin, which is in the list of compiled files.
#[test]
fn gpu_kernels_have_their_twins() {
    let kernels = root().join("kernels");
    let listed = fs::read_to_string(kernels.join("gpu/metal_source.rs")).unwrap();
    let mut checked = 0;
    for launch in sources(&kernels).iter().filter(|path| path.ends_with("gpu.rs")) {
        let folder = launch.parent().unwrap();
        let name = folder.file_name().unwrap().to_string_lossy();
        let twin = format!("{name}.metal");
        let text = fs::read_to_string(folder.join(&twin)).unwrap_or_else(|e| panic!("kernels/{name}/{twin}: {e}"));
        assert!(listed.contains(&format!("\"{twin}\"")), "gpu/metal_source.rs does not list {twin}");
        assert!(text.starts_with("// "), "{twin} does not begin with its contract");
        checked += 1;
    }
    assert!(checked >= 9, "found only {checked} kernels: does this test still read the sources?");
}
