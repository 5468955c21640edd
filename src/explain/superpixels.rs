//! Superpixels: parts of a photo of similar size and uniform colour, which know nothing of classes.
//!
//! Source: Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", PAMI 2012. As in gSLIC, a cell compares only
//! the nine centres that started nearest to it.

use rayon::prelude::*;

use super::components::components;
use super::planes::Planes;

/// The number of superpixels that are aimed at.
const WANTED: f32 = 48.0;
/// The number of cells that are clustered, at most. A cell is a square of pixels.
const CELLS: f32 = 43_200.0;
/// How much distance counts relative to colour: a step to the next centre is like this difference of L\*a\*b\* colours.
const COMPACTNESS: f32 = 10.0;
const ROUNDS: usize = 4;

#[derive(Clone, Copy, Default)]
struct Center {
    x: f32,
    y: f32,
    color: [f32; 3],
}

/// The photo, averaged over cells.
struct Cells {
    width: usize,
    height: usize,
    colors: Vec<[f32; 3]>,
}

impl Cells {
    fn of(planes: &Planes, side: usize) -> Self {
        let (width, height) = (planes.width.div_ceil(side), planes.height.div_ceil(side));
        let mut colors = vec![[0.0; 3]; width * height];
        for (row, colors) in colors.chunks_exact_mut(width.max(1)).enumerate() {
            for y in row * side..((row + 1) * side).min(planes.height) {
                let line = y * planes.width..(y + 1) * planes.width;
                let values =
                    [&planes.lightness, &planes.green_red, &planes.blue_yellow].map(|plane| &plane[line.clone()]);
                for (part, values) in values.into_iter().enumerate() {
                    for (color, values) in colors.iter_mut().zip(values.chunks(side)) {
                        color[part] += values.iter().sum::<f32>();
                    }
                }
            }
            let rows = ((row + 1) * side).min(planes.height) - row * side;
            for (column, color) in colors.iter_mut().enumerate() {
                let columns = ((column + 1) * side).min(planes.width) - column * side;
                *color = color.map(|sum| sum / (rows * columns) as f32);
            }
        }
        Self { width, height, colors }
    }
}

/// The superpixel of each pixel, numbered from 0 in the order of their first pixels; and the number of superpixels. Each is connected.
pub(super) fn superpixels(planes: &Planes) -> (Vec<u32>, usize) {
    let pixels = (planes.width * planes.height) as f32;
    if pixels == 0.0 {
        return (Vec::new(), 0);
    }
    let side = (pixels / CELLS).sqrt().ceil().max(1.0) as usize;
    let cells = Cells::of(planes, side);
    let (of, count) = connected(&clusters(&cells), &cells);
    let rows = (0..planes.height).map(|y| &of[y / side * cells.width..][..cells.width]);
    let full = rows.flat_map(|row| (0..planes.width).map(|x| row[x / side])).collect();
    (full, count)
}

/// The cluster of each cell.
fn clusters(cells: &Cells) -> Vec<u32> {
    let step = ((cells.width * cells.height) as f32 / WANTED).sqrt().max(1.0);
    let columns = (cells.width as f32 / step).round().max(1.0) as usize;
    let rows = (cells.height as f32 / step).round().max(1.0) as usize;
    let (across, down) = (cells.width as f32 / columns as f32, cells.height as f32 / rows as f32);
    let mut centers: Vec<Center> = (0..rows * columns)
        .map(|i| {
            let (x, y) = (((i % columns) as f32 + 0.5) * across, ((i / columns) as f32 + 0.5) * down);
            let cell = (y as usize).min(cells.height - 1) * cells.width + (x as usize).min(cells.width - 1);
            Center { x, y, color: cells.colors[cell] }
        })
        .collect();
    let weight = (COMPACTNESS / step).powi(2);
    let mut of = vec![0_u32; cells.colors.len()];
    for _ in 0..ROUNDS {
        of.par_chunks_mut(cells.width).enumerate().for_each(|(y, of)| {
            let row = ((y as f32 / down) as usize).min(rows - 1);
            for (x, of) in of.iter_mut().enumerate() {
                let column = ((x as f32 / across) as usize).min(columns - 1);
                let color = cells.colors[y * cells.width + x];
                let mut nearest = f32::INFINITY;
                for row in row.saturating_sub(1)..(row + 2).min(rows) {
                    let near = column.saturating_sub(1)..(column + 2).min(columns);
                    for (center, i) in centers[row * columns..][near.clone()].iter().zip(row * columns + near.start..) {
                        let (dx, dy) = (x as f32 - center.x, y as f32 - center.y);
                        let [l, a, b] = [0, 1, 2].map(|part| color[part] - center.color[part]);
                        let distance = l * l + a * a + b * b + weight * (dx * dx + dy * dy);
                        if distance < nearest {
                            (nearest, *of) = (distance, i as u32);
                        }
                    }
                }
            }
        });
        let mut sums = vec![(Center::default(), 0.0_f32); centers.len()];
        for (i, (&of, color)) in of.iter().zip(&cells.colors).enumerate() {
            let (sum, count) = &mut sums[of as usize];
            sum.x += (i % cells.width) as f32;
            sum.y += (i / cells.width) as f32;
            (0..3).for_each(|part| sum.color[part] += color[part]);
            *count += 1.0;
        }
        for (center, (sum, count)) in centers.iter_mut().zip(sums).filter(|(_, (_, count))| *count > 0.0) {
            *center = Center { x: sum.x / count, y: sum.y / count, color: sum.color.map(|part| part / count) };
        }
    }
    of
}

