//! Compares two reports written by `--json`: what became faster, and whether the reports are comparable.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::super::stats::Figures;
use super::profile::Profile;
use super::report::Report;
use super::{Console, Outcome};

/// The number of operations that are shown: those whose time changed most. The others share one line.
const SHOWN: usize = 12;

/// The file exists, but it is not a report.
#[derive(Debug, thiserror::Error)]
#[error("{}: is not a report from `rtformer bench --json` of this version: {cause}", path.display())]
struct NoReport {
    path: PathBuf,
    /// The parser's error. It is part of the text, so it is not a `source()`, which would be printed twice.
    cause: String,
}

pub(super) fn run(a: &Path, b: &Path, console: &Console) -> anyhow::Result<Outcome> {
    let [before, after] = [read(a)?, read(b)?];
    for difference in differences(&before, &after) {
        console.note(&format!("warning: A and B differ in {difference}"));
    }
    let mut text = String::new();
    for (letter, path, report) in [("A", a, &before), ("B", b, &after)] {
        let _ = writeln!(text, "{letter}  {}: {}", path.display(), report.whence());
        let _ = writeln!(text, "   {}; {}", report.what(), report.how());
    }
    text += "\n";
    text += &stages(&before, &after);
    if let (Some(before), Some(after)) = (&before.profile, &after.profile) {
        text += "\n";
        text += &operations(before, after);
    }
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let bytes = fs::read(path).map_err(rtformer::Error::reading(path))?;
    let text = rtformer::files::text(&bytes);
    let report = text.and_then(|text| serde_json::from_str(&text).map_err(|e| e.to_string()));
    Ok(report.map_err(|cause| NoReport { path: path.into(), cause })?)
}

/// The settings that differ, except the program.
fn differences(a: &Report, b: &Report) -> Vec<String> {
    let size = |[width, height]: [u32; 2]| format!("{width}x{height}");
    let seen = |report: &Report| report.network_size.clone().unwrap_or_else(|| "native".into());
    let versions = |report: &Report| report.augmentation.clone().unwrap_or_else(|| "none".into());
    let weights = |report: &Report| report.weights.clone().unwrap_or_else(|| "random".into());
    let frame = |report: &Report| report.photo.clone().unwrap_or_else(|| "noise".into());
    let policy = |report: &Report| report.adaptive.as_ref().map_or_else(|| "full".into(), |of| of.policy.clone());
    let rows = [
        ("machine", a.machine.to_string(), b.machine.to_string()),
        ("device", a.device.clone(), b.device.clone()),
        ("instruction set", a.instruction_set.clone(), b.instruction_set.clone()),
        ("threads", a.threads.to_string(), b.threads.to_string()),
        ("precision", a.precision.clone(), b.precision.clone()),
        ("model", a.model.clone(), b.model.clone()),
        ("weights", weights(a), weights(b)),
        ("classes", a.classes.to_string(), b.classes.to_string()),
        ("size", size(a.size), size(b.size)),
        ("network's size", seen(a), seen(b)),
        ("augmentation", versions(a), versions(b)),
        ("policy", policy(a), policy(b)),
        ("batch", a.batch.to_string(), b.batch.to_string()),
        ("padding", a.pad_multiple.to_string(), b.pad_multiple.to_string()),
        ("frame", frame(a), frame(b)),
    ];
    let differ = rows.into_iter().filter(|(_, a, b)| a != b);
    differ.map(|(what, a, b)| format!("{what}: {a}, and {b}")).collect()
}

fn stages(a: &Report, b: &Report) -> String {
    let mut text = String::from("stage      A ms      B ms     B/A\n");
    let both = a.stages.iter().filter_map(|(stage, a)| Some((stage, a, b.stages.get(stage)?)));
    let mut any = false;
    for (stage, a, b) in both {
        let (name, before, after) = (stage.name(), a.median_ms, b.median_ms);
        let _ = writeln!(text, "{name:5} {before:9.2} {after:9.2} {:>7}  {}", ratio(before, after), verdict(a, b));
        any = true;
    }
    if any { text } else { "the reports have no stage in common\n".into() }
}

/// The ratio, such as `0.874`, or `-` if `a` is 0.
fn ratio(a: f64, b: f64) -> String {
    if a > 0.0 { format!("{:.3}", b / a) } else { "-".into() }
}

fn verdict(a: &Figures, b: &Figures) -> String {
    let runs = |figures: &Figures| format!("{:.2} to {:.2}", figures.p25_ms, figures.p75_ms);
    if a.overlaps(b) {
        return format!("within the spread: half of A's runs took {}, of B's {}", runs(a), runs(b));
    }
    let (word, quick, slow) = if b.median_ms < a.median_ms {
        ("faster", b.median_ms, a.median_ms)
    } else {
        ("slower", a.median_ms, b.median_ms)
    };
    if quick > 0.0 { format!("B is {:.2} times {word}", slow / quick) } else { format!("B is {word}") }
}

/// The operations whose time changed most. Operations that share a name (`relu`, `add`) share one line, because another commit may have
/// more or fewer of them.
fn operations(a: &Profile, b: &Profile) -> String {
    let (before, after) = (by_name(a), by_name(b));
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let mut rows: Vec<_> =
        names.iter().map(|name| (*name, before.get(name).copied(), after.get(name).copied())).collect();
    let change = |a: Option<f64>, b: Option<f64>| b.unwrap_or(0.0) - a.unwrap_or(0.0);
    rows.sort_by(|(_, a, b), (_, c, d)| change(*c, *d).abs().total_cmp(&change(*a, *b).abs()));

    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(9);
    let mut text = format!("{:width$} {:>9} {:>9} {:>9} {:>7}\n", "operation", "A ms", "B ms", "change", "B/A");
    let mut line = |name: &str, a: Option<f64>, b: Option<f64>| {
        let cell = |time: Option<f64>| time.map_or("-".into(), |ms| format!("{ms:.3}"));
        let ratio = a.zip(b).map_or("-".into(), |(a, b)| ratio(a, b));
        let _ = writeln!(text, "{name:width$} {:>9} {:>9} {:+9.3} {ratio:>7}", cell(a), cell(b), change(a, b));
    };
    let (shown, others) = rows.split_at(rows.len().min(SHOWN));
    for (name, a, b) in shown {
        line(name, *a, *b);
    }
    if !others.is_empty() {
        let sum = |times: &mut dyn Iterator<Item = Option<f64>>| Some(times.flatten().fold(0.0, |sum, ms| sum + ms));
        line("others", sum(&mut others.iter().map(|row| row.1)), sum(&mut others.iter().map(|row| row.2)));
    }
    line("between", Some(a.between_ms), Some(b.between_ms));
    line("frame", Some(a.frame_ms), Some(b.frame_ms));
    text
}

/// The total milliseconds of the operations of each name.
fn by_name(profile: &Profile) -> BTreeMap<&str, f64> {
    let mut times = BTreeMap::new();
    for line in &profile.lines {
        *times.entry(line.name.as_str()).or_insert(0.0) += line.ms;
    }
    times
}
