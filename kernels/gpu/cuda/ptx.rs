//! The kernels' PTX, which `make ptx` makes from the `.cu` files.

use crate::gpu::GpuError;

/// Compute capabilities that kernels are compiled for, the oldest first, and what stands behind them. Where that is an `a`, the text may
/// have instructions that no other GPU has: only one of just that capability takes it. A GPU takes the newest that it can.
const TARGETS: [(i32, &str); 3] = [(75, ""), (80, ""), (90, "a")];

macro_rules! files {
    ($($folder:literal / $name:literal),* $(,)?) => {
        [$(($name, [
            include_str!(concat!("../../", $folder, "/", $name, ".75.ptx")),
            include_str!(concat!("../../", $folder, "/", $name, ".80.ptx")),
            include_str!(concat!("../../", $folder, "/", $name, ".90a.ptx")),
        ])),*]
    };
}

/// Each `.cu` file's name, and its text for each of the [`TARGETS`].
pub(super) const FILES: [(&str, [&str; TARGETS.len()]); 12] = files![
    "argmax" / "argmax",
    "concat" / "concat",
    "conv" / "conv",
    "conv" / "conv_mma",
    "cross_attend" / "cross_attend",
    "cross_attend" / "cross_attend_mma",
    "ea_norm" / "ea_norm",
    "pack" / "pack",
    "pointwise" / "pointwise",
    "pool" / "pool",
    "prepare" / "prepare",
    "resize_add" / "resize_add",
];

/// Which of the targets a GPU takes.
pub(super) fn target(name: &str, capability: i32) -> Result<usize, GpuError> {
    let runs = |&(target, only): &(i32, &str)| target == capability || target < capability && only.is_empty();
    TARGETS.iter().rposition(runs).ok_or_else(|| {
        let (major, minor, oldest) = (capability / 10, capability % 10, "7.5 (Turing)");
        GpuError::Missing(format!(
            "{name} has compute capability {major}.{minor}, kernels need {oldest} or newer; use `--device cpu`"
        ))
    })
}

/// The file that has an entry of that name.
pub(super) fn file_of(entry: &str) -> Option<usize> {
    let defined = format!(".entry {entry}(");
    FILES.iter().position(|(_, texts)| texts[0].contains(&defined))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_takes_the_newest_target_that_it_can() {
        for (capability, want) in [(75, 75), (80, 80), (86, 80), (89, 80), (90, 90), (100, 80), (103, 80), (120, 80)] {
            assert_eq!(TARGETS[target("a GPU", capability).unwrap()].0, want);
        }
        let error = target("GeForce GTX 1080", 61).unwrap_err().to_string();
        assert!(error.contains("GTX 1080") && error.contains("6.1") && error.contains("7.5"), "{error}");
    }

    #[test]
    fn every_file_has_the_same_entries_for_every_target() {
        let entries = |text: &str| -> Vec<String> {
            let names = text.split(".entry ").skip(1).map(|rest| rest.split('(').next().unwrap_or(rest).to_owned());
            names.collect()
        };
        for (name, texts) in FILES {
            assert!(!entries(texts[0]).is_empty(), "{name}");
            for (text, (target, only)) in texts.iter().zip(TARGETS) {
                assert_eq!(entries(text), entries(texts[0]), "{name}, {target}");
                assert!(text.contains(&format!(".target sm_{target}{only}\n")), "{name}, {target}");
            }
        }
        assert_eq!(file_of("conv_f16").map(|file| FILES[file].0), Some("conv"));
        assert_eq!(file_of("conv"), None);
    }
}
