//! What is written of a photo, and under which names: no two photos ever share one.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rtformer::Scene;
use rtformer::pixels::{Image, render};
use walkdir::WalkDir;

use super::emit::Emit;

/// The stem of every photo's outputs, in order: the output folder mirrors the input folder.
///
/// `street.jpg` gives `street`. Where photos would share a stem (`street.jpg` and `street.png`), each keeps its whole file name
/// instead, and where they share that as well (of two folders), all but the first get a number. Names are compared without regard
/// to case, as the file systems of macOS and Windows do.
pub(super) fn stems(out: &Path, places: &[&Path]) -> Vec<PathBuf> {
    let key = |stem: &Path| stem.to_string_lossy().to_lowercase();
    let short = |place: &Path| key(&place.with_extension(""));
    let mut sharing = HashMap::<String, usize>::new();
    for place in places {
        *sharing.entry(short(place)).or_default() += 1;
    }
    let alone = |place: &Path| sharing[&short(place)] == 1;
    // Those that are alone keep their names whatever the others become.
    let mut taken: HashSet<String> = places.iter().filter(|place| alone(place)).map(|place| short(place)).collect();
    let stem = |&place: &&Path| {
        if alone(place) {
            return out.join(place.with_extension(""));
        }
        let numbered = (2..).map(|number| {
            let mut name = OsString::from(place);
            name.push(format!("-{number}"));
            PathBuf::from(name)
        });
        let free = std::iter::once(place.to_path_buf()).chain(numbered).find(|place| taken.insert(key(place)));
        out.join(free.unwrap_or_default())
    };
    places.iter().map(stem).collect()
}

/// Writes one output of a scene that is no JSON; each appears whole or not at all.
pub(super) fn write(
    emit: Emit,
    path: &Path,
    image: &Image,
    scene: &Scene,
    labels: &[u16],
    alpha: f32,
) -> rtformer::Result<()> {
    let mask = scene.mask();
    let (width, height) = (mask.width(), mask.height());
    match emit {
        Emit::Mask => scene.save_mask(path),
        Emit::Overlay => scene.save_overlay(path, image, alpha),
        Emit::Labelid => render::save_gray(path, &render::label_ids(mask, labels)),
        Emit::Confidence => {
            let confidence = scene.confidence().unwrap_or_default();
            render::save_gray(path, &render::confidence_picture(confidence, width, height))
        }
        Emit::Logits => {
            let logits = scene.logits().unwrap_or_default();
            let (w, h) = (width as usize, height as usize);
            render::write_npy(path, logits, [logits.len() / (w * h).max(1), h, w])
        }
        Emit::Json => Ok(()), // the caller has it as text
    }
}

/// Takes away what a killed run left half-written in the output folder.
pub(super) fn sweep(out: &Path) {
    let files = WalkDir::new(out).into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    for file in files {
        let name = file.file_name().to_string_lossy();
        if name.starts_with(".rtformer-") && name.ends_with(".part") {
            let _ = fs::remove_file(file.path()); // litter: worth an attempt, not an error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_photos_share_an_output() {
        let cases: [(&[&str], &[&str]); 7] = [
            (&["a.jpg", "b.jpg"], &["a", "b"]),
            (&["x/a.jpg", "y/a.jpg"], &["x/a", "y/a"]), // folders are mirrored
            (&["a.jpg", "a.png", "b.png"], &["a.jpg", "a.png", "b"]), // one stem: whole names
            (&["a.jpg", "A.JPG"], &["a.jpg", "A.JPG-2"]), // one name, where case does not count
            (&["a.jpg", "a.jpg", "a.jpg"], &["a.jpg", "a.jpg-2", "a.jpg-3"]), // of three folders
            (&["a.jpg", "a.png", "a.jpg.gif"], &["a.jpg-2", "a.png", "a.jpg"]), // a stem that looks like a whole name
            (&["stdin"], &["stdin"]),
        ];
        for (places, want) in cases {
            let places: Vec<_> = places.iter().map(Path::new).collect();
            let want: Vec<_> = want.iter().map(|stem| Path::new("out").join(stem)).collect();
            assert_eq!(stems(Path::new("out"), &places), want);
        }
    }
}
