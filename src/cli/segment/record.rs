//! Records what an output was made from, in the output itself. `--resume` compares the record, and a search for photos skips files that have
//! one.
//!
//! PNG files hold the record as text, JSON files as the value of `source`. A `.npy` file holds it as a second array, of
//! bytes, after the first. NumPy's `load` reads it if it is called again on the open file.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rtformer::files;
use rtformer::pixels::render;
use serde::{Deserialize, Serialize};

use super::emit::Emit;

/// The keyword of the text in a PNG file.
const KEYWORD: &str = "rtformer";

/// The record is before this byte of a PNG file; a palette of 256 colours and a record have about 2 KB.
pub(super) const HEAD: u64 = 64 << 10;

/// The record is in this number of bytes at the end of a `.npy` file.
pub(super) const TAIL: u64 = 4096;

/// The first bytes of a `.npy` file, and of its second array.
const NUMPY: &[u8] = b"\x93NUMPY\x01\x00";

/// The photo and the settings that an output was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The photo's file name.
    pub(super) photo: String,
    /// The SHA-256 of the photo's bytes.
    pub(super) sha256: String,
    #[serde(flatten)]
    pub(super) settings: Settings,
}

/// The settings that determine the content of an output. The device and the number of threads do not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// The SHA-256 of the weights file.
    pub(super) weights: String,
    pub(super) size: String,
    pub(super) precision: String,
    pub(super) pad: String,
    pub(super) depth: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reject_below: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) adaptive: Option<f64>,
    /// Only for overlays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) alpha: Option<f32>,
    /// Only for polygons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tolerance: Option<f64>,
    /// Only for overlays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) legend: bool,
    /// `--flip` and `--scales`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) augmentation: Option<String>,
    /// `--classes` and `--merge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) classes: Option<String>,
    /// `--tile`, or the limit of `--memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tile: Option<String>,
    /// `--bands`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bands: Option<[u16; 3]>,
    /// `--decide`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) decide: Option<String>,
}

#[cfg(test)]
impl Settings {
    /// Those of `segment` without flags.
    pub(super) fn plain() -> Self {
        let default = || "default".into();
        Self {
            weights: "w".into(),
            size: "native".into(),
            precision: default(),
            pad: default(),
            depth: "auto".into(),
            ..Self::default()
        }
    }
}

/// The origin of a file, according to its record.
#[derive(Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "it lives for one comparison")]
pub(super) enum Origin {
    /// The file does not exist or is empty.
    Missing,
    /// The file has no record, so another program wrote it.
    Unknown,
    Known(Record),
}

impl Record {
    /// The record of a photo's outputs.
    pub(super) fn new(name: &Path, bytes: &[u8], settings: &Settings) -> Self {
        Self::with_digest(name, files::digest(bytes), settings)
    }

    /// The record of the outputs of a photo with this SHA-256.
    pub(super) fn with_digest(name: &Path, sha256: String, settings: &Settings) -> Self {
        let photo = name.file_name().unwrap_or(name.as_os_str()).to_string_lossy().into_owned();
        Self { photo, sha256, settings: settings.clone() }
    }

    /// The record for one kind of output.
    pub(super) fn of(&self, emit: Emit) -> Self {
        let mut record = self.clone();
        let polygons = matches!(emit, Emit::Polygons | Emit::PolygonsCoco);
        record.settings.tolerance = record.settings.tolerance.filter(|_| polygons);
        record.settings.legend &= emit == Emit::Overlay;
        record.settings.alpha = record.settings.alpha.filter(|_| emit == Emit::Overlay);
        record
    }

    /// The record as text for a PNG file: keyword and content.
    pub(super) fn text(&self) -> (&'static str, String) {
        (KEYWORD, serde_json::to_string(self).unwrap_or_default()) // strings and numbers can always be serialised
    }

    /// Appends the record to a `.npy` file, as an array of bytes.
    pub(super) fn append_to(&self, out: impl Write) -> io::Result<()> {
        render::write_npy_bytes(out, self.text().1.as_bytes())
    }
}

