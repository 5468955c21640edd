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
mod stop;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use rtformer::pixels::{Image, Limits};

use super::console::{Console, printable};
use super::{Outcome, misuse};
use inputs::{Found, Input};
use outputs::Progress;
use record::Record;
use run::{Run, Tally};
use stop::Stop;

pub(super) use args::Args;

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    args.check()?;
    let found = inputs::find(&args.inputs, &args.list, args.folder());
    found.passed_over().for_each(|text| console.detail(&text));
    let Found { inputs, failures, .. } = found;
    let places: Vec<_> = inputs.iter().map(|input| input.place.as_path()).collect();
    let stems = outputs::stems(args.folder().unwrap_or(Path::new("")), &places);
    check_names(args, &inputs, &stems)?;

    let mut tally = Tally::default();
    let mut lines = report::Lines::default();
    for (path, reason) in &failures {
        tally.fail(args, console, &mut lines, path, &format!("{}: {reason}", path.display()));
    }
    let nothing = inputs.is_empty() || args.fail_fast && tally.failed > 0;
    let inputs: Vec<_> = inputs.into_iter().zip(stems).collect();
    let mut stop = Stop::default();
    if args.dry_run {
        dry_run(args, &inputs)?;
    } else if !nothing {
        stop = Stop::on_signals()?;
        Run::new(args, console, stop.clone())?.all(inputs, &mut tally, &mut lines)?;
    }
    lines.finish()?;
    Ok(match tally.failed {
        _ if stop.interrupted() => Outcome::Interrupted,
        0 => Outcome::Done,
        _ => Outcome::SomeFailed,
    })
}

/// Rejects inputs whose outputs would have the same names as each other or as existing files.
fn check_names(args: &Args, inputs: &[Input], stems: &[PathBuf]) -> anyhow::Result<()> {
    if args.to_stdout() {
        let folder = args.inputs.iter().any(|input| input.is_dir());
        if inputs.len() > 1 || folder || args.inputs.len() + args.list.len() > 1 {
            return Err(misuse("-o - writes the output of one photo; use -o FOLDER for several"));
        }
        return Ok(());
    }
    for (stream, stem) in inputs.iter().zip(stems).filter(|(input, _)| input.stream) {
        if let Some(other) = stems.iter().position(|other| jobs::could_be_numbered(stem, other)) {
            let (other, stream) = (inputs[other].path.display(), stream.path.display());
            return Err(misuse(format!(
                "the outputs of {other} would have the same names as those of a picture of {stream}; segment them in two runs"
            )));
        }
    }
    if args.resume || args.overwrite {
        return Ok(());
    }
    // The names for a stream's pictures depend on their number.
    let files = inputs.iter().zip(stems).filter(|(input, _)| !input.stream);
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
fn dry_run(args: &Args, inputs: &[(Input, PathBuf)]) -> anyhow::Result<()> {
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
        let written: Vec<_> = emits.iter().map(|emit| emit.path(stem).display().to_string()).collect();
        writeln!(stdout(), "{}", printable(&format!("{} -> {}", input.path.display(), written.join(", "))))?;
    }
    Ok(())
}
