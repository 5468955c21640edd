//! Matches photos with their label images.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::error::{Error, Result};
use crate::pixels::Image;

const LAYOUTS: &str = "the labels of a photo `P.jpg` are `P.png`, `P_L.png` (CamVid) or `P.mask.png` in the same subfolder, those of \
                       `X_leftImg8bit.png` (Cityscapes) are `X_gtFine_labelTrainIds.png` or `X_gtFine_labelIds.png`; set the \
                       label suffix for other names";

/// A photo and its labels.
///
/// ```
/// use rtformer::eval::Pair;
///
/// let pair = Pair { photo: "val/street.jpg".into(), label: "val_labels/street.png".into() };
/// assert_eq!(pair.photo.file_stem(), pair.label.file_stem());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The photo.
    pub photo: PathBuf,
    /// The label image, for [`LabelImage::open`](super::LabelImage::open).
    pub label: PathBuf,
}

/// The result of [`find_pairs`] or [`find_labels`].
///
/// ```
/// use rtformer::eval::{Pairs, find_pairs};
///
/// # let root = tempfile::tempdir().unwrap();
/// # let (images, labels) = (root.path().join("val"), root.path().join("val_labels"));
/// # for folder in [&images, &labels] { std::fs::create_dir(folder).unwrap(); }
/// # for photo in ["street.jpg", "lone.jpg"] { std::fs::write(images.join(photo), "").unwrap(); }
/// # std::fs::write(labels.join("street.png"), "").unwrap();
/// let Pairs { pairs, failed } = find_pairs(&images, &labels, None)?;
/// assert_eq!((pairs.len(), failed.len()), (1, 1));
/// assert!(failed[0].to_string().contains("lone.jpg: has no labels"));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Debug)]
pub struct Pairs {
    /// The pairs. [`find_pairs`] sorts them by the photos' paths and returns at least one.
    pub pairs: Vec<Pair>,
    /// An [`Error::Image`] for each photo without labels, and an [`Error::Read`] for each folder that could not be read.
    pub failed: Vec<Error>,
}

