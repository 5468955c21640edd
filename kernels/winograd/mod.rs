//! A 3x3 convolution of stride 1 with a quarter of the multiplications: Winograd's F(4x4, 3x3).
//!
//! Every 4x4 outputs are one tile. Its 6x6 inputs become 36 numbers a channel (`B' d B`), each of the 36 is a product of matrices
//! (tiles by input channels, times input by output channels), and each 36 sums become 16 outputs (`A' m A`). The weights are
//! transformed once (`G g G'`, in f64). Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.
//!
//! The points are 0, ±2/3, ±3/2 and infinity, which cost no more than the usual 0, ±1, ±2 and infinity, and round better: in bf16 the
//! embedded network's logits are off by 0.32 % (root of the mean square, CamVid val), with the usual ones by 0.52 %; random networks in
//! f32 by 1.5e-5 of the greatest logit at most, against 3.6e-5. F(6x6, 3x3) would leave 1.6 times the room that parity has: too little.
//!
//! Stride 2 was tried in the same way (nine numbers for four outputs, where the definition has twelve products): its 81 planes of sums and
//! inputs cost what its nine sixteenths of the multiplications saved, but for 64 to 128 channels in f32 (17 %).
//!
//! The tiles lie on a grid that begins at the map's corner, whatever part of it a view has, so that results do not depend on how a map
//! is split. A view whose rows begin or end inside a tile computes all of the tile and stores its part: split at multiples of
//! [`TILE`].

mod scalar;
mod vector;

use crate::conv::{Activation, ConvShape, Epilogue, Input};
use crate::pages::Table;
use crate::simd::Kernel;
use crate::{Element, Isa, Lanes, MapMut, ShapeError};

/// Rows and columns of outputs in a tile.
pub const TILE: usize = 4;
/// Rows and columns of inputs of a tile.
const PATCH: usize = TILE + 2;
/// Products a tile.
const POINTS: usize = PATCH * PATCH;
/// The nearer pair of points is at ± this, ...
const NEAR: f32 = 2.0 / 3.0;
/// ... the farther one at ± its inverse, so that the two share their powers.
const FAR: f32 = 1.5;
const NEAR_SQUARED: f32 = 4.0 / 9.0;
const FAR_SQUARED: f32 = 2.25;
const SQUARES: f32 = 97.0 / 36.0; // 4/9 + 9/4
/// Bytes of scratch to aim at: transformed inputs and sums of one group of tiles. Most of it should stay in the second-level cache.
const SCRATCH: usize = 640 * 1024;

/// Bytes of transformed weights that no second-level cache holds: those of 256 by 256 channels have twice as many.
const UNCACHED_WEIGHTS: usize = 4 << 20;

/// Weights and bias of a 3x3 convolution, transformed and packed for [`winograd`].
///
/// Order: `[36][out / 16][words of in][16 out]`, a word being one channel in f32 or two in bf16, as in [`crate::PackedConv`]; missing
/// channels are zero.
#[derive(Clone, Debug)]
pub struct PackedWinograd {
    shape: ConvShape,
    element: Element,
    weights: Table,
    bias: Vec<Lanes>,
}

impl PackedWinograd {
    /// Whether a convolution of this shape can be computed this way.
    pub fn can(shape: &ConvShape) -> bool {
        (shape.kernel, shape.stride, shape.padding) == (3, 1, 1)
    }

    /// Packs `weight` (`[out, in, 3, 3]`) and `bias` (`[out]`, zero if absent), to be multiplied as `element`.
    ///
    /// - errors: [`ShapeError`] when a length differs, or for a shape that [`PackedWinograd::can`] not
    pub fn pack(shape: ConvShape, weight: &[f32], bias: Option<&[f32]>, element: Element) -> Result<Self, ShapeError> {
        const OP: &str = "winograd";
        let ConvShape { in_channels, out_channels, kernel, stride, padding } = shape;
        let window = (kernel, stride, padding);
        ShapeError::ensure(Self::can(&shape), OP, "(kernel, stride, padding)", window, "(3, 1, 1)")?;
        let channels = (in_channels, out_channels);
        let some = in_channels > 0 && out_channels > 0;
        ShapeError::ensure(some, OP, "(in_channels, out_channels)", channels, "at least 1 each")?;
        let reduced = in_channels.saturating_mul(9);
        ShapeError::check(OP, "length of the weight", weight.len(), out_channels.saturating_mul(reduced))?;
        if let Some(bias) = bias {
            ShapeError::check(OP, "length of the bias", bias.len(), out_channels)?;
        }
        let (blocks, words) = (out_channels.div_ceil(16), element.words(in_channels));
        let mut weights = Table::zeros(POINTS * blocks * words);
        for block in 0..blocks {
            for input in 0..in_channels {
                let mut filters = [[0.0; 16]; 9];
                for lane in 0..(out_channels - 16 * block).min(16) {
                    let filter = &weight[((16 * block + lane) * in_channels + input) * 9..][..9];
                    filters.iter_mut().zip(filter).for_each(|(taps, &tap)| taps[lane] = f64::from(tap));
                }
                for (point, values) in transform_filters(&filters).into_iter().enumerate() {
                    let row = &mut weights[(point * blocks + block) * words + input / element.channels_per_word()];
                    row.0.iter_mut().zip(values.0).for_each(|(word, value)| element.put(word, input, value));
                }
            }
        }
        let bias = bias.map_or_else(|| vec![Lanes::ZERO; blocks], Lanes::from_channels);
        Ok(Self { shape, element, weights, bias })
    }

