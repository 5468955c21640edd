//! Direct convolution, 1x1 and 3x3, with bias, residual and activation in its epilogue.
//!
//! `out[o, y, x] = activation(bias[o] + sum over i, ky, kx of weight[o, i, ky, kx] * in[i, s*y + ky - p, s*x + kx - p] + residual)`
//!
//! A register tile holds 2 blocks of 16 output channels by up to 14 pixels (AVX-512; 1 by 6 on AVX2) and sums over all
//! input channels before it stores once, so no partial sum ever goes to memory. The zero halo of the input is the padding.

mod packed;
mod scalar;
pub(crate) mod tile;
mod vector;

pub use packed::{ConvShape, PackedConv};
pub(crate) use scalar::activate;

use crate::simd::Kernel;
use crate::{Isa, Layout, Map, MapMut, ShapeError};

/// What happens to a sum before it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
    /// `x / 2 * (1 + erf(x / sqrt 2))`
    Gelu,
}

/// What happens between the sum and the store: first the residual is added, then the activation is applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// A map of the output's shape to add.
    pub residual: Option<Map<'a>>,
    /// Applied last.
    pub activation: Activation,
}

/// Convolves the blocks and rows of the view `out`.
///
/// - `x`: `[in_channels, h, w]`, planar or blocked as the weights were packed for, with a zero halo
/// - `out`: `[out_channels, out_h, out_w]` of [`ConvShape::out_size`], blocked
/// - `epilogue.residual`: of the layout of `out`
/// - accuracy: within `1e-5` of the definition, relative to the greatest output; GELU within `1e-6` absolute on top
/// - errors: [`ShapeError`] when a shape differs from these
pub fn conv(isa: Isa, conv: &PackedConv, x: Map, out: MapMut, epilogue: Epilogue) -> Result<(), ShapeError> {
    const OP: &str = "conv";
    let shape = conv.shape();
    ShapeError::check(OP, "channels of the input", x.layout().channels, shape.in_channels)?;
    ShapeError::check(OP, "lanes of the input", x.layout().lanes, conv.input_lanes())?;
    let (h, w) = shape.out_size(x.layout().height, x.layout().width);
    ShapeError::check(OP, "layout of the output", out.layout(), Layout::blocked(shape.out_channels, h, w))?;
    if let Some(residual) = epilogue.residual {
        ShapeError::check(OP, "layout of the residual", residual.layout(), out.layout())?;
    }
    isa.run(Conv { packed: conv, x, out, epilogue });
    Ok(())
}

/// A checked call.
struct Conv<'a> {
    packed: &'a PackedConv,
    x: Map<'a>,
    out: MapMut<'a>,
    epilogue: Epilogue<'a>,
}

impl Kernel for Conv<'_> {
    fn scalar(self) {
        scalar::conv(self);
    }
}

#[cfg(test)]
mod tests;
