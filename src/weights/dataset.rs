//! Data sets: class names, colours, and the normalisation of pixels.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;

/// The built-in data sets.
const KNOWN: [(&str, &str); 3] = [
    ("cityscapes", include_str!("datasets/cityscapes.json")),
    ("ade20k", include_str!("datasets/ade20k.json")),
    ("camvid", include_str!("datasets/camvid.json")),
];

/// The maximum length of a description in bytes. One with 65,535 classes has about 5 MB; a longer file is something else.
const LONGEST: u64 = 32 << 20;

/// A class. Its index in [`Dataset::classes`] is its train id, which is its value in a mask.
///
/// ```
/// use rtformer::weights::{Class, Dataset};
///
/// let car = Class { name: "car".into(), color: [0, 0, 142], label_id: Some(26), colors: Vec::new() };
/// assert_eq!(Dataset::named("cityscapes").unwrap().classes[13], car);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// The display name.
    pub name: String,
    /// Red, green, blue.
    pub color: [u8; 3],
    /// The class's value in the data set's own label images, if it is not the train id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_id: Option<u16>,
    /// Further colours that label images use for this class, such as those of finer classes. Masks never have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub colors: Vec<[u8; 3]>,
}

/// A data set's classes and normalisation.
///
/// ```
/// let cityscapes = rtformer::weights::Dataset::named("cityscapes").unwrap();
/// assert_eq!(cityscapes.classes[13].name, "car");
/// assert_eq!(cityscapes.classes[13].label_id, Some(26));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dataset {
    /// The name, such as `cityscapes`.
    pub name: String,
    /// The classes, in the order of their train ids. There is no background class and no ignore class.
    pub classes: Vec<Class>,
    /// Mean of red, green and blue, each from 0 to 1. Subtracted from pixels before the network.
    pub mean: [f64; 3],
    /// Standard deviation of red, green and blue, each from 0.001 to 1. Pixels are divided by it before the network.
    pub std: [f64; 3],
    /// Colours in label images that do not belong to a class. Black is ignored in any case, unless it is a class's colour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore_colors: Vec<[u8; 3]>,
    /// Where the data set comes from, and who made it.
    #[serde(default)]
    pub source: String,
    /// The licence.
    #[serde(default)]
    pub license: String,
}

impl Dataset {
    /// The names of the built-in data sets.
    ///
    /// ```
    /// # use rtformer::weights::Dataset;
    /// assert!(Dataset::names().all(|name| Dataset::named(name).is_some()));
    /// ```
    pub fn names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|(name, _)| *name)
    }

    /// A built-in data set: `cityscapes` (19 classes), `ade20k` (150) or `camvid` (11). `None` for any other name.
    ///
    /// ```
    /// # use rtformer::weights::Dataset;
    /// assert_eq!(Dataset::named("ade20k").unwrap().classes.len(), 150);
    /// assert!(Dataset::named("mine").is_none());
    /// ```
    ///
    /// # Panics
    /// Never: a test parses all three.
    pub fn named(name: &str) -> Option<Self> {
        let (_, json) = KNOWN.iter().find(|(known, _)| *known == name)?;
        Some(serde_json::from_str(json).expect("a test parses every built-in description"))
    }

    /// Reads a user's own description: JSON with the fields of the files in `src/weights/datasets/`, in UTF-8 or UTF-16.
    ///
    /// ```
    /// # use rtformer::weights::Dataset;
    /// # let folder = tempfile::tempdir().unwrap();
    /// let path = folder.path().join("mine.json");
    /// let json = r#"{"name": "mine", "classes": [{"name": "road", "color": [128, 64, 128]}], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}"#;
    /// std::fs::write(&path, json).unwrap();
    /// assert_eq!(Dataset::load(&path)?.classes[0].name, "road");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Weights`] if the JSON is malformed or [`Dataset::check`] fails.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes =
            File::open(path).and_then(|file| files::read_within(file, LONGEST)).map_err(Error::reading(path))?;
        let parsed = files::text(&bytes).and_then(|text| serde_json::from_str(&text).map_err(|e| e.to_string()));
        let dataset: Self = parsed.map_err(|reason| {
            let known = KNOWN.map(|(name, _)| name).join(", ");
            Error::weights(
                path,
                format!("is not the description of a data set: {reason}; expected {known}, or JSON such as {EXAMPLE}"),
            )
        })?;
        dataset.check().map_err(|reason| Error::weights(path, reason))?;
        Ok(dataset)
    }

    /// Checks the description: 1 to 65,535 classes with distinct names, distinct label ids, distinct further colours, and means and
    /// deviations that pixels from 0 to 1 can have.
    ///
    /// ```
    /// let mut camvid = rtformer::weights::Dataset::named("camvid").unwrap();
    /// assert_eq!(camvid.check(), Ok(()));
    /// camvid.std[1] = 0.0;
    /// assert_eq!(camvid.check().unwrap_err(), "std[1] is 0; expected 0.001 to 1, for pixels from 0 to 1");
    /// ```
    ///
    /// # Errors
    /// A description of the problem.
    pub fn check(&self) -> Result<(), String> {
        if self.classes.is_empty() || self.classes.len() > 65_535 {
            return Err(format!("it has {} classes; expected 1 to 65535", self.classes.len()));
        }
        let (mut names, mut labels) = (HashSet::new(), HashSet::new());
        for (id, class) in self.classes.iter().enumerate() {
            if class.name.trim().is_empty() {
                return Err(format!("class {id} has no name"));
            }
            if !names.insert(&class.name) {
                return Err(format!("class {id} is the second one with the name `{}`", class.name));
            }
            if let Some(label) = class.label_id
                && !labels.insert(label)
            {
                return Err(format!("class {id} (`{}`) is the second one with the label id {label}", class.name));
            }
        }
        self.check_colors()?;
        (0..3).try_for_each(|channel| {
            possible("mean", channel, self.mean[channel], 0.0)?;
            possible("std", channel, self.std[channel], LEAST_STD)
        })
    }

    /// Checks further colours. Two classes may share a `color` (their labels are then read by number), but a further colour must have a
    /// single meaning.
    fn check_colors(&self) -> Result<(), String> {
        let mut known: HashMap<[u8; 3], &str> =
            self.classes.iter().map(|class| (class.color, class.name.as_str())).collect();
        let further =
            self.classes.iter().flat_map(|class| class.colors.iter().map(move |&color| (color, &*class.name)));
        for (color, name) in further.chain(self.ignore_colors.iter().map(|&color| (color, "ignore_colors"))) {
            if let Some(other) = known.insert(color, name) {
                return Err(format!("colour {color:?} is listed for both `{other}` and `{name}`"));
            }
        }
        Ok(())
    }

    /// Adds the further colours of the built-in data set with this name, if it has the same classes.
    ///
    /// For weights that were saved before data sets could list such colours.
    pub(super) fn with_known_colors(mut self) -> Self {
        let same = |a: &Class, b: &Class| a.name == b.name && a.color == b.color;
        if let Some(known) = Self::named(&self.name)
            && known.classes.len() == self.classes.len()
            && known.classes.iter().zip(&self.classes).all(|(a, b)| same(a, b))
        {
            self.classes.iter_mut().zip(known.classes).for_each(|(own, known)| own.colors = known.colors);
            self.ignore_colors = known.ignore_colors;
        }
        self
    }
}

