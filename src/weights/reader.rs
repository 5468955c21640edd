//! Taking tensors, each in the shape that the model says, until none is left.

use std::collections::BTreeSet;

use super::store::Weights;
use crate::error::{Error, Result};

/// The auxiliary head, used in training only: kept in files, never run.
const AUXILIARY: &str = "seghead_extra.";

/// Takes a file's tensors one by one. Made by [`Weights::reader`].
///
/// ```
/// use rtformer::weights::Weights;
///
/// let weights = Weights::open("tests/data/golden/tiny.safetensors")?;
/// let mut reader = weights.reader("RTFormer (base channels 4)");
/// assert_eq!(reader.take("conv1.0.bias", &[4])?.len(), 4);
/// assert!(reader.take("conv1.0.weight", &[8, 3, 3, 3]).is_err(), "it is [4, 3, 3, 3]");
/// assert_eq!(reader.weights().path(), weights.path());
/// assert!(reader.finish().is_err(), "most tensors are left");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Debug)]
pub struct Reader<'a> {
    weights: &'a Weights,
    model: String,
    taken: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(weights: &'a Weights, model: String) -> Self {
        Self { weights, model, taken: BTreeSet::new() }
    }

    /// The file that is read.
    pub fn weights(&self) -> &'a Weights {
        self.weights
    }

    /// The tensor `name` as f32, in C order; `want` is the shape it must have.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`]; [`Error::Weights`] for NaN, infinity, or a type that is no float.
    pub fn take(&mut self, name: &str, want: &[usize]) -> Result<Vec<f32>> {
        let Some(got) = self.weights.shape(name) else {
            return Err(Error::MissingTensor {
                path: self.weights.path().to_path_buf(),
                name: name.to_owned(),
                want: want.to_vec(),
                model: self.model.clone(),
            });
        };
        if got != want {
            return Err(Error::Shape {
                path: self.weights.path().to_path_buf(),
                name: name.to_owned(),
                got,
                want: want.to_vec(),
                model: self.model.clone(),
            });
        }
        let numbers = self.weights.floats(name)?;
        self.taken.insert(name.to_owned());
        Ok(numbers.unwrap_or_default())
    }

    /// Ends the reading: every tensor must have been taken, but for the auxiliary head `seghead_extra.*`.
    ///
    /// # Errors
    /// [`Error::LeftoverTensors`], naming the first.
    pub fn finish(self) -> Result<()> {
        let mut left = self.weights.names().filter(|name| !name.starts_with(AUXILIARY) && !self.taken.contains(*name));
        match left.next() {
            None => Ok(()),
            Some(first) => Err(Error::LeftoverTensors {
                path: self.weights.path().to_path_buf(),
                first: first.escape_debug().to_string(),
                count: 1 + left.count(),
                model: self.model,
            }),
        }
    }
}
