//! The grouped double normalization of GPU-friendly attention, in two functions.
//!
//! First a softmax over the pixels of each channel, then a division of every pixel by its sum over the channels of its
//! group ("head"). The first step needs all pixels of a channel, and the second all channels of a pixel. A caller with
//! threads therefore splits by blocks for the first step, waits, and splits by rows for the second.
//!
//! Source: `RTFormer`, arXiv:2210.07124, section 3.1 ("grouped double normalization").

pub mod gpu;
mod scalar;
mod vector;

use crate::simd::Kernel;
use crate::{Isa, MapMut, ShapeError};

/// Softmax over the pixels of each channel, in place; padding lanes become zero.
///
/// - `x`: a view of all rows of its blocks; logits in, weights that sum to 1 per channel out
/// - accuracy: within `1e-5` of the definition, relative to the largest weight
/// - errors: [`ShapeError`] unless the view is blocked and has every row
pub fn ea_softmax(isa: Isa, x: MapMut) -> Result<(), ShapeError> {
    const OP: &str = "ea_softmax";
    ShapeError::check(OP, "lanes of the map", x.layout().lanes, 16)?;
    ShapeError::ensure(x.has_all_rows(), OP, "rows of the view", x.rows(), "all rows of the map")?;
    isa.run(EaSoftmax { x });
    Ok(())
}

/// Divides every pixel by its sum over the group's channels plus `1e-6`, in place.
///
/// - `x`: a view of all blocks of its rows; group `g` of `groups` is channels `g * c / groups .. (g + 1) * c / groups`
/// - accuracy: within `1e-5` of the definition, relative to the largest output
/// - errors: [`ShapeError`] unless the view is blocked and has every block, and `groups` divides the channels
pub fn ea_group_l1(isa: Isa, x: MapMut, groups: usize) -> Result<(), ShapeError> {
    const OP: &str = "ea_group_l1";
    let channels = x.layout().channels;
    ShapeError::check(OP, "lanes of the map", x.layout().lanes, 16)?;
    ShapeError::ensure(x.has_all_blocks(), OP, "blocks of the view", x.blocks(), "all blocks of the map")?;
    let divides = groups > 0 && channels.is_multiple_of(groups);
    ShapeError::ensure(divides, OP, "groups", groups, format_args!("a divisor of {channels} channels"))?;
    isa.run(EaGroupL1 { x, group: channels / groups });
    Ok(())
}

struct EaSoftmax<'a> {
    x: MapMut<'a>,
}

struct EaGroupL1<'a> {
    x: MapMut<'a>,
    /// Channels per group.
    group: usize,
}

impl Kernel for EaSoftmax<'_> {
    fn scalar(self) {
        scalar::ea_softmax(self);
    }
}

impl Kernel for EaGroupL1<'_> {
    fn scalar(self) {
        scalar::ea_group_l1(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;
    use crate::testing::{Owned, assert_close, for_each};

    #[derive(Debug)]
    struct Case {
        channels: usize,
        groups: usize,
        height: usize,
        width: usize,
    }

    const CASES: [Case; 9] = [
        Case { channels: 1, groups: 1, height: 1, width: 1 }, // the smallest map
        Case { channels: 3, groups: 3, height: 2, width: 5 }, // every channel is its own group
        Case { channels: 5, groups: 1, height: 7, width: 3 },
        Case { channels: 16, groups: 2, height: 3, width: 3 }, // two groups in a block
        Case { channels: 17, groups: 17, height: 4, width: 9 },
        Case { channels: 33, groups: 3, height: 5, width: 4 }, // groups that span blocks
        Case { channels: 64, groups: 4, height: 8, width: 17 }, // one block is one group
        Case { channels: 144, groups: 8, height: 6, width: 7 }, // groups of 18
        Case { channels: 256, groups: 8, height: 32, width: 64 }, // slim, layer4, a 2048x1024 street
    ];

    /// Logits with one value far above the others, as in trained networks.
    fn logits(layout: Layout) -> Owned {
        let mut image = Owned::noise(layout, 7).to_nchw();
        for v in &mut image {
            *v *= 10.0;
        }
        image[0] = 60.0;
        Owned::from_nchw(&image, layout)
    }

    #[test]
    fn the_softmax_agrees_with_its_definition_and_sums_to_one() {
        for_each(CASES, |isa, case| {
            let x = logits(Layout::blocked(case.channels, case.height, case.width));
            let (mut got, mut want, mut split) = (x.clone(), x.clone(), x.clone());
            ea_softmax(isa, got.view()).expect("the view is whole");
            scalar::ea_softmax(EaSoftmax { x: want.view() });
            assert_close(&got.to_nchw(), &want.to_nchw(), 1e-5);
            for plane in got.to_nchw().chunks(case.height * case.width) {
                assert_close(&[plane.iter().sum()], &[1.0], 1e-5);
            }
            got.assert_zero_around();
            let (first, rest) = split.view().split_blocks(1);
            ea_softmax(isa, first).expect("the view has all rows");
            ea_softmax(isa, rest).expect("the view has all rows");
            assert!(split.all() == got.all(), "split views give different bits");
        });
    }

    #[test]
    fn the_group_norm_agrees_with_its_definition() {
        for_each(CASES, |isa, case| {
            let layout = Layout::blocked(case.channels, case.height, case.width);
            let mut image = Owned::noise(layout, 5).to_nchw();
            for v in &mut image {
                *v = v.abs();
            }
            let x = Owned::from_nchw(&image, layout);
            let (mut got, mut want, mut split) = (x.clone(), x.clone(), x.clone());
            ea_group_l1(isa, got.view(), case.groups).expect("the view is whole");
            scalar::ea_group_l1(EaGroupL1 { x: want.view(), group: case.channels / case.groups });
            assert_close(&got.to_nchw(), &want.to_nchw(), 1e-5);
            got.assert_zero_around();
            let (top, bottom) = split.view().split_rows(case.height / 2);
            ea_group_l1(isa, top, case.groups).expect("the view has all blocks");
            ea_group_l1(isa, bottom, case.groups).expect("the view has all blocks");
            assert!(split.all() == got.all(), "split views give different bits");
        });
    }

    #[test]
    fn other_shapes_are_errors() {
        let (mut x, mut planar) = (Owned::zeros(Layout::blocked(17, 4, 4)), Owned::zeros(Layout::planar(17, 4, 4)));
        for isa in Isa::available() {
            assert!(ea_softmax(isa, planar.view()).is_err());
            assert!(ea_softmax(isa, x.view().split_rows(2).0).is_err());
            assert!(ea_group_l1(isa, planar.view(), 1).is_err());
            assert!(ea_group_l1(isa, x.view().split_blocks(1).1, 1).is_err());
            assert!(ea_group_l1(isa, x.view(), 2).is_err());
            assert!(ea_group_l1(isa, x.view(), 0).is_err());
        }
    }
}