    /// What the convolution is.
    pub fn shape(&self) -> ConvShape {
        self.shape
    }

    /// What it multiplies.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Bytes of the transformed weights: where they do not fit in a cache, many tiles should go through them at once.
    pub fn bytes(&self) -> usize {
        64 * self.weights.len()
    }

    /// How much scratch [`winograd`] needs.
    pub fn scratch_len(&self) -> usize {
        POINTS * (self.input_plane() + self.output_plane())
    }

    fn in_blocks(&self) -> usize {
        self.shape.in_channels.div_ceil(16)
    }

    /// Words of all input channels at one point of one tile.
    fn words(&self) -> usize {
        self.element.words(self.shape.in_channels)
    }

    /// Words of the sixteen channels of a block.
    fn block_words(&self) -> usize {
        self.element.words(16)
    }

    /// Tiles that are computed together.
    fn group(&self) -> usize {
        let tile = POINTS * 4 * (self.in_blocks() * self.block_words() + 16 * self.bias.len());
        // Weights past the cache are read once a group: a wide group, though its sums leave the second-level cache.
        if self.bytes() > UNCACHED_WEIGHTS { 56 } else { (SCRATCH / tile).clamp(14, 84) }
    }

    /// Lanes from one point's inputs to the next. One more than they are: at a multiple of 4096 bytes, the 36 stores of a tile would
    /// all fall into one set of the cache.
    fn input_plane(&self) -> usize {
        (self.in_blocks() * self.group() * self.block_words()).div_ceil(16) + 1
    }

    /// The same for the sums.
    fn output_plane(&self) -> usize {
        self.bias.len() * self.group() + 1
    }
}

/// `G g G'` of sixteen 3x3 filters side by side, `[9][16]`: lanes that the compiler can take together, as loading a model transforms
/// 600,000 filters.
fn transform_filters(filters: &[[f64; 16]; 9]) -> [Lanes; POINTS] {
    // Rows of G, for the points 0, ±2/3, ±3/2 and infinity; `B` and `A` have the points' powers, and G the rest.
    const G: [[f64; 3]; PATCH] = [
        [1.0, 0.0, 0.0],
        [-27.0 / 65.0, -18.0 / 65.0, -12.0 / 65.0],
        [-27.0 / 65.0, 18.0 / 65.0, -12.0 / 65.0],
        [12.0 / 65.0, 18.0 / 65.0, 27.0 / 65.0],
        [12.0 / 65.0, -18.0 / 65.0, 27.0 / 65.0],
        [0.0, 0.0, 1.0],
    ];
    let mut half = [[[0.0; 16]; 3]; PATCH];
    for (half, g) in half.iter_mut().zip(G) {
        for column in 0..3 {
            let (a, b, c) = (&filters[column], &filters[3 + column], &filters[6 + column]);
            for lane in 0..16 {
                half[column][lane] = g[0] * a[lane] + g[1] * b[lane] + g[2] * c[lane];
            }
        }
    }
    let mut points = [Lanes::ZERO; POINTS];
    for (point, values) in points.iter_mut().enumerate() {
        let ([a, b, c], g) = (&half[point / PATCH], G[point % PATCH]);
        for lane in 0..16 {
            values.0[lane] = (a[lane] * g[0] + b[lane] * g[1] + c[lane] * g[2]) as f32;
        }
    }
    points
}

