//! The definition.

use super::gpu::PixelLayout;

/// What an image's pixels are in the table: `[3, pixels]`.
pub(crate) fn prepare(pixels: &[u8], layout: PixelLayout, table: &[[f32; 256]; 3]) -> Vec<f32> {
    let planes = table.iter().zip(layout.offsets);
    planes
        .flat_map(|(values, at)| pixels.chunks(layout.bytes).map(move |pixel| values[usize::from(pixel[at])]))
        .collect()
}
