//! Numpy arrays in a pickle, as `paddle.save` writes them:
//!
//! - `_reconstruct(ndarray, (0,), b"b")` with the state `(1, shape, dtype, fortran_order, bytes)`,
//! - `_frombuffer(bytes, dtype, shape, "C" or "F")`, which protocol 5 uses instead,
//! - `dtype("f4", False, True)` with a state whose second value is the byte order,
//! - `encode(text, "latin1")`, which protocol 2 uses for bytes.
//!
//! Sources: `paddle/framework/io.py` (`_build_saved_state_dict`), and numpy's `array_reduce` and `arraydescr_reduce`.

use std::borrow::Cow;

use super::pickle::{Pickle, Value, sizes};
use super::tensor::{Number, Tensor, View};

/// The parts of an array: bytes, type, shape, and whether it is in Fortran order.
type Parts<'a> = (Value<'a>, Value<'a>, Value<'a>, bool);

/// Whether `value` is an array.
pub(super) fn is_array<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> bool {
    pickle
        .object(unwrapped(pickle, value))
        .is_some_and(|object| matches!(object.callable.1, "_reconstruct" | "_frombuffer"))
}

/// Reads an array. `spend` is called before any allocation. It returns the bytes that the array takes, or fails if they are too many.
///
/// # Errors
/// A description of the problem, as a phrase that follows the tensor's name.
pub(super) fn read<'a>(
    pickle: &Pickle<'a>,
    value: Value<'a>,
    spend: impl FnOnce(&View) -> Result<usize, String>,
) -> Result<Tensor, String> {
    let parts = parts(pickle, unwrapped(pickle, value));
    let (data, dtype, shape, fortran) = parts.ok_or("is not a numpy array as Paddle writes them")?;
    let number = number(pickle, dtype)?;
    let shape = sizes(pickle, shape)?;
    if shape.contains(&0) {
        return Err("has a size of zero".into());
    }
    let strides = if fortran { View::fortran_order(&shape) } else { View::c_order(&shape) };
    let view = View { number, offset: 0, shape, strides };
    let bytes = spend(&view)?;
    let data = content(pickle, data).ok_or("has no bytes")?;
    if data.len() != bytes {
        return Err(format!("has shape {:?}, which takes {bytes} bytes, but has {}", view.shape, data.len()));
    }
    view.read(&data).ok_or_else(|| "reaches past its bytes".into())
}

/// The array in Paddle's `(name, array)`, which is a tuple, or a call of `tuple` with one.
fn unwrapped<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Value<'a> {
    let pair = match pickle.object(value) {
        Some(object) if object.callable.1 == "tuple" && object.args.len() == 1 => object.args[0],
        _ => value,
    };
    match pickle.tuple(pair) {
        Some(&[Value::Text(_), array]) => array,
        _ => value,
    }
}

fn parts<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<Parts<'a>> {
    let object = pickle.object(value)?;
    match (object.callable.1, object.state) {
        ("_reconstruct", Some(state)) => match *pickle.tuple(state)? {
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

fn number<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<Number, String> {
    let dtype = pickle.object(value).filter(|object| object.callable == ("numpy", "dtype"));
    let Some((Value::Text(code), Some(state))) = dtype.and_then(|dtype| Some((*dtype.args.first()?, dtype.state)))
    else {
        return Err("has no numpy type".into());
    };
    let Some(&[_, Value::Text(order), ..]) = pickle.tuple(state) else {
        return Err("has a numpy type without a byte order".into());
    };
    if order == ">" || code.starts_with('>') {
        return Err("is big-endian; save it again on a little-endian machine".into());
    }
    match code.trim_start_matches(['<', '=', '|']) {
        "f2" => Ok(Number::F16),
        "f4" => Ok(Number::F32),
        "f8" => Ok(Number::F64),
        // Numpy has no bfloat16. Paddle writes its bits as u2, and has no u2 type of its own.
        "u2" => Ok(Number::Bf16),
        other => Err(format!("holds numbers of numpy's type `{}`; expected f2, f4 or f8", other.escape_debug())),
    }
}

fn content<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<Cow<'a, [u8]>> {
    if let Value::Bytes(bytes) = value {
        return Some(Cow::Borrowed(bytes));
    }
    let object = pickle.object(value).filter(|object| object.callable == ("_codecs", "encode"))?;
    match *object.args {
        [Value::Text(text), Value::Text("latin1")] => {
            text.chars().map(|char| u8::try_from(char).ok()).collect::<Option<_>>()
        }
        _ => None,
    }
}