/// Convolves the blocks and rows of the view `out`, as [`crate::conv()`] does.
///
/// - `input`: `[in_channels, h, w]`, blocked, with a zero halo; `out`: `[out_channels, h, w]`, blocked
/// - `epilogue.residual`: of the layout of `out`
/// - `scratch`: at least [`PackedWinograd::scratch_len`] long; its contents do not matter
/// - accuracy: within `2e-5` of the definition, which rounds the transformed weights and inputs to their element; in f32 that is the
///   convolution's, relative to the greatest output
/// - errors: [`ShapeError`] when a shape differs from these, or `isa` does not multiply the weights' element
pub fn winograd<'a>(
    isa: Isa,
    conv: &PackedWinograd,
    input: impl Into<Input<'a>>,
    out: MapMut,
    epilogue: Epilogue,
    scratch: &mut [Lanes],
) -> Result<(), ShapeError> {
    const OP: &str = "winograd";
    let input = input.into();
    input.check(OP, &conv.shape, 16, out.layout(), &epilogue)?;
    ShapeError::at_least(OP, "length of the scratch", scratch.len(), conv.scratch_len())?;
    isa.check(OP, "element of the weights", conv.element)?;
    isa.run_products(conv.element, Winograd { packed: conv, input, out, epilogue, scratch });
    Ok(())
}

/// A checked call.
struct Winograd<'a> {
    packed: &'a PackedWinograd,
    input: Input<'a>,
    out: MapMut<'a>,
    epilogue: Epilogue<'a>,
    scratch: &'a mut [Lanes],
}

impl Winograd<'_> {
    /// The tiles that the view's rows touch.
    fn grid(&self) -> Grid {
        let (rows, width) = (self.out.rows(), self.out.layout().width);
        let first = rows.start / TILE;
        Grid { first, rows: rows.end.div_ceil(TILE).saturating_sub(first), columns: width.div_ceil(TILE) }
    }

    /// The least that is stored.
    fn floor(&self) -> f32 {
        if self.epilogue.activation == Activation::Relu { 0.0 } else { f32::NEG_INFINITY }
    }
}

/// Some rows of tiles.
#[derive(Clone, Copy)]
struct Grid {
    first: usize,
    rows: usize,
    columns: usize,
}

impl Grid {
    fn len(self) -> usize {
        self.rows * self.columns
    }

    /// The output row and column that a tile begins at.
    fn corner(self, tile: usize) -> (usize, usize) {
        (TILE * (self.first + tile / self.columns), TILE * (tile % self.columns))
    }
}

impl Kernel for Winograd<'_> {
    fn scalar(self) {
        scalar::winograd(self);
    }
}

#[cfg(test)]
mod tests {
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
        Case { input: (16, 5, 4), out_channels: 16 },   // and a row
        Case { input: (16, 4, 5), out_channels: 16 },   // and a column
        Case { input: (17, 6, 7), out_channels: 33 },   // lanes left over, three blocks
        Case { input: (32, 9, 30), out_channels: 32 },  // several rows of tiles
        Case { input: (32, 12, 61), out_channels: 48 }, // more tiles than are computed together
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

    /// `winograd` with as much scratch as it asks for, full of rubbish, on the whole map and on parts.
    fn run(isa: Isa, packed: &PackedWinograd, input: Input, epilogue: Epilogue, output: Layout) -> Owned {
        whole_and_split(output, |out| {
            let mut scratch = vec![Lanes([f32::NAN; 16]); packed.scratch_len()];
            winograd(isa, packed, input, out, epilogue, &mut scratch).expect("the shapes fit");
        })
    }

    /// Runs `test` on every row of the table with every prologue.
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
    fn it_is_the_convolution() {
        with_inputs(|isa, case, input, output| {
            let (weight, bias) = case.weights();
            let residual = Owned::noise(output, 4);
            let direct =
                PackedConv::pack(case.shape(), &weight, Some(&bias), 16, Element::F32).expect("the shapes fit");
            let packed =
                PackedWinograd::pack(case.shape(), &weight, Some(&bias), Element::F32).expect("the shapes fit");
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
    fn bf16_rounds_as_its_definition_does_and_nothing_else() {
        with_inputs(|isa, case, input, output| {
            let (weight, bias) = case.weights();
            let pack = |element| PackedWinograd::pack(case.shape(), &weight, Some(&bias), element).expect("they fit");
            let (packed, exact) = (pack(Element::Bf16), pack(Element::F32));
            let none = Epilogue::default();
            if !isa.multiplies(Element::Bf16) {
                let mut scratch = vec![Lanes::ZERO; packed.scratch_len()];
                let refused = winograd(isa, &packed, input, Owned::zeros(output).view(), none, &mut scratch);
                assert!(refused.is_err(), "bf16 must be refused");
                return;
            }
            let got = run(isa, &packed, input, none, output).to_nchw();
            assert_close(&got, &run(Isa::Scalar, &packed, input, none, output).to_nchw(), 2e-5);
            assert_close(&got, &run(isa, &exact, input, none, output).to_nchw(), 0.1);
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
}
