//! Label images: PNG files whose numbers, not colours, are classes.

use std::collections::HashMap;
use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType};

use super::Confusion;
use crate::error::{Error, Result};
use crate::files::read_within;
use crate::pixels::Limits;
use crate::pixels::decode::guarded;
use crate::weights::Dataset;

/// The true class of every pixel of a photo: train ids `[height, width]`, or the [ignore id](Confusion::ignore_id).
///
/// ```
/// use rtformer::eval::LabelImage;
///
/// let labels = LabelImage::new("street_labels.png", 2, 1, vec![3, 255])?;
/// assert_eq!((labels.width(), labels.height(), labels.ids()), (2, 1, &[3, 255][..]));
/// assert!(labels.name().ends_with("street_labels.png"));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelImage {
    name: PathBuf,
    width: u32,
    height: u32,
    ids: Vec<u16>,
}

impl LabelImage {
    /// Train ids row by row; `name` is what errors call them.
    ///
    /// ```
    /// let labels = rtformer::eval::LabelImage::new("street_labels.png", 2, 1, vec![3, 255])?;
    /// assert_eq!(labels.ids(), [3, 255]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Image`] unless there are `width * height` ids.
    pub fn new(name: impl AsRef<Path>, width: u32, height: u32, ids: Vec<u16>) -> Result<Self> {
        let name = name.as_ref().to_path_buf();
        if ids.len() as u64 != u64::from(width) * u64::from(height) {
            return Err(Error::image(name, format!("has {} ids for {width}x{height} pixels", ids.len())));
        }
        Ok(Self { name, width, height, ids })
    }

    /// Reads a label image of this data set.
    ///
    /// A grey or indexed PNG (1 to 8 bits, grey also 16) holds train ids; the colours of an indexed one mean nothing. By their names
    /// and the data set's, these are known to hold other numbers:
    ///
    /// - `…_labelIds.png`: [label ids](crate::weights::Class::label_id), those of no class ignored
    /// - `ADE_….png` of `ade20k`: 1 is the first class, 0 is ignored
    /// - any of `camvid`: 11, one past the classes, is `SegNet`'s "void" and ignored
    ///
    /// An RGB or RGBA PNG of 8 bits is read by the classes' colours; black is ignored unless it is a class's colour.
    ///
    /// ```
    /// use rtformer::eval::LabelImage;
    /// use rtformer::weights::Dataset;
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// let path = folder.path().join("berlin_000001_gtFine_labelIds.png");
    /// image::GrayImage::from_raw(3, 1, vec![7, 26, 4]).unwrap().save(&path).unwrap(); // road, car, static
    /// let labels = LabelImage::open(&path, &Dataset::named("cityscapes").unwrap())?;
    /// assert_eq!(labels.ids(), [0, 13, 255]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Image`] when it is no such PNG, is damaged, or has an id or a colour that is neither a class nor
    /// ignored.
    pub fn open(path: impl AsRef<Path>, dataset: &Dataset) -> Result<Self> {
        let path = path.as_ref();
        let limits = Limits::default();
        let bytes =
            File::open(path).and_then(|file| read_within(file, limits.max_alloc)).map_err(Error::reading(path))?;
        let meaning = Meaning::of(path, dataset)?;
        // As with photos: should the decoder panic, that costs one image and not the others.
        let decoded = guarded(|| decode(&bytes, &limits, dataset, &meaning));
        let decoded = decoded.unwrap_or_else(|| Err("the decoder failed on this PNG file; save it anew".into()));
        let (width, height, ids) = decoded.map_err(|reason| Error::image(path, reason))?;
        Self::new(path, width, height, ids)
    }

    /// The file's path, or the name that was given.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Pixels a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The ids, row by row.
    pub fn ids(&self) -> &[u16] {
        &self.ids
    }

    /// Whether these are the labels of a photo of that size.
    ///
    /// ```
    /// let labels = rtformer::eval::LabelImage::new("street_labels.png", 2, 1, vec![3, 255])?;
    /// labels.check_size(2, 1)?;
    /// assert!(labels.check_size(4, 2).is_err());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Image`], naming both sizes.
    pub fn check_size(&self, width: u32, height: u32) -> Result<()> {
        if (self.width, self.height) == (width, height) {
            return Ok(());
        }
        let (w, h) = (self.width, self.height);
        let reason =
            format!("the labels are {w}x{h}, their photo is {width}x{height}; scale the photo, never the labels");
        Err(Error::image(&self.name, reason))
    }

    /// Whether every id is one of so many classes or ignored.
    pub(super) fn check_ids(&self, classes: usize) -> Result<()> {
        let ignore = Confusion::ignore_id(classes);
        let Some(at) = self.ids.iter().position(|&id| id != ignore && usize::from(id) >= classes) else {
            return Ok(());
        };
        Err(Error::image(&self.name, stray(self.ids[at], at, self.width as usize, classes)))
    }
}

fn stray(id: u16, at: usize, width: usize, classes: usize) -> String {
    let (x, y, last, ignore) = (at % width, at / width, classes - 1, Confusion::ignore_id(classes));
    format!(
        "has id {id} at ({x}, {y}), which is no class (0 to {last}) and not {ignore} (ignored); are these another data set's labels?"
    )
}

/// The train id, or ignore id, that each number in a label image stands for; a number that is to be refused stands for itself.
struct Meaning(Vec<u16>);

