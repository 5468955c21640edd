//! Stores through the crate `object_store`. This file owns the asynchronous runtime; its callers wait on ordinary threads.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    ClientConfigKey, ClientOptions, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, PutMode, PutPayload,
    RetryConfig,
};
use rtformer::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use super::{Content, Listing, Object, Part, Pending, Put, Store, Url};

/// The longest time for one request and its response. `object_store` allows 30 s, in which a slow line cannot send large logits.
const TIMEOUT: &str = "300 seconds";

/// Nothing is repeated after this time, as in `object_store`.
const PATIENCE: Duration = Duration::from_secs(180);

/// The longest error text that is printed; servers can answer with a page of HTML.
const LONGEST: usize = 500;

/// Opens the store of a URL, with the credentials and options in the environment.
pub(super) fn open(url: &Url, retries: usize) -> Result<Arc<dyn Store>, String> {
    let runtime = runtime()?;
    let retry = RetryConfig { max_retries: retries, ..RetryConfig::default() };
    let root = url.root();
    let scheme = root.split("://").next().unwrap_or_default();
    let timeout = |prefix| std::env::var(format!("{prefix}_TIMEOUT")).unwrap_or_else(|_| TIMEOUT.into());
    let opened: object_store::Result<Arc<dyn ObjectStore>> = match scheme {
        "s3" | "s3a" => {
            let builder = AmazonS3Builder::from_env();
            let builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), timeout("AWS"));
            builder.with_url(root).with_retry(retry).build().map(|store| Arc::new(store) as _)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env();
            let builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), timeout("GOOGLE"));
            builder.with_url(root).with_retry(retry).build().map(|store| Arc::new(store) as _)
        }
        "http" | "https" => {
            let options = ClientOptions::new().with_config(ClientConfigKey::Timeout, timeout("HTTP"));
            let builder = HttpBuilder::new().with_client_options(options.with_allow_http(scheme == "http"));
            builder.with_url(root).with_retry(retry).build().map(|store| Arc::new(store) as _)
        }
        _ => {
            let builder = MicrosoftAzureBuilder::from_env();
            let builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), timeout("AZURE"));
            builder.with_url(root).with_retry(retry).build().map(|store| Arc::new(store) as _)
        }
    };
    let inner = opened.map_err(|error| format!("cannot be opened: {}", describe(&error)))?;
    Ok(Arc::new(Client { root: root.into(), web: url.is_web(), retries, inner, runtime }))
}

/// The runtime, started with the first store. Its threads only wait for the network.
fn runtime() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        // The provider that `ureq` uses, so that the program contains one. Fails if another is installed, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("objects").enable_all().build();
        runtime.map_err(|error| format!("cannot be opened: threads for the network cannot be started: {error}"))
    });
    started.as_ref().map_err(Clone::clone)
}

/// A store and how it is reached.
#[derive(Clone)]
struct Client {
    root: String,
    /// Keys on web servers are percent-encoded.
    web: bool,
    retries: usize,
    inner: Arc<dyn ObjectStore>,
    runtime: &'static Runtime,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.root).finish()
    }
}

impl Client {
    fn url(&self, key: &str) -> String {
        format!("{}/{key}", self.root)
    }

    fn path(&self, key: &str) -> Result<Path, object_store::path::Error> {
        if self.web { Path::from_url_path(key) } else { Path::parse(key) }
    }

    /// Reads an object. A body that breaks off is requested again if `object_store` could not resume it.
    async fn read(&self, key: &str, longest: u64) -> rtformer::Result<Content> {
        let reading = |cause| Error::reading(self.url(key))(cause);
        let path = self.path(key).map_err(|error| reading(io::Error::other(error)))?;
        let mut attempts = Attempts::new(self.retries);
        loop {
            let read = async {
                let result = self.inner.get_opts(&path, GetOptions::default()).await?;
                let (length, tag) = (result.meta.size, (!self.web).then(|| tag(&result.meta)));
                if length > longest {
                    return Ok(Err(length));
                }
                Ok(Ok(Content { bytes: whole(result).await?, tag }))
            };
            match read.await {
                Ok(Ok(content)) => return Ok(content),
                Ok(Err(length)) => {
                    let reason = format!("it has {length} bytes; the maximum is {longest}");
                    return Err(reading(io::Error::new(io::ErrorKind::FileTooLarge, reason)));
                }
                Err(error) if attempts.again(&error).await => {}
                Err(error) => return Err(reading(cause(&error))),
            }
        }
    }

