//! What a person types. Uses only the library's public API, like any other user.
#![allow(clippy::doc_markdown, reason = "doc comments on arguments are the text of --help, which is not Markdown")]

mod batch;
mod bench;
mod console;
mod convert;
mod eval;
mod info;
mod list;
mod manual;
mod model;
mod photos;
mod plot;
#[cfg(feature = "download")]
mod pull;
mod segment;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use console::Console;
use model::DeviceArgs;

/// Real-time semantic segmentation with RTFormer: photos in, the class of every pixel out.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 100)]
    quiet: bool,

    /// Say more: the model and device chosen, and a line for each photo
    #[arg(short, long, global = true, display_order = 101)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Segment(segment::Args),
    Eval(eval::Args),
    Bench(bench::Args),
    Convert(convert::Args),
    #[cfg(feature = "download")]
    Pull(pull::Args),
    Info(info::Args),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

impl Command {
    /// The device flags of the commands that run the network.
    fn device(&self) -> Option<&DeviceArgs> {
        match self {
            Self::Segment(args) => Some(args.device()),
            Self::Eval(args) => Some(args.device()),
            Self::Bench(args) => Some(args.device()),
            _ => None,
        }
    }
}

/// How a command that ran to its end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All of it was done.
    Done,
    /// Some inputs failed; each was reported, and the others are done.
    SomeFailed,
    /// Ctrl-C: what was in work is finished, the rest was not begun.
    Interrupted,
}

/// The command cannot be obeyed as it was typed: exit code 2, as for a flag that does not exist.
#[derive(Debug)]
struct Misuse(String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// A [`Misuse`] as an error to return.
fn misuse(text: impl Into<String>) -> anyhow::Error {
    Misuse(text.into()).into()
}

/// Does what was asked for and prints what went wrong.
pub(crate) fn run(cli: &Cli) -> ExitCode {
    let console = Console::new(cli.quiet, cli.verbose);
    // The error that follows names the photo and says what to do.
    rtformer::pixels::hide_decoder_panics();
    let started = cli.command.device().map_or(Ok(()), DeviceArgs::start_threads);
    let done = started.and_then(|()| match &cli.command {
        Command::Segment(args) => segment::run(args, &console),
        Command::Eval(args) => eval::run(args, &console),
        Command::Bench(args) => bench::run(args, &console),
        Command::Convert(args) => convert::run(args, &console),
        #[cfg(feature = "download")]
        Command::Pull(args) => pull::run(args, &console),
        Command::Info(args) => info::run(args),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(args),
    });
    match done {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => ExitCode::from(1),
        Ok(Outcome::Interrupted) => ExitCode::from(130), // as shells have it: 128 and the signal's number
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS, // `rtformer … | head` has read what it wanted
        Err(error) => {
            console.error(&format!("{error:#}"));
            ExitCode::from(if error.is::<Misuse>() { 2 } else { 1 })
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
