//! Which tiles of a photo are uncertain, and the rectangles in which the rest of the network runs on them.

use rayon::prelude::*;

use crate::backend::Area;
use crate::model::ladder::Patch;

/// The side of a tile in pixels of the map at 1/8: 64 pixels of the photo.
pub(super) const TILE: usize = 8;
/// How far a patch reaches beyond its tiles. The rest of the network reaches 5 pixels of the map; 2 change few pixels of the mask
/// (`benches/ladder.md`) and make patches much smaller.
const HALO: usize = 2;
/// What a patch costs besides its area, in pixels of the map: kernels are less efficient on small maps.
const OVERHEAD: usize = 64;

/// Logits of the auxiliary head.
pub(super) struct Map<'a> {
    /// `[classes, height, width]`.
    pub(super) logits: &'a [f32],
    pub(super) classes: usize,
    /// Height and width.
    pub(super) size: (usize, usize),
    /// The part that is not padding.
    pub(super) kept: (usize, usize),
}

/// The tiles of a map, row by row, and whether each is uncertain.
pub(super) struct Tiles {
    columns: usize,
    uncertain: Vec<bool>,
}

/// The tiles whose certainty is below `threshold`.
pub(super) fn uncertain(map: &Map<'_>, temperature: f32, threshold: f32) -> Tiles {
    let (rows, columns) = (map.kept.0.div_ceil(TILE), map.kept.1.div_ceil(TILE));
    let below = |tile: usize| {
        let certainty = certainty(map, (tile / columns, tile % columns), temperature);
        certainty < threshold || certainty.is_nan()
    };
    Tiles { columns, uncertain: (0..rows * columns).into_par_iter().map(below).collect() }
}

/// The 5 % quantile, over the tile's pixels, of the difference between the two largest probabilities.
fn certainty(map: &Map<'_>, (row, column): (usize, usize), temperature: f32) -> f32 {
    let (height, width) = map.size;
    let until = |start: usize, kept: usize| start..(start + TILE).min(kept);
    let mut gaps = Vec::with_capacity(TILE * TILE);
    for y in until(row * TILE, map.kept.0) {
        for x in until(column * TILE, map.kept.1) {
            let at = y * width + x;
            gaps.push(gap((0..map.classes).map(|class| map.logits[class * height * width + at]), temperature));
        }
    }
    let rank = gaps.len() / 20;
    *gaps.select_nth_unstable_by(rank, f32::total_cmp).1
}

/// The difference between the two largest probabilities.
fn gap(logits: impl Iterator<Item = f32> + Clone, temperature: f32) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for logit in logits.clone() {
        (first, second) = if logit > first { (logit, first) } else { (first, second.max(logit)) };
    }
    let cooled = |logit: f32| ((logit - first) / temperature).exp();
    (1.0 - cooled(second)) / logits.map(cooled).sum::<f32>()
}

/// A rectangle of tiles: the first row and column, and those after the last.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Block {
    rows: (usize, usize),
    columns: (usize, usize),
}

impl Block {
    fn union(self, other: Self) -> Self {
        let join = |a: (usize, usize), b: (usize, usize)| (a.0.min(b.0), a.1.max(b.1));
        Self { rows: join(self.rows, other.rows), columns: join(self.columns, other.columns) }
    }

    fn patch(self, map: (usize, usize), kept: (usize, usize)) -> Patch {
        let (top, left) = (self.rows.0 * TILE, self.columns.0 * TILE);
        let (bottom, right) = ((self.rows.1 * TILE).min(kept.0), (self.columns.1 * TILE).min(kept.1));
        let area = |top: usize, left: usize, bottom: usize, right: usize| Area {
            top,
            left,
            height: bottom - top,
            width: right - left,
        };
        let (above, before) = (top.saturating_sub(HALO), left.saturating_sub(HALO));
        let seen = area(above, before, (bottom + HALO).min(map.0), (right + HALO).min(map.1));
        Patch { seen, kept: area(top, left, bottom, right) }
    }
}

/// Patches that cover the uncertain tiles. Neighbours are merged where this is cheaper.
pub(super) fn patches(tiles: &Tiles, map: (usize, usize), kept: (usize, usize)) -> Vec<Patch> {
    let cost = |block: Block| cost(&[block.patch(map, kept)]) as isize;
    let mut blocks = runs(tiles);
    loop {
        let mut merged: Vec<Block> = Vec::with_capacity(blocks.len());
        for &block in &blocks {
            let saved = |other: &Block| cost(*other) + cost(block) - cost(other.union(block));
            let best = merged.iter_mut().map(|other| (saved(other), other)).max_by_key(|(saved, _)| *saved);
            match best {
                Some((saved, other)) if saved >= 0 => *other = other.union(block),
                _ => merged.push(block),
            }
        }
        if merged.len() == blocks.len() {
            return merged.into_iter().map(|block| block.patch(map, kept)).collect();
        }
        blocks = merged;
    }
}

/// What the patches cost, in pixels of the map.
pub(super) fn cost(patches: &[Patch]) -> usize {
    patches.iter().map(|patch| patch.seen.pixels() + OVERHEAD).sum()
}

