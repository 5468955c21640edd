//! Finds the photos to explain.

use std::path::{Path, PathBuf};

use rtformer::pixels::sniff::is_photo;
use walkdir::WalkDir;

use super::super::console::{Console, counted};
use super::super::stems::stems;

/// A photo, and its place in the output folder.
#[derive(Clone, Debug)]
pub(super) struct Photo {
    pub(super) path: PathBuf,
    /// Its name among the outputs, which no other photo has: its path in the named folder, or its file name, without the extension.
    pub(super) stem: PathBuf,
}

impl Photo {
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
            found.push((argument.clone(), PathBuf::from(name)));
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
                        found.push((entry.path().to_path_buf(), place.to_path_buf()));
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
    let places: Vec<_> = found.iter().map(|(_, place)| place.as_path()).collect();
    let stems = stems(Path::new(""), &places);
    (found.into_iter().zip(stems).map(|((path, _), stem)| Photo { path, stem }).collect(), failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_searched_and_no_two_photos_share_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["in/b.jpg", "in/sub/a.png", "in/notes.txt", "in/out/b.rules.png", "b.png"] {
            std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            std::fs::write(at(name), "").unwrap();
        }
        let console = Console::new(true, false);
        let (found, failed) = find(&[at("in"), at("b.png")], &at("in/out"), &console);
        let stems: Vec<_> = found.iter().map(|photo| photo.stem.to_string_lossy().into_owned()).collect();
        assert_eq!((stems, failed), (["b.jpg", "sub/a", "b.png"].map(str::to_owned).to_vec(), 0));
        assert_eq!(found[1].output(Path::new("out"), ".rules.json"), Path::new("out/sub/a.rules.json"));
    }
}
