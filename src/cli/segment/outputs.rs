//! What is written of a photo, and under which names: no two photos ever share one.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rtformer::Scene;
use rtformer::pixels::{Image, render};
use walkdir::WalkDir;

use super::inputs::Input;

/// One kind of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Emit {
    /// Indexed PNG of train ids in the data set's colours
    Mask,
    /// Grey PNG of the data set's own label ids
    #[value(alias = "label-id")]
    Labelid,
    /// The photo under the colours of its classes
    Overlay,
    /// Grey PNG of the top probability
    Confidence,
    /// NumPy f32 [classes, height, width] at the photo's size
    Logits,
    /// What `--json` prints, one file a photo
    Json,
}

impl Emit {
    const ALL: [Self; 6] = [Self::Mask, Self::Labelid, Self::Overlay, Self::Confidence, Self::Logits, Self::Json];

    fn suffix(self) -> &'static str {
        match self {
            Self::Mask => ".mask.png",
            Self::Labelid => ".labelid.png",
            Self::Overlay => ".overlay.png",
            Self::Confidence => ".confidence.png",
            Self::Logits => ".logits.npy",
            Self::Json => ".json",
        }
    }

    /// Where this of a photo is written.
    pub(super) fn path(self, stem: &Path) -> PathBuf {
        let mut path = OsString::from(stem);
        path.push(self.suffix());
        path.into()
    }
}

/// Whether a file's name is one that a run gives.
pub(super) fn is_output(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Emit::ALL.iter().any(|emit| name.ends_with(emit.suffix()))
}

/// The stem of every photo's outputs, in order: the output folder mirrors the input folder.
///
/// `street.jpg` gives `street`. Where photos would share a stem (`street.jpg` and `street.png`), each keeps its whole file name
/// instead, and where they share that as well (of two folders), all but the first get a number. Names are compared without regard
/// to case, as the file systems of macOS and Windows do.
pub(super) fn stems(out: &Path, inputs: &[Input]) -> Vec<PathBuf> {
    let key = |stem: &Path| stem.to_string_lossy().to_lowercase();
    let mut sharing = HashMap::<String, usize>::new();
    for input in inputs {
        *sharing.entry(key(&input.place.with_extension(""))).or_default() += 1;
    }
    let alone = |input: &Input| sharing[&key(&input.place.with_extension(""))] == 1;
    // Those that are alone keep their names whatever the others become.
    let mut taken: HashSet<String> =
        inputs.iter().filter(|input| alone(input)).map(|input| key(&input.place.with_extension(""))).collect();
    let stem = |input: &Input| {
        if alone(input) {
            return out.join(input.place.with_extension(""));
        }
        let numbered = (2..).map(|number| {
            let mut name = OsString::from(&input.place);
            name.push(format!("-{number}"));
            PathBuf::from(name)
        });
        let free = std::iter::once(input.place.clone()).chain(numbered).find(|place| taken.insert(key(place)));
        out.join(free.unwrap_or_default())
    };
    inputs.iter().map(stem).collect()
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
        Emit::Mask => scene.palette().save(path),
        Emit::Overlay => render::save_rgb(path, &scene.overlay(image, alpha)),
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
            let inputs: Vec<_> = places.iter().map(|place| Input { path: place.into(), place: place.into() }).collect();
            let want: Vec<_> = want.iter().map(|stem| Path::new("out").join(stem)).collect();
            assert_eq!(stems(Path::new("out"), &inputs), want);
        }
    }

    #[test]
    fn outputs_are_known_by_their_names() {
        for emit in Emit::ALL {
            assert!(is_output(&emit.path(Path::new("out/a.b"))));
        }
        assert!(!is_output(Path::new("out/mask.png")));
    }
}
