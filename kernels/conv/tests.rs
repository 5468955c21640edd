//! Tests every instruction set against the definition, and the definition against the formula in f64.

use super::*;
use crate::Layout;
use crate::testing::{Owned, assert_close, for_each, noise, whole_and_split};

/// Scale and shift per channel, and whether a ReLU follows.
type Norm = (Vec<f32>, Vec<f32>, bool);

#[derive(Debug)]
struct Case {
    input: (usize, usize, usize),
    out_channels: usize,
    kernel: usize,
    stride: usize,
    lanes: usize,
}

const fn case(input: (usize, usize, usize), out_channels: usize, kernel: usize, stride: usize) -> Case {
    Case { input, out_channels, kernel, stride, lanes: 16 }
}

const CASES: [Case; 20] = [
    case((1, 1, 1), 1, 1, 1), // the smallest map
    case((1, 1, 1), 1, 3, 1), // only border
    case((1, 1, 1), 1, 3, 2),
    case((5, 2, 2), 3, 3, 2), // an even size: the last window ends before the lower halo
    case((5, 3, 3), 3, 3, 2), // an odd size: it ends in the lower halo
    case((16, 4, 13), 16, 3, 1),
    case((16, 4, 14), 16, 1, 1), // one tile
    case((16, 3, 15), 33, 3, 1), // one tile plus a pixel; three blocks: a pair and a single one
    case((17, 5, 29), 17, 3, 1), // one input channel in the last block
    case((17, 5, 29), 17, 3, 2),
    case((33, 6, 7), 64, 1, 1),
    case((33, 7, 6), 64, 1, 2),
    case((64, 3, 6), 19, 1, 1), // the head: 19 classes
    case((64, 4, 11), 64, 3, 1),
    case((130, 2, 5), 48, 3, 1),
    Case { input: (3, 1, 1), out_channels: 32, kernel: 3, stride: 2, lanes: 1 },
    Case { input: (3, 9, 31), out_channels: 32, kernel: 3, stride: 2, lanes: 1 }, // the stem
    Case { input: (3, 8, 30), out_channels: 17, kernel: 3, stride: 1, lanes: 1 },
    Case { input: (5, 4, 9), out_channels: 16, kernel: 1, stride: 2, lanes: 1 },
    Case { input: (17, 4, 9), out_channels: 5, kernel: 1, stride: 1, lanes: 1 },
];

impl Case {
    fn shape(&self) -> ConvShape {
        let Self { kernel, stride, out_channels, .. } = *self;
        ConvShape { in_channels: self.input.0, out_channels, kernel, stride, padding: kernel / 2 }
    }

    fn input(&self) -> Layout {
        Layout { channels: self.input.0, height: self.input.1, width: self.input.2, lanes: self.lanes }
    }

    fn output(&self) -> Layout {
        let (h, w) = self.shape().out_size(self.input.1, self.input.2);
        Layout::blocked(self.out_channels, h, w)
    }

    fn weights(&self) -> (Vec<f32>, Vec<f32>) {
        (noise(self.out_channels * self.input.0 * self.kernel * self.kernel, 2), noise(self.out_channels, 3))
    }

    fn pack(&self, element: Element) -> PackedConv {
        let (weight, bias) = self.weights();
        PackedConv::pack(self.shape(), &weight, Some(&bias), self.lanes, element).expect("the shapes fit")
    }

    /// The prologues to test with this input: scale (of either sign), shift and ReLU.
    fn prologues(&self) -> Vec<Option<Norm>> {
        let channels = self.input.0;
        let norm = |relu| Some((noise(channels, 5), noise(channels, 6), relu));
        if self.lanes == 16 { vec![None, norm(false), norm(true)] } else { vec![None] }
    }

    /// The element types that this case supports.
    fn elements(&self) -> &'static [Element] {
        if self.lanes == 16 { &[Element::F32, Element::Bf16] } else { &[Element::F32] }
    }
}

/// [`conv()`] with exactly the scratch buffer that it needs, filled with garbage.
fn run(isa: Isa, packed: &PackedConv, input: Input, out: MapMut, epilogue: Epilogue) -> Result<(), ShapeError> {
    let mut scratch = vec![Lanes([f32::NAN; 16]); scratch_len(packed, &input)];
    conv(isa, packed, input, out, epilogue, &mut scratch)
}

