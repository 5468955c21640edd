//! `rtformer pull`: downloads PaddleSeg's checkpoints once, converts them, and keeps them.

use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::FalseyValueParser;
use rtformer::weights::{Dataset, Fetch, Official, Weights, cache_dir, fetch};
use rtformer::{ErrorKind, Hints};

use super::convert::{Wanted, convert};
use super::model::pulled_path;
use super::{Outcome, console::Console, misuse};

/// The address at which PaddleSeg publishes. A mirror has the same folders under another address.
const PUBLISHED: &str = "https://paddleseg.bj.bcebos.com/dygraph";

/// Download one of PaddleSeg's checkpoints and convert it for use with `--weights NAME`
///
/// An interrupted download is resumed by the next call. Models are stored in the folder named by RTFORMER_CACHE, or else in the
/// platform's cache folder. Without NAME, the models are listed.
///
/// Example: rtformer pull base-cityscapes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Model to download: slim-cityscapes, base-cityscapes, slim-ade20k or base-ade20k
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// List the models, and whether each is ready for use (ready) or not (-)
    #[arg(long, conflicts_with_all = ["name", "force"])]
    list: bool,

    /// Download nothing; only convert a checkpoint that is already in the cache folder
    #[arg(long, env = "RTFORMER_OFFLINE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    offline: bool,

    /// Proxy to use, as http://HOST:PORT or socks5://HOST:PORT [default: HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, else none]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,

    /// Address of another server with the same folders [default: https://paddleseg.bj.bcebos.com/dygraph]
    #[arg(long, value_name = "URL", env = "RTFORMER_MIRROR", hide_env_values = true)]
    mirror: Option<String>,

    /// Download and convert the model again even if it is already in the cache folder
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    let Some(name) = &args.name else {
        list(&mut std::io::stdout().lock())?;
        return Ok(Outcome::Done);
    };
    let Some(official) = Official::named(name) else {
        let names: Vec<_> = Official::all().iter().map(|official| official.name).collect();
        return Err(misuse(format!("unknown model `{name}`: expected one of {}", names.join(", "))));
    };
    let model = pulled_path(official)?;
    let usage = format!("use it with: rtformer segment PHOTOS -o out --weights {name}");
    if model.exists() && !args.force {
        match Weights::open(&model) {
            Ok(_) => {
                let at = model.display();
                console.note(&format!("{name} is already downloaded: {at} (use --force to download it again)"));
                console.note(&usage);
                return Ok(Outcome::Done);
            }
            Err(error) => console.note(&format!("{error}; downloading it again")),
        }
    }
    pull(args, official, &model, console)?;
    console.note(&format!("{name} is ready; {usage}"));
    Ok(Outcome::Done)
}

/// Prints each model's name, whether it is ready for use, and its address.
fn list(out: &mut impl std::io::Write) -> anyhow::Result<()> {
    for official in Official::all() {
        let ready = if pulled_path(official)?.exists() { "ready" } else { "-" };
        writeln!(out, "{:16} {ready:5} {}", official.name, official.url)?;
    }
    Ok(())
}

/// Downloads the checkpoint if needed, then converts it.
fn pull(args: &Args, official: &Official, model: &Path, console: &Console) -> anyhow::Result<()> {
    let url = address(official, args.mirror.as_deref())?;
    let download = downloaded_path(official)?;
    // A complete download exists if a conversion was interrupted, or if the user put the file there.
    if download.exists() && (args.offline || !args.force) {
        console.note(&format!("{}: is already downloaded", download.display()));
        match make(official, &download, model, console) {
            Err(error) if is_damaged(&error) && !args.offline => {
                console.note(&format!("{error:#}; downloading it again"));
            }
            made => return made,
        }
    }
    get(args, &url, &download, console)?;
    make(official, &download, model, console).map_err(|error| {
        if !is_damaged(&error) {
            return error;
        }
        // Remove the file, because the next call would use it as a complete download.
        let after = match fs::remove_file(&download) {
            Ok(()) => "the download was removed, so pull it again".into(),
            Err(e) => format!("the download could not be removed ({e}), so remove it yourself and pull it again"),
        };
        error.context(format!(
            "{url}: the downloaded file is not the checkpoint; {after}; if it fails again, a proxy or mirror may send a different file"
        ))
    })
}

/// The address of the checkpoint on the requested server.
fn address(official: &Official, mirror: Option<&str>) -> anyhow::Result<String> {
    let Some(mirror) = mirror.filter(|mirror| !mirror.is_empty()) else { return Ok(official.url.into()) };
    if !mirror.starts_with("http://") && !mirror.starts_with("https://") {
        return Err(misuse(format!(
            "invalid mirror `{mirror}` (--mirror, RTFORMER_MIRROR): expected an address that starts with http:// or https://"
        )));
    }
    let folders = official.url.strip_prefix(PUBLISHED).unwrap_or(official.url);
    Ok(format!("{}{folders}", mirror.trim_end_matches('/')))
}

fn downloaded_path(official: &Official) -> anyhow::Result<PathBuf> {
    Ok(cache_dir()?.join(format!("{}.pdparams", official.name)))
}

fn get(args: &Args, url: &str, to: &Path, console: &Console) -> anyhow::Result<()> {
    if !args.offline {
        console.note(&format!("downloading {url}"));
    }
    let options = Fetch {
        offline: args.offline,
        proxy: args.proxy.clone().filter(|proxy| !proxy.is_empty()),
        ..Fetch::default()
    };
    let bar = console.progress_bytes(0);
    let got = fetch(url, to, &options, &mut |have, total| {
        bar.set_length(total.unwrap_or(0));
        bar.set_position(have);
    });
    console.finish();
    Ok(got?)
}

/// Converts a download to the model, then removes the download, because the model contains all of its numbers.
fn make(official: &Official, download: &Path, model: &Path, console: &Console) -> anyhow::Result<()> {
    let variant = official.name.split_once('-').and_then(|(variant, _)| variant.parse().ok());
    let hints = Hints { variant, cross_size: Some(official.cross_size), num_heads: None };
    // As f32 and without padding, so that masks are the same as PaddleSeg's.
    let wanted = Wanted { dataset: Dataset::named(official.dataset), hints, ..Wanted::default() };
    convert(download, model, wanted, console)?;
    if let Err(e) = fs::remove_file(download) {
        console.note(&format!("{}: is no longer needed, but cannot be removed: {e}", download.display()));
    }
    Ok(())
}

/// Whether the error is due to the downloaded file, not to the disk or the device.
fn is_damaged(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|error: &rtformer::Error| error.kind() == ErrorKind::Weights)
}
