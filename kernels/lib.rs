//! The compute kernels of `rtformer`. All unsafe code and all intrinsics of the project are in this crate, behind a
//! safe API.
//!
//! Each kernel is a folder. `mod.rs` holds the public functions with their formula, shapes, accuracy and errors, the
//! shape checks, the choice of instruction set, and the test table. `scalar.rs` is the definition. `vector.rs` is the
//! same operation on sixteen lanes, written once and compiled for every instruction set (see `simd`).
//!
//! Kernels start no threads and allocate no memory. A caller splits a [`MapMut`] into disjoint views and passes them to
//! as many threads as it likes. However the map is split, every output element is computed by the same sequence of
//! floating-point operations, so the result does not depend on the number of threads.

#![allow(clippy::inline_always, reason = "a vector body takes its instructions from the function it is inlined into")]
#![allow(
    clippy::needless_range_loop,
    reason = "tiles and lanes are numbered, and the arrays of a loop share their index"
)]

mod arena;
mod caches;
mod element;
mod error;
mod extent;
#[macro_use]
pub mod gpu;
mod isa;
mod map;
mod mapped;
mod pages;
mod simd;

pub mod argmax;
pub mod concat;
pub mod conv;
pub mod cross_attend;
pub mod ea_norm;
pub mod pack;
mod peak;
pub mod pointwise;
pub mod pool;
pub mod prepare;
pub mod resize_add;
#[cfg(any(test, feature = "emulation"))]
pub mod tables;
#[doc(hidden)]
pub mod testing;
pub mod winograd;

pub use arena::{Arena, Buffer, SharedBuffer};
pub use argmax::{ClassId, Confidence, argmax, upsample};
pub use caches::{Caches, parse_bytes};
pub use conv::{Activation, ConvShape, Epilogue, Input, PackedConv, Prologue, conv};
pub use cross_attend::{CrossKeys, cross_attend};
pub use ea_norm::{ea_group_l1, ea_softmax};
pub use element::Element;
pub use error::ShapeError;
pub use extent::Extent;
pub use isa::Isa;
#[cfg(target_arch = "aarch64")]
pub use isa::Neon;
#[cfg(target_arch = "x86_64")]
pub use isa::{Avx2, Avx512};
pub use map::{Lanes, Layout, Map, MapMut, floats, floats_mut};
pub use mapped::Mapped;
pub use pack::{pack_nchw, repack, unpack_nchw};
pub use peak::peak_flops;
pub use pointwise::{add, relu};
pub use pool::{avg_pool, global_avg_pool, max_pool_to};
pub use prepare::fill_planes;
pub use resize_add::{resize, resize_add};
pub use winograd::{PackedWinograd, TILE as WINOGRAD_TILE, winograd};
