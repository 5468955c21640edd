//! The kinds of output, and what their files are called.

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

    /// Where this of a photo is written.
    pub(super) fn path(self, stem: &Path) -> PathBuf {
        let mut path = OsString::from(stem);
        path.push(self.suffix());
        path.into()
    }

    /// The kind of output that a file's name stands for, and the stem.
    pub(super) fn of(path: &Path) -> Option<(Self, PathBuf)> {
        let name = path.file_name()?.to_str()?;
        Self::ALL.into_iter().find_map(|emit| Some((emit, path.with_file_name(name.strip_suffix(emit.suffix())?))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_known_by_their_names() {
        for emit in Emit::ALL {
            assert_eq!(Emit::of(&emit.path(Path::new("out/a.b"))), Some((emit, "out/a.b".into())));
        }
        assert_eq!(Emit::of(Path::new("out/mask.png")), None);
    }
}
