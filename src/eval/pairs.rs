//! Which label image belongs to which photo.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::error::{Error, Result};
use crate::pixels::Image;

const LAYOUTS: &str = "for a photo `P.jpg` labels are looked for as `P.png` or `P_L.png` (CamVid) in the same subfolder, and for \
                       `X_leftImg8bit.png` (Cityscapes) as `X_gtFine_labelTrainIds.png` or `X_gtFine_labelIds.png`";

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

/// What [`find_pairs`] found.
///
/// ```
/// use rtformer::eval::{Pairs, find_pairs};
///
/// # let root = tempfile::tempdir().unwrap();
/// # let (images, labels) = (root.path().join("val"), root.path().join("val_labels"));
/// # for folder in [&images, &labels] { std::fs::create_dir(folder).unwrap(); }
/// # for photo in ["street.jpg", "lone.jpg"] { std::fs::write(images.join(photo), "").unwrap(); }
/// # std::fs::write(labels.join("street.png"), "").unwrap();
/// let Pairs { pairs, failed } = find_pairs(&images, &labels)?;
/// assert_eq!((pairs.len(), failed.len()), (1, 1));
/// assert!(failed[0].to_string().contains("lone.jpg: has no labels"));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Debug)]
pub struct Pairs {
    /// The pairs, in the order of the photos' paths; at least one.
    pub pairs: Vec<Pair>,
    /// What stands alone: an [`Error::Image`] for each photo without labels, an [`Error::Read`] for each folder that could not be read.
    pub failed: Vec<Error>,
}

