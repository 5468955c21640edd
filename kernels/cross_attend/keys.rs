//! The keys and values of one frame, packed for the register tile.

use crate::{Element, Lanes, Layout, Map, ShapeError, floats_mut};

/// The bias of a padding key: its weight after the softmax is exactly zero.
const NO_KEY: f32 = -1e30;

/// The number of pixels whose scores are computed together: one tile on AVX-512, two of the narrower ones.
pub(super) const MAX_PIXELS: usize = 14;

/// Keys and values, packed for products of one element type. The factor `1 / s` is folded into the keys.
///
/// In f32 the query's batch norm is folded into the keys too. In bf16 it is not: a query is rounded after its norm,
/// where it is centred.
///
/// Packed once per frame. The memory is reused, so packing allocates nothing after the first frame.
#[derive(Clone, Debug, Default)]
pub struct CrossKeys {
    element: Element,
    channels: usize,
    keys: usize,
    /// `[keys / 16][words of channels][16 keys]`
    weights: Vec<Lanes>,
    /// `[keys / 16][16 keys]`
    bias: Vec<Lanes>,
    /// `[channels / 16][words of keys][16 channels]`
    values: Vec<Lanes>,
    /// The query's norm in bf16: `[channels / 16][16]` each.
    scale: Vec<Lanes>,
    shift: Vec<Lanes>,
}

impl CrossKeys {
    /// Packs a frame's keys and values, to be multiplied as `element`.
    ///
    /// - `kv`: `[2c, s, s]`; channel `ch` of key `j` is `kv[ch, j]`, and of its value `kv[c + ch, j]`
    /// - `scale`, `shift`: `[c]`; the query is `scale * x + shift`
    /// - errors: [`ShapeError`] if a shape differs from these
    pub fn pack(&mut self, kv: Map, scale: &[f32], shift: &[f32], element: Element) -> Result<(), ShapeError> {
        const OP: &str = "cross_attend";
        let (channels, (height, width)) = (scale.len(), kv.layout().size());
        ShapeError::check(OP, "length of the shift", shift.len(), channels)?;
        ShapeError::check(OP, "channels of keys and values", kv.layout().channels, 2 * channels)?;
        ShapeError::ensure(height == width, OP, "size of keys and values", (height, width), "a square")?;
        let keys = height * width;
        (self.channels, self.keys, self.element) = (channels, keys, element);

        // Paddle multiplies by `(s * s) ** -0.5`.
        let factor = 1.0 / height as f32;
        let folds = element == Element::F32;
        let per_word = element.channels_per_word();
        let (query_words, key_words) = (element.words(channels), element.words(keys));
        fill(&mut self.weights, keys.div_ceil(16) * query_words, 0.0);
        fill(&mut self.bias, keys.div_ceil(16), NO_KEY);
        fill(&mut self.values, channels.div_ceil(16) * key_words, 0.0);
        fill(&mut self.scale, channels.div_ceil(16), 0.0);
        fill(&mut self.shift, channels.div_ceil(16), 0.0);
        floats_mut(&mut self.scale)[..channels].copy_from_slice(scale);
        floats_mut(&mut self.shift)[..channels].copy_from_slice(shift);
        for j in 0..keys {
            let (row, column) = (j / width, j % width);
            let mut constant = 0.0;
            for ch in 0..channels {
                let key = factor * kv.at(ch, row, column);
                constant += if folds { key * shift[ch] } else { 0.0 };
                let word = &mut self.weights[j / 16 * query_words + ch / per_word].0[j % 16];
                element.put(word, ch, if folds { key * scale[ch] } else { key });
                let word = &mut self.values[ch / 16 * key_words + j / per_word].0[ch % 16];
                element.put(word, j, kv.at(channels + ch, row, column));
            }
            self.bias[j / 16].0[j % 16] = constant;
        }
        Ok(())
    }

    /// Channels of a query; 0 before the first [`CrossKeys::pack`].
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The number of keys.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// The element type of the products.
    pub fn element(&self) -> Element {
        self.element
    }

    /// How many [`Lanes`] of scratch a call of [`crate::cross_attend()`] on maps of this layout needs.
    pub fn scratch_len(&self, x: Layout) -> usize {
        let scores = self.keys.div_ceil(16) * MAX_PIXELS;
        match self.element {
            Element::F32 => scores,
            // A row of queries and a tile's weights, in words.
            Element::Bf16 => scores + scores.div_ceil(2) + (x.blocks() * x.width).div_ceil(2),
        }
    }

    /// Words of all channels of a query.
    pub(super) fn query_words(&self) -> usize {
        self.element.words(self.channels)
    }

    /// Words of the weights of all keys.
    pub(super) fn key_words(&self) -> usize {
        self.element.words(self.keys)
    }

    /// A query's channel, rounded for the product.
    pub(super) fn query(&self, x: f32, channel: usize) -> f32 {
        let (block, lane) = (channel / 16, channel % 16);
        match self.element {
            Element::F32 => x,
            Element::Bf16 => self.element.round(x.mul_add(self.scale[block].0[lane], self.shift[block].0[lane])),
        }
    }

    /// Channel `channel` of key `key`, rounded for the product.
    pub(super) fn key(&self, key: usize, channel: usize) -> f32 {
        let per_word = self.element.channels_per_word();
        let word = self.weights[key / 16 * self.query_words() + channel / per_word].0[key % 16];
        self.element.get(word, channel)
    }

    /// The sixteen channels of a block of the value of key `key`.
    pub(super) fn value(&self, key: usize, block: usize) -> [f32; 16] {
        let per_word = self.element.channels_per_word();
        let words = self.values[block * self.key_words() + key / per_word].0;
        words.map(|word| self.element.get(word, key))
    }

    pub(super) fn weights(&self) -> &[Lanes] {
        &self.weights
    }

    pub(super) fn bias(&self) -> &[Lanes] {
        &self.bias
    }

    pub(super) fn values(&self) -> &[Lanes] {
        &self.values
    }

    pub(super) fn norm(&self) -> (&[Lanes], &[Lanes]) {
        (&self.scale, &self.shift)
    }
}

/// Fills `buffer` with `len` lanes of `value`, without reallocating if its capacity is sufficient.
fn fill(buffer: &mut Vec<Lanes>, len: usize, value: f32) {
    buffer.clear();
    buffer.resize(len, Lanes([value; 16]));
}
