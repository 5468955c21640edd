//! `rtformer convert`: converts a checkpoint of another program to a weights file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rtformer::weights::{self, Checkpoint, Dataset, Store, Weights};
use rtformer::{Config, Device, ErrorKind, Hints, Segmenter, Variant, infer_config};

use super::info::short;
use super::{Outcome, console::Console, misuse};

/// Convert a checkpoint (.pdparams, .pth, .safetensors) to a weights file
///
/// The variant, the widths and the number of classes follow from the tensors' shapes. The cross size and the number of heads do not:
/// they come from the flags, else from INPUT if rtformer wrote it, else from PaddleSeg's configurations.
///
/// Example: rtformer convert model.pdparams --dataset cityscapes -o model.safetensors
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Checkpoint to convert; its format is detected from its content, not from its name
    #[arg(value_name = "INPUT")]
    input: PathBuf,

    /// Weights file to write
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: PathBuf,

    /// Data set, which defines the class names, colours and normalisation: cityscapes, ade20k, camvid, or a JSON file [default: from
    /// INPUT if rtformer wrote it, else required]
    #[arg(long, value_name = "NAME|FILE")]
    dataset: Option<String>,

    /// Fail if the checkpoint is not of this variant [default: accept any]
    #[arg(long, value_name = "slim|base")]
    variant: Option<Variant>,

    /// Side of the pooled map in the cross-resolution attention, in map positions [default: from INPUT if rtformer wrote it, else 8 for
    /// slim on ade20k, else 12]
    #[arg(long, value_name = "N")]
    cross_size: Option<usize>,

    /// Number of attention heads [default: from INPUT if rtformer wrote it, else 8]
    #[arg(long, value_name = "N")]
    num_heads: Option<usize>,

    /// Temperature, above 0: divides the logits before the softmax that gives the confidence [default: from INPUT if rtformer wrote it,
    /// else 1]
    #[arg(long, value_name = "NUMBER", value_parser = temperature)]
    temperature: Option<f32>,

    /// Pad width and height to a multiple of N pixels (1 to 256) before the network, or `none` to use photos as they are [default:
    /// from INPUT if rtformer wrote it, else none]
    #[arg(long, value_name = "N|none", value_parser = pad_multiple, allow_negative_numbers = true)]
    pad_multiple: Option<Pad>,

    /// Network to read from a checkpoint that holds several: the key of a dictionary, such as model_ema, or a prefix of the tensors'
    /// names, such as student [default: an averaged network (ema), else the only one that is not a teacher]
    #[arg(long, value_name = "KEY")]
    part: Option<String>,

    /// Type of the stored numbers: f32, f16, bf16, or int8 (3x3 convolutions as int8 with a scale for each output channel, the rest as
    /// f16)
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    store: Store,

    /// Replace the output file if it exists
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    let output = args.output.display();
    if args.output.is_dir() {
        return Err(misuse(format!("{output}: is a folder, expected the name of the file to write")));
    }
    if args.output.exists() && !args.overwrite {
        return Err(misuse(format!("{output}: exists already; use --overwrite to replace it")));
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

/// What the user specified about the checkpoint and the output.
struct Wanted<'a> {
    dataset: Option<Dataset>,
    hints: Hints,
    temperature: Option<f32>,
    pad_multiple: Option<Pad>,
    part: Option<&'a str>,
    store: Store,
}

/// The value of `--pad-multiple`; `Pad(None)` is the word `none`.
#[derive(Clone, Copy, Debug)]
struct Pad(Option<u32>);

fn pad_multiple(text: &str) -> Result<Pad, String> {
    if text == "none" {
        return Ok(Pad(None));
    }
    let multiple = text.parse().map_err(|_| "expected a whole number or `none`")?;
    weights::check_pad_multiple(multiple).map(|()| Pad(Some(multiple)))
}

fn temperature(text: &str) -> Result<f32, String> {
    let temperature = text.parse().map_err(|_| "expected a number")?;
    weights::check_temperature(temperature).map(|()| temperature)
}

/// The data set with this name, or the one in this file.
fn dataset(name: &str) -> anyhow::Result<Dataset> {
    match Dataset::named(name) {
        Some(dataset) => Ok(dataset),
        None if Path::new(name).exists() => Ok(Dataset::load(name)?),
        None => {
            let names: Vec<_> = Dataset::names().collect();
            Err(misuse(format!("invalid --dataset `{name}`: expected {} or an existing JSON file", names.join(", "))))
        }
    }
}

/// Reads `input`, checks every tensor, writes `output`, checks that it loads, and prints what was found.
///
/// # Errors
/// All errors name the input, except errors about the output.
fn convert(input: &Path, output: &Path, wanted: Wanted<'_>, console: &Console) -> anyhow::Result<()> {
    let Wanted { dataset, hints, temperature, pad_multiple, part, store } = wanted;
    let name = || input.display().to_string();
    let Source { mut checkpoint, config: own, dataset } = Source::open(input, part, dataset)?;
    checkpoint.temperature = temperature.or(checkpoint.temperature);
    checkpoint.pad_multiple = pad_multiple.map_or(checkpoint.pad_multiple, |Pad(multiple)| multiple);
    let found = checkpoint.found.to_string();
    if !found.is_empty() {
        let choose = if checkpoint.found.alternatives.is_empty() { "" } else { " (use --part to choose)" };
        console.note(&format!("{}: {found}{choose}", name()));
    }
    let Some(dataset) = dataset else {
        let names: Vec<_> = Dataset::names().collect();
        return Err(misuse(format!(
            "{}: does not contain its classes; use --dataset to name its data set: {} or a JSON file",
            name(),
            names.join(", ")
        )));
    };
    let known = Hints {
        cross_size: hints.cross_size.or(own.as_ref().map(|config| config.cross_size)),
        num_heads: hints.num_heads.or(own.as_ref().map(|config| config.num_heads)),
        ..hints
    };
    // The library knows the tensors but not their file, so the error gets its name here.
    let config = infer_config(&checkpoint, &dataset, known).with_context(name)?;
    let origin = |flag: Option<usize>, known: Option<usize>| match (flag, known) {
        (Some(_), _) => "given",
        (None, Some(_)) => "from the file",
        (None, None) => "PaddleSeg's default",
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
        Err(error) if error.kind() == ErrorKind::Device => return Err(error.into()), // unrelated to the file
        Err(error) => {
            // Every tensor was checked, so this is a bug in rtformer. Remove the file, which does not load.
            let _ = fs::remove_file(output);
            let context =
                format!("{}: the weights file that was written from it does not load; please report this", name());
            return Err(error).context(context);
        }
    }
    console.note(&format!("{}: written as {store} and loaded to check it", output.display()));
    Ok(())
}

/// A checkpoint, and the metadata of a file that rtformer wrote.
struct Source {
    checkpoint: Checkpoint,
    config: Option<Config>,
    dataset: Option<Dataset>,
}

impl Source {
    /// `dataset` replaces the file's own data set, which then may be invalid.
    fn open(path: &Path, part: Option<&str>, dataset: Option<Dataset>) -> rtformer::Result<Self> {
        let checkpoint = match part {
            Some(part) => Checkpoint::open_part(path, part)?,
            None => Checkpoint::open(path)?,
        };
        // The file is closed again here, so that it can be replaced.
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
