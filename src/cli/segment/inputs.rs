//! Finds the photos of a command line: files, folders, globs, list files, URLs and standard input. Each photo is found once, in a fixed
//! order. Prefixes in object stores are listed later.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use rtformer::Image;
use rtformer::pixels::sniff::{is_photo, is_photo_name};
use walkdir::{DirEntry, WalkDir};

use super::super::console::counted;
use super::super::list;
use super::super::objects::{Url, is_url};
use super::emit::Emit;
use super::record::{self, Origin};

/// A photo to segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    /// `-` is standard input.
    pub(super) path: PathBuf,
    /// Its place in the output folder: its path in the named folder or list, or its file name.
    pub(super) place: PathBuf,
    /// Whether it can contain several pictures: standard input, or a named pipe.
    pub(super) stream: bool,
    /// The object to read, if it was named by its URL. `path` is the URL as it was written.
    pub(super) url: Option<Url>,
}

/// A path that was named or found and cannot be used.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) path: PathBuf,
    /// As for an input. `None` for arguments, lists and folders.
    pub(super) place: Option<PathBuf>,
    pub(super) reason: String,
}

/// The inputs, the failures, and the numbers of skipped files.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) inputs: Vec<Input>,
    /// Prefixes in object stores.
    pub(super) prefixes: Vec<Url>,
    pub(super) failures: Vec<Failure>,
    /// Paths that were named more than once, and are used once.
    pub(super) repeated: usize,
    /// Files in folders that are not photos.
    pub(super) other: usize,
    /// Files in folders that were written by earlier runs.
    pub(super) outputs: usize,
    /// Pipes, sockets and devices in folders.
    pub(super) special: usize,
}

impl Found {
    /// Describes the skipped files: one text per kind, with its number.
    pub(super) fn passed_over(&self) -> impl Iterator<Item = String> + use<> {
        let kinds = [
            (self.repeated, "path", "named twice"),
            (self.other, "file", "in folders skipped: no photo"),
            (self.outputs, "file", "in folders skipped: output of an earlier run"),
            (self.special, "file", "in folders skipped: pipe, socket or device"),
        ];
        kinds
            .into_iter()
            .filter(|kind| kind.0 > 0)
            .map(|(count, noun, what)| format!("{} {what}", counted(count, noun)))
    }
}

