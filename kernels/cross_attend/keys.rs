//! Keys and values of one frame, packed for the register tile.

use crate::conv::tile::MAX_PIXELS;
use crate::{Lanes, Map, ShapeError, floats_mut};

/// The bias of a key that does not exist: its weight after the softmax is exactly zero.
const NO_KEY: f32 = -1e30;

/// Keys and values, with the query's batch norm and the factor `1 / s` folded into the keys.
///
/// Packed once per frame; the memory is kept, so that after the first frame packing allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct CrossKeys {
    channels: usize,
    keys: usize,
    /// `[keys / 16][channel][16 keys]`
    weights: Vec<Lanes>,
    /// `[keys / 16][16 keys]`
    bias: Vec<Lanes>,
    /// `[channels / 16][key][16 channels]`
    values: Vec<Lanes>,
}

impl CrossKeys {
    /// Packs a frame's keys and values.
    ///
    /// - `kv`: `[2c, s, s]`: channel `ch` of key `j` is `kv[ch, j]`, of its value `kv[c + ch, j]`
    /// - `scale`, `shift`: `[c]`: the query is `scale * x + shift`
    /// - errors: [`ShapeError`] when a shape differs from these
    pub fn pack(&mut self, kv: Map, scale: &[f32], shift: &[f32]) -> Result<(), ShapeError> {
        const OP: &str = "cross_attend";
        let (channels, (height, width)) = (scale.len(), kv.layout().size());
        ShapeError::check(OP, "length of the shift", shift.len(), channels)?;
        ShapeError::check(OP, "channels of keys and values", kv.layout().channels, 2 * channels)?;
        ShapeError::ensure(height == width, OP, "size of keys and values", (height, width), "a square")?;
        let keys = height * width;
        (self.channels, self.keys) = (channels, keys);

        // Paddle multiplies by `(s * s) ** -0.5`.
        let factor = 1.0 / height as f32;
        fill(&mut self.weights, keys.div_ceil(16) * channels, 0.0);
        fill(&mut self.bias, keys.div_ceil(16), NO_KEY);
        fill(&mut self.values, channels.div_ceil(16) * keys, 0.0);
        let (weights, bias) = (floats_mut(&mut self.weights), floats_mut(&mut self.bias));
        let values = floats_mut(&mut self.values);
        for j in 0..keys {
            let (row, column, block, lane) = (j / width, j % width, j / 16, j % 16);
            let mut constant = 0.0;
            for ch in 0..channels {
                let key = factor * kv.at(ch, row, column);
                weights[(block * channels + ch) * 16 + lane] = key * scale[ch];
                constant += key * shift[ch];
                values[(ch / 16 * keys + j) * 16 + ch % 16] = kv.at(channels + ch, row, column);
            }
            bias[block * 16 + lane] = constant;
        }
        Ok(())
    }

    /// Channels of a query; 0 before the first [`CrossKeys::pack`].
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// How many [`Lanes`] of scratch a call of [`crate::cross_attend()`] needs.
    pub fn scratch_len(&self) -> usize {
        self.keys.div_ceil(16) * MAX_PIXELS
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
}

/// Makes `buffer` hold `len` lanes of `value`, in the memory it has if that is enough.
fn fill(buffer: &mut Vec<Lanes>, len: usize, value: f32) {
    buffer.clear();
    buffer.resize(len, Lanes([value; 16]));
}
