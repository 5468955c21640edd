//! Tests the kernels of both languages under emulation, and proves that the emulation detects faults.

mod metal;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::emulated::{Dialect, Emulated, Source};
use super::*;
use crate::Extent;
use crate::argmax::gpu as argmax;
use crate::concat::gpu as concat;
use crate::conv::gpu as conv;
use crate::cross_attend::gpu as cross_attend;
use crate::ea_norm::gpu as ea_norm;
use crate::pack::gpu as pack;
use crate::pointwise::gpu as pointwise;
use crate::pool::gpu as pool;
use crate::prepare::gpu as prepare;
use crate::resize_add::gpu as resize_add;

/// The indices of the kernel variants that pass `check`, which gets a device for each variant; empty if nothing can be compiled.
pub(super) fn unnoticed(dialect: Dialect, variants: &[Vec<Source<'_>>], check: impl Fn(usize, Emulated)) -> Vec<usize> {
    let devices = Emulated::variants(dialect, variants).unwrap_or_else(|e| panic!("{e}"));
    let Some(devices) = devices else {
        println!("SKIPPED: no C++ compiler");
        return Vec::new();
    };
    let passes = |i, device: &Emulated| catch_unwind(AssertUnwindSafe(|| check(i, device.clone()))).is_ok();
    devices.iter().enumerate().filter(|&(i, device)| passes(i, device)).map(|(i, _)| i).collect()
}

/// A change to a text: the text to replace, which of its occurrences (from 0), and the replacement.
pub(super) type Change = (&'static str, usize, &'static str);

/// The source `text` of `file`, with the change applied.
pub(super) fn changed(file: &str, text: &str, (what, which, instead): Change) -> String {
    let (at, _) = text.match_indices(what).nth(which).unwrap_or_else(|| panic!("{file} does not contain `{what}`"));
    format!("{}{instead}{}", &text[..at], &text[at + what.len()..])
}

/// The fields (kind and name) of the struct with that name in a kernel's source, if it exists.
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
    let prepared = |room: usize, bytes, offsets, n, full, kept| {
        let layout = prepare::PixelLayout { bytes, offsets };
        let pixels = device.buffer(room).expect("there is memory");
        prepare::prepare(device, &pixels, layout, &table, n, Extent { full, kept }, GpuElement::F32)
    };
    assert!(prepared(36, 3, [2, 1, 0], 2, (2, 3), (2, 3)).is_ok());
    assert!(prepared(36, 3, [2, 1, 0], 2, (4, 9), (2, 3)).is_ok());
    assert!(prepared(35, 3, [2, 1, 0], 2, (4, 9), (2, 3)).is_err());
    assert!(prepared(36, 3, [3, 1, 0], 2, (2, 3), (2, 3)).is_err());
    assert!(prepared(36, 0, [0, 0, 0], 2, (2, 3), (2, 3)).is_err());
    assert!(prepared(99, 5, [0, 1, 2], 2, (2, 3), (2, 3)).is_err());
    assert!(prepared(99, 4, [0, 1, 2], 2, (0, 3), (0, 3)).is_err());
    assert!(prepared(99, 4, [0, 1, 2], 1, (2, 3), (3, 3)).is_err());
    assert!(prepared(99, 4, [0, 1, 2], usize::MAX, (2, 3), (2, 3)).is_err());
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
    let error = GpuError::OutOfMemory { memory: MemoryKind::Device, bytes: 7, free: Some(5) }.to_string();
    assert_eq!(error, "not enough memory: needed 7 bytes of device memory, 5 were free; use a smaller size or batch");
    let error = GpuError::OutOfMemory { memory: MemoryKind::Pinned, bytes: 7, free: None }.to_string();
    assert_eq!(error, "not enough memory: needed 7 bytes of pinned host memory; use a smaller size or batch");
    assert_eq!((blocks(1), blocks(256), blocks(257)), (1, 1, 2));
}
