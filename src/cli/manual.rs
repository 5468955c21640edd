//! Shell completions and the manual page, made from the same description as `--help`.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Outcome};

/// Print a completion script for a shell
///
/// Example: rtformer completions bash > ~/.local/share/bash-completion/completions/rtformer
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// Shell to write the script for
    shell: Shell,
}

/// Print the manual page
///
/// Example: rtformer man segment > rtformer-segment.1
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Command to describe, such as `segment` [default: an overview of all commands]
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rtformer", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)?;
    Ok(Outcome::Done)
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<Outcome> {
    let mut overview = Cli::command();
    overview.build(); // adds the full name and the global flags to each subcommand
    let page = match &args.command {
        None => overview,
        Some(name) => overview.find_subcommand(name).cloned().ok_or_else(|| {
            let names: Vec<_> = overview.get_subcommands().map(clap::Command::get_name).collect();
            super::misuse(format!("unknown command `{name}`: expected one of {}", names.join(", ")))
        })?,
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    io::Write::write_all(&mut io::stdout().lock(), &text)?;
    Ok(Outcome::Done)
}
