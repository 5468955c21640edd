//! `eval --save-errors`: pictures of the errors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use rtformer::eval::{Confusion, Measured, Pair};
use rtformer::pixels::render;

use super::super::misuse;
use super::super::stems::stems;
use super::exists;

/// The file of each photo's picture.
pub(super) struct Errors(HashMap<PathBuf, PathBuf>);

impl Errors {
    /// Chooses a file for every photo: the folder has the layout of the photos below the folder that contains them all. `a.jpg` gives
    /// `a.errors.png`; if several photos would have that name, each keeps its extension.
    ///
    /// # Errors
    /// If a file exists and is not to be overwritten.
    pub(super) fn new(folder: &Path, pairs: &[Pair], overwrite: bool) -> anyhow::Result<Self> {
        let root = common_folder(pairs.iter().map(|pair| pair.photo.as_path()));
        let photos = || pairs.iter().map(|pair| pair.photo.as_path());
        let places: Vec<_> = photos().map(|photo| photo.strip_prefix(&root).unwrap_or(photo)).collect();
        let target = |stem: PathBuf| {
            let mut name = stem.into_os_string();
            name.push(".errors.png");
            PathBuf::from(name)
        };
        let targets = stems(folder, &places).into_iter().map(target);
        let targets: HashMap<_, _> = photos().map(Path::to_path_buf).zip(targets).collect();
        if targets.len() < pairs.len() {
            return Err(misuse(
                "--save-errors: a photo is listed more than once, and its pictures would have the same name",
            ));
        }
        let existing = targets.values().filter(|path| !overwrite && path.exists()).min();
        match existing {
            Some(path) => Err(exists(path)),
            None => Ok(Self(targets)),
        }
    }

    /// Writes the picture of a photo.
    pub(super) fn save(&self, pair: &Pair, measured: &Measured<'_>) -> rtformer::Result<()> {
        let Some(path) = self.0.get(&pair.photo) else { return Ok(()) };
        render::save_rgb(path, &picture(measured))
    }
}

/// The deepest folder that contains all photos.
fn common_folder<'a>(photos: impl Iterator<Item = &'a Path>) -> PathBuf {
    let folder = |path: &Path| path.parent().unwrap_or(Path::new("")).to_path_buf();
    let common = |a: PathBuf, b: PathBuf| {
        a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    };
    photos.map(folder).reduce(common).unwrap_or_default()
}

/// The photo in grey where the mask is right, red where it is wrong, and black where the label is ignored.
fn picture(measured: &Measured<'_>) -> RgbImage {
    let mut picture = measured.photo.rgb().clone();
    let ids = measured.labels.ids().iter().zip(measured.scene.mask().iter());
    let ignore = Confusion::ignore_id(measured.scene.mask().classes());
    for (pixel, (&truth, seen)) in picture.pixels_mut().zip(ids) {
        let [r, g, b] = pixel.0.map(u32::from);
        let grey = ((299 * r + 587 * g + 114 * b) / 1000) as u8;
        *pixel = Rgb(match truth {
            _ if truth == ignore => [0; 3],
            _ if truth == seen => [grey / 2 + 32; 3],
            _ => [191 + grey / 4, grey / 4, grey / 4],
        });
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(photos: &[&str]) -> Vec<String> {
        let pairs: Vec<_> =
            photos.iter().map(|photo| Pair { photo: photo.into(), label: "labels.png".into() }).collect();
        let errors = Errors::new(Path::new("out"), &pairs, false).unwrap();
        pairs.iter().map(|pair| errors.0[&pair.photo].display().to_string().replace('\\', "/")).collect()
    }

    #[test]
    fn pictures_mirror_the_photos_and_never_share_a_name() {
        assert_eq!(targets(&["val/a.jpg", "val/sub/b.png"]), ["out/a.errors.png", "out/sub/b.errors.png"]);
        assert_eq!(targets(&["/x/a.jpg", "/y/a.jpg"]), ["out/x/a.errors.png", "out/y/a.errors.png"]);
        assert_eq!(targets(&["val/a.jpg", "val/A.png"]), ["out/a.jpg.errors.png", "out/A.png.errors.png"]);
        assert_eq!(targets(&["a.jpg"]), ["out/a.errors.png"]);
    }
}