    async fn read_part(&self, key: &str, part: Part) -> object_store::Result<Option<Vec<u8>>> {
        let path = self.path(key)?;
        let range = match part {
            Part::First(length) => Some(GetRange::Bounded(0..length)),
            Part::Last(length) => Some(GetRange::Suffix(length)),
            Part::All => None,
        };
        let options = GetOptions { range, ..GetOptions::default() };
        let mut result = self.inner.get_opts(&path, options).await;
        if let Err(object_store::Error::NotSupported { .. }) = result {
            result = self.inner.get_opts(&path, GetOptions::default()).await; // Azure has no ranges from the end
        }
        match result {
            Ok(result) => whole(result).await.map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an object once. `Exists` after a request whose answer was lost can mean that it was written.
    async fn write(&self, key: &str, bytes: &PutPayload, mode: PutMode) -> object_store::Result<Put> {
        let path = self.path(key)?;
        match self.inner.put_opts(&path, bytes.clone(), mode.into()).await {
            Ok(written) => Ok(Put::Written(written.e_tag.as_deref().map(plain).unwrap_or_default())),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Put::Exists)
            }
            Err(error) => Err(error),
        }
    }

    /// The tag of an object that exists although it was to be created, if it has these bytes.
    async fn same(&self, key: &str, bytes: &PutPayload) -> object_store::Result<Option<String>> {
        let result = self.inner.get_opts(&self.path(key)?, GetOptions::default()).await?;
        let (length, tag) = (result.meta.size, tag(&result.meta));
        if length != bytes.content_length() as u64 {
            return Ok(None);
        }
        let found = whole(result).await?;
        Ok(found.iter().eq(bytes.iter().flatten()).then_some(tag))
    }

    /// Writes an object unless it exists, and returns its tag. `object_store` does not repeat such a request if its answer is lost.
    async fn create(&self, key: &str, bytes: PutPayload) -> object_store::Result<Put> {
        let mut attempts = Attempts::new(self.retries);
        loop {
            match self.write(key, &bytes, PutMode::Create).await {
                Ok(Put::Exists) => {
                    // It may be this object from an attempt before: then nothing is lost. The same bytes from another process are fine, too.
                    return Ok(self.same(key, &bytes).await?.map_or(Put::Exists, Put::Written));
                }
                // The store has no conditional writes; the caller has compared the listings.
                Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                    return self.replace(key, bytes).await;
                }
                Err(error) if attempts.again(&error).await => {}
                done => return done,
            }
        }
    }

    async fn replace(&self, key: &str, bytes: PutPayload) -> object_store::Result<Put> {
        let mut attempts = Attempts::new(self.retries);
        loop {
            match self.write(key, &bytes, PutMode::Overwrite).await {
                Err(error) if attempts.again(&error).await => {}
                done => return done,
            }
        }
    }
}

impl Store for Client {
    fn list(&self, prefix: &str) -> Listing {
        Box::new(Pages {
            client: self.clone(),
            prefix: prefix.into(),
            stream: None,
            last: None,
            attempts: None,
            ended: false,
        })
    }

    fn get(&self, key: &str, longest: u64) -> Pending {
        let (sender, content) = bounded(1);
        let (client, key) = (self.clone(), key.to_owned());
        let url = self.url(&key);
        self.runtime.spawn(async move {
            let _ = sender.send(client.read(&key, longest).await); // the channel has room; fails if nobody waits any more
        });
        Pending::new(url, content)
    }

    fn part(&self, key: &str, part: Part) -> rtformer::Result<Option<Vec<u8>>> {
        self.runtime.block_on(async {
            let mut attempts = Attempts::new(self.retries);
            loop {
                match self.read_part(key, part).await {
                    Err(error) if attempts.again(&error).await => {}
                    done => return done.map_err(|error| Error::reading(self.url(key))(cause(&error))),
                }
            }
        })
    }

    fn put(&self, key: &str, bytes: Vec<u8>, replace: bool) -> rtformer::Result<Put> {
        let bytes = PutPayload::from(bytes);
        let written = self
            .runtime
            .block_on(async { if replace { self.replace(key, bytes).await } else { self.create(key, bytes).await } });
        written.map_err(|error| Error::Input(format!("{}: cannot be written: {}", self.url(key), describe(&error))))
    }
}

/// A listing. It resumes after the last key if a page breaks off.
struct Pages {
    client: Client,
    prefix: String,
    stream: Option<BoxStream<'static, object_store::Result<ObjectMeta>>>,
    last: Option<String>,
    /// Of the current page.
    attempts: Option<Attempts>,
    ended: bool,
}

