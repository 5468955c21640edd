//! `plan --train`: what to train for a budget.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use rtformer::plan::{Advice, Interval, Laws, Widths};
use serde::Serialize;

use super::super::console::Console;
use super::super::misuse;
use super::rate::{self, Rate, RateArgs};
use super::speed::{self, Speed, Timed};
use super::{Args, Study, plot, positive, quoted, shown, table};

/// A schedule of fewer is not one; `sweep.py` has the same limit.
const FEWEST_ITERATIONS: f64 = 20.0;

/// Flags of `--train`.
#[derive(Debug, clap::Args)]
pub(super) struct TrainArgs {
    /// The budget, hours of training on this machine. Its rate is measured, which takes about a minute, unless --rate is given
    #[arg(long, value_name = "H", requires = "train", conflicts_with = "flops", value_parser = hours)]
    hours: Option<f64>,

    /// The number of different photos to train on [default: the most in the table]
    #[arg(long, value_name = "U", requires = "train", value_parser = clap::value_parser!(u32).range(1..))]
    frames: Option<u32>,

    /// The table of runs that the prediction is made from, as `weights/train/sweep.py` writes it: as for --fit, with the column width
    /// [default: the runs of this version on CamVid]
    #[arg(long, value_name = "FILE.csv", requires = "train")]
    sweep: Option<PathBuf>,

    #[command(flatten)]
    recipe: RateArgs,
}

/// Refuses flags that would change nothing.
pub(super) fn check(args: &Args) -> anyhow::Result<()> {
    let TrainArgs { hours, frames, sweep, recipe } = &args.training;
    // clap forgets what a flag requires if it conflicts with another flag that is there.
    let given = [
        ("--hours", hours.is_some()),
        ("--frames", frames.is_some()),
        ("--sweep", sweep.is_some()),
        ("--rate", recipe.rate.is_some()),
        ("--batch", recipe.batch.is_some()),
        ("--crop", recipe.crop.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) if !args.train => Err(misuse(format!("{name} needs --train"))),
        _ if recipe.rate.is_some() && hours.is_none() => {
            Err(misuse("--rate says how many FLOPs an hour has; use it with --hours"))
        }
        _ => Ok(()),
    }
}

fn hours(text: &str) -> Result<f64, String> {
    positive(text, "a positive number of hours, such as 2.5")
}

/// What the budget is counted in.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Budget {
    Flops(f64),
    Hours(f64),
}

/// One row of the answer.
#[derive(Serialize)]
struct Recipe {
    #[serde(flatten)]
    advice: Advice,
    iterations: Interval,
    /// `None` if the number of photos is unknown.
    epochs: Option<Interval>,
}

#[derive(Serialize)]
struct Report {
    budget: Budget,
    /// The table of runs; `None` for the runs of this version.
    sweep: Option<PathBuf>,
    /// Empty unless the budget is hours.
    rates: Vec<Rate>,
    photos: Option<f64>,
    /// Whether the table says what a repeated photo is worth.
    repetitions_known: bool,
    #[serde(flatten)]
    recipe: Recipe,
    half: Recipe,
    twice: Recipe,
    /// Whether the width or the budget lies outside of the table's.
    extrapolated: bool,
    /// The relative standard deviation of single runs around the law.
    deviation: f64,
    interval: f64,
    /// The networks that are fast enough, with --fps.
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<Speed>,
    /// Time against loss, with --fps: the widths whose time was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    widths: Vec<Choice>,
    crop: String,
    batch: u32,
    command: String,
}

