//! The flags of `explain`.

use std::path::PathBuf;

use clap::ValueEnum;
use rtformer::Segmenter;

use super::super::misuse;
use super::super::model::{DeviceArgs, ModelArgs};
use super::super::photos::PhotoArgs;

/// One kind of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Emit {
    /// Every region with its rule and its counts, one file per photo
    Json,
    /// The photo with outlined, numbered regions, and their rules below it
    Png,
    /// A page for a browser: hover over a region to see its rule
    Html,
    /// For training: regions.csv with one row per region of all photos, atoms.json, and the superpixels
    Table,
}

impl Emit {
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Json => ".rules.json",
            Self::Png => ".rules.png",
            Self::Html => ".rules.html",
            Self::Table => "",
        }
    }
}

/// Explain the classes of regions with rules, and count how often the rules are right
///
/// A region is a connected part of the mask with one class, or a superpixel: a part of the photo with uniform colour. Its rule is a list
/// of up to four conditions that hold for it, chosen by a small network. `matches` training regions fulfil these conditions, and
/// `matches_of_class` of them are labelled as the rule's class. Both are counts. The class of the region itself and the network's
/// confidence are never conditions.
///
/// Example: rtformer explain photos -o out --class car
#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// Photos, and folders (searched recursively)
    #[arg(value_name = "PHOTO", required = true)]
    pub(super) photos: Vec<PathBuf>,

    /// Folder to write to; its subfolders mirror those of the named folders
    #[arg(short, long, value_name = "FOLDER")]
    pub(super) out: PathBuf,

    /// Outputs, separated by commas
    #[arg(long, value_name = "WHAT,…", value_delimiter = ',', default_value = "json,png,html")]
    pub(super) emit: Vec<Emit>,

    /// Report only regions of this class
    #[arg(long, value_name = "NAME")]
    pub(super) class: Option<String>,

    /// Report only the regions that contain this pixel
    #[arg(long, value_name = "X,Y", value_parser = place)]
    pub(super) at: Option<(u32, u32)>,

    /// Folder of label images, as for `rtformer eval`: writes suspicious.json, the regions whose rule contradicts their label, most
    /// suspicious first. With `--emit table`, adds the labels to the table
    #[arg(long, value_name = "FOLDER")]
    pub(super) labels: Option<PathBuf>,

    /// Also write a mask in which each region has the class of its rule
    #[arg(long)]
    pub(super) by_rules: bool,

    /// Replace outputs that exist
    #[arg(long)]
    pub(super) overwrite: bool,

    #[command(flatten)]
    pub(super) decoding: PhotoArgs,

    #[command(flatten)]
    pub(super) model: ModelArgs,
}

fn place(text: &str) -> Result<(u32, u32), String> {
    let place = text.split_once(',').and_then(|(x, y)| Some((x.trim().parse().ok()?, y.trim().parse().ok()?)));
    place.ok_or_else(|| format!("`{text}` is no pixel; expected X,Y such as 120,80, counted from the top left corner"))
}

impl Args {
    pub(in super::super) fn device(&self) -> &DeviceArgs {
        &self.model.device
    }

    pub(super) fn emits(&self, emit: Emit) -> bool {
        self.emit.contains(&emit)
    }

    /// Whether rules are needed, and not only the table.
    pub(super) fn explains(&self) -> bool {
        self.by_rules || self.emit.iter().any(|emit| *emit != Emit::Table)
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.emits(Emit::Table) && (self.class.is_some() || self.at.is_some()) {
            return Err(misuse("the table has all regions; omit --class and --at, or `table` in --emit"));
        }
        if self.model.classes_text().is_some() {
            return Err(misuse("rules are for the network's own classes; omit --classes and --merge"));
        }
        Ok(())
    }

    /// The id of the class that `--class` names.
    pub(super) fn class(&self, segmenter: &Segmenter) -> anyhow::Result<Option<u16>> {
        let Some(wanted) = &self.class else { return Ok(None) };
        let classes = &segmenter.dataset().classes;
        if let Some(id) = classes.iter().position(|class| class.name == *wanted) {
            return Ok(Some(id as u16));
        }
        let names: Vec<_> = classes.iter().map(|class| class.name.as_str()).collect();
        Err(misuse(format!("unknown class `{wanted}`: expected one of {}", names.join(", "))))
    }
}
