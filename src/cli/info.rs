//! `rtformer info`: describes a weights file, or this program and its embedded weights.

use std::fmt::Write as _;
use std::io::Write as _;

use rtformer::weights::Weights;
use rtformer::{Calibrated, Device, Model, Policy};
use serde::Serialize;

use super::Outcome;
use super::bench::Caches;
use super::console::counted;
use super::model::{embedded, named};

/// Describe a weights file, or this program and its embedded weights
///
/// Example: rtformer info model.safetensors
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Weights: a .safetensors file, a name that `rtformer pull` knows, or `embedded` [default: the embedded weights, preceded by the
    /// program's version, devices and instruction sets]
    #[arg(value_name = "FILE|NAME")]
    weights: Option<String>,

    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Info {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    program: Option<Program>,
    weights: String,
    model: String,
    config: Model,
    /// The number of values in all tensors, including norm statistics and the auxiliary head.
    parameters: usize,
    tensors: usize,
    stored: Vec<Stored>,
    bytes: usize,
    dataset: String,
    classes: Vec<Class>,
    mean: [f64; 3],
    std: [f64; 3],
    /// Divides the logits before the softmax that gives the confidence.
    temperature: f32,
    /// Width and height are padded to a multiple of this number of pixels; `null` if photos are used as they are.
    pad_multiple: Option<u32>,
    source: String,
    license: String,
    /// The rule that `calibrate` stored; `null` without one.
    adaptive: Option<Rule>,
    /// Why the stored rule cannot be read; the network can be used without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    adaptive_error: Option<String>,
}

/// A rule for adaptive inference.
#[derive(Debug, Serialize)]
struct Rule {
    #[serde(flatten)]
    stored: Calibrated,
    /// What runs: `full`, `tiles:THRESHOLD` or `size:SCALE`.
    policy: String,
    /// Whether it was calibrated with these tensors. If not, --adaptive refuses it.
    own_tensors: bool,
}

/// The program that runs the weights.
#[derive(Debug, Serialize)]
struct Program {
    version: &'static str,
    commit: &'static str,
    devices: Vec<String>,
    instruction_sets: Vec<&'static str>,
    threads: Threads,
    caches: Caches,
}

/// The default number of threads, and why.
#[derive(Debug, Serialize)]
struct Threads {
    number: usize,
    reason: String,
}

/// The number of values stored as one type.
#[derive(Debug, Serialize)]
struct Stored {
    dtype: String,
    numbers: usize,
}

#[derive(Debug, Serialize)]
struct Class {
    id: usize,
    name: String,
    color: [u8; 3],
    #[serde(skip_serializing_if = "Option::is_none")]
    label_id: Option<u16>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let weights = args.weights.as_deref().map_or_else(|| Ok(embedded()?), named)?;
    let info = Info::of(&weights, args.weights.is_none().then(Program::this).transpose()?)?;
    let text = if args.json { serde_json::to_string_pretty(&info)? + "\n" } else { info.text() };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

impl Program {
    fn this() -> rtformer::Result<Self> {
        let threads = rtformer::backend::Threads::of_this_process();
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("RTFORMER_COMMIT"),
            devices: Device::available().iter().map(ToString::to_string).collect(),
            instruction_sets: Device::instruction_sets(),
            threads: Threads { number: threads.number, reason: threads.reason },
            caches: Caches::this()?,
        })
    }
}

impl Rule {
    fn of(weights: &Weights) -> rtformer::Result<Option<Self>> {
        Ok(Calibrated::of(weights)?.map(|stored| Self {
            policy: stored.policy().to_string(),
            own_tensors: stored.tensors == weights.tensors_digest(),
            stored,
        }))
    }

