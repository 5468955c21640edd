//! The `rtformer` program. Exit codes: 0 (success), 1 (an input failed), 2 (wrong usage), 130 (interrupted).

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(&cli::Cli::parse())
}
