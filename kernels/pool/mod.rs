//! Pooling: DAPPM's average pools, the global average, and the adaptive max pool of the cross-resolution keys.

pub mod gpu;
mod scalar;
mod vector;

use std::ops::Range;

use crate::simd::Kernel;
use crate::{Isa, Lanes, Layout, Map, MapMut, ShapeError};

/// Means of windows of `kernel` by `kernel`, every `stride` pixels; the first window starts `padding` pixels before the
/// edge.
///
/// The zero border counts: every window divides by `kernel * kernel` (Paddle's `exclusive=False`).
///
/// - `x`: `[c, h, w]`; `out`: `[c, (h + 2 * padding - kernel) / stride + 1, ...]`
/// - accuracy: within `1e-5` of the definition, relative to the largest output
/// - errors: [`ShapeError`] if a shape differs from these, if a window is larger than the padded map, if the kernel or
///   stride is 0, or if the padding is not less than the kernel
pub fn avg_pool(isa: Isa, x: Map, kernel: usize, stride: usize, padding: usize, out: MapMut) -> Result<(), ShapeError> {
    const OP: &str = "avg_pool";
    let Layout { channels, height, width, .. } = x.layout();
    let window = (kernel, stride, padding);
    let sound = kernel > 0 && kernel < 1 << 16 && stride > 0 && padding < kernel;
    ShapeError::ensure(sound, OP, "(kernel, stride, padding)", window, "positive, with the padding below the kernel")?;
    let fits = height.min(width) + 2 * padding >= kernel;
    ShapeError::ensure(fits, OP, "size of the input", (height, width), "at least the kernel without its padding")?;
    ShapeError::check(OP, "lanes of the input", x.layout().lanes, 16)?;
    let len = |len: usize| (len + 2 * padding - kernel) / stride + 1;
    ShapeError::check(OP, "layout of the output", out.layout(), Layout::blocked(channels, len(height), len(width)))?;
    isa.run(AvgPool { x, kernel, stride, padding, out });
    Ok(())
}

/// The mean of each channel.
///
/// - `x`: `[c, h, w]`; `out`: `[c, 1, 1]`
/// - accuracy: within `1e-5` of the definition, relative to the largest input
/// - errors: [`ShapeError`] if a shape differs from these
pub fn global_avg_pool(isa: Isa, x: Map, out: MapMut) -> Result<(), ShapeError> {
    const OP: &str = "global_avg_pool";
    ShapeError::check(OP, "lanes of the input", x.layout().lanes, 16)?;
    ShapeError::check(OP, "layout of the output", out.layout(), Layout::blocked(x.layout().channels, 1, 1))?;
    isa.run(GlobalAvgPool { x, out });
    Ok(())
}

/// The adaptive maximum of `scale * x + shift`, to the size of `out`.
///
/// Window `i` of `n` over a length of `l` is `floor(i * l / n) .. ceil((i + 1) * l / n)`. Windows overlap if `n` does
/// not divide `l`.
///
/// - `x`: `[c, h, w]`; `out`: `[c, ...]` of any size
/// - `scale`, `shift`: one [`Lanes`] per block, zero in the padding lanes
/// - accuracy: one rounding (vector) or two (scalar)
/// - errors: [`ShapeError`] if a shape differs from these
///
/// Source: Paddle's `adaptive_max_pool2d`, as `cross_kv` uses it after its batch norm.
pub fn max_pool_to(isa: Isa, x: Map, scale: &[Lanes], shift: &[Lanes], out: MapMut) -> Result<(), ShapeError> {
    const OP: &str = "max_pool_to";
    ShapeError::check(OP, "lanes of the input", x.layout().lanes, 16)?;
    ShapeError::check(OP, "lanes of the output", out.layout().lanes, 16)?;
    ShapeError::check(OP, "channels of the output", out.layout().channels, x.layout().channels)?;
    ShapeError::check(OP, "blocks of the scale", scale.len(), x.layout().blocks())?;
    ShapeError::check(OP, "blocks of the shift", shift.len(), x.layout().blocks())?;
    isa.run(MaxPoolTo { x, scale, shift, out });
    Ok(())
}

