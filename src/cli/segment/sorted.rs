//! The photos of prefixes in object stores, while they are being listed: merged with the other inputs in the order of their places, named,
//! and compared with the listing of the outputs. Only a few names are in memory at a time.
//!
//! All listings are in the order of their keys' bytes. The names of a photo's outputs depend on photos with the same stem, so photos are
//! named in groups: a group is a place without its extension and a dot, and all places that start with this. Groups follow each other in
//! the listing, and no two share an output.

use std::collections::{HashMap, VecDeque};
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rtformer::pixels::sniff;
use rtformer::{Error, Image};

use super::super::objects::{Listing, Object, Store, Url};
use super::super::stems::stems;
use super::emit::Emit;
use super::inputs::{Failure, Input};

/// The largest group. It bounds the memory for names such as `run.0`, `run.1/…`, `run.2/…`.
const LARGEST: usize = 10_000;

/// A photo with the names of its outputs.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) input: Input,
    /// The path or URL of its outputs without their endings.
    pub(super) stem: PathBuf,
    /// The photo, if it was found in a listing.
    pub(super) object: Option<Source>,
    /// Its outputs that exist, if they were listed.
    pub(super) existing: Option<Vec<Existing>>,
}

/// An object to read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) store: Arc<dyn Store>,
    pub(super) object: Object,
}

/// An output that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Existing {
    pub(super) emit: Emit,
    pub(super) tag: String,
    pub(super) size: u64,
}

/// What was found in listings and is not a photo.
#[derive(Debug, Default)]
pub(super) struct PassedOver {
    other: AtomicUsize,
    outputs: AtomicUsize,
}

impl PassedOver {
    /// One text per kind, with its number.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> + use<> {
        let (other, outputs) = (self.other.load(Ordering::Relaxed), self.outputs.load(Ordering::Relaxed));
        let kinds = [(other, "objects are not photos"), (outputs, "objects are outputs of earlier runs")];
        kinds.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"))
    }
}

/// A name in the order of the listings.
#[derive(Debug)]
struct Candidate {
    /// The place with slashes, and a dot at its end if it has no extension, so that it is in its group.
    order: String,
    place: PathBuf,
    /// `None` for an output that is no photo. It can show that another file is an output, too.
    input: Option<(Input, Option<Source>)>,
}

impl Candidate {
    fn new(place: PathBuf, input: Option<(Input, Option<Source>)>) -> Self {
        let mut order = slashes(&place);
        if place.extension().is_none() {
            order.push('.');
        }
        Self { order, place, input }
    }

    fn is_listed(&self) -> bool {
        self.input.as_ref().is_none_or(|(_, source)| source.is_some())
    }

    /// The start of the group that it opens.
    fn group(&self) -> String {
        let output = Emit::of(&self.place).filter(|_| self.is_listed());
        let stem = output.map_or_else(|| self.place.with_extension(""), |(_, stem)| stem);
        slashes(&stem) + "."
    }
}

fn slashes(path: &Path) -> String {
    let text = path.to_string_lossy();
    if cfg!(windows) { text.replace('\\', "/") } else { text.into_owned() }
}

type Names = Box<dyn Iterator<Item = Result<Candidate, Failure>> + Send>;

