//! The part of Python's pickle that checkpoints are written in, read as a description: **nothing is ever called**.
//!
//! A pickle is a program for a stack machine. [`machine`] knows the opcodes that `paddle.save` and `torch.save` emit in
//! protocols 2 to 5 and stops at any other. Where Python would import a name, it asks a list of [`Word`]s; where Python
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
pub(super) type Word = (&'static str, &'static str);

/// What Python would call to make an ordered dictionary; here it becomes a [`Kind::Dict`].
pub(super) const ORDERED_DICT: Word = ("collections", "OrderedDict");
/// The callable that stands for what a persistent id names: PyTorch's storages.
pub(super) const PERSISTENT: Word = ("", "persistent id");

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

    /// Every object there is, reachable or not.
    pub(super) fn objects(&self) -> impl Iterator<Item = Object<'_, 'a>> {
        (0..self.nodes.len()).filter_map(|node| match self.nodes[node].values.first() {
            Some(Value::Global(_)) => self.object(Value::Node(Kind::Object, node)),
            _ => None,
        })
    }
}
