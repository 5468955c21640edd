//! Reading and writing the metadata of a weights file.
//!
//! Each value is a string; the list of keys is in [`super`].

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::dataset::{Class, Dataset};
use super::store::Weights;
use crate::error::Result;

/// The value of `format`. A new version of the format gets the next number.
const FORMAT: &str = "rtformer-1";
/// The value of `model`: the family of networks that this version supports. A file without the key is of this family.
pub(crate) const MODEL: &str = "rtformer";
/// The key of the divisor of the logits before the softmax.
pub(super) const TEMPERATURE: &str = "temperature";
/// The key of the multiple to which photos are padded.
pub(super) const PAD_MULTIPLE: &str = "pad_multiple";
/// The key of the explainer's description, a JSON object that `explain` reads.
pub(crate) const EXPLAINER: &str = "explainer";
/// The keys of colours in label images. A file has both or neither.
const FURTHER_COLORS: &str = "further_colors";
const IGNORE_COLORS: &str = "ignore_colors";

/// The keys that describe the network and the data set. Converting a checkpoint replaces them.
pub(super) const KEYS: [&str; 13] = [
    "format",
    "model",
    "config",
    "classes",
    "palette",
    "label_ids",
    FURTHER_COLORS,
    IGNORE_COLORS,
    "mean",
    "std",
    "dataset",
    "source",
    "license",
];

/// The metadata that [`save`](super::save) writes. `kept` has the other entries of the tensors' original file.
pub(super) fn written(
    kept: &BTreeMap<String, String>,
    dataset: &Dataset,
    config_json: &str,
    temperature: Option<f32>,
    pad_multiple: Option<u32>,
) -> BTreeMap<String, String> {
    let classes = &dataset.classes;
    let mut metadata = kept.clone();
    let mut say = |key: &str, value: String| drop(metadata.insert(key.to_owned(), value));
    say("format", FORMAT.to_owned());
    say("model", MODEL.to_owned());
    say("config", config_json.to_owned());
    say("classes", json(&classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>()));
    say("palette", json(&classes.iter().map(|class| class.color).collect::<Vec<_>>()));
    say("mean", json(&dataset.mean));
    say("std", json(&dataset.std));
    say("dataset", dataset.name.clone());
    say("source", dataset.source.clone());
    say("license", dataset.license.clone());
    if classes.iter().any(|class| class.label_id.is_some()) {
        say("label_ids", json(&classes.iter().map(|class| class.label_id).collect::<Vec<_>>()));
    }
    if !dataset.ignore_colors.is_empty() || classes.iter().any(|class| !class.colors.is_empty()) {
        say(FURTHER_COLORS, json(&classes.iter().map(|class| &class.colors).collect::<Vec<_>>()));
        say(IGNORE_COLORS, json(&dataset.ignore_colors));
    }
    if let Some(temperature) = temperature {
        say(TEMPERATURE, temperature.to_string());
    }
    if let Some(multiple) = pad_multiple {
        say(PAD_MULTIPLE, multiple.to_string());
    }
    metadata
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("text and numbers always serialise")
}

impl Weights {
    /// Checks that the metadata name no other family of networks.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) with the family's name.
    pub(crate) fn check_model(&self) -> Result<()> {
        let Some(model) = self.metadata("model").filter(|model| *model != MODEL) else { return Ok(()) };
        let model: String = model.chars().take(40).flat_map(char::escape_debug).collect();
        Err(self.broken(format!("holds the model `{model}`; this version runs `{MODEL}` only")))
    }

