//! Tests every instruction set against the definition, and argmax against the upsampled logits.

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
    Case { classes: 1, from: (1, 1), to: (1, 1) },   // only one class
    Case { classes: 2, from: (1, 1), to: (9, 31) },  // one pixel to any size
    Case { classes: 3, from: (3, 5), to: (3, 5) },   // the same size
    Case { classes: 5, from: (4, 7), to: (32, 56) }, // the usual factor
    Case { classes: 16, from: (2, 9), to: (16, 72) },
    Case { classes: 17, from: (3, 4), to: (24, 17) },
    Case { classes: 19, from: (4, 60), to: (5, 487) }, // more than one chunk of columns
    Case { classes: 33, from: (5, 40), to: (6, 41) },  // a factor just above one
    Case { classes: 150, from: (3, 8), to: (9, 50) },  // ADE20K
    Case { classes: 19, from: (6, 61), to: (3, 23) },  // smaller
    Case { classes: 2, from: (2, 4000), to: (2, 9) },  // so much smaller that a chunk is a single pixel
];

/// Logits with many equal values, so that ties occur.
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

/// Cropping does not change the kept columns and rows: classes, confidence and logits have the same bits.
#[test]
fn the_kept_part_equals_the_cropped_whole() {
    for_each(CASES, |isa, case| {
        let (height, width) = case.to;
        let map = logits(case);
        let run = |size: Extent| {
            let (h, w) = size.kept;
            let (mut ids, mut sure, mut full) = (vec![0u8; h * w], vec![0.0; h * w], vec![0.0; case.classes * h * w]);
            let confidence = Confidence { values: &mut sure, temperature: 1.5 };
            argmax(isa, map.map(), size, 0..h, &mut ids, Some(confidence)).expect("the shapes fit");
            let mut alone = vec![0u8; h * w];
            argmax(isa, map.map(), size, 0..h, &mut alone, None).expect("the shapes fit");
            assert_eq!(ids, alone);
            upsample(isa, map.map(), size, 0..h, &mut full.chunks_mut(h * w).collect::<Vec<_>>())
                .expect("the shapes fit");
            (ids, sure, full)
        };
        let whole = run(case.to.into());
        for kept in
            [(1, 1), (height.div_ceil(2), width.div_ceil(2)), (height, width - width / 5), (height - height / 5, width)]
        {
            let part = run(Extent { full: case.to, kept });
            for y in 0..kept.0 {
                let (all, some) = (y * width..y * width + kept.1, y * kept.1..(y + 1) * kept.1);
                assert!(
                    whole.0[all.clone()] == part.0[some.clone()] && whole.1[all.clone()] == part.1[some.clone()],
                    "{kept:?}"
                );
                for class in 0..case.classes {
                    let of = |full: &[f32], plane: usize, range: &Range<usize>| {
                        full[class * plane..][range.clone()].to_vec()
                    };
                    assert_eq!(of(&whole.2, height * width, &all), of(&part.2, kept.0 * kept.1, &some), "{kept:?}");
                }
            }
        }
        let outside = Extent { full: case.to, kept: (height + 1, width) };
        assert!(argmax(isa, map.map(), outside, 0..height, &mut vec![0u8; height * width], None).is_err());
    });
}

