//! Every instruction set against the definition, and argmax against the logits that it does not store.

use super::*;
use crate::Layout;
use crate::testing::{Owned, assert_close, for_each, noise};

#[derive(Debug)]
struct Case {
    classes: usize,
    from: (usize, usize),
    to: (usize, usize),
}

const CASES: [Case; 11] = [
    Case { classes: 1, from: (1, 1), to: (1, 1) },   // nothing to choose
    Case { classes: 2, from: (1, 1), to: (9, 31) },  // one pixel to any size
    Case { classes: 3, from: (3, 5), to: (3, 5) },   // the same size
    Case { classes: 5, from: (4, 7), to: (32, 56) }, // the usual factor
    Case { classes: 16, from: (2, 9), to: (16, 72) },
    Case { classes: 17, from: (3, 4), to: (24, 17) },
    Case { classes: 19, from: (4, 60), to: (5, 487) }, // more than one chunk of columns
    Case { classes: 33, from: (5, 40), to: (6, 41) },  // a factor just above one
    Case { classes: 150, from: (3, 8), to: (9, 50) },  // ADE20K
    Case { classes: 19, from: (6, 61), to: (3, 23) },  // smaller
    Case { classes: 2, from: (2, 4000), to: (2, 9) },  // so small that a chunk is a single pixel
];

/// Logits of which many are equal, so that ties are met.
fn logits(case: &Case) -> Owned {
    let layout = Layout::blocked(case.classes, case.from.0, case.from.1);
    let image: Vec<_> =
        noise(case.classes * case.from.0 * case.from.1, 1).iter().map(|v| (v * 3.0).round() * 2.0).collect();
    Owned::from_nchw(&image, layout)
}

fn upsampled(isa: Isa, case: &Case, rows: Range<usize>) -> Vec<f32> {
    let pixels = rows.len() * case.to.1;
    let mut out = vec![f32::NAN; case.classes * pixels];
    let mut planes: Vec<_> = out.chunks_mut(pixels).collect();
    upsample(isa, logits(case).map(), case.to, rows, &mut planes).expect("the shapes fit");
    out
}

#[test]
fn upsampled_logits_agree_with_the_definition_and_with_resize_add() {
    for_each(CASES, |isa, case| {
        let got = upsampled(isa, case, 0..case.to.0);
        assert_close(&got, &upsampled(Isa::Scalar, case, 0..case.to.0), 1e-6);
        let mut resized = Owned::zeros(Layout::blocked(case.classes, case.to.0, case.to.1));
        crate::resize_add(isa, logits(case).map(), None, resized.view()).expect("the shapes fit");
        assert_close(&got, &resized.to_nchw(), 1e-6);
    });
}

#[test]
fn the_winner_is_the_first_of_the_greatest_stored_logits() {
    for_each(CASES, |isa, case| {
        let pixels = case.to.0 * case.to.1;
        let values = upsampled(isa, case, 0..case.to.0);
        let want: Vec<_> = (0..pixels)
            .map(|p| {
                (0..case.classes)
                    .fold(0, |best, c| if values[c * pixels + p] > values[best * pixels + p] { c } else { best })
            })
            .collect();
        let (mut small, mut large, mut confidence) = (vec![99u8; pixels], vec![999u16; pixels], vec![0.0; pixels]);
        let map = logits(case);
        argmax(isa, map.map(), case.to, 0..case.to.0, &mut small, None).expect("the shapes fit");
        let sure = Confidence { values: &mut confidence, temperature: 1.5 };
        argmax(isa, map.map(), case.to, 0..case.to.0, &mut large, Some(sure)).expect("the shapes fit");
        for p in 0..pixels {
            assert_eq!((usize::from(small[p]), usize::from(large[p])), (want[p], want[p]), "pixel {p}");
        }
        let softmax: Vec<_> = (0..pixels)
            .map(|p| {
                let share = |c: usize| (f64::from(values[c * pixels + p] - values[want[p] * pixels + p]) / 1.5).exp();
                (1.0 / (0..case.classes).map(share).sum::<f64>()) as f32
            })
            .collect();
        assert_close(&confidence, &softmax, 1e-5);
    });
}

#[test]
fn parts_are_the_whole() {
    for_each(CASES, |isa, case| {
        let (height, width) = case.to;
        let (mid, map) = (height / 3, logits(case));
        let run = |rows: Range<usize>| {
            let (mut ids, mut sure) = (vec![0u8; rows.len() * width], vec![0.0; rows.len() * width]);
            let confidence = Confidence { values: &mut sure, temperature: 1.0 };
            argmax(isa, map.map(), case.to, rows, &mut ids, Some(confidence)).expect("the shapes fit");
            (ids, sure)
        };
        let (whole, top, bottom) = (run(0..height), run(0..mid), run(mid..height));
        assert!(whole.0 == [top.0, bottom.0].concat() && whole.1 == [top.1, bottom.1].concat());
    });
}

#[test]
fn not_a_number_is_no_panic() {
    let map = Owned::from_nchw(&[f32::NAN; 3 * 4], Layout::blocked(3, 2, 2));
    for isa in Isa::available() {
        let (mut ids, mut sure) = ([7u8; 16], [0.0; 16]);
        let confidence = Confidence { values: &mut sure, temperature: 1.0 };
        argmax(isa, map.map(), (4, 4), 0..4, &mut ids, Some(confidence)).expect("the shapes fit");
        assert_eq!(ids, [0; 16]);
    }
}

#[test]
fn other_shapes_are_errors() {
    let (map, many) = (Owned::zeros(Layout::blocked(3, 2, 2)), Owned::zeros(Layout::blocked(257, 1, 1)));
    let planar = Owned::zeros(Layout::planar(3, 2, 2));
    let mut ids = [0u8; 16];
    for isa in Isa::available() {
        assert!(argmax(isa, planar.map(), (4, 4), 0..4, &mut ids, None).is_err());
        assert!(argmax(isa, map.map(), (4, 4), 0..3, &mut ids, None).is_err());
        assert!(argmax(isa, map.map(), (4, 4), 1..5, &mut ids, None).is_err());
        assert!(argmax(isa, map.map(), (0, 4), 0..0, &mut ids[..0], None).is_err());
        assert!(argmax(isa, map.map(), (usize::MAX, usize::MAX), 0..4, &mut ids, None).is_err());
        assert!(argmax(isa, many.map(), (4, 4), 0..4, &mut ids, None).is_err(), "257 classes are no u8");
        assert!(argmax(isa, many.map(), (4, 4), 0..4, &mut [0u16; 16], None).is_ok());
        let short = Confidence { values: &mut [0.0; 15], temperature: 1.0 };
        assert!(argmax(isa, map.map(), (4, 4), 0..4, &mut ids, Some(short)).is_err());
        for temperature in [0.0, -1.0, f32::NAN] {
            let wrong = Confidence { values: &mut [0.0; 16], temperature };
            assert!(argmax(isa, map.map(), (4, 4), 0..4, &mut ids, Some(wrong)).is_err());
        }
        let (a, b, c) = (&mut [0.0; 16][..], &mut [0.0; 16][..], &mut [0.0; 16][..]);
        assert!(upsample(isa, map.map(), (4, 4), 0..4, &mut [a, b, c]).is_ok());
        assert!(upsample(isa, map.map(), (4, 4), 0..4, &mut [a, b]).is_err(), "a plane for each class");
        assert!(upsample(isa, map.map(), (4, 4), 0..4, &mut [a, b, &mut [0.0; 15]]).is_err());
        assert!(upsample(isa, map.map(), (4, 4), 1..5, &mut [a, b, c]).is_err());
    }
}