struct AvgPool<'a> {
    x: Map<'a>,
    kernel: usize,
    stride: usize,
    padding: usize,
    out: MapMut<'a>,
}

impl AvgPool<'_> {
    /// The part of window `i` inside the map's `len` pixels.
    fn window(&self, i: usize, len: usize) -> Range<usize> {
        let start = i * self.stride;
        start.saturating_sub(self.padding)..(start + self.kernel).saturating_sub(self.padding).min(len)
    }

    /// The windows of `view` that contain pixel `i` of the map.
    fn over(&self, i: usize, view: &Range<usize>) -> Range<usize> {
        let (first, last) = ((i + self.padding + 1).saturating_sub(self.kernel), i + self.padding);
        first.div_ceil(self.stride).max(view.start)..(last / self.stride + 1).min(view.end)
    }

    /// The factor that every window's sum is multiplied by.
    fn share(&self) -> f32 {
        1.0 / (self.kernel * self.kernel) as f32
    }
}

struct GlobalAvgPool<'a> {
    x: Map<'a>,
    out: MapMut<'a>,
}

struct MaxPoolTo<'a> {
    x: Map<'a>,
    scale: &'a [Lanes],
    shift: &'a [Lanes],
    out: MapMut<'a>,
}

/// Window `i` of `n` over `len` pixels; never empty.
fn adaptive_window(i: usize, n: usize, len: usize) -> Range<usize> {
    i * len / n..((i + 1) * len).div_ceil(n)
}

impl Kernel for AvgPool<'_> {
    fn scalar(self) {
        scalar::avg_pool(self);
    }
}

impl Kernel for GlobalAvgPool<'_> {
    fn scalar(self) {
        scalar::global_avg_pool(self);
    }
}

