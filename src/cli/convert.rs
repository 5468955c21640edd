//! Another program's checkpoint becomes a weights file of ours.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rtformer::weights::{self, Checkpoint, Dataset, Store, Weights};
use rtformer::{Config, Device, ErrorKind, Hints, Segmenter, Variant, infer_config};

use super::info::short;
use super::{Outcome, console::Console, misuse};

/// Turn a checkpoint (.pdparams, .pth, .safetensors) into a weights file
///
/// Variant, widths and classes are read from the tensors' shapes. Cross size and heads are in no shape: they are what the flags
/// say, else what one of our own files says, else what PaddleSeg's configurations have.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The checkpoint; its content decides what it is, not its name
    #[arg(value_name = "INPUT")]
    input: PathBuf,

    /// The weights file to write
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: PathBuf,

    /// Class names, colours and normalisation: cityscapes, ade20k, camvid, or a JSON file; one of our own files has its own
    #[arg(long, value_name = "NAME|FILE")]
    dataset: Option<String>,

    /// Refuse a checkpoint of another variant
    #[arg(long, value_name = "slim|base")]
    variant: Option<Variant>,

    /// Side of the pooled map in the cross-resolution attention
    #[arg(long, value_name = "N")]
    cross_size: Option<usize>,

    /// Heads of the attention
    #[arg(long, value_name = "N")]
    num_heads: Option<usize>,

    /// What divides the logits ahead of the softmax that gives the confidence; one of our own files has its own, others 1
    #[arg(long, value_name = "NUMBER", value_parser = temperature)]
    temperature: Option<f32>,

    /// Pad width and height to a multiple of N pixels (1 to 256) before the network, or `none` to use photos as they are [default: as
    /// in one of our own files, else none]
    #[arg(long, value_name = "N|none", value_parser = pad_multiple, allow_negative_numbers = true)]
    pad_multiple: Option<Pad>,

    /// Which network to read from a checkpoint that holds several: the key of a dictionary, such as model_ema, or a prefix of the
    /// tensors' names, such as student [default: an averaged network (ema), else the only one that is not a teacher]
    #[arg(long, value_name = "KEY")]
    part: Option<String>,

    /// How numbers are stored: f32, f16, bf16, or int8 (3x3 convolutions with a scale for each output channel, the rest f16)
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    store: Store,

    /// Replace a file that is there already
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    let output = args.output.display();
    if args.output.is_dir() {
        return Err(misuse(format!("{output}: is a folder; name the file to write")));
    }
    if args.output.exists() && !args.overwrite {
        return Err(misuse(format!("{output}: is there already; --overwrite replaces it")));
    }
    let wanted = Wanted {
        dataset: args.dataset.as_deref().map(dataset).transpose()?,
        hints: Hints { variant: args.variant, cross_size: args.cross_size, num_heads: args.num_heads },
        temperature: args.temperature,
        pad_multiple: args.pad_multiple,
        part: args.part.as_deref(),
        store: args.store,
    };
    convert(&args.input, &args.output, wanted, console)?;
    Ok(Outcome::Done)
}

/// What the user says of a checkpoint, and of what is to be written.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) dataset: Option<Dataset>,
    pub(super) hints: Hints,
    pub(super) temperature: Option<f32>,
    pub(super) pad_multiple: Option<Pad>,
    pub(super) part: Option<&'a str>,
    pub(super) store: Store,
}

/// The value of `--pad-multiple`; `None` inside is the word `none`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pad(Option<u32>);

fn pad_multiple(text: &str) -> Result<Pad, String> {
    if text == "none" {
        return Ok(Pad(None));
    }
    let multiple = text.parse().map_err(|_| "expected a whole number or `none`")?;
    weights::check_pad_multiple(multiple).map(|()| Pad(Some(multiple)))
}

fn temperature(text: &str) -> Result<f32, String> {
    let temperature = text.parse().map_err(|_| "it is no number")?;
    weights::check_temperature(temperature).map(|()| temperature)
}

