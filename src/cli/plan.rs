//! Plans: which way to run networks fits the time there is, and which network to train in a budget.

mod chart;
mod inference;
mod pictures;
mod rate;
mod speed;
mod table;
mod train;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rtformer::plan::{Envelope, Fit, Interval, IsoFlop, Laws, Run, envelope, isoflop};
use serde::Serialize;

use super::console::Console;
use super::{Outcome, misuse};

/// Choose how to run a network in the time there is, or what to train in a budget
///
/// --images compares weights, sizes and precisions on your photos: it measures the time of each combination on this machine and its quality,
/// on your labels or as the consistency with the first combination. It prints all of them, marks the Pareto-optimal ones, and chooses one
/// for --fps, --latency or --miou.
///
/// --fit fits L = E + A / N^alpha + B / D^beta to finished training runs: L is the cross entropy on held-out photos, N the number of
/// parameters, D the number of crops. It prints the law and the best N and D for each budget, with 80 % bootstrap intervals. The FLOPs of a
/// crop are taken from the runs. Each run needs its own complete learning-rate schedule.
///
/// --train prints what to train for a budget of FLOPs or hours: the width of the network, crops, iterations, epochs, the expected cross
/// entropy, and the command.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A table of runs, CSV with a header: the columns params, crops, flops and cross_entropy, and optionally unique, the number of
    /// different photos. Other columns are ignored
    #[arg(long, value_name = "FILE.csv", required_unless_present_any = ["train", "images"],
        conflicts_with_all = ["train", "images", "fps"])]
    fit: Option<PathBuf>,

    /// Recommend what to train for --flops or --hours
    #[arg(long, conflicts_with = "images")]
    train: bool,

    /// The budget, training FLOPs, such as 1.6e14. With --fit, predict for it and for the budgets in the file; without it, only for those
    #[arg(long, value_name = "C", value_parser = budget, conflicts_with = "images")]
    flops: Option<f64>,

    #[command(flatten)]
    training: train::TrainArgs,

    #[command(flatten)]
    inference: inference::InferenceArgs,

    /// Draw in this folder: with --images, time against quality as front.png; otherwise the runs and the fit as isoflop.png, frontier.png
    /// and loss.png
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,

    /// Replace the files of --plot if they exist
    #[arg(long, requires = "plot")]
    overwrite: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn budget(text: &str) -> Result<f64, String> {
    positive(text, "a positive number of FLOPs, such as 1.6e14")
}

fn positive(text: &str, expected: &str) -> Result<f64, String> {
    // Far beyond any use, so that no product of such numbers overflows.
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= 1e30);
    number.ok_or_else(|| format!("expected {expected}"))
}

/// What `--fit` found, as JSON.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    fit: &'a Fit,
    isoflop: Reading<&'a IsoFlop>,
    envelope: Reading<&'a Envelope>,
}

/// A cross-check, or what the runs lack for it.
#[derive(Serialize)]
#[serde(untagged)]
enum Reading<T> {
    Found(T),
    Missing { missing: String },
}

impl<T> Reading<T> {
    fn of<E: std::fmt::Display>(result: &Result<T, E>) -> Reading<&T> {
        match result {
            Ok(found) => Reading::Found(found),
            Err(error) => Reading::Missing { missing: error.to_string() },
        }
    }
}

/// Everything that the runs of a table say.
struct Study {
    runs: Vec<Run>,
    laws: Laws,
    fit: Fit,
    isoflop: rtformer::Result<IsoFlop>,
    envelope: rtformer::Result<Envelope>,
}

