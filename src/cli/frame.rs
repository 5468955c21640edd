//! The frame to measure the speed on: a photo, or noise, which needs no file.

use std::path::Path;

use image::{Rgb, RgbImage};
use rtformer::Size;
use rtformer::pixels::{Image, Limits};

use super::misuse;

/// The frame of noise, unless another size is given.
const FRAME: [u32; 2] = [2048, 1024];

/// A photo at its own size.
pub(super) fn photo(path: &Path) -> rtformer::Result<RgbImage> {
    Image::open(path).map(Image::into_rgb)
}

/// The width and height of the frame of noise, from the flag `--size`.
pub(super) fn sides(size: Option<Size>) -> anyhow::Result<[u32; 2]> {
    let [width, height] = match size {
        None => FRAME,
        Some(Size::Exact { width, height }) => [width, height],
        Some(size) => return Err(misuse(format!("invalid --size `{size}`: expected WIDTHxHEIGHT, such as 2048x1024"))),
    };
    let (pixels, most) = (u64::from(width) * u64::from(height), Limits::default().max_pixels);
    if pixels > most {
        return Err(misuse(format!(
            "invalid --size `{width}x{height}`: it has {pixels} pixels, expected at most {most}"
        )));
    }
    Ok([width, height])
}

/// A frame of noise that is smooth over some pixels. A JPEG decoder would take several times as long for white noise as for a photo.
pub(super) fn noise([width, height]: [u32; 2]) -> RgbImage {
    const CELL: u32 = 32;
    let corner = |x: u32, y: u32, channel: u32| (hash(x, y, channel) >> 56) as f32;
    RgbImage::from_fn(width, height, |x, y| {
        let (left, top) = (x / CELL, y / CELL);
        let (right, down) = ((x % CELL) as f32 / CELL as f32, (y % CELL) as f32 / CELL as f32);
        let grain = (hash(x, y, 3) >> 60) as f32 - 7.5;
        Rgb([0, 1, 2].map(|channel| {
            let [above, below] = [top, top + 1].map(|row| {
                let start = corner(left, row, channel);
                start + (corner(left + 1, row, channel) - start) * right
            });
            (above + (below - above) * down + grain) as u8 // saturates
        }))
    })
}

/// 64 pseudo-random bits that depend only on the position and channel. Finaliser of splitmix64 (Steele, Lea and Flood, 2014).
fn hash(x: u32, y: u32, channel: u32) -> u64 {
    let mut z = (u64::from(x) | u64::from(y) << 28 | u64::from(channel) << 56).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
