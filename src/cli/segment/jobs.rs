//! The photos to segment: files, objects, and the pictures of a stream as they arrive.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Cursor, Read, stdin};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rtformer::Error;
use rtformer::pixels::stream::Pictures;
use rtformer::pixels::{Image, Limits};

use super::super::objects::{Content, Pending, Store, Stores};
use super::emit::Emit;
use super::inputs::Failure;
use super::sorted::{Existing, Placed, Source};
use super::stop::Stop;

/// The size that is assumed for an object that was not listed, in bytes.
const ASSUMED: u64 = 8 << 20;

/// A photo to segment.
#[derive(Debug)]
pub(super) struct Job {
    /// Its name in reports and messages: its path, its URL, `-`, or the stream's name with the picture's number.
    pub(super) name: PathBuf,
    /// The path of its outputs without their endings.
    pub(super) stem: PathBuf,
    /// Its outputs that exist, if they were listed.
    pub(super) existing: Option<Vec<Existing>>,
    /// Whether an earlier run has done it, as far as this is known without reading it.
    pub(super) done: bool,
    bytes: Bytes,
}

/// Where a photo's bytes come from.
#[derive(Debug)]
enum Bytes {
    /// The file `name`.
    File,
    /// A picture of a stream, or an error instead. It can be read only once.
    Delivered(Option<rtformer::Result<Vec<u8>>>),
    Object {
        store: Arc<dyn Store>,
        key: String,
        size: u64,
        started: Option<Pending>,
    },
}

impl Job {
    fn delivered(name: PathBuf, stem: PathBuf, bytes: rtformer::Result<Vec<u8>>) -> Self {
        Self { name, stem, existing: None, done: false, bytes: Bytes::Delivered(Some(bytes)) }
    }

    /// A photo in a file or object store. If the store cannot be opened, reading the photo fails.
    pub(super) fn new(placed: Placed, stores: &mut Stores) -> Self {
        let Placed { input, stem, object, existing } = placed;
        let bytes = match (object, input.url) {
            (Some(Source { store, object }), _) => {
                Bytes::Object { store, key: object.key, size: object.size, started: None }
            }
            (None, Some(url)) => match stores.open(&url) {
                Ok(store) => Bytes::Object { store, key: url.key().to_owned(), size: ASSUMED, started: None },
                Err(reason) => Bytes::Delivered(Some(Err(Error::Input(format!("{url}: {reason}"))))),
            },
            (None, None) => Bytes::File,
        };
        Self { name: input.path, stem, existing, done: false, bytes }
    }

    /// The file that it comes from, if it does.
    pub(super) fn file(&self) -> Option<&Path> {
        matches!(self.bytes, Bytes::File).then_some(&*self.name)
    }

    /// Whether an output is known to exist.
    pub(super) fn has(&self, emit: Emit) -> bool {
        self.existing.iter().flatten().any(|output| output.emit == emit)
    }

    /// The number of bytes of an object to read ahead. `None` for files and streams.
    pub(super) fn size(&self) -> Option<u64> {
        match self.bytes {
            Bytes::Object { .. } if self.done => Some(0),
            Bytes::Object { size, .. } => Some(size),
            _ => None,
        }
    }

    /// Starts to read an object.
    pub(super) fn start(&mut self) {
        if let Bytes::Object { store, key, started, .. } = &mut self.bytes
            && !self.done
        {
            *started = Some(store.get(key, Limits::default().max_alloc));
        }
    }

    /// The photo's bytes, and the tag of an object.
    pub(super) fn read(&mut self) -> rtformer::Result<Content> {
        let file = |bytes| Content { bytes, tag: None };
        match &mut self.bytes {
            Bytes::File => Image::read(&self.name, &Limits::default()).map(file),
            Bytes::Delivered(bytes) => {
                let again = || Err(Error::Input(format!("{}: was read already", self.name.display())));
                bytes.take().unwrap_or_else(again).map(file)
            }
            Bytes::Object { store, key, started, .. } => {
                started.take().unwrap_or_else(|| store.get(key, Limits::default().max_alloc)).wait()
            }
        }
    }
}

/// The jobs for the inputs, in order. Streams are read as the jobs are requested. If `only_one` is set, a stream of several pictures is an
/// error. `is_done` says whether an earlier run has done a photo, or why it is not to be read.
pub(super) fn jobs<'a>(
    inputs: impl Iterator<Item = Result<Placed, Failure>> + Send + 'a,
    mut stores: Stores,
    is_done: impl Fn(&Placed) -> rtformer::Result<bool> + Send + 'a,
    only_one: bool,
    stop: &Stop,
) -> impl Iterator<Item = Job> + Send + 'a {
    let stop = stop.clone();
    inputs.flat_map(move |input| -> Box<dyn Iterator<Item = Job> + Send> {
        match input {
            Ok(placed) if placed.input.stream => {
                let Placed { input, stem, .. } = placed;
                let pictures = Pictures::new(Reader::open(&input.path, &stop), &input.path, &Limits::default());
                Box::new(numbered(input.path, stem, pictures, only_one))
            }
            Ok(placed) => Box::new(iter::once(match is_done(&placed) {
                Ok(done) => Job { done, ..Job::new(placed, &mut stores) },
                Err(error) => Job::delivered(placed.input.path, placed.stem, Err(error)),
            })),
            Err(Failure { path, reason, .. }) => {
                let error = Error::Input(format!("{}: {reason}", path.display()));
                Box::new(iter::once(Job::delivered(path, PathBuf::new(), Err(error))))
            }
        }
    })
}

