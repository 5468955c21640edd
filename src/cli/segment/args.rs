//! The flags of `segment`, and which of them can be combined.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rtformer::{Decision, Size, Tiling};

use super::super::misuse;
use super::super::model::{DeviceArgs, ModelArgs};
use super::super::photos::PhotoArgs;
use super::emit::{self, Emit};
use super::shard::Shard;

/// Segment photos and write their masks, overlays and other outputs
///
/// Example: rtformer segment photos -o out --emit mask,overlay,json
#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// Photos, folders (searched recursively), globs, list files (.txt or .lst), URLs, and `-` for standard input. A URL is an
    /// object or a prefix in an object store (s3://bucket/photos, gs://…, az://…), or a photo on a web server (https://…)
    #[arg(value_name = "INPUT", required_unless_present = "list")]
    pub(super) inputs: Vec<PathBuf>,

    /// List file with any name; can be repeated. Each line is a photo, or a photo and its label image, which is ignored. Relative paths
    /// start at the list's folder or the current folder
    #[arg(long, value_name = "FILE")]
    pub(super) list: Vec<PathBuf>,

    /// Folder or prefix in an object store (s3://bucket/out) to write to; its subfolders mirror those of the inputs. `-` writes one
    /// output of one photo to standard output
    #[arg(short, long, value_name = "FOLDER|URL|-", required_unless_present_any = ["dry_run", "json"])]
    pub(super) out: Option<PathBuf>,

    /// Outputs to write for each photo, separated by commas [default: mask,overlay; mask with `-o -`; none without --out]
    #[arg(long, value_name = "WHAT,…", value_delimiter = ',', requires = "out")]
    pub(super) emit: Vec<Emit>,

    /// Print one line with a JSON object per photo on standard output
    #[arg(long)]
    pub(super) json: bool,

    /// Write the names and colours of the classes that occur below the overlay
    #[arg(long)]
    pub(super) legend: bool,

    /// The classes of `--emit binary`, which are known once the weights are open
    #[arg(skip)]
    binaries: OnceLock<Vec<(&'static str, u16)>>,

    /// With `--emit polygons`, leave out corners that are at most this many pixels away from the line that remains; 0 keeps all, and the
    /// outlines then cover exactly the mask's pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 1.0, value_parser = tolerance)]
    pub(super) tolerance: f64,

    /// Opacity of the classes' colours in the overlay, 0 to 1
    #[arg(long, value_name = "ALPHA", default_value_t = 0.5, value_parser = fraction)]
    pub(super) alpha: f32,

    /// Set pixels whose class has a probability below P, 0 to 1, to the ignore id (255, or 65535 if there are more
    /// than 255 classes) [default: keep all]
    #[arg(long, value_name = "P", value_parser = fraction)]
    pub(super) reject_below: Option<f32>,

    /// Size in pixels at which the network sees a photo: native (the photo's size), WxH (exactly), or within:WxH (the largest that fits in
    /// either orientation, with the photo's proportions); masks keep the photo's size
    #[arg(long, value_name = "SIZE", default_value = "native")]
    pub(super) size: Size,

    /// Cut photos into overlapping tiles of at most W x H pixels and blend their logits, strip by strip, for photos of any size. Tiles see less of the
    /// photo than the whole, so masks change; measure it with `eval --tile`. Writes pictures only [default overlap: an eighth of the shorter side]
    #[arg(long, value_name = "WxH[+OVERLAP]", conflicts_with_all = ["memory", "adaptive", "batch", "legend", "json"])]
    pub(super) tile: Option<Tiling>,

    /// Use at most this much memory for a photo, such as 2GB: cuts photos that need more into the largest tiles that fit, as with --tile
    #[arg(long, value_name = "SIZE", value_parser = bytes, conflicts_with_all = ["adaptive", "batch", "legend", "json"])]
    pub(super) memory: Option<u64>,

    /// Compute less where the network is certain early, by the rule that `rtformer calibrate` stored in the weights for a risk of at most
    /// EPS, 0 to 1. On the CPU [default: the full network]
    #[arg(long, value_name = "EPS", value_parser = super::super::model::epsilon)]
    pub(super) adaptive: Option<f64>,

    /// Number of photos that go through the network together, if consecutive photos have the same size [default: 1 on CPUs, 8 on GPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) batch: Option<u16>,

    /// Skip photos whose outputs exist and were made from the same photo with the same weights and settings; replace other outputs of
    /// earlier runs, and remove temporary files of killed runs
    #[arg(long, conflicts_with = "overwrite", requires = "out")]
    pub(super) resume: bool,

    /// Replace outputs that exist. Without this flag or --resume, an existing output is an error
    #[arg(long)]
    pub(super) overwrite: bool,

    /// Maximum size of the photos that are downloaded ahead of the one in progress, such as 500kB, 64MB or 1GiB. At most 64 photos are
    /// downloaded at a time
    #[arg(long, value_name = "SIZE", default_value = "64MB", value_parser = bytes)]
    pub(super) prefetch: u64,

    /// Number of times that a request to an object store is repeated if it fails for a reason that may pass, such as a lost connection
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(..=100))]
    pub(super) retries: u16,

    /// Stop at the first photo that fails
    #[arg(long)]
    pub(super) fail_fast: bool,

    /// Process only the photos of shard I of N, for example 3/8 for the third of eight tasks. A photo's shard depends on its path in the
    /// named folder or list, and on nothing else, so tasks on several machines divide the same photos without gaps or overlaps
    #[arg(long, value_name = "I/N")]
    pub(super) shard: Option<Shard>,

    /// Print the photos and the outputs that would be written, one photo per line (with --json as JSON), and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,

    #[command(flatten)]
    pub(super) photos: PhotoArgs,

    #[command(flatten)]
    pub(super) model: ModelArgs,
}

