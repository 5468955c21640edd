//! `bench`, `info`, `convert`, `eval --video`, `plan` and `pull` from the command line.

mod bench;
mod calibrate;
mod compare;
mod convert;
mod plan;
mod pull;
mod video;
mod ways;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// The command, without the proxy and `RTFORMER_…` variables of the environment.
pub(crate) fn rtformer(args: &[&str]) -> Command {
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("rtformer");
    for proxy in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
        command.env_remove(proxy).env_remove(proxy.to_lowercase());
    }
    for own in ["RTFORMER_CACHE", "RTFORMER_MIRROR", "RTFORMER_OFFLINE"] {
        command.env_remove(own);
    }
    command.args(args);
    command
}

/// Runs the command and returns its exit code, standard output and standard error.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes the JSON file of a data set with `count` classes.
pub(crate) fn classes(folder: &Path, count: usize) -> PathBuf {
    let classes: Vec<_> =
        (0..count).map(|i| serde_json::json!({"name": format!("class {i}"), "color": [i, 0, 0]})).collect();
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let dataset = serde_json::json!({"name": "mine", "classes": classes, "mean": mean, "std": std});
    let path = folder.join(format!("{count}.json"));
    fs::write(&path, dataset.to_string()).unwrap();
    path
}