/// Finds photos and their label images under two folders, which may be the same.
///
/// A photo at `SUB/P.jpg` under `images` goes with `SUB/P.png` or `SUB/P_L.png` under `labels`, and `X_leftImg8bit.png` with
/// `X_gtFine_labelTrainIds.png` or else `X_gtFine_labelIds.png`, in the same subfolder or, where only one file has that name, in any.
/// Hidden files are passed over.
///
/// ```
/// # let root = tempfile::tempdir().unwrap();
/// # let (images, labels) = (root.path().join("val"), root.path().join("val_labels"));
/// # for folder in [&images, &labels] { std::fs::create_dir(folder).unwrap(); }
/// # std::fs::write(images.join("street.jpg"), "").unwrap();
/// # std::fs::write(labels.join("street.png"), "").unwrap();
/// let found = rtformer::eval::find_pairs(&images, &labels)?;
/// assert_eq!(found.pairs[0].photo, images.join("street.jpg"));
/// assert_eq!(found.pairs[0].label, labels.join("street.png"));
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Read`] when one of the folders cannot be read, [`Error::Input`] when there is no pair at all.
pub fn find_pairs(images: impl AsRef<Path>, labels: impl AsRef<Path>) -> Result<Pairs> {
    let (images, labels) = (images.as_ref(), labels.as_ref());
    let mut failed = Vec::new();
    let photos = files(images, labels, &Image::EXTENSIONS, &mut failed)?;
    let candidates = Candidates::new(files(labels, images, &["png"], &mut failed)?, labels);
    let shared = real(images) == real(labels);

    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    for photo in photos.iter().filter(|photo| !is_ground_truth(photo)) {
        let place = photo.strip_prefix(images).unwrap_or(photo);
        // In a folder that both share, a photo is not its own label.
        let own = |label: &PathBuf| shared && label.strip_prefix(labels).is_ok_and(|there| there == place);
        match candidates.of(place, own) {
            Some(label) => pairs.push(Pair { photo: photo.clone(), label }),
            None => alone.push(photo),
        }
    }
    let taken: HashSet<_> = pairs.iter().filter(|_| shared).map(|pair| real(&pair.label)).collect();
    alone.retain(|photo| !shared || !taken.contains(&real(photo)));

    if pairs.is_empty() {
        let (count, images, labels) = (alone.len(), images.display(), labels.display());
        return Err(Error::Input(format!("none of {count} photos in {images} has labels in {labels}: {LAYOUTS}")));
    }
    let missing = |photo: &PathBuf| Error::image(photo, format!("has no labels in {}: {LAYOUTS}", labels.display()));
    failed.extend(alone.into_iter().map(missing));
    Ok(Pairs { pairs, failed })
}

/// The label images, by what a photo knows of them.
struct Candidates {
    /// Place under the folder, without extension.
    by_place: HashMap<PathBuf, PathBuf>,
    /// Name without extension; none where several have it.
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

    /// The labels of the photo at this place.
    fn of(&self, place: &Path, own: impl Fn(&PathBuf) -> bool) -> Option<PathBuf> {
        let stem = place.file_stem().unwrap_or_default();
        let beside = |name: &OsStr| self.by_place.get(&place.with_file_name(name)).filter(|label| !own(label));
        if let Some(base) = stem.to_str().and_then(|stem| stem.strip_suffix("_leftImg8bit")) {
            for kind in ["labelTrainIds", "labelIds"] {
                let name = OsString::from(format!("{base}_gtFine_{kind}"));
                let anywhere = || self.by_name.get(&name).and_then(Option::as_ref);
                if let Some(label) = beside(&name).or_else(anywhere) {
                    return Some(label.clone());
                }
            }
        }
        let mut camvid = stem.to_os_string();
        camvid.push("_L");
        beside(stem).or_else(|| beside(&camvid)).cloned()
    }
}

/// Cityscapes' own answers (polygons drawn in colour, instances): never photos, in whichever folder they lie.
fn is_ground_truth(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    ["_gtFine_", "_gtCoarse_"].iter().any(|mark| stem.contains(mark))
}

/// The files with these extensions under `folder`, sorted; those under `other`, where that lies within, are left out.
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

/// The path without links; as it is where it cannot be resolved.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    fn relative(path: &Path, root: &Path) -> String {
        path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/")
    }

    #[test]
    fn every_layout_is_found() {
        struct Case {
            files: &'static [&'static str],
            folders: (&'static str, &'static str),
            pairs: &'static [(&'static str, &'static str)],
            alone: usize,
        }
        const CITY: &str = "i/val/ulm/ulm_0_leftImg8bit.png";
        let cases = [
            // Plain: subfolders mirror each other, the extension may differ, what is hidden or no image is passed over.
            Case {
                files: &[
                    "i/a.jpg",
                    "i/s/b.JPEG",
                    "i/.c.png",
                    "i/notes.txt",
                    "i/lone.png",
                    "l/a.png",
                    "l/s/b.png",
                    "l/d.png",
                ],
                folders: ("i", "l"),
                pairs: &[("i/a.jpg", "l/a.png"), ("i/s/b.JPEG", "l/s/b.png")],
                alone: 1,
            },
            // A label in another subfolder is another photo's.
            Case {
                files: &["i/x/a.png", "i/y/a.png", "l/y/a.png"],
                folders: ("i", "l"),
                pairs: &[("i/y/a.png", "l/y/a.png")],
                alone: 1,
            },
            // CamVid, in two folders and in one.
            Case {
                files: &["i/p.png", "l/p_L.png"],
                folders: ("i", "l"),
                pairs: &[("i/p.png", "l/p_L.png")],
                alone: 0,
            },
            Case { files: &["p.png", "p_L.png"], folders: ("", ""), pairs: &[("p.png", "p_L.png")], alone: 0 },
            Case { files: &["p.jpg", "p.png", "q.jpg"], folders: ("", "."), pairs: &[("p.jpg", "p.png")], alone: 1 },
            // Cityscapes: train ids before label ids, colours and instances passed over.
            Case {
                files: &[CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png", "l/val/ulm/ulm_0_gtFine_color.png"],
                folders: ("i", "l"),
                pairs: &[(CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png")],
                alone: 0,
            },
            Case {
                files: &[CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png", "l/val/ulm/ulm_0_gtFine_labelTrainIds.png"],
                folders: ("i", "l"),
                pairs: &[(CITY, "l/val/ulm/ulm_0_gtFine_labelTrainIds.png")],
                alone: 0,
            },
            // Cityscapes' root for both, and folders of different depth.
            Case {
                files: &[CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png", "l/val/ulm/ulm_0_gtFine_color.png"],
                folders: ("", ""),
                pairs: &[(CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png")],
                alone: 0,
            },
            Case {
                files: &[CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png"],
                folders: ("i/val/ulm", "l"),
                pairs: &[(CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png")],
                alone: 0,
            },
            // Labels inside of the photos' folder are no photos.
            Case {
                files: &["a.jpg", "labels/a.png"],
                folders: ("", "labels"),
                pairs: &[("a.jpg", "labels/a.png")],
                alone: 0,
            },
        ];
        for Case { files, folders: (images, labels), pairs, alone } in cases {
            let folder = folder(files);
            let root = folder.path();
            let found = find_pairs(root.join(images), root.join(labels)).unwrap();
            let got: Vec<_> =
                found.pairs.iter().map(|pair| (relative(&pair.photo, root), relative(&pair.label, root))).collect();
            let want: Vec<_> = pairs.iter().map(|(p, l)| ((*p).to_owned(), (*l).to_owned())).collect();
            assert_eq!((got, found.failed.len()), (want, alone), "{files:?}: {:?}", found.failed);
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = folder(&["i/a.jpg", "i/b.jpg", "l/a.png", "empty/notes.txt"]);
        let at = |name: &str| folder.path().join(name);
        let found = find_pairs(at("i"), at("l")).unwrap();
        let text = found.failed[0].to_string();
        assert!(text.contains("b.jpg") && text.contains("_L.png") && text.contains("_gtFine_labelIds.png"), "{text}");
        for (images, labels, count) in [("i", "empty", "none of 2"), ("empty", "l", "none of 0")] {
            let text = find_pairs(at(images), at(labels)).unwrap_err().to_string();
            assert!(text.contains(count) && text.contains("_L.png"), "{text}");
        }
        for (images, labels) in [("none", "l"), ("i", "none"), ("i/a.jpg", "l")] {
            let error = find_pairs(at(images), at(labels)).unwrap_err();
            assert!(matches!(error, Error::Read { .. }), "{error}");
        }
    }
}