/// Reads the record of the file at `path`.
pub(super) fn read(path: &Path) -> Origin {
    let Ok(file) = File::open(path) else { return Origin::Missing };
    if file.metadata().is_ok_and(|found| found.is_file() && found.len() == 0) {
        return Origin::Missing; // possible after a system crash
    }
    find(path, file)
}

/// Finds the record in an output with the name `path`, which is not empty. The first [`HEAD`] bytes of a PNG file are enough.
pub(super) fn find(path: &Path, file: impl Read + Seek) -> Origin {
    let extension = path.extension().unwrap_or_default();
    let record = if extension == "png" {
        in_png(file)
    } else if extension == "npy" {
        in_npy(file)
    } else {
        in_json(file)
    };
    record.map_or(Origin::Unknown, Origin::Known)
}

fn in_png(file: impl Read + Seek) -> Option<Record> {
    let reader = png::Decoder::new(BufReader::new(file)).read_info().ok()?;
    let text = reader.info().utf8_text.iter().find(|text| text.keyword == KEYWORD)?;
    serde_json::from_str(&text.get_text().ok()?).ok()
}

fn in_json(file: impl Read) -> Option<Record> {
    #[derive(Deserialize)]
    struct Report {
        source: Record,
    }
    serde_json::from_reader::<_, Report>(BufReader::new(file)).ok().map(|report| report.source)
}

fn in_npy(mut file: impl Read + Seek) -> Option<Record> {
    // A record has a few hundred bytes, so the end of the file is enough.
    let end = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(end.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let at = tail.windows(NUMPY.len()).rposition(|bytes| bytes == NUMPY)?;
    let (length, rest) = tail[at + NUMPY.len()..].split_first_chunk::<2>()?;
    serde_json::from_slice(rest.get(usize::from(u16::from_le_bytes(*length))..)?).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record() -> Record {
        let settings = Settings {
            weights: "ab".repeat(32),
            size: "within:640x480".into(),
            reject_below: Some(0.1),
            adaptive: Some(0.02),
            alpha: Some(0.3),
            ..Settings::plain()
        };
        Record { photo: "Stra\u{df}e \"1\"\n.jpg".into(), sha256: "cd".repeat(32), settings }
    }

    #[test]
    fn every_kind_of_file_holds_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let record = record();
        let (keyword, text) = record.text();

        let mut png = Vec::new();
        render::write_gray(&mut png, &image::GrayImage::new(3, 2), Some((keyword, &text))).unwrap();
        fs::write(path("a.png"), &png).unwrap();
        let mut npy = Vec::new();
        render::write_npy_to(&mut npy, &[0.5; 6], [1, 2, 3]).unwrap();
        let plain = npy.len();
        record.append_to(&mut npy).unwrap();
        assert_eq!((npy.len() - plain - text.len()) % 64, 0);
        fs::write(path("a.npy"), &npy).unwrap();
        fs::write(path("a.json"), format!("{{\"path\": \"x\", \"source\": {text}}}")).unwrap();
        for name in ["a.png", "a.npy", "a.json"] {
            assert_eq!(read(&path(name)), Origin::Known(record.clone()), "{name}");
        }
        assert_ne!(record.of(Emit::Mask), record, "alpha is only for overlays");
        assert_eq!(record.of(Emit::Overlay), record);

        fs::write(path("cut.png"), &png[..60]).unwrap();
        fs::write(path("cut.npy"), &npy[..npy.len() - 1]).unwrap();
        fs::write(path("plain.npy"), &npy[..plain]).unwrap();
        render::save_gray(path("plain.png"), &image::GrayImage::new(3, 2)).unwrap();
        fs::write(path("other.json"), "{\"shapes\": []}").unwrap(); // written by an annotation tool
        for name in ["cut.png", "cut.npy", "plain.npy", "plain.png", "other.json"] {
            assert_eq!(read(&path(name)), Origin::Unknown, "{name}");
        }
        fs::write(path("empty.png"), "").unwrap();
        for name in ["empty.png", "none.png"] {
            assert_eq!(read(&path(name)), Origin::Missing, "{name}");
        }
    }
}
