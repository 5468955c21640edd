//! The kernels in Metal's shading language. A Mac compiles them at start; the emulation compiles them for tests.

use super::{Capabilities, MatrixUnits};

/// A Mac's GPU, real or emulated. Metal does not report the number of cores.
pub(super) const CAPABILITIES: Capabilities =
    Capabilities { multiprocessors: 0, matrix_units: MatrixUnits::Simdgroups };

/// Every file with its name. A file may use the declarations of the files before it.
pub(super) const FILES: [(&str, &str); 12] = [
    ("common.metal", include_str!("common.metal")),
    ("argmax.metal", include_str!("../argmax/argmax.metal")),
    ("concat.metal", include_str!("../concat/concat.metal")),
    ("conv.metal", include_str!("../conv/conv.metal")),
    ("conv_mma.metal", include_str!("../conv/conv_mma.metal")),
    ("cross_attend.metal", include_str!("../cross_attend/cross_attend.metal")),
    ("ea_norm.metal", include_str!("../ea_norm/ea_norm.metal")),
    ("pack.metal", include_str!("../pack/pack.metal")),
    ("pointwise.metal", include_str!("../pointwise/pointwise.metal")),
    ("pool.metal", include_str!("../pool/pool.metal")),
    ("prepare.metal", include_str!("../prepare/prepare.metal")),
    ("resize_add.metal", include_str!("../resize_add/resize_add.metal")),
];
