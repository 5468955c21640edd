//! `rtformer pull`: downloads PaddleSeg's checkpoints once, converts them, and keeps them.

use clap::builder::FalseyValueParser;
use rtformer::weights::{Fetch, Official};
use rtformer::{Pull, Pulling};

use super::model::pulled_path;
use super::{Outcome, console::Console, misuse};

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
    let proxy = args.proxy.clone().filter(|proxy| !proxy.is_empty());
    let fetch = Fetch { offline: args.offline, proxy, ..Fetch::default() };
    let options = Pull { fetch, mirror: args.mirror.clone(), force: args.force };
    let (mut work, mut bar) = (false, None);
    let pulled = rtformer::pull(official, &options, &mut |step| {
        work = true;
        match step {
            Pulling::Damaged(error) => console.note(&format!("{error}; downloading it again")),
            Pulling::Downloading { url, done, total } => {
                let bar = bar.get_or_insert_with(|| {
                    console.note(&format!("downloading {url}"));
                    console.progress_bytes(0)
                });
                bar.set_length(total.unwrap_or(0));
                bar.set_position(done);
            }
            Pulling::Converting => {
                console.finish();
                console.note(&format!("converting {name}"));
            }
        }
    });
    console.finish();
    let model = match pulled {
        Err(rtformer::Error::Input(reason)) => return Err(misuse(reason)),
        pulled => pulled?,
    };
    let state = if work { "is ready" } else { "is already downloaded" };
    let again = if work { "" } else { " (use --force to download it again)" };
    console.note(&format!("{name} {state}: {}{again}", model.display()));
    console.note(&format!("use it with: rtformer segment PHOTOS -o out --weights {name}"));
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
