//! How many training FLOPs a machine computes per second, by the width of the network.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use rtformer::plan::Widths;
use serde::{Deserialize, Serialize};

use super::super::console::Console;
use super::super::misuse;
use super::positive;
use super::table::{BATCH, CROP, Table};

/// The flags that say how the runs were trained, and on what machine the next one will be.
#[derive(Debug, clap::Args)]
pub(super) struct RateArgs {
    /// The machine's rate with --hours, training FLOPs per second, such as 4e10
    #[arg(long, value_name = "R", requires = "hours", value_parser = flops_per_second)]
    pub(super) rate: Option<f64>,

    /// Crops per iteration [default: as in the table's runs, or 12 if they do not say]
    #[arg(long, value_name = "N", requires = "train", value_parser = batch)]
    pub(super) batch: Option<u32>,

    /// Size of the crops [default: as in the table's runs, or 256x192 if they do not say]
    #[arg(long, value_name = "WxH", requires = "train", value_parser = crop)]
    pub(super) crop: Option<String>,

    /// The Python that measures the rate; it needs weights/train/requirements.txt
    #[arg(long, value_name = "FILE", env = "RTFORMER_PYTHON", default_value = "python3")]
    pub(super) python: PathBuf,

    /// The folder of train.py and sweep.py
    #[arg(long = "recipe", value_name = "DIR", requires = "train", default_value = "weights/train")]
    pub(super) folder: PathBuf,
}

fn flops_per_second(text: &str) -> Result<f64, String> {
    positive(text, "a positive number of FLOPs per second, such as 4e10")
}

/// As `train.py` takes it, which halves a batch for two threads.
fn batch(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|batch: &u32| batch.is_multiple_of(2) && (4..=65536).contains(batch));
    number.ok_or_else(|| "expected an even number of crops from 4".into())
}

/// As `train.py` takes it.
fn crop(text: &str) -> Result<String, String> {
    let sides = text.split_once('x').map(|(width, height)| [width, height].map(str::parse::<u32>));
    let good = |side: &Result<u32, _>| side.as_ref().is_ok_and(|side| *side >= 64 && side.is_multiple_of(32));
    let valid = sides.is_some_and(|sides| sides.iter().all(good));
    valid.then(|| text.to_owned()).ok_or_else(|| "expected WxH, multiples of 32 from 64, such as 256x192".into())
}

/// How the runs of a table were trained, and the next one will be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recipe {
    /// Crops per iteration.
    pub(super) batch: u32,
    /// The size of the crops, `WxH`.
    pub(super) crop: String,
}

impl RateArgs {
    /// The recipe of the table's runs, completed by the flags. The prediction holds for no other recipe.
    pub(super) fn recipe(&self, table: &Table) -> anyhow::Result<Recipe> {
        let flag = self.batch.map(|batch| batch.to_string());
        let batch = agreed("batch", flag.as_deref(), &table.batches, BATCH)?;
        let crop = agreed("crop", self.crop.as_deref(), &table.crops, CROP)?;
        let number = batch.parse().ok().filter(|batch| *batch >= 2);
        let batch = number.with_context(|| format!("column `batch` has `{batch}`, expected a whole number from 2"))?;
        Ok(Recipe { batch, crop })
    }
}

/// The value of a flag that the table may know as well.
fn agreed(name: &str, flag: Option<&str>, table: &[String], default: &str) -> anyhow::Result<String> {
    match (flag, table) {
        (Some(flag), [only]) if flag != only => Err(misuse(format!(
            "--{name} is {flag}, but the table's runs have {only}, and the prediction holds only for that"
        ))),
        (Some(flag), _) => Ok(flag.to_owned()),
        (None, []) => Ok(default.to_owned()),
        (None, [only]) => Ok(only.clone()),
        (None, several) => Err(misuse(format!(
            "the table's runs differ in `{name}` ({}); use --{name} to say how the next one is trained",
            several.join(", ")
        ))),
    }
}

/// The rate at one width. Narrow networks use a machine less well.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) width: u32,
    pub(super) flops_per_second: f64,
}

/// The rate at any width: between two measured widths, a straight line on logarithmic axes; beyond them, that of the nearest.
pub(super) fn at(rates: &[Rate], width: u32) -> f64 {
    let after = rates.partition_point(|rate| rate.width < width);
    let (Some(low), Some(high)) = (rates.get(after.saturating_sub(1)), rates.get(after.min(rates.len() - 1))) else {
        return f64::NAN;
    };
    if low.width >= width || low.width == high.width {
        return low.flops_per_second;
    }
    let [from, to, here] = [low.width, high.width, width].map(|width| f64::from(width).ln());
    let part = (here - from) / (to - from);
    low.flops_per_second * (high.flops_per_second / low.flops_per_second).powf(part)
}

