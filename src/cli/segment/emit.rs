//! The kinds of output and their file names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// One kind of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Emit {
    /// Indexed PNG of train ids in the data set's colours
    Mask,
    /// Grey PNG of the data set's own label ids
    #[value(alias = "label-id")]
    Labelid,
    /// The photo, tinted with its classes' colours
    Overlay,
    /// Grey PNG of each pixel's highest class probability, from 0 (black) to 1 (white)
    Confidence,
    /// NumPy f32 [classes, height, width] at the photo's size
    Logits,
    /// The JSON object that --json prints, one file per photo
    Json,
}

impl Emit {
    pub(super) const ALL: [Self; 6] =
        [Self::Mask, Self::Labelid, Self::Overlay, Self::Confidence, Self::Logits, Self::Json];

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

    /// The path of this output for the photo with this stem.
    pub(super) fn path(self, stem: &Path) -> PathBuf {
        let mut path = OsString::from(stem);
        path.push(self.suffix());
        path.into()
    }

    /// The name in `--emit`.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// The kind of output that a file's name implies, and its stem.
    pub(super) fn of(path: &Path) -> Option<(Self, PathBuf)> {
        let name = path.file_name()?.to_str()?;
        Self::ALL.into_iter().find_map(|emit| Some((emit, path.with_file_name(name.strip_suffix(emit.suffix())?))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_recognized_by_their_names() {
        for emit in Emit::ALL {
            assert_eq!(Emit::of(&emit.path(Path::new("out/a.b"))), Some((emit, "out/a.b".into())));
        }
        assert_eq!(Emit::of(Path::new("out/mask.png")), None);
    }
}
