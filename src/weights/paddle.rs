//! PaddleSeg's `.pdparams`: a pickled dictionary of numpy arrays, as `paddle.save` writes a state dictionary.
//!
//! The pickle is only described ([`super::pickle`]); this file knows what numpy's pieces mean:
//!
//! - `_reconstruct(ndarray, (0,), b"b")` with the state `(1, shape, dtype, is it in Fortran order, bytes)`,
//! - `_frombuffer(bytes, dtype, shape, "C" or "F")`, which protocol 5 writes instead,
//! - `dtype("f4", False, True)` with a state whose second value is the byte order,
//! - `encode(text, "latin1")`: how protocol 2 writes bytes.
//!
//! Sources: `paddle/framework/io.py` (`_build_saved_state_dict`), and numpy's `array_reduce` and `arraydescr_reduce`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::{bf16, f16};

use super::checkpoint::Tensor;
use super::pickle::{self, Pickle, Value, Word};
use super::store::numbers;

/// Everything that such a file may name.
const WORDS: [Word; 10] = [
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    pickle::ORDERED_DICT,
    // Paddle wraps a tensor as `tuple((name, array))` where a checkpoint is no plain state dictionary.
    ("builtins", "tuple"),
    ("__builtin__", "tuple"),
];

/// Maps the parameters to their names in the static graph; nobody needs it.
const NAME_TABLE: &str = "StructuredToParameterName@@";
/// Says how tensors of more than a gigabyte were cut in pieces.
const CUT_TABLE: &str = "UnpackBigParamInfor@@";
/// A convolution's kernel has four dimensions.
const MOST_DIMENSIONS: usize = 8;

/// The tensors of a `.pdparams` file, under the file's own names.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    let (pickle, root) = pickle::read(bytes, &WORDS, "a Paddle checkpoint")?;
    let Some(entries) = pickle.dict(root) else {
        return Err(match root {
            Value::Int(_) => "is PyTorch's format of before 2020; load and save it once with a newer PyTorch".into(),
            _ => {
                "is a pickle, but not of a dictionary of tensors as `paddle.save(model.state_dict(), …)` writes".into()
            }
        });
    };
    // Every array has bytes of its own in an honest file, so all together cannot be longer than it.
    let mut arrays = Arrays { pickle: &pickle, left: bytes.len() };
    let mut tensors = BTreeMap::new();
    for (key, value) in entries {
        match key {
            Value::Text(NAME_TABLE) => {}
            Value::Text(CUT_TABLE) => {
                return Err(
                    "holds tensors of more than 1 GB, cut in pieces, which no RTFormer has; is it another model's?"
                        .into(),
                );
            }
            Value::Text(name) => {
                let tensor = arrays.tensor(value).map_err(|reason| format!("`{}` {reason}", name.escape_debug()))?;
                if tensors.insert(name.to_owned(), tensor).is_some() {
                    return Err(format!("holds `{}` twice", name.escape_debug()));
                }
            }
            _ => return Err("is a pickle of a dictionary, but its keys are no names of tensors".into()),
        }
    }
    Ok(tensors)
}

struct Arrays<'p, 'a> {
    pickle: &'p Pickle<'a>,
    /// How many bytes of numbers the file can still hold.
    left: usize,
}

/// How a number is stored.
#[derive(Clone, Copy)]
enum Number {
    F16,
    Bf16,
    F32,
    F64,
}

