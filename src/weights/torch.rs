//! PyTorch's `.pth`: a zip archive with a pickle, and with the bytes of each storage as a separate part.
//!
//! A tensor in the pickle is `_rebuild_tensor_v2(storage, offset, sizes, strides, …)`. A storage is the persistent id
//! `("storage", torch.FloatStorage, key, device, length)`; its bytes are the part `data/KEY`.
//!
//! Sources: `torch/serialization.py` (`_save`, `_load`) and `torch/_utils.py`.

use std::collections::HashMap;
use std::io::{self, Cursor};

use zip::read::{ArchiveOffset, Config, ZipFile};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Pickle, Value, sizes};
use super::tensor::{Number, Tensor, View};

/// The bytes of each storage, by its key.
pub(super) type Storages<'a> = HashMap<String, &'a [u8]>;

/// Zip archives of other programs, identified by the end of a part's name, or by a folder in it.
const OTHERS: [(&str, &str); 7] = [
    (
        "constants.pkl",
        "a TorchScript archive; save its parameters: torch.save(torch.jit.load(FILE).state_dict(), \"model.pth\")",
    ),
    (
        "/code/",
        "a TorchScript archive; save its parameters: torch.save(torch.jit.load(FILE).state_dict(), \"model.pth\")",
    ),
    (
        "serialized_exported_program.json",
        "a program that torch.export wrote; save the model's parameters: torch.save(model.state_dict(), \"model.pth\")",
    ),
    (
        "models/model.json",
        "a program that torch.export wrote; save the model's parameters: torch.save(model.state_dict(), \"model.pth\")",
    ),
    (".npy", "numpy's archive of arrays (.npz)"),
    ("model.weights.h5", "a Keras model"),
    ("saved_model.pb", "a TensorFlow model in a zip archive"),
];

/// The archive's pickle, and its storages. The checksum of every part that is returned was verified.
///
/// # Errors
/// A description of the problem, as a phrase that follows the file's name.
pub(super) fn open(bytes: &[u8]) -> Result<(&[u8], Storages<'_>), String> {
    // The archive is the whole file. If the crate has to detect its start, it misreads valid files: it ignores that PyTorch always
    // writes ZIP64 records, which take as many bytes as the directory's first entry if the file's name has 21 characters.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, Cursor::new(bytes)).map_err(|e| broken(&e))?;
    let names: Vec<String> = archive
        .file_names()
        .map(|name| name.map(std::borrow::Cow::into_owned))
        .collect::<Result<_, _>>()
        .map_err(|e| broken(&e))?;
    if let Some((_, what)) = OTHERS.iter().find(|(part, _)| names.iter().any(|name| is_part(name, part))) {
        return Err(format!("is {what}"));
    }
    let mut programs = names.iter().filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let folder = match (programs.next(), programs.next()) {
        (Some(program), None) => program.trim_end_matches("data.pkl"),
        (Some(_), Some(_)) => return Err("holds several pickles; PyTorch writes one".into()),
        (None, _) => return Err(packed(&names)),
    };
    let (mut program, mut storages) = (None, HashMap::new());
    // The parts of a valid archive do not overlap.
    let mut left = bytes.len();
    for (index, name) in names.iter().enumerate() {
        let Some(name) = name.strip_prefix(folder) else { continue };
        let storage = name.strip_prefix("data/").filter(|key| !key.is_empty());
        if storage.is_none() && !matches!(name, "data.pkl" | "byteorder") {
            continue;
        }
        let part = whole(archive.by_index(index), bytes, &mut left)
            .map_err(|reason| format!("its part `{}` {reason}", name.escape_debug()))?;
        match (storage, name) {
            (Some(key), _) => drop(storages.insert(key.to_owned(), part)),
            (None, "data.pkl") => program = Some(part),
            (None, _) if part.trim_ascii() == b"big" => {
                return Err("is big-endian; save it again on a little-endian machine".into());
            }
            (None, _) => {}
        }
    }
    Ok((program.ok_or("is a zip archive without a `data.pkl`")?, storages))
}

fn broken(error: &ZipError) -> String {
    format!("is a damaged zip archive ({error}); download or copy it again")
}

fn is_part(name: &str, part: &str) -> bool {
    if part.starts_with('/') { name.contains(part) } else { name.ends_with(part) }
}

