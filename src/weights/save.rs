//! Writes weights files.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Serialize;

use super::checkpoint::Checkpoint;
use super::dataset::Dataset;
use super::metadata::{check_pad_multiple, check_temperature, json, written};
use super::store::SCALES;
use super::tensor::{Tensor, check_numbers};
use crate::error::{Error, Result};
use crate::files;

/// The type in which convolution weights are stored.
///
/// Tensors with fewer than two dimensions are always stored as f32: norm statistics and biases are less than one per cent of
/// the file, and a variance may be below f16's smallest normal number (6e-5) or above its largest (65504).
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
    /// Exactly the numbers of the checkpoint.
    #[default]
    F32,
    /// Half the size, 11 bits of precision, numbers up to 65504.
    F16,
    /// Half the size, 8 bits of precision, f32's range.
    Bf16,
    /// 3x3 convolutions in 8 bits, with a scale for each output channel; the rest as [`Store::F16`]. A quarter of the size.
    Int8,
}

impl FromStr for Store {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err(Error::Input(format!("unknown storage type `{text}`: expected f32, f16, bf16 or int8"))),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl Store {
    fn dtype(self, shape: &[usize]) -> Dtype {
        match self {
            Self::Int8 if matches!(shape, [_, _, 3, 3]) => Dtype::I8,
            Self::F16 | Self::Int8 if shape.len() > 1 => Dtype::F16,
            Self::Bf16 if shape.len() > 1 => Dtype::BF16,
            _ => Dtype::F32,
        }
    }
}

/// Writes `checkpoint` as a `.safetensors` file that [`Weights::open`](super::Weights::open) reads. If writing fails, an existing file
/// does not change.
///
/// `config_json` is the model's configuration. The same input always gives the same bytes. The checkpoint's other metadata are kept;
/// the entries that this function writes take precedence.
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
/// [`Error::Write`]; [`Error::Weights`] for a data set that fails [`Dataset::check`], an invalid temperature or pad multiple,
/// a tensor whose data do not match its shape, and a number that `store` cannot represent.
pub fn save(path: &Path, checkpoint: &Checkpoint, dataset: &Dataset, config_json: &str, store: Store) -> Result<()> {
    let broken = |reason| Error::weights(path, reason);
    dataset.check().map_err(broken)?;
    checkpoint.temperature.map_or(Ok(()), check_temperature).map_err(broken)?;
    checkpoint.pad_multiple.map_or(Ok(()), check_pad_multiple).map_err(broken)?;
    let mut stored = Vec::new();
    for (name, tensor) in &checkpoint.tensors {
        check(name, tensor, store).map_err(broken)?;
        stored.extend(encode(name, tensor, store));
    }
    // f32 first, so that every tensor is aligned to its own type.
    stored.sort_by(|a, b| (b.dtype.bitsize(), &a.name).cmp(&(a.dtype.bitsize(), &b.name)));
    let mut end = 0;
    let Checkpoint { metadata, temperature, pad_multiple, .. } = checkpoint;
    let metadata = written(metadata, dataset, config_json, *temperature, *pad_multiple);
    let mut header = Header { metadata, tensors: BTreeMap::new() };
    for Stored { name, dtype, shape, bytes } in &stored {
        let start = end;
        end += bytes.len();
        let info = TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (start, end) };
        if header.tensors.insert(name, info).is_some() {
            return Err(broken(format!(
                "two tensors would be named `{name}`; rename the one in the checkpoint, or store it as f16"
            )));
        }
    }
    let mut header = json(&header).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    files::write_whole(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        stored.iter().try_for_each(|stored| file.write_all(&stored.bytes))
    })
}

/// A tensor as stored in the file.
struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Encodes a tensor. An int8 tensor gives two: its numbers and its scales.
fn encode(name: &str, Tensor { shape, data }: &Tensor, store: Store) -> Vec<Stored> {
    let dtype = store.dtype(shape);
    let stored = |name: String, dtype, shape: &[usize], bytes| Stored { name, dtype, shape: shape.to_vec(), bytes };
    let f32s = |numbers: &[f32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let bytes = match dtype {
        Dtype::F16 => data.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()).collect(),
        Dtype::BF16 => data.iter().flat_map(|&number| bf16::from_f32(number).to_le_bytes()).collect(),
        Dtype::I8 => {
            let channels = shape[0];
            let channel = (data.len() / channels.max(1)).max(1);
            let scales: Vec<f32> = data.chunks(channel).map(scale).collect();
            let rounded = data.chunks(channel).zip(&scales).flat_map(|(numbers, scale)| {
                numbers.iter().map(move |number| (number / scale).round_ties_even() as i8 as u8)
            });
            let whole = stored(name.to_owned(), dtype, shape, rounded.collect());
            return vec![whole, stored(format!("{name}{SCALES}"), Dtype::F32, &[channels], f32s(&scales))];
        }
        _ => f32s(data),
    };
    vec![stored(name.to_owned(), dtype, shape, bytes)]
}