impl Study {
    fn of(runs: &[Run], budgets: &[f64]) -> rtformer::Result<Self> {
        let laws = Laws::new(runs)?;
        Ok(Self {
            runs: runs.to_vec(),
            fit: laws.fit(budgets)?,
            isoflop: isoflop(runs, laws.deviation()),
            envelope: envelope(runs, laws.deviation()),
            laws,
        })
    }
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    inference::check(args)?;
    train::check(args)?;
    check_plots(args)?;
    let (text, outcome) = match &args.fit {
        Some(path) => (fitted(args, path, console)?, Outcome::Done),
        None if args.train => (train::run(args, console)?, Outcome::Done),
        None => inference::run(args, console)?,
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(outcome)
}

fn fitted(args: &Args, path: &Path, console: &Console) -> anyhow::Result<String> {
    let table = table::read(path)?;
    let study = Study::of(&table.runs, args.flops.as_slice()).with_context(|| path.display().to_string())?;
    plot(args, &study, console)?;
    if args.json {
        let report =
            Report { fit: &study.fit, isoflop: Reading::of(&study.isoflop), envelope: Reading::of(&study.envelope) };
        return Ok(serde_json::to_string_pretty(&report)? + "\n");
    }
    Ok(text(&study))
}

/// Refuses to replace plots before any work is done.
fn check_plots(args: &Args) -> anyhow::Result<()> {
    let Some(folder) = args.plot.as_ref().filter(|_| !args.overwrite) else { return Ok(()) };
    let names = if args.inference.images.is_some() { &inference::NAMES[..] } else { &pictures::NAMES };
    let existing = names.iter().map(|name| folder.join(name)).find(|path| path.exists());
    existing.map_or(Ok(()), |path| {
        Err(misuse(format!("{}: exists already; use --overwrite to replace it", path.display())))
    })
}

/// The plots of a study, if they are asked for.
fn plot(args: &Args, study: &Study, console: &Console) -> anyhow::Result<()> {
    let Some(folder) = &args.plot else { return Ok(()) };
    for (name, picture) in pictures::NAMES.into_iter().zip(pictures::draw(study)?) {
        rtformer::pixels::render::save_rgb(folder.join(name), &picture)?;
    }
    console.note(&format!("{} -> {}", pictures::NAMES.join(", "), folder.display()));
    Ok(())
}

/// For a person to read.
fn text(study: &Study) -> String {
    let (fit, runs) = (&study.fit, &study.runs);
    let mut text =
        format!("L = E + A / N^alpha + B / D^beta, {} runs, {:.0} % intervals\n\n", fit.runs, 100.0 * fit.interval);
    let law = [("E", fit.e), ("A", fit.a), ("alpha", fit.alpha), ("B", fit.b), ("beta", fit.beta)];
    let more = fit.repeats.map(|repeats| ("R", repeats));
    for (name, interval) in law.into_iter().chain(more).chain([("N_opt ~ C^", fit.params_exponent)]) {
        let _ = writeln!(text, "  {name:10}  {}", shown(&interval));
    }
    let _ = writeln!(text, "\n  runs lie {:.1} % around the law", 100.0 * fit.deviation);
    let repeated = runs.iter().any(|run| run.unique.is_some_and(|unique| unique < run.crops));
    match fit.unique {
        Some(unique) => {
            let _ = writeln!(text, "  the table below assumes {unique} different photos");
        }
        None if repeated => text.push_str(
            "  repeated photos count as new ones: to measure what they are worth, add runs of one budget with fewer photos\n",
        ),
        None => {}
    }
    let exponents = [
        ("envelope", study.envelope.as_ref().map(|found| Some(found.params_exponent))),
        ("parabolas", study.isoflop.as_ref().map(|found| found.params_exponent)),
    ];
    text.push_str("\n  cross-checks, without the law:\n");
    for (name, exponent) in exponents {
        let found = match exponent {
            Ok(Some(exponent)) => format!("N_opt ~ C^{}", shown(&exponent)),
            Ok(None) => "a single budget has a minimum".into(),
            Err(error) => error.to_string(),
        };
        let _ = writeln!(text, "  {name:10}  {found}");
    }
    if let Ok(parabolas) = &study.isoflop {
        parabolas.missing.iter().for_each(|missing| text.push_str(&format!("  {:10}  {missing}\n", "")));
    }
    let _ = writeln!(text, "\n  {:10}  {:28}  {:28}  cross entropy", "FLOPs", "parameters N", "crops D");
    for optimum in &fit.optimum {
        let [params, crops, loss] = [optimum.params, optimum.crops, optimum.cross_entropy].map(|of| shown(&of));
        let flops = format!("{:.2e}", optimum.flops);
        let _ = writeln!(text, "  {flops:10}  {params:28}  {crops:28}  {loss}");
    }
    text
}

/// `0.45 (0.41 to 0.52)`, with no more digits than the interval supports: down to the first digit of half its width, and at most five. A
/// number of 1 or more keeps its first digit, because its magnitude is known: `3000 (400 to 50000)`.
fn shown(Interval { value, low, high }: &Interval) -> String {
    if ![value, low, high].iter().all(|number| number.is_finite()) {
        return format!("{value:e} ({low:e} to {high:e})");
    }
    // The logarithm of a power of ten may be a little less than whole.
    let size = |number: f64| (number.abs().log10() + 1e-9).floor();
    let (half, first) = (0.5 * (high - low), size(value.abs().max(1e-3)));
    let place = if half > 0.0 { size(half).max(first - 4.0) } else { first - 3.0 };
    let rounded = [*value, *low, *high].map(|number| {
        let round = |place: f64| (number / 10_f64.powf(place)).round_ties_even() * 10_f64.powf(place);
        let place = if number.abs() >= 1.0 { place.min(size(round(size(number)))) } else { place };
        (round(place) + 0.0, place) // -0 becomes 0
    });
    let scientific = place < -6.0 || rounded.iter().any(|(number, _)| size(*number) >= 5.0);
    let [value, low, high] = rounded.map(|(number, place)| {
        if !scientific {
            format!("{number:.*}", (-place).max(0.0) as usize)
        } else if number == 0.0 {
            "0".into()
        } else {
            format!("{number:.*e}", (size(number) - place).clamp(0.0, 6.0) as usize)
        }
    });
    format!("{value} ({low} to {high})")
}

/// A word of a command line, in quotes if it needs them.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:,+@%=".contains(letter);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        for (word, want) in [
            ("embedded", "embedded"),
            ("runs/mine-1.safetensors", "runs/mine-1.safetensors"),
            ("my weights", "'my weights'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), want);
        }
    }

    #[test]
    fn numbers_have_the_digits_that_their_intervals_support() {
        let cases = [
            ((0.4534, 0.4123, 0.5211), "0.45 (0.41 to 0.52)"),
            ((0.4534, 0.4532, 0.4537), "0.4534 (0.4532 to 0.4537)"),
            ((0.0, 0.0, 0.3), "0.0 (0.0 to 0.3)"),             // a bound of the fit
            ((4321.0, 3100.0, 5900.0), "4000 (3000 to 6000)"), // no digits below the first of 1400
            ((843_210.0, 612_345.0, 1_250_000.0), "8e5 (6e5 to 1.2e6)"),
            ((843_210.0, 812_345.0, 863_456.0), "8.4e5 (8.1e5 to 8.6e5)"),
            ((196_000.0, 96_000.0, 432_100.0), "2e5 (1e5 to 4e5)"), // one notation
            ((1_355_142.0, 764_026.0, 3_042_046.0), "1e6 (8e5 to 3e6)"),
            ((96_000.0, 58_000.0, 96_000.0), "1.0e5 (6e4 to 1.0e5)"),
            ((2_543.0, 0.0, 120_000.0), "3e3 (0 to 1.2e5)"),
            ((2_543.0, 387.0, 51_234.0), "3000 (400 to 50000)"), // not 0 (0 to 50000)
            ((-0.02, -1.2, 0.3), "0.0 (-1.2 to 0.3)"),
            ((40.0, 40.0, 40.0), "40.00 (40.00 to 40.00)"), // no noise
            ((40.0, 39.999_999_9, 40.000_000_1), "40.000 (40.000 to 40.000)"), // hardly any
            ((f64::NAN, 0.0, f64::INFINITY), "NaN (0e0 to inf)"), // no panic
        ];
        for ((value, low, high), want) in cases {
            assert_eq!(shown(&Interval { value, low, high }), want);
        }
    }
}
