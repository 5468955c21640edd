//! Label images: PNG files that hold the true class of every pixel, as numbers or as colours.

mod colors;
mod decode;
mod format;
mod palette;

use std::fs::File;
use std::path::{Path, PathBuf};

pub use format::{LabelFormat, LabelKind};

use self::decode::decode;
use self::format::{Numbers, stray};
use super::Confusion;
use crate::error::{Error, Result};
use crate::files::read_within;
use crate::pixels::Limits;
use crate::pixels::decode::guarded;
use crate::segmenter::Segmenter;
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
    /// Creates a label image from train ids, row by row; `name` identifies it in errors.
    ///
    /// ```
    /// let labels = rtformer::eval::LabelImage::new("street_labels.png", 2, 1, vec![3, 255])?;
    /// assert_eq!(labels.ids(), [3, 255]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Image`] if the number of ids is not `width * height`.
    pub fn new(name: impl AsRef<Path>, width: u32, height: u32, ids: Vec<u16>) -> Result<Self> {
        let name = name.as_ref().to_path_buf();
        if ids.len() as u64 != u64::from(width) * u64::from(height) {
            return Err(Error::image(name, format!("has {} ids for {width}x{height} pixels", ids.len())));
        }
        Ok(Self { name, width, height, ids })
    }

    /// Reads a label image of this data set, with the default [`LabelFormat`].
    ///
    /// Grey PNG files (1 to 16 bits) hold numbers. RGB and RGBA files (8 bits) hold the classes' colours. An indexed PNG (1 to 8 bits)
    /// holds numbers, unless its palette shows that it holds colours: it consists of the data set's colours in another order, or of
    /// some of them, as optimisers and quantisers write it. If its palette is grey or PASCAL VOC's colour map in
    /// another order, the number is the place of the pixel's colour in that map, as in the file that was optimised. If both readings are possible and differ, the file is an error; use
    /// [`LabelKind`] to choose. The masks that we write have the data set's palette in order, so both readings agree.
    ///
    /// Numbers are train ids, except:
    ///
    /// - in `…_labelIds.png` and `….labelid.png`: [label ids](crate::weights::Class::label_id); those of no class are ignored
    /// - in `ADE_….png` of `ade20k`: 1 is the first class, 0 is ignored
    /// - in any file of `camvid`: 11, one past the last class, is `SegNet`'s "void" and is ignored
    ///
    /// The colours of a class are its [`color`](crate::weights::Class::color) and its [`colors`](crate::weights::Class::colors). The
    /// [`ignore_colors`](Dataset::ignore_colors) are ignored, and so is black unless it is a class's colour.
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
    /// [`Error::Read`] if the file cannot be read; [`Error::Image`] if it is not such a PNG, is damaged, or has an id or a colour that is
    /// neither a class nor ignored.
    pub fn open(path: impl AsRef<Path>, dataset: &Dataset) -> Result<Self> {
        Self::open_as(path, dataset, &LabelFormat::default())
    }

    /// Reads a label image like [`open`](Self::open), but in the given format.
    ///
    /// ```
    /// use rtformer::eval::{LabelFormat, LabelImage, LabelKind};
    /// use rtformer::weights::Dataset;
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// let path = folder.path().join("berlin.png"); // its name does not say that it holds label ids
    /// image::GrayImage::from_raw(3, 1, vec![7, 26, 4]).unwrap().save(&path).unwrap(); // road, car, static
    /// let format = LabelFormat { kind: LabelKind::LabelId, ..LabelFormat::default() };
    /// let labels = LabelImage::open_as(&path, &Dataset::named("cityscapes").unwrap(), &format)?;
    /// assert_eq!(labels.ids(), [0, 13, 255]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`open`](Self::open), and [`Error::Input`] for a format that fails [`LabelFormat::check`].
    pub fn open_as(path: impl AsRef<Path>, dataset: &Dataset, format: &LabelFormat) -> Result<Self> {
        let path = path.as_ref();
        format.check()?;
        let limits = Limits::default();
        let bytes =
            File::open(path).and_then(|file| read_within(file, limits.max_alloc)).map_err(Error::reading(path))?;
        let numbers = Numbers::new(path, dataset, format)?;
        // If the decoder panics, only this image fails.
        let decoded = guarded(|| decode(&bytes, &limits, dataset, format.kind, &numbers));
        let decoded = decoded.unwrap_or_else(|| Err("the decoder failed on this PNG file; save it again".into()));
        let (width, height, ids) = decoded.map_err(|reason| Error::image(path, reason))?;
        Self::new(path, width, height, ids)
    }

    /// As [`open_as`](Self::open_as), with the data set of this segmenter, and the classes that its masks have.
    ///
    /// # Errors
    /// The errors of [`open_as`](Self::open_as).
    pub fn open_for(path: impl AsRef<Path>, segmenter: &Segmenter, format: &LabelFormat) -> Result<Self> {
        Ok(Self::open_as(path, segmenter.dataset(), format)?.with_ids(segmenter.class_ids()))
    }

    /// The file's path, or the name given to [`new`](Self::new).
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The ids, row by row.
    pub fn ids(&self) -> &[u16] {
        &self.ids
    }

    /// Checks that the labels have the size of `other`, their photo or its mask. The error names `other`.
    ///
    /// ```
    /// let labels = rtformer::eval::LabelImage::new("street_labels.png", 2, 1, vec![3, 255])?;
    /// labels.check_size("street.jpg", 2, 1)?;
    /// let error = labels.check_size("street.jpg", 1, 2).unwrap_err().to_string();
    /// assert!(error.starts_with("street_labels.png: is 2x1, but street.jpg is 1x2"));
    /// assert!(error.contains("EXIF orientation"));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Image`] if the sizes differ, naming both images and their sizes.
    pub fn check_size(&self, other: impl AsRef<Path>, width: u32, height: u32) -> Result<()> {
        if (self.width, self.height) == (width, height) {
            return Ok(());
        }
        let advice = if (self.width, self.height) == (height, width) {
            "photos are rotated by their EXIF orientation, labels are not; rotate the labels, or remove the photo's orientation"
        } else {
            "scale the photo to the labels' size, not the labels"
        };
        let (w, h, other) = (self.width, self.height, other.as_ref().display());
        Err(Error::image(&self.name, format!("is {w}x{h}, but {other} is {width}x{height}: {advice}")))
    }

    /// These labels with the classes that masks have: `ids` has the new id of each class, as
    /// [`Segmenter::class_ids`](crate::Segmenter::class_ids) returns them.
    ///
    /// ```
    /// let labels = rtformer::eval::LabelImage::new("street_labels.png", 3, 1, vec![0, 1, 255])?;
    /// assert_eq!(labels.with_ids(Some(&[1, 1])).ids(), [1, 1, 255]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    #[must_use]
    pub fn with_ids(mut self, ids: Option<&[u16]>) -> Self {
        if let Some(new) = ids {
            self.ids.iter_mut().for_each(|id| *id = new.get(usize::from(*id)).copied().unwrap_or(*id));
        }
        self
    }

    /// Checks that every id is one of `classes` classes or the ignore id.
    pub(super) fn check_ids(&self, classes: usize) -> Result<()> {
        let ignore = Confusion::ignore_id(classes);
        let Some(at) = self.ids.iter().position(|&id| id != ignore && usize::from(id) >= classes) else {
            return Ok(());
        };
        Err(Error::image(&self.name, stray(self.ids[at], at, self.width as usize, classes)))
    }
}

#[cfg(test)]
mod tests;
