//! Metal's kernels under emulation.

use super::{Change, changed, declared, unnoticed};
use crate::argmax::gpu as argmax;
use crate::concat::gpu as concat;
use crate::conv::gpu::{self as conv, Kernel};
use crate::cross_attend::gpu as cross_attend;
use crate::ea_norm::gpu as ea_norm;
use crate::gpu::GpuElement;
use crate::gpu::emulated::{Dialect, Emulated, Source};
use crate::gpu::metal_source::FILES;
use crate::pack::gpu as pack;
use crate::pointwise::gpu as pointwise;
use crate::pool::gpu as pool;
use crate::prepare::gpu as prepare;
use crate::resize_add::gpu as resize_add;
use crate::tables::{self, Table};

#[test]
fn metal_kernels_agree_with_their_definitions() {
    let Some(device) = Emulated::metal() else { return };
    for element in [GpuElement::F32, GpuElement::F16] {
        for (name, table) in tables::all() {
            let start = std::time::Instant::now();
            table(&device, element);
            println!("{name} in {}: {} ms", element.suffix(), start.elapsed().as_millis());
        }
        // The table above tests the device's own choice; here each of its convolutions runs each shape.
        for kernel in [Kernel::PLAIN, Kernel::SIMDGROUP, Kernel::SIMDGROUP_NARROW] {
            tables::convolutions_by(&device, element, Some(kernel));
        }
    }
}

/// A change to a kernel, and the table that must detect it.
#[derive(Clone)]
struct Mutant {
    why: &'static str,
    file: &'static str,
    /// Another file that it needs.
    with: Option<&'static str>,
    change: Change,
    table: Table<Emulated>,
}