/// A width with its time on this machine and its expected loss for the budget.
#[derive(Serialize)]
struct Choice {
    #[serde(flatten)]
    time: Timed,
    params: f64,
    crops: f64,
    cross_entropy: Interval,
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<String> {
    let train = &args.training;
    let budget = match (args.flops, train.hours) {
        (Some(flops), _) => Budget::Flops(flops),
        (None, Some(hours)) => Budget::Hours(hours),
        (None, None) => return Err(misuse("--train needs a budget; use --flops C or --hours H")),
    };
    let named = || train.sweep.as_ref().map_or_else(|| table::OWN.into(), |path| path.display().to_string());
    let table = train.sweep.as_ref().map_or_else(table::own, |path| table::read(path))?;
    let Some(known) = &table.widths else {
        anyhow::bail!(
            "{}: line 1: column width is missing; --train needs each run's width, as sweep.py writes it",
            named()
        );
    };
    let pairs: Vec<_> = known.iter().copied().zip(table.runs.iter().copied()).collect();
    let widths = Widths::of(&pairs).with_context(named)?;
    let study = Study::of(&table.runs, args.flops.as_slice()).with_context(named)?;
    let trained = train.recipe.recipe(&table).map_err(|error| error.context(named()))?;
    let rates =
        if train.hours.is_some() { rate::rates(&train.recipe, &trained, &widths, console)? } else { Vec::new() };

    let photos = train.frames.map(f64::from);
    let most = table.runs.iter().filter_map(|run| run.unique).max_by(f64::total_cmp);
    let flops = |width| match budget {
        Budget::Flops(flops) => flops,
        Budget::Hours(hours) => hours * 3600.0 * rate::at(&rates, width),
    };
    let crops = |width| flops(width) / widths.flops_per_crop(width);
    let advise = |widths: &Widths, share: f64| study.laws.advise(widths, |width| share * crops(width), photos);

    let speed = match args.inference.fps {
        // Networks that even twice the budget would not train are not measured.
        Some(fps) => {
            let widest = advise(&widths, 2.0).width.high;
            Some(speed::measure(&args.inference, fps, &widths.up_to(widest as u32), console)?)
        }
        None => None,
    };
    let choice = |&time: &Timed| {
        let (params, crops) = (widths.params(time.width), crops(time.width));
        let cross_entropy = study.laws.cross_entropy(params, crops, photos.or(study.laws.photos()));
        Choice { time, params, crops, cross_entropy }
    };
    let choices = speed.iter().flat_map(|speed| &speed.measured).map(choice).collect();
    let fast = speed.as_ref().map_or(widths.clone(), |speed| widths.up_to(speed.widest));
    let recipe = |share: f64| {
        let advice = advise(&fast, share);
        let over = |unit: f64| scaled(advice.crops, unit);
        Recipe { advice, iterations: over(f64::from(trained.batch)), epochs: photos.or(most).map(over) }
    };
    let [recipe, half, twice] = [1.0, 0.5, 2.0].map(recipe);
    if recipe.iterations.value < FEWEST_ITERATIONS {
        let (flops, iterations) = (recipe.advice.flops, recipe.iterations.value);
        return Err(misuse(format!(
            "{flops:.2e} FLOPs are {iterations:.1} iterations of the best width, expected at least {FEWEST_ITERATIONS}; raise the budget"
        )));
    }
    plot(args, &study, console)?;
    let report = Report {
        extrapolated: extrapolated(&recipe.advice, &study.laws, &widths),
        command: command(train, &trained, &recipe, table.learning_rate.as_deref()),
        sweep: train.sweep.clone(),
        speed,
        widths: choices,
        crop: trained.crop,
        batch: trained.batch,
        budget,
        rates,
        photos: photos.or(most),
        repetitions_known: study.laws.knows_repetitions(),
        recipe,
        half,
        twice,
        deviation: study.fit.deviation,
        interval: study.fit.interval,
    };
    Ok(if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { text(&report, most, &widths) })
}

fn scaled(interval: Interval, unit: f64) -> Interval {
    Interval { value: interval.value / unit, low: interval.low / unit, high: interval.high / unit }
}

fn extrapolated(advice: &Advice, laws: &Laws, widths: &Widths) -> bool {
    let inside = (f64::from(widths.range.0)..=f64::from(widths.range.1)).contains(&advice.width.value);
    let (smallest, largest) = (laws.budgets().first(), laws.budgets().last());
    !inside
        || smallest.is_some_and(|smallest| 1.05 * advice.flops < *smallest)
        || largest.is_some_and(|largest| advice.flops > 1.05 * largest)
}

/// The command that trains the recommended network as the table's runs were trained.
fn command(args: &TrainArgs, trained: &rate::Recipe, recipe: &Recipe, learning_rate: Option<&str>) -> String {
    let rate::Recipe { batch, crop } = trained;
    let [python, script] =
        [&args.recipe.python, &args.recipe.folder.join("train.py")].map(|path| quoted(&path.display().to_string()));
    let data = if args.sweep.is_none() { table::OWN_SPLIT } else { "--data DATA" };
    let mut text = format!("{python} {script} {data} --out run");
    let _ = write!(
        text,
        " --width {:.0} --iterations {:.0} --batch {batch} --crops {crop} {crop} {crop}",
        recipe.advice.width.value,
        recipe.iterations.value.round().max(1.0)
    );
    if let Some(rate) = learning_rate {
        let _ = write!(text, " --lr {rate}");
    }
    text
}

/// For a person to read.
fn text(report: &Report, most: Option<f64>, widths: &Widths) -> String {
    let budget = match report.budget {
        Budget::Flops(flops) => format!("{flops:.3e} training FLOPs"),
        Budget::Hours(hours) => format!("{hours} hours"),
    };
    let photos = report.photos.map(|photos| format!(", {photos} photos")).unwrap_or_default();
    let mut text = format!("{budget}{photos}; {:.0} % intervals\n\n", 100.0 * report.interval);
    let columns = [("half", &report.half), ("budget", &report.recipe), ("twice", &report.twice)];
    let cells = |of: &dyn Fn(&str, &Recipe) -> String| {
        columns.iter().fold(String::new(), |line, (head, recipe)| line + &format!("  {:28}", of(head, recipe)))
    };
    let _ = writeln!(text, "  {:14}{}", "", cells(&|head, _| head.into()).trim_end());
    let mut row = |name: &str, of: &dyn Fn(&Recipe) -> String| {
        let _ = writeln!(text, "  {name:14}{}", cells(&|_, recipe| of(recipe)).trim_end());
    };
    row("FLOPs", &|recipe| format!("{:.2e}", recipe.advice.flops));
    row("width", &|recipe| whole(&recipe.advice.width));
    row("parameters", &|recipe| number(&recipe.advice.params));
    row("crops", &|recipe| number(&recipe.advice.crops));
    row("iterations", &|recipe| number(&recipe.iterations));
    row("epochs", &|recipe| recipe.epochs.map_or("unknown".into(), |epochs| number(&epochs)));
    row("cross entropy", &|recipe| shown(&recipe.advice.cross_entropy));
    if let Some(speed) = &report.speed {
        text += &fast_enough(speed, &report.widths);
    }
    for Rate { width, flops_per_second } in &report.rates {
        let _ = write!(text, "\n  rate {flops_per_second:.2e} FLOPs per second");
        if report.rates.len() > 1 {
            let _ = write!(text, " at width {width}");
        }
    }
    let _ = write!(
        text,
        "\n  a single run varies by {:.1} % around the expected cross entropy (one standard deviation)",
        100.0 * report.deviation
    );
    if report.sweep.is_none() {
        text += "\n  predicted from trainings on CamVid (11 classes), for its clip 0006R0, which they did not learn from; for other photos, make a \
                 table with sweep.py and use --sweep";
    }
    if !report.repetitions_known
        && let Some(most) = most
    {
        let other = report.photos.is_some_and(|photos| photos != most);
        let effect = if other { "; the prediction is for that number, not for yours" } else { "" };
        let _ = write!(
            text,
            "\n  the table does not say what repeated photos are worth: its runs used {most} photos{effect}"
        );
    }
    if report.extrapolated {
        let _ = write!(
            text,
            "\n  beyond the table's runs (widths {} to {}): the prediction extrapolates",
            widths.range.0, widths.range.1
        );
    }
    text + &format!("\n\n  {}\n", report.command)
}

/// The widths that were measured: time against loss.
fn fast_enough(speed: &Speed, widths: &[Choice]) -> String {
    let Speed { fps, size, device, precision, widest, .. } = speed;
    let mut text = format!(
        "\n  {:>5}  {:>9}  {:>8}  {:24}  {size}, {device}, {precision}\n",
        "width", "median ms", "FPS", "cross entropy"
    );
    for Choice { time: Timed { width, latency_ms, fps }, cross_entropy, .. } in widths {
        let loss = shown(cross_entropy);
        let _ = writeln!(text, "  {width:>5}  {latency_ms:>9.2}  {fps:>8.2}  {loss}");
    }
    let all = widths.last().is_some_and(|last| last.time.width == *widest);
    let beyond = if all {
        ", and wider ones are too large for twice the budget"
    } else {
        "; only networks up to it are recommended"
    };
    text + &format!("  width {widest} reaches {fps} frames per second{beyond}\n")
}

/// A number that follows from the width, without an interval if all resamples agree on the width.
fn number(interval: &Interval) -> String {
    let Interval { value, low, high } = *interval;
    if low < high {
        shown(interval)
    } else if value < 1e5 {
        format!("{value:.0}")
    } else {
        format!("{value:.2e}")
    }
}

/// `24 (16 to 32)`: widths are multiples of four.
fn whole(Interval { value, low, high }: &Interval) -> String {
    if low == high { format!("{value}") } else { format!("{value} ({low} to {high})") }
}
