//! The device's choices, its errors, and its kernels under emulation.

use super::source::{FILES, is_header, source};
use super::*;
use crate::argmax::gpu as argmax;
use crate::concat::gpu as concat;
use crate::conv::gpu::{self as conv, Kernel};
use crate::cross_attend::gpu as cross_attend;
use crate::ea_norm::gpu as ea_norm;
use crate::gpu::GpuElement;
use crate::gpu::emulated::{Dialect, Emulated};
use crate::gpu::tests::{Change, changed, declared, unnoticed};
use crate::pack::gpu as pack;
use crate::pointwise::gpu as pointwise;
use crate::pool::gpu as pool;
use crate::prepare::gpu as prepare;
use crate::resize_add::gpu as resize_add;
use crate::tables;

#[test]
fn every_kernel_that_may_be_chosen_is_in_the_ptx() {
    let convolutions = [Kernel::TENSOR_LARGE, Kernel::TENSOR_SMALL, Kernel::TENSOR_NARROW].map(|kernel| kernel.name);
    let attentions = [cross_attend::Kernel::TENSOR_64, cross_attend::Kernel::TENSOR_128].map(|kernel| kernel.name);
    for name in [&convolutions[..], &attentions].concat() {
        assert!(ptx::file_of(&format!("{name}_f16")).is_some(), "{name}");
    }
}

#[test]
fn a_machine_without_a_driver_says_so() {
    match Cuda::open(0) {
        Ok(device) => println!("found a device: {device:?}"),
        Err(error) => {
            println!("skipped: no CUDA device ({error})");
            assert!(matches!(error, GpuError::Missing(_)), "{error}");
            assert!(error.to_string().contains("--device cpu"), "{error}");
        }
    }
}

#[test]
fn cuda_kernels_agree_with_their_definitions() {
    let Some(device) = Emulated::cuda() else { return };
    for element in [GpuElement::F32, GpuElement::F16] {
        for (name, table) in tables::all() {
            let start = std::time::Instant::now();
            table(&device, element);
            println!("{name} in {}: {} ms", element.suffix(), start.elapsed().as_millis());
        }
    }
}

/// The kernels that the table's small shapes would not select.
#[test]
fn every_twin_agrees_with_the_same_definition() {
    let Some(device) = Emulated::cuda() else { return };
    tables::convolutions_by(&device, GpuElement::F16, Some(Kernel::PLAIN));
    tables::attentions_by(&device, GpuElement::F16, Some(cross_attend::Kernel::PLAIN));
    for kernel in [Kernel::TENSOR_NARROW, Kernel::TENSOR_SMALL, Kernel::TENSOR_LARGE] {
        tables::convolutions_by(&device, GpuElement::F16, Some(kernel));
        tables::batches_by(&device, GpuElement::F16, Some(kernel));
    }
}

type Table = fn(&Emulated, GpuElement);

/// A change to a kernel, and the table that must detect it.
#[derive(Clone)]
struct Mutant {
    why: &'static str,
    file: &'static str,
    change: Change,
    table: Table,
}