/// Every barrier of every kernel, and every bound whose violation changes a result. The other bounds only avoid reading values that are
/// multiplied by zero or never stored, or they exclude padding, which is zero.
#[allow(clippy::too_many_lines, reason = "this is a list")]
fn mutants() -> Vec<Mutant> {
    const BARRIER: &str = "threadgroup_barrier(mem_flags::mem_threadgroup);";
    const SIMD_BARRIER: &str = "simdgroup_barrier(mem_flags::mem_threadgroup);";
    let of = |file, with, table, changes: &[(&'static str, Change)]| -> Vec<_> {
        changes.iter().map(|&(why, change)| Mutant { why, file, with, change, table }).collect()
    };
    [
        of(
            "common.metal",
            Some("resize_add.metal"),
            ("resize_add", tables::resizes),
            &[
                (
                    "reads before the first pixel",
                    ("max(ratio * (float(i) + 0.5f) - 0.5f, 0.0f)", 0, "ratio * (float(i) + 0.5f) - 0.5f"),
                ),
                ("reads past the last pixel", ("min(first + 1, len - 1)", 0, "first + 1")),
            ],
        ),
        of(
            "pack.metal",
            None,
            ("pack", tables::packs),
            &[
                ("packs one pixel too many", ("pixel >= pixels", 0, "pixel > pixels")),
                ("reads one plane too many", ("channel < p.c ?", 0, "channel <= p.c ?")),
                ("writes one channel too many", ("channel < p.cs;", 0, "channel <= p.cs;")),
                ("does not clear the padding", ("channel < p.cs;", 0, "channel < p.c;")),
                ("unpacks one pixel too many", ("pixel >= pixels", 1, "pixel > pixels")),
                ("writes one plane too many", ("channel < p.c;", 0, "channel <= p.c;")),
            ],
        ),
        of(
            "prepare.metal",
            None,
            ("prepare", tables::preparations),
            &[
                ("writes one pixel too many", ("pixel >= p.pixels", 0, "pixel > p.pixels")),
                ("reads a row below the photo", ("row < p.photo_h", 0, "row <= p.photo_h")),
                ("reads a column right of the photo", ("column < p.photo_w", 0, "column <= p.photo_w")),
            ],
        ),
        of(
            "pointwise.metal",
            None,
            ("pointwise", tables::pointwise_operations),
            &[
                ("clamps eight numbers too many", ("first >= p.len", 0, "first > p.len")),
                ("adds eight numbers too many", ("first >= p.len", 1, "first > p.len")),
            ],
        ),
        of(
            "concat.metal",
            None,
            ("concat", tables::concatenations),
            &[
                ("writes one number too many", ("index >= p.pixels", 0, "index > p.pixels")),
                ("copies past the last channel", ("channel < p.part_c", 0, "channel <= p.part_c")),
            ],
        ),
        of(
            "conv.metal",
            None,
            ("conv", tables::convolutions),
            &[
                ("reads a slab before it is loaded", (BARRIER, 0, "")),
                ("overwrites a slab that is still being read", (BARRIER, 1, "")),
                ("skips the first row", ("y >= 0", 0, "y > 0")),
                ("reads a row below the map", ("y < int(p.h)", 0, "y <= int(p.h)")),
                ("skips the first column", ("at >= 0", 0, "at > 0")),
                ("reads a column right of the map", ("at < int(p.w)", 0, "at <= int(p.w)")),
                ("skips the last channels", ("channel < p.in_cs", 0, "channel + 8 < p.in_cs")),
                ("skips the last weights", ("input < p.in_cs", 0, "input + 1 < p.in_cs")),
                ("writes one pixel too many", ("output >= pixels", 0, "output > pixels")),
                ("writes four channels too many", ("column >= p.out_cs", 0, "column > p.out_cs")),
            ],
        ),
        of(
            "conv_mma.metal",
            Some("conv.metal"),
            ("conv", |device, element| tables::convolutions_by(device, element, Some(Kernel::SIMDGROUP_NARROW))),
            &[
                ("reads a slab before it is loaded", (BARRIER, 0, "")),
                ("overwrites a slab that is still being read", (BARRIER, 1, "")),
                ("reads a sum before it is stored", (SIMD_BARRIER, 0, "")),
                ("overwrites a sum that is still being read", (SIMD_BARRIER, 1, "")),
                ("skips the first row", ("y >= 0", 0, "y > 0")),
                ("reads a row below the map", ("y < int(p.h)", 0, "y <= int(p.h)")),
                ("skips the first column", ("at >= 0", 0, "at > 0")),
                ("reads a column right of the map", ("at < int(p.w)", 0, "at <= int(p.w)")),
                ("multiplies channels that do not exist", ("channel < p.in_cs", 0, "channel <= p.in_cs")),
                ("multiplies by weights that do not exist", ("input < p.in_cs", 0, "input <= p.in_cs")),
                ("writes one pixel too many", ("(pixel < pixels &&", 1, "(pixel <= pixels &&")),
                ("writes two channels too many", ("channel < p.out_cs", 0, "channel <= p.out_cs")),
            ],
        ),
        of(
            "resize_add.metal",
            None,
            ("resize_add", tables::resizes),
            &[
                ("writes one pixel too many", ("pixel >= pixels", 0, "pixel > pixels")),
                ("writes one pixel too many of a sum", ("pixel >= pixels", 1, "pixel > pixels")),
                ("uses columns as rows", ("pixel / p.out_w, p.h)", 0, "pixel / p.out_w, p.w)")),
                ("uses rows as columns", ("pixel % p.out_w, p.w)", 0, "pixel % p.out_w, p.h)")),
                ("uses columns as rows of a sum", ("pixel / p.out_w, p.h)", 1, "pixel / p.out_w, p.w)")),
                ("uses rows as columns of a sum", ("pixel % p.out_w, p.w)", 1, "pixel % p.out_w, p.h)")),
            ],
        ),
        of(
            "pool.metal",
            None,
            ("pool", tables::pools),
            &[
                ("writes one pixel too many", ("pixel >= pixels", 0, "pixel > pixels")),
                ("begins above the map", ("uint(max(top, 0))", 0, "uint(top)")),
                ("begins left of the map", ("uint(max(left, 0))", 0, "uint(left)")),
                ("ends below the map", (", p.h);", 0, ", p.h + 1);")),
                ("ends right of the map", (", p.w);", 0, ", p.w + 1);")),
                ("uses columns as rows", (", p.h);", 0, ", p.w);")),
                ("uses rows as columns", (", p.w);", 0, ", p.h);")),
                ("adds one row too many", ("row < y1", 0, "row <= y1")),
                ("adds one column too many", ("column < x1", 0, "column <= x1")),
                ("adds sums before they are stored", (BARRIER, 0, "")),
                ("skips the last pixel", ("pixel < pixels", 0, "pixel + 1 < pixels")),
                ("reads one pixel too many", ("pixel < pixels", 0, "pixel <= pixels")),
                ("skips the last part", ("other < 8", 0, "other < 7")),
                ("writes one channel too many", ("part == 0 && channel < p.cs", 0, "part == 0 && channel <= p.cs")),
                ("writes one maximum too many", ("pixel >= pixels", 1, "pixel > pixels")),
                ("rounds a window's last row down", ("((row + 1) * p.h + p.side - 1)", 0, "((row + 1) * p.h)")),
                (
                    "rounds a window's last column down",
                    ("((column + 1) * p.w + p.side - 1)", 0, "((column + 1) * p.w)"),
                ),
                ("reads one row too many", ("y < y1", 0, "y <= y1")),
                ("reads one column too many", ("at < x1", 0, "at <= x1")),
            ],
        ),
        of(
            "ea_norm.metal",
            None,
            ("ea_norm", tables::normalizations),
            &[
                ("combines partial results too early", (BARRIER, 0, "")),
                ("normalizes by sums that are not ready", (BARRIER, 1, "")),
                ("reads one pixel too many", ("pixel < p.pixels", 0, "pixel <= p.pixels")),
                ("skips the last part", ("other < 8", 1, "other < 7")),
                ("skips the last split", ("split < p.splits", 1, "split + 1 < p.splits")),
                ("normalizes one pixel too many", ("pixel >= p.pixels", 0, "pixel > p.pixels")),
                ("adds one channel too many", ("i < group", 1, "i <= group")),
                ("normalizes one channel too many", ("i < group", 2, "i <= group")),
            ],
        ),
        of(
            "cross_attend.metal",
            None,
            ("cross_attend", tables::attentions),
            &[
                ("overwrites keys that are still being read", (BARRIER, 0, "")),
                ("reads keys before they are loaded", (BARRIER, 1, "")),
                ("reads weights too early", (SIMD_BARRIER, 0, "")),
                ("queries one pixel too many", ("pixel < pixels", 0, "pixel <= pixels")),
                ("weighs a key that does not exist", ("first + lane >= count", 0, "first + lane > count")),
                ("adds a value that does not exist", ("min(16u, count - first)", 0, "min(16u, count - first + 1)")),
                ("compares one channel too many", ("min(64u, p.c - begin)", 0, "min(64u, p.c - begin + 1)")),
                ("does not clear the padding", ("channel >= p.cs", 0, "channel >= p.c")),
                ("writes one channel too many", ("channel >= p.cs", 0, "channel > p.cs")),
            ],
        ),
        of(
            "argmax.metal",
            None,
            ("argmax", tables::readouts),
            &[
                ("writes one row too many", ("row >= p.out_h", 0, "row > p.out_h")),
                ("writes one column too many", ("column >= p.out_w", 0, "column > p.out_w")),
                ("writes one plane too many", ("c < p.classes", 0, "c <= p.classes")),
                ("classifies one row too many", ("row >= p.out_h", 1, "row > p.out_h")),
                ("classifies one column too many", ("column >= p.out_w", 1, "column > p.out_w")),
                ("considers one class too many", ("c < p.classes", 1, "c <= p.classes")),
                ("computes confidence with one class too many", ("c < p.classes", 2, "c <= p.classes")),
                ("picks the last of equal classes", ("value > greatest", 0, "value >= greatest")),
                ("uses columns as rows", ("row, p.h)", 0, "row, p.w)")),
                ("uses rows as columns", ("column, p.w)", 0, "column, p.h)")),
            ],
        ),
    ]
    .concat()
}

#[test]
fn a_missing_barrier_or_a_wrong_bound_is_noticed() {
    let find = |file: &str| FILES.iter().find(|(name, _)| *name == file).expect("the file is listed").1;
    let mutants = mutants();
    let changed: Vec<_> = mutants.iter().map(|mutant| changed(mutant.file, find(mutant.file), mutant.change)).collect();
    let variants: Vec<Vec<_>> = mutants
        .iter()
        .zip(&changed)
        .map(|(mutant, text)| {
            // In list order.
            let needed = |name| name == "common.metal" || mutant.with == Some(name) || name == mutant.file;
            let files = FILES.iter().filter(|(name, _)| needed(*name));
            let text = |name, all| if name == mutant.file { text.as_str() } else { all };
            files.map(|&(name, all)| Source { name, text: text(name, all), compiled: true }).collect()
        })
        .collect();
    let passed = unnoticed(Dialect::Metal, &variants, |i, device| {
        let (_, table) = mutants[i].table;
        table(&device, GpuElement::F32);
    });
    let passed: Vec<_> =
        passed.into_iter().map(|i| format!("{}: a kernel that {}", mutants[i].file, mutants[i].why)).collect();
    assert!(passed.is_empty(), "the tables do not detect: {passed:#?}");
}

#[test]
fn kernels_and_host_agree_on_parameters() {
    macro_rules! all {
        ($($file:literal $params:path;)*) => { [$(($file, stringify!($params), <$params>::FIELDS)),*] };
    }
    let params = all! {
        "argmax.metal" argmax::ArgmaxParams;
        "argmax.metal" argmax::UpsampleParams;
        "concat.metal" concat::ConcatParams;
        "conv.metal" conv::ConvParams;
        "cross_attend.metal" cross_attend::CrossAttendParams;
        "ea_norm.metal" ea_norm::EaStatsParams;
        "ea_norm.metal" ea_norm::EaNormParams;
        "pack.metal" pack::PackParams;
        "pointwise.metal" pointwise::PointwiseParams;
        "pool.metal" pool::AvgPoolParams;
        "pool.metal" pool::GlobalAvgPoolParams;
        "pool.metal" pool::MaxPoolToParams;
        "prepare.metal" prepare::PrepareParams;
        "resize_add.metal" resize_add::ResizeParams;
    };
    for (file, path, fields) in params {
        let name = path.rsplit(':').next().expect("a path has a last component").trim();
        let (_, source) = FILES.iter().find(|(name, _)| *name == file).expect("the file is listed");
        let want: Vec<_> = fields.iter().map(|(kind, field)| ((*kind).to_owned(), (*field).to_owned())).collect();
        assert_eq!(declared(source, name), Some(want), "{file}, {name}");
    }
}

/// `kernel` is a valid name in C++ but not in Metal. The emulation's shim rejects the other such words itself.
#[test]
fn no_kernel_is_named_kernel() {
    for (name, text) in FILES {
        let code = text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n");
        let words = code.replace("[[kernel", "");
        let mut words = words.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(words.all(|word| word != "kernel"), "{name} uses the keyword `kernel` for a name");
    }
}
