//! Logits to classes.

use super::{Row, owned, shape, stored, upload};
use crate::argmax::gpu::{self as argmax, GpuIds};
use crate::gpu::{Device, GpuElement};
use crate::testing::{assert_close, noise};
use crate::{Confidence, Extent, Isa};

/// `argmax` with and without its confidence, in ids of 8 and 16 bits, and `upsample`.
pub fn readouts<D: Device>(device: &D, element: GpuElement) {
    let rows = [
        (shape(1, 1, 1, 1), (1, 1)), // one class
        (shape(2, 2, 1, 1), (4, 33)),
        (shape(1, 19, 4, 5), (32, 40)),  // Cityscapes
        (shape(2, 11, 3, 4), (19, 31)),  // an unusual factor
        (shape(1, 150, 2, 3), (16, 24)), // ADE20K
        (shape(1, 5, 9, 8), (4, 3)),     // smaller
        (shape(1, 300, 1, 2), (2, 9)),   // more classes than a byte names
    ];
    let padded = [
        (shape(2, 11, 3, 4), Extent { full: (24, 32), kept: (19, 31) }), // logits of a padded photo
        (shape(1, 5, 4, 4), Extent { full: (32, 32), kept: (32, 9) }),
    ];
    for (from, size) in rows.map(|(from, size)| (from, Extent::from(size))).into_iter().chain(padded) {
        let _row = Row::of(device, element, (from, size));
        let x = stored(element, noise(from.n * from.channels * from.pixels(), 1));
        let maps = upload(device, element, &x, from);
        for image in 0..from.n {
            let logits = owned(&x, image, from);
            let pixels = size.kept.0 * size.kept.1;
            let mut full = vec![0.0; from.channels * pixels];
            let mut planes: Vec<_> = full.chunks_mut(pixels).collect();
            crate::upsample(Isa::Scalar, logits.map(), size, 0..size.kept.0, &mut planes).expect("the shapes fit");
            let mut got = vec![f32::NAN; full.len()];
            argmax::upsample(device, &maps, image, size, &mut got).expect("the shapes fit");
            assert_close(&got, &full, 1e-6);

            let (mut want, mut sure) = (vec![0u16; pixels], vec![0.0; pixels]);
            let confidence = Confidence { values: &mut sure, temperature: 0.7 };
            crate::argmax(Isa::Scalar, logits.map(), size, 0..size.kept.0, &mut want, Some(confidence))
                .expect("the shapes fit");
            let (mut ids, mut got) = (vec![u16::MAX; pixels], vec![f32::NAN; pixels]);
            let confidence = Confidence { values: &mut got, temperature: 0.7 };
            argmax::argmax(device, &maps, image, size, GpuIds::U16(&mut ids), Some(confidence))
                .expect("the shapes fit");
            assert_close(&got, &sure, 1e-5);
            same_winners(&ids, &want, &full);
            if from.channels <= 256 {
                let mut ids = vec![u8::MAX; pixels];
                argmax::argmax(device, &maps, image, size, GpuIds::U8(&mut ids), None).expect("the shapes fit");
                same_winners(&ids.iter().map(|id| u16::from(*id)).collect::<Vec<_>>(), &want, &full);
            }
        }
    }
    // The lowest of equals.
    let maps = upload(device, element, &[0.5; 7 * 6], shape(1, 7, 2, 3));
    let mut ids = [u8::MAX; 4 * 6];
    argmax::argmax(device, &maps, 0, (4, 6), GpuIds::U8(&mut ids), None).expect("the shapes fit");
    assert_eq!(ids, [0; 4 * 6]);
}

/// The same classes, but where two logits are so near that a fused multiply-add decides.
fn same_winners(got: &[u16], want: &[u16], full: &[f32]) {
    for (pixel, (&a, &b)) in got.iter().zip(want).enumerate() {
        let logit = |class: u16| full[usize::from(class) * want.len() + pixel];
        assert!(a == b || logit(b) - logit(a) < 1e-5, "pixel {pixel} is {a}, not {b}");
    }
}