fn fraction(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| format!("`{text}` is not a number; expected 0 to 1"))?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(format!("{value} is not between 0 and 1")) }
}

fn tolerance(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.0..=1000.0).contains(value));
    value.ok_or_else(|| format!("`{text}` is not a number of pixels from 0 to 1000"))
}

/// A number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("k", 10, 3), ("M", 10, 6), ("G", 10, 9), ("Ki", 2, 10), ("Mi", 2, 20), ("Gi", 2, 30), ("", 10, 0)];
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = unit.trim();
    let prefix = unit.strip_suffix(['B', 'b']).unwrap_or(unit);
    let unit = units.into_iter().find(|(name, ..)| name.eq_ignore_ascii_case(prefix));
    let bytes =
        number.parse::<u64>().ok().zip(unit).and_then(|(n, (_, base, power))| n.checked_mul(u64::pow(base, power)));
    bytes.ok_or_else(|| format!("`{text}` is not a size; expected a whole number of B, kB, MB, GB, KiB, MiB or GiB"))
}

/// How photos are cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cut {
    /// Into these.
    Tiles(Tiling),
    /// Into the largest that need at most this number of bytes.
    Within(u64),
}

impl Cut {
    /// As text, for records.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Tiles(tiling) => tiling.to_string(),
            Self::Within(bytes) => format!("within {bytes} bytes"),
        }
    }
}

impl Args {
    pub(in super::super) fn device(&self) -> &DeviceArgs {
        &self.model.device
    }

    /// Whether the output goes to standard output.
    pub(super) fn to_stdout(&self) -> bool {
        self.out.as_deref() == Some(Path::new("-"))
    }

