//! The `rtformer` program. Exit codes: 0 (success), 1 (an input failed), 2 (wrong usage), 130 (interrupted).

use std::process::ExitCode;

fn main() -> ExitCode {
    rtformer::cli::main(std::env::args_os()).into()
}
