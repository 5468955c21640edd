//! The definition.

use super::gpu::PixelLayout;
use crate::Extent;

/// Converts an image's pixels with the table and adds zeros for the padding: `[3, height, width]` of the full size.
pub(crate) fn prepare(pixels: &[u8], layout: PixelLayout, table: &[[f32; 256]; 3], size: Extent) -> Vec<f32> {
    let ((height, width), (photo_height, photo_width)) = (size.full, size.kept);
    let mut planes = Vec::with_capacity(3 * height * width);
    for (values, at) in table.iter().zip(layout.offsets) {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let inside = y < photo_height && x < photo_width;
            let byte = || pixels[(y * photo_width + x) * layout.bytes + at];
            planes.push(if inside { values[usize::from(byte())] } else { 0.0 });
        }
    }
    planes
}
