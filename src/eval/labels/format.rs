//! How to read a label image's samples, and what its numbers mean.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::eval::Confusion;
use crate::weights::Dataset;

/// The meaning of a label image's samples.
///
/// ```
/// use rtformer::eval::LabelKind;
///
/// assert_eq!("train-id".parse::<LabelKind>()?, LabelKind::TrainId);
/// assert!("colour-ish".parse::<LabelKind>().is_err());
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelKind {
    /// Decided for each file by its pixels, its palette and its name; see [`LabelImage::open`](super::LabelImage::open).
    #[default]
    Auto,
    /// Numbers: grey values, or the indices of an indexed PNG. The file's name decides what they mean.
    Index,
    /// The classes' colours: RGB, or the palette of an indexed PNG.
    Color,
    /// Numbers that are train ids, regardless of the file's name.
    TrainId,
    /// Numbers that are the data set's own [label ids](crate::weights::Class::label_id), regardless of the file's name.
    LabelId,
}

impl LabelKind {
    /// The names of all kinds, as accepted by [`FromStr`].
    ///
    /// ```
    /// use rtformer::eval::LabelKind;
    ///
    /// assert!(LabelKind::NAMES.iter().all(|name| name.parse::<LabelKind>().is_ok()));
    /// ```
    pub const NAMES: [&str; 5] = ["auto", "index", "color", "train-id", "label-id"];

    const ALL: [Self; 5] = [Self::Auto, Self::Index, Self::Color, Self::TrainId, Self::LabelId];
}

impl FromStr for LabelKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let place = Self::NAMES.iter().position(|name| *name == text);
        let unknown = || Error::Input(format!("unknown label kind `{text}`: expected {}", Self::NAMES.join(", ")));
        place.map(|place| Self::ALL[place]).ok_or_else(unknown)
    }
}

impl fmt::Display for LabelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

/// How to read label images if the defaults do not fit.
///
/// ```
/// use rtformer::eval::{LabelFormat, LabelImage};
/// use rtformer::weights::Dataset;
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("street.png");
/// image::GrayImage::from_raw(4, 1, vec![0, 1, 11, 99]).unwrap().save(&path).unwrap();
/// let format = LabelFormat { first_id: Some(1), ignore_ids: vec![99], ..LabelFormat::default() };
/// let labels = LabelImage::open_as(&path, &Dataset::named("camvid").unwrap(), &format)?;
/// assert_eq!(labels.ids(), [255, 0, 10, 255]);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelFormat {
    /// The meaning of the samples.
    pub kind: LabelKind,
    /// The number of class 0, for labels that do not start at 0. Lower numbers are ignored.
    pub first_id: Option<u16>,
    /// Additional numbers to ignore, as stored in the file.
    pub ignore_ids: Vec<u16>,
}

impl LabelFormat {
    /// Checks that the fields do not contradict each other.
    ///
    /// ```
    /// use rtformer::eval::{LabelFormat, LabelKind};
    ///
    /// let format = LabelFormat { kind: LabelKind::Color, first_id: Some(1), ignore_ids: Vec::new() };
    /// assert!(format.check().unwrap_err().to_string().contains("colours have no numbers"));
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] if `first_id` is set for train ids or label ids, or if either number is set for colours.
    pub fn check(&self) -> Result<()> {
        let reason = match self.kind {
            LabelKind::Color if self.asks_for_numbers() => "colours have no numbers",
            LabelKind::TrainId if self.first_id.is_some() => "train ids start at 0",
            LabelKind::LabelId if self.first_id.is_some() => "the data set defines its label ids",
            _ => return Ok(()),
        };
        Err(Error::Input(format!(
            "the label kind {} cannot be combined with {}: {reason}",
            self.kind,
            if self.first_id.is_some() { "a first id" } else { "an ignore id" }
        )))
    }

    /// Whether the caller specified the meaning of numbers.
    pub(super) fn asks_for_numbers(&self) -> bool {
        self.first_id.is_some() || !self.ignore_ids.is_empty()
    }
}

