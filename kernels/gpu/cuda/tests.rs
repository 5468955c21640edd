//! The device's choices, its errors, and its kernels under emulation.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::source::{FILES, is_header, source};
use super::*;
use crate::gpu::emulated::{Dialect, Emulated};
use crate::gpu::tests::{Change, changed, declared};
use crate::gpu::{argmax, concat, conv, cross_attend, ea_norm, pack, pointwise, pool, prepare, resize_add, tables};

#[test]
fn convolutions_take_the_largest_tile_that_keeps_the_gpu_busy() {
    let conv = |out_w, out_cs| ConvParams { n: 1, out_h: 128, out_w, out_cs, ..ConvParams::default() };
    let name = |element, conv| conv_kernel(element, &conv, 132).name;
    assert_eq!(name(GpuElement::F32, conv(256, 64)), "conv", "an exact product has no tensor core");
    assert_eq!(name(GpuElement::F16, conv(256, 32)), "conv_mma_128x32");
    assert_eq!(name(GpuElement::F16, conv(256, 256)), "conv_mma_128x64");
    assert_eq!(name(GpuElement::F16, conv(64, 64)), "conv_mma_64x64");
}

#[test]
fn attention_takes_tensor_cores_where_they_can() {
    let name = |element, c| attend_kernel(element, &CrossAttendParams { c, ..CrossAttendParams::default() }).name;
    assert_eq!(name(GpuElement::F32, 64), "cross_attend");
    for (c, want) in [(64, "cross_attend_mma_64"), (72, "cross_attend_mma_128"), (128, "cross_attend_mma_128")] {
        assert_eq!(name(GpuElement::F16, c), want);
    }
    assert_eq!((name(GpuElement::F16, 63), name(GpuElement::F16, 136)), ("cross_attend", "cross_attend"));
}

#[test]
fn every_kernel_that_may_be_chosen_is_in_the_ptx() {
    for name in [NARROW.name, LARGE.name, SMALL.name, "cross_attend_mma_64", "cross_attend_mma_128"] {
        assert!(ptx::file_of(&format!("{name}_f16")).is_some(), "{name}");
    }
}

