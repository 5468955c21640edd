//! Finds the photos to explain.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rtformer::pixels::sniff::is_photo;
use walkdir::WalkDir;

use super::super::console::{Console, counted};

/// A photo, and its place in the output folder.
#[derive(Clone, Debug)]
pub(super) struct Photo {
    pub(super) path: PathBuf,
    /// Its path in the named folder, or its file name, without the extension.
    pub(super) stem: PathBuf,
}

impl Photo {
    fn new(path: PathBuf, place: &Path) -> Self {
        Self { path, stem: place.with_extension("") }
    }

    /// The path of an output.
    pub(super) fn output(&self, out: &Path, suffix: &str) -> PathBuf {
        let mut path = out.join(&self.stem).into_os_string();
        path.push(suffix);
        path.into()
    }
}

/// The photos in the order of the arguments; folders are sorted by file name. Returns the number of failures, too, which it reports.
pub(super) fn find(arguments: &[PathBuf], out: &Path, console: &Console) -> (Vec<Photo>, usize) {
    let (mut found, mut failed, mut other) = (Vec::new(), 0, 0);
    let mut fail = |text: String| {
        failed += 1;
        console.error(&text);
    };
    for argument in arguments {
        if !argument.is_dir() {
            let name = argument.file_name().unwrap_or(argument.as_os_str());
            found.push(Photo::new(argument.clone(), Path::new(name)));
            continue;
        }
        let is_out = |path: &Path| path.canonicalize().ok().is_some_and(|path| out.canonicalize().ok() == Some(path));
        let walk = WalkDir::new(argument).follow_links(true).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| entry.depth() == 0 || !is_out(entry.path())) {
            match entry {
                Err(error) => fail(format!("{}: cannot be read: {error}", argument.display())),
                Ok(entry) if !entry.file_type().is_file() => {}
                Ok(entry) => match is_photo(entry.path()) {
                    Ok(true) => {
                        let place = entry.path().strip_prefix(argument).unwrap_or(entry.path());
                        found.push(Photo::new(entry.path().to_path_buf(), place));
                    }
                    Ok(false) => other += 1,
                    Err(error) => fail(format!("{}: cannot be read: {error}", entry.path().display())),
                },
            }
        }
    }
    if other > 0 {
        console.note(&format!("{} in folders skipped: no photo", counted(other, "file")));
    }
    let mut seen = HashSet::new();
    let mut first = Vec::new();
    for photo in found {
        if seen.insert(photo.stem.clone()) {
            first.push(photo);
        } else {
            fail(format!(
                "{}: another photo has the same name in the output folder; explain it alone",
                photo.path.display()
            ));
        }
    }
    (first, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_searched_and_equal_names_fail() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["in/b.jpg", "in/sub/a.png", "in/notes.txt", "in/out/b.rules.png", "b.png"] {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), "").unwrap();
        }
        let console = Console::new(true, false);
        let (found, failed) = find(&[at("in"), at("b.png")], &at("in/out"), &console);
        let stems: Vec<_> = found.iter().map(|photo| photo.stem.to_string_lossy().into_owned()).collect();
        assert_eq!((stems, failed), (vec!["b".to_owned(), "sub/a".to_owned()], 1));
        assert_eq!(found[1].output(Path::new("out"), ".rules.json"), Path::new("out/sub/a.rules.json"));
    }
}
