//! Reads a checkpoint of any format into memory.

use std::collections::BTreeMap;
use std::path::Path;

use super::metadata::{EXPLAINER as EXPLAINER_KEY, KEYS, PAD_MULTIPLE, TEMPERATURE};
use super::names::{self, Dictionary, Found};
use super::pickled::Pickled;
use super::sniff::Looks;
use super::store::{EXPLAINER, Weights, map};
use super::tensor::{Tensor, check_numbers};
use super::torch::{self, Storages};
use crate::error::{Error, Result};

/// The tensors of a checkpoint, with PaddleSeg's names.
///
/// ```no_run
/// # fn main() -> rtformer::Result<()> {
/// let checkpoint = rtformer::weights::Checkpoint::open("model.pdparams")?;
/// for (name, tensor) in &checkpoint.tensors {
///     println!("{name} {:?}", tensor.shape);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// The tensors, sorted by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// The divisor of the logits before the softmax that gives the confidence. Only files of this project can have it.
    pub temperature: Option<f32>,
    /// Width and height are padded to a multiple of this many pixels. Only files of this project can have it.
    pub pad_multiple: Option<u32>,
    /// The other metadata of a `.safetensors` file. [`save`](super::save) keeps them.
    pub metadata: BTreeMap<String, String>,
    /// Where the tensors were in the file.
    pub found: Found,
}

impl Checkpoint {
    /// Reads a `.pdparams`, `.pth` or `.safetensors` file. The format is detected from the content, not from the name.
    ///
    /// The network may be in a nested dictionary (`state_dict`), and its names may have a prefix (`module.`). Both are found by the
    /// tensors that every RTFormer has, and reported in [`Checkpoint::found`]. If a file contains several networks, an averaged one
    /// (`ema`) is preferred to the latest, and both to a teacher. [`Checkpoint::open_part`] reads another.
    ///
    /// PyTorch's `running_mean` and `running_var` become PaddleSeg's `_mean` and `_variance`, and `num_batches_tracked` is
    /// left out. f16, bf16, f64 and whole numbers become f32. Nothing in the file is executed.
    ///
    /// ```
    /// # use rtformer::weights::Checkpoint;
    /// let paddles = Checkpoint::open("tests/data/golden/thirds.pdparams")?;
    /// assert_eq!(paddles, Checkpoint::open("tests/data/golden/thirds.safetensors")?);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Weights`] for a file that has another format, is truncated or damaged, contains no tensors, contains
    /// objects that do not belong in a checkpoint, contains a number that is not finite, or whose metadata name another model.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::read(path.as_ref(), None)
    }

    /// Reads one of several networks in a file. `part` is a dictionary's key, a prefix, or both, as in [`Found::alternatives`].
    ///
    /// ```
    /// # use rtformer::weights::Checkpoint;
    /// let path = "tests/data/golden/torch.training.pth";
    /// assert_eq!(Checkpoint::open(path)?.found.dictionary, "model_ema");
    /// assert_eq!(Checkpoint::open_part(path, "model")?.found.dictionary, "model");
    /// assert!(Checkpoint::open_part(path, "teacher").is_err());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Checkpoint::open`], and [`Error::Weights`] if there is no such part.
    pub fn open_part(path: impl AsRef<Path>, part: &str) -> Result<Self> {
        Self::read(path.as_ref(), Some(part))
    }

    fn read(path: &Path, part: Option<&str>) -> Result<Self> {
        let bytes = map(path)?;
        let broken = |reason| Error::weights(path, reason);
        let (program, storages) = match Looks::of(&bytes) {
            Looks::Pickle => (&*bytes, Storages::new()),
            Looks::Zip => torch::open(&bytes).map_err(broken)?,
            Looks::Safetensors => {
                drop(bytes);
                return Self::select(&Weights::open(path)?, part);
            }
            Looks::Empty => return Err(broken("is empty; download it again".into())),
            looks => return Err(broken(format!("is {looks}; expected a .pdparams, .pth or .safetensors file"))),
        };
        let (tensors, found) = pickled(program, storages, bytes.len(), part).map_err(broken)?;
        Self { tensors, found, ..Self::default() }.checked(path)
    }

    /// Reads every tensor of an open weights file, as [`Checkpoint::open`] does.
    ///
    /// ```
    /// # use rtformer::weights::{Checkpoint, Weights};
    /// let weights = Weights::open("tests/data/golden/tiny.safetensors")?;
    /// assert_eq!(Checkpoint::of(&weights)?.tensors["conv1.0.weight"].shape, [4, 3, 3, 3]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`], as for [`Checkpoint::open`].
    pub fn of(weights: &Weights) -> Result<Self> {
        Self::select(weights, None)
    }

    fn select(weights: &Weights, part: Option<&str>) -> Result<Self> {
        weights.check_model()?;
        let mut dictionary = Dictionary::new(String::new());
        // An explainer belongs to the tensors as they are stored, so a converted file has none.
        let network = weights.names().filter(|name| !name.starts_with(EXPLAINER));
        dictionary.tensors = network.map(|name| (name.to_owned(), name)).collect();
        // `safetensors.torch.save_model` writes an array with two names once. The metadata map the second name to the first.
        let is_tied =
            |(name, kept): &(&String, &String)| weights.shape(name).is_none() && weights.shape(kept).is_some();
        let tied = weights.all_metadata().iter().filter(is_tied);
        dictionary.tensors.extend(tied.map(|(name, kept)| (name.clone(), kept.as_str())));
        let (mut found, names) =
            names::find(&[dictionary], part).map_err(|reason| Error::weights(weights.path(), reason))?;
        if weights.metadata(EXPLAINER_KEY).is_some() {
            found.left_out.push(EXPLAINER_KEY.to_owned());
        }
        let mut tensors = BTreeMap::new();
        for (name, stored) in names {
            if let (Some(shape), Some(data)) = (weights.shape(stored), weights.floats(stored)?) {
                tensors.insert(name, Tensor { shape, data });
            }
        }
        let own = |key: &String| {
            KEYS.contains(&key.as_str()) || [TEMPERATURE, PAD_MULTIPLE, EXPLAINER_KEY].contains(&key.as_str())
        };
        let others = weights.all_metadata().iter().filter(|entry| !own(entry.0) && !is_tied(entry));
        let metadata = others.map(|(key, value)| (key.clone(), value.clone())).collect();
        let (temperature, pad_multiple) = (weights.named_temperature()?, weights.pad_multiple()?);
        Self { tensors, temperature, pad_multiple, metadata, found }.checked(weights.path())
    }

    fn checked(self, path: &Path) -> Result<Self> {
        for (name, tensor) in &self.tensors {
            check_numbers(&tensor.data, name).map_err(|reason| Error::weights(path, reason))?;
        }
        Ok(self)
    }
}

