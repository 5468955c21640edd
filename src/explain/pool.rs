//! The network's features, averaged over each region.

use super::regions::Regions;
use crate::error::{Error, Result};
use crate::segmenter::Features;

/// The side of a cell of the feature map, in pixels.
const CELL: usize = 8;

/// The most rows and columns of the map that belong to padding: photos are padded to a multiple of at most 256 pixels.
const PADDING: usize = 256 / CELL;

/// `[regions][channels]`: the mean over a region's pixels, each of which has the features of its cell.
///
/// # Errors
/// [`Error::Input`] if the features are not those of a photo of this size.
pub(super) fn pool(regions: &Regions, features: &Features) -> Result<Vec<Vec<f32>>> {
    let channels = features.channels;
    let fits = |pixels: usize, cells: usize| (pixels.div_ceil(CELL)..=pixels.div_ceil(CELL) + PADDING).contains(&cells);
    if !fits(regions.planes.width, features.width) || !fits(regions.planes.height, features.height) {
        let (w, h, width, height) = (features.width, features.height, regions.planes.width, regions.planes.height);
        return Err(Error::Input(format!(
            "features of {w}x{h} cells do not belong to a photo of {width}x{height} pixels; explain photos that were not resized"
        )));
    }
    let cells = features.height * features.width;
    // The channels of a cell next to each other.
    let mut rows = vec![0.0; cells * channels];
    for (channel, values) in features.values.chunks_exact(cells.max(1)).enumerate() {
        values.iter().enumerate().for_each(|(cell, value)| rows[cell * channels + channel] = *value);
    }
    let mut pooled = vec![vec![0.0; channels]; regions.all.len()];
    let (width, height) = (regions.planes.width, regions.planes.height);
    for (map, of) in [(&regions.components, &regions.of_component), (&regions.superpixels, &regions.of_superpixel)] {
        let mut counts: Vec<(usize, u32)> = Vec::new();
        for cell in 0..cells {
            let (top, left) = (cell / features.width * CELL, cell % features.width * CELL);
            counts.clear();
            for y in top..(top + CELL).min(height) {
                for &part in &map[y * width + left.min(width)..y * width + (left + CELL).min(width)] {
                    let Some(region) = of[part as usize] else { continue };
                    match counts.iter_mut().find(|(other, _)| *other == region) {
                        Some((_, count)) => *count += 1,
                        None => counts.push((region, 1)),
                    }
                }
            }
            let values = &rows[cell * channels..(cell + 1) * channels];
            for &(region, count) in &counts {
                let share = count as f32 / regions.all[region].pixels as f32;
                pooled[region].iter_mut().zip(values).for_each(|(sum, value)| *sum += share * value);
            }
        }
    }
    Ok(pooled)
}