impl<'a> Arrays<'_, 'a> {
    fn tensor(&mut self, value: Value<'a>) -> Result<Tensor, String> {
        let Some((data, dtype, shape, fortran)) = self.array(self.unwrapped(value)) else {
            return Err(match self.pickle.dict(value) {
                Some(_) => "is a dictionary, not a tensor; save the model's state dictionary alone".into(),
                None => "is not a numpy array as Paddle writes them".into(),
            });
        };
        let number = self.number(dtype)?;
        let shape = self.shape(shape)?;
        let count = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        let bytes = count.and_then(|count| count.checked_mul(number.bytes())).filter(|&bytes| bytes <= self.left);
        let bytes = bytes.ok_or_else(|| format!("is {shape:?}, more than the file has bytes for"))?;
        let data = self.bytes(data).ok_or("has no bytes")?;
        if data.len() != bytes {
            return Err(format!("is {shape:?}, which takes {bytes} bytes, but has {}", data.len()));
        }
        self.left -= bytes;
        let data = number.read(&data);
        let data = if fortran && shape.len() > 1 { to_c_order(&data, &shape) } else { data };
        Ok(Tensor { shape, data })
    }

    /// The array in Paddle's `(name, array)`, which is a tuple or a call of `tuple` with it.
    fn unwrapped(&self, value: Value<'a>) -> Value<'a> {
        let pair = match self.pickle.object(value) {
            Some(object) if object.callable.1 == "tuple" && object.args.len() == 1 => object.args[0],
            _ => value,
        };
        match self.pickle.tuple(pair) {
            Some(&[Value::Text(_), array]) => array,
            _ => value,
        }
    }

    /// Bytes, dtype, shape, and whether they are in Fortran order.
    fn array(&self, value: Value<'a>) -> Option<(Value<'a>, Value<'a>, Value<'a>, bool)> {
        let object = self.pickle.object(value)?;
        match (object.callable.1, object.state) {
            ("_reconstruct", Some(state)) => match *self.pickle.tuple(state)? {
                [Value::Int(1), shape, dtype, Value::Bool(fortran), data] => Some((data, dtype, shape, fortran)),
                _ => None,
            },
            ("_frombuffer", None) => match *object.args {
                [data, dtype, shape, Value::Text(order @ ("C" | "F"))] => Some((data, dtype, shape, order == "F")),
                _ => None,
            },
            _ => None,
        }
    }

    fn shape(&self, value: Value<'a>) -> Result<Vec<usize>, String> {
        let sizes = self.pickle.tuple(value).ok_or("has no shape")?;
        if sizes.len() > MOST_DIMENSIONS {
            return Err(format!("has {} dimensions, a weight has at most {MOST_DIMENSIONS}", sizes.len()));
        }
        let size = |size: &Value| match size {
            Value::Int(size) if *size > 0 => usize::try_from(*size).map_err(|e| e.to_string()),
            _ => Err("has a shape whose sizes are no numbers above zero".into()),
        };
        sizes.iter().map(size).collect()
    }

    fn number(&self, value: Value<'a>) -> Result<Number, String> {
        let dtype = self.pickle.object(value).filter(|object| object.callable == ("numpy", "dtype"));
        let Some((Value::Text(code), Some(state))) = dtype.and_then(|dtype| Some((*dtype.args.first()?, dtype.state)))
        else {
            return Err("has no numpy type".into());
        };
        let Some(&[_, Value::Text(order), ..]) = self.pickle.tuple(state) else {
            return Err("has a numpy type without byte order".into());
        };
        if order == ">" || code.starts_with('>') {
            return Err("is big-endian; save it again on an ordinary machine".into());
        }
        match code.trim_start_matches(['<', '=', '|']) {
            "f2" => Ok(Number::F16),
            "f4" => Ok(Number::F32),
            "f8" => Ok(Number::F64),
            // numpy has no bfloat16: Paddle writes its bits as whole numbers, and has no such whole numbers itself.
            "u2" => Ok(Number::Bf16),
            other => Err(format!("holds numbers of numpy's type `{}`, a weight is f2, f4 or f8", other.escape_debug())),
        }
    }

    fn bytes(&self, value: Value<'a>) -> Option<Cow<'a, [u8]>> {
        if let Value::Bytes(bytes) = value {
            return Some(Cow::Borrowed(bytes));
        }
        let object = self.pickle.object(value).filter(|object| object.callable == ("_codecs", "encode"))?;
        match *object.args {
            [Value::Text(text), Value::Text("latin1")] => {
                text.chars().map(|char| u8::try_from(char).ok()).collect::<Option<_>>()
            }
            _ => None,
        }
    }
}

impl Number {
    fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn read(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F16 => numbers(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => numbers(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F32 => numbers(bytes, f32::from_le_bytes),
            Self::F64 => numbers(bytes, |b| f64::from_le_bytes(b) as f32),
        }
    }
}

/// From first index fastest to last index fastest.
fn to_c_order(data: &[f32], shape: &[usize]) -> Vec<f32> {
    let strides: Vec<usize> =
        shape.iter().scan(1, |stride, size| Some(std::mem::replace(stride, *stride * size))).collect();
    let mut index = vec![0; shape.len()];
    let mut ordered = Vec::with_capacity(data.len());
    while ordered.len() < data.len() {
        ordered.push(data[index.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    ordered
}
