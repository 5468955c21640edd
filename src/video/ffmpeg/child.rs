//! A child process whose standard error is always drained, and which never outlives its owner.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::missing;
use crate::error::Result;
use crate::video::failure;

/// The number of messages that are kept for an error, and the longest part of each.
const KEPT: usize = 5;
const LONGEST: usize = 300;

/// All children that run, for [`stop_children`].
static RUNNING: Mutex<Vec<Weak<Mutex<Process>>>> = Mutex::new(Vec::new());

/// Kills the child processes that read or write videos, and waits for them. For programs that end without dropping their
/// [`Source`](crate::video::Source) and [`Encoder`](crate::video::Encoder), for example on a second Ctrl-C.
///
/// ```
/// rtformer::video::stop_children(); // there are none
/// ```
pub fn stop_children() {
    for process in RUNNING.lock().drain(..).filter_map(|process| process.upgrade()) {
        stop(&mut process.lock());
    }
}

fn stop(process: &mut Process) {
    // Both fail only if the child has ended already.
    let _ = process.kill();
    let _ = process.wait();
}

pub(super) struct Child {
    process: Arc<Mutex<Process>>,
    messages: Arc<Mutex<Messages>>,
    drain: Option<JoinHandle<()>>,
}

/// The last messages of each severity.
#[derive(Default)]
struct Messages {
    errors: VecDeque<String>,
    others: VecDeque<String>,
}

impl Child {
    /// Starts the command. `observe` sees each line of standard error and returns whether it was an expected one, which is then not kept.
    pub(super) fn start(
        command: &mut Command,
        wanted_for: &str,
        mut observe: impl FnMut(&str) -> bool + Send + 'static,
    ) -> Result<(Self, Option<std::process::ChildStdin>, Option<std::process::ChildStdout>)> {
        let mut process = command.stderr(Stdio::piped()).spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => missing(wanted_for),
            _ => failure(wanted_for, format!("`ffmpeg` cannot be started: {error}")),
        })?;
        let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let process = Arc::new(Mutex::new(process));
        {
            let mut running = RUNNING.lock();
            running.retain(|process| process.strong_count() > 0);
            running.push(Arc::downgrade(&process));
        }
        let messages = Arc::<Mutex<Messages>>::default();
        let kept = Arc::clone(&messages);
        let drain = stderr.map(|stderr| {
            thread::spawn(move || {
                for line in BufReader::new(stderr).split(b'\n').map_while(std::result::Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    if !observe(&line) {
                        kept.lock().keep(&line);
                    }
                }
            })
        });
        Ok((Self { process, messages, drain }, stdin, stdout))
    }

    /// Waits for the end. The lock is not held meanwhile, so that [`stop_children`] can end the child.
    fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let status = loop {
            if let Some(status) = self.process.lock().try_wait()? {
                break status;
            }
            thread::sleep(Duration::from_millis(2));
        };
        if let Some(drain) = self.drain.take() {
            let _ = drain.join();
        }
        Ok(status)
    }

    /// Waits for the end. `Err` says how the child failed, with its last messages.
    pub(super) fn finish(&mut self) -> std::result::Result<(), String> {
        let how = match self.wait() {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => ended(status),
            Err(error) => format!("cannot be waited for: {error}"),
        };
        let quote = self.quote();
        Err(if quote.is_empty() { how } else { format!("{how}: {quote}") })
    }

    /// The errors that the child reported, in one line; empty if there are none.
    pub(super) fn errors(&self) -> String {
        join(&self.messages.lock().errors)
    }

    /// The errors, or else the last other messages.
    fn quote(&self) -> String {
        let messages = self.messages.lock();
        join(if messages.errors.is_empty() { &messages.others } else { &messages.errors })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        stop(&mut self.process.lock());
        if let Some(drain) = self.drain.take() {
            let _ = drain.join();
        }
    }
}

fn join(lines: &VecDeque<String>) -> String {
    lines.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
}

impl Messages {
    /// Keeps a line such as `[mov @ 0x55d0] [error] moov atom not found`, without the address.
    fn keep(&mut self, line: &str) {
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        let severe = ["[error]", "[fatal]", "[panic]"].iter().any(|level| line.contains(level));
        let mut text = String::new();
        for part in line.split_inclusive(']') {
            let bare = part.trim();
            match (bare.strip_prefix('[').and_then(|tag| tag.strip_suffix(']')), bare) {
                (Some("error" | "fatal" | "panic" | "warning" | "info"), _) => {}
                (Some(tag), _) if tag.contains(" @ 0x") => {
                    text += &format!("{}: ", tag.split(" @ ").next().unwrap_or_default());
                }
                _ => text += part.trim_start_matches(if text.is_empty() || text.ends_with(' ') { " " } else { "" }),
            }
        }
        let text: String = text.chars().take(LONGEST).collect();
        let lines = if severe { &mut self.errors } else { &mut self.others };
        if lines.back() == Some(&text) {
            return;
        }
        lines.push_back(text);
        if lines.len() > KEPT {
            lines.pop_front();
        }
    }
}

/// How a process ended.
fn ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("was killed by signal {signal}");
    }
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => "ended without an exit code".into(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null());
        Child::start(&mut command, "a test", |line| line.contains("expected")).unwrap().0
    }

    #[test]
    fn failures_are_quoted() {
        let cases = [
            ("echo '[info] x' >&2; exit 0", Ok(())),
            ("exit 3", Err("ended with exit code 3")),
            ("echo expected >&2; echo '[info] last words' >&2; exit 1", Err("ended with exit code 1: last words")),
            (
                "echo '[info] chatter' >&2; echo '[mov @ 0x5f] [error] moov atom not found' >&2; exit 1",
                Err("ended with exit code 1: mov: moov atom not found"),
            ),
            ("kill -9 $$", Err("was killed by signal 9")),
            (
                "for i in 1 2 3 4 5 6 7; do echo \"[error] $i\" >&2; done; exit 1",
                Err("ended with exit code 1: 3; 4; 5; 6; 7"),
            ),
        ];
        for (script, want) in cases {
            assert_eq!(shell(script).finish(), want.map_err(Into::into), "{script}");
        }
    }

    #[test]
    fn a_child_that_prints_a_lot_does_not_block() {
        let mut child = shell(
            "i=0; while [ $i -lt 20000 ]; do echo '[warning] a line that fills the pipe of standard error' >&2; i=$((i+1)); done",
        );
        assert_eq!(child.finish(), Ok(()));
    }

    #[test]
    fn a_dropped_child_is_killed_and_waited_for() {
        let child = shell("exec sleep 1000");
        let id = child.process.lock().id();
        drop(child);
        // A zombie would still be there.
        let alive = Command::new("kill").args(["-0", &id.to_string()]).stderr(Stdio::null()).status().unwrap();
        assert!(!alive.success());
    }
}
