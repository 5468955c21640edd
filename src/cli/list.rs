//! List files: one photo per line, or a photo and its label image, as PaddleSeg writes them.

use std::fs::File;
use std::path::{Path, PathBuf};

use rtformer::files;

use super::objects::is_url;

/// The longest list that is read, in bytes: about half a million photos. Anything longer is another kind of text.
const LONGEST: u64 = 64 << 20;

/// What one line of a list file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The line's number, from 1.
    pub(super) line: usize,
    /// The photo. It may not exist.
    pub(super) photo: PathBuf,
    /// The label image, if the line names one. It may not exist.
    pub(super) label: Option<PathBuf>,
}

/// Whether the file has the extension of a list file: `.txt` or `.lst`.
pub(super) fn has_list_extension(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt") || ending.eq_ignore_ascii_case("lst"))
}

/// The entries of a list file. Blank lines and lines that start with `#` are comments.
///
/// A line that is a URL names an object. It may be followed by a label's URL.
///
/// A relative path is searched for in the folder of the list, then in the current folder. If the whole line is the path of an existing
/// file, it is a photo, so paths may contain spaces. Any other line is split at a space or tab into photo and label.
///
/// # Errors
/// A phrase that says why the list cannot be read.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, String> {
    let bytes = File::open(path).and_then(|file| files::read_within(file, LONGEST));
    let bytes = bytes.map_err(|error| format!("cannot be read: {error}"))?;
    let text = files::text(&bytes)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let entry = |(index, line)| {
        let (photo, label) = entry(folder, line)?;
        Some(Entry { line: index + 1, photo, label })
    };
    Ok(text.lines().enumerate().filter_map(entry).collect())
}

/// The photo of a line, and its label.
fn entry(folder: &Path, line: &str) -> Option<(PathBuf, Option<PathBuf>)> {
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    if is_url(Path::new(line)) {
        let label =
            line.match_indices(char::is_whitespace).map(|(at, _)| at).find(|at| is_url(Path::new(line[*at..].trim())));
        let (photo, label) = label.map_or((line, None), |at| (line[..at].trim(), Some(line[at..].trim().into())));
        return Some((photo.into(), label));
    }
    let existing = |text: &str| [folder.join(text), text.into()].into_iter().find(|path| path.exists());
    let named = |text: &str| existing(text).unwrap_or_else(|| folder.join(text));
    if let Some(photo) = existing(line) {
        return Some((photo, None));
    }
    if line.starts_with('#') {
        return None;
    }
    let spaces = line.match_indices(char::is_whitespace).map(|(at, _)| at);
    let splits: Vec<_> = spaces.map(|at| (line[..at].trim_end(), line[at..].trim_start())).collect();
    // If neither file exists, the photo's path ends at the first word with a file extension.
    let split = (splits.iter().find(|(photo, label)| existing(photo).is_some() && existing(label).is_some()))
        .or_else(|| splits.iter().rfind(|(photo, _)| existing(photo).is_some()))
        .or_else(|| splits.iter().find(|(photo, _)| Path::new(photo).extension().is_some()));
    Some(match split {
        Some((photo, label)) => (named(photo), Some(named(label))),
        None => (named(line), None),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    type Photos<'a> = &'a [(&'a str, Option<&'a str>)];

    #[test]
    fn a_line_is_a_photo_or_a_photo_and_its_label() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for file in ["a.jpg", "a.png", "my photo.jpg", "my label.png", "#1.jpg", "sub/b.jpg", "c", "c d"] {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let outside = root.join("sub/b.jpg");
        let outside = outside.to_str().unwrap();
        let cases: [(&str, Photos<'_>); 16] = [
            ("a.jpg", &[("a.jpg", None)]),
            ("a.jpg a.png\n", &[("a.jpg", Some("a.png"))]), // PaddleSeg
            ("a.jpg\ta.png", &[("a.jpg", Some("a.png"))]),  // a table
            ("\u{feff}a.jpg\r\nc\r\n", &[("a.jpg", None), ("c", None)]), // as written by Windows editors
            ("\n  \n# photos\na.jpg", &[("a.jpg", None)]),  // comments
            ("#1.jpg", &[("#1.jpg", None)]),                // a photo, not a comment
            ("my photo.jpg", &[("my photo.jpg", None)]),    // a path with a space
            ("my photo.jpg my label.png", &[("my photo.jpg", Some("my label.png"))]),
            ("c d", &[("c d", None)]), // the whole line is tried first
            ("c a.png", &[("c", Some("a.png"))]),
            ("c d a.png", &[("c d", Some("a.png"))]),
            ("a.jpg none.png", &[("a.jpg", Some("none.png"))]), // the label does not exist
            ("none.jpg none.png", &[("none.jpg", Some("none.png"))]),
            ("no photo.jpg", &[("no photo.jpg", None)]),
            (outside, &[(outside, None)]), // an absolute path
            ("", &[]),
        ];
        for (text, want) in cases {
            fs::write(root.join("list.txt"), text).unwrap();
            let got = read(&root.join("list.txt")).unwrap();
            let got: Vec<_> = got.into_iter().map(|entry| (entry.photo, entry.label)).collect();
            let want: Vec<_> =
                want.iter().map(|(photo, label)| (root.join(photo), label.map(|l| root.join(l)))).collect();
            assert_eq!(got, want, "{text:?}");
        }
    }

    #[test]
    fn paths_may_be_relative_to_the_current_folder() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.txt");
        fs::write(&list, "Cargo.toml\nnone.jpg\n").unwrap(); // tests run in the package's folder
        let got = read(&list).unwrap();
        assert_eq!((got[0].photo.as_path(), got[0].line), (Path::new("Cargo.toml"), 1));
        assert_eq!((got[1].photo.as_path(), got[1].line), (folder.path().join("none.jpg").as_path(), 2));
    }

    #[test]
    fn a_list_that_is_not_text_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("list.txt"), b"\x89PNG\r\n").unwrap();
        assert!(read(&folder.path().join("list.txt")).unwrap_err().contains("not UTF-8"));
        assert!(read(&folder.path().join("none.txt")).unwrap_err().contains("cannot be read"));
        let log = folder.path().join("log.txt");
        File::create(&log).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(read(&log).unwrap_err().contains("longer than the maximum"));
    }
}