/// The smallest deviation. A network for pixels from 0 to 255 has 1/255; much smaller values are mistakes.
const LEAST_STD: f64 = 0.001;

/// Rejects a mean or deviation that pixels from 0 to 1 cannot have.
fn possible(name: &str, channel: usize, value: f64, least: f64) -> Result<(), String> {
    if (least..=1.0).contains(&value) {
        return Ok(());
    }
    let range = format!("{name}[{channel}] is {value}; expected {least} to 1, for pixels from 0 to 1");
    if value > 1.0 && value <= 255.0 {
        return Err(format!(
            "{range}. Values for pixels from 0 to 255 must be divided by 255: {value} / 255 = {:.3}",
            value / 255.0
        ));
    }
    Err(range)
}

const EXAMPLE: &str = r#"{"name": "mine", "classes": [{"name": "road", "color": [128, 64, 128]}], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_data_sets_are_complete() {
        for (name, classes) in [("cityscapes", 19), ("ade20k", 150), ("camvid", 11)] {
            let dataset = Dataset::named(name).unwrap();
            assert_eq!((dataset.name.as_str(), dataset.classes.len(), dataset.check()), (name, classes, Ok(())));
            assert_eq!((dataset.mean, dataset.std), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
            assert!(!dataset.source.is_empty() && !dataset.license.is_empty(), "{name}");
        }
        assert_eq!(Dataset::names().count(), 3);
        assert_eq!(Dataset::named("coco"), None);
    }

    #[test]
    fn cityscapes_has_its_label_ids() {
        let ids = Dataset::named("cityscapes").unwrap().classes.iter().map(|c| c.label_id.unwrap()).collect::<Vec<_>>();
        assert_eq!(ids, [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]);
    }

    #[test]
    fn camvid_has_its_32_colours() {
        let camvid = Dataset::named("camvid").unwrap();
        let further = camvid.classes.iter().map(|class| class.colors.len()).sum::<usize>();
        // Void is black, which is ignored in any case.
        assert_eq!(camvid.classes.len() + further + 1, 32);
    }

    #[test]
    fn older_weights_get_the_known_colours() {
        let camvid = Dataset::named("camvid").unwrap();
        let mut old = camvid.clone();
        old.classes.iter_mut().for_each(|class| class.colors.clear());
        assert_eq!(old.clone().with_known_colors(), camvid);
        old.classes[0].name = "heaven".into(); // another data set with the same name
        assert_eq!(old.clone().with_known_colors(), old);
    }

    #[test]
    fn a_users_file_is_read_or_rejected_with_a_reason() {
        let with = |classes: &str, std: &str| {
            format!(r#"{{"name": "mine", "classes": {classes}, "mean": [0, 0, 0], "std": {std}}}"#)
        };
        let one = r#"[{"name": "road", "color": [1, 2, 3]}]"#;
        let cases = [
            (with(one, "[1, 1, 1]"), None),
            (EXAMPLE.to_owned(), None),
            (with("[]", "[1, 1, 1]"), Some("0 classes")),
            (with(r#"[{"name": " ", "color": [1, 2, 3]}]"#, "[1, 1, 1]"), Some("class 0 has no name")),
            (
                with(r#"[{"name": "a", "color": [1, 2, 3]}, {"name": "a", "color": [1, 2, 4]}]"#, "[1, 1, 1]"),
                Some("the second one with the name `a`"),
            ),
            (
                with(
                    r#"[{"name": "a", "color": [1, 2, 3], "label_id": 4}, {"name": "b", "color": [1, 2, 4], "label_id": 4}]"#,
                    "[1, 1, 1]",
                ),
                Some("label id 4"),
            ),
            (with(r#"[{"name": "a", "color": [1, 2, 3], "colors": [[4, 5, 6]]}]"#, "[1, 1, 1]"), None),
            (
                // One further colour for two classes.
                with(
                    r#"[{"name": "a", "color": [1, 2, 3], "colors": [[4, 5, 6]]}, {"name": "b", "color": [4, 5, 6]}]"#,
                    "[1, 1, 1]",
                ),
                Some("[4, 5, 6] is listed for both `b` and `a`"),
            ),
            (
                with(one, r#"[1, 1, 1], "ignore_colors": [[1, 2, 3]]"#), // a class, or ignored?
                Some("[1, 2, 3] is listed for both `road` and `ignore_colors`"),
            ),
            (with(r#"[{"name": "a", "color": [1, 2, 256]}]"#, "[1, 1, 1]"), Some("256")),
            (with(r#"[{"name": "a", "colour": [1, 2, 3]}]"#, "[1, 1, 1]"), Some("unknown field `colour`")),
            (with(one, "[1, 0, 1]"), Some("std[1] is 0; expected 0.001 to 1")),
            (with(one, "[1, -1, 1]"), Some("std[1] is -1")),
            (with(one, "[0.00392156862745098, 0.00392156862745098, 0.00392156862745098]"), None), // for pixels from 0 to 255
            (with(one, "[58.395, 57.12, 57.375]"), Some("divided by 255: 58.395 / 255 = 0.229")),
            (with(one, "[255, 255, 255]"), Some("255 / 255 = 1.000")),
            (with(one, "[1, 1, 300]"), Some("std[2] is 300; expected 0.001 to 1")),
            (with(one, "[0.5, 0.5, 0.5]").replace("[0, 0, 0]", "[0.5, 0.5, 0.5]"), None),
            (with(one, "[1, 1, 1]").replace("[0, 0, 0]", "[1, 1, 1]"), None), // the ends of the range
            (with(one, "[1, 1, 1]").replace("[0, 0, 0]", "[123.675, 116.28, 103.53]"), Some("123.675 / 255 = 0.485")),
            (with(one, "[1, 1, 1]").replace("[0, 0, 0]", "[0, 0, 127.5]"), Some("mean[2] is 127.5")),
            (with(one, "[1, 1, 1]").replace("[0, 0, 0]", "[-0.485, 0, 0]"), Some("mean[0] is -0.485; expected 0 to 1")),
            (with(one, "[1, 1]"), Some("invalid length 2")),
            (with(one, "[1, 1, 1e999]"), Some("out of range")),
            (String::new(), Some("not the description of a data set")),
            ("\u{89}PNG".into(), Some("not the description of a data set")),
            (with(one, r#"[1, 1, 1], "pad_multiple": 32"#), Some("unknown field `pad_multiple`")), // a key of weights, not of data sets
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.json");
        for (json, want) in cases {
            std::fs::write(&path, &json).unwrap();
            match (Dataset::load(&path), want) {
                (Ok(dataset), None) => assert_eq!(dataset.name, "mine"),
                (Err(error), Some(want)) => {
                    let text = error.to_string();
                    assert!(text.contains(want) && text.contains("mine.json"), "{json}: {text}");
                }
                (got, want) => panic!("{json}: {got:?}, wanted {want:?}"),
            }
        }
        let utf16: Vec<u8> = EXAMPLE.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for mark in [&b""[..], b"\xff\xfe"] {
            std::fs::write(&path, [mark, &utf16].concat()).unwrap();
            assert_eq!(Dataset::load(&path).unwrap().name, "mine");
        }
        std::fs::write(&path, b"\xff\xfe{").unwrap();
        assert!(Dataset::load(&path).unwrap_err().to_string().contains("is damaged UTF-16"));
        assert!(matches!(Dataset::load(folder.path().join("none.json")), Err(Error::Read { .. })));
    }
}
