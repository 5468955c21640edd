//! Downloads and converts PaddleSeg's own checkpoints.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Hints, infer_config};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::{Checkpoint, Dataset, Fetch, Official, Store, Weights, cache_dir, fetch, save};

/// The address at which PaddleSeg publishes.
const PUBLISHED: &str = "https://paddleseg.bj.bcebos.com/dygraph";

/// How to obtain a checkpoint.
///
/// ```
/// let options = rtformer::Pull { mirror: Some("https://mirror.example/dygraph".into()), ..Default::default() };
/// assert!(!options.force && !options.fetch.offline);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pull {
    /// How to download. In offline mode, a checkpoint that is already in the cache folder is still converted.
    pub fetch: Fetch,
    /// Address of a server with PaddleSeg's folders; `None` is PaddleSeg's own server.
    pub mirror: Option<String>,
    /// Download and convert the checkpoint even if the cache folder has its weights.
    pub force: bool,
}

impl Pull {
    /// The default options with the environment variables of `rtformer pull`: `RTFORMER_MIRROR` and `RTFORMER_OFFLINE`.
    ///
    /// ```
    /// assert!(!rtformer::Pull::from_env().force);
    /// ```
    pub fn from_env() -> Self {
        let fetch = Fetch { offline: is_on("RTFORMER_OFFLINE"), ..Fetch::default() };
        Self { fetch, mirror: variable("RTFORMER_MIRROR"), force: false }
    }
}

/// What [`pull`] is doing.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Pulling<'a> {
    /// A file in the cache folder cannot be used, for this reason, and is downloaded again.
    Damaged(&'a Error),
    /// A download, which starts with `done` above 0 if it is resumed.
    Downloading {
        /// The address.
        url: &'a str,
        /// The number of bytes so far.
        done: u64,
        /// The number of bytes of the file, if the server says so.
        total: Option<u64>,
    },
    /// The download is complete and is converted.
    Converting,
}

/// The weights file of one of PaddleSeg's checkpoints. Downloads and converts the checkpoint if [`cache_dir`] does not have it yet.
///
/// A complete download in the cache folder is converted: one whose conversion was interrupted, or a `.pdparams` file with the
/// checkpoint's name that the user put there. It is removed after the conversion, because the weights contain all of its numbers.
///
/// ```no_run
/// use rtformer::weights::Official;
/// use rtformer::{Device, Pull, Segmenter};
///
/// let official = Official::named("slim-cityscapes").unwrap();
/// let weights = rtformer::pull(official, &Pull::from_env(), &mut |_| ())?;
/// let segmenter = Segmenter::open(weights, Device::auto())?;
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// As [`fetch`] and [`save`]; [`Error::Input`] if the mirror is not an address; [`Error::Weights`] if the server sent something else than
/// the checkpoint.
pub fn pull(official: &Official, options: &Pull, progress: &mut dyn FnMut(Pulling<'_>)) -> Result<PathBuf> {
    let Pull { fetch: how, mirror, force } = options;
    let file = |extension| cache_dir().map(|folder| folder.join(format!("{}.{extension}", official.name)));
    let (weights, download) = (file("safetensors")?, file("pdparams")?);
    if weights.exists() && !force {
        match Weights::open(&weights) {
            Ok(_) => return Ok(weights),
            Err(error) => progress(Pulling::Damaged(&error)),
        }
    }
    let url = address(official, mirror.as_deref())?;
    let is_damaged = |error: &Error| error.kind() == ErrorKind::Weights;
    if download.exists() && (how.offline || !force) {
        progress(Pulling::Converting);
        match convert(official, &download, &weights) {
            Err(error) if is_damaged(&error) && !how.offline => progress(Pulling::Damaged(&error)),
            converted => return converted.map(|()| weights),
        }
    }
    fetch(&url, &download, how, &mut |done, total| progress(Pulling::Downloading { url: &url, done, total }))?;
    progress(Pulling::Converting);
    let converted = convert(official, &download, &weights);
    converted.map(|()| weights).map_err(|error| {
        if !is_damaged(&error) {
            return error;
        }
        // Remove the file, because the next call would use it as a complete download.
        let after = match fs::remove_file(&download) {
            Ok(()) => "the download was removed, so pull it again".into(),
            Err(e) => format!("the download could not be removed ({e}), so remove it yourself and pull it again"),
        };
        let reason = format!(
            "the downloaded file is not the checkpoint ({error}); {after}; if it fails again, a proxy or mirror may send a different file"
        );
        Error::weights(&url, reason)
    })
}

/// Writes the checkpoint as f32 and without padding, so that masks are the same as PaddleSeg's, and removes the download.
fn convert(official: &Official, download: &Path, weights: &Path) -> Result<()> {
    let none = || Error::Input(format!("`{}`: the data set `{}` is unknown", official.name, official.dataset));
    let dataset = Dataset::named(official.dataset).ok_or_else(none)?;
    let variant = official.name.split_once('-').and_then(|(variant, _)| variant.parse().ok());
    let hints = Hints { variant, cross_size: Some(official.cross_size), num_heads: None };
    let checkpoint = Checkpoint::open(download)?;
    let config = infer_config(&checkpoint, &dataset, hints)?;
    save(weights, &checkpoint, &dataset, &config.to_json(), Store::F32)?;
    // A download that cannot be removed does no harm: it is only converted again if the weights are missing.
    let _ = fs::remove_file(download);
    Ok(())
}

/// The address of the checkpoint on PaddleSeg's server or a mirror.
fn address(official: &Official, mirror: Option<&str>) -> Result<String> {
    let Some(mirror) = mirror.filter(|mirror| !mirror.is_empty()) else { return Ok(official.url.into()) };
    if !mirror.starts_with("http://") && !mirror.starts_with("https://") {
        return Err(Error::Input(format!(
            "invalid mirror `{mirror}`: expected an address that starts with http:// or https://"
        )));
    }
    let folders = official.url.strip_prefix(PUBLISHED).unwrap_or(official.url);
    Ok(format!("{}{folders}", mirror.trim_end_matches('/')))
}

/// An environment variable that is not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a switch is on: set, and not to a word that means no.
fn is_on(name: &str) -> bool {
    variable(name).is_some_and(|value| !["0", "f", "false", "n", "no", "off"].contains(&value.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_has_the_same_folders() {
        let slim = Official::named("slim-cityscapes").unwrap();
        assert!([None, Some("")].iter().all(|none| address(slim, *none).unwrap() == slim.url));
        let mirrored = address(slim, Some("http://mirror/")).unwrap();
        assert_eq!(mirrored, "http://mirror/cityscapes/rtformer_slim_cityscapes_1024x512_120k/model.pdparams");
        assert!(address(slim, Some("ftp://mirror")).unwrap_err().to_string().contains("invalid mirror `ftp://mirror`"));
    }
}
