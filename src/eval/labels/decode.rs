//! Decodes the bytes of a label image into train ids.

use std::io::Cursor;

use png::{BitDepth, ColorType};

use super::colors::{Colors, Rgb};
use super::format::{LabelKind, Numbers, stray};
use super::palette::{Reading, reading};
use crate::pixels::Limits;
use crate::weights::Dataset;

/// Returns width, height, and the train ids (or ignore ids) row by row.
///
/// # Errors
/// A phrase that says what is wrong and what to do.
pub(super) fn decode(
    bytes: &[u8],
    limits: &Limits,
    dataset: &Dataset,
    kind: LabelKind,
    numbers: &Numbers,
) -> Result<(u32, u32, Vec<u16>), String> {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(
            "is not a PNG file; label images are PNG files of class ids (grey or indexed) or of the classes' colours"
                .into(),
        );
    }
    let failed = |error| format!("this PNG file is damaged ({error}); copy it again");
    // No transformations: indexed pixels keep their index, and transparency is ignored.
    let within = png::Limits { bytes: usize::try_from(limits.max_alloc).unwrap_or(usize::MAX) };
    let mut reader = png::Decoder::new_with_limits(Cursor::new(bytes), within).read_info().map_err(failed)?;
    let (width, height) = reader.info().size();
    if u64::from(width) * u64::from(height) > limits.max_pixels || width.max(height) > limits.max_side {
        return Err(format!("is {width}x{height}, which is too large: no photo of that size could be read"));
    }
    let (color, depth) = reader.output_color_type();
    let single = matches!(color, ColorType::Grayscale | ColorType::Indexed);
    if !single && (depth != BitDepth::Eight || color == ColorType::GrayscaleAlpha) {
        return Err(format!(
            "has {depth:?}-bit {color:?} samples; save the class ids as an 8-bit or 16-bit grey PNG, or as an indexed PNG"
        ));
    }
    let length = reader.output_buffer_size().ok_or("is too large for this machine's memory")?;
    let mut samples = vec![0; length];
    let line = reader.next_frame(&mut samples).map_err(failed)?.line_size.max(1);

    let columns = width as usize;
    let colors = Colors::new(dataset);
    let stored = || samples.chunks_exact(line).flat_map(|row| self::stored(row, columns, depth));
    let palette = reader.info().palette.as_deref().unwrap_or_default();
    let ids = match (color, kind) {
        (ColorType::Indexed, LabelKind::Auto) => match reading(palette, &used(stored()), numbers, &colors)? {
            Reading::Numbers => by_number(stored(), columns, dataset, numbers)?,
            Reading::Moved(moved) => {
                let number = |index| moved.get(usize::from(index)).copied().unwrap_or(index);
                by_number(stored().map(number), columns, dataset, numbers)?
            }
            Reading::Colors => by_palette(stored(), columns, palette, &colors)?,
        },
        (ColorType::Indexed, LabelKind::Color) => by_palette(stored(), columns, palette, &colors)?,
        (ColorType::Grayscale, LabelKind::Color) if depth == BitDepth::Sixteen => {
            return Err(
                "has 16-bit grey samples, which are not colours; use the label kind index to read them as class ids"
                    .into(),
            );
        }
        (ColorType::Grayscale, LabelKind::Color) => {
            let white = (1_u16 << depth as u16) - 1;
            colors.read(stored().map(|value| [(value * (255 / white)) as u8; 3]), columns)?
        }
        (ColorType::Grayscale | ColorType::Indexed, _) => by_number(stored(), columns, dataset, numbers)?,
        (_, LabelKind::Auto | LabelKind::Color) if !numbers.asked_for => {
            let pixels = samples.chunks_exact(color.samples()).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
            colors.read(pixels, columns)?
        }
        _ => {
            return Err(format!(
                "holds {color:?} colours, not class ids; leave out the first id and the ignore id and use the label kind auto or color, or \
                 save the class ids as a grey PNG"
            ));
        }
    };
    Ok((width, height, ids))
}

/// The samples of a row as stored, for any bit depth.
fn stored(row: &[u8], width: usize, depth: BitDepth) -> impl Iterator<Item = u16> {
    let bits = depth as usize;
    let small = (0..if bits < 16 { width } else { 0 }).map(move |x| {
        let shifted = row[x * bits / 8] >> (8 - bits - x * bits % 8); // the leftmost pixel is in the highest bits
        u16::from(shifted) & ((1 << bits) - 1)
    });
    let wide =
        row.as_chunks::<2>().0.iter().take(if bits < 16 { 0 } else { width }).map(|pair| u16::from_be_bytes(*pair));
    small.chain(wide)
}

/// The distinct indices, in ascending order.
fn used(indices: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut seen = [false; 256];
    indices.for_each(|index| seen[usize::from(index as u8)] = true);
    (0..256).filter(|&index| seen[usize::from(index)]).collect()
}

fn by_number(
    stored: impl Iterator<Item = u16>,
    width: usize,
    dataset: &Dataset,
    numbers: &Numbers,
) -> Result<Vec<u16>, String> {
    let id = |(at, number)| numbers.of(number).ok_or_else(|| stray(number, at, width, dataset.classes.len()));
    stored.enumerate().map(id).collect()
}

fn by_palette(
    indices: impl Iterator<Item = u16>,
    width: usize,
    palette: &[u8],
    colors: &Colors<'_>,
) -> Result<Vec<u16>, String> {
    let palette: &[Rgb] = palette.as_chunks().0;
    let indices: Vec<u16> = indices.collect();
    if let Some(index) = indices.iter().find(|&&index| usize::from(index) >= palette.len()) {
        return Err(format!("has index {index}, but its palette has only {} colours; save it again", palette.len()));
    }
    colors.read(indices.into_iter().map(|index| palette[usize::from(index)]), width)
}
