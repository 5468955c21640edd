//! Tests every instruction set against the direct convolution and against the definition.

use super::*;
use crate::Layout;
use crate::conv::{PackedConv, Prologue, conv, scratch_len};
use crate::testing::{Owned, assert_close, for_each, noise, whole_and_split};

#[derive(Debug)]
struct Case {
    input: (usize, usize, usize),
    out_channels: usize,
}

const CASES: [Case; 12] = [
    Case { input: (1, 1, 1), out_channels: 1 },     // one pixel of one tile
    Case { input: (5, 2, 3), out_channels: 3 },     // less than a tile
    Case { input: (16, 4, 4), out_channels: 16 },   // one tile
    Case { input: (16, 5, 4), out_channels: 16 },   // one tile plus a row
    Case { input: (16, 4, 5), out_channels: 16 },   // one tile plus a column
    Case { input: (17, 6, 7), out_channels: 33 },   // padding lanes, three blocks
    Case { input: (32, 9, 30), out_channels: 32 },  // several rows of tiles
    Case { input: (32, 12, 61), out_channels: 48 }, // more tiles than one group
    Case { input: (64, 8, 29), out_channels: 19 },
    Case { input: (130, 7, 9), out_channels: 64 },
    Case { input: (256, 8, 15), out_channels: 256 }, // the low branch of a small frame
    Case { input: (3, 40, 41), out_channels: 8 },
];

impl Case {
    fn shape(&self) -> ConvShape {
        let (in_channels, out_channels) = (self.input.0, self.out_channels);
        ConvShape { in_channels, out_channels, kernel: 3, stride: 1, padding: 1 }
    }

    fn weights(&self) -> (Vec<f32>, Vec<f32>) {
        (noise(self.out_channels * self.input.0 * 9, 2), noise(self.out_channels, 3))
    }
}

/// `winograd` with exactly the scratch buffer that it needs, filled with garbage, on the whole map and on parts.
fn run(isa: Isa, packed: &PackedWinograd, input: Input, epilogue: Epilogue, output: Layout) -> Owned {
    whole_and_split(output, |out| {
        let mut scratch = vec![Lanes([f32::NAN; 16]); packed.scratch_len()];
        winograd(isa, packed, input, out, epilogue, &mut scratch).expect("the shapes fit");
    })
}