/// The train id or ignore id of each number in a label image.
pub(super) struct Numbers {
    /// Indexed by number; `None` for a number that is neither a class nor ignored.
    ids: Vec<Option<u16>>,
    /// Whether the caller specified the meaning of numbers.
    pub asked_for: bool,
    /// Whether the caller or the file's name states that the file holds numbers.
    pub stated: bool,
}

impl Numbers {
    /// # Errors
    /// [`Error::Image`] if the file's name or `format` requests label ids, but the data set has none.
    pub(super) fn new(path: &Path, dataset: &Dataset, format: &LabelFormat) -> Result<Self> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let label_ids = stem.ends_with("_labelIds") || stem.ends_with(".labelid");
        let train_ids = stem.ends_with("_labelTrainIds");
        let ade = dataset.name == "ade20k" && stem.starts_with("ADE_");
        let ids = match (format.kind, format.first_id) {
            (LabelKind::TrainId, _) | (LabelKind::Color, None) => from(0, dataset), // colours have no numbers
            (LabelKind::LabelId, _) if dataset.name == "ade20k" => from(1, dataset),
            (LabelKind::LabelId, _) => by_label_id(path, dataset)?,
            (_, Some(first)) => from(first, dataset),
            _ if label_ids => by_label_id(path, dataset)?,
            _ if ade => from(1, dataset),
            _ => from(0, dataset),
        };
        let asked_for = format.asks_for_numbers();
        let mut numbers = Self { ids, asked_for, stated: asked_for || label_ids || train_ids || ade };
        for &number in &format.ignore_ids {
            numbers.ids[usize::from(number)] = Some(Confusion::ignore_id(dataset.classes.len()));
        }
        Ok(numbers)
    }

    pub(super) fn of(&self, number: u16) -> Option<u16> {
        self.ids[usize::from(number)]
    }
}

/// Consecutive numbers: `first` is class 0. Lower numbers are ignored, and so is the ignore id unless it is a class.
fn from(first: u16, dataset: &Dataset) -> Vec<Option<u16>> {
    let classes = dataset.classes.len();
    let ignore = Confusion::ignore_id(classes);
    let id = |number: usize| match number.checked_sub(usize::from(first)) {
        None => Some(ignore),
        Some(id) if id < classes => Some(id as u16),
        Some(11) if dataset.name == "camvid" && classes == 11 => Some(ignore), // SegNet's "void"
        Some(_) => (number == usize::from(ignore)).then_some(ignore),
    };
    (0..=usize::from(u16::MAX)).map(id).collect()
}

/// The data set's own label ids; every other number is ignored.
fn by_label_id(path: &Path, dataset: &Dataset) -> Result<Vec<Option<u16>>> {
    let mut ids = vec![Some(Confusion::ignore_id(dataset.classes.len())); usize::from(u16::MAX) + 1];
    let mut any = false;
    for (class, id) in dataset.classes.iter().zip(0..) {
        if let Some(label) = class.label_id {
            ids[usize::from(label)] = Some(id);
            any = true;
        }
    }
    if any {
        return Ok(ids);
    }
    let reason = format!(
        "cannot be read as label ids: the classes of data set `{}` have none; use weights for the labels' data set, or train ids \
         (`_labelTrainIds`, or the label kind train-id)",
        dataset.name
    );
    Err(Error::image(path, reason))
}

/// The error for a number that is neither a class nor ignored; `at` is its index in the row-by-row image.
pub(super) fn stray(id: u16, at: usize, width: usize, classes: usize) -> String {
    let (x, y, last, ignore) = (at % width, at / width, classes - 1, Confusion::ignore_id(classes));
    format!(
        "has id {id} at ({x}, {y}), expected a class (0 to {last}) or {ignore} (ignored); if these are labels of this data set, set \
         the first id to the id of the first class, or ignore the id {id}"
    )
}