    /// The data set that the metadata describes.
    ///
    /// ```
    /// let dataset = rtformer::Segmenter::embedded_weights()?.dataset()?;
    /// assert_eq!((dataset.name.as_str(), dataset.classes.len()), ("camvid", 11));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if a key is missing or malformed, or if the format is newer.
    pub fn dataset(&self) -> Result<Dataset> {
        if let Some(format) = self.metadata("format")
            && format.starts_with("rtformer-")
            && format != FORMAT
        {
            return Err(self.broken(format!(
                "has format `{}`, but this program reads `{FORMAT}`; use a newer rtformer",
                format.escape_debug()
            )));
        }
        let names: Vec<String> = self.json("classes")?;
        let colors: Vec<[u8; 3]> = self.json("palette")?;
        let label_ids: Vec<Option<u16>> = match self.metadata("label_ids") {
            Some(_) => self.json("label_ids")?,
            None => vec![None; names.len()],
        };
        if colors.len() != names.len() || label_ids.len() != names.len() {
            let counts = format!(
                "{} classes, {} colours in `palette` and {} `label_ids`",
                names.len(),
                colors.len(),
                label_ids.len()
            );
            return Err(self.broken(format!("its metadata has {counts}; expected equal numbers")));
        }
        let listed = self.metadata(FURTHER_COLORS).is_some();
        let further = if listed { self.json(FURTHER_COLORS)? } else { vec![Vec::new(); names.len()] };
        if further.len() != names.len() {
            let (lists, classes) = (further.len(), names.len());
            return Err(self.broken(format!("its metadata has {lists} `{FURTHER_COLORS}` for {classes} classes")));
        }
        let classes = names.into_iter().zip(colors).zip(label_ids).zip(further);
        let text = |key| self.metadata(key).unwrap_or("unknown").to_owned();
        let dataset = Dataset {
            name: text("dataset"),
            classes: classes
                .map(|(((name, color), label_id), colors)| Class { name, color, label_id, colors })
                .collect(),
            mean: self.json("mean")?,
            std: self.json("std")?,
            ignore_colors: if listed { self.json(IGNORE_COLORS)? } else { Vec::new() },
            source: text("source"),
            license: text("license"),
        };
        let dataset = if listed { dataset } else { dataset.with_known_colors() };
        dataset.check().map_err(|reason| self.broken(format!("its metadata is invalid: {reason}")))?;
        Ok(dataset)
    }

    fn json<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let Some(text) = self.metadata(key) else {
            return Err(
                self.broken(format!("has no `{key}` in its metadata; use a file that `rtformer convert` wrote"))
            );
        };
        serde_json::from_str(text)
            .map_err(|e| self.broken(format!("`{key}` in its metadata is invalid: {e}; convert it again")))
    }

    /// The divisor of the logits before the softmax that gives the confidence; 1 if the metadata do not name it.
    ///
    /// ```
    /// let weights = rtformer::weights::Weights::open("tests/data/golden/tiny.safetensors")?;
    /// assert_eq!(weights.temperature()?, 1.0);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if the metadata contain something other than a number above zero.
    pub fn temperature(&self) -> Result<f32> {
        Ok(self.named_temperature()?.unwrap_or(1.0))
    }

    /// The temperature, or `None` if the metadata do not name it.
    pub(super) fn named_temperature(&self) -> Result<Option<f32>> {
        let Some(text) = self.metadata(TEMPERATURE) else { return Ok(None) };
        let temperature = text.parse().map_err(|_| format!("`{}` is not a number", text.escape_debug()));
        let checked = temperature.and_then(|temperature| check_temperature(temperature).map(|()| temperature));
        checked.map(Some).map_err(|reason| self.broken(format!("`{TEMPERATURE}` in its metadata is invalid: {reason}")))
    }

    /// The multiple to which width and height are padded before the network runs. `None` if the metadata do not name it, as for
    /// `PaddleSeg`'s checkpoints, whose photos are not padded.
    ///
    /// ```
    /// let weights = rtformer::weights::Weights::open("tests/data/golden/tiny.safetensors")?;
    /// assert_eq!(weights.pad_multiple()?, None);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if the metadata contain something other than a whole number from 1 to 256.
    pub fn pad_multiple(&self) -> Result<Option<u32>> {
        let Some(text) = self.metadata(PAD_MULTIPLE) else { return Ok(None) };
        let multiple = text.parse().map_err(|_| format!("`{}` is not a whole number", text.escape_debug()));
        let checked = multiple.and_then(|multiple| check_pad_multiple(multiple).map(|()| multiple));
        checked
            .map(Some)
            .map_err(|reason| self.broken(format!("`{PAD_MULTIPLE}` in its metadata is invalid: {reason}")))
    }
}

/// Checks that a softmax can be computed at this temperature.
///
/// # Errors
///
/// A description of the valid temperatures.
pub fn check_temperature(temperature: f32) -> Result<(), String> {
    if temperature.is_finite() && temperature > 0.0 {
        return Ok(());
    }
    Err(format!("a temperature of {temperature}; expected a number above zero, usually 0.5 to 3"))
}

/// Checks a multiple to which photos are padded.
///
/// # Errors
///
/// A description of the valid multiples.
pub fn check_pad_multiple(multiple: u32) -> Result<(), String> {
    if (1..=256).contains(&multiple) {
        return Ok(());
    }
    Err(format!("a multiple of {multiple}; expected 1 to 256, usually 32"))
}
