//! An open safetensors file: its header checked, its bytes left where they are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rtformer_kernels::Mapped;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorInfo};
use serde::de::DeserializeOwned;

use super::dataset::{Class, Dataset};
use super::reader::Reader;
use super::sniff::Looks;
use crate::error::{Error, Result};

/// What `format` in the metadata says; a newer form would count on.
pub(super) const FORMAT: &str = "rtformer-1";

/// The metadata's key for what divides the logits ahead of the softmax.
pub(super) const TEMPERATURE: &str = "temperature";

/// The metadata's key for the multiple that photos are padded to.
pub(super) const PAD_MULTIPLE: &str = "pad_multiple";

/// Behind a tensor's name: the scales of the int8 tensor of that name.
pub(super) const SCALES: &str = ".scale";

/// An open weights file. Nothing is copied until a [`Reader`] takes it.
///
/// ```no_run
/// # fn main() -> rtformer::Result<()> {
/// let weights = rtformer::weights::Weights::open("model.safetensors")?;
/// println!("{} parameters for {}", weights.parameters(), weights.dataset()?.name);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    bytes: Bytes,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Entry>,
}

/// Where the bytes are.
enum Bytes {
    Mapped(Mapped),
    Static(&'static [u8]),
}

/// One tensor's line in the header.
#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Within the file.
    range: Range<usize>,
    /// Of an int8 tensor: one f32 for each first index, by which its numbers are multiplied.
    scales: Option<Box<Entry>>,
}