/// The divisor of an output channel's numbers. The largest becomes 127.
fn scale(numbers: &[f32]) -> f32 {
    let largest = numbers.iter().fold(0.0, |largest: f32, number| largest.max(number.abs()));
    // If all are too small for a normal scale, they become 0.
    (largest / 127.0).max(f32::MIN_POSITIVE)
}

/// The header of the file. The writer of the `safetensors` crate keeps metadata in a hash map, so its files differ from run to run.
#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<&'a str, TensorInfo>,
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
    let fits = |number: &f32| match store.dtype(shape) {
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
        Checkpoint { tensors: tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into(), ..Checkpoint::default() }
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/model.safetensors");
        for (name, store, weight) in [
            ("cityscapes", Store::F32, 0.1),
            ("ade20k", Store::F16, 0.099_975_586),
            ("camvid", Store::Bf16, 0.100_097_656),
            ("camvid", Store::Int8, 0.099_975_586),
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
    fn int8_has_a_scale_for_each_channel() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        // The last two channels: only zeros, and numbers too small for a normal scale.
        let channels: [&dyn Fn(usize) -> f32; 4] =
            [&|i| i as f32 - 8.0, &|i| (i as f32 - 3.0) * 1e-3, &|_| 0.0, &|_| f32::MIN_POSITIVE / 4.0];
        let data: Vec<f32> = channels.iter().flat_map(|channel| (0..18).map(channel)).collect();
        let mut checkpoint = checkpoint();
        checkpoint.tensors.insert("d.weight".into(), Tensor { shape: vec![4, 2, 3, 3], data: data.clone() });
        let dataset = Dataset::named("camvid").unwrap();
        save(&path, &checkpoint, &dataset, "{}", Store::Int8).unwrap();

        let weights = Weights::open(&path).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a.weight", "b.variance", "c.scalar", "d.weight"]);
        assert_eq!(weights.dtypes()[0], ("I8".to_owned(), 4 * 18), "scales do not count as numbers of the network");
        let read = weights.floats("d.weight").unwrap().unwrap();
        for (channel, (got, want)) in read.chunks(18).zip(data.chunks(18)).enumerate() {
            let step = scale(want);
            let near = got.iter().zip(want).all(|(got, want)| (got - want).abs() <= 0.501 * step);
            assert!(near, "channel {channel}: {got:?} for {want:?}");
        }
        assert_eq!(read[17], 9.0, "the largest is exact");
        // Reading and storing it again gives the same file.
        let bytes = std::fs::read(&path).unwrap();
        save(&path, &Checkpoint::of(&weights).unwrap(), &dataset, "{}", Store::Int8).unwrap();
        assert!(bytes == std::fs::read(&path).unwrap());

        checkpoint.tensors.insert("d.weight.scale".into(), Tensor { shape: vec![1], data: vec![1.0] });
        let text = save(&path, &checkpoint, &dataset, "{}", Store::Int8).unwrap_err().to_string();
        assert!(text.contains("two tensors would be named `d.weight.scale`"), "{text}");
    }

    #[test]
    fn a_temperature_is_kept_if_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let dataset = Dataset::named("camvid").unwrap();
        for (temperature, want) in
            [(None, 1.0), (Some(1.0), 1.0), (Some(1.37), 1.37), (Some(f32::MIN_POSITIVE), f32::MIN_POSITIVE)]
        {
            let checkpoint = Checkpoint { temperature, ..checkpoint() };
            save(&path, &checkpoint, &dataset, "{}", Store::F32).unwrap();
            let weights = Weights::open(&path).unwrap();
            assert_eq!(weights.temperature().unwrap(), want);
            assert_eq!(Checkpoint::of(&weights).unwrap(), checkpoint);
        }
        for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let checkpoint = Checkpoint { temperature: Some(temperature), ..checkpoint() };
            let text = save(&path, &checkpoint, &dataset, "{}", Store::F32).unwrap_err().to_string();
            assert!(text.contains("a temperature of") && text.contains("above zero"), "{text}");
        }
    }

    #[test]
    fn invalid_tensors_are_rejected_and_nothing_is_written() {
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
        for store in [Store::F32, Store::F16, Store::Bf16, Store::Int8] {
            assert_eq!(store.to_string().parse::<Store>().unwrap(), store);
        }
        assert!("int4".parse::<Store>().unwrap_err().to_string().contains("f32, f16, bf16 or int8"));
    }
}
