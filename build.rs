//! Sets `RTFORMER_COMMIT`, the commit being built, for benchmarks and `rtformer info`.
//!
//! This part never fails a build: without git, and without the file that `cargo package` writes, the commit is `unknown`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program's sources. A change to them makes the program differ from the commit; other changes do not.
const SOURCES: [&str; 6] =
    ["src", "kernels", "weights/rtformer-slim-camvid.safetensors", "build.rs", "Cargo.toml", "Cargo.lock"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CLI").is_none() {
        return; // only the program reports the commit
    }
    let root = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let commit = from_git(&root).or_else(|| from_package(&root)).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=RTFORMER_COMMIT={commit}");
    for source in SOURCES {
        rerun_if_changed(&root.join(source));
    }
}

/// The commit of the repository, if this is its top folder.
fn from_git(root: &Path) -> Option<String> {
    // A packaged crate may lie inside another repository (a home folder under git), whose commit is unrelated.
    if !git(root, &["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    watch_head(root);
    let commit = git(root, &["rev-parse", "--short=12", "HEAD"])?;
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--"];
    status.extend(SOURCES.iter().filter(|source| root.join(source).exists()));
    let dirty = git(root, &status).is_none_or(|changes| !changes.is_empty());
    Some(if dirty { commit + "-dirty" } else { commit })
}

/// Reruns this script when another commit is checked out or made. git gives the paths, because a worktree keeps them elsewhere.
fn watch_head(root: &Path) {
    let mut names = vec!["HEAD".to_owned(), "packed-refs".to_owned()];
    // The branch's file. It is missing while the branch is packed; then the log of HEAD reveals the commit that will create it.
    names.extend(git(root, &["symbolic-ref", "-q", "HEAD"]));
    names.push("logs/HEAD".to_owned());
    for name in names {
        if let Some(path) = git(root, &["rev-parse", "--git-path", &name]) {
            rerun_if_changed(&root.join(path));
        }
    }
}

/// Skips missing files, because Cargo treats them as always changed.
fn rerun_if_changed(path: &Path) {
    if path.exists() {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    // A git hook sets these to the hook's repository. `status` must not write the index of a repository that is only read.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    let output = command.env("GIT_OPTIONAL_LOCKS", "0").current_dir(root).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Reads the commit that `cargo package` recorded: `{"git": {"sha1": "…"}, …}`.
fn from_package(root: &Path) -> Option<String> {
    let note = root.join(".cargo_vcs_info.json");
    rerun_if_changed(&note);
    let note = fs::read_to_string(note).ok()?;
    let (_, rest) = note.split_once("\"sha1\"")?;
    let commit = rest.split('"').nth(1)?;
    let short: String = commit.chars().take(12).collect();
    let whole = short.len() == 12 && short.chars().all(|digit| digit.is_ascii_hexdigit());
    let dirty = note.contains("\"dirty\": true");
    whole.then(|| if dirty { short + "-dirty" } else { short })
}
