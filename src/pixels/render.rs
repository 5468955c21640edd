//! Writes results as files: indexed masks, overlays on photos, pictures of confidence, label ids, and logits.
//!
//! Files are written completely or not at all.

use std::io::{self, Write};
use std::path::Path;

use image::{GrayImage, Luma, RgbImage};
use png::{BitDepth, ColorType, Compression, Filter};
use rayon::prelude::*;

use super::mask::Mask;
use super::palette::Palette;
use super::prepare::Pixels;
use crate::error::{Error, Result};
use crate::files::write_whole;
use crate::process;

mod by_rows;

pub use by_rows::PictureWriter;

pub use super::npy::{write_npy, write_npy_bytes, write_npy_to};

/// A mask as a picture whose pixel values are the train ids and whose colours are those of the data set.
///
/// An 8-bit indexed PNG. Its palette is padded to 256 colours with black, so that the ignore id 255 has a colour. With more
/// than 256 classes it is a 16-bit grey PNG, because a PNG palette holds at most 256 colours.
///
/// ```
/// use rtformer::pixels::{IndexedPicture, Mask, Palette};
///
/// let (mask, palette) = (Mask::new(64, 32, 2), Palette::new(vec![[128, 64, 128], [244, 35, 232]]));
/// let mut file = Vec::new();
/// IndexedPicture::new(&mask, &palette).write_to(&mut file)?;
/// assert_eq!(image::load_from_memory(&file).unwrap().to_rgb8().get_pixel(5, 5).0, [128, 64, 128]);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct IndexedPicture<'a> {
    mask: &'a Mask,
    palette: &'a Palette,
    text: Option<Text<'a>>,
}

/// A text to store in a PNG: a keyword of 1 to 79 Latin-1 characters, and the text. It stands ahead of the pixels.
pub type Text<'a> = (&'a str, &'a str);

impl<'a> IndexedPicture<'a> {
    /// The picture of `mask` in the colours of `palette`.
    pub fn new(mask: &'a Mask, palette: &'a Palette) -> Self {
        Self { mask, palette, text: None }
    }

    /// The same picture with a text in its file.
    ///
    /// ```
    /// # use rtformer::pixels::{IndexedPicture, Mask, Palette};
    /// # let (mask, palette) = (Mask::new(64, 32, 1), Palette::new(vec![[128, 64, 128]]));
    /// let mut file = Vec::new();
    /// IndexedPicture::new(&mask, &palette).with_text(("Source", "street.jpg")).write_to(&mut file)?;
    /// assert!(file.windows(10).any(|bytes| bytes == b"street.jpg"));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn with_text(self, text: Text<'a>) -> Self {
        Self { text: Some(text), ..self }
    }

    /// Writes the PNG to a file. The file gets its name once it is complete.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # use rtformer::pixels::{IndexedPicture, Mask, Palette};
    /// let (mask, palette) = (Mask::new(64, 32, 1), Palette::new(vec![[128, 64, 128]]));
    /// let path = folder.path().join("street.mask.png");
    /// IndexedPicture::new(&mask, &palette).save(&path)?;
    /// assert_eq!(image::image_dimensions(&path).unwrap(), (64, 32));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Write`] with the path.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_whole(path.as_ref(), |file| self.encode(file))
    }

    /// Writes the PNG to `out`.
    ///
    /// # Errors
    /// [`Error::Write`] with the writer's error.
    pub fn write_to(&self, out: impl Write) -> Result<()> {
        self.encode(out).map_err(Error::writing("the mask"))
    }

    fn encode(&self, out: impl Write) -> io::Result<()> {
        let size = (self.mask.width(), self.mask.height());
        if let Some(ids) = self.mask.ids_u8() {
            return write_png(
                out,
                size,
                (ColorType::Indexed, BitDepth::Eight),
                ids,
                Some(colors_of(self.palette)),
                self.text,
            );
        }
        let ids: Vec<u8> = self.mask.iter().flat_map(u16::to_be_bytes).collect();
        write_png(out, size, (ColorType::Grayscale, BitDepth::Sixteen), &ids, None, self.text)
    }
}

/// The colours of a PNG's palette.
fn colors_of(palette: &Palette) -> Vec<u8> {
    (0..256).flat_map(|id| palette.color(id)).collect()
}

