//! The kinds of output and their file names.

use std::collections::BTreeSet;
use std::sync::Mutex;

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
    /// One PNG per class, .CLASS.binary.png: 255 where the class is, 0 elsewhere
    Binary,
    /// The picture of one class, by its [`slug`].
    #[value(skip)]
    BinaryOf(&'static str),
    /// The photo, tinted with its classes' colours
    Overlay,
    /// Grey PNG of each pixel's highest class probability, from 0 (black) to 1 (white)
    Confidence,
    /// NumPy f32 [classes, height, width] at the photo's size
    Logits,
    /// Outlines of areas with their holes: GeoJSON (.polygons.geojson) and COCO's JSON (.polygons.coco.json), simplified by --tolerance
    Polygons,
    /// COCO's JSON of the outlines.
    #[value(skip)]
    PolygonsCoco,
    /// COCO's JSON with the compressed run lengths of each class
    Rle,
    /// The JSON object that --json prints, one file per photo
    Json,
}

impl Emit {
    /// All kinds but the pictures of single classes. A longer ending comes before one that it ends in.
    pub(super) const ALL: [Self; 9] = [
        Self::Mask,
        Self::Labelid,
        Self::Overlay,
        Self::Confidence,
        Self::Logits,
        Self::Polygons,
        Self::PolygonsCoco,
        Self::Rle,
        Self::Json,
    ];

    /// Whether it is a JSON file, which has its record in `source`.
    pub(super) fn is_json(self) -> bool {
        matches!(self, Self::Polygons | Self::PolygonsCoco | Self::Rle | Self::Json)
    }

    /// Whether it is a picture whose rows follow from the same rows of the mask.
    pub(super) fn is_picture(self) -> bool {
        matches!(self, Self::Mask | Self::Labelid | Self::Binary | Self::BinaryOf(_) | Self::Overlay | Self::Confidence)
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Mask => ".mask.png",
            Self::Labelid => ".labelid.png",
            Self::Binary | Self::BinaryOf(_) => BINARY,
            Self::Overlay => ".overlay.png",
            Self::Confidence => ".confidence.png",
            Self::Logits => ".logits.npy",
            Self::Polygons => ".polygons.geojson",
            Self::PolygonsCoco => ".polygons.coco.json",
            Self::Rle => ".rle.json",
            Self::Json => ".json",
        }
    }

    /// The path of this output for the photo with this stem.
    pub(super) fn path(self, stem: &Path) -> PathBuf {
        let mut path = OsString::from(stem);
        if let Self::BinaryOf(class) = self {
            path.push(".");
            path.push(class);
        }
        path.push(self.suffix());
        path.into()
    }

    /// The name in `--emit`.
    pub(super) fn name(self) -> String {
        if let Self::BinaryOf(class) = self {
            return format!("binary.{class}");
        }
        if self == Self::PolygonsCoco {
            return "polygons.coco".into();
        }
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// The kind of output that a file's name implies, and its stem.
    pub(super) fn of(path: &Path) -> Option<(Self, PathBuf)> {
        let name = path.file_name()?.to_str()?;
        if let Some((stem, class)) = name.strip_suffix(BINARY).and_then(|rest| rest.rsplit_once('.')) {
            return Some((Self::BinaryOf(kept(class)), path.with_file_name(stem)));
        }
        Self::ALL.into_iter().find_map(|emit| Some((emit, path.with_file_name(name.strip_suffix(emit.suffix())?))))
    }
}

const BINARY: &str = ".binary.png";

/// A text that lives as long as the program. The texts are names of classes, so there are few different ones.
pub(super) fn kept(text: &str) -> &'static str {
    static TEXTS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut texts = TEXTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = texts.get(text) {
        return known;
    }
    let leaked: &'static str = String::from(text).leak();
    texts.insert(leaked);
    leaked
}

/// The names of classes in file names: letters and digits, with hyphens for anything else; equal names get a number.
pub(super) fn slugs<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
    let mut taken = BTreeSet::new();
    let mut all = Vec::new();
    for name in names {
        let words = name.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
        let word = words.collect::<Vec<_>>().join("-").to_lowercase();
        let word = if word.is_empty() { "class".to_owned() } else { word };
        let numbered = (2..).map(|number| format!("{word}-{number}"));
        let free = std::iter::once(word.clone()).chain(numbered).find(|slug| taken.insert(slug.clone()));
        all.push(kept(&free.unwrap_or_default()));
    }
    all
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
        let car = Emit::BinaryOf(kept("car"));
        assert_eq!(car.path(Path::new("out/a.b")), Path::new("out/a.b.car.binary.png"));
        assert_eq!(Emit::of(&car.path(Path::new("out/a.b"))), Some((car, "out/a.b".into())));
        assert_eq!(Emit::of(Path::new("out/binary.png")), None);
    }

    #[test]
    fn classes_have_different_names_that_any_file_system_takes() {
        let names = ["road", "Traffic Light", "door;double door", "a/b", "a.b", "道", "..", "?"];
        let want = ["road", "traffic-light", "door-double-door", "a-b", "a-b-2", "道", "class", "class-2"];
        assert_eq!(slugs(names.into_iter()), want);
    }
}
