//! The kernels in Metal's shading language: what a Mac compiles when it starts, and what the emulation compiles to be tested.

/// Every file, by its name; each may use what those before it declare.
pub(super) const FILES: [(&str, &str); 10] = [
    ("common.metal", include_str!("common.metal")),
    ("argmax.metal", include_str!("../argmax/argmax.metal")),
    ("concat.metal", include_str!("../concat/concat.metal")),
    ("conv.metal", include_str!("../conv/conv.metal")),
    ("cross_attend.metal", include_str!("../cross_attend/cross_attend.metal")),
    ("ea_norm.metal", include_str!("../ea_norm/ea_norm.metal")),
    ("pack.metal", include_str!("../pack/pack.metal")),
    ("pointwise.metal", include_str!("../pointwise/pointwise.metal")),
    ("pool.metal", include_str!("../pool/pool.metal")),
    ("resize_add.metal", include_str!("../resize_add/resize_add.metal")),
];