/// Finds photos and their label images under two folders, which may be the same.
///
/// The labels of a photo at `SUB/P.jpg` under `images` are the first of `SUB/P.png`, `SUB/P_L.png` and `SUB/P.mask.png` under `labels`
/// that exists. Those of `X_leftImg8bit.png` are `X_gtFine_labelTrainIds.png` or else `X_gtFine_labelIds.png`, in the same subfolder
/// or, if only one file has that name, in any subfolder. Hidden files are skipped.
///
/// With a `suffix`, the only label name is `SUB/P` followed by the suffix, or also `X` followed by it for `X_leftImg8bit.png`. Both
/// `_gt.png` and `_gt` find `SUB/P_gt.png`.
///
/// ```
/// # let root = tempfile::tempdir().unwrap();
/// # let (images, labels) = (root.path().join("val"), root.path().join("val_labels"));
/// # for folder in [&images, &labels] { std::fs::create_dir(folder).unwrap(); }
/// # std::fs::write(images.join("street.jpg"), "").unwrap();
/// # std::fs::write(labels.join("street.png"), "").unwrap();
/// let found = rtformer::eval::find_pairs(&images, &labels, None)?;
/// assert_eq!(found.pairs[0].photo, images.join("street.jpg"));
/// assert_eq!(found.pairs[0].label, labels.join("street.png"));
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Read`] if one of the folders cannot be read; [`Error::Input`] if there is no pair, or if the suffix has the extension of an
/// image format other than PNG.
pub fn find_pairs(images: impl AsRef<Path>, labels: impl AsRef<Path>, suffix: Option<&str>) -> Result<Pairs> {
    let (images, labels) = (images.as_ref(), labels.as_ref());
    let suffix = suffix.map(without_png).transpose()?;
    let mut failed = Vec::new();
    let photos = files(images, labels, &Image::EXTENSIONS, &mut failed)?;
    let candidates = Candidates::new(files(labels, images, &["png"], &mut failed)?, labels);
    let shared = real(images) == real(labels);

    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    for photo in photos.iter().filter(|photo| !is_ground_truth(photo)) {
        let place = photo.strip_prefix(images).unwrap_or(photo);
        // If photos and labels share a folder, a photo is not its own label.
        let own = |label: &PathBuf| shared && label.strip_prefix(labels).is_ok_and(|there| there == place);
        match candidates.of(place, suffix, own) {
            Some(label) => pairs.push(Pair { photo: photo.clone(), label }),
            None => alone.push(photo),
        }
    }
    let taken: HashSet<_> = pairs.iter().filter(|_| shared).map(|pair| real(&pair.label)).collect();
    alone.retain(|photo| !shared || !taken.contains(&real(photo)));

    if pairs.is_empty() {
        let (count, images, labels) = (alone.len(), images.display(), labels.display());
        return Err(Error::Input(format!(
            "none of {count} photos in {images} has labels in {labels}: {}",
            layouts(suffix)
        )));
    }
    failed.extend(alone.into_iter().map(|photo| no_labels(photo, labels, suffix)));
    Ok(Pairs { pairs, failed })
}

/// The photos under a folder, sorted by their paths, and an [`Error::Read`] for each folder that could not be read. Hidden files are skipped.
///
/// ```
/// # let root = tempfile::tempdir().unwrap();
/// # std::fs::write(root.path().join("street.jpg"), "").unwrap();
/// let (photos, failed) = rtformer::eval::find_photos(root.path())?;
/// assert_eq!((photos, failed.len()), (vec![root.path().join("street.jpg")], 0));
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Read`] if the folder cannot be read; [`Error::Input`] if it has no photos.
pub fn find_photos(images: impl AsRef<Path>) -> Result<(Vec<PathBuf>, Vec<Error>)> {
    let images = images.as_ref();
    let mut failed = Vec::new();
    let mut photos = files(images, images, &Image::EXTENSIONS, &mut failed)?;
    photos.retain(|photo| !is_ground_truth(photo));
    if photos.is_empty() {
        let (images, endings) = (images.display(), Image::EXTENSIONS.join(", "));
        return Err(Error::Input(format!("{images}: found no photos; expected files that end in {endings}")));
    }
    Ok((photos, failed))
}

/// Finds the label images of some photos in a folder.
///
/// As [`find_pairs`], except that a photo's path need not begin at any given folder: the labels of `A/SUB/P.jpg` are at `A/SUB/P.png`,
/// else `SUB/P.png`, else `P.png` under `labels`, and so on for the other names. The pairs keep the photos' order; there may be none.
///
/// ```
/// # let root = tempfile::tempdir().unwrap();
/// # let labels = root.path().join("labels");
/// # std::fs::create_dir_all(labels.join("ulm")).unwrap();
/// # std::fs::write(labels.join("ulm/street.png"), "").unwrap();
/// let found = rtformer::eval::find_labels(["photos/ulm/street.jpg", "lone.jpg"], &labels, None)?;
/// assert_eq!(found.pairs[0].label, labels.join("ulm/street.png"));
/// assert!(found.failed[0].to_string().starts_with("lone.jpg: has no labels"));
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Read`] if the folder cannot be read; [`Error::Input`] if the suffix has the extension of an image format other than PNG.
pub fn find_labels<P: AsRef<Path>>(
    photos: impl IntoIterator<Item = P>,
    labels: impl AsRef<Path>,
    suffix: Option<&str>,
) -> Result<Pairs> {
    let labels = labels.as_ref();
    let suffix = suffix.map(without_png).transpose()?;
    let mut found = Pairs { pairs: Vec::new(), failed: Vec::new() };
    let candidates = Candidates::new(files(labels, labels, &["png"], &mut found.failed)?, labels);
    for photo in photos {
        let photo = photo.as_ref();
        let own = |label: &PathBuf| real(label) == real(photo);
        let parts: Vec<_> = photo.components().collect();
        let places = (0..parts.len()).map(|from| parts[from..].iter().collect::<PathBuf>());
        match places.into_iter().find_map(|place| candidates.of(&place, suffix, own)) {
            Some(label) => found.pairs.push(Pair { photo: photo.to_path_buf(), label }),
            None => found.failed.push(no_labels(photo, labels, suffix)),
        }
    }
    Ok(found)
}

fn no_labels(photo: &Path, labels: &Path, suffix: Option<&str>) -> Error {
    Error::image(photo, format!("has no labels in {}: {}", labels.display(), layouts(suffix)))
}

/// Describes where labels are searched for.
fn layouts(suffix: Option<&str>) -> String {
    suffix.map_or_else(
        || LAYOUTS.into(),
        |suffix| format!("the labels of a photo `P.jpg` are `P{suffix}.png` in the same subfolder"),
    )
}

/// The suffix without the file extension.
fn without_png(suffix: &str) -> Result<&str> {
    let Some((stem, extension)) = suffix.rsplit_once('.') else { return Ok(suffix) };
    match extension.to_ascii_lowercase().as_str() {
        "png" => Ok(stem),
        other if Image::EXTENSIONS.contains(&other) => Err(Error::Input(format!(
            "invalid label suffix `{suffix}`: label images are PNG files, so expected the extension `.png` or none"
        ))),
        _ => Ok(suffix),
    }
}

/// The label images, by the parts of their paths that follow from a photo's path.
struct Candidates {
    /// By the path relative to the folder, without extension.
    by_place: HashMap<PathBuf, PathBuf>,
    /// By the file name without extension; `None` if several files have that name.
    by_name: HashMap<OsString, Option<PathBuf>>,
}

impl Candidates {
    fn new(files: Vec<PathBuf>, folder: &Path) -> Self {
        let (mut by_place, mut by_name) = (HashMap::new(), HashMap::new());
        for file in files {
            let name = file.file_stem().unwrap_or_default().to_os_string();
            by_name.entry(name).and_modify(|only| *only = None).or_insert(Some(file.clone()));
            let place = file.strip_prefix(folder).unwrap_or(&file).with_extension("");
            by_place.entry(place).or_insert(file);
        }
        Self { by_place, by_name }
    }

    /// The labels of the photo at this relative path.
    fn of(&self, place: &Path, suffix: Option<&str>, own: impl Fn(&PathBuf) -> bool) -> Option<PathBuf> {
        let stem = place.file_stem().unwrap_or_default();
        let beside = |name: &OsStr| self.by_place.get(&place.with_file_name(name)).filter(|label| !own(label));
        let with = |name: &OsStr, ending: &str| {
            let mut name = name.to_os_string();
            name.push(ending);
            beside(&name)
        };
        let cityscapes = stem.to_str().and_then(|stem| stem.strip_suffix("_leftImg8bit"));
        if let Some(suffix) = suffix {
            let base = || cityscapes.and_then(|base| with(OsStr::new(base), suffix));
            return with(stem, suffix).or_else(base).cloned();
        }
        if let Some(base) = cityscapes {
            for kind in ["labelTrainIds", "labelIds"] {
                let name = OsString::from(format!("{base}_gtFine_{kind}"));
                let anywhere = || self.by_name.get(&name).and_then(Option::as_ref);
                if let Some(label) = beside(&name).or_else(anywhere) {
                    return Some(label.clone());
                }
            }
        }
        ["", "_L", ".mask"].iter().find_map(|ending| with(stem, ending)).cloned()
    }
}

/// Whether the file is one of Cityscapes' own label images (such as coloured polygons and instances). These are never photos, in any folder.
fn is_ground_truth(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    ["_gtFine_", "_gtCoarse_"].iter().any(|mark| stem.contains(mark))
}

/// The files with these extensions under `folder`, sorted. If `other` is inside `folder`, the files under `other` are left out.
fn files(folder: &Path, other: &Path, extensions: &[&str], failed: &mut Vec<Error>) -> Result<Vec<PathBuf>> {
    std::fs::read_dir(folder).map_err(Error::reading(folder))?;
    let (root, other) = (real(folder), real(other));
    let wanted = |entry: &DirEntry| {
        let hidden = entry.depth() > 0 && entry.file_name().to_string_lossy().starts_with('.');
        let inner = entry.depth() > 0 && entry.path().is_dir() && other != root && real(entry.path()) == other;
        !hidden && !inner
    };
    let mut found = Vec::new();
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter().filter_entry(wanted) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => {
                let extension = entry.path().extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
                if extensions.contains(&extension.as_str()) {
                    found.push(entry.into_path());
                }
            }
            Ok(_) => {}
            Err(error) => {
                let path = error.path().unwrap_or(folder).to_path_buf();
                failed.push(Error::reading(path)(error.into()));
            }
        }
    }
    Ok(found)
}

/// The path with links resolved, or the path itself if it cannot be resolved.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests;
