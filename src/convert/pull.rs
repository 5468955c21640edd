//! Downloads and converts PaddleSeg's own checkpoints.

use std::fs;
use std::path::PathBuf;

use super::{Hints, infer_config};
use crate::error::{Error, Result};
use crate::weights::{Checkpoint, Dataset, Fetch, Official, Store, Weights, cache_dir, fetch, save};

/// The address at which PaddleSeg publishes.
const PUBLISHED: &str = "https://paddleseg.bj.bcebos.com/dygraph";

/// The weights file of one of PaddleSeg's checkpoints. Downloads and converts the checkpoint if [`cache_dir`] does not have it yet.
///
/// The environment variables of `rtformer pull` apply: `RTFORMER_CACHE` (the folder), `RTFORMER_MIRROR` (a server with PaddleSeg's
/// folders), and `RTFORMER_OFFLINE`. `progress` is called as by [`fetch`].
///
/// ```no_run
/// use rtformer::weights::{Fetch, Official};
/// use rtformer::{Device, Segmenter};
///
/// let official = Official::named("slim-cityscapes").unwrap();
/// let weights = rtformer::pull(official, &Fetch::default(), &mut |_, _| ())?;
/// let segmenter = Segmenter::open(weights, Device::auto())?;
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// As [`fetch`] and [`save`]; [`Error::Weights`] if the server sent something else than the checkpoint.
pub fn pull(official: &Official, options: &Fetch, progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<PathBuf> {
    let file = |extension| cache_dir().map(|folder| folder.join(format!("{}.{extension}", official.name)));
    let (weights, download) = (file("safetensors")?, file("pdparams")?);
    if Weights::open(&weights).is_ok() {
        return Ok(weights);
    }
    let url = address(official, variable("RTFORMER_MIRROR").as_deref())?;
    if !download.exists() {
        let options = Fetch { offline: options.offline || is_on("RTFORMER_OFFLINE"), ..options.clone() };
        fetch(&url, &download, &options, progress)?;
    }
    let converted = convert(official, &download, &weights);
    // If it is damaged, another call downloads it again; otherwise, the weights contain all of its numbers.
    let damaged = |error: &Error| error.kind() == crate::error::ErrorKind::Weights;
    if converted.as_ref().err().is_none_or(damaged) {
        fs::remove_file(&download).map_err(Error::writing(&download))?;
    }
    converted.map_err(|error| match error {
        error if damaged(&error) => Error::weights(
            &url,
            format!(
                "the downloaded file is not the checkpoint ({error}); it was removed, so try again; if it fails again, a proxy or mirror \
                 may send a different file"
            ),
        ),
        other => other,
    })?;
    Ok(weights)
}

/// Writes the checkpoint as f32 and without padding, so that masks are the same as PaddleSeg's.
fn convert(official: &Official, download: &std::path::Path, weights: &std::path::Path) -> Result<()> {
    let none = || Error::Input(format!("`{}`: the data set `{}` is unknown", official.name, official.dataset));
    let dataset = Dataset::named(official.dataset).ok_or_else(none)?;
    let variant = official.name.split_once('-').and_then(|(variant, _)| variant.parse().ok());
    let hints = Hints { variant, cross_size: Some(official.cross_size), num_heads: None };
    let checkpoint = Checkpoint::open(download)?;
    let config = infer_config(&checkpoint, &dataset, hints)?;
    save(weights, &checkpoint, &dataset, &config.to_json(), Store::F32)
}

/// The address of the checkpoint on PaddleSeg's server or a mirror.
fn address(official: &Official, mirror: Option<&str>) -> Result<String> {
    let Some(mirror) = mirror else { return Ok(official.url.into()) };
    if !mirror.starts_with("http://") && !mirror.starts_with("https://") {
        return Err(Error::Input(format!(
            "invalid mirror `{mirror}` (RTFORMER_MIRROR): expected an address that starts with http:// or https://"
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
        assert_eq!(address(slim, None).unwrap(), slim.url);
        let mirrored = address(slim, Some("http://mirror/")).unwrap();
        assert_eq!(mirrored, "http://mirror/cityscapes/rtformer_slim_cityscapes_1024x512_120k/model.pdparams");
        assert!(address(slim, Some("ftp://mirror")).unwrap_err().to_string().contains("RTFORMER_MIRROR"));
    }
}
