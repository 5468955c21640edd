//! Finds the configuration of a foreign checkpoint, and fetches PaddleSeg's own.

#[cfg(feature = "download")]
mod pull;

#[cfg(feature = "download")]
pub use pull::{Pull, Pulling, pull};

use crate::backend::Reference;
use crate::error::{Error, Result};
use crate::model::{Config, RtFormer, Variant};
use crate::weights::{Checkpoint, Dataset};

/// What the caller knows about a checkpoint in addition to its tensors. Every field is optional.
///
/// ```
/// use rtformer::{Hints, Variant};
///
/// let hints = Hints { variant: Some(Variant::Slim), cross_size: Some(8), ..Hints::default() };
/// assert_eq!(hints.num_heads, None, "the default is that of PaddleSeg's configurations");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints {
    /// The expected variant. A checkpoint of another variant is an error.
    pub variant: Option<Variant>,
    /// [`Config::cross_size`], which no tensor's shape contains. PaddleSeg's configurations have 12, and 8 for Slim on ADE20K.
    pub cross_size: Option<usize>,
    /// [`Config::num_heads`], which no tensor's shape contains. PaddleSeg's configurations have 8.
    pub num_heads: Option<usize>,
}

/// Infers the configuration from a checkpoint's tensors, and checks it against each of them.
///
/// Widths, depth and classes come from the shapes, injections from the presence of their tensors, and the rest from `hints`, or else
/// from PaddleSeg's configurations.
///
/// ```
/// use rtformer::weights::{Checkpoint, Weights};
/// use rtformer::{Config, Hints, infer_config};
///
/// let weights = Weights::open("tests/data/golden/tiny.safetensors")?;
/// let hints = Hints { cross_size: Some(3), num_heads: Some(4), ..Hints::default() };
/// let config = infer_config(&Checkpoint::of(&weights)?, &weights.dataset()?, hints)?;
/// assert_eq!(config, Config::of(&weights)?);
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] if the tensors are not those of an RTFormer, if they contradict a hint, or if the data set has a different
/// number of classes; [`Error::Shape`], [`Error::MissingTensor`] and [`Error::LeftoverTensors`] for a tensor that does not fit.
pub fn infer_config(checkpoint: &Checkpoint, dataset: &Dataset, hints: Hints) -> Result<Config> {
    let width = |name: &str| {
        let tensor = checkpoint.tensors.get(name);
        tensor.and_then(|tensor| tensor.shape.first().copied()).ok_or_else(|| {
            let first = checkpoint
                .tensors
                .keys()
                .next()
                .map_or(String::new(), |first| format!("; its first tensor is `{}`", first.escape_debug()));
            Error::Config(format!(
                "the checkpoint has no `{name}`, which every RTFormer has{first}; is it another model's?"
            ))
        })
    };
    let has = |prefix: &str| checkpoint.tensors.keys().any(|name| name.starts_with(prefix));
    let depth = |layer: &str| (0..64).take_while(|i| has(&format!("{layer}.{i}."))).count();
    let mut config = Config {
        base_channels: width("conv1.0.weight")?,
        layer_nums: vec![depth("layer1"), depth("layer2"), depth("layer3"), 2],
        spp_channels: width("spp.scale0.2.weight")?,
        num_heads: hints.num_heads.unwrap_or(8),
        head_channels: width("seghead.conv1.weight")? / 2,
        cross_size: 12,
        use_injection: [has("layer4.down."), has("layer5.down.")],
        num_classes: width("seghead.conv2.weight")?,
    };
    let inferred = config.variant();
    if let Some(variant) = hints.variant.filter(|variant| inferred != Some(*variant)) {
        return Err(Error::Config(format!(
            "the checkpoint is {}, not the requested variant `{variant}`",
            config.name()
        )));
    }
    config.cross_size =
        hints.cross_size.unwrap_or(if inferred == Some(Variant::Slim) && dataset.name == "ade20k" { 8 } else { 12 });
    if dataset.classes.len() != config.num_classes {
        let (dataset, names, outputs) = (&dataset.name, dataset.classes.len(), config.num_classes);
        return Err(Error::Config(format!(
            "the checkpoint has {outputs} classes, but the data set `{dataset}` has {names}; select the data set that it was trained on"
        )));
    }
    config.check()?;
    check_tensors(checkpoint, &config)?;
    Ok(config)
}

/// Builds the network from the checkpoint once. This checks the name and shape of every tensor, and that no tensor is left.
fn check_tensors(checkpoint: &Checkpoint, config: &Config) -> Result<()> {
    let mut reader = checkpoint.reader(config.name());
    RtFormer::load(&Reference::unfolded(), config, &mut reader)?;
    reader.finish()
}
