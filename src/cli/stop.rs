//! Signals: the first one ends a run after the photos or frames in progress, the second one ends it at once.

use std::io::{Write, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

/// A request to end the run early.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop {
    asked: Arc<AtomicBool>,
    interrupted: Arc<AtomicBool>,
}

impl Stop {
    /// Stops on Ctrl-C, a request to terminate, and a hangup. Signals that were ignored when the program started stay ignored.
    /// `what` is in progress then; `at_once` runs before a second signal ends the program.
    pub(super) fn on_signals(what: &'static str, at_once: fn()) -> anyhow::Result<Self> {
        let stop = Self::default();
        let handler = stop.clone();
        listen(move || {
            if handler.interrupted.swap(true, Ordering::SeqCst) {
                at_once();
                std::process::exit(130);
            }
            handler.ask();
            // Ignore the error, because standard error may be closed.
            let _ = writeln!(stderr(), "stopping after the {what} in progress; interrupt again to stop at once");
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(stop)
    }

    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether a signal made the request.
    pub(super) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

#[cfg(unix)]
fn listen(mut signalled: impl FnMut() + Send + 'static) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let ignored = ignored();
    let wanted = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = signal_hook::iterator::Signals::new(wanted)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || signals.forever().for_each(|_| signalled()))?;
    Ok(())
}

/// The signals that are ignored, bit `n - 1` for signal `n`. `nohup` ignores hangups, and shells ignore Ctrl-C for background jobs.
#[cfg(target_os = "linux")]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Other systems do not report this without unsafe code. Hangups keep their current action, which is right with and without `nohup`.
#[cfg(all(unix, not(target_os = "linux")))]
fn ignored() -> u64 {
    1 << (signal_hook::consts::SIGHUP - 1)
}

#[cfg(not(unix))]
fn listen(signalled: impl FnMut() + Send + 'static) -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(signalled)?)
}
