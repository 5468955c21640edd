//! What earlier runs wrote below a prefix of an object store, so that `--resume` need not query each output.
//!
//! A listing tells that an output exists, and its tag, but not what it was made from. A run therefore stores a fingerprint of each
//! output: a digest of its name, its tag, its photo's tag, and the settings. They are appended as objects `.rtformer/<digest>.done` below
//! the prefix, every few seconds. `--resume` computes the fingerprints again from the two listings. If it knows all of a photo's, the
//! photo is done. If not, because the run was killed before it stored them, the record in each output decides, as for files. The
//! fingerprints are only a shortcut: to lose some costs requests and never changes what is done.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rtformer::files;

use super::super::objects::{Pending, Store, Url};
use super::record::Record;

/// The folder of the fingerprints. Its name starts with a dot, so it is never searched for photos.
const FOLDER: &str = ".rtformer";

/// Bytes per fingerprint.
const WIDTH: usize = 16;

/// Fingerprints are stored when so many are waiting, or after this time.
const MOST: usize = 4096;
const INTERVAL: Duration = Duration::from_secs(5);

/// The number of objects that are read at the same time, and their maximum length in bytes.
const READS: usize = 16;
const LONGEST: u64 = 1 << 20;

/// The fingerprints below a prefix.
#[derive(Debug)]
pub(super) struct Journal {
    store: Arc<dyn Store>,
    folder: String,
    known: HashSet<u128>,
    waiting: Mutex<Waiting>,
}

/// Fingerprints that are not stored yet.
#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    stored: Instant,
}

impl Journal {
    /// Without what earlier runs stored.
    pub(super) fn new(store: Arc<dyn Store>, out: &Url) -> Self {
        let waiting = Mutex::new(Waiting { bytes: Vec::new(), stored: Instant::now() });
        Self { store, folder: out.join(FOLDER), known: HashSet::new(), waiting }
    }

    /// Reads what earlier runs stored: 16 bytes per output.
    pub(super) fn read(&mut self) -> rtformer::Result<()> {
        let mut pending: VecDeque<Pending> = VecDeque::new();
        let mut listing = self.store.list(&self.folder);
        loop {
            let next = listing.next().transpose()?;
            let ended = next.is_none();
            pending.extend(next.map(|object| self.store.get(&object.key, LONGEST)));
            while pending.len() > if ended { 0 } else { READS } {
                if let Some(first) = pending.pop_front() {
                    let bytes = first.wait()?.bytes;
                    self.known.extend(bytes.as_chunks().0.iter().map(|bytes| u128::from_be_bytes(*bytes)));
                }
            }
            if ended {
                return Ok(());
            }
        }
    }

    pub(super) fn contains(&self, fingerprint: u128) -> bool {
        self.known.contains(&fingerprint)
    }

    /// Takes the fingerprints of a photo's outputs, and sometimes stores all that were taken.
    pub(super) fn add(&self, fingerprints: &[u128]) -> rtformer::Result<()> {
        let mut waiting = self.waiting.lock();
        waiting.bytes.extend(fingerprints.iter().flat_map(|fingerprint| fingerprint.to_be_bytes()));
        let due = waiting.bytes.len() >= MOST * WIDTH || waiting.stored.elapsed() >= INTERVAL;
        drop(waiting);
        if due { self.store() } else { Ok(()) }
    }

    /// Stores the fingerprints that were taken. The name is the content's digest, so that no two runs replace each other's.
    pub(super) fn store(&self) -> rtformer::Result<()> {
        let mut waiting = self.waiting.lock();
        waiting.stored = Instant::now();
        let bytes = std::mem::take(&mut waiting.bytes);
        drop(waiting);
        if bytes.is_empty() {
            return Ok(());
        }
        let key = format!("{}/{}.done", self.folder, &files::digest(&bytes)[..32]);
        self.store.put(&key, bytes, true).map(|_| ())
    }
}

/// The fingerprint of an output with this name below the prefix, which was made from the version `photo` of its photo.
pub(super) fn fingerprint(name: &str, tag: &str, photo: &str, record: &Record) -> u128 {
    let settings = serde_json::to_string(&record.settings).unwrap_or_default(); // strings and numbers can always be serialised
    let parts = [name, tag, photo, &record.photo, &settings].map(|part| format!("{}:{part}", part.len()));
    let digest = files::digest(parts.concat().as_bytes());
    u128::from_str_radix(&digest[..2 * WIDTH], 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::objects::fake::Fake;
    use super::super::record::Settings;
    use super::*;

    fn record(photo: &str, alpha: Option<f32>) -> Record {
        let settings = Settings { alpha, ..Settings::plain() };
        Record::new(Path::new(photo), b"", &settings)
    }

    #[test]
    fn fingerprints_of_several_runs_are_read_again() {
        let store: Arc<dyn Store> = Arc::new(Fake::default());
        let out = Url::parse(Path::new("s3://b/out")).unwrap();
        let runs: Vec<Vec<u128>> = vec![(0..3).collect(), (3..10_000).collect(), (2..5).collect(), Vec::new()];
        for run in &runs {
            let journal = Journal::new(Arc::clone(&store), &out);
            run.chunks(2).for_each(|photo| journal.add(photo).unwrap());
            journal.store().unwrap();
        }
        let keys: Vec<_> = store.list("").map(|object| object.unwrap().key).collect();
        assert_eq!(keys.len(), 5, "one for each run that wrote something, and more for 10,000");
        assert!(keys.iter().all(|key| key.starts_with("out/.rtformer/")), "{keys:?}");
        store.put("out/.rtformer/cut.done", vec![7; WIDTH + 1], false).unwrap();

        let mut journal = Journal::new(store, &out);
        assert!(!journal.contains(5));
        journal.read().unwrap();
        assert!((0..10_000).all(|fingerprint| journal.contains(fingerprint)) && !journal.contains(10_000));
    }

    #[test]
    fn a_fingerprint_depends_on_everything_that_an_output_was_made_from() {
        let base = ("a.mask.png", "tag", "photo", record("a.png", None));
        let cases = [
            ("b.mask.png", "tag", "photo", record("a.png", None)),
            ("a.mask.png", "gat", "photo", record("a.png", None)),
            ("a.mask.png", "tag", "other", record("a.png", None)),
            ("a.mask.png", "tag", "photo", record("b.png", None)),
            ("a.mask.png", "tag", "photo", record("a.png", Some(0.5))),
            ("a.mask.pngtag", "", "photo", record("a.png", None)), // the same text, divided elsewhere
        ];
        let of = |(name, tag, photo, record): &(&str, &str, &str, Record)| fingerprint(name, tag, photo, record);
        assert_eq!(of(&base), of(&base.clone()));
        for case in &cases {
            assert_ne!(of(case), of(&base), "{case:?}");
        }
    }
}