/// The rates of this machine: `--rate`, or what `sweep.py --measure` reports for the smallest, a middle and the largest width of the runs.
pub(super) fn rates(args: &RateArgs, recipe: &Recipe, widths: &Widths, console: &Console) -> anyhow::Result<Vec<Rate>> {
    let (low, high) = widths.range;
    if let Some(rate) = args.rate {
        return Ok(vec![Rate { width: low, flops_per_second: rate }]);
    }
    let middle = widths.choices().find(|&width| f64::from(width) >= f64::from(low * high).sqrt());
    let mut measured = vec![low, middle.unwrap_or(low), high];
    measured.sort_unstable();
    measured.dedup();
    let script = args.folder.join("sweep.py");
    console.note(&format!("measuring the training rate with {}: about a minute; --rate skips this", script.display()));
    measure(args, recipe, &script, &measured).map_err(|reason| {
        misuse(format!(
            "cannot measure this machine's training rate: {reason:#}. Name a Python with weights/train/requirements.txt by --python and the \
             folder of sweep.py by --recipe; or give --rate, which `python weights/train/sweep.py --measure` prints on the machine that is \
             to train"
        ))
    })
}

fn measure(args: &RateArgs, recipe: &Recipe, script: &Path, widths: &[u32]) -> anyhow::Result<Vec<Rate>> {
    ensure!(script.is_file(), "{}: no such file", script.display());
    let mut command = Command::new(&args.python);
    command.arg(script).args(["--measure", "--crop", &recipe.crop, "--batch", &recipe.batch.to_string(), "--widths"]);
    command.args(widths.iter().map(ToString::to_string));
    let output = command.output().with_context(|| format!("cannot run {}", args.python.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message");
        anyhow::bail!("{} {} failed: {last}", args.python.display(), script.display());
    }
    std::io::stderr().lock().write_all(&output.stderr)?; // warnings
    parse(&String::from_utf8_lossy(&output.stdout), widths)
}

/// One JSON object for each line.
fn parse(text: &str, widths: &[u32]) -> anyhow::Result<Vec<Rate>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let rates: Vec<Rate> = lines
        .map(|line| serde_json::from_str(line).with_context(|| format!("sweep.py --measure printed `{line}`")))
        .collect::<Result<_, _>>()?;
    let complete = rates.iter().map(|rate| rate.width).eq(widths.iter().copied());
    ensure!(
        complete && rates.iter().all(|rate| rate.flops_per_second > 0.0),
        "sweep.py --measure printed `{}`",
        text.trim()
    );
    Ok(rates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_table_agree() {
        let table = |batches: &[&str]| batches.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (flag, known, want) in [
            (None, &[][..], Ok("12")),
            (None, &["8"], Ok("8")),
            (Some("8"), &["8"], Ok("8")),
            (Some("8"), &["6", "8"], Ok("8")),
            (Some("8"), &[], Ok("8")),
            (Some("8"), &["6"], Err("--batch is 8, but the table's runs have 6")),
            (None, &["6", "8"], Err("differ in `batch` (6, 8); use --batch")),
        ] {
            match (agreed("batch", flag, &table(known), "12"), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{got}"),
                (got, want) => panic!("{got:?}, expected {want:?}"),
            }
        }
    }

    #[test]
    fn rates_between_widths_are_interpolated() {
        let rates = [(8, 1e9), (16, 2e9), (32, 8e9)].map(|(width, flops_per_second)| Rate { width, flops_per_second });
        for (width, want) in [(4, 1e9), (8, 1e9), (16, 2e9), (24, 2e9 * 1.5_f64.powi(2)), (32, 8e9), (64, 8e9)] {
            assert!((at(&rates, width) / want - 1.0).abs() < 1e-9, "{width}: {}", at(&rates, width));
        }
        assert_eq!([4, 100].map(|width| at(&rates[..1], width)), [1e9, 1e9]);
    }

    #[test]
    fn what_the_script_prints_is_checked() {
        let line = r#"{"width": 8, "params": 341134, "crops_per_second": 61.2, "flops_per_second": 2.4e10}"#;
        assert_eq!(parse(line, &[8]).unwrap(), [Rate { width: 8, flops_per_second: 2.4e10 }]);
        for (text, widths) in
            [(line, &[8, 16][..]), (line, &[16]), ("Traceback", &[8]), (&line.replace("2.4e10", "0"), &[8])]
        {
            assert!(parse(text, widths).unwrap_err().to_string().contains("sweep.py --measure printed"), "{text}");
        }
    }
}
