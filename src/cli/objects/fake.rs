//! A store in memory, for tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use rtformer::{Error, files};

use super::{Content, Listing, Object, Part, Pending, Put, Store};

/// A store in memory. Tags are the digests of the objects.
#[derive(Debug, Default)]
pub(in super::super) struct Fake {
    pub(in super::super) objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The number of listed objects.
    pub(in super::super) drawn: std::sync::Arc<AtomicUsize>,
    /// Listings fail after this number of objects.
    pub(in super::super) fails: Option<usize>,
    /// The keys that were read.
    pub(in super::super) reads: Mutex<Vec<String>>,
}

impl Fake {
    /// A store of empty objects.
    pub(in super::super) fn of(keys: impl IntoIterator<Item = String>) -> Self {
        let objects = keys.into_iter().map(|key| (key, Vec::new())).collect();
        Self { objects: Mutex::new(objects), ..Self::default() }
    }
}

impl Store for Fake {
    fn list(&self, prefix: &str) -> Listing {
        let start = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let objects = self.objects.lock();
        let found = objects.iter().filter(|(key, _)| key.starts_with(&start)).map(|(key, bytes)| Object {
            key: key.clone(),
            size: bytes.len() as u64,
            tag: files::digest(bytes),
        });
        let found: Vec<_> = found.collect();
        let (drawn, fails) = (self.drawn.clone(), self.fails.unwrap_or(usize::MAX));
        Box::new(found.into_iter().enumerate().map(move |(index, object)| {
            drawn.fetch_add(1, Ordering::SeqCst);
            if index == fails { Err(Error::reading("s3://b")(io::Error::other("broken"))) } else { Ok(object) }
        }))
    }

    fn get(&self, key: &str, longest: u64) -> Pending {
        let (sender, content) = bounded(1);
        let found = self.part(key, Part::First(longest)).unwrap();
        let found = found.ok_or_else(|| Error::reading(key)(io::ErrorKind::NotFound.into()));
        let content_of = |bytes: Vec<u8>| Content { tag: Some(files::digest(&bytes)), bytes };
        sender.send(found.map(content_of)).unwrap();
        Pending::new(key.into(), content)
    }

    fn part(&self, key: &str, part: Part) -> rtformer::Result<Option<Vec<u8>>> {
        self.reads.lock().push(key.into());
        Ok(self.objects.lock().get(key).map(|bytes| match part {
            Part::All => bytes.clone(),
            Part::First(length) => bytes[..bytes.len().min(length as usize)].to_vec(),
            Part::Last(length) => bytes[bytes.len().saturating_sub(length as usize)..].to_vec(),
        }))
    }

    fn put(&self, key: &str, bytes: Vec<u8>, replace: bool) -> rtformer::Result<Put> {
        let mut objects = self.objects.lock();
        if !replace && objects.contains_key(key) {
            return Ok(Put::Exists);
        }
        let tag = files::digest(&bytes);
        objects.insert(key.into(), bytes);
        Ok(Put::Written(tag))
    }
}
