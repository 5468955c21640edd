//! A 3x3 convolution of stride 1 with a quarter of the multiplications: Winograd's F(4x4, 3x3).
//!
//! Each tile is 4x4 outputs. Its 6x6 inputs are transformed into 36 numbers per channel (`B' d B`). Each of the 36
//! points is a matrix product (tiles by input channels, times input by output channels). Each 36 sums are transformed
//! into 16 outputs (`A' m A`). The weights are transformed once (`G g G'`, in f64). Source: Lavin and Gray, "Fast
//! Algorithms for Convolutional Neural Networks", 2015.
//!
//! The points are 0, ±2/3, ±3/2 and infinity. They cost no more than the usual 0, ±1, ±2 and infinity, and amplify
//! rounding errors less. For uncorrelated inputs and filters the factor is the mean over the rows of `A'` of the sum over
//! the points of `A^2 |B|^2 |G|^2 / 3`: 4.76, against 10.8 with the usual points (root mean square, in two dimensions). In
//! f32 the logits of random networks are off by at most 2.4e-5 of the largest, against 4.9e-5. F(6x6, 3x3) would be below
//! the parity tolerance by a factor of only 1.6, which is too little.
//!
//! In bf16 a layer's error is 4.76 times that of a direct convolution (0.24 % of the output), and 8.45 times for the worst
//! filters: at most 2 %, so no layer is computed directly instead. The embedded network's logits are off by 0.32 % (root
//! mean square, CamVid val), against 0.52 % with the usual points. `benches/README.md` has the measurements.
//!
//! Stride 2 was tried in the same way (per dimension, nine products for four outputs instead of twelve). Its 81
//! planes of sums and inputs cost what the reduction to nine sixteenths of the multiplications saved, except for 64 to
//! 128 channels in f32 (17 %).
//!
//! The grid of tiles always starts at the map's corner, whatever part of the map a view covers, so results do not
//! depend on how a map is split. A view whose rows start or end inside a tile computes the whole tile and stores its
//! part. Split at multiples of [`TILE`].

mod scalar;
mod vector;

use crate::caches::Blocks;
use crate::conv::{Activation, ConvShape, Epilogue, Input};
use crate::pages::Table;
use crate::simd::Kernel;
use crate::{Element, Isa, Lanes, MapMut, ShapeError};

/// Rows and columns of outputs per tile.
pub const TILE: usize = 4;
/// Rows and columns of inputs per tile.
const PATCH: usize = TILE + 2;
/// Products per tile.
const POINTS: usize = PATCH * PATCH;
/// The nearer pair of points is ± this value, ...
const NEAR: f32 = 2.0 / 3.0;
/// ... the farther pair is ± its inverse, so that the two pairs share their powers.
const FAR: f32 = 1.5;
const NEAR_SQUARED: f32 = 4.0 / 9.0;
const FAR_SQUARED: f32 = 2.25;
const SQUARES: f32 = 97.0 / 36.0; // 4/9 + 9/4

/// Transformed weights of more bytes than this may come from memory; 256 by 256 channels have twice as many.
const UNCACHED_WEIGHTS: usize = 4 << 20;

/// Weights and bias of a 3x3 convolution, transformed and packed for [`winograd`].
///
/// Order: `[36][out / 16][words of in][16 out]`. A word is one channel in f32 or two in bf16, as in
/// [`crate::PackedConv`]. Missing channels are zero.
#[derive(Clone, Debug)]
pub struct PackedWinograd {
    shape: ConvShape,
    element: Element,
    weights: Table,
    bias: Vec<Lanes>,
    blocks: Blocks,
}

impl PackedWinograd {
    /// Whether this algorithm supports a convolution of this shape.
    pub fn can(shape: &ConvShape) -> bool {
        (shape.kernel, shape.stride, shape.padding) == (3, 1, 1)
    }