/// Splits clusters into connected parts. A part that is much smaller than a cluster joins the one before it.
fn connected(clusters: &[u32], cells: &Cells) -> (Vec<u32>, usize) {
    let (parts, count) = components(clusters, cells.width);
    let mut sizes = vec![0_usize; count];
    parts.iter().for_each(|&part| sizes[part as usize] += 1);
    let small = (clusters.len() as f32 / WANTED / 4.0) as usize;
    // Parts are numbered in the order of their first cells, so the neighbour to the left or above has its superpixel already.
    let mut joined: Vec<Option<u32>> = vec![None; count];
    let mut found = 0;
    for (i, &part) in parts.iter().enumerate() {
        if joined[part as usize].is_some() {
            continue;
        }
        let before = if i % cells.width > 0 { i.checked_sub(1) } else { i.checked_sub(cells.width) };
        let before = before.and_then(|before| joined[parts[before] as usize]).filter(|_| sizes[part as usize] < small);
        joined[part as usize] = before.or_else(|| {
            found += 1;
            Some(found - 1)
        });
    }
    (parts.into_iter().map(|part| joined[part as usize].unwrap_or(0)).collect(), found as usize)
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    fn of(picture: &RgbImage) -> (Vec<u32>, usize) {
        superpixels(&Planes::of(&picture.into()))
    }

    #[test]
    fn an_edge_between_colours_is_an_edge_between_superpixels() {
        // The edge runs through the middle of a column of centres, so that a grid alone would not find it.
        let picture =
            RgbImage::from_fn(480, 360, |x, _| if x < 150 { Rgb([20, 40, 200]) } else { Rgb([200, 180, 20]) });
        let (of, count) = of(&picture);
        assert!((30..70).contains(&count), "{count}");
        let mut sides = vec![[0_usize; 2]; count];
        of.iter().enumerate().for_each(|(i, &part)| sides[part as usize][usize::from(i % 480 >= 150)] += 1);
        assert!(sides.iter().all(|[left, right]| *left == 0 || *right == 0), "{sides:?}");
    }

    #[test]
    fn every_pixel_has_a_superpixel_and_each_is_connected() {
        for (width, height) in [(1, 1), (3, 200), (97, 61), (480, 360)] {
            let noise = |x: u32, y: u32| Rgb([x * x + y, (x * 7) ^ (y * 13), x + 5 * y].map(|v| v as u8));
            let (of, count) = of(&RgbImage::from_fn(width, height, noise));
            assert_eq!(of.len(), (width * height) as usize);
            assert_eq!(of.iter().max().map(|&most| most as usize + 1), Some(count));
            // Numbered in the order of their first pixels, and connected: the components of the map are the superpixels.
            assert_eq!(components(&of, width as usize), (of.clone(), count), "{width}x{height}");
        }
        assert_eq!(of(&RgbImage::new(0, 0)), (vec![], 0));
    }
}
