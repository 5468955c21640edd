//! JSON lines on standard output.

use std::io::{self, Write, stdout};

use anyhow::Context;

/// Prints one JSON object per line on standard output. If printing fails, the remaining lines are dropped, and the run continues, because
/// its files are still wanted.
#[derive(Debug, Default)]
pub(super) struct Lines {
    failed: Option<io::Error>,
}

impl Lines {
    pub(super) fn print(&mut self, line: &str) {
        if !self.is_closed() {
            self.failed = writeln!(stdout(), "{line}").err();
        }
    }

    /// Whether lines are dropped.
    pub(super) fn is_closed(&self) -> bool {
        self.failed.is_some()
    }

    /// Returns the error because of which lines were dropped. It is not an error if the reader closed the pipe, as `head` does.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.failed {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("standard output cannot be written, so results are missing there")
            }
            _ => Ok(()),
        }
    }
}