/// The photos below a prefix, and the outputs among them. Hidden names and what is below `out` are not searched.
fn below(prefix: Url, store: Arc<dyn Store>, out: Option<Url>, counts: Arc<PassedOver>) -> Names {
    let mut listing = store.list(prefix.key());
    let (mut photos, mut objects) = (0_usize, 0_usize);
    let mut ended = false;
    Box::new(std::iter::from_fn(move || {
        while !ended {
            let object = match listing.next() {
                Some(Ok(object)) => object,
                Some(Err(error)) => {
                    ended = true;
                    return Some(Err(failure(&prefix, reason(error, "its remaining photos were not segmented"))));
                }
                None => {
                    ended = true;
                    let reason = match objects {
                        _ if photos > 0 => break,
                        0 => "holds no objects; check the name (a single object is recognised by its extension)".into(),
                        _ => format!("holds no images ({})", Image::EXTENSIONS.join(", ")),
                    };
                    return Some(Err(failure(&prefix, reason)));
                }
            };
            objects += 1;
            let Some(place) = prefix.below(&object.key).map(PathBuf::from) else { continue };
            let hidden = place.iter().any(|part| part.to_string_lossy().starts_with('.'));
            if hidden || out.as_ref().is_some_and(|out| out.holds(prefix.root(), &object.key)) {
                continue;
            }
            let is_photo = sniff::is_photo_name(&place);
            if !is_photo && Emit::of(&place).is_none() {
                counts.other.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            photos += usize::from(is_photo);
            let input = is_photo.then(|| {
                let path = format!("{}/{}", prefix.root(), object.key).into();
                let input = Input { path, place: place.clone(), stream: false, url: None };
                (input, Some(Source { store: Arc::clone(&store), object }))
            });
            return Some(Ok(Candidate::new(place, input)));
        }
        None
    }))
}

/// Why a listing ended early.
fn reason(error: Error, hint: &str) -> String {
    match error {
        Error::Read { cause, .. } => format!("cannot be listed: {cause}; {hint}"),
        other => format!("{other}; {hint}"),
    }
}

fn failure(url: &Url, reason: String) -> Failure {
    Failure { path: url.to_string().into(), place: None, reason }
}

/// The sources of photos in the order of their places.
struct Merged {
    sources: Vec<Peekable<Names>>,
}

impl Iterator for Merged {
    type Item = Result<Candidate, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        // Errors come first. Of equal places, the first source's comes first.
        let mut least: Option<(usize, &str)> = None;
        for (index, source) in self.sources.iter_mut().enumerate() {
            match source.peek() {
                Some(Err(_)) => {
                    least = Some((index, ""));
                    break;
                }
                Some(Ok(candidate)) if least.is_none_or(|(_, order)| *candidate.order < *order) => {
                    least = Some((index, &candidate.order));
                }
                None | Some(Ok(_)) => {}
            }
        }
        let index = least?.0;
        self.sources[index].next()
    }
}

/// The outputs that exist, read along with the photos.
struct Outputs {
    folder: Url,
    emits: Vec<Emit>,
    listing: Peekable<Listing>,
    /// Outputs that were read and may belong to a later group: those of `a`, while the groups start with `a.`.
    held: HashMap<String, Object>,
}

impl Outputs {
    /// Fills in which outputs of a group's photos exist. The stems are places.
    fn compare(&mut self, start: &str, group: &mut [Placed]) -> rtformer::Result<()> {
        let names =
            |placed: &Placed| self.emits.iter().map(|emit| (slashes(&emit.path(&placed.stem)), *emit)).collect();
        let wanted: Vec<Vec<(String, Emit)>> = group.iter().map(names).collect();
        let is_wanted: std::collections::HashSet<&str> =
            wanted.iter().flatten().map(|(name, _)| name.as_str()).collect();
        let is_later =
            |name: &str| Emit::of(Path::new(name)).is_some_and(|(_, stem)| start.starts_with(&(slashes(&stem) + ".")));
        self.held.retain(|name, _| is_later(name) || is_wanted.contains(name.as_str()));
        while let Some(next) = self.listing.next_if(|next| match next {
            Ok(object) => self.folder.below(&object.key).is_none_or(|name| name < start || name.starts_with(start)),
            Err(_) => true,
        }) {
            let object = next?;
            let Some(name) = self.folder.below(&object.key) else { continue };
            if is_wanted.contains(name) || is_later(name) {
                self.held.insert(name.to_owned(), object);
            }
        }
        for (placed, names) in group.iter_mut().zip(wanted) {
            let existing = names.into_iter().filter_map(|(name, emit)| {
                let object = self.held.get(&name)?;
                Some(Existing { emit, tag: object.tag.clone(), size: object.size })
            });
            placed.existing = Some(existing.collect());
        }
        Ok(())
    }
}

/// The photos of local inputs and prefixes, sorted, with the names of their outputs.
pub(super) struct Sorted {
    names: Merged,
    /// Names that were read ahead.
    ahead: VecDeque<Candidate>,
    ready: VecDeque<Result<Placed, Failure>>,
    outputs: Option<Outputs>,
    /// The folder or URL to write to.
    out: String,
    counts: Arc<PassedOver>,
    ended: bool,
}

