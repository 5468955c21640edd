//! Another program's weights, read whole.

use std::collections::BTreeMap;
use std::path::Path;

use super::sniff::Looks;
use super::store::{Weights, check_numbers, map};
use super::{paddle, torch};
use crate::error::{Error, Result};

/// A tensor in C order.
///
/// ```
/// use rtformer::weights::Tensor;
///
/// let kernel = Tensor { shape: vec![2, 1, 1, 1], data: vec![0.5, -0.5] };
/// assert_eq!(kernel.shape.iter().product::<usize>(), kernel.data.len());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its sizes; empty for a single number.
    pub shape: Vec<usize>,
    /// As many numbers as the sizes multiply to.
    pub data: Vec<f32>,
}

/// The tensors of a checkpoint under PaddleSeg's names, one to one.
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
    /// Sorted by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// What divides the logits ahead of a softmax, so that it is right as often as it says; only our own files can say it.
    pub temperature: Option<f32>,
}

impl Checkpoint {
    /// Reads a `.pdparams`, a `.pth` or a `.safetensors`: the content decides, not the name.
    ///
    /// PyTorch's `running_mean` and `running_var` become PaddleSeg's `_mean` and `_variance`, and `num_batches_tracked` is
    /// left out. f16, bf16 and f64 become f32. Nothing in the file is executed.
    ///
    /// ```
    /// # use rtformer::weights::Checkpoint;
    /// let paddles = Checkpoint::open("tests/data/golden/thirds.pdparams")?;
    /// assert_eq!(paddles, Checkpoint::open("tests/data/golden/thirds.safetensors")?);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Weights`] for what is none of these, is truncated or damaged, holds no tensors, holds
    /// what a checkpoint does not, or a number that is not finite.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = map(path)?;
        let tensors = match Looks::of(&bytes) {
            Looks::Pickle => paddle::read(&bytes),
            Looks::Zip => torch::read(path, &bytes),
            Looks::Safetensors => {
                drop(bytes);
                return Self::of(&Weights::open(path)?);
            }
            Looks::Empty => Err("is empty; download it again".into()),
            looks => Err(format!("is {looks}; a checkpoint is a .pdparams, .pth or .safetensors file")),
        };
        let tensors = tensors.map_err(|reason| Error::weights(path, reason))?;
        Self { tensors, temperature: None }.checked(path)
    }

    /// Every tensor of an open weights file.
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
        let mut tensors = BTreeMap::new();
        for name in weights.names() {
            if let (Some(shape), Some(data)) = (weights.shape(name), weights.floats(name)?) {
                tensors.insert(name.to_owned(), Tensor { shape, data });
            }
        }
        Self { tensors, temperature: weights.named_temperature()? }.checked(weights.path())
    }

    fn checked(self, path: &Path) -> Result<Self> {
        if self.tensors.is_empty() {
            return Err(Error::weights(path, "holds no tensors"));
        }
        for (name, tensor) in &self.tensors {
            check_numbers(&tensor.data, name).map_err(|reason| Error::weights(path, reason))?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
    }

    /// Written by PaddlePaddle itself, `tests/data/reference.py`.
    #[test]
    fn every_dialect_of_paddle_gives_the_same_tensors() {
        let want = Checkpoint::open(golden("pickle.safetensors")).unwrap();
        let dialects = ["p2", "p3", "p4", "p5", "p2.numpy1", "p4.numpy1", "p4.fortran"];
        for dialect in dialects {
            let got = Checkpoint::open(golden(&format!("pickle.{dialect}.pdparams"))).unwrap();
            assert_eq!(got.tensors.keys().collect::<Vec<_>>(), want.tensors.keys().collect::<Vec<_>>(), "{dialect}");
            for (name, tensor) in &want.tensors {
                assert_eq!(got.tensors[name].data, tensor.data, "{dialect}: {name}");
                // safetensors' numpy writer makes a vector of one of a scalar.
                if name != "scalar" {
                    assert_eq!(got.tensors[name].shape, tensor.shape, "{dialect}: {name}");
                }
            }
        }
    }

    #[test]
    fn a_models_pdparams_is_its_safetensors() {
        assert_eq!(
            Checkpoint::open(golden("thirds.pdparams")).unwrap(),
            Checkpoint::open(golden("thirds.safetensors")).unwrap()
        );
    }

    #[test]
    fn what_is_no_checkpoint_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let cases: [(&[u8], &str); 5] = [
            (b"", "is empty"),
            (b"\x89PNG\r\n\x1a\n", "is a PNG image; a checkpoint is"),
            (b"<!DOCTYPE html><title>404</title>", "a web page"),
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