#[test]
fn parts_agree_with_the_whole() {
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

/// Named logits that test the margin.
fn adversaries(case: &Case) -> Vec<(&'static str, Owned)> {
    let layout = Layout::blocked(case.classes, case.from.0, case.from.1);
    let pixels = case.from.0 * case.from.1;
    let (some, other) = (noise(case.classes * pixels, 5), noise(case.classes * pixels, 6));
    let of = |name, value: &dyn Fn(usize, f32, f32) -> f32| {
        let image: Vec<_> = some.iter().zip(&other).enumerate().map(|(i, (a, b))| value(i, *a, *b)).collect();
        (name, Owned::from_nchw(&image, layout))
    };
    let ulps = |value: f32, steps: f32| f32::from_bits(value.to_bits() + (steps.abs() * 4.0) as u32);
    let leader = |i: usize| i / pixels == 1 % case.classes;
    vec![
        of("equal everywhere", &|_, _, _| 7.3),
        of("ties of a few values", &|_, a, _| (a * 2.0).round()),
        of("a few units in the last place apart", &|_, a, _| ulps(7.3, a)),
        of("those, negative", &|_, a, _| -ulps(7.3, a)),
        of("one leads by a unit in the last place", &|i, _, _| if leader(i) { ulps(7.3, 0.25) } else { 7.3 }),
        // The margin is 2^-19 of the norm.
        of("one leads by about the margin", &|i, a, _| {
            if leader(i) { 5.0 + (2.0 + a) * 1e-5 } else { 5.0 - a.abs() * 1e-6 }
        }),
        of("one leads by far", &|i, a, _| if leader(i) { 9.0 + a } else { a }),
        of("the last leads by far", &|i, a, _| if i / pixels + 1 == case.classes { 9.0 + a } else { a }),
        // Interpolation between 1e8 and 1 loses the 1 completely.
        of("pixels of very different magnitudes", &|i, a, _| {
            let huge = if (i % pixels).is_multiple_of(2) { 1e8 } else { 0.0 };
            huge + if leader(i) { 1.0 + a.abs() } else { a.abs() }
        }),
        of("every magnitude", &|_, a, b| a * (b * 300.0).exp2()), // includes infinities, zeros and subnormal numbers
        of("magnitudes whose squares overflow", &|i, a, _| a * if leader(i) { 2e38 } else { 1e38 }),
        of("magnitudes whose squares vanish", &|i, a, _| if leader(i) { 1e-22 } else { a * 1e-23 }),
        of("subnormal numbers", &|_, a, _| f32::from_bits((a.abs() * 20.0) as u32)),
        of("some are NaN", &|i, a, b| {
            if b > 0.9 {
                f32::NAN
            } else if leader(i) {
                9.0
            } else {
                a
            }
        }),
        of("some are infinite", &|i, a, b| {
            if b.abs() > 0.9 {
                f32::INFINITY * b
            } else if leader(i) {
                9.0
            } else {
                a
            }
        }),
        of("wide areas", &|i, a, _| if i / pixels == i % pixels * 5 / pixels { 3.0 + a } else { a }),
    ]
}

/// Ids and confidence, with or without the skip.
fn read<T: ClassId + Default>(isa: Isa, case: &Case, map: &Owned, skip: bool, sure: bool) -> (Vec<T>, Vec<u32>) {
    let pixels = case.to.0 * case.to.1;
    let (mut ids, mut values) = (vec![T::default(); pixels], vec![0.0f32; pixels]);
    let upsampled = Upsampled::new("test", map.map(), case.to.into(), 0..case.to.0).expect("the shapes fit");
    let confidence = sure.then_some(Confidence { values: &mut values, temperature: 0.7 });
    isa.run(Argmax { upsampled, ids: &mut ids, confidence, skip });
    (ids, values.into_iter().map(f32::to_bits).collect())
}

#[test]
fn skipping_changes_no_bit() {
    let more = [
        Case { classes: 11, from: (5, 4), to: (5, 4) },
        Case { classes: 19, from: (9, 33), to: (72, 264) }, // more than one chunk at the usual factor
        Case { classes: 2, from: (1, 40), to: (7, 320) },   // one row
        Case { classes: 7, from: (40, 1), to: (320, 7) },   // one column
        Case { classes: 3, from: (3, 3), to: (100, 90) },   // groups inside a cell
        Case { classes: 40, from: (6, 7), to: (13, 29) },
    ];
    let every = if cfg!(miri) { 8 } else { 1 };
    for_each(CASES.into_iter().chain(more), |isa, case| {
        for (name, map) in adversaries(case).into_iter().step_by(every) {
            for sure in [false, true] {
                let (with, without) =
                    (read::<u16>(isa, case, &map, true, sure), read::<u16>(isa, case, &map, false, sure));
                assert!(with == without, "{name}, confidence: {sure}");
            }
            if case.classes <= u8::CLASSES {
                assert!(read::<u8>(isa, case, &map, true, false) == read(isa, case, &map, false, false), "{name}");
            }
        }
    });
}

/// For each group of each row, its class if it is known.
struct Known<'a> {
    upsampled: Upsampled<'a>,
    classes: &'a mut Vec<Option<u32>>,
}

