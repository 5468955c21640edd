//! The kernels of either language under emulation, and the proof that the emulation would tell.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::emulated::{Dialect, Emulated, Source};
use super::metal_source::FILES;
use super::tables::{self, Table};
use super::*;

#[test]
fn metal_kernels_agree_with_their_definitions() {
    let Some(device) = Emulated::metal() else { return };
    for element in [GpuElement::F32, GpuElement::F16] {
        for (name, table) in tables::all() {
            let start = std::time::Instant::now();
            table(&device, element);
            println!("{name} in {}: {} ms", element.suffix(), start.elapsed().as_millis());
        }
        // The device chooses by shape; here each of its convolutions meets each shape.
        let attend: fn(_, &_) -> _ = |_, _| cross_attend::AttendKernel::PLAIN;
        let choices: [fn(GpuElement, &conv::ConvParams) -> conv::ConvKernel; 3] =
            [|_, _| conv::ConvKernel::PLAIN, |_, _| metal_source::MMA, |_, _| metal_source::MMA_NARROW];
        for choice in choices {
            tables::convolutions(&device.clone().choosing(choice, attend), element);
        }
    }
}

/// A change to a kernel, and the table that has to notice it.
struct Mutant {
    why: &'static str,
    file: &'static str,
    change: Change,
    table: Table<Emulated>,
    /// The file that it uses, and the convolution that is changed.
    conv: (Option<&'static str>, conv::ConvKernel),
}

/// Every barrier of every kernel, and a bound of each.
fn mutants() -> Vec<Mutant> {
    const BARRIER: &str = "threadgroup_barrier(mem_flags::mem_threadgroup);";
    const SIMD_BARRIER: &str = "simdgroup_barrier(mem_flags::mem_threadgroup);";
    let plain = (None, conv::ConvKernel::PLAIN);
    let mutant = |why, file, change, table| Mutant { why, file, change, table, conv: plain };
    let mma = |why, change| {
        let conv = (Some("conv.metal"), metal_source::MMA_NARROW);
        Mutant { why, file: "conv_mma.metal", change, table: ("conv", tables::convolutions), conv }
    };
    let conv: Table<Emulated> = ("conv", tables::convolutions);
    let prepare: Table<Emulated> = ("prepare", tables::preparations);
    let pool: Table<Emulated> = ("pool", tables::pools);
    let norm: Table<Emulated> = ("ea_norm", tables::normalizations);
    let attend: Table<Emulated> = ("cross_attend", tables::attentions);
    vec![
        mutant("reads a slab before it is there", "conv.metal", (BARRIER, 0, ""), conv),
        mutant("overwrites a slab that is read", "conv.metal", (BARRIER, 1, ""), conv),
        mutant("writes one pixel too many", "conv.metal", ("output >= pixels", 0, "output > pixels"), conv),
        mutant("forgets the last channels", "conv.metal", ("channel < p.in_cs", 0, "channel + 8 < p.in_cs"), conv),
        mma("reads a slab before it is there", (BARRIER, 0, "")),
        mma("overwrites a slab that is read", (BARRIER, 1, "")),
        mma("reads a sum before it is there", (SIMD_BARRIER, 0, "")),
        mma("overwrites a sum that is read", (SIMD_BARRIER, 1, "")),
        mma(
            "writes one pixel too many",
            ("(pixel < pixels && channel < p.out_cs)", 0, "(pixel <= pixels && channel < p.out_cs)"),
        ),
        mutant("writes one pixel too many", "prepare.metal", ("pixel >= p.pixels", 0, "pixel > p.pixels"), prepare),
        mutant("adds up sums that are not there", "pool.metal", (BARRIER, 0, ""), pool),
        mutant("leaves out the last pixel", "pool.metal", ("pixel < pixels", 0, "pixel + 1 < pixels"), pool),
        mutant("puts splits together too early", "ea_norm.metal", (BARRIER, 0, ""), norm),
        mutant("norms by what is not there", "ea_norm.metal", (BARRIER, 1, ""), norm),
        mutant("norms one pixel too many", "ea_norm.metal", ("pixel >= p.pixels", 0, "pixel > p.pixels"), norm),
        mutant("overwrites keys that are read", "cross_attend.metal", (BARRIER, 0, ""), attend),
        mutant("reads keys before they are there", "cross_attend.metal", (BARRIER, 1, ""), attend),
        mutant("reads weights too early", "cross_attend.metal", (SIMD_BARRIER, 0, ""), attend),
        mutant(
            "weighs a key that does not exist",
            "cross_attend.metal",
            ("first + lane >= count", 0, "first + lane > count"),
            attend,
        ),
    ]
}

#[test]
fn a_missing_barrier_or_a_wrong_bound_is_noticed() {
    let find = |file: &str| FILES.iter().find(|(name, _)| *name == file).expect("the file is listed").1;
    let mutants = mutants();
    let changed: Vec<_> = mutants.iter().map(|mutant| changed(mutant.file, find(mutant.file), mutant.change)).collect();
    let variants: Vec<_> = mutants
        .iter()
        .zip(&changed)
        .map(|(mutant, text)| {
            let source = |name, text| Source { name, text, compiled: true };
            let uses = mutant.conv.0.map(|file| source(file, find(file)));
            [source("common.metal", find("common.metal"))]
                .into_iter()
                .chain(uses)
                .chain([source(mutant.file, text)])
                .collect()
        })
        .collect();
    let devices = Emulated::variants(Dialect::Metal, &variants).unwrap_or_else(|e| panic!("{e}"));
    let Some(devices) = devices else {
        println!("SKIPPED: no C++ compiler");
        return;
    };
    for (Mutant { why, file, table: (name, table), conv, .. }, device) in mutants.iter().zip(devices) {
        let conv: fn(GpuElement, &conv::ConvParams) -> conv::ConvKernel = if conv.1 == metal_source::MMA_NARROW {
            |_, _| metal_source::MMA_NARROW
        } else {
            |_, _| conv::ConvKernel::PLAIN
        };
        let device = device.choosing(conv, |_, _| cross_attend::AttendKernel::PLAIN);
        let noticed = catch_unwind(AssertUnwindSafe(|| table(&device, GpuElement::F32))).is_err();
        assert!(noticed, "{file}, which {why}, passes the table of {name}");
    }
}

/// A change to a text: what is changed, the how manyth of its occurrences, and what is put in its place.
pub(super) type Change = (&'static str, usize, &'static str);

/// The kernel `text` of `file` with a change to it.
pub(super) fn changed(file: &str, text: &str, (what, which, instead): Change) -> String {
    let (at, _) = text.match_indices(what).nth(which).unwrap_or_else(|| panic!("{file} has not `{what}`"));
    format!("{}{instead}{}", &text[..at], &text[at + what.len()..])
}

/// The struct of that name in a kernel's source, if it is there: kind and name of each field.
pub(super) fn declared(source: &str, name: &str) -> Option<Vec<(String, String)>> {
    let (_, rest) = source.split_once(&format!("struct {name} {{"))?;
    let (body, _) = rest.split_once("};")?;
    let lines: Vec<_> = body.lines().filter_map(|line| line.split("//").next()).collect();
    let mut fields = Vec::new();
    for line in lines.join(" ").split(';').map(str::trim).filter(|line| !line.is_empty()) {
        let (kind, names) = line.split_once(' ')?;
        let kind = match kind {
            "uint" | "u32" => "u32",
            "float" => "f32",
            other => panic!("{name} has a field of {other}"),
        };
        fields.extend(names.split(',').map(|field| (kind.to_owned(), field.trim().to_owned())));
    }
    Some(fields)
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
        let name = path.rsplit(':').next().expect("a path has a last part").trim();
        let (_, source) = FILES.iter().find(|(name, _)| *name == file).expect("the file is listed");
        let want: Vec<_> = fields.iter().map(|(kind, field)| ((*kind).to_owned(), (*field).to_owned())).collect();
        assert_eq!(declared(source, name), Some(want), "{file}, {name}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let Some(device) = &Emulated::metal() else { return };
    let shape = |n, channels, height, width| GpuShape { n, channels, height, width };
    let map = |s: GpuShape| pack::pack(device, &vec![0.0; s.n * s.channels * s.pixels()], s, GpuElement::F32);
    let (x, other) = (map(shape(1, 4, 3, 3)).expect("it fits"), map(shape(1, 4, 3, 4)).expect("it fits"));
    let mut scores = map(shape(1, 4, 3, 3)).expect("it fits");
    let norm = conv::GpuNorm::new(device, &[1.0; 3], &[0.0; 3]).expect("it fits");
    let halves = pack::pack(device, &[0.0; 36], shape(1, 4, 3, 3), GpuElement::F16).expect("it fits");

    assert!(pack::pack(device, &[0.0; 3], shape(1, 4, 1, 1), GpuElement::F32).is_err());
    assert!(pack::pack(device, &[], shape(0, 4, 1, 1), GpuElement::F32).is_err());
    assert!(pack::unpack(device, &x, &mut [0.0; 35]).is_err());
    let table = prepare::Table::new(device, &[[0.0; 256]; 3]).expect("there is memory");
    let prepared = |room: usize, bytes, offsets, shape| {
        let layout = prepare::PixelLayout { bytes, offsets };
        let pixels = device.buffer(room).expect("there is memory");
        prepare::prepare(device, &pixels, layout, &table, shape, GpuElement::F32)
    };
    assert!(prepared(36, 3, [2, 1, 0], shape(2, 3, 2, 3)).is_ok());
    assert!(prepared(35, 3, [2, 1, 0], shape(2, 3, 2, 3)).is_err());
    assert!(prepared(36, 3, [3, 1, 0], shape(2, 3, 2, 3)).is_err());
    assert!(prepared(36, 0, [0, 0, 0], shape(2, 3, 2, 3)).is_err());
    assert!(prepared(99, 5, [0, 1, 2], shape(2, 3, 2, 3)).is_err());
    assert!(prepared(99, 4, [0, 1, 2], shape(2, 4, 2, 3)).is_err());
    assert!(prepared(99, 4, [0, 1, 2], shape(2, 3, 0, 3)).is_err());
    assert!(prepared(99, 4, [0, 1, 2], shape(usize::MAX, 3, 2, 3)).is_err());
    assert!(pointwise::add(device, &x, &other).is_err());
    assert!(pointwise::add(device, &x, &halves).is_err());
    assert!(concat::concat::<Emulated>(device, &[]).is_err());
    assert!(concat::concat(device, &[&x, &other]).is_err());
    assert!(resize_add::resize(device, &x, (0, 3)).is_err());
    assert!(resize_add::resize_add(device, &x, &map(shape(1, 5, 6, 6)).expect("it fits")).is_err());
    for window in [[5, 2, 0], [0, 1, 0], [3, 0, 1], [3, 1, 3], [usize::MAX, 2, 2]] {
        assert!(pool::avg_pool(device, &x, window).is_err(), "{window:?}");
    }
    assert!(pool::max_pool_to(device, &x, &norm, 2).is_err());
    assert!(ea_norm::ea_norm(device, &mut scores, 3).is_err());
    assert!(ea_norm::ea_norm(device, &mut scores, 0).is_err());
    assert!(cross_attend::cross_attend(device, &x, &norm, &x).is_err());
    let ids = |image, len, size| argmax::argmax(device, &x, image, size, argmax::GpuIds::U8(&mut vec![0; len]), None);
    assert!(ids(0, 5, (2, 3)).is_err());
    assert!(ids(1, 6, (2, 3)).is_err());
    assert!(ids(0, 0, (0, 3)).is_err());
    assert!(argmax::upsample(device, &x, 0, (2, 3), &mut [0.0; 23]).is_err());
    let spec = crate::ConvShape { in_channels: 4, out_channels: 2, kernel: 1, stride: 1, padding: 0 };
    let layer = |weight: usize, bias: usize, spec| {
        conv::GpuConv::new(device, spec, &vec![0.0; weight], &vec![0.0; bias], None, GpuElement::F32)
    };
    assert!(layer(7, 2, spec).is_err() && layer(8, 1, spec).is_err());
    assert!(layer(200, 2, crate::ConvShape { kernel: 5, padding: 2, ..spec }).is_err());
    let layer = layer(8, 2, spec).expect("it fits");
    let plain = conv::GpuEpilogue { residual: None, activation: crate::Activation::None };
    assert!(conv::conv(device, &layer, &halves, &plain).is_err());
    assert!(conv::conv(device, &layer, &x, &conv::GpuEpilogue { residual: Some(&x), ..plain }).is_err());
}

#[test]
fn errors_say_what_was_needed_and_what_was_there() {
    let error = GpuError::OutOfMemory { bytes: 7, free: Some(5) }.to_string();
    assert_eq!(error, "7 bytes of device memory were needed, 5 were free; take a smaller size or batch");
    assert!(!GpuError::OutOfMemory { bytes: 7, free: None }.to_string().contains("free"));
    assert_eq!((blocks(1), blocks(256), blocks(257)), (1, 1, 2));
}

/// C++ takes it for a name, Metal does not; the emulation's shim refuses the other such words itself.
#[test]
fn no_kernel_is_named_kernel() {
    for (name, text) in FILES {
        let code = text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n");
        let words = code.replace("[[kernel", "");
        let mut words = words.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(words.all(|word| word != "kernel"), "{name} uses the keyword `kernel` for a name");
    }
}
