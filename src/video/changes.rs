//! Where a picture changed from one frame to the next.

use rayon::prelude::*;

use crate::pixels::Pixels;
use crate::process;

/// The map of the blocks of a frame that differ from the previous frame.
///
/// A block changed if the mean absolute difference of its bytes is above a threshold in grey levels. Noise is below it, and an edge that
/// moves is above it; `docs/book/src/video.md` has the measurement.
///
/// Where no block changed, an earlier result still holds: see [`Streaming::reuse`](super::Streaming::reuse).
///
/// ```
/// use rtformer::video::Changes;
///
/// let before = image::RgbImage::new(64, 48);
/// let mut after = before.clone();
/// after.put_pixel(40, 20, image::Rgb([255; 3]));
/// let changes = Changes::between(&(&before).into(), &(&after).into(), 0.5).unwrap();
/// assert!(changes.at(40, 20) && !changes.at(0, 0));
/// assert!(changes.share() == 1.0 / 48.0 && !changes.is_empty());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    columns: usize,
    changed: Vec<bool>,
}

impl Changes {
    /// The side of a block in pixels: one pixel of the network's logits.
    pub const BLOCK: u32 = 8;

    /// The blocks whose mean absolute difference is above `threshold`. `None` if the frames differ in size or format.
    pub fn between(before: &Pixels<'_>, after: &Pixels<'_>, threshold: f32) -> Option<Self> {
        let (width, height) = (after.width(), after.height());
        if (before.width(), before.height(), before.format()) != (width, height, after.format()) {
            return None;
        }
        let channels = after.format().channels();
        let columns = width.div_ceil(Self::BLOCK) as usize;
        let side = Self::BLOCK as usize * channels;
        let row = |row: u32| {
            let mut sums = vec![0_u32; columns];
            let mut bytes = vec![0_u32; columns];
            for y in row * Self::BLOCK..((row + 1) * Self::BLOCK).min(height) {
                let pairs = before.row(y).chunks(side).zip(after.row(y).chunks(side));
                for ((sum, count), (a, b)) in sums.iter_mut().zip(&mut bytes).zip(pairs) {
                    *sum += a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
                    *count += a.len() as u32;
                }
            }
            sums.into_iter().zip(bytes).map(move |(sum, bytes)| sum as f32 > threshold * bytes as f32)
        };
        let rows = (0..height.div_ceil(Self::BLOCK)).into_par_iter().flat_map_iter(row);
        Some(Self { columns, changed: process::parallel(|| rows.collect()) })
    }

    /// Whether the block of this pixel changed.
    ///
    /// # Panics
    /// If the pixel is below the frame's last block.
    pub fn at(&self, x: u32, y: u32) -> bool {
        self.changed[(y / Self::BLOCK) as usize * self.columns + (x / Self::BLOCK) as usize]
    }

    /// Whether no block changed.
    pub fn is_empty(&self) -> bool {
        !self.changed.contains(&true)
    }

    /// The share of blocks that changed.
    pub fn share(&self) -> f64 {
        self.changed.iter().filter(|changed| **changed).count() as f64 / self.changed.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    #[test]
    fn a_block_changes_above_the_threshold_only() {
        let before = RgbImage::from_pixel(19, 11, image::Rgb([100; 3])); // the last blocks are 3 wide and 3 high
        let mut after = before.clone();
        for pixel in after.pixels_mut() {
            pixel.0 = [103; 3];
        }
        let share = |threshold| Changes::between(&(&before).into(), &(&after).into(), threshold).unwrap().share();
        assert_eq!((share(2.9), share(3.0), share(3.1)), (1.0, 0.0, 0.0));
        let is_empty = |threshold| Changes::between(&(&before).into(), &(&after).into(), threshold).unwrap().is_empty();
        assert!(is_empty(3.0) && !is_empty(2.9));
        let mut corner = before.clone();
        corner.put_pixel(18, 10, image::Rgb([0; 3]));
        let changes = Changes::between(&(&before).into(), &(&corner).into(), 5.0).unwrap();
        assert!(changes.at(16, 8) && !changes.at(15, 8) && !changes.at(16, 7), "100 levels in one of 9 pixels");
        let other = RgbImage::new(11, 19);
        assert_eq!(Changes::between(&(&before).into(), &(&other).into(), 1.0), None);
    }
}
