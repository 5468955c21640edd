//! How a large photo is cut into overlapping tiles, and how much each counts.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Overlapping tiles, for photos that are too large for the network or for the memory.
///
/// **Tiles.** All tiles have the same size. Along each side of `length` pixels there are as few tiles of at most `tile` pixels as possible whose
/// neighbours share at least `overlap` pixels: `n = ceil((length - overlap) / (tile - overlap))`. To share the work equally, they are made as short as
/// that number allows: `ceil((length + (n - 1) overlap) / n)`, rounded up to a multiple of 32, but at most `tile`. Tile `i` starts at
/// `floor(i (length - side) / (n - 1))`.
///
/// **Window.** A tile's logits are weighted by a trapezoid along each side: over the pixels that it shares with a neighbour, the weight falls linearly
/// from 1 to 0 (at a pixel's centre); it is 1 elsewhere, and up to the photo's border. The weights of a pixel are divided by their sum.
///
/// The network looks at the whole of its input (attention, pyramid pooling). It sees only a tile here, so masks differ from those of the whole photo;
/// `rtformer eval --tile` measures by how much.
///
/// ```
/// use rtformer::Tiling;
///
/// let tiling: Tiling = "2048x1024+256".parse()?;
/// assert_eq!((tiling.width, tiling.height, tiling.overlap), (2048, 1024, 256));
/// assert_eq!("2048x1024".parse::<Tiling>()?.overlap, 128, "an eighth of the shorter side");
/// assert!("64x64+33".parse::<Tiling>().is_err(), "at most half of it");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// The largest width of a tile, in pixels.
    pub width: u32,
    /// The largest height of a tile, in pixels.
    pub height: u32,
    /// The smallest number of pixels that neighbours share; at most half of the shorter side.
    pub overlap: u32,
}

/// The shortest and the longest side of a tile, in pixels.
const SIDES: std::ops::RangeInclusive<u32> = 32..=16_384;

impl Tiling {
    /// # Errors
    /// [`Error::Input`] for a size that is not supported, and for too large an overlap.
    pub(super) fn check(&self) -> Result<()> {
        let Self { width, height, overlap } = *self;
        if !(SIDES.contains(&width) && SIDES.contains(&height) && overlap <= width.min(height) / 2) {
            return Err(Error::Input(format!(
                "invalid tiles `{self}`: expected sides of 32 to 16384 pixels, and an overlap of at most half of the shorter side"
            )));
        }
        Ok(())
    }

    /// The tiles along the width and the height of a photo.
    pub(super) fn axes(&self, width: u32, height: u32) -> (Axis, Axis) {
        let axis = |length, tile| Axis::new(length as usize, tile as usize, self.overlap as usize);
        (axis(width, self.width), axis(height, self.height))
    }

    /// The number of tiles of a photo.
    ///
    /// ```
    /// let tiling = rtformer::Tiling { width: 2048, height: 1024, overlap: 256 };
    /// assert_eq!((tiling.count(2048, 1024), tiling.count(20_000, 20_000)), (1, 12 * 26));
    /// ```
    pub fn count(&self, width: u32, height: u32) -> usize {
        let (x, y) = self.axes(width, height);
        x.starts.len() * y.starts.len()
    }
}

impl fmt::Display for Tiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}+{}", self.width, self.height, self.overlap)
    }
}

impl FromStr for Tiling {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (size, overlap) = text.split_once('+').map_or((text, None), |(size, overlap)| (size, Some(overlap)));
            let (width, height) = size.split_once('x')?;
            let (width, height) = (width.parse().ok()?, height.parse().ok()?);
            let overlap = overlap.map_or(Some(u32::min(width, height) / 8), |overlap| overlap.parse().ok())?;
            Some(Self { width, height, overlap })
        };
        let tiling = parse().ok_or_else(|| {
            Error::Input(format!(
                "invalid tiles `{text}`: expected WxH or WxH+OVERLAP in pixels, such as 2048x1024+256"
            ))
        })?;
        tiling.check().map(|()| tiling)
    }
}

/// The tiles along one side of a photo.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    /// The length of each tile.
    pub(super) side: usize,
    /// Where each tile starts.
    pub(super) starts: Vec<usize>,
    /// The weights of each tile's pixels. Those of one of the photo's pixels have the sum 1.
    pub(super) weights: Vec<Vec<f32>>,
}

