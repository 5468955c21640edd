//! Object stores: Amazon S3 and compatible servers, Google Cloud Storage, Azure Blob Storage, and photos on web servers.
//!
//! [`Store`] is what `segment` needs of a store. `client.rs` implements it with the crate `object_store` (Cargo feature `object-store`).

#[cfg(feature = "object-store")]
mod client;
#[cfg(test)]
pub(super) mod fake;
mod urls;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use rtformer::Error;

pub(super) use urls::{Url, is_url};

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) key: String,
    /// In bytes.
    pub(super) size: u64,
    /// The version: the entity tag, or the time of the last change if the store has no tags.
    pub(super) tag: String,
}

/// The content of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// The version, as in [`Object`]. `None` on web servers, whose tags need not change with the content.
    pub(super) tag: Option<String>,
}

/// A read in progress.
#[derive(Debug)]
pub(super) struct Pending {
    url: String,
    content: Receiver<rtformer::Result<Content>>,
}

impl Pending {
    pub(super) fn new(url: String, content: Receiver<rtformer::Result<Content>>) -> Self {
        Self { url, content }
    }

    /// Waits for the content.
    pub(super) fn wait(self) -> rtformer::Result<Content> {
        let ended = || Error::reading(&self.url)(io::Error::other("the download ended without a result"));
        self.content.recv().unwrap_or_else(|_| Err(ended()))
    }
}

/// The part of an object to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The first bytes, or all if the object is shorter.
    First(u64),
    /// The last bytes, or all if the object is shorter.
    Last(u64),
    All,
}

/// The result of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// The object was written; its tag.
    Written(String),
    /// The object exists and was not to be replaced.
    Exists,
}

pub(super) type Listing = Box<dyn Iterator<Item = rtformer::Result<Object>> + Send>;

/// A bucket, a container, or a web server. Transient failures are retried. Errors name the object's URL.
pub(super) trait Store: fmt::Debug + Send + Sync {
    /// The objects whose keys start with `prefix` and a slash (all objects if it is empty), in the order of their keys' bytes. Pages are
    /// requested as the iterator advances. A failure ends the listing.
    fn list(&self, prefix: &str) -> Listing;

    /// Starts to read an object in the background. More than `longest` bytes are an error.
    fn get(&self, key: &str, longest: u64) -> Pending;

    /// Reads a part of an object. `None` if it does not exist.
    fn part(&self, key: &str, part: Part) -> rtformer::Result<Option<Vec<u8>>>;

    /// Writes an object in one request, so that it is never visible before it is complete. Unless `replace` is set, an object that exists
    /// stays.
    fn put(&self, key: &str, bytes: Vec<u8>, replace: bool) -> rtformer::Result<Put>;
}

/// The stores in use, each opened once.
#[derive(Debug, Default)]
pub(super) struct Stores {
    retries: usize,
    open: HashMap<String, Arc<dyn Store>>,
}

impl Stores {
    /// `retries` is the number of times that a failed request is repeated.
    pub(super) fn new(retries: usize) -> Self {
        Self { retries, open: HashMap::new() }
    }

    /// The store of a URL. Credentials and options come from the environment.
    ///
    /// # Errors
    /// A phrase without the URL that says why the store cannot be opened.
    pub(super) fn open(&mut self, url: &Url) -> Result<Arc<dyn Store>, String> {
        if let Some(store) = self.open.get(url.root()) {
            return Ok(Arc::clone(store));
        }
        let store = connect(url, self.retries)?;
        self.open.insert(url.root().to_owned(), Arc::clone(&store));
        Ok(store)
    }
}

#[cfg(feature = "object-store")]
fn connect(url: &Url, retries: usize) -> Result<Arc<dyn Store>, String> {
    client::open(url, retries)
}

#[cfg(not(feature = "object-store"))]
fn connect(_: &Url, _: usize) -> Result<Arc<dyn Store>, String> {
    Err("this build has no object stores; build it with the Cargo feature `object-store`, or copy the photos to a folder".into())
}
