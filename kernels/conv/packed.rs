//! A convolution's shape, and its weights packed in the order that the register tile reads.

use crate::caches::Blocks;
use crate::pages::Table;
use crate::{Element, Lanes, ShapeError, floats};

/// A convolution without its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// The window's height and width: 1 or 3.
    pub kernel: usize,
    /// Input pixels per output pixel: 1 or 2.
    pub stride: usize,
    /// The width of the zero border that counts as input: 0 for a 1x1, 1 for a 3x3.
    pub padding: usize,
}

impl ConvShape {
    /// Height and width of the output for an input of `h` by `w` (at least 1 by 1).
    pub fn out_size(&self, h: usize, w: usize) -> (usize, usize) {
        let border = self.padding.saturating_mul(2);
        let out = |len: usize| len.saturating_add(border).saturating_sub(self.kernel) / self.stride.max(1) + 1;
        (out(h), out(w))
    }

    /// Multiply-adds for one input of `h` by `w`.
    pub fn macs(&self, h: usize, w: usize) -> usize {
        let (h, w) = self.out_size(h, w);
        h * w * self.out_channels * self.in_channels * self.kernel * self.kernel
    }

    /// Checks the window, the stride and the numbers of channels.
    ///
    /// - errors: [`ShapeError`] for those that the kernels do not support
    pub fn check(&self) -> Result<(), ShapeError> {
        const OP: &str = "conv";
        let window = (self.kernel, self.padding);
        ShapeError::ensure(matches!(window, (1, 0) | (3, 1)), OP, "(kernel, padding)", window, "(1, 0) or (3, 1)")?;
        ShapeError::ensure(matches!(self.stride, 1 | 2), OP, "stride", self.stride, "1 or 2")?;
        let channels = (self.in_channels, self.out_channels);
        ShapeError::ensure(
            channels.0 > 0 && channels.1 > 0,
            OP,
            "(in_channels, out_channels)",
            channels,
            "at least 1 each",
        )
    }
}

/// Weights and bias, packed for [`crate::conv()`].
///
/// Order: `[out / 16][in / lanes][ky][kx][words of in in its block][16 out]`. A tile reads the weights sequentially on
/// every instruction set. A word is one input channel in f32, or two in bf16 (the even one in the lower half). Missing
/// output channels are zero, and so is the second channel of an incomplete last pair; other missing input channels are
/// not stored.
#[derive(Clone, Debug)]
pub struct PackedConv {
    shape: ConvShape,
    input_lanes: usize,
    element: Element,
    weights: Table,
    bias: Vec<Lanes>,
    blocks: Blocks,
}

impl PackedConv {
    /// Packs `weight` (`[out, in, ky, kx]`) and `bias` (`[out]`, zero if absent) for an input of `input_lanes` (1 or
    /// 16), to be multiplied as `element`.
    ///
    /// - errors: [`ShapeError`] if a length differs, for an unsupported kernel, stride or padding, and for planar bf16
    pub fn pack(
        shape: ConvShape,
        weight: &[f32],
        bias: Option<&[f32]>,
        input_lanes: usize,
        element: Element,
    ) -> Result<Self, ShapeError> {
        const OP: &str = "conv";
        shape.check()?;
        ShapeError::ensure(matches!(input_lanes, 1 | 16), OP, "lanes of the input", input_lanes, "1 or 16")?;
        let pairs = (element, input_lanes);
        ShapeError::ensure(
            pairs != (Element::Bf16, 1),
            OP,
            "(element, lanes of the input)",
            pairs,
            "16 lanes for bf16",
        )?;
        let ConvShape { in_channels, out_channels, kernel, .. } = shape;
        let taps = kernel * kernel;
        let reduced = in_channels.saturating_mul(taps);
        ShapeError::check(OP, "length of the weight", weight.len(), out_channels.saturating_mul(reduced))?;
        if let Some(bias) = bias {
            ShapeError::check(OP, "length of the bias", bias.len(), out_channels)?;
        }

        let out_blocks = out_channels.div_ceil(16);
        let bias = bias.map_or_else(|| vec![Lanes::ZERO; out_blocks], Lanes::from_channels);
        let blocks = Blocks::of_this_machine();
        let mut packed = Self { shape, input_lanes, element, weights: Table::zeros(0), bias, blocks };
        packed.weights = Table::zeros(out_blocks * packed.block_len() / 16);
        for out in 0..out_channels {
            for input in 0..in_channels {
                for tap in 0..taps {
                    let row = packed.weight_row(out / 16, input, tap);
                    let word = &mut packed.weights[row].0[out % 16];
                    element.put(word, input, weight[(out * in_channels + input) * taps + tap]);
                }
            }
        }
        Ok(packed)
    }

    /// Chooses block sizes for an L2 cache of this many bytes instead of this machine's. Results do not change.
    pub fn for_l2(self, bytes: usize) -> Self {
        Self { blocks: Blocks::of_l2(bytes), ..self }
    }

    /// The convolution's shape.
    pub fn shape(&self) -> ConvShape {
        self.shape
    }

    /// 16 for blocked inputs, 1 for planar inputs.
    pub fn input_lanes(&self) -> usize {
        self.input_lanes
    }

    /// The element type of the products.
    pub fn element(&self) -> Element {
        self.element
    }

    /// The block sizes.
    pub(super) fn blocks(&self) -> Blocks {
        self.blocks
    }

    /// Words of all input channels at one pixel.
    pub(super) fn words(&self) -> usize {
        self.element.words(self.shape.in_channels)
    }

    /// The index of the packed row that holds the weights from `input` through `tap` to the output channels of `block`.
    fn weight_row(&self, block: usize, input: usize, tap: usize) -> usize {
        let taps = self.shape.kernel * self.shape.kernel;
        let (word, all) = (input / self.element.channels_per_word(), self.words());
        let in_block = self.element.words(self.input_lanes);
        let first = word / in_block * in_block;
        (block * all + first) * taps + tap * (all - first).min(in_block) + (word - first)
    }

    /// The sixteen weights from `input` through `tap` to the output channels of `block`.
    pub(super) fn weight(&self, block: usize, input: usize, tap: usize) -> [f32; 16] {
        self.weights[self.weight_row(block, input, tap)].0.map(|word| self.element.get(word, input))
    }

    /// The sixteen biases of a block of output channels.
    pub(super) fn bias(&self, block: usize) -> &[f32; 16] {
        &self.bias[block].0
    }

    /// All weights from `block` on, as the tile reads them.
    pub(super) fn weights_from(&self, block: usize) -> &[f32] {
        floats(&self.weights[block * self.block_len() / 16..])
    }

    /// All biases from `block` on.
    pub(super) fn biases_from(&self, block: usize) -> &[f32] {
        floats(&self.bias[block..])
    }

    /// Words from one block of output channels to the next.
    pub(super) fn block_len(&self) -> usize {
        self.words() * self.shape.kernel * self.shape.kernel * 16
    }
}