/// Every barrier of every kernel, and every bound whose violation changes a result. The other bounds only avoid reading values that are
/// multiplied by zero or never stored, or they exclude padding, which is zero.
#[allow(clippy::too_many_lines, reason = "this is a list")]
fn mutants() -> Vec<Mutant> {
    const BARRIER: &str = "__syncthreads();";
    const NORMED: &str = "== nullptr) { prologue(v, scale, shift, 0, p.flags); return; }";
    let of = |file, table: Table, changes: &[(&'static str, Change)]| -> Vec<_> {
        changes.iter().map(|&(why, change)| Mutant { why, file, change, table }).collect()
    };
    [
        of(
            "gpu/common.cuh",
            tables::resizes,
            &[
                (
                    "reads before the first pixel",
                    ("(float)i + 0.5f), 0.5f), 0.0f)", 0, "(float)i + 0.5f), 0.5f), -1.0f)"),
                ),
                ("reads past the last pixel", (", len - 1);", 1, ", len);")),
            ],
        ),
        of(
            "pack/pack.cu",
            tables::packs,
            &[
                ("packs one pixel too many", ("pixel >= pixels", 0, "pixel > pixels")),
                ("reads one plane too many", ("channel + i < p.c ?", 0, "channel + i <= p.c ?")),
                ("writes one piece too many", ("channel < p.cs;", 0, "channel <= p.cs;")),
                ("unpacks one pixel too many", ("pixel >= pixels", 1, "pixel > pixels")),
                ("writes one plane too many", ("channel + i < p.c)", 0, "channel + i <= p.c)")),
                ("skips the last channels", ("channel < p.cs;", 1, "channel + PIECE < p.cs;")),
            ],
        ),
        of(
            "prepare/prepare.cu",
            tables::preparations,
            &[
                ("writes one pixel too many", ("pixel >= p.pixels", 0, "pixel > p.pixels")),
                ("reads a row below the photo", ("row < p.photo_h", 0, "row <= p.photo_h")),
                ("reads a column right of the photo", ("column < p.photo_w", 0, "column <= p.photo_w")),
            ],
        ),
        of(
            "pointwise/pointwise.cu",
            tables::pointwise_operations,
            &[
                ("clamps one piece too many", ("at >= p.len", 0, "at > p.len")),
                ("adds one piece too many", ("at >= p.len", 1, "at > p.len")),
            ],
        ),
        of(
            "concat/concat.cu",
            tables::concatenations,
            &[
                ("writes one pixel too many", ("pixel >= p.pixels", 0, "pixel > p.pixels")),
                ("copies past the last channel", ("channel < p.part_c", 0, "channel <= p.part_c")),
            ],
        ),
        of(
            "conv/conv.cu",
            tables::convolutions,
            &[
                ("reads inputs before they are loaded", (BARRIER, 0, "")),
                ("overwrites inputs that are still being read", (BARRIER, 1, "")),
                (
                    "multiplies by weights that do not exist",
                    ("first + fetched_row < rows", 0, "first + fetched_row <= rows"),
                ),
                ("writes one pixel too many", ("pixel < pixels", 0, "pixel <= pixels")),
                (
                    "writes too many channels",
                    ("first_channel + column >= p.out_cs", 0, "first_channel + column > p.out_cs"),
                ),
            ],
        ),
        of(
            "conv/conv.cuh",
            tables::convolutions,
            &[
                ("normalizes the padding", ("== nullptr) return;", 0, NORMED)),
                ("reads a row above the map", ("y >= 0", 0, "y >= -1")),
                ("reads a row below the map", ("y < (int)p.h", 0, "y <= (int)p.h")),
                ("reads a column left of the map", ("x >= 0", 0, "x >= -1")),
                ("reads a column right of the map", ("x < (int)p.w", 0, "x <= (int)p.w")),
            ],
        ),
        of(
            "conv/conv_mma.cu",
            tables::convolutions,
            &[
                ("waits for too few copies", ("wait<STAGES - 2>", 0, "wait<STAGES - 1>")),
                ("overwrites operands that are still being multiplied", (BARRIER, 0, "")),
                ("stores sums over inputs that are still being read", (BARRIER, 1, "")),
                ("reads sums before they are stored", (BARRIER, 2, "")),
                ("reads a row above the map", ("at_y >= 0", 0, "at_y >= -1")),
                ("reads a row below the map", ("at_y < (int)p.h", 0, "at_y <= (int)p.h")),
                ("reads a column left of the map", ("at_x >= 0", 0, "at_x >= -1")),
                ("reads a column right of the map", ("at_x < (int)p.w", 0, "at_x <= (int)p.w")),
                ("multiplies weights that do not exist", ("step * STEP + k < rows &&", 0, "")),
                ("writes one pixel too many", ("first_pixel + row >= pixels", 0, "first_pixel + row > pixels")),
                (
                    "writes one piece too many",
                    ("first_channel + column >= p.out_cs", 0, "first_channel + column > p.out_cs"),
                ),
            ],
        ),
        of(
            "resize_add/resize_add.cu",
            tables::resizes,
            &[
                ("writes one pixel too many", ("pixel >= p.out_h * p.out_w", 0, "pixel > p.out_h * p.out_w")),
                ("uses columns as rows", ("pixel / p.out_w, p.h", 0, "pixel / p.out_w, p.w")),
                ("uses rows as columns", ("pixel % p.out_w, p.w", 0, "pixel % p.out_w, p.h")),
            ],
        ),
        of(
            "pool/pool.cu",
            tables::pools,
            &[
                ("writes one pixel too many", ("pixel >= p.out_h * p.out_w", 0, "pixel > p.out_h * p.out_w")),
                ("begins above the map", ("max(top, 0)", 0, "top")),
                ("begins left of the map", ("max(left, 0)", 0, "left")),
                ("ends below the map", ("(int)p.h),", 0, "(int)p.h + 1),")),
                ("ends right of the map", ("(int)p.w);", 0, "(int)p.w + 1);")),
                ("uses columns as rows", ("(int)p.h),", 0, "(int)p.w),")),
                ("uses rows as columns", ("(int)p.w);", 0, "(int)p.h);")),
                ("skips the last row", ("y < bottom", 0, "y < bottom - 1")),
                ("adds one row too many", ("y < bottom", 0, "y <= bottom")),
                ("adds one column too many", ("x_ < right", 0, "x_ <= right")),
                ("adds sums before they are stored", (BARRIER, 0, "")),
                ("skips the last pixel", ("pixel < pixels", 0, "pixel + 1 < pixels")),
                ("reads one pixel too many", ("pixel < pixels", 0, "pixel <= pixels")),
                ("skips half of the sums", ("others = LANES / 2", 0, "others = LANES / 4")),
                ("writes channels that do not exist", ("lane > 0 || !exists", 0, "lane > 0")),
                ("writes one maximum too many", ("pixel >= p.side * p.side", 0, "pixel > p.side * p.side")),
                (
                    "rounds a window's last row down",
                    ("ceil_div((row + 1) * p.h, p.side)", 0, "(row + 1) * p.h / p.side"),
                ),
                (
                    "rounds a window's last column down",
                    ("ceil_div((column + 1) * p.w, p.side)", 0, "(column + 1) * p.w / p.side"),
                ),
                ("reads one row too many", ("y < bottom", 1, "y <= bottom")),
                ("reads one column too many", ("x_ < right", 1, "x_ <= right")),
            ],
        ),
        of(
            "ea_norm/ea_norm.cu",
            tables::normalizations,
            &[
                ("combines partial results too early", (BARRIER, 0, "")),
                ("normalizes by sums that are not ready", (BARRIER, 1, "")),
                ("reads one pixel too many", ("pixel < p.pixels", 0, "pixel <= p.pixels")),
                ("skips the last warp", ("other < WARPS", 0, "other < WARPS - 1")),
                ("writes channels that do not exist", ("warp > 0 || !exists", 0, "warp > 0")),
                ("skips the last split", ("split < p.splits", 0, "split + 1 < p.splits")),
                ("normalizes another image's pixel", (", p.pixels)", 0, ", p.pixels + 1)")),
                ("adds one channel too many", ("channel < group", 1, "channel <= group")),
                ("normalizes one channel too many", ("channel < group", 2, "channel <= group")),
            ],
        ),
        of(
            "cross_attend/cross_attend.cu",
            tables::attentions,
            &[
                ("overwrites keys that are still being read", (BARRIER, 0, "")),
                ("reads keys before they are loaded", (BARRIER, 1, "")),
                ("reads scores too early", (BARRIER, 2, "")),
                ("reads weights too early", (BARRIER, 3, "")),
                ("overwrites factors that are still being read", (BARRIER, 4, "")),
                ("divides by sums that are not ready", (BARRIER, 5, "")),
                ("counts one key too many", ("first_key + j < keys ?", 0, "first_key + j <= keys ?")),
                ("adds values that do not exist", ("min(KEYS, keys - first_key)", 0, "KEYS")),
                ("writes too many channels", ("channel >= p.cs) return", 0, "channel > p.cs) return")),
                ("writes one pixel too many", ("pixel >= pixels", 0, "pixel > pixels")),
            ],
        ),
        of(
            "cross_attend/cross_attend_mma.cu",
            tables::attentions,
            &[
                ("reads queries too early", (BARRIER, 0, "")),
                ("reads keys too early", (BARRIER, 1, "")),
                ("overwrites values that are still being read", (BARRIER, 2, "")),
                ("reads means too early", (BARRIER, 3, "")),
                ("does not wait for the copies", ("copies.wait<0>();", 0, "")),
                ("counts one key too many", ("i % 2 < keys", 0, "i % 2 <= keys")),
                ("writes one pixel too many", ("first_pixel + row >= pixels", 0, "first_pixel + row > pixels")),
                ("writes one piece too many", ("channel >= p.cs) continue", 0, "channel > p.cs) continue")),
            ],
        ),
        of(
            "argmax/argmax.cu",
            tables::readouts,
            &[
                ("classifies one row too many", ("row >= p.out_h", 0, "row > p.out_h")),
                ("classifies one column too many", ("column >= p.out_w", 0, "column > p.out_w")),
                ("considers one class too many", ("first + i >= p.classes", 0, "first + i > p.classes")),
                ("picks the last of equal classes", ("logit[i] > best", 0, "logit[i] >= best")),
                ("writes one row too many", ("row >= p.out_h", 1, "row > p.out_h")),
                ("writes one column too many", ("column >= p.out_w", 1, "column > p.out_w")),
                ("writes one plane too many", ("first + i < p.classes", 0, "first + i <= p.classes")),
                ("uses columns as rows", ("tap(row, p.h", 0, "tap(row, p.w")),
                ("uses rows as columns", ("tap(column, p.w", 0, "tap(column, p.h")),
            ],
        ),
    ]
    .concat()
}

#[test]
fn a_missing_barrier_or_a_wrong_bound_is_noticed() {
    let find = |path: &str| FILES.iter().find(|(name, _)| *name == path).expect("the file is listed").1;
    let mutants = mutants();
    let changed: Vec<_> = mutants.iter().map(|mutant| changed(mutant.file, find(mutant.file), mutant.change)).collect();
    let variants: Vec<Vec<_>> = mutants
        .iter()
        .zip(&changed)
        .map(|(mutant, text)| {
            // Compiles only the changed file; for a header, a file that includes it.
            let compiled = match mutant.file {
                "conv/conv.cuh" => "conv/conv.cu",
                "gpu/common.cuh" => "resize_add/resize_add.cu",
                kernel => kernel,
            };
            let headers = FILES.iter().map(|(path, _)| *path).filter(|path| is_header(path));
            let of = |path| source(path, if path == mutant.file { text } else { find(path) });
            headers.chain([compiled]).map(of).collect()
        })
        .collect();
    let passed = unnoticed(Dialect::Cuda, &variants, |i, device| {
        let device = device.with(capabilities(1));
        let element = if mutants[i].file.ends_with("_mma.cu") { GpuElement::F16 } else { GpuElement::F32 };
        (mutants[i].table)(&device, element);
    });
    let passed: Vec<_> =
        passed.into_iter().map(|i| format!("{}: a kernel that {}", mutants[i].file, mutants[i].why)).collect();
    assert!(passed.is_empty(), "the tables do not detect: {passed:#?}");
}

#[test]
fn kernels_and_host_agree_on_parameters() {
    macro_rules! all {
        ($($params:path),* $(,)?) => { [$((stringify!($params), <$params>::FIELDS)),*] };
    }
    for (path, fields) in all![
        argmax::ArgmaxParams,
        argmax::UpsampleParams,
        concat::ConcatParams,
        conv::ConvParams,
        cross_attend::CrossAttendParams,
        ea_norm::EaStatsParams,
        ea_norm::EaNormParams,
        pack::PackParams,
        pointwise::PointwiseParams,
        pool::AvgPoolParams,
        pool::GlobalAvgPoolParams,
        pool::MaxPoolToParams,
        prepare::PrepareParams,
        resize_add::ResizeParams,
    ] {
        let name = path.rsplit(':').next().expect("a path has a last component").trim();
        let want: Vec<_> = fields.iter().map(|(kind, field)| ((*kind).to_owned(), (*field).to_owned())).collect();
        let found: Vec<_> = FILES.iter().filter_map(|(_, source)| declared(source, name)).collect();
        assert_eq!(found, [want], "{name}");
    }
}