impl crate::simd::Vector for Known<'_> {
    #[inline(always)]
    unsafe fn vector<S: crate::simd::Simd>(self) {
        let Self { upsampled: u, classes } = self;
        let (mut chunk, mut settled) = (chunk::Chunk::new(), settled::Settled::new());
        while chunk.place(&u) {
            settled.forget();
            for row in u.rows.clone() {
                // SAFETY: `Isa::run` provides an instruction set that the CPU supports.
                unsafe { settled.find::<S>(&chunk, u.logits, u.vertical.tap(row)) };
                classes.extend((0..chunk.len.div_ceil(16)).map(|group| settled.class(group)));
            }
        }
    }
}

impl Kernel for Known<'_> {
    fn scalar(self) {}
}

#[test]
#[cfg_attr(miri, ignore = "too many pixels for Miri, which runs the same code in the test above")]
fn large_leads_are_settled_and_ties_are_not() {
    let case = Case { classes: 19, from: (9, 33), to: (72, 264) };
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar) {
        for (name, map) in adversaries(&case) {
            let upsampled = Upsampled::new("test", map.map(), case.to.into(), 0..case.to.0).expect("the shapes fit");
            let mut known = Vec::new();
            isa.run(Known { upsampled, classes: &mut known });
            let count = known.iter().flatten().count();
            match name {
                "one leads by far" => assert!(known.iter().all(|class| *class == Some(1)), "{name}"),
                "the last leads by far" => assert!(known.iter().all(|class| *class == Some(18)), "{name}"),
                "wide areas" => assert!((known.len() / 4..known.len()).contains(&count), "{name}: {count}"),
                "one leads by about the margin" | "some are NaN" | "some are infinite" => {}
                _ => assert_eq!(count, 0, "{name}"),
            }
        }
    }
}

#[test]
fn nan_does_not_panic() {
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
        assert!(argmax(isa, many.map(), (4, 4), 0..4, &mut ids, None).is_err(), "257 classes do not fit in u8");
        assert!(argmax(isa, many.map(), (4, 4), 0..4, &mut [0u16; 16], None).is_ok());
        let short = Confidence { values: &mut [0.0; 15], temperature: 1.0 };
        assert!(argmax(isa, map.map(), (4, 4), 0..4, &mut ids, Some(short)).is_err());
        for temperature in [0.0, -1.0, f32::NAN] {
            let wrong = Confidence { values: &mut [0.0; 16], temperature };
            assert!(argmax(isa, map.map(), (4, 4), 0..4, &mut ids, Some(wrong)).is_err());
        }
        let (a, b, c) = (&mut [0.0; 16][..], &mut [0.0; 16][..], &mut [0.0; 16][..]);
        assert!(upsample(isa, map.map(), (4, 4), 0..4, &mut [a, b, c]).is_ok());
        assert!(upsample(isa, map.map(), (4, 4), 0..4, &mut [a, b]).is_err(), "one plane per class is required");
        assert!(upsample(isa, map.map(), (4, 4), 0..4, &mut [a, b, &mut [0.0; 15]]).is_err());
        assert!(upsample(isa, map.map(), (4, 4), 1..5, &mut [a, b, c]).is_err());
    }
}
