//! FFmpeg as child processes: one that decodes, one that encodes. No video library is linked.

mod child;
mod decode;
mod encode;
mod matroska;

use std::process::{Command, Stdio};
use std::sync::OnceLock;

pub use child::stop_children;
pub use encode::{Audio, Content, Encoder};

pub(super) use decode::{FfmpegReader, Input};

use super::failure;
use crate::error::{Error, Result};

const PROGRAM: &str = "ffmpeg";

/// The error for a missing program.
fn missing(wanted_for: &str) -> Error {
    failure(
        wanted_for,
        "needs FFmpeg, but there is no program `ffmpeg`; install it (Debian and Ubuntu: `apt install ffmpeg`; macOS: `brew install \
         ffmpeg`; Windows: `winget install ffmpeg`), or pipe y4m or raw frames (--raw), or name a folder of pictures",
    )
}

/// What the installed program can do.
struct Abilities {
    /// Whether it has `-fps_mode`, which replaced `-vsync` in version 5.1.
    fps_mode: bool,
    /// Whether it has the H.264 encoder `libx264`.
    x264: bool,
}

/// Asks the program once.
fn abilities(wanted_for: &str) -> Result<&'static Abilities> {
    static FOUND: OnceLock<Abilities> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let ask = |argument: &str| {
        let output = Command::new(PROGRAM).args(["-hide_banner", argument]).stdin(Stdio::null()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => missing(wanted_for),
            _ => failure(wanted_for, format!("`ffmpeg` cannot be started: {error}")),
        })
    };
    let version = ask("-version")?;
    let encoders = ask("-encoders")?;
    let found = Abilities { fps_mode: has_fps_mode(&version), x264: encoders.contains(" libx264 ") };
    Ok(FOUND.get_or_init(|| found))
}

/// Whether a version has `-fps_mode`. Builds between releases have a commit instead of a number, and are newer.
fn has_fps_mode(text: &str) -> bool {
    let version = text.split_whitespace().nth(2).unwrap_or_default().trim_start_matches('n');
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    numbers.next().is_none_or(|major| (major, numbers.next().unwrap_or(0)) >= (5, 1))
}

/// The start of every command line: no questions, and messages that we can tell apart.
fn command(level: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["-nostdin", "-hide_banner", "-nostats", "-loglevel", level]);
    // Signals of the terminal are for us. We end the children ourselves.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

/// The arguments with which every frame passes once, with its own time.
fn passthrough(abilities: &Abilities) -> [&'static str; 2] {
    [if abilities.fps_mode { "-fps_mode" } else { "-vsync" }, "passthrough"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared() {
        let cases = [
            ("ffmpeg version 5.1.9-0+deb12u1 Copyright", true),
            ("ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright", false),
            ("ffmpeg version 5.0 Copyright", false),
            ("ffmpeg version n7.1 Copyright", true),
            ("ffmpeg version 8 Copyright", true),
            ("ffmpeg version N-109468-gd39b34123d Copyright", true),
        ];
        for (text, want) in cases {
            assert_eq!(has_fps_mode(text), want, "{text}");
        }
    }
}
