//! The report on a photo: one JSON object, for standard output and for the `.json` file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rtformer::{ClassShare, Scene, Timings};
use serde::Serialize;

use super::record::Record;

pub(super) use super::super::lines::Lines;

/// A segmented photo.
#[derive(Debug, Serialize)]
struct Report<'a> {
    path: &'a str,
    /// Width and height.
    size: [u32; 2],
    /// The classes that occur, largest share first.
    classes: Vec<ClassShare>,
    /// The share of pixels that belong to no class, for `--reject-below`.
    rejected: f64,
    mean_confidence: Option<f64>,
    /// The share of the full network's multiplications.
    compute_share: f64,
    timings: Milliseconds,
    /// The mask's digest; see [`rtformer::pixels::Mask::digest`].
    digest: String,
    /// The paths of the outputs, by their names in `--emit`.
    outputs: BTreeMap<&'a str, String>,
    /// What the outputs were made from.
    source: &'a Record,
}

#[derive(Debug, Serialize)]
struct Milliseconds {
    #[serde(flatten)]
    stages: Timings,
    encode_ms: f64,
}

/// A photo that would be segmented, for `--dry-run`.
#[derive(Debug, Serialize)]
struct Plan<'a> {
    path: &'a str,
    outputs: BTreeMap<&'a str, String>,
}

/// A photo that could not be segmented.
#[derive(Debug, Serialize)]
struct Failure<'a> {
    path: &'a str,
    error: &'a str,
}

/// The JSON line of a segmented photo, without a line break.
pub(super) fn scene(
    path: &Path,
    scene: &Scene,
    read_ms: f64,
    encode_ms: f64,
    outputs: &[(String, PathBuf)],
    source: &Record,
) -> String {
    let classes = scene.classes();
    let mut stages = scene.timings();
    stages.decode += read_ms;
    line(&Report {
        path: &path.to_string_lossy(),
        size: [scene.mask().width(), scene.mask().height()],
        rejected: (1.0 - classes.iter().map(|class| class.share).sum::<f64>()).max(0.0),
        classes,
        mean_confidence: scene.mean_confidence(),
        compute_share: scene.compute_share(),
        timings: Milliseconds { stages, encode_ms },
        digest: scene.mask().digest(),
        outputs: named(outputs),
        source,
    })
}

fn named(outputs: &[(String, PathBuf)]) -> BTreeMap<&str, String> {
    outputs.iter().map(|(name, path)| (name.as_str(), path.to_string_lossy().into_owned())).collect()
}

/// The JSON line of a photo that would be segmented.
pub(super) fn plan(path: &Path, outputs: &[(String, PathBuf)]) -> String {
    line(&Plan { path: &path.to_string_lossy(), outputs: named(outputs) })
}

/// The JSON line of a photo that failed, so that a program that reads the lines gets one for every photo.
pub(super) fn failure(path: &Path, error: &str) -> String {
    line(&Failure { path: &path.to_string_lossy(), error })
}

fn line(value: &impl Serialize) -> String {
    // Strings, numbers and lists can always be serialised; a NaN becomes null.
    serde_json::to_string(value).unwrap_or_default()
}