impl Weights {
    /// Opens and checks a `.safetensors` file, memory-mapped: its header is read, its tensors are not yet.
    ///
    /// ```
    /// # use rtformer::weights::Weights;
    /// let weights = Weights::open("tests/data/golden/tiny.safetensors")?;
    /// assert_eq!(weights.shape("conv1.0.weight"), Some(vec![4, 3, 3, 3]));
    /// assert_eq!(weights.names().next(), Some("compression3.0._mean"));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Weights`] for what is no safetensors file, or a truncated or lying one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(path.to_path_buf(), Bytes::Mapped(map(path)?))
    }

    /// The same from bytes inside the program; `name` stands for the path in every error.
    ///
    /// ```
    /// # use rtformer::weights::Weights;
    /// let refused = Weights::from_static(b"", "embedded").unwrap_err();
    /// assert!(refused.to_string().starts_with("embedded: is empty"));
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`], as for [`Weights::open`].
    pub fn from_static(bytes: &'static [u8], name: &str) -> Result<Self> {
        Self::parse(PathBuf::from(name), Bytes::Static(bytes))
    }

    fn parse(path: PathBuf, bytes: Bytes) -> Result<Self> {
        let (start, header) = match check_looks(&bytes)
            .and_then(|()| SafeTensors::read_metadata(&bytes).map_err(|e| explain(&e, &bytes)))
        {
            Ok((header_len, header)) => (8 + header_len, header),
            Err(reason) => return Err(Error::weights(path, reason)),
        };
        let metadata = header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        let entry = |(name, info): (String, &TensorInfo)| {
            let (from, to) = info.data_offsets;
            let range = start + from..start + to;
            (name, Entry { dtype: info.dtype, shape: info.shape.clone(), range, scales: None })
        };
        let mut tensors: BTreeMap<_, _> = header.tensors().into_iter().map(entry).collect();
        let whole = |(name, entry): (&String, &Entry)| (entry.dtype == Dtype::I8).then(|| name.clone());
        for name in tensors.iter().filter_map(whole).collect::<Vec<_>>() {
            let scales = tensors.remove(&format!("{name}{SCALES}")).map(Box::new);
            tensors.entry(name).and_modify(|entry| entry.scales = scales);
        }
        Ok(Self { path, bytes, metadata, tensors })
    }

    /// The file, or the name given for embedded weights.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata's string for `key`.
    ///
    /// ```
    /// let weights = rtformer::Segmenter::embedded_weights()?;
    /// assert_eq!((weights.metadata("dataset"), weights.metadata("no such key")), (Some("camvid"), None));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// The data set that the metadata describes.
    ///
    /// ```
    /// let dataset = rtformer::Segmenter::embedded_weights()?.dataset()?;
    /// assert_eq!((dataset.name.as_str(), dataset.classes.len()), ("camvid", 11));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`] where a key is missing, malformed, or from a newer format.
    pub fn dataset(&self) -> Result<Dataset> {
        if let Some(format) = self.metadata("format")
            && format.starts_with("rtformer-")
            && format != FORMAT
        {
            return Err(self.broken(format!(
                "is of format `{}`, this program reads `{FORMAT}`; use a newer rtformer",
                format.escape_debug()
            )));
        }
        let names: Vec<String> = self.json("classes")?;
        let colors: Vec<[u8; 3]> = self.json("palette")?;
        let label_ids: Vec<Option<u16>> = match self.metadata("label_ids") {
            Some(_) => self.json("label_ids")?,
            None => vec![None; names.len()],
        };
        if colors.len() != names.len() || label_ids.len() != names.len() {
            let counts = format!(
                "{} classes, {} colours in `palette` and {} `label_ids`",
                names.len(),
                colors.len(),
                label_ids.len()
            );
            return Err(self.broken(format!("its metadata has {counts}: these must be equally many")));
        }
        let classes = names.into_iter().zip(colors).zip(label_ids);
        let text = |key| self.metadata(key).unwrap_or("unknown").to_owned();
        let dataset = Dataset {
            name: text("dataset"),
            classes: classes.map(|((name, color), label_id)| Class { name, color, label_id }).collect(),
            mean: self.json("mean")?,
            std: self.json("std")?,
            source: text("source"),
            license: text("license"),
        };
        dataset.check().map_err(|reason| self.broken(format!("its metadata is wrong: {reason}")))?;
        Ok(dataset)
    }

    fn json<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let Some(text) = self.metadata(key) else {
            return Err(self.broken(format!(
                "has no `{key}` in its metadata; only files written by `rtformer convert` have all that is needed"
            )));
        };
        serde_json::from_str(text)
            .map_err(|e| self.broken(format!("`{key}` in its metadata cannot be understood: {e}; convert it again")))
    }

    /// What divides the logits ahead of the softmax that gives the confidence; 1 where the metadata do not say.
    ///
    /// ```
    /// let weights = rtformer::weights::Weights::open("tests/data/golden/tiny.safetensors")?;
    /// assert_eq!(weights.temperature()?, 1.0);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`] where the metadata hold something else than a number above zero.
    pub fn temperature(&self) -> Result<f32> {
        Ok(self.named_temperature()?.unwrap_or(1.0))
    }

    /// The temperature, where the metadata say one.
    pub(super) fn named_temperature(&self) -> Result<Option<f32>> {
        let Some(text) = self.metadata(TEMPERATURE) else { return Ok(None) };
        let temperature = text.parse().map_err(|_| format!("`{}` is no number", text.escape_debug()));
        let checked = temperature.and_then(|temperature| check_temperature(temperature).map(|()| temperature));
        checked.map(Some).map_err(|reason| self.broken(format!("`{TEMPERATURE}` in its metadata is wrong: {reason}")))
    }

    /// The multiple that width and height are padded to before the network runs; `None` if the metadata do not say, as for
    /// `PaddleSeg`'s checkpoints, whose photos are used as they are.
    ///
    /// ```
    /// let weights = rtformer::weights::Weights::open("tests/data/golden/tiny.safetensors")?;
    /// assert_eq!(weights.pad_multiple()?, None);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`] if the metadata hold something other than a whole number from 1 to 256.
    pub fn pad_multiple(&self) -> Result<Option<u32>> {
        let Some(text) = self.metadata(PAD_MULTIPLE) else { return Ok(None) };
        let multiple = text.parse().map_err(|_| format!("`{}` is not a whole number", text.escape_debug()));
        let checked = multiple.and_then(|multiple| check_pad_multiple(multiple).map(|()| multiple));
        checked.map(Some).map_err(|reason| self.broken(format!("`{PAD_MULTIPLE}` in its metadata is wrong: {reason}")))
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of the tensor `name`.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|entry| entry.shape.clone())
    }

    /// The file's length.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many numbers its tensors hold, norm statistics and auxiliary head included.
    ///
    /// ```
    /// let weights = rtformer::Segmenter::embedded_weights()?;
    /// assert!(weights.parameters() > 4_000_000 && weights.bytes() > weights.parameters(), "a byte each at least");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(|entry| entry.shape.iter().product::<usize>()).sum()
    }

    /// How its numbers are stored, the most frequent first: `F16 (5.4 M), F32 (21 k)` as names and counts of numbers.
    ///
    /// ```
    /// let weights = rtformer::weights::Weights::open("tests/data/golden/tiny.safetensors")?;
    /// assert_eq!(weights.dtypes(), [("F32".to_owned(), weights.parameters())]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn dtypes(&self) -> Vec<(String, usize)> {
        let mut counts = BTreeMap::new();
        for entry in self.tensors.values() {
            *counts.entry(entry.dtype.to_string()).or_insert(0) += entry.shape.iter().product::<usize>();
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

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
        Reader::new(self, model.into())
    }

    /// The tensor `name` as f32, whatever it is stored in; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Weights`] for a type that is neither a float of 16, 32 or 64 bits nor an int8 with scales, and for NaN or infinity.
    pub(super) fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.tensors.get(name) else { return Ok(None) };
        let bytes = &self.bytes[entry.range.clone()];
        let numbers = match entry.dtype {
            Dtype::F32 => numbers(bytes, f32::from_le_bytes),
            Dtype::F16 => numbers(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => numbers(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => numbers(bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::I8 => self.scaled(name, entry)?,
            other => {
                return Err(self.broken(format!(
                    "tensor `{}` is stored as {other}, a weight is F32, F16, BF16, F64, or I8 with scales",
                    name.escape_debug()
                )));
            }
        };
        check_numbers(&numbers, name).map_err(|reason| self.broken(reason))?;
        Ok(Some(numbers))
    }

    /// The numbers of an int8 tensor, each multiplied by its channel's scale.
    fn scaled(&self, name: &str, entry: &Entry) -> Result<Vec<f32>> {
        let channels = entry.shape.first().copied().unwrap_or(1);
        let fits = |scales: &&Entry| scales.dtype == Dtype::F32 && scales.shape == [channels];
        let Some(scales) = entry.scales.as_deref().filter(fits) else {
            let found = entry.scales.as_deref().map_or_else(
                || "there is none".to_owned(),
                |scales| format!("that is {} {:?}", scales.dtype, scales.shape),
            );
            return Err(self.broken(format!(
                "tensor `{}` is stored as I8, which needs F32 [{channels}] in `{0}{SCALES}`, but {found}",
                name.escape_debug()
            )));
        };
        let scales = numbers(&self.bytes[scales.range.clone()], f32::from_le_bytes);
        let channel = (entry.range.len() / channels.max(1)).max(1);
        let channels = self.bytes[entry.range.clone()].chunks(channel).zip(scales);
        Ok(channels.flat_map(|(bytes, scale)| bytes.iter().map(move |&byte| f32::from(byte as i8) * scale)).collect())
    }

    pub(super) fn broken(&self, reason: String) -> Error {
        Error::weights(&self.path, reason)
    }
}

/// Little-endian numbers of `N` bytes each.
pub(super) fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect()
}

