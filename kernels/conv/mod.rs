//! Direct 1x1 and 3x3 convolution. The prologue applies norm and ReLU; the epilogue applies bias, residual and
//! activation.
//!
//! `out[o, y, x] = activation(bias[o] + sum over i, ky, kx of weight[o, i, ky, kx] * in[i, s*y + ky - p, s*x + kx - p] + residual)`,
//! where `in` is the input after its prologue, and zero outside the map.
//!
//! A register tile holds 2 blocks of 16 output channels by up to 14 pixels (AVX-512; 1 by 6 on AVX2 and NEON). It sums
//! over all input channels and stores once, so no partial sums go to memory. The zero halo of the input is the padding.

pub mod gpu;
mod input;
mod packed;
mod scalar;
mod strip;
pub(crate) mod tile;
mod vector;

pub(crate) use input::Norm;
pub use input::{Input, Prologue};
pub use packed::{ConvShape, PackedConv};
pub(crate) use scalar::activate;

use crate::simd::Kernel;
use crate::{Element, Isa, Lanes, Map, MapMut, ShapeError};
use strip::Strip;

/// The function applied to a sum before it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// None.
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
    /// `x / 2 * (1 + erf(x / sqrt 2))`
    Gelu,
}

/// The steps between the sum and the store: first the residual is added, then the activation is applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// A map of the output's shape, added to the sum.
    pub residual: Option<Map<'a>>,
    /// Applied last.
    pub activation: Activation,
}

/// How many [`Lanes`] of scratch buffer [`conv()`] needs for this input.
pub fn scratch_len(conv: &PackedConv, input: &Input) -> usize {
    strip_lanes(strip(conv, input))
}

fn strip_lanes(strip: Option<Strip>) -> usize {
    strip.map_or(0, |strip| strip.len().div_ceil(16))
}

/// The strips that the tiles read if they cannot read the map itself.
fn strip(conv: &PackedConv, input: &Input) -> Option<Strip> {
    let prepared = input.prologue.is_some() || conv.element() != Element::F32;
    prepared.then(|| Strip::of(conv, input.map.layout()))
}

/// Convolves the blocks and rows of the view `out`.
///
/// - `input`: `[in_channels, h, w]`, planar or blocked to match the packed weights, with a zero halo; must be blocked
///   if there is a prologue
/// - `out`: `[out_channels, out_h, out_w]` of [`ConvShape::out_size`], blocked
/// - `epilogue.residual`: the layout of `out`
/// - `scratch`: at least [`scratch_len`] long; its contents do not matter
/// - accuracy: within `1e-5` of the definition (which rounds to the weights' element), relative to the largest output;
///   GELU adds an absolute error up to `1e-6`
/// - errors: [`ShapeError`] if a shape differs from these, or if `isa` cannot multiply the weights' element
pub fn conv<'a>(
    isa: Isa,
    conv: &PackedConv,
    input: impl Into<Input<'a>>,
    out: MapMut,
    epilogue: Epilogue,
    scratch: &mut [Lanes],
) -> Result<(), ShapeError> {
    const OP: &str = "conv";
    let input = input.into();
    input.check(OP, &conv.shape(), conv.input_lanes(), out.layout(), &epilogue)?;
    let strip = strip(conv, &input);
    ShapeError::at_least(OP, "length of the scratch", scratch.len(), strip_lanes(strip))?;
    isa.check(OP, "element of the weights", conv.element())?;
    isa.run_products(conv.element(), Conv { packed: conv, input, out, epilogue, strip, scratch });
    Ok(())
}

/// A call whose arguments were checked.
struct Conv<'a> {
    packed: &'a PackedConv,
    input: Input<'a>,
    out: MapMut<'a>,
    epilogue: Epilogue<'a>,
    strip: Option<Strip>,
    scratch: &'a mut [Lanes],
}

impl Kernel for Conv<'_> {
    fn scalar(self) {
        scalar::conv(self);
    }
}

#[cfg(test)]
mod tests;