/// Describes an archive without PyTorch's pickle. Most often it contains a checkpoint that was zipped.
fn packed(names: &[String]) -> String {
    let inside = names.iter().find(|name| {
        [".pdparams", ".pth", ".pt", ".ckpt", ".safetensors", ".bin"].iter().any(|ending| name.ends_with(ending))
    });
    match inside {
        Some(name) => format!("is a zip archive that contains `{}`; unpack it first", name.escape_debug()),
        None => "is a zip archive without a `data.pkl`, so it is not PyTorch's".into(),
    }
}

/// Verifies the checksum of a part, and returns its bytes in the file.
fn whole<'a, R: io::Read>(
    part: Result<ZipFile<'_, R>, ZipError>,
    bytes: &'a [u8],
    left: &mut usize,
) -> Result<&'a [u8], String> {
    let mut part = part.map_err(|e| format!("cannot be read ({e})"))?;
    if part.compression() != CompressionMethod::Stored || part.encrypted() {
        return Err("is compressed or encrypted, which PyTorch never does; save the checkpoint again".into());
    }
    let size = usize::try_from(part.size()).ok().and_then(|size| Some((size, left.checked_sub(size)?)));
    let (size, rest) = size.ok_or("claims more bytes than the file has; the file is damaged")?;
    *left = rest;
    io::copy(&mut part, &mut io::sink()).map_err(|e| format!("is damaged ({e}); download or copy the file again"))?;
    let start = part.data_start().and_then(|start| usize::try_from(start).ok());
    start.and_then(|start| bytes.get(start..start.checked_add(size)?)).ok_or_else(|| "is truncated".into())
}

/// Whether `value` is a tensor or a parameter.
pub(super) fn is_tensor<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> bool {
    pickle.object(value).is_some_and(|object| object.callable.0 == "torch._utils")
}

/// Reads a tensor. `spend` is called before any allocation. It fails if the tensor takes too many bytes.
///
/// # Errors
/// A description of the problem, as a phrase that follows the tensor's name.
pub(super) fn read<'a>(
    pickle: &Pickle<'a>,
    value: Value<'a>,
    storages: &Storages<'a>,
    spend: impl FnOnce(&View) -> Result<usize, String>,
) -> Result<Tensor, String> {
    let malformed = || "is a malformed tensor".to_owned();
    let mut tensor = pickle.object(value).ok_or_else(malformed)?;
    if tensor.callable != pickle::REBUILD_TENSOR {
        // A parameter has the tensor, whether it is trained, and hooks.
        let inner = tensor.args.first().and_then(|value| pickle.object(*value));
        tensor =
            inner.filter(|inner| inner.callable == pickle::REBUILD_TENSOR).ok_or("is a parameter without a tensor")?;
    }
    let [storage, Value::Int(offset), shape, strides, ..] = *tensor.args else { return Err(malformed()) };
    let storage = pickle.object(storage).filter(|storage| storage.callable == pickle::PERSISTENT);
    let [Value::Text("storage"), Value::Global(class), Value::Text(key), _, Value::Int(length)] =
        *storage.ok_or_else(malformed)?.args
    else {
        return Err(malformed());
    };
    let number = match class.1 {
        "DoubleStorage" => Number::F64,
        "FloatStorage" => Number::F32,
        "HalfStorage" => Number::F16,
        "BFloat16Storage" => Number::Bf16,
        "LongStorage" => Number::I64,
        "IntStorage" => Number::I32,
        "ShortStorage" => Number::I16,
        "CharStorage" => Number::I8,
        "ByteStorage" | "BoolStorage" => Number::U8,
        _ => return Err(malformed()),
    };
    let (shape, strides) = (sizes(pickle, shape)?, sizes(pickle, strides)?);
    let offset = usize::try_from(offset).map_err(|_| malformed())?;
    if shape.len() != strides.len() {
        return Err(format!("has {} sizes and {} strides", shape.len(), strides.len()));
    }
    let view = View { number, offset, shape, strides };
    spend(&view)?;
    let part = storages.get(key).ok_or_else(|| {
        format!("is stored in the part `data/{}`, which is missing; save it again", key.escape_debug())
    })?;
    let bytes = usize::try_from(length).ok().and_then(|length| length.checked_mul(number.bytes()));
    let bytes = bytes.and_then(|bytes| part.get(..bytes)).ok_or_else(|| {
        format!("needs {length} numbers in the part `data/{}`, which has {} bytes", key.escape_debug(), part.len())
    })?;
    view.read(bytes).ok_or_else(|| "reaches past the end of its storage; the file is damaged".into())
}

#[cfg(test)]
mod tests;
