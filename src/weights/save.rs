//! Writing our own weights files.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Serialize;

use super::checkpoint::{Checkpoint, Tensor};
use super::dataset::Dataset;
use super::store::{FORMAT, check_numbers};
use crate::error::{Error, Result};
use crate::files;

/// The type in which convolution kernels are stored.
///
/// What has fewer than two dimensions stays f32 whatever is chosen: norm statistics and biases are under one per cent of
/// the file, and a variance may lie below f16's smallest normal number (6e-5) or above its largest (65504).
///
/// ```
/// use rtformer::weights::Store;
///
/// assert_eq!("bf16".parse::<Store>()?, Store::Bf16);
/// assert_eq!(Store::default().to_string(), "f32");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Store {
    /// Exactly the checkpoint's numbers.
    #[default]
    F32,
    /// Half the size, 11 bits of precision, numbers up to 65504.
    F16,
    /// Half the size, 8 bits of precision, f32's range.
    Bf16,
}

impl FromStr for Store {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            _ => Err(Error::Input(format!("`{text}` is no storage type; there are f32, f16 and bf16"))),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl Store {
    fn dtype(self, tensor: &Tensor) -> (Dtype, usize) {
        match self {
            Self::F16 if tensor.shape.len() > 1 => (Dtype::F16, 2),
            Self::Bf16 if tensor.shape.len() > 1 => (Dtype::BF16, 2),
            _ => (Dtype::F32, 4),
        }
    }
}

/// Writes `checkpoint` as a `.safetensors` file that [`Weights::open`](super::Weights::open) reads, whole or not at all.
///
/// `config_json` is the model's configuration. The same input always gives the same bytes.
///
/// ```
/// use rtformer::Config;
/// use rtformer::weights::{Checkpoint, Store, Weights, save};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let (weights, path) = (Weights::open("tests/data/golden/tiny.safetensors")?, folder.path().join("tiny.f16.safetensors"));
/// let (checkpoint, config) = (Checkpoint::of(&weights)?, Config::of(&weights)?);
/// save(&path, &checkpoint, &weights.dataset()?, &config.to_json(), Store::F16)?;
/// assert!(Weights::open(&path)?.bytes() < weights.bytes());
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Write`]; [`Error::Weights`] for a data set that fails [`Dataset::check`], a tensor whose data do not fit its
/// shape, and a number that `store` cannot hold.
pub fn save(path: &Path, checkpoint: &Checkpoint, dataset: &Dataset, config_json: &str, store: Store) -> Result<()> {
    dataset.check().map_err(|reason| Error::weights(path, reason))?;
    for (name, tensor) in &checkpoint.tensors {
        check(name, tensor, store).map_err(|reason| Error::weights(path, reason))?;
    }
    // f32 first, so that every tensor is aligned to its own type.
    let mut order: Vec<_> =
        checkpoint.tensors.iter().map(|(name, tensor)| (name, tensor, store.dtype(tensor))).collect();
    order.sort_by_key(|&(name, _, (_, bytes))| (std::cmp::Reverse(bytes), name));
    let mut end = 0;
    let mut header = Header { metadata: metadata(dataset, config_json), tensors: BTreeMap::new() };
    for &(name, tensor, (dtype, bytes)) in &order {
        let start = end;
        end += tensor.data.len() * bytes;
        header.tensors.insert(name, TensorInfo { dtype, shape: tensor.shape.clone(), data_offsets: (start, end) });
    }
    let mut header = json(&header).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    files::write_whole(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (_, tensor, (dtype, _)) in &order {
            for &number in &tensor.data {
                match dtype {
                    Dtype::F16 => file.write_all(&f16::from_f32(number).to_le_bytes())?,
                    Dtype::BF16 => file.write_all(&bf16::from_f32(number).to_le_bytes())?,
                    _ => file.write_all(&number.to_le_bytes())?,
                }
            }
        }
        Ok(())
    })
}

/// The crate's own writer keeps metadata in a hash map, so that no two runs give the same file.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    tensors: BTreeMap<&'a str, TensorInfo>,
}

fn metadata(dataset: &Dataset, config_json: &str) -> BTreeMap<&'static str, String> {
    let classes = &dataset.classes;
    let mut metadata = BTreeMap::from([
        ("format", FORMAT.to_owned()),
        ("config", config_json.to_owned()),
        ("classes", json(&classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>())),
        ("palette", json(&classes.iter().map(|class| class.color).collect::<Vec<_>>())),
        ("mean", json(&dataset.mean)),
        ("std", json(&dataset.std)),
        ("dataset", dataset.name.clone()),
        ("source", dataset.source.clone()),
        ("license", dataset.license.clone()),
    ]);
    if classes.iter().any(|class| class.label_id.is_some()) {
        metadata.insert("label_ids", json(&classes.iter().map(|class| class.label_id).collect::<Vec<_>>()));
    }
    metadata
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("text and numbers always serialise")
}

fn check(name: &str, tensor: &Tensor, store: Store) -> Result<(), String> {
    if name == "__metadata__" {
        return Err("a tensor cannot be named `__metadata__`".into());
    }
    let (got, shape) = (tensor.data.len(), &tensor.shape);
    if shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size)) != Some(got) {
        return Err(format!("tensor `{name}` is {shape:?}, but holds {got} numbers"));
    }
    check_numbers(&tensor.data, name)?;
    let fits = |number: &f32| match store.dtype(tensor).0 {
        Dtype::F16 => f16::from_f32(*number).is_finite(),
        Dtype::BF16 => bf16::from_f32(*number).is_finite(),
        _ => true,
    };
    match tensor.data.iter().find(|number| !fits(number)) {
        None => Ok(()),
        Some(number) => Err(format!("tensor `{name}` holds {number}, too large for {store}; store it as bf16 or f32")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::Weights;
    use super::*;

    fn checkpoint() -> Checkpoint {
        let tensor = |shape: &[usize], data: &[f32]| Tensor { shape: shape.to_vec(), data: data.to_vec() };
        let tensors = [
            ("a.weight", tensor(&[2, 1, 1, 1], &[0.1, -65504.0])),
            ("b.variance", tensor(&[3], &[1e-9, 1e9, 0.1])),
            ("c.scalar", tensor(&[], &[7.0])),
        ];
        Checkpoint { tensors: tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into() }
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/model.safetensors");
        for (name, store, weight) in [
            ("cityscapes", Store::F32, 0.1),
            ("ade20k", Store::F16, 0.099_975_586),
            ("camvid", Store::Bf16, 0.100_097_656),
        ] {
            let dataset = Dataset::named(name).unwrap();
            save(&path, &checkpoint(), &dataset, r#"{"base_channels":32}"#, store).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            save(&path, &checkpoint(), &dataset, r#"{"base_channels":32}"#, store).unwrap();
            assert_eq!(bytes, std::fs::read(&path).unwrap(), "the same input gives the same bytes");

            let weights = Weights::open(&path).unwrap();
            assert_eq!(weights.dataset().unwrap(), dataset);
            assert_eq!(weights.metadata("config"), Some(r#"{"base_channels":32}"#));
            assert_eq!((weights.bytes(), weights.parameters()), (bytes.len(), 6));
            assert_eq!(weights.names().collect::<Vec<_>>(), ["a.weight", "b.variance", "c.scalar"]);
            let mut reader = weights.reader("a test");
            assert_eq!(reader.take("a.weight", &[2, 1, 1, 1]).unwrap()[0], weight, "{store}");
            assert_eq!(reader.take("b.variance", &[3]).unwrap(), [1e-9, 1e9, 0.1], "statistics stay f32");
            assert_eq!(reader.take("c.scalar", &[]).unwrap(), [7.0]);
            reader.finish().unwrap();
        }
    }

    #[test]
    fn what_cannot_be_stored_is_refused_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let dataset = Dataset::named("camvid").unwrap();
        let cases = [
            ("a.weight", Tensor { shape: vec![1, 1], data: vec![65520.0] }, "too large for f16"),
            ("a.weight", Tensor { shape: vec![1, 1], data: vec![f32::NAN] }, "holds NaN at index 0"),
            ("a.weight", Tensor { shape: vec![2, 2], data: vec![0.0; 3] }, "[2, 2], but holds 3"),
            ("a.weight", Tensor { shape: vec![usize::MAX, 2], data: vec![0.0; 3] }, "but holds 3"),
            ("__metadata__", Tensor { shape: vec![1], data: vec![0.0] }, "cannot be named"),
        ];
        for (name, tensor, want) in cases {
            let mut broken = checkpoint();
            broken.tensors.insert(name.into(), tensor);
            let text = save(&path, &broken, &dataset, "{}", Store::F16).unwrap_err().to_string();
            assert!(text.contains(want), "{text}");
        }
        let none = Dataset { classes: Vec::new(), ..dataset };
        assert!(save(&path, &checkpoint(), &none, "{}", Store::F16).unwrap_err().to_string().contains("0 classes"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_storage_type_has_a_name() {
        for store in [Store::F32, Store::F16, Store::Bf16] {
            assert_eq!(store.to_string().parse::<Store>().unwrap(), store);
        }
        assert!("int8".parse::<Store>().unwrap_err().to_string().contains("f32, f16 and bf16"));
    }
}
