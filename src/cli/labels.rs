//! The flags that say how labels are read, and the photos that they belong to.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use rtformer::Error;
use rtformer::eval::{LabelFormat, LabelKind, Pair, Pairs, find_labels, find_pairs, find_photos};

use super::{list, misuse};

/// The flags of the commands that read labels.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LabelArgs {
    /// Content of the labels: auto (decided for each file), index (grey values or palette indices, whose meaning follows from the file
    /// name), color (the classes' colours), train-id or label-id (ids, regardless of the file name)
    #[arg(long, value_name = "KIND", default_value = "auto", value_parser = kinds())]
    label_kind: LabelKind,

    /// Id of the first class in the labels, such as 1 for labels that count from one; lower ids are ignored [default: 0, or what
    /// the file name implies]
    #[arg(long, value_name = "N")]
    first_id: Option<u16>,

    /// Ignore pixels with this id, as stored in the label file; can be repeated. 255 is always ignored unless it is a class [default:
    /// no other id]
    #[arg(long, value_name = "N")]
    ignore_id: Vec<u16>,

    /// Ending of the label files' names: the labels of SUB/P.jpg are SUB/P followed by this, such as _gt.png (".png" may be omitted)
    /// [default: .png,
    /// _L.png or .mask.png, and Cityscapes' names]
    #[arg(long, value_name = "SUFFIX", allow_hyphen_values = true)]
    pub(super) label_suffix: Option<String>,
}

fn kinds() -> impl TypedValueParser<Value = LabelKind> {
    PossibleValuesParser::new(LabelKind::NAMES).try_map(|name| name.parse::<LabelKind>())
}

impl LabelArgs {
    /// The content of the labels.
    pub(super) fn checked(&self) -> anyhow::Result<LabelFormat> {
        let format = LabelFormat { kind: self.label_kind, first_id: self.first_id, ignore_ids: self.ignore_id.clone() };
        format.check().map_err(|error| misuse(error.to_string()))?;
        Ok(format)
    }

    /// The photos and their labels: from the folders `images` and `labels`, or from a list file, which is `list` or `images`.
    pub(super) fn pairs(&self, images: &Path, list: Option<&Path>, labels: Option<&Path>) -> anyhow::Result<Pairs> {
        let suffix = self.label_suffix.as_deref();
        let Some(file) = list.or(is_list(images).then_some(images)) else {
            let labels =
                labels.ok_or_else(|| misuse("--labels is missing; use it to name the folder of the label images"))?;
            return Ok(find_pairs(images, labels, suffix)?);
        };
        let entries = entries(file)?;
        let (with, without): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.label.is_some());
        let mut found = Pairs { pairs: Vec::new(), failed: Vec::new() };
        match labels {
            Some(labels) if !without.is_empty() => {
                found = find_labels(without.iter().map(|entry| &entry.photo), labels, suffix)?;
            }
            _ => found.failed.extend(without.iter().map(|entry| {
                let reason = format!(
                    "line {} names {} without a label; add the label's path to the line, or name the folder of the labels with \
                     --labels",
                    entry.line,
                    entry.photo.display()
                );
                Error::image(file, reason)
            })),
        }
        found.pairs.extend(
            with.into_iter().filter_map(|list::Entry { photo, label, .. }| Some(Pair { photo, label: label? })),
        );
        Ok(found)
    }
}

/// The photos of a folder or of a list file, and an error for each folder that could not be read.
pub(super) fn photos(images: &Path) -> anyhow::Result<(Vec<PathBuf>, Vec<Error>)> {
    if is_list(images) {
        return Ok((entries(images)?.into_iter().map(|entry| entry.photo).collect(), Vec::new()));
    }
    Ok(find_photos(images)?)
}

fn is_list(path: &Path) -> bool {
    list::has_list_extension(path) && !path.is_dir()
}

fn entries(file: &Path) -> anyhow::Result<Vec<list::Entry>> {
    let entries = list::read(file).map_err(|reason| anyhow!("{}: {reason}", file.display()))?;
    if entries.is_empty() {
        bail!("{}: lists no photos; expected at least one line with the path of a photo", file.display());
    }
    Ok(entries)
}
