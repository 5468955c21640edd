//! The kernels' PTX, which `make ptx` generates from the `.cu` files.
//!
//! The folder `ptx` holds `<name>.<target>.ptx`: the output of `<name>.cu` for that target, and for each newer target without its own
//! file. Such targets differ only in the `.target` line. The build script (`build.rs`) compresses all files into one.

use std::sync::LazyLock;

use crate::gpu::GpuError;

/// Compute capabilities that kernels are compiled for, oldest first, with their suffix. With suffix `a` the PTX may use instructions
/// that no other GPU has, so only a GPU of exactly that capability accepts it. A GPU uses the newest target that it accepts.
const TARGETS: [(i32, &str); 3] = [(75, ""), (80, ""), (90, "a")];

/// A compiled `.cu` file.
pub(super) struct File {
    name: &'static str,
    /// The PTX of each target that has its own; the oldest always does.
    texts: [Option<&'static str>; TARGETS.len()],
}

impl File {
    /// The `.cu` file's name, without the extension.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The PTX for one of the targets.
    pub(super) fn text(&self, target: usize) -> String {
        let own = (0..=target).rev().find_map(|older| Some((older, self.texts[older]?)));
        let (older, text) = own.unwrap_or_default();
        text.replacen(&directive(older), &directive(target), 1)
    }

    /// Whether it defines an entry with that name.
    fn has(&self, entry: &str) -> bool {
        self.texts.iter().flatten().next().is_some_and(|text| text.contains(&format!(".entry {entry}(")))
    }
}

/// The line that names a target; the only difference between targets that share a file.
fn directive(target: usize) -> String {
    let (capability, only) = TARGETS[target];
    format!(".target sm_{capability}{only}\n")
}

/// All files. They are decompressed when the first kernel is requested, which takes a few milliseconds.
static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let texts = miniz_oxide::inflate::decompress_to_vec(include_bytes!(concat!(env!("OUT_DIR"), "/ptx.deflate")));
    let texts = String::from_utf8(texts.unwrap_or_default()).unwrap_or_default();
    files(texts.leak())
});

/// Splits a text into files. Each file starts with a line `// <name>.<target>`.
fn files(texts: &'static str) -> Vec<File> {
    let mut files: Vec<File> = Vec::new();
    for part in texts.split("// ").skip(1) {
        let Some((header, text)) = part.split_once('\n') else { continue };
        let Some((name, target)) = header.rsplit_once('.') else { continue };
        let target = TARGETS.iter().position(|(capability, only)| format!("{capability}{only}") == target);
        let Some(target) = target else { continue };
        if files.last().is_none_or(|file| file.name != name) {
            files.push(File { name, texts: [None; TARGETS.len()] });
        }
        if let Some(file) = files.last_mut() {
            file.texts[target] = Some(text);
        }
    }
    files
}

/// The index of the target that a GPU uses.
pub(super) fn target(name: &str, capability: i32) -> Result<usize, GpuError> {
    let runs = |&(target, only): &(i32, &str)| target == capability || target < capability && only.is_empty();
    TARGETS.iter().rposition(runs).ok_or_else(|| {
        let (major, minor, oldest) = (capability / 10, capability % 10, "7.5 (Turing)");
        GpuError::Missing(format!(
            "{name} has compute capability {major}.{minor}, expected {oldest} or newer; use `--device cpu`"
        ))
    })
}

/// The file that defines an entry with that name.
pub(super) fn file_of(entry: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.has(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::cuda::source;

    #[test]
    fn a_gpu_takes_the_newest_target_that_it_can() {
        for (capability, want) in [(75, 75), (80, 80), (86, 80), (89, 80), (90, 90), (100, 80), (103, 80), (120, 80)] {
            assert_eq!(TARGETS[target("a GPU", capability).unwrap()].0, want);
        }
        let error = target("GeForce GTX 1080", 61).unwrap_err().to_string();
        assert!(error.contains("GTX 1080") && error.contains("6.1") && error.contains("7.5"), "{error}");
    }

    #[test]
    fn every_kernel_file_is_embedded_and_has_the_same_entries_for_every_target() {
        let entries = |text: &str| -> Vec<String> {
            let names = text.split(".entry ").skip(1).map(|rest| rest.split('(').next().unwrap_or(rest).to_owned());
            names.collect()
        };
        let sources = source::FILES.iter().filter(|(path, _)| !source::is_header(path));
        let names: Vec<_> = sources.filter_map(|(path, _)| path.rsplit('/').next()?.strip_suffix(".cu")).collect();
        assert_eq!(FILES.iter().map(File::name).collect::<Vec<_>>(), names, "as many as there are sources");
        for file in FILES.iter() {
            let name = file.name();
            let oldest = file.text(0);
            assert!(!entries(&oldest).is_empty(), "{name}");
            for (target, (capability, only)) in TARGETS.into_iter().enumerate() {
                let text = file.text(target);
                assert_eq!(entries(&text), entries(&oldest), "{name}, {capability}");
                assert_eq!(text.matches(".target ").count(), 1, "{name}, {capability}");
                assert!(text.contains(&format!(".target sm_{capability}{only}\n")), "{name}, {capability}");
            }
        }
        assert_eq!(file_of("conv_f16").map(File::name), Some("conv"));
        assert!(file_of("conv").is_none());
    }

    #[test]
    fn a_target_without_a_file_uses_the_next_older_text() {
        let all = files("// a.75\n.target sm_75\nold\n// a.80\n.target sm_80\nnew\n// b.75\n.target sm_75\nall\n");
        let texts: Vec<_> = all.iter().map(|file| [0, 1, 2].map(|target| file.text(target))).collect();
        assert_eq!(texts[0], [".target sm_75\nold\n", ".target sm_80\nnew\n", ".target sm_90a\nnew\n"]);
        assert_eq!(texts[1], [".target sm_75\nall\n", ".target sm_80\nall\n", ".target sm_90a\nall\n"]);
    }
}
