//! Where outputs go: to files, to standard output, or to an object store.

use std::fs;
use std::io::{self, Cursor, Write, stdout};
use std::path::Path;
use std::sync::Arc;

use rtformer::Error;
use rtformer::files::{WholeFile, sweep, write_whole};

use super::super::console::Console;
use super::super::misuse;
use super::super::objects::{Part, Put, Store, Stores, Url, is_url};
use super::args::Args;
use super::emit::Emit;
use super::jobs::Job;
use super::journal::{Journal, fingerprint};
use super::outputs::{self, Progress};
use super::record::{self, Origin, Record, Settings};
use super::sorted::{Existing, Placed};

/// Where outputs go.
#[derive(Debug)]
pub(super) enum Target {
    Files,
    Stdout,
    Bucket(Box<Bucket>),
}

/// A prefix of an object store.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) store: Arc<dyn Store>,
    pub(super) url: Url,
    journal: Journal,
}

/// An output that is written in parts.
pub(super) enum Output {
    File(WholeFile),
    /// An object, or standard output.
    Memory(Vec<u8>),
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Memory(memory) => memory.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Memory(_) => Ok(()),
        }
    }
}

impl Target {
    /// The target of `--out`.
    pub(super) fn open(args: &Args, stores: &mut Stores) -> anyhow::Result<Self> {
        if args.to_stdout() {
            return Ok(Self::Stdout);
        }
        let Some(out) = args.folder().filter(|out| is_url(out)) else { return Ok(Self::Files) };
        let wrong = |reason: String| misuse(format!("-o {}: {reason}", out.display()));
        let url = Url::parse(out).map_err(wrong)?;
        if url.is_web() {
            return Err(wrong("a web server cannot store objects; use s3, gs, az, or a folder".into()));
        }
        let store = stores.open(&url).map_err(wrong)?;
        let journal = Journal::new(Arc::clone(&store), &url);
        Ok(Self::Bucket(Box::new(Bucket { store, url, journal })))
    }

    pub(super) fn bucket(&self) -> Option<&Bucket> {
        if let Self::Bucket(bucket) = self { Some(bucket) } else { None }
    }