    /// Packs `weight` (`[out, in, 3, 3]`) and `bias` (`[out]`, zero if absent), to be multiplied as `element`.
    ///
    /// - errors: [`ShapeError`] if a length differs, or if [`PackedWinograd::can`] rejects the shape
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
        Ok(Self { shape, element, weights, bias, blocks: Blocks::of_this_machine() })
    }

    /// Chooses block sizes for an L2 cache of this many bytes instead of this machine's. Results do not change.
    pub fn for_l2(self, bytes: usize) -> Self {
        Self { blocks: Blocks::of_l2(bytes), ..self }
    }

    /// The convolution's shape.
    pub fn shape(&self) -> ConvShape {
        self.shape
    }

    /// The element type of the products.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Bytes of the transformed weights. If they do not fit in a cache, process many tiles per pass over the weights.
    pub fn bytes(&self) -> usize {
        64 * self.weights.len()
    }

    /// How many [`Lanes`] of scratch buffer [`winograd`] needs.
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

    /// Words of a block's sixteen channels.
    fn block_words(&self) -> usize {
        self.element.words(16)
    }

    /// Tiles that are computed together.
    fn group(&self) -> usize {
        let tile = POINTS * 4 * (self.in_blocks() * self.block_words() + 16 * self.bias.len());
        // Weights that exceed the cache are read once per group. Use a large group then, although its sums exceed the
        // L2 cache.
        if self.bytes() > UNCACHED_WEIGHTS { 56 } else { (self.blocks.winograd() / tile).clamp(14, 84) }
    }

    /// Lanes from one point's inputs to those of the next. One more than needed: if the distance were a multiple of
    /// 4096 bytes, the 36 stores of a tile would all map to one cache set.
    fn input_plane(&self) -> usize {
        (self.in_blocks() * self.group() * self.block_words()).div_ceil(16) + 1
    }

    /// The same for the sums.
    fn output_plane(&self) -> usize {
        self.bias.len() * self.group() + 1
    }
}

/// `G g G'` of sixteen 3x3 filters side by side, `[9][16]`. The compiler can vectorize this form, which matters because
/// loading a model transforms 600,000 filters.
fn transform_filters(filters: &[[f64; 16]; 9]) -> [Lanes; POINTS] {
    // Rows of G, for the points 0, ±2/3, ±3/2 and infinity. `B` and `A` contain the points' powers, and G the rest.
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

/// Convolves the blocks and rows of the view `out`, like [`crate::conv()`].
///
/// - `input`: `[in_channels, h, w]`, blocked, with a zero halo; `out`: `[out_channels, h, w]`, blocked
/// - `epilogue.residual`: the layout of `out`
/// - `scratch`: at least [`PackedWinograd::scratch_len`] long; its contents do not matter
/// - accuracy: within `2e-5` of the definition, relative to the largest output; the definition rounds the transformed
///   weights and inputs to their element; in f32 this also holds against the convolution's definition
/// - errors: [`ShapeError`] if a shape differs from these, or if `isa` cannot multiply the weights' element
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

/// A call whose arguments were checked.
struct Winograd<'a> {
    packed: &'a PackedWinograd,
    input: Input<'a>,
    out: MapMut<'a>,
    epilogue: Epilogue<'a>,
    scratch: &'a mut [Lanes],
}

impl Winograd<'_> {
    /// The tiles that overlap the view's rows.
    fn grid(&self) -> Grid {
        let (rows, width) = (self.out.rows(), self.out.layout().width);
        let first = rows.start / TILE;
        Grid { first, rows: rows.end.div_ceil(TILE).saturating_sub(first), columns: width.div_ceil(TILE) }
    }

    /// The lower bound of stored values.
    fn floor(&self) -> f32 {
        if self.epilogue.activation == Activation::Relu { 0.0 } else { f32::NEG_INFINITY }
    }
}

/// A range of rows of tiles.
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

    /// The output row and column where a tile starts.
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
mod tests;
