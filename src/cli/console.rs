//! Standard error: notes, errors, and a progress bar that is hidden while they are printed. Standard output is only for results.

use std::borrow::Cow;
use std::io::{Write, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A number of things: `1 photo`, `2 photos`. `noun` is one whose plural ends in `s`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Prints messages on standard error, as the verbosity flags say.
#[derive(Debug)]
pub(super) struct Console {
    quiet: bool,
    verbose: bool,
    bar: ProgressBar,
}

impl Console {
    pub(super) fn new(quiet: bool, verbose: bool) -> Self {
        // Hidden until `progress` is called. If standard error is not a terminal, indicatif draws nothing.
        Self { quiet, verbose, bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()) }
    }

    /// Prints a note, except with `-q`.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            self.print(text);
        }
    }

    /// Prints a detail, only with `-v`.
    pub(super) fn detail(&self, text: &str) {
        if self.verbose {
            self.print(text);
        }
    }

    /// Prints an error, always.
    pub(super) fn error(&self, text: &str) {
        self.print(&format!("error: {text}"));
    }

    fn print(&self, text: &str) {
        // A closed or full standard error does not end the run.
        self.bar.suspend(|| _ = writeln!(stderr(), "{}", printable(text)));
    }

    /// Shows a progress bar with rate and remaining time, without colour. There is none with `-q`, or if standard error is not a terminal.
    pub(super) fn progress(&self, total: u64, unit: &'static str) -> &ProgressBar {
        let template = format!("{{bar:30}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left");
        self.start(total, &template)
    }

    /// Shows a count with its rate, for inputs of unknown length.
    pub(super) fn count(&self, unit: &'static str) -> &ProgressBar {
        self.start(0, &format!("{{pos}} {unit}  {{per_sec}}"))
    }

    /// Shows a progress bar for bytes. A total of 0 means that it is unknown.
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

    /// Removes the progress bar.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
        self.bar.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// The text as one line, with its control characters escaped. File names and quotes from files can contain them, and they would break
/// the line or control the terminal.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    // Line and paragraph separators, and characters that change the direction of text, are not in Unicode's category of control
    // characters.
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
            ("Stra\u{df}e \u{1f6a6}\u{fe0f} \u{5e9}\u{5dc}", "Stra\u{df}e \u{1f6a6}\u{fe0f} \u{5e9}\u{5dc}"), // other scripts and emoji are kept
            ("C:\\new", "C:\\new"),
        ];
        for (text, want) in cases {
            assert_eq!(printable(text), want);
        }
    }
}
