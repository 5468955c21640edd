//! PyTorch's `.pth`: a zip archive of a pickled dictionary and the bytes of each storage, read through candle.
//!
//! candle's reader trusts its input, so the pickle goes through our own machine ([`super::pickle`]) first: it lets pass only
//! tensors that the file can hold, nested and repeated no more than a state dictionary is. Nothing is executed.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use candle_core::DType;
use candle_core::pickle::PthTensors;
use zip::ZipArchive;

use super::checkpoint::Tensor;
use super::pickle::{self, Object, Pickle, Value, Word};

/// Everything that such a file may name.
const WORDS: [Word; 10] = [
    pickle::PERSISTENT,
    pickle::ORDERED_DICT,
    REBUILD_TENSOR,
    REBUILD_PARAMETER,
    ("torch", "FloatStorage"),
    ("torch", "DoubleStorage"),
    ("torch", "HalfStorage"),
    ("torch", "BFloat16Storage"),
    ("torch", "LongStorage"),
    ("torch", "ByteStorage"),
];
const REBUILD_TENSOR: Word = ("torch._utils", "_rebuild_tensor_v2");
const REBUILD_PARAMETER: Word = ("torch._utils", "_rebuild_parameter");
/// Where training scripts keep the state dictionary, when it is not the whole file.
const KEYS: [&str; 3] = ["state_dict", "model", "model_state_dict"];
/// PyTorch's norms count the batches they saw; nothing uses it.
const COUNTER: &str = "num_batches_tracked";

/// The tensors of a `.pth` file, under PaddleSeg's names.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    let key = vet(bytes)
        .map_err(|reason| format!("{reason}; a .pth that can be read is `torch.save(model.state_dict(), …)`"))?;
    let damaged = |e: candle_core::Error| format!("cannot be read as PyTorch's: {e}");
    let file = PthTensors::new(path, key).map_err(damaged)?;
    let mut tensors = BTreeMap::new();
    for name in file.tensor_infos().keys().filter(|name| !name.ends_with(COUNTER)) {
        let Some(tensor) = file.get(name).map_err(|e| unreadable(name, &e))? else { continue };
        let shape = tensor.dims().to_vec();
        let data = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1()).map_err(damaged)?;
        tensors.insert(paddle_name(name), Tensor { shape, data });
    }
    Ok(tensors)
}

fn unreadable(name: &str, error: &candle_core::Error) -> String {
    let (name, error) = (name.escape_debug(), error.to_string());
    if error.contains("non-contiguous") {
        return format!("`{name}` is stored in another order (channels last?); save it with `.contiguous()`");
    }
    format!("`{name}` cannot be read: {error}; the file is truncated or damaged, copy it again")
}

/// The two names that differ.
fn paddle_name(name: &str) -> String {
    let renamed = |theirs: &str, ours: &str| Some(format!("{}.{ours}", name.strip_suffix(theirs)?.strip_suffix('.')?));
    renamed("running_mean", "_mean").or_else(|| renamed("running_var", "_variance")).unwrap_or_else(|| name.to_owned())
}

/// Reads the archive's pickles as candle will, and gives the key under which the state dictionary is.
fn vet(bytes: &[u8]) -> Result<Option<&'static str>, String> {
    let broken = |e: zip::result::ZipError| format!("is a broken zip archive ({e})");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let mut key = None;
    let mut found = false;
    for entry in 0..archive.len() {
        let entry = archive.by_index(entry).map_err(broken)?;
        if !entry.name().map_err(broken)?.ends_with("data.pkl") {
            continue;
        }
        let mut program = Vec::new();
        // Stored, not compressed: it cannot be longer than the file.
        entry
            .take(bytes.len() as u64)
            .read_to_end(&mut program)
            .map_err(|e| format!("is a broken zip archive ({e})"))?;
        let (pickle, root) = pickle::read(&program, &WORDS, "a PyTorch state dictionary")?;
        vet_tensors(&pickle, bytes.len())?;
        key = vet_root(&pickle, root)?;
        if std::mem::replace(&mut found, true) {
            return Err("holds several pickles".into());
        }
    }
    if found { Ok(key) } else { Err("is a zip archive without a `data.pkl`".into()) }
}

fn vet_root<'a>(pickle: &Pickle<'a>, root: Value<'a>) -> Result<Option<&'static str>, String> {
    let mut entries = pickle.dict(root).ok_or("does not hold a dictionary")?;
    Ok(entries.find_map(|(key, value)| {
        let key = KEYS.iter().find(|known| key == Value::Text(known))?;
        pickle.dict(value).map(|_| *key)
    }))
}

/// Every tensor must have the arguments that candle takes without looking, and no more bytes than the file.
fn vet_tensors(pickle: &Pickle<'_>, file: usize) -> Result<(), String> {
    let mut left = file;
    for object in pickle.objects() {
        match object.callable {
            REBUILD_PARAMETER if object.args.is_empty() => return Err("holds a parameter of nothing".into()),
            REBUILD_TENSOR => {
                let bytes = tensor_bytes(pickle, object, file).ok_or("holds a malformed tensor")?;
                left = left.checked_sub(bytes).ok_or("holds tensors of more bytes than the file has")?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// How many bytes a tensor takes; `None` when it is not `(storage, offset, sizes, strides, …)` of small whole numbers.
fn tensor_bytes(pickle: &Pickle<'_>, tensor: Object<'_, '_>, file: usize) -> Option<usize> {
    let [storage, offset, sizes, strides, ..] = *tensor.args else { return None };
    let small = |value: &Value<'_>| match value {
        Value::Int(number) => usize::try_from(*number).ok().filter(|number| *number <= file),
        _ => None,
    };
    let storage = pickle.object(storage).filter(|storage| storage.callable == pickle::PERSISTENT)?;
    let [Value::Text("storage"), Value::Global(class), Value::Text(_), _, numbers] = *storage.args else { return None };
    let bytes = match class.1 {
        "DoubleStorage" | "LongStorage" => 8,
        "FloatStorage" => 4,
        "HalfStorage" | "BFloat16Storage" => 2,
        "ByteStorage" => 1,
        _ => return None,
    };
    small(&offset)?;
    small(&numbers)?;
    let sizes: Vec<_> = pickle.tuple(sizes)?.iter().map(small).collect::<Option<_>>()?;
    let strides: Vec<_> = pickle.tuple(strides)?.iter().map(small).collect::<Option<_>>()?;
    if sizes.len() != strides.len() || sizes.len() > 8 {
        return None;
    }
    let count = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))?;
    count.checked_mul(bytes).filter(|bytes| *bytes <= file)
}

#[cfg(test)]
mod tests;
