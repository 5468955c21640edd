//! Opens safetensors files. The header is checked; the tensors stay in the file.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rtformer_kernels::Mapped;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorInfo};
use sha2::{Digest, Sha256};

use super::sniff::Looks;
use super::tensor::{Number, check_numbers};
use crate::error::{Error, Result};
use crate::files;

/// The suffix that an int8 tensor's scales have after its name.
pub(super) const SCALES: &str = ".scale";

/// What the names of an explainer's tensors start with. They are no part of the network.
pub(super) const EXPLAINER: &str = "explainer.";

/// An open weights file. Tensors are copied only when a [`Reader`](super::Reader) takes them.
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

/// The file's bytes.
enum Bytes {
    Mapped(Mapped),
    Static(&'static [u8]),
}

/// One tensor's entry in the header.
#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// The byte range in the file.
    range: Range<usize>,
    /// For an int8 tensor: one f32 for each first index, by which the numbers are multiplied.
    scales: Option<Box<Entry>>,
}

impl Weights {
    /// Opens and checks a `.safetensors` file. The file is memory-mapped: the header is read, the tensors are not.
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
    /// [`Error::Read`]; [`Error::Weights`] if the file is not a safetensors file, is truncated, or has an invalid header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(path.to_path_buf(), Bytes::Mapped(map(path)?))
    }

    /// Opens weights in the program's own memory. Errors use `name` in place of a path.
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

    /// The path of the file, or the name of embedded weights.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SHA-256 of the file, in hexadecimal: whether two files are the same weights.
    ///
    /// ```
    /// # use rtformer::weights::Weights;
    /// let [tiny, thirds] = ["tiny", "thirds"].map(|name| format!("tests/data/golden/{name}.safetensors"));
    /// assert_eq!(Weights::open(&tiny)?.digest(), Weights::open(&tiny)?.digest());
    /// assert_ne!(Weights::open(&tiny)?.digest(), Weights::open(&thirds)?.digest());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn digest(&self) -> String {
        files::digest(&self.bytes)
    }

    /// The SHA-256 of the tensors' names, types, shapes and bytes, in hexadecimal. It does not depend on the metadata, nor on the
    /// explainer's tensors, which belong to the network and are no part of it. Scales are tensors with the suffix `.scale`.
    ///
    /// ```
    /// # use rtformer::weights::Weights;
    /// # let folder = tempfile::tempdir().unwrap();
    /// let (weights, path) = (Weights::open("tests/data/golden/tiny.safetensors")?, folder.path().join("tiny.safetensors"));
    /// weights.save_with("note", "a copy", &path)?;
    /// let copy = Weights::open(&path)?;
    /// assert_eq!(copy.tensors_digest(), weights.tensors_digest());
    /// assert_ne!(copy.digest(), weights.digest());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn tensors_digest(&self) -> String {
        let mut stored = BTreeMap::new();
        for (name, entry) in self.tensors.iter().filter(|(name, _)| !name.starts_with(EXPLAINER)) {
            stored.insert(name.clone(), entry);
            stored.extend(entry.scales.as_deref().map(|scales| (format!("{name}{SCALES}"), scales)));
        }
        let mut hash = Sha256::new();
        for (name, entry) in stored {
            hash.update(format!("{name} {} {:?}\n", entry.dtype, entry.shape));
            hash.update(&self.bytes[entry.range.clone()]);
        }
        files::hex(&hash.finalize())
    }

    /// Writes a copy with another entry in the metadata to `path`, in place of one with the same key. Tensors stay as they are. If
    /// writing fails, an existing file does not change.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save_with(&self, key: &str, value: &str, path: &Path) -> Result<()> {
        // The header was parsed when the file was opened.
        let length = self.bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
        let (head, tensors) = self.bytes[8..].split_at(length);
        let mut header: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(head).map_err(|error| self.broken(format!("its header is invalid: {error}")))?;
        let metadata = header.entry("__metadata__").or_insert_with(|| serde_json::json!({}));
        metadata[key] = value.into();
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        files::write_whole(path, |file| {
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            file.write_all(tensors)
        })
    }

    /// The value of `key` in the metadata; `None` if it is missing.
    ///
    /// ```
    /// let weights = rtformer::Segmenter::embedded_weights()?;
    /// assert_eq!((weights.metadata("dataset"), weights.metadata("no such key")), (Some("camvid"), None));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Every entry of the metadata.
    pub(super) fn all_metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The bytes of the tensor `name`, which must be stored as U8 with the shape `want`. `model` describes what needs it.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`]; [`Error::Weights`] for another type.
    pub(crate) fn stored_bytes(&self, name: &str, want: &[usize], model: &str) -> Result<&[u8]> {
        let (path, model) = (self.path.clone(), model.to_owned());
        let Some(entry) = self.tensors.get(name) else {
            return Err(Error::MissingTensor { path, name: name.to_owned(), want: want.to_vec(), model });
        };
        if entry.shape != want {
            let got = entry.shape.clone();
            return Err(Error::Shape { path, name: name.to_owned(), got, want: want.to_vec(), model });
        }
        if entry.dtype != Dtype::U8 {
            return Err(self.broken(format!("tensor `{name}` is stored as {}; expected U8", entry.dtype)));
        }
        Ok(&self.bytes[entry.range.clone()])
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of the tensor `name`; `None` if there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|entry| entry.shape.clone())
    }

    /// The length of the file in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The number of the network's parameters, including norm statistics and the auxiliary head.
    ///
    /// ```
    /// let weights = rtformer::Segmenter::embedded_weights()?;
    /// assert!(weights.parameters() > 4_000_000 && weights.bytes() > weights.parameters(), "at least one byte per parameter");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn parameters(&self) -> usize {
        self.network().map(|entry| entry.shape.iter().product::<usize>()).sum()
    }

    /// The types of the stored numbers with their counts, the most frequent first: for example `F16` (5.4 M) and `F32` (21 k).
    ///
    /// ```
    /// let weights = rtformer::weights::Weights::open("tests/data/golden/tiny.safetensors")?;
    /// assert_eq!(weights.dtypes(), [("F32".to_owned(), weights.parameters())]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn dtypes(&self) -> Vec<(String, usize)> {
        let mut counts = BTreeMap::new();
        for entry in self.network() {
            *counts.entry(entry.dtype.to_string()).or_insert(0) += entry.shape.iter().product::<usize>();
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

    /// Reads the tensor `name` as f32, for any stored type. `None` if there is no such tensor.
    ///
    /// # Errors
    /// [`Error::Weights`] if the type is neither a float of 16, 32 or 64 bits nor int8 with scales, and for NaN or infinity.
    pub(super) fn floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.tensors.get(name) else { return Ok(None) };
        let bytes = &self.bytes[entry.range.clone()];
        let numbers = match entry.dtype {
            Dtype::F32 => Number::F32.read(bytes),
            Dtype::F16 => Number::F16.read(bytes),
            Dtype::BF16 => Number::Bf16.read(bytes),
            Dtype::F64 => Number::F64.read(bytes),
            Dtype::I8 => self.scaled(name, entry)?,
            other => {
                return Err(self.broken(format!(
                    "tensor `{}` is stored as {other}; expected F32, F16, BF16, F64, or I8 with scales",
                    name.escape_debug()
                )));
            }
        };
        check_numbers(&numbers, name).map_err(|reason| self.broken(reason))?;
        Ok(Some(numbers))
    }

    /// Reads an int8 tensor, and multiplies each number by its channel's scale.
    fn scaled(&self, name: &str, entry: &Entry) -> Result<Vec<f32>> {
        let channels = entry.shape.first().copied().unwrap_or(1);
        let fits = |scales: &&Entry| scales.dtype == Dtype::F32 && scales.shape == [channels];
        let Some(scales) = entry.scales.as_deref().filter(fits) else {
            let found = entry.scales.as_deref().map_or_else(
                || "there is none".to_owned(),
                |scales| format!("it is {} {:?}", scales.dtype, scales.shape),
            );
            return Err(self.broken(format!(
                "tensor `{}` is stored as I8, which needs F32 [{channels}] in `{0}{SCALES}`, but {found}",
                name.escape_debug()
            )));
        };
        let scales = Number::F32.read(&self.bytes[scales.range.clone()]);
        let channel = (entry.range.len() / channels.max(1)).max(1);
        let mut numbers = Number::I8.read(&self.bytes[entry.range.clone()]);
        for (channel, scale) in numbers.chunks_mut(channel).zip(scales) {
            channel.iter_mut().for_each(|number| *number *= scale);
        }
        Ok(numbers)
    }

    /// The network's tensors.
    fn network(&self) -> impl Iterator<Item = &Entry> {
        self.tensors.iter().filter(|(name, _)| !name.starts_with(EXPLAINER)).map(|(_, entry)| entry)
    }

    pub(super) fn broken(&self, reason: String) -> Error {
        Error::weights(&self.path, reason)
    }
}

