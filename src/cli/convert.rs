//! To be written.
use super::{Outcome, console::Console};
/// To be written
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
pub(super) fn run(_: &Args, _: &Console) -> anyhow::Result<Outcome> {
    Ok(Outcome::Done)
}
