//! How much masks flicker.

use image::RgbImage;

use crate::pixels::Mask;

/// Counts pixels that change class although the picture does not.
///
/// The flip rate of a frame is the share of all its pixels that have another class than in the previous frame although none of their three
/// channels changed by more than [`STILL`](Self::STILL) grey levels.
///
/// ```
/// use rtformer::pixels::Mask;
/// use rtformer::video::FlipCounter;
///
/// let frame = image::RgbImage::new(2, 2);
/// let mut flips = FlipCounter::default();
/// assert_eq!(flips.count(&frame, &Mask::from_ids(2, 2, 3, [0_u8, 1, 2, 0])?), None, "there is no previous frame");
/// assert_eq!(flips.count(&frame, &Mask::from_ids(2, 2, 3, [0_u8, 1, 2, 1])?), Some(0.25));
/// assert_eq!(flips.rate(), Some(0.25));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct FlipCounter {
    previous: Option<(RgbImage, Mask)>,
    flips: u64,
    pixels: u64,
}

impl FlipCounter {
    /// The largest change of a channel, in grey levels, with which a pixel counts as unchanged.
    pub const STILL: u8 = 3;

    /// Counts a frame, and returns its flip rate: 0 to 1, or `None` for the first frame and after a change of size.
    pub fn count(&mut self, frame: &RgbImage, mask: &Mask) -> Option<f64> {
        let size = (mask.width(), mask.height());
        let comparable = |(before, old): &&(RgbImage, Mask)| {
            before.dimensions() == frame.dimensions()
                && (old.width(), old.height()) == size
                && frame.dimensions() == size
        };
        let rate = self.previous.as_ref().filter(comparable).map(|(before, old)| {
            let flips = count_flips((before, old), (frame, mask));
            let all = u64::from(size.0) * u64::from(size.1);
            self.flips += flips;
            self.pixels += all;
            flips as f64 / all.max(1) as f64
        });
        match &mut self.previous {
            Some((before, old)) if before.dimensions() == frame.dimensions() => {
                before.copy_from_slice(frame);
                old.clone_from(mask);
            }
            previous => *previous = Some((frame.clone(), mask.clone())),
        }
        rate
    }

    /// The flip rate of all frames so far; `None` if no two could be compared.
    pub fn rate(&self) -> Option<f64> {
        (self.pixels > 0).then(|| self.flips as f64 / self.pixels as f64)
    }
}

/// The number of pixels that have another id although the picture did not change there. All sizes are the same.
fn count_flips((before, old): (&RgbImage, &Mask), (frame, mask): (&RgbImage, &Mask)) -> u64 {
    let still = |i: &usize| {
        let colors = |image: &RgbImage| -> [u8; 3] { std::array::from_fn(|channel| image.as_raw()[3 * i + channel]) };
        colors(before).iter().zip(colors(frame)).all(|(a, b)| a.abs_diff(b) <= FlipCounter::STILL)
    };
    let flips = match (old.ids_u8(), mask.ids_u8()) {
        (Some(old), Some(new)) => differing(old, new).filter(still).count(),
        _ => differing(&old.iter().collect::<Vec<_>>(), &mask.iter().collect::<Vec<_>>()).filter(still).count(),
    };
    flips as u64
}

/// The indices at which two slices of the same length differ. Few do, so whole pieces are compared first.
fn differing<'a, T: PartialEq>(a: &'a [T], b: &'a [T]) -> impl Iterator<Item = usize> + 'a {
    const PIECE: usize = 32;
    let pieces = a.chunks(PIECE).zip(b.chunks(PIECE)).enumerate().filter(|(_, (a, b))| a != b);
    pieces.flat_map(|(piece, (a, b))| {
        let unequal = a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b);
        unequal.map(move |(i, _)| piece * PIECE + i)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_of_a_larger_mask_is_counted() {
        for classes in [5, 300] {
            let (width, height) = (37, 5); // pieces that end inside a row, and a last one of 25
            let frame = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 9]));
            let mut flips = FlipCounter::default();
            let ids: Vec<u16> = (0..width * height).map(|i| (i % 5) as u16).collect();
            let mask = |ids: &[u16]| Mask::from_ids(width, height, classes, ids.iter().copied()).unwrap();
            flips.count(&frame, &mask(&ids));
            let changed: Vec<u16> =
                (0..).zip(&ids).map(|(i, id)| if i % 7 == 0 || i == 184 { (id + 1) % 5 } else { *id }).collect();
            assert_eq!(flips.count(&frame, &mask(&changed)), Some(28.0 / 185.0), "{classes} classes");
        }
    }

    #[test]
    fn only_unchanged_pixels_flip() {
        let mut flips = FlipCounter::default();
        let frame = |levels: [u8; 4]| RgbImage::from_fn(4, 1, |x, _| image::Rgb([50, levels[x as usize], 50]));
        let mask = |ids: [u8; 4]| Mask::from_ids(4, 1, 5, ids).unwrap();
        assert_eq!(flips.count(&frame([50; 4]), &mask([0; 4])), None);
        // Changed by 3: a flip. By 4: none. Unchanged with the same class: none.
        assert_eq!(flips.count(&frame([53, 54, 50, 47]), &mask([1, 1, 0, 1])), Some(0.5));
        assert_eq!(flips.count(&frame([53, 54, 50, 47]), &mask([1, 1, 0, 1])), Some(0.0));
        assert_eq!(flips.rate(), Some(0.25));
        assert_eq!(flips.count(&RgbImage::new(2, 2), &Mask::new(2, 2, 5)), None, "another size");
        assert_eq!(flips.rate(), Some(0.25));
    }
}