impl Pages {
    fn start(&self) -> Result<BoxStream<'static, object_store::Result<ObjectMeta>>, object_store::path::Error> {
        let prefix = self.client.path(&self.prefix)?;
        let prefix = (!self.prefix.is_empty()).then_some(&prefix);
        Ok(match &self.last {
            Some(last) => self.client.inner.list_with_offset(prefix, &Path::parse(last)?),
            None => self.client.inner.list(prefix),
        })
    }

    fn fail(&mut self, cause: io::Error) -> rtformer::Result<Object> {
        self.ended = true;
        let url = if self.prefix.is_empty() { self.client.root.clone() } else { self.client.url(&self.prefix) };
        Err(Error::reading(url)(cause))
    }
}

impl Iterator for Pages {
    type Item = rtformer::Result<Object>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let mut stream = match self.stream.take().map_or_else(|| self.start(), Ok) {
                Ok(stream) => stream,
                Err(error) => return Some(self.fail(io::Error::other(error))),
            };
            match self.client.runtime.block_on(stream.next()) {
                None => self.ended = true,
                Some(Ok(meta)) => {
                    self.stream = Some(stream);
                    self.attempts = None;
                    let tag = tag(&meta);
                    let key = String::from(meta.location);
                    let is_late = |key: &str| self.last.as_ref().is_some_and(|last| **last >= *key);
                    if is_late(&key) {
                        // `object_store` drops the slash at the end of the empty objects that stand for folders.
                        if !is_late(&format!("{key}/")) {
                            continue;
                        }
                        let reason = format!(
                            "its listing is not in the order of the keys (`{key}` comes late), so it cannot be compared"
                        );
                        return Some(self.fail(io::Error::other(reason)));
                    }
                    self.last = Some(key.clone());
                    return Some(Ok(Object { key, size: meta.size, tag }));
                }
                Some(Err(error)) => {
                    let attempts = self.attempts.get_or_insert_with(|| Attempts::new(self.client.retries));
                    if !self.client.runtime.block_on(attempts.again(&error)) {
                        return Some(self.fail(cause(&error)));
                    }
                }
            }
        }
        None
    }
}

/// The whole body. A body that is shorter than announced is an error.
async fn whole(result: GetResult) -> object_store::Result<Vec<u8>> {
    let length = result.range.end - result.range.start;
    let mut stream = result.into_stream();
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    if bytes.len() as u64 == length {
        return Ok(bytes);
    }
    let reason = format!("the body has {} bytes of {length}", bytes.len());
    Err(object_store::Error::Generic {
        store: "body",
        source: Box::new(HttpError::new(HttpErrorKind::Interrupted, io::Error::other(reason))),
    })
}

/// What identifies the version of an object.
fn tag(meta: &ObjectMeta) -> String {
    match &meta.e_tag {
        Some(tag) => plain(tag),
        None => format!("{}+{}", meta.last_modified.timestamp_micros(), meta.size),
    }
}

/// A tag without quotes, which some listings omit.
fn plain(tag: &str) -> String {
    tag.trim_matches('"').to_owned()
}

/// Whether a connection broke off in the middle of a request or a response. `object_store` repeats other requests itself.
fn broke_off(error: &object_store::Error) -> bool {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(inner) = inner.downcast_ref::<HttpError>() {
            return !matches!(inner.kind(), HttpErrorKind::Connect | HttpErrorKind::Request);
        }
        source = inner.source();
    }
    false
}

/// Counts the attempts of a request, in addition to those of `object_store`.
struct Attempts {
    left: usize,
    pause: Duration,
    started: Instant,
}

impl Attempts {
    fn new(retries: usize) -> Self {
        Self { left: retries, pause: Duration::from_millis(100), started: Instant::now() }
    }

    /// Whether to repeat the request after this error, at once. Waits before that: 0.1 s, then twice as long each time, at most 5 s.
    async fn again(&mut self, error: &object_store::Error) -> bool {
        if self.left == 0 || !broke_off(error) || self.started.elapsed() > PATIENCE {
            return false;
        }
        self.left -= 1;
        sleep(self.pause).await;
        self.pause = (2 * self.pause).min(Duration::from_secs(5));
        true
    }
}

fn cause(error: &object_store::Error) -> io::Error {
    let kind = match error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, describe(error))
}

/// The error and its causes that add something, on one line, and what to do.
fn describe(error: &object_store::Error) -> String {
    let mut text = match error {
        object_store::Error::Generic { source, .. } => source.to_string(),
        object_store::Error::NotFound { .. } => "it does not exist; check the name".to_owned(),
        other => other.to_string(),
    };
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !matches!(error, object_store::Error::NotFound { .. }) && !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            text + "; check the credentials in the environment"
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests;