    /// Prepares the first write.
    pub(super) fn start(&mut self, args: &Args, console: &Console) -> rtformer::Result<()> {
        match (&mut *self, args.folder()) {
            (Self::Bucket(bucket), _) if args.resume => {
                if let Err(error) = bucket.journal.read() {
                    console.note(&format!("warning: {error}; the outputs are read instead, which is slower"));
                }
            }
            (Self::Files, Some(out)) if !args.dry_run => {
                fs::create_dir_all(out).map_err(Error::writing(out))?;
                if args.resume {
                    sweep(out);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the listings and the fingerprints show that a photo is done.
    pub(super) fn is_done(&self, emits: &[Emit], placed: &Placed, settings: &Settings) -> bool {
        let (Self::Bucket(bucket), Some(source), Some(existing)) = (self, &placed.object, &placed.existing) else {
            return false;
        };
        let record = Record::new(&placed.input.path, b"", settings);
        bucket.knows(emits, &placed.stem, existing, &source.object.tag, &record)
    }

    /// Fails if an output exists. `listed` holds the outputs that exist in an object store, if they were listed.
    pub(super) fn check_absent(
        &self,
        emits: &[Emit],
        stem: &Path,
        listed: Option<&[Existing]>,
    ) -> rtformer::Result<()> {
        let exists = |emit: &&Emit| match self {
            Self::Stdout => false,
            Self::Files => emit.path(stem).exists(),
            Self::Bucket(_) => listed.is_some_and(|listed| listed.iter().any(|output| output.emit == **emit)),
        };
        emits.iter().find(exists).map_or(Ok(()), |emit| Err(outputs::exists(&emit.path(stem))))
    }

    /// The state of a photo's outputs for `--resume`. `photo` is the version of the photo.
    pub(super) fn progress(
        &self,
        emits: &[Emit],
        job: &mut Job,
        photo: &str,
        record: &Record,
    ) -> rtformer::Result<Progress> {
        match self {
            Self::Stdout => Ok(Progress::Open),
            Self::Files => outputs::progress(emits, &job.stem, record, |_, path| Ok(record::read(path))),
            Self::Bucket(bucket) => bucket.progress(emits, job, photo, record),
        }
    }

    /// Checks that outputs can be written, before the first one is.
    pub(super) fn check_writable(&self, emits: &[Emit], stem: &Path) -> rtformer::Result<()> {
        if let Self::Files = self { outputs::check_writable(emits, stem) } else { Ok(()) }
    }

    /// Writes a complete output and returns its tag, if it is an object. Unless `replace` is set, an object that exists is an error.
    pub(super) fn write(
        &self,
        path: &Path,
        replace: bool,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> rtformer::Result<Option<String>> {
        if let Self::Files = self {
            return write_whole(path, |file| fill(file)).map(|()| None);
        }
        let mut bytes = Vec::new();
        let filled = fill(&mut bytes);
        if let Self::Bucket(bucket) = self {
            filled.map_err(Error::writing(path))?;
            return match bucket.store.put(&bucket.key(path), bytes, replace)? {
                Put::Written(tag) => Ok(Some(tag)),
                Put::Exists => Err(outputs::exists(path)),
            };
        }
        let sent = filled.and_then(|()| {
            let mut out = stdout().lock();
            out.write_all(&bytes).and_then(|()| out.flush())
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None), // the reader closed the pipe
            sent => sent.map_err(Error::writing("standard output")).map(|()| None),
        }
    }

    /// Starts an output that is written in parts.
    pub(super) fn begin(&self, path: &Path) -> rtformer::Result<Output> {
        match self {
            Self::Files => WholeFile::create(path).map(Output::File),
            Self::Stdout | Self::Bucket(_) => Ok(Output::Memory(Vec::new())),
        }
    }

    /// Completes it. Otherwise like [`write`](Self::write).
    pub(super) fn finish(&self, output: Output, path: &Path, replace: bool) -> rtformer::Result<Option<String>> {
        match output {
            Output::File(file) => file.finish().map(|()| None),
            Output::Memory(bytes) => self.write(path, replace, |out| out.write_all(&bytes)),
        }
    }

    /// The fingerprint of an output with this tag.
    pub(super) fn fingerprint(&self, emit: Emit, stem: &Path, tag: &str, photo: &str, record: &Record) -> Option<u128> {
        let name = self.bucket()?.name(&emit.path(stem));
        Some(fingerprint(&name, tag, photo, &record.of(emit)))
    }

    /// The fingerprints of a photo's outputs that were found to be done by reading them.
    pub(super) fn fingerprints(&self, job: &Job, photo: &str, record: &Record) -> Vec<u128> {
        let outputs = job.existing.iter().flatten().filter(|_| !job.done);
        let fingerprint = |output: &Existing| self.fingerprint(output.emit, &job.stem, &output.tag, photo, record);
        outputs.filter_map(fingerprint).collect()
    }

    /// Notes that outputs with these fingerprints are done. The last call has none.
    pub(super) fn done(&self, fingerprints: Option<&[u128]>, console: &Console) {
        let Some(bucket) = self.bucket() else { return };
        let stored = match fingerprints {
            Some(fingerprints) => bucket.journal.add(fingerprints),
            None => bucket.journal.store(),
        };
        if let Err(error) = stored {
            console.note(&format!("warning: {error}; a later --resume will read these outputs, which is slower"));
        }
    }
}

impl Bucket {
    /// The name below the prefix.
    fn name(&self, path: &Path) -> String {
        let text = path.to_string_lossy();
        text.strip_prefix(&format!("{}/", self.url)).unwrap_or(&text).to_owned()
    }

    fn key(&self, path: &Path) -> String {
        self.url.join(&self.name(path))
    }

    /// Whether all outputs exist and have known fingerprints.
    fn knows(&self, emits: &[Emit], stem: &Path, existing: &[Existing], photo: &str, record: &Record) -> bool {
        emits.iter().all(|emit| {
            existing.iter().find(|output| output.emit == *emit).is_some_and(|output| {
                let name = self.name(&emit.path(stem));
                self.journal.contains(fingerprint(&name, &output.tag, photo, &record.of(*emit)))
            })
        })
    }

    fn progress(&self, emits: &[Emit], job: &mut Job, photo: &str, record: &Record) -> rtformer::Result<Progress> {
        let existing = match job.existing.take() {
            Some(existing) => existing,
            None => self.query(emits, &job.stem)?,
        };
        let existing = job.existing.insert(existing);
        if self.knows(emits, &job.stem, existing, photo, record) {
            job.done = true;
            return Ok(Progress::Done);
        }
        outputs::progress(emits, &job.stem, record, |emit, path| {
            let exists = existing.iter().any(|output| output.emit == emit && output.size > 0);
            if exists { self.origin(emit, path) } else { Ok(Origin::Missing) }
        })
    }

    /// The outputs of a picture of a stream, whose names were not known when the outputs were listed.
    fn query(&self, emits: &[Emit], stem: &Path) -> rtformer::Result<Vec<Existing>> {
        let mut existing = Vec::new();
        for &emit in emits {
            if self.store.part(&self.key(&emit.path(stem)), Part::First(1))?.is_some() {
                existing.push(Existing { emit, tag: String::new(), size: 1 });
            }
        }
        Ok(existing)
    }

    /// Reads the record of an output.
    fn origin(&self, emit: Emit, path: &Path) -> rtformer::Result<Origin> {
        let part = match emit {
            emit if emit.is_json() => Part::All,
            Emit::Logits => Part::Last(record::TAIL),
            _ => Part::First(record::HEAD),
        };
        let bytes = self.store.part(&self.key(path), part)?;
        Ok(bytes.map_or(Origin::Missing, |bytes| record::find(path, Cursor::new(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::objects::fake::Fake;
    use super::super::inputs::Input;
    use super::*;

    const EMITS: [Emit; 1] = [Emit::Json];

    fn settings(size: &str) -> Settings {
        Settings { size: size.into(), ..Settings::plain() }
    }

    /// A photo as it comes from the listings.
    fn job(store: &Fake) -> Job {
        let output = store.list("out").map(Result::unwrap).find(|object| object.key == "out/a.json");
        let existing = output.map(|object| Existing { emit: Emit::Json, tag: object.tag, size: object.size });
        let input = Input { path: "s3://b/in/a.png".into(), place: "a.png".into(), stream: false, url: None };
        let placed =
            Placed { input, stem: "s3://b/out/a".into(), object: None, existing: Some(existing.into_iter().collect()) };
        Job::new(placed, &mut Stores::default())
    }

    #[test]
    fn outputs_are_resumed_by_fingerprints_or_records() {
        let fake = Arc::new(Fake::default());
        let store: Arc<dyn Store> = Arc::<Fake>::clone(&fake);
        let url = Url::parse(Path::new("s3://b/out")).unwrap();
        let open = || {
            let mut journal = Journal::new(Arc::clone(&store), &url);
            journal.read().unwrap();
            fake.reads.lock().clear();
            Target::Bucket(Box::new(Bucket { store: Arc::clone(&store), url: url.clone(), journal }))
        };
        let native = Record::new(Path::new("a.png"), b"photo", &settings("native"));
        let small = Record::new(Path::new("a.png"), b"photo", &settings("100x100"));
        let path = Path::new("s3://b/out/a.json");
        let write = |target: &Target, record: &Record, replace| {
            target.write(path, replace, |out| write!(out, "{{\"source\": {}}}", record.text().1))
        };
        let console = Console::new(true, false);
        let progress = |record: &Record| {
            let target = open();
            let progress = target.progress(&EMITS, &mut job(&fake), "version", record);
            (progress.ok(), fake.reads.lock().len())
        };

        assert_eq!(progress(&native), (Some(Progress::Open), 0));
        let target = open();
        let tag = write(&target, &native, false).unwrap().unwrap();
        assert_eq!(progress(&native), (Some(Progress::Done), 1), "killed before the fingerprint was stored");
        let fingerprint = target.fingerprint(Emit::Json, Path::new("s3://b/out/a"), &tag, "version", &native).unwrap();
        target.done(Some(&[fingerprint]), &console);
        target.done(None, &console);
        assert_eq!(progress(&native), (Some(Progress::Done), 0), "nothing is read");
        assert_eq!(progress(&small), (Some(Progress::Replace), 1), "other settings");

        let error = write(&target, &small, false).unwrap_err().to_string();
        assert!(error.starts_with("s3://b/out/a.json: exists already"), "{error}");
        write(&target, &small, true).unwrap();
        assert_eq!(progress(&native), (Some(Progress::Replace), 1), "replaced, so the fingerprint is void");
        fake.put("out/a.json", b"of another program".to_vec(), true).unwrap();
        assert_eq!(progress(&native), (None, 1));
        fake.put("out/a.json", Vec::new(), true).unwrap();
        assert_eq!(progress(&native), (Some(Progress::Open), 0), "an empty object is no output");
        assert!(target.check_absent(&EMITS, Path::new("s3://b/out/a"), job(&fake).existing.as_deref()).is_err());
    }
}
