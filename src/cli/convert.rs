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
    let dataset = args.dataset.as_deref().map(dataset).transpose()?;
    let hints = Hints { variant: args.variant, cross_size: args.cross_size, num_heads: args.num_heads };
    convert(&args.input, &args.output, dataset, hints, args.temperature, args.store, console)?;
    Ok(Outcome::Done)
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
pub(super) fn convert(
    input: &Path,
    output: &Path,
    dataset: Option<Dataset>,
    hints: Hints,
    temperature: Option<f32>,
    store: Store,
    console: &Console,
) -> anyhow::Result<()> {
    let name = || input.display().to_string();
    let Source { mut checkpoint, config: own, dataset: own_dataset } = Source::open(input)?;
    checkpoint.temperature = temperature.or(checkpoint.temperature);
    let Some(dataset) = dataset.or(own_dataset) else {
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
    fn open(path: &Path) -> rtformer::Result<Self> {
        // Whatever else it is, `Checkpoint` reads it, or says why not. The file is closed again, so that it can be replaced.
        Ok(match Weights::open(path) {
            Ok(weights) => Self {
                checkpoint: Checkpoint::of(&weights)?,
                config: Config::of(&weights).ok(), // another program's .safetensors has none of ours
                dataset: weights.dataset().ok(),
            },
            Err(_) => Self { checkpoint: Checkpoint::open(path)?, config: None, dataset: None },
        })
    }
}