/// The uncertain tiles as horizontal runs.
fn runs(tiles: &Tiles) -> Vec<Block> {
    let mut runs: Vec<Block> = Vec::new();
    for (tile, _) in tiles.uncertain.iter().enumerate().filter(|(_, uncertain)| **uncertain) {
        let (row, column) = (tile / tiles.columns, tile % tiles.columns);
        match runs.last_mut() {
            Some(last) if last.rows.0 == row && last.columns.1 == column => last.columns.1 += 1,
            _ => runs.push(Block { rows: (row, row + 1), columns: (column, column + 1) }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of two classes, certain except at the given pixels.
    fn map(size: (usize, usize), doubts: &[(usize, usize)]) -> Vec<f32> {
        let plane = size.0 * size.1;
        let mut logits = vec![0.0; 2 * plane];
        logits[..plane].fill(20.0);
        for (y, x) in doubts {
            logits[y * size.1 + x] = 0.5;
        }
        logits
    }

    fn uncertain_of(size: (usize, usize), kept: (usize, usize), doubts: &[(usize, usize)], threshold: f32) -> Tiles {
        let logits = map(size, doubts);
        uncertain(&Map { logits: &logits, classes: 2, size, kept }, 1.0, threshold)
    }

    #[test]
    fn one_doubtful_pixel_in_twenty_makes_a_tile_uncertain() {
        let column: Vec<_> = (0..8).map(|y| (y, 10)).collect();
        let cases = [
            (&column[..], 0.5, [false, true, false]),
            (&column[..3], 0.5, [false; 3]), // 3 of 64 pixels are fewer than one in twenty
            (&column[..4], 0.5, [false, true, false]),
            (&column[..], 0.2, [false; 3]), // their gap is tanh(0.25) = 0.245
            (&column[..], 0.0, [false; 3]), // a threshold of 0 always stops
        ];
        for (doubts, threshold, want) in cases {
            let tiles = uncertain_of((8, 24), (8, 24), doubts, threshold);
            assert_eq!((tiles.columns, &tiles.uncertain[..]), (3, &want[..]), "{doubts:?}, {threshold}");
        }
    }

    #[test]
    fn padding_and_nan_are_treated_with_care() {
        let corner = [(9, 9), (9, 8), (8, 9)];
        // The second tile of each direction has one kept pixel in the first case, and four in the second.
        assert_eq!(uncertain_of((16, 16), (9, 9), &corner, 0.5).uncertain, [false; 4]);
        assert_eq!(uncertain_of((16, 16), (10, 10), &corner, 0.5).uncertain, [false, false, false, true]);
        assert_eq!(uncertain_of((16, 16), (8, 16), &corner, 0.5).uncertain.len(), 2, "tiles of padding do not exist");
        let logits = [f32::NAN; 2];
        let map = Map { logits: &logits, classes: 2, size: (1, 1), kept: (1, 1) };
        assert_eq!(uncertain(&map, 1.0, 0.1).uncertain, [true]);
    }

    #[test]
    fn patches_cover_every_uncertain_tile_once_and_stay_inside() {
        let mut random = 1_u64;
        let sizes: [[(usize, usize); 2]; 4] =
            [[(16, 16), (16, 16)], [(45, 60), (45, 60)], [(48, 60), (45, 59)], [(128, 256), (128, 256)]];
        for [map, kept] in sizes {
            for share in [0, 5, 20, 60, 100] {
                let (rows, columns) = (kept.0.div_ceil(TILE), kept.1.div_ceil(TILE));
                let uncertain = (0..rows * columns).map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (random >> 33) % 100 < share
                });
                let tiles = Tiles { columns, uncertain: uncertain.collect() };
                let patches = patches(&tiles, map, kept);
                for patch in &patches {
                    assert!(patch.seen.is_inside(map) && patch.kept.is_inside(kept), "{patch:?}");
                    let Area { top, left, height, width } = patch.kept;
                    assert!(patch.seen.top <= top && patch.seen.left <= left);
                    assert!(patch.seen.top + patch.seen.height >= top + height);
                    assert!(patch.seen.left + patch.seen.width >= left + width);
                }
                for (tile, _) in tiles.uncertain.iter().enumerate().filter(|(_, uncertain)| **uncertain) {
                    let (y, x) = (tile / columns * TILE, tile % columns * TILE);
                    let covers = |patch: &&Patch| {
                        let Area { top, left, height, width } = patch.kept;
                        (top..top + height).contains(&y) && (left..left + width).contains(&x)
                    };
                    assert!(patches.iter().any(|patch| covers(&patch)), "tile {tile} of {map:?}, {share} %");
                }
                // Never dearer than the runs alone, and all tiles give one patch.
                let alone: Vec<_> = runs(&tiles).into_iter().map(|run| run.patch(map, kept)).collect();
                assert!(cost(&patches) <= cost(&alone));
                assert_eq!(patches.is_empty(), !tiles.uncertain.contains(&true));
                assert!(share < 100 || patches.len() == 1);
            }
        }
    }
}
