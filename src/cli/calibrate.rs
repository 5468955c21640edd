//! `rtformer calibrate`: chooses the least safe threshold whose risk is certified to be small.

mod groups;
mod losses;
mod photos;
mod report;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use rtformer::Size;
use rtformer::eval::Risk;
use rtformer::eval::risk::{Bound, Choice, Limit, choose, smallest_epsilon, units_needed};
use serde::Serialize;

use super::console::Console;
use super::model::{DeviceArgs, ModelArgs};
use super::photos::PhotoArgs;
use super::{Outcome, misuse};
use groups::GroupBy;
use losses::Losses;

/// Find out how much can be computed less on your photos, with a guarantee on what changes
///
/// With --images, photos are segmented by the full network and by cheaper policies: stopping at the
/// auxiliary head except in uncertain tiles of 64 pixels, or a smaller size. A photo's loss is the
/// share of pixels that differ from the full network's mask (`consistency`; needs no labels), or the
/// accuracy that is lost (`accuracy`). The fastest policy whose risk is certified to be at most EPSILON
/// is stored in a copy of the weights, for --adaptive. If none saves time on this machine, the command
/// says `no saving found`, and the copy runs the full network.
///
/// Photos must be independent and of the kind that you will segment. --group-by counts the photos of a
/// clip as one unit. Example:
///
///   rtformer calibrate --images photos --epsilon 0.02 --delta 0.05 -o calibrated.safetensors
///   rtformer segment street.jpg --weights calibrated.safetensors --adaptive 0.02 -o out
///
/// With --losses, only the statistics run, on a table of losses. The table is a CSV file with one column per threshold, safest first, and one row per unit. The first
/// line names the thresholds. The values are losses from 0 to 1, such as the share of a photo's pixels
/// that differ. The risk of a threshold is its expected loss on new units of the same kind. Units must
/// be independent: photos of different scenes, not the pixels of a photo and not neighbouring frames.
///
/// The command goes through the thresholds in their order, stops at the first that is not certified,
/// and chooses the one before it. Fix the order before you look at the losses. There are three bounds:
///
///   hb   Learn then Test with Hoeffding-Bentkus p-values: with a probability of at least 1 - DELTA,
///        the chosen threshold's risk is at most EPSILON
///   wsr  the same guarantee with Waudby-Smith and Ramdas's betting p-values, which need fewer units if
///        the losses vary little
///   crc  conformal risk control: the risk is at most EPSILON on average over all calibrations. This is
///        weaker, because a single calibration may exceed it; it does not use DELTA. It needs losses
///        that never fall from a threshold to the next
///
/// Small samples certify little: without any loss, 149 units certify a risk of 0.02 at DELTA = 0.05.
/// The table that is printed says how many units a threshold needs at its observed risk.
///
/// --json prints an object. `chosen` is the name of a threshold, or null if none is certified.
/// `p_values`, `empirical_risk`, `needed` and `smallest_epsilon` have one entry per threshold of
/// `columns`. P-values are null for crc. `needed` is null if no number of units suffices; for wsr it is
/// the number that hb needs. `smallest_epsilon` is null for wsr.
///
/// Example: rtformer calibrate --losses losses.csv --epsilon 0.02 --delta 0.05 --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// Table of losses
    #[arg(long, value_name = "FILE.csv", required_unless_present = "images")]
    losses: Option<PathBuf>,

    /// Folder of photos, searched recursively
    #[arg(long, value_name = "FOLDER", conflicts_with = "losses", requires = "out")]
    images: Option<PathBuf>,

    /// Folder of label images, for --risk accuracy; names are as for `rtformer eval`
    #[arg(long, value_name = "FOLDER", requires = "images")]
    labels: Option<PathBuf>,

    /// What counts as a loss
    #[arg(long, value_name = "consistency|accuracy", default_value_t = Risk::Consistency)]
    risk: Risk,

    /// Photos that form one independent unit: those of a `folder`, or those whose paths match a regular expression alike (its first
    /// group, or else the whole match). The unit's loss is the mean of its photos' [default: each photo]
    #[arg(long, value_name = "folder|REGEX", requires = "images")]
    group_by: Option<GroupBy>,

    /// Weights file to write
    #[arg(short, long, value_name = "FILE", requires = "images")]
    out: Option<PathBuf>,

    /// Also write the units' losses to this CSV file: a line of names, and one line for each unit. Its columns up to the first `size` are
    /// one sequence for --losses, the others another
    #[arg(long, value_name = "FILE.csv", requires = "images")]
    write_losses: Option<PathBuf>,

    /// Replace the files that are written if they exist
    #[arg(long, requires = "images")]
    overwrite: bool,

    /// Largest acceptable risk, from 0 to 1
    #[arg(long, value_name = "EPSILON", allow_negative_numbers = true)]
    epsilon: f64,

    /// Largest acceptable probability that the guarantee fails, between 0 and 1
    #[arg(long, value_name = "DELTA", default_value_t = 0.05, allow_negative_numbers = true)]
    delta: f64,

    /// How thresholds are certified [default: wsr for --images, hb for --losses]
    #[arg(long, value_name = "hb|wsr|crc")]
    bound: Option<Bound>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Size in pixels at which the full network sees a photo: native (the photo's size), WxH (exactly), or within:WxH (the largest that
    /// fits in either orientation, with the photo's proportions)
    #[arg(long, value_name = "SIZE", default_value = "native")]
    size: Size,

    #[command(flatten)]
    photos: PhotoArgs,

    #[command(flatten)]
    model: ModelArgs,
}

impl Args {
    /// The flags of the network, if it runs.
    pub(super) fn device(&self) -> Option<&DeviceArgs> {
        self.images.is_some().then_some(&self.model.device)
    }
}