/// The tensors of a pickle.
///
/// # Errors
/// A description of the problem, as a phrase that follows the file's name.
pub(super) fn pickled(
    program: &[u8],
    storages: Storages<'_>,
    file: usize,
    part: Option<&str>,
) -> Result<(BTreeMap<String, Tensor>, Found), String> {
    let mut pickled = Pickled::open(program, storages, file)?;
    let (found, values) = names::find(&pickled.dictionaries()?, part)?;
    let mut tensors = BTreeMap::new();
    for (name, value) in values {
        let tensor = pickled.tensor(value).map_err(|reason| format!("`{}` {reason}", name.escape_debug()))?;
        tensors.insert(name, tensor);
    }
    Ok((tensors, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
    }

    /// PaddlePaddle wrote the files, with `tests/data/reference.py`.
    #[test]
    fn every_dialect_of_paddle_gives_the_same_tensors() {
        let want = Checkpoint::open(golden("pickle.safetensors")).unwrap();
        let dialects = ["p2", "p3", "p4", "p5", "p2.numpy1", "p4.numpy1", "p4.fortran"];
        for dialect in dialects {
            let got = Checkpoint::open(golden(&format!("pickle.{dialect}.pdparams"))).unwrap();
            assert_eq!(got.tensors.keys().collect::<Vec<_>>(), want.tensors.keys().collect::<Vec<_>>(), "{dialect}");
            for (name, tensor) in &want.tensors {
                assert_eq!(got.tensors[name].data, tensor.data, "{dialect}: {name}");
                // safetensors' numpy writer turns a scalar into a vector of length 1.
                if name != "scalar" {
                    assert_eq!(got.tensors[name].shape, tensor.shape, "{dialect}: {name}");
                }
            }
        }
    }

    #[test]
    fn a_pdparams_file_equals_its_safetensors_file() {
        assert_eq!(
            Checkpoint::open(golden("thirds.pdparams")).unwrap(),
            Checkpoint::open(golden("thirds.safetensors")).unwrap()
        );
    }

    #[test]
    fn other_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let cases: [(&[u8], &str); 5] = [
            (b"", "is empty"),
            (b"\x89PNG\r\n\x1a\n", "is a PNG image; expected a .pdparams"),
            (b"<!DOCTYPE html><title>404</title>", "error page, not the file; download it again"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"\x08\0\0\0\0\0\0\0{}      ", "holds no tensors"),
        ];
        for (bytes, want) in cases {
            let path = folder.path().join("model.pdparams");
            std::fs::write(&path, bytes).unwrap();
            let text = Checkpoint::open(&path).unwrap_err().to_string();
            assert!(text.contains(want) && text.contains("model.pdparams"), "{text}");
        }
        let text = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(text.contains("it is a folder"), "{text}");
    }
}
