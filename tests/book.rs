//! Runs the commands of the book in `docs/book`, and checks the flags of those that cannot run here and of the README's.
//!
//! A `console` block runs in `sh`, in a folder that has what the chapters name (see [`folder`]). Its lines without `$` are the output
//! that it shows; `…` stands for any text. A block that begins with `# Needs` is not run.
#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use tempfile::TempDir;

const COMMANDS: [&str; 4] = ["console", "sh", "bash", "shell"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_rtformer"))
}

/// The chapters' paths and texts.
fn chapters() -> BTreeMap<PathBuf, String> {
    let entries = fs::read_dir(root().join("docs/book/src")).unwrap().map(|entry| entry.unwrap().path());
    let pages = entries.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// A fenced block: its language, its text, and the number of its first line.
struct Block<'a> {
    language: &'a str,
    lines: Vec<&'a str>,
    first: usize,
}

impl Block<'_> {
    /// Whether the block says that it needs something that a test does not have.
    fn is_shown_only(&self) -> bool {
        self.language != "console" || self.lines.first().is_some_and(|line| line.starts_with("# Needs "))
    }

    /// The commands, each with the lines of output that the block shows after it.
    fn commands(&self) -> Vec<(String, Vec<&str>)> {
        let mut commands: Vec<(String, Vec<&str>)> = Vec::new();
        let mut lines = self.lines.iter().copied();
        while let Some(line) = lines.next() {
            if let Some(command) = line.strip_prefix("$ ") {
                let mut command = command.to_owned();
                while command.ends_with('\\') {
                    command = format!("{}\n{}", command, lines.next().expect("a line continues the command"));
                }
                commands.push((command, Vec::new()));
            } else if let Some((_, shown)) = commands.last_mut() {
                shown.push(line);
            }
        }
        commands
    }
}

/// The fenced blocks of a page.
fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for (number, line) in (1..).zip(page.lines()) {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                let language = language.split([',', ' ']).next().unwrap_or_default();
                open = Some(Block { language, lines: Vec::new(), first: number + 1 });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.lines.push(line),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// A folder with what the chapters' commands read: three photos, weights, and the runs of the study.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (from, name) in [
        ("tests/data/street/0016E5_07959.jpg", "photos/corner.jpg"),
        ("tests/data/street/0016E5_08007.jpg", "photos/crossing.jpg"),
        ("tests/data/street/0016E5/0016E5_08085.jpg", "photos/suburb/bridge.jpg"),
        ("weights/rtformer-slim-camvid.safetensors", "mine.safetensors"),
        ("weights/train/sweep.csv", "weights/train/sweep.csv"),
    ] {
        let to = folder.path().join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(root().join(from), to).unwrap();
    }
    folder
}

/// Runs a command in `sh` and returns its outputs, which must be those of a success.
fn run(command: &str, folder: &Path) -> String {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = program().parent().map(Path::to_path_buf).into_iter().chain(env::split_paths(&path));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec 2>&1; {command}")).current_dir(folder);
    for own in ["RTFORMER_CACHE", "RTFORMER_MIRROR", "RTFORMER_OFFLINE"] {
        shell.env_remove(own);
    }
    let output = shell.env("PATH", env::join_paths(folders).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "`{command}`: {}\n{said}", output.status);
    said
}