/// Refuses NaN, infinity, and a variance below zero, whose root is NaN: one of them spoils every pixel, long after anybody
/// remembers where it came from.
pub(super) fn check_numbers(numbers: &[f32], name: &str) -> Result<(), String> {
    let least = if name.ends_with("._variance") { 0.0 } else { f32::MIN };
    match numbers.iter().position(|number| !(least..=f32::MAX).contains(number)) {
        None => Ok(()),
        Some(index) => Err(format!(
            "tensor `{}` holds {} at index {index}; the file is damaged, or its training diverged",
            name.escape_debug(),
            numbers[index]
        )),
    }
}

/// Refuses a temperature that a softmax cannot be computed at.
///
/// # Errors
///
/// A sentence that says which ones can.
pub fn check_temperature(temperature: f32) -> Result<(), String> {
    if temperature.is_finite() && temperature > 0.0 {
        return Ok(());
    }
    Err(format!("a temperature of {temperature}; it must be above zero, and is usually 0.5 to 3"))
}

/// Checks a multiple that photos are padded to.
///
/// # Errors
///
/// A sentence that says which multiples are possible.
pub fn check_pad_multiple(multiple: u32) -> Result<(), String> {
    if (1..=256).contains(&multiple) {
        return Ok(());
    }
    Err(format!("a multiple of {multiple}; expected 1 to 256, usually 32"))
}

/// Maps a file into memory.
pub(super) fn map(path: &Path) -> Result<Mapped> {
    if path.is_dir() {
        let folder = std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is a folder; name the file in it");
        return Err(Error::reading(path)(folder));
    }
    Mapped::open(path).map_err(Error::reading(path))
}

fn check_looks(bytes: &[u8]) -> Result<(), String> {
    match Looks::of(bytes) {
        Looks::Safetensors => Ok(()),
        Looks::Empty => Err("is empty; download or convert it again".into()),
        looks @ (Looks::Pickle | Looks::Zip) => {
            Err(format!("is {looks}; turn it into a .safetensors file with `rtformer convert`"))
        }
        Looks::Other(what) => Err(format!("is {what}, not a .safetensors file")),
        Looks::Unknown => Err("is not a .safetensors file; `rtformer convert` makes one of a .pdparams or .pth".into()),
    }
}

/// The parser's errors in our words.
fn explain(error: &SafeTensorError, bytes: &[u8]) -> String {
    let claimed = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let what = match error {
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooSmall => {
            format!("its header claims {claimed} bytes, the whole file has {}", bytes.len())
        }
        SafeTensorError::InvalidHeader(e) => format!("its header is not UTF-8 ({e})"),
        SafeTensorError::InvalidHeaderDeserialization(e) => format!("its header is no safetensors header ({e})"),
        SafeTensorError::InvalidOffset(name) => {
            format!("its header lies: the bytes of `{}` overlap others, or leave a gap", name.escape_debug())
        }
        SafeTensorError::TensorInvalidInfo => "its header lies: a tensor's shape and type do not fit its bytes".into(),
        SafeTensorError::ValidationOverflow => "its header lies: a tensor's shape overflows".into(),
        SafeTensorError::MetadataIncompleteBuffer => "its tensors do not end where the file ends".into(),
        other => format!("its header is wrong ({other})"),
    };
    format!("{what}; the file is truncated or damaged, download or convert it again")
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}
