//! The command line. Uses only the library's public API, like any other user.
#![allow(clippy::doc_markdown, reason = "doc comments on arguments are the text of --help, which is not Markdown")]

mod batch;
mod bench;
mod calibrate;
mod canvas;
mod console;
mod convert;
mod eval;
mod explain;
mod frame;
mod html;
mod info;
mod labels;
mod legend;
mod lines;
mod list;
mod manual;
mod model;
#[cfg_attr(not(feature = "object-store"), allow(dead_code, reason = "only the client makes contents and results"))]
mod objects;
mod photos;
mod plan;
mod plot;
#[cfg(feature = "download")]
mod pull;
mod segment;
mod stats;
mod stems;
mod stop;
mod video;

use std::ffi::OsString;
use std::fmt;
use std::io::{Write, stdout};

use clap::{Parser, Subcommand};
use console::Console;
use model::DeviceArgs;

/// Real-time semantic segmentation with RTFormer: finds the class of every pixel of a photo
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Print only errors
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 100)]
    quiet: bool,

    /// Print more: the model and device in use, and a line for each photo
    #[arg(short, long, global = true, display_order = 101)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Segment(segment::Args),
    Video(video::Args),
    Eval(eval::Args),
    Explain(explain::Args),
    Bench(bench::Args),
    Calibrate(calibrate::Args),
    Convert(convert::Args),
    #[cfg(feature = "download")]
    Pull(pull::Args),
    Plan(Box<plan::Args>),
    Info(info::Args),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

impl Command {
    /// The device flags of the commands that run the network.
    fn device(&self) -> Option<&DeviceArgs> {
        match self {
            Self::Segment(args) => Some(args.device()),
            Self::Video(args) => Some(args.device()),
            Self::Eval(args) => Some(args.device()),
            Self::Explain(args) => Some(args.device()),
            Self::Bench(args) => Some(args.device()),
            Self::Calibrate(args) => args.device(),
            _ => None,
        }
    }
}

/// The result of a command that did not stop with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Everything was done.
    Done,
    /// Some inputs failed. Each was reported, and the others are done.
    SomeFailed,
    /// Ctrl-C: the inputs in progress were finished, the others were not started.
    Interrupted,
}

/// Wrong usage: the command line cannot be executed as given. Exit code 2, the same as for an unknown flag.
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

/// Runs the program with these arguments, of which the first is its name, and returns the exit code: 0 (success), 1 (an input failed),
/// 2 (wrong usage), or 130 (interrupted).
///
/// For programs that contain this one, such as the Python package. It prints to the standard streams, listens for signals, and
/// starts rayon's global threads, so a process can call it once.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let code = match Cli::try_parse_from(args) {
        Ok(cli) => run(&cli),
        Err(error) => {
            // Ignore the error, because the stream may be closed.
            let _ = error.print();
            error.exit_code() as u8
        }
    };
    // At the end of a program in another language, Rust's buffer is not flushed.
    let _ = stdout().flush();
    code
}

/// Runs the command, prints its error, if any, and returns the exit code.
fn run(cli: &Cli) -> u8 {
    let console = Console::new(cli.quiet, cli.verbose);
    // The error that follows names the photo and says what to do.
    rtformer::pixels::hide_decoder_panics();
    let started =
        cli.command.device().map_or(Ok(()), |device| device.start_threads(matches!(cli.command, Command::Bench(_))));
    let done = started.and_then(|()| match &cli.command {
        Command::Segment(args) => segment::run(args, &console),
        Command::Video(args) => video::run(args, &console),
        Command::Eval(args) => eval::run(args, &console),
        Command::Explain(args) => explain::run(args, &console),
        Command::Bench(args) => bench::run(args, &console),
        Command::Calibrate(args) => calibrate::run(args, &console),
        Command::Convert(args) => convert::run(args, &console),
        #[cfg(feature = "download")]
        Command::Pull(args) => pull::run(args, &console),
        Command::Plan(args) => plan::run(args, &console),
        Command::Info(args) => info::run(args),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::man(args),
    });
    match done {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::SomeFailed) => 1,
        Ok(Outcome::Interrupted) => 130, // as in shells: 128 plus the signal's number
        Err(error) if is_closed_pipe(&error) => 0, // `rtformer … | head` stopped reading
        Err(error) => {
            console.error(&format!("{error:#}"));
            if error.is::<Misuse>() { 2 } else { 1 }
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
