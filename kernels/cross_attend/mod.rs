//! The high branch's cross-attention: queries from its pixels, keys and values from a small map of the low branch.
//!
//! `out[ch, p] = residual[ch, p] + sum over j of softmax_j((q[p] . k[j]) / s) * v[ch, j]` with `q = scale * x + shift`
//! (a batch norm). The keys and values are the `s * s` pixels `j` of a pooled low-resolution map.
//!
//! This is two small matrix products with a softmax between. A tile of pixels goes through all three steps while its
//! scores are in the L1 cache, so the map of scores (144 channels at the high resolution in slim) is never stored.
//!
//! Source: `RTFormer`, arXiv:2210.07124, section 3.2 ("cross-resolution attention").

pub mod gpu;
mod keys;
mod scalar;
mod vector;

pub use keys::CrossKeys;

use crate::simd::Kernel;
use crate::{Isa, Lanes, Layout, Map, MapMut, ShapeError};

/// The attention of the pixels `x` over `keys`, for the blocks and rows of the view `out`.
///
/// - `x`, `residual`, `out`: `[c, h, w]`, blocked, where `c` is the channels that the keys were packed with
/// - `scratch`: at least [`CrossKeys::scratch_len`] lanes; its contents do not matter, before or after
/// - accuracy: in f32 within `1e-5` of the definition, relative to the largest output; in bf16 within `1e-2`, because a
///   weight halfway between two numbers may be rounded to either
/// - errors: [`ShapeError`] if a shape differs from these, if the keys were never packed, or if `isa` cannot multiply
///   their element
pub fn cross_attend(
    isa: Isa,
    x: Map,
    keys: &CrossKeys,
    residual: Option<Map>,
    out: MapMut,
    scratch: &mut [Lanes],
) -> Result<(), ShapeError> {
    const OP: &str = "cross_attend";
    let Layout { channels, height, width, .. } = x.layout();
    ShapeError::check(OP, "lanes of the input", x.layout().lanes, 16)?;
    ShapeError::check(OP, "channels of the input", channels, keys.channels())?;
    ShapeError::check(OP, "layout of the output", out.layout(), Layout::blocked(channels, height, width))?;
    if let Some(residual) = residual {
        ShapeError::check(OP, "layout of the residual", residual.layout(), out.layout())?;
    }
    ShapeError::at_least(OP, "length of the scratch", scratch.len(), keys.scratch_len(x.layout()))?;
    isa.check(OP, "element of the keys", keys.element())?;
    isa.run_products(keys.element(), CrossAttend { x, keys, residual, out, scratch });
    Ok(())
}

struct CrossAttend<'a> {
    x: Map<'a>,
    keys: &'a CrossKeys,
    residual: Option<Map<'a>>,
    out: MapMut<'a>,
    scratch: &'a mut [Lanes],
}