/// Runs `test` for every row of the table with every prologue.
fn with_inputs(mut test: impl FnMut(Isa, &Case, Input, Layout)) {
    for_each(CASES, |isa, case| {
        let (channels, height, width) = case.input;
        let x = Owned::noise(Layout::blocked(channels, height, width), 1);
        let norm = [5, 6].map(|seed| Lanes::from_channels(&noise(channels, seed)));
        let prologue = |relu| Some(Prologue { scale: &norm[0], shift: &norm[1], relu });
        for prologue in [None, prologue(false), prologue(true)] {
            let input = Input { map: x.map(), prologue };
            test(isa, case, input, Layout::blocked(case.out_channels, height, width));
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "minutes under Miri")]
fn it_agrees_with_the_convolution() {
    with_inputs(|isa, case, input, output| {
        let (weight, bias) = case.weights();
        let residual = Owned::noise(output, 4);
        let direct = PackedConv::pack(case.shape(), &weight, Some(&bias), 16, Element::F32).expect("the shapes fit");
        let packed = PackedWinograd::pack(case.shape(), &weight, Some(&bias), Element::F32).expect("the shapes fit");
        for residual in [None, Some(&residual)] {
            for activation in [Activation::None, Activation::Relu, Activation::Gelu] {
                let epilogue = Epilogue { residual: residual.map(Owned::map), activation };
                let mut want = Owned::zeros(output);
                let mut strip = vec![Lanes::ZERO; scratch_len(&direct, &input)];
                conv(Isa::best(), &direct, input, want.view(), epilogue, &mut strip).expect("the shapes fit");
                let got = run(isa, &packed, input, epilogue, output);
                assert_close(&got.to_nchw(), &want.to_nchw(), 2e-5);
            }
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "minutes under Miri")]
fn bf16_rounds_exactly_where_its_definition_does() {
    with_inputs(|isa, case, input, output| {
        let (weight, bias) = case.weights();
        let pack = |element| PackedWinograd::pack(case.shape(), &weight, Some(&bias), element).expect("they fit");
        let (packed, exact) = (pack(Element::Bf16), pack(Element::F32));
        let none = Epilogue::default();
        if !isa.multiplies(Element::Bf16) {
            let mut scratch = vec![Lanes::ZERO; packed.scratch_len()];
            let refused = winograd(isa, &packed, input, Owned::zeros(output).view(), none, &mut scratch);
            assert!(refused.is_err(), "bf16 must be rejected");
            return;
        }
        let got = run(isa, &packed, input, none, output).to_nchw();
        assert_close(&got, &run(Isa::Scalar, &packed, input, none, output).to_nchw(), 2e-5);
        assert_close(&got, &run(isa, &exact, input, none, output).to_nchw(), 0.1);
    });
}

#[test]
#[cfg_attr(miri, ignore = "minutes under Miri")]
fn bf16_has_the_errors_that_the_points_predict() {
    let shape = ConvShape { in_channels: 64, out_channels: 16, kernel: 3, stride: 1, padding: 1 };
    let (layout, output) = (Layout::blocked(64, 24, 24), Layout::blocked(16, 24, 24));
    // Nearly normal numbers, like the transformed ones. Uniform ones have smaller rounding errors.
    let normal = |len: usize, seed: u64| {
        let mut sums = vec![0.0; len];
        for part in 0..4 {
            sums.iter_mut().zip(noise(len, 10 * seed + part)).for_each(|(sum, value)| *sum += value);
        }
        sums
    };
    let (x, random) = (Owned::from_nchw(&normal(64 * 24 * 24, 1), layout), normal(16 * 64 * 9, 2));
    // Filters of which the points make the largest numbers: their corners, with one sign per filter.
    let corners: Vec<f32> =
        (0..random.len()).map(|i| if matches!(i % 9, 0 | 2 | 6 | 8) { random[i / 9 * 9] } else { 0.0 }).collect();
    let rms = |values: &[f32]| (values.iter().map(|v| f64::from(v * v)).sum::<f64>() / values.len() as f64).sqrt();
    for isa in Isa::available().into_iter().filter(|isa| isa.multiplies(Element::Bf16)) {
        for (weight, amplified) in [(&random, 4.76), (&corners, 8.45)] {
            let none = Epilogue::default();
            let direct = |element| {
                let packed = PackedConv::pack(shape, weight, None, 16, element).expect("the shapes fit");
                let input = x.map().into();
                let mut strip = vec![Lanes::ZERO; scratch_len(&packed, &input)];
                let mut out = Owned::zeros(output);
                conv(isa, &packed, input, out.view(), none, &mut strip).expect("the shapes fit");
                out.to_nchw()
            };
            let exact = direct(Element::F32);
            let error = |got: &[f32]| {
                let differences: Vec<f32> = got.iter().zip(&exact).map(|(a, b)| a - b).collect();
                rms(&differences) / rms(&exact)
            };
            let packed = PackedWinograd::pack(shape, weight, None, Element::Bf16).expect("the shapes fit");
            let winograd = error(&run(isa, &packed, x.map().into(), none, output).to_nchw());
            let direct = error(&direct(Element::Bf16));
            let ratio = winograd / direct;
            assert!((0.85..1.15).contains(&(ratio / amplified)), "{}: {ratio} of {amplified}", isa.name());
            assert!(winograd < 0.022 && direct < 0.003, "{}: {winograd} and {direct}", isa.name());
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes under Miri")]
fn the_bits_do_not_depend_on_the_block_sizes() {
    with_inputs(|isa, case, input, output| {
        let (weight, bias) = case.weights();
        let outputs = [1, 320 << 10, 512 << 10, 1 << 20, 64 << 20].map(|l2| {
            let packed = PackedWinograd::pack(case.shape(), &weight, Some(&bias), Element::F32);
            run(isa, &packed.expect("the shapes fit").for_l2(l2), input, Epilogue::default(), output)
        });
        assert!(outputs.iter().all(|out| out.all() == outputs[0].all()), "block sizes change bits");
    });
}

#[test]
fn other_shapes_are_errors() {
    let shape = ConvShape { in_channels: 17, out_channels: 5, kernel: 3, stride: 1, padding: 1 };
    let weight = vec![0.0; 5 * 17 * 9];
    for wrong in [
        ConvShape { in_channels: 0, ..shape },
        ConvShape { out_channels: 0, ..shape },
        ConvShape { out_channels: 4, ..shape },
        ConvShape { out_channels: usize::MAX, ..shape },
        ConvShape { kernel: 1, ..shape },
        ConvShape { padding: 0, ..shape },
        ConvShape { stride: 2, ..shape },
    ] {
        assert!(PackedWinograd::pack(wrong, &weight, None, Element::F32).is_err(), "{wrong:?}");
    }
    assert!(PackedWinograd::pack(shape, &weight, Some(&[0.0; 4]), Element::F32).is_err());
    let packed = PackedWinograd::pack(shape, &weight, None, Element::F32).expect("the shapes fit");
    let mut scratch = vec![Lanes::ZERO; packed.scratch_len()];
    let (x, narrow) = (Owned::zeros(Layout::blocked(17, 4, 6)), Owned::zeros(Layout::blocked(16, 4, 6)));
    let planar = Owned::zeros(Layout::planar(17, 4, 6));
    let (mut fits, mut small) = (Owned::zeros(Layout::blocked(5, 4, 6)), Owned::zeros(Layout::blocked(5, 4, 5)));
    let (none, other) = (Epilogue::default(), small.clone());
    let residual = Epilogue { residual: Some(other.map()), ..none };
    for isa in Isa::available() {
        assert!(winograd(isa, &packed, narrow.map(), fits.view(), none, &mut scratch).is_err());
        assert!(winograd(isa, &packed, planar.map(), fits.view(), none, &mut scratch).is_err());
        assert!(winograd(isa, &packed, x.map(), small.view(), none, &mut scratch).is_err());
        assert!(winograd(isa, &packed, x.map(), fits.view(), residual, &mut scratch).is_err());
        assert!(winograd(isa, &packed, x.map(), fits.view(), none, &mut scratch[1..]).is_err());
        let prologue = Some(Prologue { scale: &[Lanes::ZERO], shift: &[Lanes::ZERO; 2], relu: true });
        let input = Input { map: x.map(), prologue };
        assert!(winograd(isa, &packed, input, fits.view(), none, &mut scratch).is_err());
        assert!(winograd(isa, &packed, x.map(), fits.view(), none, &mut scratch).is_ok());
    }
}