    /// The folder to write to.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.out.as_deref().filter(|_| !self.to_stdout())
    }

    /// The outputs to write for each photo, each kind once. JSON comes last, because it reports the time for writing the others.
    pub(super) fn emits(&self) -> Vec<Emit> {
        let mut emits = match (&self.emit[..], &self.out) {
            ([], None) if self.json || !self.dry_run => Vec::new(),
            ([], _) if self.to_stdout() => vec![Emit::Mask],
            ([], _) => vec![Emit::Mask, Emit::Overlay],
            (some, _) => some.to_vec(),
        };
        if emits.contains(&Emit::Binary) {
            emits.retain(|emit| *emit != Emit::Binary);
            emits.extend(self.binaries().iter().map(|(slug, _)| Emit::BinaryOf(slug)));
        }
        if emits.contains(&Emit::Polygons) {
            emits.push(Emit::PolygonsCoco);
        }
        emits.sort();
        emits.dedup();
        emits
    }

    /// The classes of `--emit binary`: their names in file names, and their ids.
    pub(super) fn binaries(&self) -> &[(&'static str, u16)] {
        self.binaries.get().map_or(&[], Vec::as_slice)
    }

    /// Finds the classes of `--emit binary` in the weights. Must be called before [`emits`](Self::emits).
    pub(super) fn find_binaries(&self) -> anyhow::Result<()> {
        if self.emit.contains(&Emit::Binary) {
            let classes = self.model.kept_classes()?;
            let slugs = emit::slugs(classes.iter().map(|(_, name)| name.as_str()));
            self.binaries.get_or_init(|| slugs.into_iter().zip(classes).map(|(slug, (id, _))| (slug, id)).collect());
        }
        Ok(())
    }

    /// How photos are cut into tiles.
    pub(super) fn cut(&self) -> Option<Cut> {
        self.tile.map(Cut::Tiles).or(self.memory.map(Cut::Within))
    }

    /// Rejects outputs that are not written in strips.
    fn check_cut(&self) -> anyhow::Result<()> {
        let Some(cut) = self.cut() else { return Ok(()) };
        let flag = if matches!(cut, Cut::Tiles(_)) { "--tile" } else { "--memory" };
        if self.size != Size::Native {
            return Err(misuse(format!("{flag} cuts photos at their own size; omit --size")));
        }
        if self.model.decide != Decision::Argmax {
            return Err(misuse(format!(
                "{flag} decides strip by strip, and --decide for the whole photo; omit one of them"
            )));
        }
        match self.emits().into_iter().find(|emit| !emit.is_picture()) {
            Some(emit) => Err(misuse(format!(
                "{flag} writes pictures only (mask, overlay, labelid, binary, confidence), row by row; leave out `{}`",
                emit.name()
            ))),
            None => Ok(()),
        }
    }

    /// Rejects flags that contradict `-o -`, and `--legend` without an overlay.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.check_cut()?;
        if self.legend && !self.emits().contains(&Emit::Overlay) {
            return Err(misuse("--legend is written below overlays, and none is written; add `overlay` to --emit"));
        }
        if !self.to_stdout() {
            return Ok(());
        }
        let conflicts = [
            (self.emits().len() > 1, "writes one output; choose one with --emit"),
            (self.json, "and --json both write to standard output"),
            (self.dry_run, "and --dry-run both write to standard output"),
            (self.resume, "writes no file, so --resume has nothing to keep"),
            (self.overwrite, "writes no file, so --overwrite has nothing to replace"),
            (self.shard.is_some(), "writes the output of one photo, which --shard cannot divide"),
        ];
        match conflicts.into_iter().find(|(conflict, _)| *conflict) {
            Some((_, reason)) => Err(misuse(format!("-o - {reason}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let cases = [
            ("0", Some(0)),
            ("17", Some(17)),
            ("500kB", Some(500_000)),
            ("64MB", Some(64_000_000)),
            ("64 mb", Some(64_000_000)),
            ("1GiB", Some(1 << 30)),
            ("2Mi", Some(2 << 20)),
            ("", None),
            ("MB", None),
            ("-1MB", None),
            ("1.5MB", None),
            ("1TB", None),
            ("99999999999GB", None),
        ];
        for (text, want) in cases {
            assert_eq!(bytes(text).ok(), want, "{text:?}");
        }
    }
}
