//! The flags of `segment`, and which of them can be combined.

use std::path::{Path, PathBuf};

use rtformer::Size;

use super::super::misuse;
use super::super::model::{DeviceArgs, ModelArgs};
use super::super::photos::PhotoArgs;
use super::emit::Emit;

/// Segment photos: write masks, overlays and more
#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// Photos, folders (searched recursively), globs, list files (.txt or .lst), and `-` for standard input
    #[arg(value_name = "INPUT", required_unless_present = "list")]
    pub(super) inputs: Vec<PathBuf>,

    /// A list file with any name: one photo per line, or a photo and its labels, which are ignored; relative paths start at the
    /// list's folder or the current folder
    #[arg(long, value_name = "FILE")]
    pub(super) list: Vec<PathBuf>,

    /// The folder to write to; it mirrors the input folders. `-` writes one output of one photo to standard output
    #[arg(short, long, value_name = "FOLDER|-", required_unless_present_any = ["dry_run", "json"])]
    pub(super) out: Option<PathBuf>,

    /// What to write of each photo [default: mask,overlay; mask with `-o -`; nothing without --out]
    #[arg(long, value_name = "WHAT,…", value_delimiter = ',', requires = "out")]
    pub(super) emit: Vec<Emit>,

    /// Print one JSON object a photo on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// How strongly the overlay shows the classes' colours, 0 to 1
    #[arg(long, value_name = "ALPHA", default_value_t = 0.5, value_parser = fraction)]
    pub(super) alpha: f32,

    /// Pixels whose class is less probable than this become the ignore id
    #[arg(long, value_name = "P", value_parser = fraction)]
    pub(super) reject_below: Option<f32>,

    /// The size at which the network sees a photo: native, WxH, or within:WxH (masks keep the photo's size)
    #[arg(long, value_name = "SIZE", default_value = "native")]
    pub(super) size: Size,

    /// Photos that are given to the network together, where neighbours have one size: 1 on CPUs, 8 on GPUs unless said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) batch: Option<u16>,

    /// Skip photos whose outputs exist and were made from the same photo with the same weights and settings; replace other outputs of
    /// earlier runs, and remove what killed runs left
    #[arg(long, conflicts_with = "overwrite", requires = "out")]
    pub(super) resume: bool,

    /// Replace outputs that are there
    #[arg(long)]
    pub(super) overwrite: bool,

    /// Stop at the first photo that fails
    #[arg(long)]
    pub(super) fail_fast: bool,

    /// Print what would be written, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,

    #[command(flatten)]
    pub(super) photos: PhotoArgs,

    #[command(flatten)]
    pub(super) model: ModelArgs,
}

fn fraction(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(format!("{value} is not between 0 and 1")) }
}

impl Args {
    pub(in super::super) fn device(&self) -> &DeviceArgs {
        &self.model.device
    }

    /// Whether the one output goes to standard output.
    pub(super) fn to_stdout(&self) -> bool {
        self.out.as_deref() == Some(Path::new("-"))
    }

    /// The folder to write to.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.out.as_deref().filter(|_| !self.to_stdout())
    }

    /// What to write of each photo, each kind once. JSON comes last, since it reports how long writing the others took.
    pub(super) fn emits(&self) -> Vec<Emit> {
        let mut emits = match (&self.emit[..], &self.out) {
            ([], None) if !self.dry_run => Vec::new(),
            ([], _) if self.to_stdout() => vec![Emit::Mask],
            ([], _) => vec![Emit::Mask, Emit::Overlay],
            (some, _) => some.to_vec(),
        };
        emits.sort();
        emits.dedup();
        emits
    }

    /// Rejects flags that contradict `-o -`.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if !self.to_stdout() {
            return Ok(());
        }
        let conflicts = [
            (self.emits().len() > 1, "writes one output; select one with --emit"),
            (self.json, "and --json both write to standard output"),
            (self.dry_run, "and --dry-run both write to standard output"),
            (self.resume, "writes no file that --resume could keep"),
            (self.overwrite, "writes no file that --overwrite could replace"),
        ];
        match conflicts.into_iter().find(|(conflict, _)| *conflict) {
            Some((_, reason)) => Err(misuse(format!("-o - {reason}"))),
            None => Ok(()),
        }
    }
}