fn write_png(
    out: impl Write,
    (width, height): (u32, u32),
    (color, depth): (ColorType, BitDepth),
    data: &[u8],
    palette: Option<Vec<u8>>,
    text: Option<Text<'_>>,
) -> io::Result<()> {
    let mut writer = header(out, (width, height), (color, depth), palette, text)?;
    writer.write_image_data(data)?;
    Ok(writer.finish()?)
}

/// Starts a PNG.
fn header<W: Write>(
    out: W,
    (width, height): (u32, u32),
    (color, depth): (ColorType, BitDepth),
    palette: Option<Vec<u8>>,
    text: Option<Text<'_>>,
) -> io::Result<png::Writer<W>> {
    let mut encoder = png::Encoder::new(out, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.set_compression(Compression::Fast);
    if let Some(palette) = palette {
        encoder.set_palette(palette);
        encoder.set_filter(Filter::Up);
    }
    if let Some((keyword, text)) = text {
        encoder.add_itxt_chunk(keyword.into(), text.into())?;
    }
    Ok(encoder.write_header()?)
}

/// Blends every pixel of the photo with the colour of its class; `alpha` (0 to 1) is the weight of the colour.
///
/// Ignored pixels and pixels outside the mask are unchanged.
///
/// ```
/// use rtformer::pixels::{Mask, Palette, render};
///
/// let photo = image::RgbImage::from_pixel(2, 2, image::Rgb([100, 100, 100]));
/// let (mask, palette) = (Mask::new(2, 2, 1), Palette::new(vec![[200, 0, 100]]));
/// let overlay = render::overlay(&(&photo).into(), &mask, &palette, 0.5);
/// assert_eq!(overlay.get_pixel(0, 0).0, [150, 50, 100]);
/// ```
pub fn overlay(photo: &Pixels, mask: &Mask, palette: &Palette, alpha: f32) -> RgbImage {
    let alpha = if alpha.is_nan() { 0.0 } else { alpha.clamp(0.0, 1.0) };
    let mut picture = RgbImage::new(photo.width(), photo.height());
    let row_length = 3 * photo.width() as usize;
    if row_length == 0 {
        return picture;
    }
    // For each colour, and at the end black for ids without one, what becomes of each value of red, green and blue.
    let tables: Vec<_> = (0..=palette.len())
        .map(|id| {
            palette.color(id as u16).map(|color| std::array::from_fn::<_, 256, _>(|v| blend(v as u8, color, alpha)))
        })
        .collect();
    let (channels, offsets, ignored) = (photo.format().channels(), photo.format().offsets(), mask.ignore_id());
    let rows = picture.par_chunks_exact_mut(row_length).enumerate();
    let draw = |(y, row): (usize, &mut [u8])| {
        let y = y as u32;
        let pixels = row.as_chunks_mut::<3>().0.iter_mut().zip(photo.row(y).chunks_exact(channels));
        for (x, (pixel, source)) in (0..).zip(pixels) {
            let [r, g, b] = offsets.map(|offset| source[offset]);
            *pixel = match mask.reached(x, y).filter(|&id| id != ignored) {
                None => [r, g, b],
                Some(id) => {
                    let table = &tables[usize::from(id).min(tables.len() - 1)];
                    [table[0][usize::from(r)], table[1][usize::from(g)], table[2][usize::from(b)]]
                }
            };
        }
    };
    process::parallel(|| rows.for_each(draw));
    picture
}

/// The mean of a value and a colour with the weight `alpha`, rounded; halves are rounded up.
fn blend(value: u8, color: u8, alpha: f32) -> u8 {
    let mean = f32::from(value) * (1.0 - alpha) + f32::from(color) * alpha;
    // `f32::round` is a call of a function on CPUs without SSE 4.1.
    let whole = mean as u8;
    whole + u8::from(mean - f32::from(whole) >= 0.5)
}

/// The mask in the colours of its classes. Ignored pixels are black.
///
/// ```
/// use rtformer::pixels::{Mask, Palette, render};
///
/// let (mask, palette) = (Mask::from_ids(2, 1, 1, [0_u8, 255])?, Palette::new(vec![[200, 0, 100]]));
/// assert_eq!(render::colors(&mask, &palette).as_raw(), &[200, 0, 100, 0, 0, 0]);
/// # Ok::<(), rtformer::Error>(())
/// ```
pub fn colors(mask: &Mask, palette: &Palette) -> RgbImage {
    let mut picture = RgbImage::new(mask.width(), mask.height());
    for (pixel, id) in picture.as_chunks_mut::<3>().0.iter_mut().zip(mask.iter()) {
        *pixel = palette.color(id);
    }
    picture
}

/// Probabilities, row by row, as grey: 0 is black and 1 is white. Missing values are black; surplus values are ignored.
///
/// ```
/// use rtformer::pixels::render;
///
/// let picture = render::confidence_picture(&[0.0, 0.5, 1.0, 2.0], 4, 1);
/// assert_eq!(picture.as_raw(), &[0, 128, 255, 255]);
/// ```
pub fn confidence_picture(confidence: &[f32], width: u32, height: u32) -> GrayImage {
    let mut picture = GrayImage::new(width, height);
    for (pixel, p) in picture.iter_mut().zip(confidence) {
        *pixel = (p * 255.0).round() as u8;
    }
    picture
}

/// Converts a mask to the data set's own label ids, such as Cityscapes' ids 0 to 33 for its evaluation server.
///
/// `train_to_label` has the label of each train id. Pixels without a label, such as ignored ones, are 0: "unlabeled".
///
/// ```
/// use rtformer::pixels::{Mask, render};
///
/// assert_eq!(render::label_ids(&Mask::new(1, 1, 19), &[7, 8, 11]).as_raw(), &[7]);
/// ```
pub fn label_ids(mask: &Mask, train_to_label: &[u16]) -> GrayImage {
    let label = |id: u16| train_to_label.get(usize::from(id)).and_then(|&label| u8::try_from(label).ok()).unwrap_or(0);
    let labels: Vec<u8> = if let Some(ids) = mask.ids_u8() {
        let table: [u8; 256] = std::array::from_fn(|id| label(id as u16));
        ids.iter().map(|&id| table[usize::from(id)]).collect()
    } else {
        mask.iter().map(label).collect()
    };
    let mut picture = GrayImage::new(mask.width(), mask.height());
    picture.pixels_mut().zip(labels).for_each(|(pixel, label)| *pixel = Luma([label]));
    picture
}

/// One class of a mask: 255 where it is, 0 elsewhere.
///
/// ```
/// use rtformer::pixels::{Mask, render};
///
/// let mask = Mask::from_ids(3, 1, 5, [4_u8, 0, 255])?;
/// assert_eq!(render::binary(&mask, 4).as_raw(), &[255, 0, 0]);
/// # Ok::<(), rtformer::Error>(())
/// ```
pub fn binary(mask: &Mask, class: u16) -> GrayImage {
    let mut picture = GrayImage::new(mask.width(), mask.height());
    picture.iter_mut().zip(mask.iter()).for_each(|(pixel, id)| *pixel = if id == class { 255 } else { 0 });
    picture
}

/// Writes a colour picture as PNG.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// let picture = image::RgbImage::new(4, 4);
/// rtformer::pixels::render::save_rgb(folder.path().join("street.overlay.png"), &picture)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn save_rgb(path: impl AsRef<Path>, picture: &RgbImage) -> Result<()> {
    write_whole(path.as_ref(), |file| write_rgb(file, picture, None))
}