/// Whether a line is what the book shows, where `…` stands for any text.
fn matches(line: &str, shown: &str) -> bool {
    let mut parts: Vec<_> = shown.trim_end().split('…').collect();
    let (end, start) = (parts.pop().unwrap_or_default(), parts.first().copied());
    let Some(start) = start else { return line.trim_end() == end };
    let Some(mut rest) = line.trim_end().strip_prefix(start) else { return false };
    for part in &parts[1..] {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(end)
}

#[test]
fn the_commands_of_the_book_do_what_it_shows() {
    let mut ran = 0;
    for (path, page) in chapters() {
        let folder = folder();
        for block in blocks(&page).iter().filter(|block| !block.is_shown_only()) {
            for (command, shown) in block.commands() {
                let said = run(&command, folder.path());
                ran += 1;
                let mut lines = said.lines();
                for want in shown.iter().filter(|line| !line.trim().is_empty() && **line != "…") {
                    assert!(
                        lines.any(|line| matches(line, want)),
                        "{}, line {}: `{command}` does not print `{want}`, or not in this order:\n{said}",
                        path.display(),
                        block.first
                    );
                }
            }
        }
    }
    assert!(ran >= 15, "only {ran} commands ran: does this test still read the book?");
}

/// The subcommand and the flags of each call of the program in a command.
fn calls(command: &str) -> Vec<(&str, Vec<&str>)> {
    let mut calls = Vec::new();
    let mut words = command.split_whitespace().filter(|word| *word != "\\").peekable();
    while let Some(word) = words.next() {
        let name = word.rsplit('/').next().unwrap_or(word);
        let Some(subcommand) = words.peek().copied().filter(|next| name == "rtformer" && is_name(next)) else {
            continue;
        };
        words.next();
        let mut flags = Vec::new();
        while let Some(word) = words.next_if(|word| !word.starts_with(['|', '&', ';', '>', '#', '<'])) {
            let flag = word.split('=').next().unwrap_or(word);
            if flag.len() > 1 && flag.starts_with('-') && !flag[1..].starts_with(|c: char| c.is_ascii_digit()) {
                flags.push(flag);
            }
        }
        calls.push((subcommand, flags));
    }
    calls
}

/// Whether the word can be a subcommand.
fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

#[test]
fn every_flag_in_the_book_and_the_readme_exists() {
    let mut helps: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut pages = chapters();
    pages.insert("README.md".into(), fs::read_to_string(root().join("README.md")).unwrap());
    let mut checked = 0;
    for (path, page) in &pages {
        for block in blocks(page).iter().filter(|block| COMMANDS.contains(&block.language)) {
            let text = block.lines.join("\n").replace("\\\n", " ");
            for line in text.lines() {
                for (subcommand, flags) in calls(line) {
                    let place = format!("{}, line {}: `{line}`", path.display(), block.first);
                    let known = helps.entry(subcommand.to_owned()).or_insert_with(|| {
                        let help = run(&format!("rtformer {subcommand} --help"), root());
                        help.split(|c: char| c.is_whitespace() || ",[]<=".contains(c)).map(str::to_owned).collect()
                    });
                    for flag in flags {
                        assert!(known.contains(flag), "{place}: `rtformer {subcommand}` has no `{flag}`");
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked >= 20, "only {checked} flags were found");
}

#[test]
fn every_chapter_is_listed_and_every_link_leads_somewhere() {
    let pages = chapters();
    let source = root().join("docs/book/src");
    let summary = &pages[&source.join("SUMMARY.md")];
    for (path, page) in &pages {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name == "SUMMARY.md" || summary.contains(&format!("({name})")), "{name} is not in SUMMARY.md");
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or(target);
            let in_repository = file.strip_prefix("https://github.com/rtformer/rtformer/blob/main/");
            let known = match in_repository {
                Some(file) => root().join(file).exists(),
                None if file.contains("://") || file.is_empty() => true,
                None => source.join(file).exists(),
            };
            assert!(known, "{name}: the link to {target} leads nowhere");
        }
    }
}

#[test]
fn the_page_is_read_as_it_is_meant() {
    let page = "text\n```console\n$ rtformer segment a \\\n    --out b | cat --no\n1 photo in … s\n```\n```console\n# Needs a GPU.\n$ x\n```\n";
    let blocks = blocks(page);
    assert_eq!((blocks.len(), blocks[0].first), (2, 3));
    assert_eq!((blocks[0].is_shown_only(), blocks[1].is_shown_only()), (false, true));
    let commands = blocks[0].commands();
    assert_eq!(commands, [("rtformer segment a \\\n    --out b | cat --no".to_owned(), vec!["1 photo in … s"])]);
    assert_eq!(calls(&commands[0].0), [("segment", vec!["--out"])]);
    assert_eq!(calls("docker run --rm x/rtformer segment - --pad=8 # --no"), [("segment", vec!["--pad"])]);
    for (line, shown, want) in [
        ("1 photo in 0.2 s", "1 photo in … s", true),
        ("1 photo in 0.2 s", "… in … s", true),
        ("1 photo in 0.2 s -> out", "1 photo in … s", false),
        ("1 photo in 0.2 s", "2 photos in … s", false),
        ("1 photo", "1 photo", true),
        ("1 photos", "1 photo", false),
    ] {
        assert_eq!(matches(line, shown), want, "{line} and {shown}");
    }
}
