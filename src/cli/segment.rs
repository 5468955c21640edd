//! `rtformer segment`: segments photos and writes their masks and other outputs.

mod ahead;
mod args;
mod emit;
mod inputs;
mod jobs;
mod journal;
mod outputs;
mod pipeline;
mod record;
mod report;
mod run;
mod shapes;
mod shard;
mod sorted;
mod target;
mod tiled;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::console::{Console, printable};
use super::objects::{Content, Stores};
use super::stems::stems;
use super::stop;
use super::{Outcome, misuse};
use inputs::{Failure, Found, Input};
use jobs::Job;
use outputs::Progress;
use record::Record;
use run::{Planned, Run, Tally};
use sorted::{PassedOver, Placed, Sorted};
use stop::Stop;
use target::Target;

pub(super) use args::Args;

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    args.find_binaries()?;
    args.check()?;
    let mut stores = Stores::new(usize::from(args.retries));
    let target = Target::open(args, &mut stores)?;
    let mut found = inputs::find(&args.inputs, &args.list, args.folder());
    found.passed_over().for_each(|text| console.detail(&text));
    if let Some(shard) = args.shard {
        // Arguments, lists and folders that cannot be read concern every shard, because they may be missing on this machine only.
        found.failures.retain(|failure| failure.place.as_deref().is_none_or(|place| shard.holds(place)));
    }
    let failures = std::mem::take(&mut found.failures);
    let planned = if found.prefixes.is_empty() && target.bucket().is_none() {
        known(args, found.inputs, stores, console)?
    } else {
        listed(args, found, &target, stores)?
    };

    let mut tally = Tally::default();
    let mut lines = report::Lines::default();
    for Failure { path, reason, .. } in &failures {
        tally.fail(args, console, &mut lines, path, &format!("{}: {reason}", path.display()));
    }
    let nothing = planned.count == Some(0) || args.fail_fast && tally.failed > 0;
    let mut stop = Stop::default();
    if args.dry_run {
        dry_run(args, console, planned, target, &mut tally, &mut lines)?;
    } else if !nothing {
        stop = Stop::on_signals("photos", || ())?;
        Run::new(args, console, target, stop.clone())?.all(planned, &mut tally, &mut lines);
    }
    lines.finish()?;
    Ok(match tally.failed {
        _ if stop.interrupted() => Outcome::Interrupted,
        0 => Outcome::Done,
        _ => Outcome::SomeFailed,
    })
}

/// Photos that are known before the run starts, whose outputs go to files or standard output.
fn known(args: &Args, inputs: Vec<Input>, stores: Stores, console: &Console) -> anyhow::Result<Planned> {
    let places: Vec<_> = inputs.iter().map(|input| input.place.as_path()).collect();
    // All photos, so that the tasks of an array job agree on the names.
    let stems = stems(args.folder().unwrap_or(Path::new("")), &places);
    let mut inputs: Vec<_> = inputs.into_iter().zip(stems).collect();
    check_shard(args, inputs.iter().map(|(input, _)| input))?;
    if let Some(shard) = args.shard {
        let all = inputs.len();
        inputs.retain(|(input, _)| shard.holds(&input.place));
        console.note(&format!("shard {shard}: {} of {all} photos", inputs.len()));
    }
    check_names(args, &inputs)?;
    let count = inputs.len() as u64;
    let placed = |(input, stem)| Ok(Placed { input, stem, object: None, existing: None });
    Ok(Planned {
        photos: Box::new(inputs.into_iter().map(placed)),
        count: Some(count),
        passed_over: Arc::default(),
        stores,
    })
}

/// Photos of which some, or whose outputs, are in an object store and are listed during the run.
fn listed(args: &Args, found: Found, target: &Target, mut stores: Stores) -> anyhow::Result<Planned> {
    let Found { inputs, prefixes, .. } = found;
    if args.to_stdout() {
        return Err(misuse("-o - writes the output of one photo; use -o FOLDER for several"));
    }
    check_shard(args, inputs.iter())?;
    if let Some(stream) = inputs.iter().find(|input| input.stream)
        && let Some(prefix) = prefixes.first()
    {
        let stream = stream.path.display();
        return Err(misuse(format!(
            "a photo of {prefix} could have the same name as a picture of {stream}; segment them in two runs"
        )));
    }
    let places: Vec<_> = inputs.iter().map(|input| (input, input.place.with_extension(""))).collect();
    check_numbers(&places)?;
    let count = prefixes.is_empty().then_some(inputs.len() as u64);
    let mut opened = Vec::new();
    for url in prefixes {
        let store = stores.open(&url).map_err(|reason| misuse(format!("{url}: {reason}")))?;
        opened.push((url, store));
    }
    let passed_over = Arc::<PassedOver>::default();
    let out = match (target.bucket(), args.folder()) {
        (Some(bucket), _) => bucket.url.to_string(),
        (None, folder) => folder.unwrap_or(Path::new("")).to_string_lossy().into_owned(),
    };
    let compared = target.bucket().filter(|_| !args.overwrite).map(|bucket| (Arc::clone(&bucket.store), args.emits()));
    let folder = target.bucket().map(|bucket| &bucket.url);
    let photos = Sorted::new(inputs, opened, out, folder, compared, &passed_over);
    let shard = args.shard;
    let mine = move |photo: &Result<Placed, Failure>| {
        let place = match photo {
            Ok(placed) => Some(&placed.input.place),
            Err(failure) => failure.place.as_ref(),
        };
        place.is_none_or(|place| shard.is_none_or(|shard| shard.holds(place)))
    };
    Ok(Planned { photos: Box::new(photos.filter(mine)), count: count.filter(|_| shard.is_none()), passed_over, stores })
}

