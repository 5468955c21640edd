//! Reads the subset of Python's pickle format that checkpoints use. **Nothing is ever executed.**
//!
//! A pickle is a program for a stack machine. [`machine`] supports the opcodes that `paddle.save` and `torch.save` emit in
//! protocols 2 to 5, and rejects all others. Where Python would import a name, it looks the name up in the list [`WORDS`]. Where
//! Python would call a function, it records the function and the arguments.
//!
//! Memory use is proportional to the file: text and bytes are borrowed from it, every length is checked against the
//! bytes that are left, and everything else is a small node per opcode. Values are handles to nodes, so a memoised object is
//! shared by all that recall it. Nothing here is recursive, so deep nesting cannot exhaust the stack.

mod machine;
#[cfg(test)]
pub(super) mod tests;

pub(super) use machine::read;

/// A module and a name in it.
type Word = (&'static str, &'static str);

/// Creates an ordered dictionary in Python; a [`Kind::Dict`] here.
const ORDERED_DICT: Word = ("collections", "OrderedDict");
/// Creates a dictionary with a default in Python; a [`Kind::Dict`] here.
const DEFAULT_DICT: Word = ("collections", "defaultdict");
/// The callable of an object that a persistent id names: PyTorch's storages.
pub(super) const PERSISTENT: Word = ("", "persistent id");
/// Creates PyTorch's tensors.
pub(super) const REBUILD_TENSOR: Word = ("torch._utils", "_rebuild_tensor_v2");

/// Everything that a checkpoint may import: arrays, and the plain values that training scripts save with them.
#[rustfmt::skip]
const WORDS: [Word; 59] = [
    // Numpy's arrays, with the names of numpy 1 and 2, and its scalars.
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
    // PyTorch's tensors.
    PERSISTENT, REBUILD_TENSOR,
    ("torch._utils", "_rebuild_parameter"), ("torch._utils", "_rebuild_parameter_with_state"),
    ("torch", "DoubleStorage"), ("torch", "FloatStorage"), ("torch", "HalfStorage"), ("torch", "BFloat16Storage"),
    ("torch", "LongStorage"), ("torch", "IntStorage"), ("torch", "ShortStorage"), ("torch", "CharStorage"),
    ("torch", "ByteStorage"), ("torch", "BoolStorage"),
    // Paddle wraps a tensor as `tuple((name, array))` if a checkpoint is not a plain state dictionary.
    ("builtins", "tuple"), ("__builtin__", "tuple"),
    ORDERED_DICT, DEFAULT_DICT, ("collections", "Counter"),
    ("builtins", "set"), ("__builtin__", "set"), ("builtins", "frozenset"), ("__builtin__", "frozenset"),
    ("builtins", "dict"), ("__builtin__", "dict"), ("builtins", "list"), ("__builtin__", "list"),
    ("builtins", "int"), ("__builtin__", "int"), ("builtins", "float"), ("__builtin__", "float"),
    ("builtins", "bool"), ("__builtin__", "bool"),
    // The arguments and settings of a script.
    ("argparse", "Namespace"), ("types", "SimpleNamespace"), ("datetime", "datetime"),
    ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("pathlib", "PurePosixPath"),
    ("pathlib._local", "PosixPath"), ("pathlib._local", "WindowsPath"),
    ("torch", "Size"), ("torch", "device"),
    ("torch", "float32"), ("torch", "float64"), ("torch", "float16"), ("torch", "bfloat16"),
    ("torch", "int64"), ("torch", "uint8"), ("torch", "bool"),
];

/// The most dimensions of a tensor. A convolution's kernel has four.
const MOST_DIMENSIONS: usize = 8;

/// Reads a tuple of sizes or strides.
///
/// # Errors
/// A description of the problem, as a phrase that follows the tensor's name.
pub(super) fn sizes<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<Vec<usize>, String> {
    let sizes = pickle.tuple(value).ok_or("has no shape")?;
    if sizes.len() > MOST_DIMENSIONS {
        return Err(format!("has {} dimensions; expected at most {MOST_DIMENSIONS}", sizes.len()));
    }
    let size = |size: &Value<'_>| match size {
        Value::Int(size) => usize::try_from(*size).ok(),
        _ => None,
    };
    sizes.iter().map(size).collect::<Option<_>>().ok_or_else(|| "has sizes that are not whole numbers".into())
}

/// A value of a pickle. A compound value is a handle to a node of the [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Text(&'a str),
    Bytes(&'a [u8]),
    Global(Word),
    Node(Kind, usize),
}

impl Value<'_> {
    /// The number of the node; `None` if the value is not compound.
    pub(super) fn node(self) -> Option<usize> {
        match self {
            Self::Node(_, node) => Some(node),
            _ => None,
        }
    }
}

/// The kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tuple,
    List,
    /// The values are key, value, key, value …
    Dict,
    /// The values are the callable, its tuple of arguments, and the state that is set afterwards, if any.
    Object,
}

#[derive(Debug, Default)]
struct Node<'a> {
    values: Vec<Value<'a>>,
    /// The number of nodes if nothing were shared.
    weight: usize,
    /// The levels of nesting below it.
    depth: usize,
}

/// The nodes of a pickle.
#[derive(Debug, Default)]
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
}

/// The object that Python would create: calls `callable` with `args`, then sets `state`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object<'p, 'a> {
    pub(super) callable: Word,
    pub(super) args: &'p [Value<'a>],
    pub(super) state: Option<Value<'a>>,
}

impl<'a> Pickle<'a> {
    fn values(&self, value: Value<'a>, kind: Kind) -> Option<&[Value<'a>]> {
        match value {
            Value::Node(got, node) if got == kind => Some(&self.nodes[node].values),
            _ => None,
        }
    }

    /// The values of a tuple.
    pub(super) fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        self.values(value, Kind::Tuple)
    }

    /// The entries of a dictionary, in the file's order.
    pub(super) fn dict(&self, value: Value<'a>) -> Option<impl Iterator<Item = (Value<'a>, Value<'a>)>> {
        Some(self.values(value, Kind::Dict)?.chunks_exact(2).map(|pair| (pair[0], pair[1])))
    }

    /// The recorded call of an object.
    pub(super) fn object(&self, value: Value<'a>) -> Option<Object<'_, 'a>> {
        match *self.values(value, Kind::Object)? {
            [Value::Global(callable), args, ref state @ ..] => {
                // A persistent id is not always a tuple.
                let args = self.tuple(args).unwrap_or_default();
                Some(Object { callable, args, state: state.first().copied() })
            }
            _ => None,
        }
    }
}
