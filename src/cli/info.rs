//! To be written.
use super::Outcome;
/// To be written
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
pub(super) fn run(_: &Args) -> anyhow::Result<Outcome> {
    Ok(Outcome::Done)
}
