//! Where results go, what they show, and their names.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// The end of the names of masks.
const SUFFIX: &str = ".mask.png";

/// What a video shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum View {
    /// The frame, tinted with its classes' colours
    Overlay,
    /// The classes' colours
    Mask,
    /// The frame and the overlay
    SideBySide,
}

/// Where the results go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// JSON lines only.
    None,
    /// y4m on standard output.
    Stdout,
    /// A y4m file.
    Y4m(&'a Path),
    /// A video file, by FFmpeg.
    Video(&'a Path),
    /// A folder of masks.
    Folder(&'a Path),
}

/// The file of a frame's mask.
pub(super) fn mask_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}{SUFFIX}"))
}

/// A mask in a folder, if there is one.
pub(super) fn first_mask(folder: &Path) -> Option<PathBuf> {
    let mut paths = fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    paths.find(|path| path.to_string_lossy().ends_with(SUFFIX))
}