/// A single picture has the stream's own name. Several are numbered from 1, so the first one's name is known only once a second picture or
/// the end of the stream follows.
fn numbered(
    path: PathBuf,
    stem: PathBuf,
    pictures: impl Iterator<Item = rtformer::Result<Vec<u8>>> + Send,
    only_one: bool,
) -> impl Iterator<Item = Job> + Send {
    let mut pictures = pictures.peekable();
    let mut number = 0_u64;
    iter::from_fn(move || {
        let picture = pictures.next()?;
        number += 1;
        if number == 1 && pictures.peek().is_none() {
            return Some(Job::delivered(path.clone(), stem.clone(), picture));
        }
        if only_one {
            // One error for the whole stream.
            let several =
                Error::image(&path, "holds several pictures, but -o - writes the output of one; use -o FOLDER");
            return (number == 1).then(|| Job::delivered(path.clone(), stem.clone(), Err(several)));
        }
        let name = if path == Path::new("-") { Path::new("stdin") } else { &path };
        Some(Job::delivered(with_number(name, number), with_number(&stem, number), picture))
    })
}

fn with_number(path: &Path, number: u64) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(format!("-{number:06}"));
    path.into()
}

/// Whether a picture of the stream `stem` could get the name `other`.
pub(super) fn could_be_numbered(stem: &Path, other: &Path) -> bool {
    let (stem, other) = (stem.to_string_lossy().to_lowercase(), other.to_string_lossy().to_lowercase());
    let number = other.strip_prefix(&stem).and_then(|rest| rest.strip_prefix('-'));
    number.is_some_and(|number| number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Standard input or a pipe, read on a separate thread, so that a signal ends a wait for input.
struct Reader {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Cursor<Vec<u8>>,
    stop: Stop,
}

impl Reader {
    /// The interval at which a wait checks whether to stop.
    const PATIENCE: Duration = Duration::from_millis(50);

    fn open(path: &Path, stop: &Stop) -> Self {
        let (sender, chunks) = bounded(2);
        let path = path.to_path_buf();
        // Not scoped: a read that never returns ends with the program.
        let spawned = thread::Builder::new().name("stream".into()).spawn({
            let sender = sender.clone();
            move || {
                let opened: io::Result<Box<dyn Read>> = if path == Path::new("-") {
                    Ok(Box::new(stdin()))
                } else {
                    File::open(&path).map(|file| Box::new(file) as Box<dyn Read>) // a pipe waits for its writer
                };
                let failed = opened.and_then(|mut input| {
                    loop {
                        let mut chunk = vec![0; 64 << 10];
                        match input.read(&mut chunk) {
                            Ok(0) => return Ok(()),
                            Ok(length) => chunk.truncate(length),
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                            Err(error) => return Err(error),
                        }
                        if sender.send(Ok(chunk)).is_err() {
                            return Ok(()); // the receiver is gone
                        }
                    }
                });
                if let Err(error) = failed {
                    let _ = sender.send(Err(error));
                }
            }
        });
        if let Err(error) = spawned {
            let _ = sender.send(Err(error)); // the channel has room
        }
        Self { chunks, chunk: Cursor::default(), stop: stop.clone() }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.chunk.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            self.chunk = match self.chunks.recv_timeout(Self::PATIENCE) {
                Ok(chunk) => Cursor::new(chunk?),
                Err(RecvTimeoutError::Timeout) if !self.stop.asked() => continue,
                Err(_) => return Ok(0),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_pictures_are_numbered() {
        let names = |path: &str, count: usize, only_one: bool| {
            let pictures = (0..count).map(|_| Ok(vec![0]));
            let jobs = numbered(path.into(), "out/stdin".into(), pictures, only_one);
            jobs.map(|mut job| {
                let failed = job.read().is_err();
                format!("{} {}{}", job.name.display(), job.stem.display(), if failed { " failed" } else { "" })
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(names("-", 1, false), ["- out/stdin"], "a single picture has the stream's name");
        assert_eq!(names("-", 2, false), ["stdin-000001 out/stdin-000001", "stdin-000002 out/stdin-000002"]);
        assert_eq!(names("/p/fifo", 2, false)[1], "/p/fifo-000002 out/stdin-000002");
        assert_eq!(names("-", 1, true), ["- out/stdin"]);
        assert_eq!(names("-", 3, true), ["- out/stdin failed"]);
        assert!(names("-", 0, false).is_empty());
    }

    #[test]
    fn names_that_could_be_numbered_pictures_are_recognized() {
        let cases = [
            ("stdin-000001", true),
            ("STDIN-1234567", true),
            ("stdin-1", false),
            ("stdin", false),
            ("a/stdin-000001", false),
        ];
        for (other, want) in cases {
            assert_eq!(could_be_numbered(Path::new("stdin"), Path::new(other)), want, "{other}");
        }
    }
}