impl Kernel for MaxPoolTo<'_> {
    fn scalar(self) {
        scalar::max_pool_to(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Owned, assert_close, for_each, noise, whole_and_split};

    #[derive(Debug)]
    struct Case {
        channels: usize,
        size: (usize, usize),
        window: (usize, usize, usize),
    }

    #[test]
    fn average_pools_agree_with_their_definition() {
        let cases = [
            Case { channels: 1, size: (1, 1), window: (5, 2, 2) }, // smaller than a window
            Case { channels: 3, size: (7, 5), window: (5, 2, 2) }, // odd
            Case { channels: 17, size: (12, 15), window: (9, 4, 4) }, // 360x480 at 1/32
            Case { channels: 33, size: (12, 15), window: (17, 8, 8) }, // a window larger than the map
            Case { channels: 64, size: (32, 64), window: (17, 8, 8) },
            Case { channels: 5, size: (6, 6), window: (2, 2, 0) }, // no border
            Case { channels: 2, size: (7, 9), window: (3, 1, 1) }, // each pixel is in many windows
            Case { channels: 4, size: (9, 7), window: (1, 3, 0) }, // some pixels are in no window
            Case { channels: 4, size: (9, 8), window: (3, 5, 2) },
            Case { channels: 1, size: (3, 40), window: (7, 1, 3) }, // a window larger than the map along one axis
        ];
        for_each(cases, |isa, case| {
            let (kernel, stride, padding) = case.window;
            let x = Owned::noise(Layout::blocked(case.channels, case.size.0, case.size.1), 1);
            let len = |len| (len + 2 * padding - kernel) / stride + 1;
            let layout = Layout::blocked(case.channels, len(case.size.0), len(case.size.1));
            let got = whole_and_split(layout, |out| {
                avg_pool(isa, x.map(), kernel, stride, padding, out).expect("the shapes fit");
            });
            let mut want = Owned::zeros(layout);
            scalar::avg_pool(AvgPool { x: x.map(), kernel, stride, padding, out: want.view() });
            assert_close(&got.to_nchw(), &want.to_nchw(), 1e-5);
        });
    }

    #[test]
    fn the_zero_border_counts() {
        let x = Owned::from_nchw(&[1.0; 4], Layout::blocked(1, 2, 2));
        for isa in Isa::available() {
            let mut out = Owned::zeros(Layout::blocked(1, 1, 1));
            avg_pool(isa, x.map(), 5, 2, 2, out.view()).expect("the shapes fit");
            assert_close(&out.to_nchw(), &[4.0 / 25.0], 1e-6);
        }
    }

    #[test]
    fn the_global_average_is_the_mean() {
        let cases = [(1, 1, 1), (3, 2, 5), (17, 7, 9), (33, 1, 31), (64, 32, 64)];
        for_each(cases, |isa, &(channels, height, width)| {
            let x = Owned::noise(Layout::blocked(channels, height, width), 1);
            let got = whole_and_split(Layout::blocked(channels, 1, 1), |out| {
                global_avg_pool(isa, x.map(), out).expect("the shapes fit");
            });
            let want: Vec<_> = x
                .to_nchw()
                .chunks(height * width)
                .map(|plane| (plane.iter().map(|&v| f64::from(v)).sum::<f64>() / (height * width) as f64) as f32)
                .collect();
            let error = got.to_nchw().iter().zip(&want).fold(0.0f32, |e, (a, b)| e.max((a - b).abs()));
            assert!(error < 1e-5, "{error}");
        });
    }

    #[test]
    fn adaptive_maxima_agree_with_their_definition() {
        let cases = [
            (1, (1, 1), (1, 1)),
            (3, (12, 12), (12, 12)),  // every window is one pixel
            (17, (13, 31), (12, 12)), // windows overlap
            (33, (5, 7), (12, 8)),    // fewer pixels than windows
            (64, (64, 128), (8, 8)),
        ];
        for_each(cases, |isa, &(channels, size, to)| {
            let x = Owned::noise(Layout::blocked(channels, size.0, size.1), 1);
            // Negative scales: the maximum is of the scaled value, so it may come from the smallest pixel.
            let (scale, shift) = (Lanes::from_channels(&noise(channels, 2)), Lanes::from_channels(&noise(channels, 3)));
            let layout = Layout::blocked(channels, to.0, to.1);
            let got = whole_and_split(layout, |out| {
                max_pool_to(isa, x.map(), &scale, &shift, out).expect("the shapes fit");
            });
            let mut want = Owned::zeros(layout);
            scalar::max_pool_to(MaxPoolTo { x: x.map(), scale: &scale, shift: &shift, out: want.view() });
            assert_close(&got.to_nchw(), &want.to_nchw(), 1e-6);
        });
        assert_eq!([0, 1, 2].map(|i| adaptive_window(i, 3, 7)), [0..3, 2..5, 4..7]);
    }

    #[test]
    fn other_shapes_are_errors() {
        let (x, mut out) = (Owned::zeros(Layout::blocked(17, 4, 4)), Owned::zeros(Layout::blocked(17, 2, 2)));
        let mut one = Owned::zeros(Layout::blocked(16, 1, 1));
        let two = [Lanes::ZERO; 2];
        for isa in Isa::available() {
            for (kernel, stride, padding) in
                [(5, 2, 1), (0, 1, 0), (2, 0, 0), (5, 2, 5), (usize::MAX, 2, 2), (99, 2, 2)]
            {
                assert!(
                    avg_pool(isa, x.map(), kernel, stride, padding, out.view()).is_err(),
                    "{kernel}, {stride}, {padding}"
                );
            }
            assert!(global_avg_pool(isa, x.map(), out.view()).is_err());
            assert!(global_avg_pool(isa, x.map(), one.view()).is_err());
            assert!(max_pool_to(isa, x.map(), &two, &two[..1], out.view()).is_err());
            assert!(max_pool_to(isa, x.map(), &[], &two, out.view()).is_err());
            assert!(max_pool_to(isa, x.map(), &two, &two, one.view()).is_err());
        }
    }
}
