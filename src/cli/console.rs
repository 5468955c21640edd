//! Standard error: notes, errors, and a progress bar that they do not tear. Standard output is for results alone.

use std::borrow::Cow;
use std::io::{Write, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where words go, and how many of them.
#[derive(Debug)]
pub(super) struct Console {
    quiet: bool,
    verbose: bool,
    bar: ProgressBar,
}

impl Console {
    pub(super) fn new(quiet: bool, verbose: bool) -> Self {
        // Hidden until `progress` is called; where standard error is no terminal, indicatif draws nothing at all.
        Self { quiet, verbose, bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()) }
    }

    /// What a person wants to know; silent under `-q`.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            self.print(text);
        }
    }

    /// What `-v` asks for.
    pub(super) fn detail(&self, text: &str) {
        if self.verbose {
            self.print(text);
        }
    }

    /// What went wrong: always said.
    pub(super) fn error(&self, text: &str) {
        self.print(&format!("error: {text}"));
    }

    fn print(&self, text: &str) {
        // A closed or full standard error does not end the run.
        self.bar.suspend(|| _ = writeln!(stderr(), "{}", printable(text)));
    }

    /// Shows a bar with rate and remaining time, without colour; none under `-q` or where standard error is no terminal.
    pub(super) fn progress(&self, total: u64, unit: &'static str) -> &ProgressBar {
        let template = format!("{{bar:30}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left");
        self.start(total, &template)
    }

    /// The same for bytes, where the total may be unknown (0).
    #[cfg(feature = "download")]
    pub(super) fn progress_bytes(&self, total: u64) -> &ProgressBar {
        self.start(total, "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")
    }

    fn start(&self, total: u64, template: &str) -> &ProgressBar {
        self.bar.reset();
        self.bar.set_length(total);
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        if !self.quiet {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(Duration::from_millis(500));
        }
        &self.bar
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// A text in one line, with its control characters escaped. They come from file names and from what decoders quote of a file, and would
/// break the line or steer the terminal.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    // Line and paragraph separators, and what turns the direction of text, are no control characters by their Unicode category.
    let steers = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(steers) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let cases = [
            ("a b.jpg: is empty", "a b.jpg: is empty"),
            ("a\nb\r\t.jpg", "a\\nb\\r\\t.jpg"),
            ("\u{1b}[31mred\u{7f}\u{9b}", "\\u{1b}[31mred\\u{7f}\\u{9b}"), // escape, delete, and its 8-bit form
            ("gpj.\u{202e}a", "gpj.\\u{202e}a"),                           // shown as `a.jpg`
            ("Stra\u{df}e \u{1f6a6}\u{fe0f} \u{5e9}\u{5dc}", "Stra\u{df}e \u{1f6a6}\u{fe0f} \u{5e9}\u{5dc}"), // scripts and emoji stay
            ("C:\\new", "C:\\new"),
        ];
        for (text, want) in cases {
            assert_eq!(printable(text), want);
        }
    }
}
