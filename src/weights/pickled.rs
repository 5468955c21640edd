//! Pickled checkpoints: PaddleSeg's `.pdparams`, and the pickle in PyTorch's `.pth`.
//!
//! Both are a dictionary of arrays, or contain such dictionaries in others. [`super::pickle`] reads the pickle without executing it;
//! [`numpy`] and [`torch`] interpret the arrays.

use std::collections::HashSet;

use super::names::Dictionary;
use super::pickle::{self, Pickle, Value};
use super::tensor::{Tensor, View};
use super::torch::Storages;
use super::{numpy, torch};

/// Maps the parameters to their names in the static graph. Not used.
const NAME_TABLE: &str = "StructuredToParameterName@@";
/// Describes how tensors of more than a gigabyte were split.
const CUT_TABLE: &str = "UnpackBigParamInfor@@";
/// The most levels of nested dictionaries. Training scripts use one or two.
const LEVELS: usize = 5;
/// All tensors together may be this many times as large as the file, because they may share bytes (tied weights).
const SHARING: usize = 4;
/// All tensors may take this many bytes in any case, for small files.
const SMALL: usize = 1 << 20;

/// An open pickle of tensors.
pub(super) struct Pickled<'a> {
    pickle: Pickle<'a>,
    root: Value<'a>,
    storages: Storages<'a>,
    /// The number of bytes that may still be read.
    left: usize,
}

impl<'a> Pickled<'a> {
    /// Reads a pickle. `storages` has the bytes of PyTorch's tensors; `file` is the file's length in bytes.
    ///
    /// # Errors
    /// A description of the problem, as a phrase that follows the file's name.
    pub(super) fn open(program: &'a [u8], storages: Storages<'a>, file: usize) -> Result<Self, String> {
        let (pickle, root) = pickle::read(program)?;
        if pickle.dict(root).is_none() {
            return Err("is a pickle, but not of a dictionary of tensors; save `model.state_dict()`".into());
        }
        let left = file.saturating_mul(SHARING).saturating_add(SMALL);
        Ok(Self { pickle, root, storages, left })
    }

    /// Every dictionary once, the root first.
    ///
    /// # Errors
    /// As for [`Pickled::open`].
    pub(super) fn dictionaries(&self) -> Result<Vec<Dictionary<Value<'a>>>, String> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let mut level = vec![(String::new(), self.root)];
        for _ in 0..LEVELS {
            let mut next = Vec::new();
            for (path, value) in level {
                if !seen.insert(value.node()) {
                    continue;
                }
                let mut dictionary = Dictionary::new(path);
                for (key, value) in self.pickle.dict(value).into_iter().flatten() {
                    match key {
                        Value::Text(NAME_TABLE) => {}
                        Value::Text(CUT_TABLE) => {
                            return Err("holds tensors of more than 1 GB in pieces, which no RTFormer has; \
                                        is it another model's?"
                                .into());
                        }
                        Value::Text(name) if self.is_tensor(value) => dictionary.tensors.push((name.to_owned(), value)),
                        Value::Text(name) => {
                            if self.pickle.dict(value).is_some() {
                                next.push((dictionary.nested(name), value));
                            }
                            dictionary.others.push(name.to_owned());
                        }
                        _ => {}
                    }
                }
                found.push(dictionary);
            }
            level = next;
        }
        Ok(found)
    }

    fn is_tensor(&self, value: Value<'a>) -> bool {
        numpy::is_array(&self.pickle, value) || torch::is_tensor(&self.pickle, value)
    }

    /// Reads a value of a dictionary as a tensor.
    ///
    /// # Errors
    /// A description of the problem, as a phrase that follows the tensor's name.
    pub(super) fn tensor(&mut self, value: Value<'a>) -> Result<Tensor, String> {
        let left = &mut self.left;
        let spend = |view: &View| {
            let bytes = view.count().and_then(|count| count.checked_mul(view.number.bytes()));
            let bytes = bytes.filter(|bytes| *bytes <= *left);
            let bytes =
                bytes.ok_or_else(|| format!("has shape {:?}, which needs more bytes than the file has", view.shape))?;
            *left -= bytes;
            Ok(bytes)
        };
        if torch::is_tensor(&self.pickle, value) {
            torch::read(&self.pickle, value, &self.storages, spend)
        } else {
            numpy::read(&self.pickle, value, spend)
        }
    }
}