impl Sorted {
    /// `out` is the folder or URL to write to. `folder` is the URL, if it is one. If `compared` is set, the outputs of these kinds in that
    /// store are listed.
    pub(super) fn new(
        inputs: Vec<Input>,
        prefixes: Vec<(Url, Arc<dyn Store>)>,
        out: String,
        folder: Option<&Url>,
        compared: Option<(Arc<dyn Store>, Vec<Emit>)>,
        counts: &Arc<PassedOver>,
    ) -> Self {
        let known = inputs.into_iter().map(|input| Candidate::new(input.place.clone(), Some((input, None))));
        let mut known: Vec<_> = known.collect();
        known.sort_by(|a, b| a.order.cmp(&b.order)); // stable, so inputs with the same place keep their order
        let known: Names = Box::new(known.into_iter().map(Ok));
        let listed = prefixes.into_iter().map(|(url, store)| below(url, store, folder.cloned(), Arc::clone(counts)));
        let sources = std::iter::once(known).chain(listed).map(Iterator::peekable).collect();
        let outputs = folder.zip(compared).map(|(folder, (store, emits))| Outputs {
            folder: folder.clone(),
            emits,
            listing: store.list(folder.key()).peekable(),
            held: HashMap::new(),
        });
        Self {
            names: Merged { sources },
            ahead: VecDeque::new(),
            ready: VecDeque::new(),
            outputs,
            out,
            counts: Arc::clone(counts),
            ended: false,
        }
    }

    /// The next name. Failures are passed on.
    fn candidate(&mut self) -> Option<Candidate> {
        if let Some(candidate) = self.ahead.pop_front() {
            return Some(candidate);
        }
        loop {
            match self.names.next()? {
                Ok(candidate) => return Some(candidate),
                Err(failure) => self.ready.push_back(Err(failure)),
            }
        }
    }

    /// Reads the next group and names its photos.
    fn advance(&mut self) {
        let Some(first) = self.candidate() else {
            self.ended = true;
            return;
        };
        let start = first.group();
        let mut group = vec![first];
        while let Some(next) = self.candidate() {
            if !next.order.starts_with(&start) {
                self.ahead.push_front(next);
                break;
            }
            group.push(next);
            if group.len() > LARGEST {
                // Only the first photo's name depends on all others.
                let first = group.remove(0);
                group.into_iter().rev().for_each(|candidate| self.ahead.push_front(candidate));
                if let Some((Input { path, place, .. }, _)) = first.input {
                    let reason = format!(
                        "more than {LARGEST} names start with `{start}`, so the names of its outputs cannot be chosen; segment it separately"
                    );
                    self.ready.push_back(Err(Failure { path, place: Some(place), reason }));
                }
                return;
            }
        }
        let mut placed = self.named(group);
        if let Some(outputs) = &mut self.outputs
            && let Err(error) = outputs.compare(&start, &mut placed)
        {
            let hint = "the remaining photos were not segmented, because it is unknown which of their outputs exist";
            self.ready.push_back(Err(failure(&outputs.folder, reason(error, hint))));
            self.ended = true;
            return;
        }
        let out = &self.out;
        self.ready.extend(placed.into_iter().map(|mut placed| {
            placed.stem = format!("{out}/{}", slashes(&placed.stem)).into();
            Ok(placed)
        }));
    }

    /// The photos of a group with their stems, as places.
    fn named(&self, group: Vec<Candidate>) -> Vec<Placed> {
        let places: Vec<_> = group.iter().map(|candidate| candidate.place.clone()).collect();
        let outputs: Vec<_> = places.iter().map(|place| Emit::of(place)).collect();
        let is_earlier_output = |index: usize| {
            let Some((emit, stem)) = &outputs[index] else { return false };
            let is_photo = |place: &PathBuf| {
                let extension = place.extension().map(|ending| ending.to_string_lossy().to_lowercase());
                place == stem
                    || extension.is_some_and(|ending| Image::EXTENSIONS.contains(&&*ending))
                        && place.with_extension("") == *stem
            };
            places.iter().any(is_photo) || outputs.iter().flatten().any(|(other, also)| other != emit && also == stem)
        };
        let mut photos = Vec::new();
        for (index, candidate) in group.into_iter().enumerate() {
            let listed = candidate.is_listed();
            let Some((input, object)) = candidate.input else { continue };
            if listed && is_earlier_output(index) {
                self.counts.outputs.fetch_add(1, Ordering::Relaxed);
            } else {
                photos.push((input, object));
            }
        }
        let places: Vec<_> = photos.iter().map(|(input, _)| input.place.as_path()).collect();
        let stems = stems(Path::new(""), &places);
        let placed = photos.into_iter().zip(stems);
        placed.map(|((input, object), stem)| Placed { input, stem, object, existing: None }).collect()
    }
}

impl Iterator for Sorted {
    type Item = Result<Placed, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.ended {
            self.advance();
        }
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests;
