//! The input of a convolution: a map, with an optional norm and ReLU before it.

use super::{ConvShape, Epilogue};
use crate::simd::Simd;
use crate::{Lanes, Layout, Map, ShapeError};

/// A norm and an optional ReLU before a convolution: `x * scale + shift`, then `max(x, 0)`. The zero padding comes
/// after them.
#[derive(Clone, Copy, Debug)]
pub struct Prologue<'a> {
    /// One factor per channel, in blocks of sixteen.
    pub scale: &'a [Lanes],
    /// One summand per channel, in blocks of sixteen.
    pub shift: &'a [Lanes],
    /// Whether a ReLU follows.
    pub relu: bool,
}

/// The input of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// `[in_channels, h, w]`, with a zero halo.
    pub map: Map<'a>,
    /// Applied to every value of the map, before the zero padding.
    pub prologue: Option<Prologue<'a>>,
}

impl<'a> From<Map<'a>> for Input<'a> {
    fn from(map: Map<'a>) -> Self {
        Self { map, prologue: None }
    }
}

impl Input<'_> {
    /// Checks the input (with `lanes` channels stored together), output and residual; used by every convolution
    /// algorithm.
    pub(crate) fn check(
        &self,
        op: &'static str,
        shape: &ConvShape,
        lanes: usize,
        out: Layout,
        epilogue: &Epilogue,
    ) -> Result<(), ShapeError> {
        let layout = self.map.layout();
        ShapeError::check(op, "channels of the input", layout.channels, shape.in_channels)?;
        ShapeError::check(op, "lanes of the input", layout.lanes, lanes)?;
        if let Some(Prologue { scale, shift, .. }) = self.prologue {
            ShapeError::check(op, "lanes of an input with a prologue", layout.lanes, 16)?;
            ShapeError::check(op, "blocks of the scale", scale.len(), layout.blocks())?;
            ShapeError::check(op, "blocks of the shift", shift.len(), layout.blocks())?;
        }
        let (h, w) = shape.out_size(layout.height, layout.width);
        ShapeError::check(op, "layout of the output", out, Layout::blocked(shape.out_channels, h, w))?;
        epilogue.residual.map_or(Ok(()), |map| ShapeError::check(op, "layout of the residual", map.layout(), out))
    }

    /// One value as the definitions multiply it; 0 outside the map. `row` and `column` are one more than the map's own
    /// indices.
    pub(crate) fn padded(&self, channel: usize, row: usize, column: usize) -> f32 {
        let layout = self.map.layout();
        let (row, column) = (row.wrapping_sub(1), column.wrapping_sub(1));
        if row >= layout.height || column >= layout.width {
            return 0.0;
        }
        let value = self.map.at(channel, row, column);
        self.prologue.map_or(value, |Prologue { scale, shift, relu }| {
            let (block, lane) = (channel / 16, channel % 16);
            let value = value.mul_add(scale[block].0[lane], shift[block].0[lane]);
            if relu { value.max(0.0) } else { value }
        })
    }
}

/// The prologue of one block of channels in registers; the identity if there is no prologue.
#[derive(Clone, Copy)]
pub(crate) struct Norm<S> {
    scale: S,
    shift: S,
    floor: S,
}

impl<S: Simd> Norm<S> {
    /// # Safety
    /// The CPU supports the instructions of `S`; `input` was [checked](Input::check), and the map has the block.
    #[inline(always)]
    pub(crate) unsafe fn of(input: &Input, block: usize) -> Self {
        // SAFETY: the caller guarantees the CPU features; a block of the scale is sixteen floats.
        unsafe {
            match input.prologue {
                Some(Prologue { scale, shift, relu }) => Self {
                    scale: S::load(scale[block].0.as_ptr()),
                    shift: S::load(shift[block].0.as_ptr()),
                    floor: S::splat(if relu { 0.0 } else { f32::NEG_INFINITY }),
                },
                None => Self { scale: S::splat(1.0), shift: S::splat(0.0), floor: S::splat(f32::NEG_INFINITY) },
            }
        }
    }

    /// # Safety
    /// The CPU supports the instructions of `S`.
    #[inline(always)]
    pub(crate) unsafe fn apply(self, x: S) -> S {
        // SAFETY: the caller guarantees the CPU features.
        unsafe { x.fma(self.scale, self.shift).max(self.floor) }
    }
}