/// What `--json` prints. The lists have one entry per threshold.
#[derive(Debug, Serialize)]
struct Report {
    chosen: Option<String>,
    p_values: Vec<Option<f64>>,
    bound: &'static str,
    n: usize,
    epsilon: f64,
    delta: f64,
    columns: Vec<String>,
    empirical_risk: Vec<f64>,
    /// Units that epsilon needs at the observed risk; null if no number suffices.
    needed: Vec<Option<u64>>,
    /// The smallest epsilon that `n` units certify at the observed risk; null for `wsr`.
    smallest_epsilon: Vec<Option<f64>>,
    /// Whether no unit's loss falls from a threshold to the next.
    monotone: bool,
    /// What holds for the chosen threshold; null if nothing does.
    guarantee: Option<String>,
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    let limit = Limit::new(args.epsilon, args.delta).map_err(|error| misuse(error.to_string()))?;
    if let Some(images) = &args.images {
        return photos::run(args, images, limit, console);
    }
    let Some(table) = &args.losses else { return Err(misuse("--images or --losses is missing")) };
    let (path, bound) = (table.display(), args.bound.unwrap_or(Bound::HoeffdingBentkus));
    let losses = losses::read(table).map_err(|reason| anyhow::anyhow!("{path}: {reason}"))?;
    if losses.names_are_numbers() {
        console.note(&format!(
            "note: {path}: the first line has only numbers; they are read as the names of the thresholds. If they are losses, add \
             a line of names above them"
        ));
    }
    let choice = choose(&losses.columns, limit, bound)?;
    if bound == Bound::Conformal && !choice.monotone {
        console.note(&format!(
            "warning: {path}: some losses fall from a threshold to the next; conformal risk control guarantees nothing for such \
             losses; use --bound hb or wsr"
        ));
    }
    let certified = choice.chosen.map_or(0, |last| last + 1);
    let report = Report::new(losses, choice, limit, bound);
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text(certified) };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

impl Report {
    fn new(losses: Losses, choice: Choice, limit: Limit, bound: Bound) -> Self {
        let n = losses.columns.first().map_or(0, Vec::len);
        let (epsilon, delta) = (limit.epsilon(), limit.delta());
        let holds = choice.chosen.is_some() && (bound != Bound::Conformal || choice.monotone);
        Self {
            chosen: choice.chosen.map(|index| losses.names[index].clone()),
            p_values: choice.p_values,
            bound: bound.name(),
            n,
            epsilon,
            delta,
            columns: losses.names,
            needed: choice.risks.iter().map(|&risk| units_needed(risk, limit, bound)).collect(),
            smallest_epsilon: choice.risks.iter().map(|&risk| smallest_epsilon(n as u64, risk, delta, bound)).collect(),
            empirical_risk: choice.risks,
            monotone: choice.monotone,
            guarantee: holds.then(|| guarantee(limit, bound)),
        }
    }

    /// A table for people, the choice, and what it means. The first `certified` thresholds are certified.
    fn text(&self, certified: usize) -> String {
        let width = self.columns.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("threshold".len());
        let mut text = format!("{} units, epsilon {}, ", self.n, self.epsilon);
        let _ = match self.bound {
            "crc" => writeln!(text, "bound crc\n"),
            bound => writeln!(text, "delta {}, bound {bound}\n", self.delta),
        };
        let _ = writeln!(text, "{:width$}    risk  p-value  smallest epsilon  result", "threshold");
        for (index, name) in self.columns.iter().enumerate() {
            let result = match (index, self.needed[index]) {
                _ if index < certified => "certified".to_owned(),
                _ if index > certified => "not tested".to_owned(),
                (_, Some(units)) => format!("not certified; needs about {units} units at this risk"),
                (_, None) => {
                    "not certified; the risk is too close to epsilon or above it for any number of units".to_owned()
                }
            };
            let risk = self.empirical_risk[index];
            let (p_value, smallest) = (number(self.p_values[index]), number(self.smallest_epsilon[index]));
            let _ = writeln!(text, "{name:width$}  {risk:.4}  {p_value:>7}  {smallest:>16}  {result}");
        }
        let _ = match &self.chosen {
            Some(name) => writeln!(text, "\nchosen: {name}"),
            None => writeln!(text, "\nchosen: none; not even the safest threshold is certified"),
        };
        let _ = match (&self.guarantee, &self.chosen) {
            (Some(guarantee), _) => writeln!(text, "{guarantee}"),
            (None, Some(_)) => {
                writeln!(text, "Nothing is guaranteed, because some losses fall from a threshold to the next.")
            }
            (None, None) => Ok(()),
        };
        text
    }
}

/// A p-value or an epsilon in a table.
fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value > 0.0 && value < 5e-5 => "<0.0001".to_owned(),
        Some(value) => format!("{value:.4}"),
    }
}

/// What holds for a threshold that was chosen, in a sentence.
fn guarantee(limit: Limit, bound: Bound) -> String {
    let epsilon = limit.epsilon();
    let percent = ((1.0 - limit.delta()) * 1e8).round() / 1e6;
    match bound {
        Bound::Conformal => format!(
            "On average over all draws of the units, the expected loss of the chosen threshold on new units of the same kind is at \
             most {epsilon}. A single calibration may exceed it, so this is weaker than the guarantee of hb and wsr."
        ),
        Bound::HoeffdingBentkus | Bound::Betting => format!(
            "With a probability of at least {percent} % over the draw of the units, the expected loss of the chosen threshold on new \
             units of the same kind is at most {epsilon}."
        ),
    }
}