/// Rejects streams with `--shard`.
fn check_shard<'a>(args: &Args, mut inputs: impl Iterator<Item = &'a Input>) -> anyhow::Result<()> {
    match inputs.find(|input| input.stream && args.shard.is_some()) {
        Some(stream) => Err(misuse(format!(
            "--shard divides photos by their names, and the pictures of {} have none; name files or folders",
            stream.path.display()
        ))),
        None => Ok(()),
    }
}

/// Rejects inputs whose outputs would have the same names as each other or as existing files.
fn check_names(args: &Args, inputs: &[(Input, PathBuf)]) -> anyhow::Result<()> {
    if args.to_stdout() {
        let folder = args.inputs.iter().any(|input| input.is_dir());
        if inputs.len() > 1 || folder || args.inputs.len() + args.list.len() > 1 {
            return Err(misuse("-o - writes the output of one photo; use -o FOLDER for several"));
        }
        return Ok(());
    }
    let stems: Vec<_> = inputs.iter().map(|(input, stem)| (input, stem.clone())).collect();
    check_numbers(&stems)?;
    if args.resume || args.overwrite {
        return Ok(());
    }
    // The names for a stream's pictures depend on their number.
    let files = inputs.iter().filter(|(input, _)| !input.stream);
    let emits = args.emits();
    let outputs = files.flat_map(|(_, stem)| emits.iter().map(|emit| emit.path(stem)));
    let mut existing = outputs.filter(|path| path.exists());
    if let Some(first) = existing.next() {
        let (first, more) = (first.display(), existing.count());
        return Err(misuse(format!(
            "{first} and {more} more outputs exist already; use --resume to skip photos that are done, or --overwrite to replace their outputs"
        )));
    }
    Ok(())
}

/// Rejects photos whose outputs would have the same names as those of a stream's pictures.
fn check_numbers(inputs: &[(&Input, PathBuf)]) -> anyhow::Result<()> {
    for (stream, stem) in inputs.iter().filter(|(input, _)| input.stream) {
        if let Some((other, _)) = inputs.iter().find(|(_, other)| jobs::could_be_numbered(stem, other)) {
            let (other, stream) = (other.path.display(), stream.path.display());
            return Err(misuse(format!(
                "the outputs of {other} would have the same names as those of a picture of {stream}; segment them in two runs"
            )));
        }
    }
    Ok(())
}

/// Prints what would be written.
fn dry_run(
    args: &Args,
    console: &Console,
    planned: Planned,
    mut target: Target,
    tally: &mut Tally,
    lines: &mut report::Lines,
) -> anyhow::Result<()> {
    let emits = args.emits();
    let settings = if args.resume { Some(run::settings(args)?) } else { None };
    target.start(args, console)?;
    let Planned { photos, passed_over, mut stores, .. } = planned;
    for photo in photos {
        let placed = match photo {
            Ok(placed) => placed,
            Err(Failure { path, reason, .. }) => {
                tally.fail(args, console, lines, &path, &format!("{}: {reason}", path.display()));
                continue;
            }
        };
        let mut done = |settings| {
            if target.is_done(&emits, &placed, settings) {
                return Some(());
            }
            let mut job = Job::new(placed.clone(), &mut stores);
            let Content { bytes, tag } = job.read().ok()?;
            let record = Record::new(&placed.input.path, &bytes, settings);
            let version = tag.unwrap_or_else(|| record.sha256.clone());
            let progress = target.progress(&emits, &mut job, &version, &record).ok()?;
            (progress == Progress::Done).then_some(())
        };
        if !placed.input.stream && settings.as_ref().and_then(&mut done).is_some() {
            continue;
        }
        let (path, stem) = (&placed.input.path, &placed.stem);
        if args.json {
            let written: Vec<_> = emits.iter().map(|emit| (emit.name(), emit.path(stem))).collect();
            lines.print(&report::plan(path, &written));
            continue;
        }
        let written: Vec<_> = emits.iter().map(|emit| emit.path(stem).display().to_string()).collect();
        writeln!(stdout(), "{}", printable(&format!("{} -> {}", path.display(), written.join(", "))))?;
    }
    passed_over.texts().for_each(|text| console.detail(&text));
    Ok(())
}