#[test]
fn a_machine_without_a_driver_says_so() {
    match Cuda::open(0) {
        Ok(device) => println!("there is one: {device:?}"),
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

/// The kernels that the table's small shapes would not choose.
#[test]
fn every_twin_agrees_with_the_same_definition() {
    let Some(device) = Emulated::cuda() else { return };
    let plain = device.clone().choosing(|_, _| ConvKernel::PLAIN, |_, _| AttendKernel::PLAIN);
    tables::convolutions(&plain, GpuElement::F16);
    tables::attentions(&plain, GpuElement::F16);
    let of = |choice: fn(GpuElement, &ConvParams) -> ConvKernel| device.clone().choosing(choice, attend_kernel);
    for device in [of(|_, _| NARROW), of(|_, _| SMALL), of(|_, _| LARGE)] {
        tables::convolutions(&device, GpuElement::F16);
    }
}

type Table = fn(&Emulated, GpuElement);

/// A change to a kernel, and the table that has to notice it.
struct Mutant {
    why: &'static str,
    file: &'static str,
    change: Change,
    element: GpuElement,
    table: Table,
}

/// Every barrier of every kernel, and bounds.
fn mutants() -> Vec<Mutant> {
    const BARRIER: &str = "__syncthreads();";
    const NORMED: &str = "== nullptr) { prologue(v, scale, shift, 0, p.flags); return; }";
    let mutant = |why, file, change, element, table| Mutant { why, file, change, element, table };
    let (conv, attend): (Table, Table) = (tables::convolutions, tables::attentions);
    let (pool, norm): (Table, Table) = (tables::pools, tables::normalizations);
    let prepare: Table = tables::preparations;
    let (resize, read): (Table, Table) = (tables::resizes, tables::readouts);
    let (f32, f16) = (GpuElement::F32, GpuElement::F16);
    vec![
        mutant("reads inputs before they are there", "conv/conv.cu", (BARRIER, 0, ""), f32, conv),
        mutant("overwrites inputs that are read", "conv/conv.cu", (BARRIER, 1, ""), f32, conv),
        mutant("writes a pixel too many", "conv/conv.cu", ("pixel < pixels", 0, "pixel <= pixels"), f32, conv),
        mutant("norms the padding", "conv/conv.cuh", ("== nullptr) return;", 0, NORMED), f32, conv),
        mutant("reads a row below the map", "conv/conv.cuh", ("y < (int)p.h", 0, "y <= (int)p.h"), f32, conv),
        mutant("waits for too few copies", "conv/conv_mma.cu", ("wait<STAGES - 2>", 0, "wait<STAGES - 1>"), f16, conv),
        mutant("overwrites what is multiplied", "conv/conv_mma.cu", (BARRIER, 0, ""), f16, conv),
        mutant("stores sums over inputs", "conv/conv_mma.cu", (BARRIER, 1, ""), f16, conv),
        mutant("reads sums before they are there", "conv/conv_mma.cu", (BARRIER, 2, ""), f16, conv),
        mutant(
            "multiplies weights that are not there",
            "conv/conv_mma.cu",
            ("step * STEP + k < rows &&", 0, ""),
            f16,
            conv,
        ),
        mutant("overwrites keys that are read", "cross_attend/cross_attend.cu", (BARRIER, 0, ""), f32, attend),
        mutant("reads keys before they are there", "cross_attend/cross_attend.cu", (BARRIER, 1, ""), f32, attend),
        mutant("reads scores too early", "cross_attend/cross_attend.cu", (BARRIER, 2, ""), f32, attend),
        mutant("reads weights too early", "cross_attend/cross_attend.cu", (BARRIER, 3, ""), f32, attend),
        mutant("overwrites factors that are read", "cross_attend/cross_attend.cu", (BARRIER, 4, ""), f32, attend),
        mutant("divides by sums that are not there", "cross_attend/cross_attend.cu", (BARRIER, 5, ""), f32, attend),
        mutant(
            "counts a key too many",
            "cross_attend/cross_attend.cu",
            ("first_key + j < keys ?", 0, "true ?"),
            f32,
            attend,
        ),
        mutant("reads queries too early", "cross_attend/cross_attend_mma.cu", (BARRIER, 0, ""), f16, attend),
        mutant("reads keys too early", "cross_attend/cross_attend_mma.cu", (BARRIER, 1, ""), f16, attend),
        mutant("overwrites values that are read", "cross_attend/cross_attend_mma.cu", (BARRIER, 2, ""), f16, attend),
        mutant("reads means too early", "cross_attend/cross_attend_mma.cu", (BARRIER, 3, ""), f16, attend),
        mutant("does not wait", "cross_attend/cross_attend_mma.cu", ("copies.wait<0>();", 0, ""), f16, attend),
        mutant("puts parts together too early", "ea_norm/ea_norm.cu", (BARRIER, 0, ""), f32, norm),
        mutant("norms by what is not there", "ea_norm/ea_norm.cu", (BARRIER, 1, ""), f32, norm),
        mutant("norms another image's pixel", "ea_norm/ea_norm.cu", (", p.pixels)", 0, ", p.pixels + 1)"), f32, norm),
        mutant(
            "writes a pixel too many",
            "prepare/prepare.cu",
            ("pixel >= p.pixels", 0, "pixel > p.pixels"),
            f32,
            prepare,
        ),
        mutant("adds up sums that are not there", "pool/pool.cu", (BARRIER, 0, ""), f32, pool),
        mutant("leaves out the last row", "pool/pool.cu", ("y < bottom", 0, "y < bottom - 1"), f32, pool),
        mutant("looks past the last pixel", "gpu/common.cuh", (", len - 1);", 1, ", len);"), f32, resize),
        mutant(
            "lets the last of equals win",
            "argmax/argmax.cu",
            ("logit[i] > best", 0, "logit[i] >= best"),
            f32,
            read,
        ),
    ]
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
            // Only what is changed is compiled; of a header, who includes it.
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
    let devices = Emulated::variants(Dialect::Cuda, &variants).unwrap_or_else(|e| panic!("{e}"));
    let Some(devices) = devices else {
        println!("SKIPPED: no C++ compiler");
        return;
    };
    for (Mutant { why, file, element, table, .. }, device) in mutants.iter().zip(devices) {
        let device = device.choosing(|element, conv| conv_kernel(element, conv, 1), attend_kernel);
        let noticed = catch_unwind(AssertUnwindSafe(|| table(&device, *element))).is_err();
        assert!(noticed, "{file}, which {why}, passes its table");
    }
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
        let name = path.rsplit(':').next().expect("a path has a last part").trim();
        let want: Vec<_> = fields.iter().map(|(kind, field)| ((*kind).to_owned(), (*field).to_owned())).collect();
        let found: Vec<_> = FILES.iter().filter_map(|(_, source)| declared(source, name)).collect();
        assert_eq!(found, [want], "{name}");
    }
}
