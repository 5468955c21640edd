//! The part of Python's pickle that checkpoints are written in, read as a description: **nothing is ever called**.
//!
//! A pickle is a program for a stack machine. [`machine`] knows the opcodes that `paddle.save` and `torch.save` emit in
//! protocols 2 to 5 and stops at any other. Where Python would import a name, it asks the list [`WORDS`]; where Python
//! would call, it writes down what would have been called, and with what.
//!
//! Memory stays in proportion to the file: text and bytes are borrowed from it, every length is checked against the
//! bytes that are left, and everything else is a small node per opcode. Values are handles to nodes, so that a
//! memoised object is shared by whatever recalls it; and since nothing here recurses, no depth exhausts the stack.

mod machine;
#[cfg(test)]
pub(super) mod tests;

pub(super) use machine::read;

/// A module and a name in it.
type Word = (&'static str, &'static str);

/// What Python would call to make an ordered dictionary; here it becomes a [`Kind::Dict`].
const ORDERED_DICT: Word = ("collections", "OrderedDict");
/// A dictionary with a default; here a [`Kind::Dict`] too.
const DEFAULT_DICT: Word = ("collections", "defaultdict");
/// The callable that stands for what a persistent id names: PyTorch's storages.
pub(super) const PERSISTENT: Word = ("", "persistent id");
/// What makes PyTorch's tensors.
pub(super) const REBUILD_TENSOR: Word = ("torch._utils", "_rebuild_tensor_v2");

/// Everything that a checkpoint may name: arrays, and the plain values that training scripts save beside them.
#[rustfmt::skip]
const WORDS: [Word; 59] = [
    // Numpy's arrays, by the names of both its generations, and its single numbers.
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
    // Paddle wraps a tensor as `tuple((name, array))` where a checkpoint is no plain state dictionary.
    ("builtins", "tuple"), ("__builtin__", "tuple"),
    ORDERED_DICT, DEFAULT_DICT, ("collections", "Counter"),
    ("builtins", "set"), ("__builtin__", "set"), ("builtins", "frozenset"), ("__builtin__", "frozenset"),
    ("builtins", "dict"), ("__builtin__", "dict"), ("builtins", "list"), ("__builtin__", "list"),
    ("builtins", "int"), ("__builtin__", "int"), ("builtins", "float"), ("__builtin__", "float"),
    ("builtins", "bool"), ("__builtin__", "bool"),
    // A script's arguments and settings.
    ("argparse", "Namespace"), ("types", "SimpleNamespace"), ("datetime", "datetime"),
    ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("pathlib", "PurePosixPath"),
    ("pathlib._local", "PosixPath"), ("pathlib._local", "WindowsPath"),
    ("torch", "Size"), ("torch", "device"),
    ("torch", "float32"), ("torch", "float64"), ("torch", "float16"), ("torch", "bfloat16"),
    ("torch", "int64"), ("torch", "uint8"), ("torch", "bool"),
];

/// A convolution's kernel has four dimensions.
const MOST_DIMENSIONS: usize = 8;

/// A tuple of sizes or strides.
///
/// # Errors
/// What is wrong with it, as a phrase that follows the tensor's name.
pub(super) fn sizes<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<Vec<usize>, String> {
    let sizes = pickle.tuple(value).ok_or("has no shape")?;
    if sizes.len() > MOST_DIMENSIONS {
        return Err(format!("has {} dimensions, a weight has at most {MOST_DIMENSIONS}", sizes.len()));
    }
    let size = |size: &Value<'_>| match size {
        Value::Int(size) => usize::try_from(*size).ok(),
        _ => None,
    };
    sizes.iter().map(size).collect::<Option<_>>().ok_or_else(|| "has sizes that are not whole numbers".into())
}

/// A pickle's value; what is compound is a handle to a node of the [`Pickle`].
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
    /// The number of its node.
    pub(super) fn node(self) -> Option<usize> {
        match self {
            Self::Node(_, node) => Some(node),
            _ => None,
        }
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tuple,
    List,
    /// Its values are key, value, key, value …
    Dict,
    /// Its values are what would have been called, with which tuple, and the state set afterwards if there was one.
    Object,
}

#[derive(Debug, Default)]
struct Node<'a> {
    values: Vec<Value<'a>>,
    /// How many nodes it would be, written out with nothing shared.
    weight: usize,
    /// How deep it goes.
    depth: usize,
}

/// What a pickle describes.
#[derive(Debug, Default)]
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
}

/// What Python would have made by calling `callable` with `args`, and then giving it `state`.
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

    /// A tuple's values.
    pub(super) fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        self.values(value, Kind::Tuple)
    }

    /// A dictionary's entries, in the file's order.
    pub(super) fn dict(&self, value: Value<'a>) -> Option<impl Iterator<Item = (Value<'a>, Value<'a>)>> {
        Some(self.values(value, Kind::Dict)?.chunks_exact(2).map(|pair| (pair[0], pair[1])))
    }

    /// What would have been called.
    pub(super) fn object(&self, value: Value<'a>) -> Option<Object<'_, 'a>> {
        match *self.values(value, Kind::Object)? {
            [Value::Global(callable), args, ref state @ ..] => {
                // A persistent id need not be a tuple.
                let args = self.tuple(args).unwrap_or_default();
                Some(Object { callable, args, state: state.first().copied() })
            }
            _ => None,
        }
    }
}