/// Searches the arguments in their order, then the list files. Folders are sorted by file name. The folder `out` is not searched.
pub(super) fn find(arguments: &[PathBuf], lists: &[PathBuf], out: Option<&Path>) -> Found {
    let mut search =
        Search { found: Found::default(), seen: HashSet::new(), out: out.and_then(|out| out.canonicalize().ok()) };
    for argument in arguments {
        search.argument(argument);
    }
    for list in lists {
        match list::read(list) {
            Ok(entries) if entries.is_empty() => search.fail(list, "lists no photos"),
            Ok(entries) => search.entries(list, entries),
            Err(reason) => search.fail(list, reason),
        }
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
            self.take("-".into(), "stdin".into(), true);
        } else if is_url(argument) {
            self.url(argument);
        } else if argument.symlink_metadata().is_ok() {
            self.existing(argument);
        } else if is_pattern(argument) {
            self.glob(argument);
        } else {
            self.fail(argument, "does not exist; check the path");
        }
    }

    fn url(&mut self, path: &Path) {
        let url = match Url::parse(path) {
            Ok(url) => url,
            Err(reason) => return self.fail(path, reason),
        };
        if list::has_list_extension(path) {
            self.fail(path, "is a list file in an object store; copy it to this machine and name the copy");
        } else if !url.is_prefix(is_photo_name) {
            let (path, place) = (path.to_path_buf(), url.name().into());
            self.insert(Input { path, place, stream: false, url: Some(url) });
        } else if url.is_web() {
            self.fail(path, "names no photo, and a web server cannot list its photos; name a single photo");
        } else if self.found.prefixes.contains(&url) {
            self.found.repeated += 1;
        } else {
            self.found.prefixes.push(url);
        }
    }

    fn existing(&mut self, path: &Path) {
        if path.is_dir() {
            self.folder(path);
        } else if path.is_file() && list::has_list_extension(path) {
            self.possible_list(path);
        } else {
            self.file(path);
        }
    }

    /// A text file is a list if one of its lines names a file, and an error if none does. A file that is empty or not text is treated as a
    /// photo, so that decoding reports what is wrong with it.
    fn possible_list(&mut self, path: &Path) {
        match list::read(path) {
            Ok(entries) if entries.iter().any(|entry| is_url(&entry.photo) || entry.photo.exists()) => {
                self.entries(path, entries);
            }
            Ok(entries) if !entries.is_empty() => self.fail(
                path,
                format!(
                    "is not a list of photos: of its {}, none names an existing file (the first is {})",
                    counted(entries.len(), "line"),
                    entries[0].photo.display()
                ),
            ),
            _ => self.file(path),
        }
    }

    fn entries(&mut self, list: &Path, entries: Vec<list::Entry>) {
        let folder = list.parent().unwrap_or(Path::new(""));
        for list::Entry { line, photo, .. } in entries {
            if is_url(&photo) {
                self.url(&photo);
                continue;
            }
            let place = place_in(folder, &photo);
            if photo.exists() {
                self.take(photo, place, false);
            } else {
                self.fail_at(&photo, Some(place), format!("does not exist ({}, line {line})", list.display()));
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let name = path.file_name().unwrap_or(OsStr::new("photo"));
        let stream = path.metadata().is_ok_and(|found| !found.is_file());
        self.take(path.to_path_buf(), name.into(), stream);
    }

    fn folder(&mut self, folder: &Path) {
        let before = (self.found.inputs.len() + self.found.repeated, self.found.failures.len());
        let outputs = self.found.outputs;
        let out = self.out.clone();
        let is_out = |path: &Path| out.is_some() && path.canonicalize().ok() == out;
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
                // Reading a pipe could wait forever, and reading a device could change it.
                Ok(entry) if !entry.file_type().is_file() => self.found.special += 1,
                Ok(entry) => {
                    let place = entry.path().strip_prefix(folder).unwrap_or(entry.path()).to_path_buf();
                    match is_photo(entry.path()) {
                        Ok(true) if is_earlier_output(entry.path()) => self.found.outputs += 1,
                        Ok(true) => self.take(entry.into_path(), place, false),
                        Ok(false) => self.found.other += 1,
                        Err(error) => self.fail_at(entry.path(), Some(place), format!("cannot be read: {error}")),
                    }
                }
            }
        }
        if (self.found.inputs.len() + self.found.repeated, self.found.failures.len()) == before {
            let outputs = self.found.outputs - outputs;
            let reason = match outputs {
                0 => format!("holds no images ({})", Image::EXTENSIONS.join(", ")),
                _ => format!("holds no photos, but {} of earlier runs", counted(outputs, "output")),
            };
            self.fail(folder, reason);
        }
    }

    fn glob(&mut self, pattern: &Path) {
        let Some(text) = pattern.to_str() else {
            return self.fail(pattern, "is not a pattern, because it is not UTF-8");
        };
        // As in a shell, `*` does not match hidden files.
        let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::new() };
        let matches = match glob::glob_with(text, options) {
            Ok(matches) => matches,
            Err(error) => return self.fail(pattern, format!("is neither a file nor a valid pattern: {error}")),
        };
        let mut any = false;
        for found in matches {
            any = true;
            match found {
                Ok(path) => self.existing(&path),
                Err(error) => self.fail(error.path(), format!("cannot be read: {}", error.error())),
            }
        }
        if !any {
            self.fail(pattern, "matches no file");
        }
    }

    fn take(&mut self, path: PathBuf, place: PathBuf, stream: bool) {
        self.insert(Input { path, place, stream, url: None });
    }

    fn insert(&mut self, input: Input) {
        let path = if input.url.is_some() { input.path.clone() } else { absolute(&input.path) };
        if self.seen.insert(path) {
            self.found.inputs.push(input);
        } else {
            self.found.repeated += 1;
        }
    }

    fn fail(&mut self, path: &Path, reason: impl Into<String>) {
        self.fail_at(path, None, reason);
    }

    fn fail_at(&mut self, path: &Path, place: Option<PathBuf>, reason: impl Into<String>) {
        self.found.failures.push(Failure { path: path.to_path_buf(), place, reason: reason.into() });
    }
}

/// The absolute path without `.` and `..`: `./a`, `sub/../a` and `a` are the same. Links are kept, because each name of a file is a separate
/// photo.
fn absolute(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let components: Vec<_> = absolute.components().collect();
    let Some(last) = components.iter().rposition(|component| *component == Component::ParentDir) else {
        return absolute;
    };
    // The meaning of `..` depends on links.
    let (start, rest) = components.split_at(last + 1);
    let start: PathBuf = start.iter().collect();
    rest.iter().fold(start.canonicalize().unwrap_or(start), |path, component| path.join(component))
}

/// The place of a listed photo's outputs: its path from the list's folder or the current folder, or its file name if it is elsewhere.
fn place_in(folder: &Path, photo: &Path) -> PathBuf {
    let inner = photo.strip_prefix(folder).unwrap_or(photo);
    let inside = inner.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    let named = inner.components().filter(|component| matches!(component, Component::Normal(_)));
    if inside { named.collect() } else { photo.file_name().unwrap_or(OsStr::new("photo")).into() }
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with('.')
}

/// Whether an earlier run wrote a file. Either it has a record, or it has the name of an output and is beside its photo or another of the
/// photo's outputs. The second rule is for files of old versions and of other programs, which have no record.
fn is_earlier_output(path: &Path) -> bool {
    let Some((emit, stem)) = Emit::of(path) else { return false };
    if matches!(record::read(path), Origin::Known(_)) {
        return true;
    }
    let with = |ending: &str| {
        let mut name = stem.clone().into_os_string();
        name.push(format!(".{ending}"));
        PathBuf::from(name).exists()
    };
    let photo = |ending: &&str| with(ending) || with(&ending.to_ascii_uppercase());
    stem.is_file()
        || Image::EXTENSIONS.iter().any(photo)
        || Emit::ALL.into_iter().any(|other| other != emit && other.path(&stem).exists())
}

#[cfg(test)]
mod tests;