impl Kernel for CrossAttend<'_> {
    fn scalar(self) {
        scalar::cross_attend(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Element;
    use crate::testing::{Owned, assert_close, for_each, noise, whole_and_split};

    #[derive(Debug)]
    struct Case {
        channels: usize,
        side: usize,
        height: usize,
        width: usize,
    }

    const CASES: [Case; 8] = [
        Case { channels: 1, side: 1, height: 1, width: 1 }, // one query pixel, one key
        Case { channels: 3, side: 2, height: 2, width: 5 }, // four keys: most of a block is padding
        Case { channels: 5, side: 3, height: 7, width: 3 },
        Case { channels: 16, side: 4, height: 3, width: 15 }, // no padding; a tile plus one pixel
        Case { channels: 17, side: 5, height: 4, width: 9 },
        Case { channels: 33, side: 12, height: 2, width: 31 },
        Case { channels: 64, side: 12, height: 5, width: 60 }, // slim at 360x480
        Case { channels: 128, side: 8, height: 2, width: 14 },
    ];

    /// The formula of the module's documentation, from plain images, in f64.
    fn formula(case: &Case, x: &[f32], kv: &[f32], scale: &[f32], shift: &[f32], residual: &[f32]) -> Vec<f32> {
        let (pixels, keys) = (case.height * case.width, case.side * case.side);
        let mut out = vec![0.0; case.channels * pixels];
        for p in 0..pixels {
            let query: Vec<_> = (0..case.channels)
                .map(|ch| f64::from(scale[ch]) * f64::from(x[ch * pixels + p]) + f64::from(shift[ch]))
                .collect();
            let scores: Vec<_> = (0..keys)
                .map(|j| {
                    (0..case.channels).map(|ch| query[ch] * f64::from(kv[ch * keys + j])).sum::<f64>()
                        / case.side as f64
                })
                .collect();
            let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - greatest).exp()).sum();
            for ch in 0..case.channels {
                let mean: f64 = (0..keys)
                    .map(|j| (scores[j] - greatest).exp() / sum * f64::from(kv[(case.channels + ch) * keys + j]))
                    .sum();
                out[ch * pixels + p] = (mean + f64::from(residual[ch * pixels + p])) as f32;
            }
        }
        out
    }

    #[test]
    fn attention_agrees_with_the_formula() {
        let mut keys = CrossKeys::default(); // one buffer for all rows, as for all frames
        for_each(CASES, |isa, case| {
            let layout = Layout::blocked(case.channels, case.height, case.width);
            let x = Owned::noise(layout, 1);
            let mut image = noise(2 * case.channels * case.side * case.side, 2);
            for v in &mut image {
                *v *= 3.0; // makes some scores much larger than the others
            }
            let kv = Owned::from_nchw(&image, Layout::blocked(2 * case.channels, case.side, case.side));
            let (scale, shift) = (noise(case.channels, 3), noise(case.channels, 4));
            let residual = Owned::noise(layout, 5);
            keys.pack(kv.map(), &scale, &shift, Element::F32).expect("the shapes fit");
            let mut scratch = vec![Lanes([f32::NAN; 16]); keys.scratch_len(layout)];
            for residual in [Some(residual.map()), None] {
                let got = whole_and_split(layout, |out| {
                    cross_attend(isa, x.map(), &keys, residual, out, &mut scratch).expect("the shapes fit");
                });
                let mut plain = vec![0.0; case.channels * case.height * case.width];
                if let Some(residual) = residual {
                    crate::unpack_nchw(residual, &mut plain).expect("the image matches the layout");
                }
                assert_close(&got.to_nchw(), &formula(case, &x.to_nchw(), &image, &scale, &shift, &plain), 1e-5);
            }
        });
    }

    #[test]
    fn bf16_is_near_its_definition() {
        let mut keys = CrossKeys::default();
        for_each(CASES, |isa, case| {
            let layout = Layout::blocked(case.channels, case.height, case.width);
            let (x, residual) = (Owned::noise(layout, 1), Owned::noise(layout, 5));
            let kv = Owned::noise(Layout::blocked(2 * case.channels, case.side, case.side), 2);
            let (scale, shift) = (noise(case.channels, 3), noise(case.channels, 4));
            keys.pack(kv.map(), &scale, &shift, Element::Bf16).expect("the shapes fit");
            let mut scratch = vec![Lanes([f32::NAN; 16]); keys.scratch_len(layout)];
            if !isa.multiplies(Element::Bf16) {
                let mut out = Owned::zeros(layout);
                assert!(cross_attend(isa, x.map(), &keys, None, out.view(), &mut scratch).is_err());
                return;
            }
            let mut run = |isa| {
                whole_and_split(layout, |out| {
                    cross_attend(isa, x.map(), &keys, Some(residual.map()), out, &mut scratch).expect("they fit");
                })
            };
            let (got, defined) = (run(isa).to_nchw(), run(Isa::Scalar).to_nchw());
            assert_close(&got, &defined, 1e-2);
            let image = kv.to_nchw();
            assert_close(&got, &formula(case, &x.to_nchw(), &image, &scale, &shift, &residual.to_nchw()), 2e-2);
        });
    }

    #[test]
    fn other_shapes_are_errors() {
        let layout = Layout::blocked(3, 4, 4);
        let (x, wide, mut out) = (Owned::zeros(layout), Owned::zeros(Layout::blocked(3, 4, 5)), Owned::zeros(layout));
        let (kv, oblong) = (Owned::zeros(Layout::blocked(6, 2, 2)), Owned::zeros(Layout::blocked(6, 2, 3)));
        let (mut keys, never) = (CrossKeys::default(), CrossKeys::default());
        assert!(keys.pack(oblong.map(), &[1.0; 3], &[0.0; 3], Element::F32).is_err());
        assert!(keys.pack(kv.map(), &[1.0; 4], &[0.0; 4], Element::F32).is_err());
        assert!(keys.pack(kv.map(), &[1.0; 3], &[0.0; 2], Element::F32).is_err());
        keys.pack(kv.map(), &[1.0; 3], &[0.0; 3], Element::F32).expect("the shapes fit");
        let mut scratch = vec![Lanes::ZERO; keys.scratch_len(layout)];
        for isa in Isa::available() {
            assert!(cross_attend(isa, x.map(), &never, None, out.view(), &mut scratch).is_err());
            assert!(cross_attend(isa, wide.map(), &keys, None, out.view(), &mut scratch).is_err());
            assert!(cross_attend(isa, kv.map(), &keys, None, out.view(), &mut scratch).is_err());
            assert!(cross_attend(isa, x.map(), &keys, Some(wide.map()), out.view(), &mut scratch).is_err());
            assert!(cross_attend(isa, x.map(), &keys, None, out.view(), &mut scratch[1..]).is_err());
            assert!(cross_attend(isa, x.map(), &keys, None, out.view(), &mut scratch).is_ok());
        }
    }
}