    /// Two lines: what runs and what is guaranteed, and from what it was calibrated.
    fn text(&self) -> String {
        let Calibrated { risk, epsilon, delta, bound, n, groups, size, pad_multiple, precision, .. } = &self.stored;
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let what = if self.stored.policy() == Policy::Full {
            "the full network, as no saving was found".into()
        } else {
            let [work, time] = [self.stored.compute_share, self.stored.time_share].map(percent);
            format!("{}, {work} of the multiplications, {time} of the time", self.policy)
        };
        let certain = if bound == "crc" { "on average".into() } else { format!("delta {delta}") };
        let observed = self.stored.p_value.map_or(String::new(), |p| {
            format!(", observed risk {}, p-value {p:.1e}", percent(self.stored.empirical_risk))
        });
        let other = if self.own_tensors { "" } else { "; refused, because it is for other tensors" };
        let (photos, units) = (counted(*n, "photo"), counted(*groups, "unit"));
        format!(
            "{what}; for a risk ({risk}) of at most {epsilon}, {certain}{other}\n                {bound} on {photos} in \
             {units}{observed}; size {size}, padding {pad_multiple}, {precision}"
        )
    }
}

impl Info {
    fn of(weights: &Weights, program: Option<Program>) -> anyhow::Result<Self> {
        let model = Model::of(weights)?;
        let dataset = weights.dataset()?;
        let classes = dataset.classes.into_iter().enumerate();
        let (adaptive, adaptive_error) = match Rule::of(weights) {
            Ok(rule) => (rule, None),
            Err(error) => (None, Some(error.to_string())),
        };
        Ok(Self {
            program,
            weights: weights.path().display().to_string(),
            model: model.name(),
            config: model,
            parameters: weights.parameters(),
            tensors: weights.names().count(),
            stored: weights.dtypes().into_iter().map(|(dtype, numbers)| Stored { dtype, numbers }).collect(),
            bytes: weights.bytes(),
            dataset: dataset.name,
            classes: classes
                .map(|(id, class)| Class { id, name: class.name, color: class.color, label_id: class.label_id })
                .collect(),
            mean: dataset.mean,
            std: dataset.std,
            temperature: weights.temperature()?,
            pad_multiple: weights.pad_multiple()?,
            source: dataset.source,
            license: dataset.license,
            adaptive,
            adaptive_error,
        })
    }

    /// The text form.
    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(Program { version, commit, devices, instruction_sets, threads, caches }) = &self.program {
            let _ = writeln!(text, "rtformer {version}, commit {commit}");
            let _ = writeln!(text, "  devices       {}", devices.join(", "));
            let _ = writeln!(text, "  instructions  {}", instruction_sets.join(", "));
            let _ = writeln!(text, "  threads       {}: {}", threads.number, threads.reason);
            let _ = writeln!(text, "  caches        {caches}\n");
        }
        let stored: Vec<_> =
            self.stored.iter().map(|stored| format!("{} {}", short(stored.numbers), stored.dtype)).collect();
        let lines = [
            ("model", self.model.clone()),
            ("network", self.config.to_string()),
            ("parameters", format!("{} in {} tensors ({})", short(self.parameters), self.tensors, stored.join(", "))),
            ("size", format!("{} bytes", self.bytes)),
            ("data set", format!("{}, {} classes", self.dataset, self.config.num_classes())),
            ("mean", format!("{:?}", self.mean)),
            ("deviation", format!("{:?}", self.std)),
            ("temperature", self.temperature.to_string()),
            (
                "padding",
                self.pad_multiple.map_or("none".into(), |multiple| format!("to a multiple of {multiple} pixels")),
            ),
            (
                "adaptive",
                match (&self.adaptive, &self.adaptive_error) {
                    (Some(rule), _) => rule.text(),
                    (None, Some(error)) => error.clone(),
                    (None, None) => "not calibrated".into(),
                },
            ),
            ("source", self.source.clone()),
            ("licence", self.license.clone()),
        ];
        let _ = writeln!(text, "{}", self.weights);
        for (name, value) in lines {
            let _ = writeln!(text, "  {name:12}  {value}");
        }
        let _ = writeln!(text, "\n     id  colour   class");
        for Class { id, name, color: [r, g, b], label_id } in &self.classes {
            let label = label_id.map_or(String::new(), |label| format!("  (label id {label})"));
            let _ = writeln!(text, "  {id:5}  #{r:02x}{g:02x}{b:02x}  {name}{label}");
        }
        text
    }
}

/// `4.8 M`, `21 k`, `7`.
pub(super) fn short(number: usize) -> String {
    match number {
        0..1000 => number.to_string(),
        1000..1_000_000 => format!("{:.0} k", number as f64 / 1e3),
        _ => format!("{:.1} M", number as f64 / 1e6),
    }
}
