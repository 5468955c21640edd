//! Element types of the products, and how elements are stored in words.

/// The element type that a convolution multiplies. Sums are always in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Element {
    /// f32, without rounding.
    #[default]
    F32,
    /// Weights and inputs rounded to bf16, ties to even; their products are exact.
    Bf16,
}

impl Element {
    /// Channels per 32-bit word of packed operands: 1, or 2 with the even channel in the lower half.
    pub(crate) const fn channels_per_word(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
        }
    }

    /// The number of words for `channels` channels.
    pub(crate) const fn words(self, channels: usize) -> usize {
        channels.div_ceil(self.channels_per_word())
    }

    /// `value` rounded to this element type.
    pub(crate) fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 => f32::from_bits(bf16(value) << 16),
        }
    }

    /// Stores a channel's value in its word. The channel's part of the word must be zero before.
    pub(crate) fn put(self, word: &mut f32, channel: usize, value: f32) {
        *word = match self {
            Self::F32 => value,
            Self::Bf16 => f32::from_bits(word.to_bits() | bf16(value) << (16 * (channel % 2))),
        };
    }

    /// The value that [`put`](Self::put) stored, rounded to this element type.
    pub(crate) fn get(self, word: f32, channel: usize) -> f32 {
        match self {
            Self::F32 => word,
            Self::Bf16 => f32::from_bits(word.to_bits() >> (16 * (channel % 2)) << 16),
        }
    }
}

/// The upper half of `value`, rounded to nearest, ties to even. `value` must be finite.
fn bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_ties_to_even() {
        // The upper 16 bits of each value, and values just off them.
        for (bits, want) in [
            (0x3f80_0000, 0x3f80_0000_u32), // exactly representable
            (0x3f80_7fff, 0x3f80_0000),     // just under a half
            (0x3f80_8000, 0x3f80_0000),     // a tie rounds to the even neighbour, here down ...
            (0x3f81_8000, 0x3f82_0000),     // ... and here up
            (0x3f80_8001, 0x3f81_0000),     // just over a half
            (0xbf80_8001, 0xbf81_0000),     // the same with a negative sign
            (0x3fff_ffff, 0x4000_0000),     // carries into the exponent
        ] {
            let got = Element::Bf16.round(f32::from_bits(bits));
            assert_eq!(got.to_bits(), want, "{bits:#x}");
            assert_eq!(Element::F32.round(f32::from_bits(bits)).to_bits(), bits);
        }
    }

    #[test]
    fn a_word_keeps_its_channels_apart() {
        for element in [Element::F32, Element::Bf16] {
            let per_word = element.channels_per_word();
            let numbers = [1.25, -3.0];
            let mut word = 0.0;
            for channel in 0..per_word {
                element.put(&mut word, channel, numbers[channel]);
            }
            for channel in 0..per_word {
                assert_eq!(element.get(word, channel), numbers[channel], "{element:?}, channel {channel}");
            }
            assert_eq!((element.words(0), element.words(1), element.words(4)), (0, 1, 4 / per_word));
        }
    }
}