/// The data set of that name, or of that file.
fn dataset(name: &str) -> anyhow::Result<Dataset> {
    match Dataset::named(name) {
        Some(dataset) => Ok(dataset),
        None if Path::new(name).exists() => Ok(Dataset::load(name)?),
        None => {
            let names: Vec<_> = Dataset::names().collect();
            Err(misuse(format!("--dataset {name} is neither {} nor a file that is there", names.join(", "))))
        }
    }
}

/// Reads `input`, checks every tensor, writes `output`, proves that it loads, and says what it found.
///
/// # Errors
/// All name the input, but for what is wrong with the output.
pub(super) fn convert(input: &Path, output: &Path, wanted: Wanted<'_>, console: &Console) -> anyhow::Result<()> {
    let Wanted { dataset, hints, temperature, pad_multiple, part, store } = wanted;
    let name = || input.display().to_string();
    let Source { mut checkpoint, config: own, dataset } = Source::open(input, part, dataset)?;
    checkpoint.temperature = temperature.or(checkpoint.temperature);
    checkpoint.pad_multiple = pad_multiple.map_or(checkpoint.pad_multiple, |Pad(multiple)| multiple);
    let found = checkpoint.found.to_string();
    if !found.is_empty() {
        let choose = if checkpoint.found.alternatives.is_empty() { "" } else { " (--part chooses)" };
        console.note(&format!("{}: {found}{choose}", name()));
    }
    let Some(dataset) = dataset else {
        let names: Vec<_> = Dataset::names().collect();
        return Err(misuse(format!(
            "{}: does not say what its classes are; name its data set with --dataset: {}, or a JSON file",
            name(),
            names.join(", ")
        )));
    };
    let known = Hints {
        cross_size: hints.cross_size.or(own.as_ref().map(|config| config.cross_size)),
        num_heads: hints.num_heads.or(own.as_ref().map(|config| config.num_heads)),
        ..hints
    };
    // The library knows the tensors, not the file that they are from.
    let config = infer_config(&checkpoint, &dataset, known).with_context(name)?;
    let origin = |flag: Option<usize>, known: Option<usize>| match (flag, known) {
        (Some(_), _) => "given",
        (None, Some(_)) => "from the file",
        (None, None) => "assumed, as PaddleSeg has it",
    };
    console.note(&format!(
        "{}: {}, {} classes of {}, cross size {} ({}), {} heads ({}); {} parameters in {} tensors",
        name(),
        config.name(),
        config.num_classes,
        dataset.name,
        config.cross_size,
        origin(hints.cross_size, known.cross_size),
        config.num_heads,
        origin(hints.num_heads, known.num_heads),
        short(checkpoint.tensors.values().map(|tensor| tensor.data.len()).sum()),
        checkpoint.tensors.len(),
    ));
    weights::save(output, &checkpoint, &dataset, &config.to_json(), store).with_context(name)?;
    match Segmenter::open(output, Device::Cpu) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::Device => return Err(error.into()), // says nothing of the file
        Err(error) => {
            // Every tensor was checked, so this is a defect of ours; a file that does not load must not stay.
            let _ = fs::remove_file(output);
            let context = format!("{}: what was written of it does not load; please report this", name());
            return Err(error).context(context);
        }
    }
    console.note(&format!("{}: written as {store}, and it loads", output.display()));
    Ok(())
}

/// A checkpoint, and what our own files say of themselves beside their tensors.
struct Source {
    checkpoint: Checkpoint,
    config: Option<Config>,
    dataset: Option<Dataset>,
}

impl Source {
    /// `dataset` takes the place of the file's own, which then need not be right.
    fn open(path: &Path, part: Option<&str>, dataset: Option<Dataset>) -> rtformer::Result<Self> {
        let checkpoint = match part {
            Some(part) => Checkpoint::open_part(path, part)?,
            None => Checkpoint::open(path)?,
        };
        // The file is closed again, so that it can be replaced.
        let is_ours = |weights: &Weights| ["config", "classes"].iter().all(|key| weights.metadata(key).is_some());
        let own = Weights::open(path).ok().filter(is_ours);
        let Some(own) = own else { return Ok(Self { checkpoint, config: None, dataset }) };
        let dataset = match dataset {
            None => own.dataset()?,
            Some(dataset) => dataset,
        };
        Ok(Self { checkpoint, config: Some(Config::of(&own)?), dataset: Some(dataset) })
    }
}
