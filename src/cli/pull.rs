//! PaddleSeg's own checkpoints: downloaded once, converted, and kept.

use std::fs;
use std::path::{Path, PathBuf};

use clap::builder::FalseyValueParser;
use rtformer::weights::{Dataset, Fetch, Official, Weights, cache_dir, fetch};
use rtformer::{ErrorKind, Hints};

use super::convert::{Wanted, convert};
use super::model::pulled_path;
use super::{Outcome, console::Console, misuse};

/// Where PaddleSeg publishes; a mirror has the same folders under another address.
const PUBLISHED: &str = "https://paddleseg.bj.bcebos.com/dygraph";

/// Download one of PaddleSeg's checkpoints, convert it and keep it for `--weights NAME`
///
/// A download that broke off goes on from there at the next call. Models are kept in the folder that RTFORMER_CACHE names, else
/// in the platform's cache folder. Without a name, the models are listed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model: slim-cityscapes, base-cityscapes, slim-ade20k or base-ade20k
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// List the models, and which are here
    #[arg(long, conflicts_with_all = ["name", "force"])]
    list: bool,

    /// Download nothing: only convert what is here already
    #[arg(long, env = "RTFORMER_OFFLINE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    offline: bool,

    /// The proxy to go through, as http://HOST:PORT or socks5://HOST:PORT; else HTTPS_PROXY, HTTP_PROXY or ALL_PROXY name it
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,

    /// Another server with the same folders, in place of https://paddleseg.bj.bcebos.com/dygraph
    #[arg(long, value_name = "URL", env = "RTFORMER_MIRROR", hide_env_values = true)]
    mirror: Option<String>,

    /// Download and convert again what is here already
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
        return Err(misuse(format!("there is no model `{name}` to pull; there are {}", names.join(", "))));
    };
    let model = pulled_path(official)?;
    let usage = format!("use it: rtformer segment PHOTOS -o out --weights {name}");
    if model.exists() && !args.force {
        match Weights::open(&model) {
            Ok(_) => {
                console.note(&format!("{name} is here already: {} (--force pulls it anew)", model.display()));
                console.note(&usage);
                return Ok(Outcome::Done);
            }
            Err(error) => console.note(&format!("{error}; pulling it anew")),
        }
    }
    pull(args, official, &model, console)?;
    console.note(&format!("{name} is ready; {usage}"));
    Ok(Outcome::Done)
}

/// The names, whether each is here, and where it is from.
fn list(out: &mut impl std::io::Write) -> anyhow::Result<()> {
    for official in Official::all() {
        let here = if pulled_path(official)?.exists() { "here" } else { "-" };
        writeln!(out, "{:16} {here:5} {}", official.name, official.url)?;
    }
    Ok(())
}

/// Downloads where that is needed, then converts.
fn pull(args: &Args, official: &Official, model: &Path, console: &Console) -> anyhow::Result<()> {
    let url = address(official, args.mirror.as_deref())?;
    let download = downloaded_path(official)?;
    // A whole download is there when a conversion was interrupted, or when somebody put it there by hand.
    if download.exists() && (args.offline || !args.force) {
        console.note(&format!("{}: downloaded already", download.display()));
        match make(official, &download, model, console) {
            Err(error) if is_damaged(&error) && !args.offline => {
                console.note(&format!("{error:#}; downloading it anew"));
            }
            made => return made,
        }
    }
    get(args, &url, &download, console)?;
    make(official, &download, model, console).map_err(|error| {
        if !is_damaged(&error) {
            return error;
        }
        // Kept, it would be taken for whole by the next call.
        let after = match fs::remove_file(&download) {
            Ok(()) => "the download was removed, so pull it again".into(),
            Err(e) => format!("remove that file ({e}) and pull it again"),
        };
        error.context(format!(
            "{url}: what came is not the checkpoint; {after}; if that does not help, a proxy or mirror gives something else"
        ))
    })
}

/// Where the checkpoint is on the server that was asked for.
fn address(official: &Official, mirror: Option<&str>) -> anyhow::Result<String> {
    let Some(mirror) = mirror.filter(|mirror| !mirror.is_empty()) else { return Ok(official.url.into()) };
    if !mirror.starts_with("http://") && !mirror.starts_with("https://") {
        return Err(misuse(format!(
            "the mirror `{mirror}` (--mirror, RTFORMER_MIRROR) is no address: write http://… or https://…"
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

/// Converts a download into the model, and removes it then: the model has all of its numbers.
fn make(official: &Official, download: &Path, model: &Path, console: &Console) -> anyhow::Result<()> {
    let variant = official.name.split_once('-').and_then(|(variant, _)| variant.parse().ok());
    let hints = Hints { variant, cross_size: Some(official.cross_size), num_heads: None };
    // As f32 and without padding, so that masks are PaddleSeg's own.
    let wanted = Wanted { dataset: Dataset::named(official.dataset), hints, ..Wanted::default() };
    convert(download, model, wanted, console)?;
    if let Err(e) = fs::remove_file(download) {
        console.note(&format!("{}: is no longer needed, but cannot be removed: {e}", download.display()));
    }
    Ok(())
}

/// Whether the download is to blame, and not the disk or the device.
fn is_damaged(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(|error: &rtformer::Error| error.kind() == ErrorKind::Weights)
}
