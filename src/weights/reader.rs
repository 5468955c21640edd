//! Takes tensors by name, checks their shapes, and checks that none is left.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use super::checkpoint::Checkpoint;
use super::store::{EXPLAINER, Weights};
use crate::error::{Error, Result};

/// The auxiliary head, which is used in training only. Files keep it; the network does not use it.
const AUXILIARY: &str = "seghead_extra.";

/// Used in errors in place of a checkpoint's path, which only the caller knows.
const CHECKPOINT: &str = "the checkpoint";

/// The file or checkpoint from which tensors are taken.
trait Source: fmt::Debug {
    fn path(&self) -> &Path;
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_>;
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    fn floats(&self, name: &str) -> Result<Option<Vec<f32>>>;
}

impl Source for Weights {
    fn path(&self) -> &Path {
        self.path()
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.names())
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.shape(name)
    }

    fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        self.floats(name)
    }
}

impl Source for Checkpoint {
    fn path(&self) -> &Path {
        Path::new(CHECKPOINT)
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.tensors.keys().map(String::as_str))
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|tensor| tensor.shape.clone())
    }

    fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        Ok(self.tensors.get(name).map(|tensor| tensor.data.clone()))
    }
}

impl Weights {
    /// A reader that takes tensors for `model`, a description such as `RTFormer-Slim with 19 classes`.
    ///
    /// ```
    /// # use rtformer::weights::Weights;
    /// let weights = Weights::open("tests/data/golden/tiny.safetensors")?;
    /// let refused = weights.reader("RTFormer-Slim").take("conv1.0.bias", &[32]).unwrap_err();
    /// assert!(refused.to_string().contains("is [4], RTFormer-Slim needs [32]"));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn reader(&self, model: impl Into<String>) -> Reader<'_> {
        Reader { source: self, model: model.into(), taken: BTreeSet::new() }
    }
}

impl Checkpoint {
    /// A reader that takes tensors for `model`, a description such as `RTFormer-Slim with 19 classes`. Errors call the file
    /// "the checkpoint".
    ///
    /// ```
    /// # use rtformer::weights::Checkpoint;
    /// let checkpoint = Checkpoint::open("tests/data/golden/tiny.safetensors")?;
    /// assert_eq!(checkpoint.reader("RTFormer").take("conv1.0.bias", &[4])?, checkpoint.tensors["conv1.0.bias"].data);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn reader(&self, model: impl Into<String>) -> Reader<'_> {
        Reader { source: self, model: model.into(), taken: BTreeSet::new() }
    }
}

/// Takes a file's tensors one by one. Created by [`Weights::reader`] and [`Checkpoint::reader`].
///
/// ```
/// use rtformer::weights::Weights;
///
/// let weights = Weights::open("tests/data/golden/tiny.safetensors")?;
/// let mut reader = weights.reader("RTFormer (base channels 4)");
/// assert_eq!(reader.take("conv1.0.bias", &[4])?.len(), 4);
/// assert!(reader.take("conv1.0.weight", &[8, 3, 3, 3]).is_err(), "it is [4, 3, 3, 3]");
/// assert!(reader.finish().is_err(), "most tensors are left");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Debug)]
pub struct Reader<'a> {
    source: &'a dyn Source,
    model: String,
    taken: BTreeSet<String>,
}

impl Reader<'_> {
    /// The tensor `name` as f32, in C order. Its shape must be `want`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`]; [`Error::Weights`] for NaN, infinity, or an unsupported type.
    pub fn take(&mut self, name: &str, want: &[usize]) -> Result<Vec<f32>> {
        let Some(got) = self.source.shape(name) else {
            return Err(Error::MissingTensor {
                path: self.source.path().to_path_buf(),
                name: name.to_owned(),
                want: want.to_vec(),
                model: self.model.clone(),
            });
        };
        if got != want {
            return Err(Error::Shape {
                path: self.source.path().to_path_buf(),
                name: name.to_owned(),
                got,
                want: want.to_vec(),
                model: self.model.clone(),
            });
        }
        let numbers = self.source.floats(name)?;
        self.taken.insert(name.to_owned());
        Ok(numbers.unwrap_or_default())
    }

    /// Checks that every tensor was taken, except those of the auxiliary head, `seghead_extra.*`, and of the explainer, `explainer.*`.
    ///
    /// # Errors
    /// [`Error::LeftoverTensors`], which names the first tensor that is left.
    pub fn finish(self) -> Result<()> {
        let other = |name: &str| name.starts_with(AUXILIARY) || name.starts_with(EXPLAINER);
        let mut left = self.source.names().filter(|name| !other(name) && !self.taken.contains(*name));
        match left.next() {
            None => Ok(()),
            Some(first) => Err(Error::LeftoverTensors {
                path: self.source.path().to_path_buf(),
                first: first.escape_debug().to_string(),
                count: 1 + left.count(),
                model: self.model,
            }),
        }
    }
}
