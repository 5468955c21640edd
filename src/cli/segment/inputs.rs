//! Which photos a command line means: files, folders, globs and standard input, in one order, each once.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rtformer::Image;
use walkdir::{DirEntry, WalkDir};

use super::outputs::is_output;

/// One photo to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    /// `-` is standard input.
    pub(super) path: PathBuf,
    /// Where in the output folder it belongs: its path within the folder that was named, or its bare file name.
    pub(super) place: PathBuf,
}

/// What was found, and what was not, in words.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) inputs: Vec<Input>,
    pub(super) failures: Vec<(PathBuf, String)>,
    /// Named twice, and taken once.
    pub(super) repeated: usize,
    /// Files in folders that are no images by their names.
    pub(super) passed_over: usize,
}

/// Walks the arguments in their order, each folder in the order of its names. What lies in `out` is no input.
pub(super) fn find(arguments: &[PathBuf], out: Option<&Path>) -> Found {
    let mut search =
        Search { found: Found::default(), seen: HashSet::new(), out: out.and_then(|out| out.canonicalize().ok()) };
    for argument in arguments {
        search.argument(argument);
    }
    search.found
}

struct Search {
    found: Found,
    seen: HashSet<PathBuf>,
    out: Option<PathBuf>,
}

impl Search {
    fn argument(&mut self, argument: &Path) {
        if argument == Path::new("-") {
            self.take("-".into(), "stdin".into());
        } else if argument.is_dir() {
            self.folder(argument);
        } else if argument.symlink_metadata().is_ok() {
            self.file(argument);
        } else if is_pattern(argument) {
            self.glob(argument);
        } else {
            self.fail(argument, "is not there; is the path right?");
        }
    }

    fn file(&mut self, path: &Path) {
        let name = path.file_name().unwrap_or(OsStr::new("photo"));
        self.take(path.to_path_buf(), name.into());
    }

    fn folder(&mut self, folder: &Path) {
        let (taken, failed) = (self.found.inputs.len() + self.found.repeated, self.found.failures.len());
        let out = self.out.clone();
        let is_out = |path: &Path| out.is_some() && path.canonicalize().ok() == out;
        // The output folder may lie in an input folder, or be one: what a run wrote is no photo for the next.
        let shared = is_out(folder);
        let wanted = |entry: &DirEntry| {
            entry.depth() == 0 || !(is_hidden(entry) || entry.file_type().is_dir() && is_out(entry.path()))
        };
        let walk = WalkDir::new(folder).follow_links(true).sort_by_file_name();
        for entry in walk.into_iter().filter_entry(wanted) {
            match entry {
                Err(error) => {
                    let path = error.path().unwrap_or(folder).to_path_buf();
                    self.fail(&path, format!("cannot be read: {error}"));
                }
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) if has_image_extension(entry.path()) && !(shared && is_output(entry.path())) => {
                    let place = entry.path().strip_prefix(folder).unwrap_or(entry.path()).to_path_buf();
                    self.take(entry.into_path(), place);
                }
                Ok(_) => self.found.passed_over += 1,
            }
        }
        if self.found.inputs.len() + self.found.repeated == taken && self.found.failures.len() == failed {
            self.fail(folder, format!("holds no images ({})", Image::EXTENSIONS.join(", ")));
        }
    }

    fn glob(&mut self, pattern: &Path) {
        let Some(text) = pattern.to_str() else {
            return self.fail(pattern, "is no pattern: it is not UTF-8");
        };
        // As in a shell, `*` leaves out hidden files.
        let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
        let matches = match glob::glob_with(text, options) {
            Ok(matches) => matches,
            Err(error) => return self.fail(pattern, format!("is no file and no pattern: {error}")),
        };
        let mut any = false;
        for found in matches {
            any = true;
            match found {
                Ok(path) if path.is_dir() => self.folder(&path),
                Ok(path) => self.file(&path),
                Err(error) => self.fail(error.path(), format!("cannot be read: {}", error.error())),
            }
        }
        if !any {
            self.fail(pattern, "matches no file");
        }
    }

    fn take(&mut self, path: PathBuf, place: PathBuf) {
        // One file under two names (a link, `./a` and `a`) is one photo.
        let identity = path.canonicalize().unwrap_or_else(|_| path.clone());
        if self.seen.insert(identity) {
            self.found.inputs.push(Input { path, place });
        } else {
            self.found.repeated += 1;
        }
    }

    fn fail(&mut self, path: &Path, reason: impl Into<String>) {
        self.found.failures.push((path.to_path_buf(), reason.into()));
    }
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with('.')
}

/// Files in folders are taken by their names; files named one by one whatever they are called.
fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    Image::EXTENSIONS.contains(&extension.as_str())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The places of what is found, and how many failures there are.
    fn places(arguments: &[&Path], out: Option<&Path>) -> (Vec<String>, usize) {
        let arguments: Vec<_> = arguments.iter().map(|path| path.to_path_buf()).collect();
        let found = find(&arguments, out);
        let places = found.inputs.iter().map(|input| input.place.to_string_lossy().replace('\\', "/"));
        (places.collect(), found.failures.len())
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    #[test]
    fn arguments_are_files_folders_globs_and_standard_input() {
        let files = ["b.png", "a.JPG", "sub/c.webp", "notes.txt", ".hidden.png", "sub/.git/d.png", "[x].png"];
        let folder = folder(&files);
        let root = folder.path();
        let cases: [(&[&Path], &[&str], usize); 10] = [
            (&[root], &["[x].png", "a.JPG", "b.png", "sub/c.webp"], 0), // sorted, recursive; no hidden file, no text
            (&[&root.join("notes.txt")], &["notes.txt"], 0),            // named: taken, whatever it is
            (&[&root.join("*.png")], &["[x].png", "b.png"], 0),         // a glob of the shell's kind
            (&[&root.join("s*")], &["c.webp"], 0),                      // that matches a folder
            (&[&root.join("[x].png")], &["[x].png"], 0),                // a file before a pattern
            (&[&root.join("b.png"), root], &["b.png", "[x].png", "a.JPG", "sub/c.webp"], 0), // each once, first place counts
            (&[&root.join("none.png")], &[], 1),
            (&[&root.join("*.bmp")], &[], 1),
            (&[&root.join("sub/.git")], &["d.png"], 0), // hidden, but named
            (&[Path::new("-"), Path::new("-")], &["stdin"], 0),
        ];
        for (arguments, want, failures) in cases {
            let want: Vec<String> = want.iter().map(ToString::to_string).collect();
            assert_eq!(places(arguments, None), (want, failures), "{arguments:?}");
        }
    }

    #[test]
    fn what_a_run_wrote_is_no_input_for_the_next() {
        let folder = folder(&["a.png", "out/a.mask.png", "a.mask.png"]);
        let root = folder.path();
        assert_eq!(places(&[root], Some(&root.join("out"))).0, ["a.mask.png", "a.png"]);
        assert_eq!(places(&[root], Some(root)).0, ["a.png"]);
    }

    #[test]
    fn a_folder_without_images_is_a_failure() {
        let folder = folder(&["notes.txt"]);
        let found = find(&[folder.path().to_path_buf()], None);
        assert!(found.failures[0].1.contains("holds no images"), "{found:?}");
        assert_eq!(found.passed_over, 1);
    }
}