/// Writes a colour picture as PNG into `out`, with a text if there is one.
///
/// ```
/// let mut file = Vec::new();
/// rtformer::pixels::render::write_rgb(&mut file, &image::RgbImage::new(4, 4), Some(("Title", "a street")))?;
/// assert!(file.starts_with(b"\x89PNG"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The writer's.
pub fn write_rgb(out: impl Write, picture: &RgbImage, text: Option<Text<'_>>) -> io::Result<()> {
    write_png(out, picture.dimensions(), (ColorType::Rgb, BitDepth::Eight), picture, None, text)
}

/// Writes a grey picture as PNG.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// let picture = image::GrayImage::new(4, 4);
/// rtformer::pixels::render::save_gray(folder.path().join("street.confidence.png"), &picture)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Write`] with the path.
pub fn save_gray(path: impl AsRef<Path>, picture: &GrayImage) -> Result<()> {
    write_whole(path.as_ref(), |file| write_gray(file, picture, None))
}

/// Writes a grey picture as PNG into `out`, with a text if there is one.
///
/// ```
/// let mut file = Vec::new();
/// rtformer::pixels::render::write_gray(&mut file, &image::GrayImage::new(4, 4), None)?;
/// assert!(file.starts_with(b"\x89PNG"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The writer's.
pub fn write_gray(out: impl Write, picture: &GrayImage, text: Option<Text<'_>>) -> io::Result<()> {
    write_png(out, picture.dimensions(), (ColorType::Grayscale, BitDepth::Eight), picture, None, text)
}

#[cfg(test)]
mod tests;