impl Meaning {
    fn of(path: &Path, dataset: &Dataset) -> Result<Self> {
        let classes = dataset.classes.len();
        let ignore = Confusion::ignore_id(classes);
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut meaning: Vec<u16> = (0..=u16::MAX).collect();
        if stem.ends_with("_labelIds") {
            meaning.fill(ignore);
            let labels = dataset.classes.iter().zip(0..).filter_map(|(class, id)| Some((class.label_id?, id)));
            labels.for_each(|(label, id)| meaning[usize::from(label)] = id);
            if meaning.iter().all(|&id| id == ignore) {
                return Err(Error::image(
                    path,
                    format!(
                        "its name says label ids, but the classes of data set `{}` have none; use weights for the labels' data \
                         set, or train ids (`_labelTrainIds`)",
                        dataset.name
                    ),
                ));
            }
        } else if dataset.name == "ade20k" && stem.starts_with("ADE_") {
            meaning[0] = ignore;
            (1..=classes.min(254)).for_each(|number| meaning[number] = number as u16 - 1);
        } else if dataset.name == "camvid" && classes == 11 {
            meaning[11] = ignore;
        }
        Ok(Self(meaning))
    }
}

type Decoded = (u32, u32, Vec<u16>);

/// Width, height and train ids, or what is wrong and what to do.
fn decode(bytes: &[u8], limits: &Limits, dataset: &Dataset, meaning: &Meaning) -> Result<Decoded, String> {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err("is no PNG; label images are grey or indexed PNG files whose values are class ids".into());
    }
    let failed = |error| format!("this PNG file is damaged ({error}); copy it again");
    // Without transformations: an indexed pixel stays the index that it is.
    let within = png::Limits { bytes: usize::try_from(limits.max_alloc).unwrap_or(usize::MAX) };
    let mut reader = png::Decoder::new_with_limits(Cursor::new(bytes), within).read_info().map_err(failed)?;
    let (width, height) = reader.info().size();
    if u64::from(width) * u64::from(height) > limits.max_pixels || width.max(height) > limits.max_side {
        return Err(format!("{width}x{height} is too large; no photo of that size could be read"));
    }
    let (color, depth) = reader.output_color_type();
    let single = matches!(color, ColorType::Grayscale | ColorType::Indexed);
    if !single && (depth != BitDepth::Eight || color == ColorType::GrayscaleAlpha) {
        return Err(format!(
            "has {depth:?}-bit {color:?} samples; save it as 8-bit or 16-bit grey, or as indexed PNG, whose values are class ids"
        ));
    }
    let length = reader.output_buffer_size().ok_or("is too large for this machine's memory")?;
    let mut samples = vec![0; length];
    let line = reader.next_frame(&mut samples).map_err(failed)?.line_size.max(1);
    let ids = if single {
        let numbers = samples.chunks_exact(line).flat_map(|row| numbers(row, width as usize, depth));
        by_number(numbers, width as usize, dataset.classes.len(), meaning)
    } else {
        by_color(&samples, color.samples(), width as usize, dataset)
    };
    Ok((width, height, ids?))
}

/// A row's samples, however many bits they have.
fn numbers(row: &[u8], width: usize, depth: BitDepth) -> impl Iterator<Item = u16> {
    let bits = depth as usize;
    let small = (0..if bits < 16 { width } else { 0 }).map(move |x| {
        let shifted = row[x * bits / 8] >> (8 - bits - x * bits % 8); // the leftmost pixel is in the highest bits
        u16::from(shifted) & ((1 << bits) - 1)
    });
    let wide =
        row.as_chunks::<2>().0.iter().take(if bits < 16 { 0 } else { width }).map(|pair| u16::from_be_bytes(*pair));
    small.chain(wide)
}

fn by_number(
    numbers: impl Iterator<Item = u16>,
    width: usize,
    classes: usize,
    meaning: &Meaning,
) -> Result<Vec<u16>, String> {
    let ignore = Confusion::ignore_id(classes);
    numbers
        .enumerate()
        .map(|(at, number)| match meaning.0[usize::from(number)] {
            id if id == ignore || usize::from(id) < classes => Ok(id),
            _ => Err(stray(number, at, width, classes)),
        })
        .collect()
}

fn by_color(samples: &[u8], channels: usize, width: usize, dataset: &Dataset) -> Result<Vec<u16>, String> {
    let mut ids = HashMap::from([([0; 3], Confusion::ignore_id(dataset.classes.len()))]);
    let mut named = HashMap::new();
    for (class, id) in dataset.classes.iter().zip(0..) {
        if let Some(other) = named.insert(class.color, &class.name) {
            let (name, color) = (&class.name, class.color);
            return Err(format!(
                "is coloured, but `{other}` and `{name}` are both {color:?}; give class ids as grey PNG"
            ));
        }
        ids.insert(class.color, id);
    }
    let mut last = ([0; 3], ids[&[0; 3]]); // neighbours are mostly alike: one look-up for a run of them
    let pixels = samples.chunks_exact(channels).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
    pixels
        .enumerate()
        .map(|(at, color)| {
            if color != last.0 {
                let unknown = || {
                    format!(
                        "has colour {color:?} at ({}, {}), which no class of `{}` has; give class ids as grey PNG, or the classes' \
                         own colours",
                        at % width,
                        at / width,
                        dataset.name
                    )
                };
                last = (color, *ids.get(&color).ok_or_else(unknown)?);
            }
            Ok(last.1)
        })
        .collect()
}

#[cfg(test)]
mod tests;