/// Maps a file into memory.
pub(super) fn map(path: &Path) -> Result<Mapped> {
    if path.is_dir() {
        let folder = std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is a folder; name a file in it");
        return Err(Error::reading(path)(folder));
    }
    Mapped::open(path).map_err(Error::reading(path))
}

fn check_looks(bytes: &[u8]) -> Result<(), String> {
    match Looks::of(bytes) {
        Looks::Safetensors => Ok(()),
        Looks::Empty => Err("is empty; download or convert it again".into()),
        looks @ (Looks::Pickle | Looks::Zip) => {
            Err(format!("is {looks}; convert it to a .safetensors file with `rtformer convert`"))
        }
        Looks::Other(what) => Err(format!("is {what}, not a .safetensors file")),
        Looks::Unknown => {
            Err("is not a .safetensors file; `rtformer convert` converts .pdparams and .pth files".into())
        }
    }
}

/// Describes the parser's errors, and says what to do.
fn explain(error: &SafeTensorError, bytes: &[u8]) -> String {
    let claimed = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let what = match error {
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooSmall => {
            format!("its header claims {claimed} bytes, but the whole file has {}", bytes.len())
        }
        SafeTensorError::InvalidHeader(e) => format!("its header is not UTF-8 ({e})"),
        SafeTensorError::InvalidHeaderDeserialization(e) => format!("its header is not a safetensors header ({e})"),
        SafeTensorError::InvalidOffset(name) => {
            format!("its header is wrong: the bytes of `{}` overlap others, or leave a gap", name.escape_debug())
        }
        SafeTensorError::TensorInvalidInfo => {
            "its header is wrong: a tensor's shape and type do not match its bytes".into()
        }
        SafeTensorError::ValidationOverflow => "its header is wrong: a tensor's shape overflows".into(),
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