impl Axis {
    fn new(length: usize, tile: usize, overlap: usize) -> Self {
        if length <= tile {
            return Self { side: length, starts: vec![0], weights: vec![vec![1.0; length]] };
        }
        let count = (length - overlap).div_ceil(tile - overlap);
        let side = (length + (count - 1) * overlap).div_ceil(count).next_multiple_of(32).min(tile);
        let starts: Vec<_> = (0..count).map(|number| number * (length - side) / (count - 1)).collect();
        let raw = |number: usize, at: usize| {
            let before = number.checked_sub(1).map_or(0, |before| starts[before] + side - starts[number]);
            let after = starts.get(number + 1).map_or(0, |after| starts[number] + side - after);
            let ramp = |distance: usize, shared: usize| {
                if distance < shared { (distance as f64 + 0.5) / shared as f64 } else { 1.0 }
            };
            ramp(at, before).min(ramp(side - 1 - at, after))
        };
        let mut sums = vec![0.0; length];
        for (number, start) in starts.iter().enumerate() {
            (0..side).for_each(|at| sums[start + at] += raw(number, at));
        }
        let weights = starts
            .iter()
            .enumerate()
            .map(|(number, start)| (0..side).map(|at| (raw(number, at) / sums[start + at]) as f32).collect::<Vec<_>>());
        Self { side, weights: weights.collect(), starts }
    }

    /// The number of pixels between the start of a tile and that of the next; the whole tile for the last one.
    pub(super) fn step(&self, number: usize) -> usize {
        self.starts.get(number + 1).map_or(self.side, |next| next - self.starts[number])
    }

    /// The number of pixels that a tile shares with the next; 0 for the last one.
    pub(super) fn shared(&self, number: usize) -> usize {
        self.side - self.step(number)
    }

    /// The largest number of pixels that neighbours share.
    pub(super) fn most_shared(&self) -> usize {
        (0..self.starts.len()).map(|number| self.shared(number)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_side_and_their_weights_sum_up_to_one() {
        let cases = [
            (100, 100, 20, 1, 100),        // one tile
            (7, 100, 20, 1, 7),            // shorter than a tile
            (101, 100, 20, 2, 64),         // made as short as possible
            (200, 64, 0, 4, 64),           // without overlap, 50 pixels would do, rounded up
            (256, 64, 0, 4, 64),           // exactly
            (257, 64, 0, 5, 64),           // one pixel more
            (1000, 100, 50, 19, 100),      // the largest overlap
            (20_000, 1024, 256, 26, 1024), // 1016, rounded up
            (20_000, 2048, 256, 12, 1920),
            (65_535, 50, 25, 2621, 50), // three tiles may share a pixel
        ];
        for (length, tile, overlap, count, side) in cases {
            let axis = Axis::new(length, tile, overlap);
            let name = format!("{length}, {tile}+{overlap}");
            assert_eq!((axis.starts.len(), axis.side), (count, side), "{name}");
            assert_eq!((axis.starts[0], axis.starts[count - 1] + side), (0, length), "{name}");
            let mut sums = vec![0.0; length];
            for (number, start) in axis.starts.iter().enumerate() {
                assert!(number + 1 == count || axis.shared(number) >= overlap, "{name}: {number}");
                assert!(axis.shared(number) <= overlap + 66, "{name}: bounded memory");
                for (at, weight) in axis.weights[number].iter().enumerate() {
                    assert!(*weight > 0.0, "{name}");
                    sums[start + at] += weight;
                }
            }
            assert!(sums.iter().all(|sum| (sum - 1.0_f32).abs() < 1e-6), "{name}");
        }
        let two = Axis::new(96, 64, 32); // share 32 pixels
        assert_eq!(two.starts, [0, 32]);
        assert_eq!((two.weights[0][31], two.weights[0][32], two.weights[0][63]), (1.0, 31.5 / 32.0, 0.5 / 32.0));
        assert_eq!((two.weights[1][0], two.weights[1][31], two.weights[1][32]), (0.5 / 32.0, 31.5 / 32.0, 1.0));
    }

    #[test]
    fn sizes_are_parsed() {
        for (text, want) in [("64x32", "64x32+4"), ("64x32+0", "64x32+0"), ("16384x32+16", "16384x32+16")] {
            assert_eq!(text.parse::<Tiling>().unwrap().to_string(), want);
        }
        for text in ["", "64", "64x", "x64", "64x64+", "64x64+-1", "31x64", "64x16385", "64x64+33", "0x0", "native"] {
            let error = text.parse::<Tiling>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("invalid tiles `{text}")), "{error}");
        }
    }
}