/// The formula of the module's documentation on plain images, in f64, without the activation.
fn formula(case: &Case, element: Element, x: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
    let (weight, bias) = case.weights();
    let (channels, height, width) = case.input;
    let Layout { height: out_height, width: out_width, .. } = case.output();
    let mut out = Vec::new();
    for o in 0..case.out_channels {
        for oy in 0..out_height {
            for ox in 0..out_width {
                let mut sum = f64::from(bias[o]) + residual.map_or(0.0, |r| f64::from(r[out.len()]));
                for c in 0..channels {
                    for tap in 0..case.kernel * case.kernel {
                        let y = (oy * case.stride + tap / case.kernel).wrapping_sub(case.kernel / 2);
                        let x_ = (ox * case.stride + tap % case.kernel).wrapping_sub(case.kernel / 2);
                        if y < height && x_ < width {
                            let w = weight[(o * channels + c) * case.kernel * case.kernel + tap];
                            let value = x[(c * height + y) * width + x_];
                            sum += f64::from(element.round(w)) * f64::from(element.round(value));
                        }
                    }
                }
                out.push(sum as f32);
            }
        }
    }
    out
}

#[test]
fn convolutions_agree_with_the_formula() {
    for_each(CASES, |isa, case| {
        let (x, residual) = (Owned::noise(case.input(), 1), Owned::noise(case.output(), 4));
        for (norm, &element) in case.prologues().iter().flat_map(|norm| case.elements().iter().map(move |e| (norm, e)))
        {
            let packed = case.pack(element);
            let plane = case.input.1 * case.input.2;
            let mut image = x.to_nchw();
            if let Some((scale, shift, relu)) = norm {
                for (i, value) in image.iter_mut().enumerate() {
                    *value = value.mul_add(scale[i / plane], shift[i / plane]);
                    *value = if *relu { value.max(0.0) } else { *value };
                }
            }
            let norm = norm
                .as_ref()
                .map(|(scale, shift, relu)| (Lanes::from_channels(scale), Lanes::from_channels(shift), *relu));
            let prologue = norm.as_ref().map(|(scale, shift, relu)| Prologue { scale, shift, relu: *relu });
            let input = Input { map: x.map(), prologue };
            for residual in [None, Some(&residual)] {
                let plain = residual.map(Owned::to_nchw);
                let want = formula(case, element, &image, plain.as_deref());
                for activation in [Activation::None, Activation::Relu, Activation::Gelu] {
                    let epilogue = Epilogue { residual: residual.map(Owned::map), activation };
                    if !isa.multiplies(element) {
                        let error = run(isa, &packed, input, Owned::zeros(case.output()).view(), epilogue);
                        assert!(error.is_err(), "{element:?} must be rejected");
                        continue;
                    }
                    let got = whole_and_split(case.output(), |out| {
                        run(isa, &packed, input, out, epilogue).expect("the shapes fit");
                    });
                    let want: Vec<_> = want
                        .iter()
                        .map(|&v| match activation {
                            Activation::None => v,
                            Activation::Relu => v.max(0.0),
                            Activation::Gelu => {
                                let v = f64::from(v);
                                (0.5 * v * (1.0 + libm::erf(v / std::f64::consts::SQRT_2))) as f32
                            }
                        })
                        .collect();
                    // A single small output may have lost its leading digits, so compare with the size of a sum's
                    // terms.
                    let error = got.to_nchw().iter().zip(&want).fold(0.0f32, |e, (a, b)| e.max((a - b).abs()));
                    let greatest = want.iter().fold(1.0, |m: f32, v| m.max(v.abs()));
                    assert!(error < 1e-5 * greatest, "{element:?}, {prologue:?}, {activation:?}: {error}");
                }
            }
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "minutes under Miri")]
fn the_loop_order_for_many_weights_changes_no_result() {
    // 256 channels have 2.4 MB of weights. A view of one pair of blocks has few enough weights for the other order.
    let case = case((256, 3, 9), 256, 3, 1);
    let (packed, x) = (case.pack(Element::F32).for_l2(1 << 20), Owned::noise(case.input(), 1));
    let want = formula(&case, Element::F32, &x.to_nchw(), None);
    for isa in Isa::available() {
        let got = whole_and_split(case.output(), |out| {
            run(isa, &packed, x.map().into(), out, Epilogue::default()).expect("the shapes fit");
        });
        assert_close(&got.to_nchw(), &want, 1e-5);
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes under Miri")]
fn several_strips_give_the_same_bits_as_the_map() {
    // Rows of 520 pixels with 64 channels: a few of them fill a strip.
    for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
        let case = case((64, 23, 520), 16, kernel, stride);
        let (packed, x) = (case.pack(Element::F32).for_l2(1 << 20), Owned::noise(case.input(), 1));
        let (one, none) = (Lanes::from_channels(&[1.0; 64]), Lanes::from_channels(&[0.0; 64]));
        let prologue = Some(Prologue { scale: &one, shift: &none, relu: false });
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Scalar) {
            let through = |input| {
                whole_and_split(case.output(), |out| {
                    run(isa, &packed, input, out, Epilogue::default()).expect("the shapes fit");
                })
            };
            let same = through(Input { map: x.map(), prologue }).all() == through(x.map().into()).all();
            assert!(same, "{case:?} on {}: an identity prologue changes the bits", isa.name());
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes under Miri")]
fn other_shapes_are_errors() {
    let shape = ConvShape { in_channels: 17, out_channels: 5, kernel: 3, stride: 1, padding: 1 };
    let weight = vec![0.0; 5 * 17 * 9];
    for wrong in [
        ConvShape { in_channels: 0, ..shape },
        ConvShape { out_channels: 0, ..shape },
        ConvShape { out_channels: 4, ..shape },
        ConvShape { out_channels: usize::MAX, ..shape },
        ConvShape { kernel: 5, ..shape },
        ConvShape { kernel: 1, ..shape },
        ConvShape { padding: 0, ..shape },
        ConvShape { stride: 0, ..shape },
        ConvShape { stride: 3, ..shape },
    ] {
        assert!(PackedConv::pack(wrong, &weight, None, 16, Element::F32).is_err(), "{wrong:?}");
    }
    assert!(PackedConv::pack(shape, &weight, Some(&[0.0; 4]), 16, Element::F32).is_err());
    assert!(PackedConv::pack(shape, &weight, None, 8, Element::F32).is_err());
    assert!(PackedConv::pack(shape, &weight, None, 1, Element::Bf16).is_err());

    let packed = PackedConv::pack(shape, &weight, None, 16, Element::F32).expect("the shapes fit");
    let (x, narrow) = (Owned::zeros(Layout::blocked(17, 4, 6)), Owned::zeros(Layout::blocked(16, 4, 6)));
    let planar = Owned::zeros(Layout::planar(17, 4, 6));
    let (mut fits, mut small) = (Owned::zeros(Layout::blocked(5, 4, 6)), Owned::zeros(Layout::blocked(5, 4, 5)));
    let mut flat = Owned::zeros(Layout::planar(5, 4, 6));
    let other = small.clone();
    let (none, residual) = (Epilogue::default(), Epilogue { residual: Some(other.map()), ..Epilogue::default() });
    let (two, one) = ([Lanes::ZERO; 2], [Lanes::ZERO; 1]);
    let normed = |scale, shift| Input { map: x.map(), prologue: Some(Prologue { scale, shift, relu: true }) };
    for isa in Isa::available() {
        assert!(run(isa, &packed, narrow.map().into(), fits.view(), none).is_err());
        assert!(run(isa, &packed, planar.map().into(), fits.view(), none).is_err());
        assert!(run(isa, &packed, x.map().into(), small.view(), none).is_err());
        assert!(run(isa, &packed, x.map().into(), flat.view(), none).is_err());
        assert!(run(isa, &packed, x.map().into(), fits.view(), residual).is_err());
        assert!(run(isa, &packed, normed(&one, &two), fits.view(), none).is_err());
        assert!(run(isa, &packed, normed(&two, &one), fits.view(), none).is_err());
        assert!(conv(isa, &packed, normed(&two, &two), fits.view(), none, &mut []).is_err());
        assert!(run(isa, &packed, normed(&two, &two), fits.view(), none).is_ok());
        assert!(run(isa, &packed, x.map().into(), fits.view(), none).is_ok());
    }
    let error = run(Isa::Scalar, &packed, narrow.map().into(), fits.view(), none).expect_err("16 channels are not 17");
    assert_eq!(error.to_string(), "conv: channels of the input is 16, expected 17");
}

#[test]
fn the_bits_do_not_depend_on_the_block_sizes() {
    for_each(CASES, |isa, case| {
        let x = Owned::noise(case.input(), 1);
        for norm in case.prologues() {
            let lanes = norm.as_ref().map(|(scale, shift, _)| [scale, shift].map(|v| Lanes::from_channels(v)));
            let prologue = lanes.as_ref().map(|[scale, shift]| Prologue { scale, shift, relu: true });
            let input = Input { map: x.map(), prologue };
            let outputs = [1, 8 << 10, 64 << 10, 512 << 10, 64 << 20].map(|l2| {
                let mut out = Owned::zeros(case.output());
                let packed = case.pack(Element::F32).for_l2(l2);
                run(isa, &packed, input, out.view(), Epilogue::default()).expect("the shapes fit");
                out
            });
            assert!(outputs.iter().all(|out| out.all() == outputs[0].all()), "block sizes change bits");
        }
    });
}
