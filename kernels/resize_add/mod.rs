//! Bilinear resize plus another map: merges the branches of the network.

pub mod gpu;
mod scalar;
mod vector;

use crate::simd::Kernel;
use crate::{Extent, Isa, Layout, Map, MapMut, ShapeError};

/// `out = bilinear(small, size of out) + add`
///
/// Half-pixel centres: output pixel `i` reads at position `max(in/out * (i + 0.5) - 0.5, 0)`, between the pixel there
/// and the next one. Past the last pixel, the last pixel is used. Any size can be resized to any other size, including
/// smaller ones (without antialiasing).
///
/// - `small`: `[c, h, w]`; `add`: the layout of `out`
/// - accuracy: within `1e-6` of the definition, relative to the largest output
/// - errors: [`ShapeError`] unless `small` and `add` are blocked and have the channels of `out`, and `add` has its size
///
/// Source: Paddle's `F.interpolate(mode="bilinear", align_corners=False)`.
pub fn resize_add(isa: Isa, small: Map, add: Option<Map>, out: MapMut) -> Result<(), ShapeError> {
    let full = out.layout().size();
    run("resize_add", isa, small, add, full, out)
}

/// The upper left part of `bilinear(small, full)`, written to `out`. The bits are the same as those that [`resize_add`]
/// to `full` computes there.
///
/// - `small`: `[c, h, w]`; `full`: height and width that `small` is scaled to; `out`: at most that size
/// - accuracy: within `1e-6` of the definition, relative to the largest output
/// - errors: [`ShapeError`] unless `small` is blocked and has the channels of `out`, or if `out` is larger than `full`
pub fn resize(isa: Isa, small: Map, full: (usize, usize), out: MapMut) -> Result<(), ShapeError> {
    const OP: &str = "resize";
    Extent { full, kept: out.layout().size() }.check(OP)?;
    run(OP, isa, small, None, full, out)
}

fn run(
    op: &'static str,
    isa: Isa,
    small: Map,
    add: Option<Map>,
    full: (usize, usize),
    out: MapMut,
) -> Result<(), ShapeError> {
    let Layout { channels, height, width, .. } = small.layout();
    ShapeError::check(op, "lanes of the input", small.layout().lanes, 16)?;
    ShapeError::check(op, "lanes of the output", out.layout().lanes, 16)?;
    ShapeError::check(op, "channels of the output", out.layout().channels, channels)?;
    if let Some(add) = add {
        ShapeError::check(op, "layout of the map to add", add.layout(), out.layout())?;
    }
    let axes = (Axis::new(height, full.0), Axis::new(width, full.1));
    isa.run(ResizeAdd { small, add, out, vertical: axes.0, horizontal: axes.1 });
    Ok(())
}

struct ResizeAdd<'a> {
    small: Map<'a>,
    add: Option<Map<'a>>,
    out: MapMut<'a>,
    vertical: Axis,
    horizontal: Axis,
}

impl Kernel for ResizeAdd<'_> {
    fn scalar(self) {
        scalar::resize_add(self);
    }
}

/// One axis of a resize.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    ratio: f32,
    last: usize,
}

/// The input pixels of an output pixel: `first` has weight `1 - weight`, `second` has weight `weight`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tap {
    pub(crate) first: usize,
    pub(crate) second: usize,
    pub(crate) weight: f32,
}

impl Axis {
    /// A resize from `len` pixels (at least one) to `out_len`.
    pub(crate) fn new(len: usize, out_len: usize) -> Self {
        Self { ratio: len as f32 / out_len as f32, last: len.saturating_sub(1) }
    }

    /// Input pixels per output pixel.
    pub(crate) fn ratio(self) -> f32 {
        self.ratio
    }

