//! `rtformer`, the program. Exit codes: 0, 1 (some input failed), 2 (misused).

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(&cli::Cli::parse())
}
