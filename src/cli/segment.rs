//! `rtformer segment`: segments photos and writes their masks and other outputs.

mod args;
mod emit;
mod inputs;
mod jobs;
mod outputs;
mod pipeline;
mod record;
mod report;
mod run;
mod shard;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use rtformer::pixels::{Image, Limits};

use super::console::{Console, printable};
use super::stop;
use super::{Outcome, misuse};
use inputs::{Failure, Found, Input};
use outputs::Progress;
use record::Record;
use run::{Run, Tally};
use shard::Shard;
use stop::Stop;

pub(super) use args::Args;

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    args.check()?;
    let found = inputs::find(&args.inputs, &args.list, args.folder());
    found.passed_over().for_each(|text| console.detail(&text));
    let Found { inputs, mut failures, .. } = found;
    let places: Vec<_> = inputs.iter().map(|input| input.place.as_path()).collect();
    // All photos, so that the tasks of an array job agree on the names.
    let stems = outputs::stems(args.folder().unwrap_or(Path::new("")), &places);
    let mut inputs: Vec<_> = inputs.into_iter().zip(stems).collect();
    if let Some(shard) = args.shard {
        keep_shard(shard, &mut inputs, &mut failures, console)?;
    }
    check_names(args, &inputs)?;

    let mut tally = Tally::default();
    let mut lines = report::Lines::default();
    for Failure { path, reason, .. } in &failures {
        tally.fail(args, console, &mut lines, path, &format!("{}: {reason}", path.display()));
    }
    let nothing = inputs.is_empty() || args.fail_fast && tally.failed > 0;
    let mut stop = Stop::default();
    if args.dry_run {
        dry_run(args, &inputs, &mut lines)?;
    } else if !nothing {
        stop = Stop::on_signals("photos", || ())?;
        Run::new(args, console, stop.clone())?.all(inputs, &mut tally, &mut lines)?;
    }
    lines.finish()?;
    Ok(match tally.failed {
        _ if stop.interrupted() => Outcome::Interrupted,
        0 => Outcome::Done,
        _ => Outcome::SomeFailed,
    })
}

/// Keeps the photos and the failures of a shard. Arguments, lists and folders that cannot be read concern every shard, because they may be
/// missing on this machine only.
fn keep_shard(
    shard: Shard,
    inputs: &mut Vec<(Input, PathBuf)>,
    failures: &mut Vec<Failure>,
    console: &Console,
) -> anyhow::Result<()> {
    if let Some((stream, _)) = inputs.iter().find(|(input, _)| input.stream) {
        let path = stream.path.display();
        return Err(misuse(format!(
            "--shard divides photos by their names, and the pictures of {path} have none; name files or folders"
        )));
    }
    let all = inputs.len();
    inputs.retain(|(input, _)| shard.holds(&input.place));
    failures.retain(|failure| failure.place.as_deref().is_none_or(|place| shard.holds(place)));
    console.note(&format!("shard {shard}: {} of {all} photos", inputs.len()));
    Ok(())
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
    for (stream, stem) in inputs.iter().filter(|(input, _)| input.stream) {
        if let Some((other, _)) = inputs.iter().find(|(_, other)| jobs::could_be_numbered(stem, other)) {
            let (other, stream) = (other.path.display(), stream.path.display());
            return Err(misuse(format!(
                "the outputs of {other} would have the same names as those of a picture of {stream}; segment them in two runs"
            )));
        }
    }
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

/// Prints what would be written.
fn dry_run(args: &Args, inputs: &[(Input, PathBuf)], lines: &mut report::Lines) -> anyhow::Result<()> {
    let emits = args.emits();
    let settings = if args.resume { Some(run::settings(args)?) } else { None };
    for (input, stem) in inputs {
        let done = |settings| {
            let bytes = Image::read(&input.path, &Limits::default()).ok()?;
            let progress = outputs::progress(&emits, stem, &Record::new(&input.path, &bytes, settings)).ok()?;
            (progress == Progress::Done).then_some(())
        };
        if !input.stream && settings.as_ref().and_then(done).is_some() {
            continue;
        }
        if args.json {
            let written: Vec<_> = emits.iter().map(|emit| (emit.name(), emit.path(stem))).collect();
            lines.print(&report::plan(&input.path, &written));
            continue;
        }
        let written: Vec<_> = emits.iter().map(|emit| emit.path(stem).display().to_string()).collect();
        writeln!(stdout(), "{}", printable(&format!("{} -> {}", input.path.display(), written.join(", "))))?;
    }
    Ok(())
}
