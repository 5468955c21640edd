//! Pointwise operations: ReLU and addition. Norms are part of a convolution's prologue.

pub mod gpu;
mod scalar;
mod vector;

use crate::simd::Kernel;
use crate::{Isa, Map, MapMut, ShapeError};

/// `out = max(x, 0)`
///
/// - `out`: the layout of `x`
/// - accuracy: exact
/// - errors: [`ShapeError`] if the layouts differ
pub fn relu(isa: Isa, x: Map, out: MapMut) -> Result<(), ShapeError> {
    check_blocked("relu", x, &out)?;
    isa.run(Relu { x, out });
    Ok(())
}

/// `out = a + b`
///
/// - `a`, `b`, `out`: the same layout
/// - accuracy: one rounding, the same bits on every instruction set
/// - errors: [`ShapeError`] if the layouts differ
pub fn add(isa: Isa, a: Map, b: Map, out: MapMut) -> Result<(), ShapeError> {
    check_blocked("add", a, &out)?;
    ShapeError::check("add", "layout of the second input", b.layout(), a.layout())?;
    isa.run(Add { a, b, out });
    Ok(())
}

fn check_blocked(op: &'static str, x: Map, out: &MapMut) -> Result<(), ShapeError> {
    ShapeError::check(op, "lanes of the input", x.layout().lanes, 16)?;
    ShapeError::check(op, "layout of the output", out.layout(), x.layout())
}

struct Relu<'a> {
    x: Map<'a>,
    out: MapMut<'a>,
}

struct Add<'a> {
    a: Map<'a>,
    b: Map<'a>,
    out: MapMut<'a>,
}

impl Kernel for Relu<'_> {
    fn scalar(self) {
        scalar::relu(self);
    }
}

impl Kernel for Add<'_> {
    fn scalar(self) {
        scalar::add(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;
    use crate::testing::{Owned, for_each, whole_and_split};

    #[derive(Debug)]
    struct Case {
        channels: usize,
        height: usize,
        width: usize,
    }

    const CASES: [Case; 7] = [
        Case { channels: 1, height: 1, width: 1 },   // the smallest map
        Case { channels: 3, height: 2, width: 5 },   // most of a block is padding
        Case { channels: 5, height: 7, width: 1 },   // columns of one pixel
        Case { channels: 16, height: 4, width: 9 },  // no padding
        Case { channels: 17, height: 3, width: 33 }, // one channel in the last block
        Case { channels: 33, height: 5, width: 4 },
        Case { channels: 64, height: 8, width: 16 },
    ];

    #[test]
    fn relu_and_add_are_exact() {
        for_each(CASES, |isa, case| {
            let layout = Layout::blocked(case.channels, case.height, case.width);
            let (a, b) = (Owned::noise(layout, 1), Owned::noise(layout, 2));
            let got = whole_and_split(layout, |out| relu(isa, a.map(), out).expect("the shapes fit"));
            let want: Vec<_> = a.to_nchw().iter().map(|v| v.max(0.0)).collect();
            assert_eq!(got.to_nchw(), want);
            let got = whole_and_split(layout, |out| add(isa, a.map(), b.map(), out).expect("the shapes fit"));
            let want: Vec<_> = a.to_nchw().iter().zip(b.to_nchw()).map(|(a, b)| a + b).collect();
            assert_eq!(got.to_nchw(), want);
        });
    }

    #[test]
    fn other_shapes_are_errors() {
        let (x, mut out) = (Owned::zeros(Layout::blocked(17, 4, 4)), Owned::zeros(Layout::blocked(17, 4, 5)));
        let (other, planar) = (Owned::zeros(Layout::blocked(16, 4, 4)), Owned::zeros(Layout::planar(17, 4, 4)));
        let mut fits = Owned::zeros(Layout::blocked(17, 4, 4));
        for isa in Isa::available() {
            assert!(relu(isa, planar.map(), fits.view()).is_err());
            assert!(relu(isa, x.map(), out.view()).is_err());
            assert!(add(isa, x.map(), other.map(), fits.view()).is_err());
            let error = relu(isa, other.map(), fits.view()).expect_err("16 channels are not 17");
            assert!(error.to_string().starts_with("relu: layout of the output is Layout { channels: 17"), "{error}");
        }
    }
}
