//! Resumable downloads: an interrupted download stays next to the target as `….part`, and the next call resumes it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Agent, Body, Proxy};

use crate::error::{Error, Result};

/// How to download.
///
/// ```
/// use rtformer::weights::{Fetch, fetch};
///
/// let offline = Fetch { offline: true, ..Fetch::default() };
/// let refused = fetch("https://example.org/model.pdparams", "model.pdparams".as_ref(), &offline, &mut |_, _| ());
/// assert!(refused.unwrap_err().to_string().contains("because of offline mode"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Download nothing: [`fetch`] fails at once with an error that says so.
    pub offline: bool,
    /// The proxy, such as `http://proxy:3128` or `socks5://proxy:1080`. If `None`, the environment's proxy.
    pub proxy: Option<String>,
    /// The timeout for connecting, and again for the start of the response.
    pub connect: Duration,
    /// The timeout for the next bytes of a download.
    pub stall: Duration,
}

impl Default for Fetch {
    /// Online, with the proxy of the environment, 30 seconds to connect, and 60 seconds without data.
    fn default() -> Self {
        Self { offline: false, proxy: None, connect: Duration::from_secs(30), stall: Duration::from_secs(60) }
    }
}

/// Downloads `url` to `to`. The file appears only when it is complete.
///
/// The proxy is the one in `options`, or else the one in `HTTPS_PROXY`, `HTTP_PROXY` or `ALL_PROXY`, except for the hosts in
/// `NO_PROXY`. The bytes are written to `<to>.part`. If this file exists from an earlier call, only the rest is requested, provided
/// that the server still has the same file. `progress` is called with the number of bytes so far, and the total if the server sends
/// it.
///
/// # Errors
/// [`Error::Download`] in offline mode, if the server refuses or cannot be reached, if another process downloads the same file,
/// and if the file ends too early. In that case, the part is kept and another call resumes. [`Error::Write`] if writing to disk fails.
///
/// ```no_run
/// # fn main() -> rtformer::Result<()> {
/// use rtformer::weights::{Fetch, Official, cache_dir, fetch};
///
/// let official = Official::named("slim-cityscapes").unwrap();
/// let file = cache_dir()?.join("slim-cityscapes.pdparams");
/// fetch(official.url, &file, &Fetch::default(), &mut |done, total| eprintln!("{done} of {total:?}"))?;
/// # Ok(())
/// # }
/// ```
pub fn fetch(url: &str, to: &Path, options: &Fetch, progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<()> {
    let proxy = match &options.proxy {
        None => Proxy::try_from_env(),
        Some(name) => Some(Proxy::new(name).map_err(|e| {
            refused(url, format!("`{name}` is not a proxy: {e}; expected http://HOST:PORT or socks5://HOST:PORT"))
        })?),
    };
    fetch_through(proxy, url, to, options, progress)
}

/// The folder for downloaded models: `RTFORMER_CACHE`, or else `rtformer/models` in the platform's cache folder.
///
/// ```
/// let file = rtformer::weights::cache_dir()?.join("slim-cityscapes.safetensors");
/// assert!(file.ends_with("slim-cityscapes.safetensors"));
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Input`] if neither is available.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("RTFORMER_CACHE").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    directories::ProjectDirs::from("", "", "rtformer").map(|folders| folders.cache_dir().join("models")).ok_or_else(
        || Error::Input("no home folder was found to store models in; set RTFORMER_CACHE to a folder".into()),
    )
}

fn fetch_through(
    proxy: Option<Proxy>,
    url: &str,
    to: &Path,
    options: &Fetch,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<()> {
    if options.offline {
        return Err(refused(
            url,
            format!("not downloaded because of offline mode; run once online, or put the file at {}", to.display()),
        ));
    }
    let agent = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(proxy)
        .user_agent(concat!("rtformer/", env!("CARGO_PKG_VERSION")))
        // A compressed response cannot be resumed at a byte of the file.
        .accept_encoding("identity")
        .timeout_connect(Some(options.connect))
        .timeout_recv_response(Some(options.connect))
        .timeout_per_read(Some(options.stall))
        .build()
        .new_agent();
    let mut part = Part::open(url, to)?;
    let mut answer = part.ask(&agent)?;
    let mut continues = part.continues(&answer);
    if part.have > 0
        && !continues
        && matches!(answer.status(), StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE)
    {
        // The part is not from the server's file, which may be newer.
        part.restart()?;
        answer = part.ask(&agent)?;
        continues = false;
    }
    match answer.status() {
        StatusCode::OK => {
            part.restart()?;
            part.note = Note::of(url, &answer);
            part.write_note()?;
            part.append(answer, progress)?;
        }
        StatusCode::PARTIAL_CONTENT if continues => part.append(answer, progress)?,
        StatusCode::RANGE_NOT_SATISFIABLE if continues => {} // the part is complete
        other => return Err(refused(url, format!("the server replied `{other}`"))),
    }
    part.finish(to)
}

/// A partial download.
struct Part {
    path: PathBuf,
    file: File,
    have: u64,
    note: Note,
}

/// Describes the file that the part is from. Stored next to the part as `….part.json`.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Note {
    url: String,
    /// The server's `ETag` or `Last-Modified`. A different value means a different file.
    validator: Option<String>,
    total: Option<u64>,
}

impl Note {
    fn of(url: &str, answer: &Response<Body>) -> Self {
        // Two files with the same weak tag are equivalent, but their bytes may differ.
        let tag = text(answer.headers(), header::ETAG).filter(|tag| !tag.starts_with("W/"));
        let validator = tag.or_else(|| text(answer.headers(), header::LAST_MODIFIED));
        Self { url: url.to_owned(), validator: validator.map(str::to_owned), total: answer.body().content_length() }
    }
}

impl Part {
    fn open(url: &str, to: &Path) -> Result<Self> {
        let path = with_suffix(to, ".part");
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(Error::writing(folder))?;
        }
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(Error::writing(&path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(refused(
                    url,
                    format!("another process is downloading it to {}; wait until it is done", path.display()),
                ));
            }
            // Some network file systems have no locks. A single download there still works.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let note: Note = fs::read(with_suffix(&path, ".json"))
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default();
        let have = file.seek(SeekFrom::End(0)).map_err(Error::writing(&path))?;
        // Without a tag or length to compare, the rest might be that of a different file.
        let known = note.url == url && (note.validator.is_some() || note.total.is_some());
        let note = Note { url: url.to_owned(), ..note };
        let mut part = Self { path, file, have, note };
        if !known {
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> Result<()> {
        self.have = 0;
        self.note = Note { url: std::mem::take(&mut self.note.url), ..Note::default() };
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(Error::writing(&self.path))
    }

    fn ask(&self, agent: &Agent) -> Result<Response<Body>> {
        let mut request = agent.get(&self.note.url);
        if self.have > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", self.have));
            if let Some(validator) = &self.note.validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let answer = request.call().map_err(|e| {
            refused(&self.note.url, format!("cannot be reached: {e}; check the network connection and HTTPS_PROXY"))
        })?;
        match text(answer.headers(), header::CONTENT_ENCODING) {
            None | Some("identity") => Ok(answer),
            Some(other) => Err(refused(
                &self.note.url,
                format!("the server compressed it ({other}), although the request excluded compression"),
            )),
        }
    }

    /// Whether the response continues the part, or says that the part is complete.
    fn continues(&self, answer: &Response<Body>) -> bool {
        let range = text(answer.headers(), header::CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes "));
        let Some((range, total)) = range.and_then(|range| range.split_once('/')) else { return false };
        let Ok(total) = total.parse::<u64>() else { return false };
        if self.have == 0 || self.note.total.is_some_and(|noted| noted != total) {
            return false;
        }
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => range == format!("{}-{}", self.have, total.saturating_sub(1)),
            StatusCode::RANGE_NOT_SATISFIABLE => range == "*" && total == self.have,
            _ => false,
        }
    }

    fn append(&mut self, answer: Response<Body>, progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<()> {
        let total = answer.body().content_length().map(|rest| self.have + rest);
        let mut reader = answer.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        progress(self.have, total);
        let broken = loop {
            match reader.read(&mut buffer) {
                Ok(0) => break None,
                Ok(count) => {
                    self.file.write_all(&buffer[..count]).map_err(Error::writing(&self.path))?;
                    self.have += count as u64;
                    progress(self.have, total);
                }
                Err(e) => break Some(e.to_string()),
            }
        };
        if broken.is_none() && total.is_none_or(|total| total == self.have) {
            return Ok(());
        }
        let of = total.map_or(String::new(), |total| format!(" of {total}"));
        let why = broken.map_or(String::new(), |e| format!(" ({e})"));
        Err(refused(&self.note.url, format!("interrupted after {}{of} bytes{why}; run it again to resume", self.have)))
    }

    fn write_note(&self) -> Result<()> {
        let path = with_suffix(&self.path, ".json");
        let json = serde_json::to_vec(&self.note).expect("text and numbers always serialise");
        fs::write(&path, json).map_err(Error::writing(&path))
    }

    fn finish(self, to: &Path) -> Result<()> {
        self.file.sync_all().map_err(Error::writing(&self.path))?;
        drop(self.file);
        fs::rename(&self.path, to).map_err(Error::writing(to))?;
        // The note is not needed without its part.
        let _ = fs::remove_file(with_suffix(&self.path, ".json"));
        Ok(())
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn refused(url: &str, reason: impl Into<String>) -> Error {
    Error::Download { url: url.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