    /// The input pixels of output pixel `i`.
    #[inline(always)]
    pub(crate) fn tap(self, i: usize) -> Tap {
        // No fused multiply-add, like Paddle. The truncation equals the floor, because no value is negative.
        let source = (self.ratio * (i as f32 + 0.5) - 0.5).max(0.0);
        // Rounding can push the position on a long axis past its end.
        let first = (source as usize).min(self.last);
        Tap { first, second: (first + 1).min(self.last), weight: source - first as f32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Owned, assert_close, for_each, whole_and_split};

    #[derive(Debug)]
    struct Case {
        channels: usize,
        from: (usize, usize),
        to: (usize, usize),
    }

    const CASES: [Case; 9] = [
        Case { channels: 1, from: (1, 1), to: (1, 1) }, // the smallest map
        Case { channels: 3, from: (1, 1), to: (5, 7) }, // one pixel to any size, as in DAPPM's global view
        Case { channels: 5, from: (2, 3), to: (4, 6) }, // the usual factors ...
        Case { channels: 16, from: (3, 5), to: (12, 20) },
        Case { channels: 17, from: (4, 8), to: (32, 64) },
        Case { channels: 33, from: (12, 15), to: (45, 60) }, // ... an unusual one, 360x480
        Case { channels: 64, from: (3, 4), to: (7, 13) },
        Case { channels: 16, from: (9, 70), to: (4, 23) }, // smaller
        Case { channels: 2, from: (5, 6), to: (5, 131) },  // one axis only; more than two chunks of columns
    ];

    /// Resizing only a part of the result gives the same bits there.
    #[test]
    fn a_part_equals_the_cropped_whole() {
        for_each(CASES, |isa, case| {
            let (from, to) = (Layout::blocked(case.channels, case.from.0, case.from.1), case.to);
            let x = Owned::from_nchw(&crate::testing::noise(case.channels * from.height * from.width, 1), from);
            let mut whole = Owned::zeros(Layout::blocked(case.channels, to.0, to.1));
            resize_add(isa, x.map(), None, whole.view()).expect("the shapes fit");
            for kept in [to, (1, 1), (to.0.div_ceil(2), to.1.div_ceil(3)), (to.0, to.1.div_ceil(2))] {
                let mut part = Owned::zeros(Layout::blocked(case.channels, kept.0, kept.1));
                resize(isa, x.map(), to, part.view()).expect("the shapes fit");
                let (whole, part) = (whole.to_nchw(), part.to_nchw());
                let planes = whole.chunks(to.0 * to.1).zip(part.chunks(kept.0 * kept.1));
                for (y, (whole, part)) in
                    planes.flat_map(|(whole, part)| whole.chunks(to.1).zip(part.chunks(kept.1))).enumerate()
                {
                    assert_eq!(&whole[..kept.1], part, "{kept:?}, row {y}");
                }
            }
            let mut larger = Owned::zeros(Layout::blocked(case.channels, to.0 + 1, to.1));
            assert!(resize(isa, x.map(), to, larger.view()).is_err());
        });
    }

    #[test]
    fn resized_maps_agree_with_the_formula() {
        for_each(CASES, |isa, case| {
            let (small, large) = (
                Layout::blocked(case.channels, case.from.0, case.from.1),
                Layout::blocked(case.channels, case.to.0, case.to.1),
            );
            let (x, add) = (Owned::noise(small, 1), Owned::noise(large, 2));
            for add in [None, Some(add.map())] {
                let got = whole_and_split(large, |out| resize_add(isa, x.map(), add, out).expect("the shapes fit"));
                let mut want = Owned::zeros(large);
                let whole = Axis::new(case.from.0, case.to.0);
                let across = Axis::new(case.from.1, case.to.1);
                scalar::resize_add(ResizeAdd {
                    small: x.map(),
                    add,
                    out: want.view(),
                    vertical: whole,
                    horizontal: across,
                });
                assert_close(&got.to_nchw(), &want.to_nchw(), 1e-6);
            }
        });
    }

    #[test]
    fn the_definition_gives_paddles_numbers() {
        // `F.interpolate(paddle.to_tensor([[[[0., 1.], [2., 3.]]]]), size=[4, 4], mode="bilinear")`
        let x = Owned::from_nchw(&[0.0, 1.0, 2.0, 3.0], Layout::blocked(1, 2, 2));
        let want = [0.0, 0.25, 0.75, 1.0, 0.5, 0.75, 1.25, 1.5, 1.5, 1.75, 2.25, 2.5, 2.0, 2.25, 2.75, 3.0];
        for isa in Isa::available() {
            let mut out = Owned::zeros(Layout::blocked(1, 4, 4));
            resize_add(isa, x.map(), None, out.view()).expect("the shapes fit");
            assert_eq!(out.to_nchw(), want);
        }
    }

    #[test]
    fn taps_stay_inside() {
        for (len, out_len) in [(1, 9), (7, 5), (256, 2048), (2, 100_000), (100_000, 3)] {
            let axis = Axis::new(len, out_len);
            for i in 0..out_len {
                let tap = axis.tap(i);
                assert!(tap.second < len && tap.first <= tap.second && (0.0..=1.0).contains(&tap.weight), "{tap:?}");
            }
        }
    }

    #[test]
    fn other_shapes_are_errors() {
        let (x, add) = (Owned::zeros(Layout::blocked(17, 4, 4)), Owned::zeros(Layout::blocked(17, 8, 9)));
        let planar = Owned::zeros(Layout::planar(17, 4, 4));
        let (mut fits, mut narrow) = (Owned::zeros(Layout::blocked(17, 8, 8)), Owned::zeros(Layout::blocked(16, 8, 8)));
        for isa in Isa::available() {
            assert!(resize_add(isa, x.map(), Some(add.map()), fits.view()).is_err());
            assert!(resize_add(isa, planar.map(), None, fits.view()).is_err());
            assert!(resize_add(isa, x.map(), None, narrow.view()).is_err());
        }
    }
}
