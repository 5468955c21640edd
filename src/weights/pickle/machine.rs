//! The stack machine.

use std::collections::HashMap;

use super::{DEFAULT_DICT, Kind, Node, ORDERED_DICT, PERSISTENT, Pickle, Value, WORDS};

/// The most opcodes. A checkpoint of RTFormer has about 300 tensors of about 30 opcodes each.
const OPCODES: usize = 1 << 20;
/// The most values on the stack. Python writes dictionaries in batches of 1000 pairs.
const STACK: usize = 1 << 16;
/// The most levels of nesting. A checkpoint has few: a dictionary, in it an array, in that its state, in that a shape.
const DEPTH: usize = 32;
/// The most nodes of a tuple or object if nothing were shared. The largest in a checkpoint is an array, with about 300.
const WEIGHT: usize = 1 << 12;
/// The most nodes that are stored in or recalled from the memo: those that a reader would allocate if it copied instead of sharing.
const MEMO: usize = 1 << 22;

/// Reads a pickle whose globals are all in [`WORDS`]. Returns its nodes and root.
///
/// # Errors
/// A description of the problem, with the number of the byte.
pub(in crate::weights) fn read(bytes: &[u8]) -> Result<(Pickle<'_>, Value<'_>), String> {
    let mut machine = Machine { bytes, ..Machine::default() };
    for _ in 0..OPCODES {
        let start = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return Ok((machine.made, root)),
            Err(reason) => return Err(format!("byte {start} of the pickle: {reason}")),
        }
    }
    Err(format!("the pickle has more than {OPCODES} opcodes; a checkpoint has some thousands"))
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// The position of each open mark on the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    /// The number of nodes that were stored in or recalled from the memo so far.
    copied: usize,
    made: Pickle<'a>,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    /// Executes one opcode. Returns the root at the end.
    fn step(&mut self) -> Step<Option<Value<'a>>> {
        let opcode = self.number(1)? as u8;
        match opcode {
            0x80 => match self.number(1)? {
                2..=5 => {}
                other => return Err(format!("unsupported protocol {other}; expected 2 to 5")),
            },
            0x95 => {
                // A frame only states the number of bytes that follow.
                let (length, left) = (self.number(8)?, self.bytes.len() - self.at);
                if length > left as u64 {
                    return Err(too_long(length, left));
                }
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => self.whole(4, true)?,
            b'K' => self.whole(1, false)?,
            b'M' => self.whole(2, false)?,
            0x8a => {
                let width = self.number(1)?;
                self.whole(width, true)?;
            }
            b'G' => {
                self.number(8)?;
                self.push(Value::Float)?;
            }
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' => self.raw(1)?,
            b'B' => self.raw(4)?,
            0x8e | 0x96 => self.raw(8)?,
            b'(' if self.marks.len() == DEPTH => return Err(too_deep()),
            b'(' => self.marks.push(self.stack.len()),
            b')' => self.tuple(0)?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' | 0x91 => {
                let count = self.since_mark()?;
                self.tuple(count)?;
            }
            b'}' => self.make(Kind::Dict, &[])?,
            // Sets are read as lists.
            b']' | 0x8f => self.make(Kind::List, &[])?,
            b's' => self.add(Kind::Dict, 2)?,
            b'a' => self.add(Kind::List, 1)?,
            b'u' => {
                let count = self.since_mark()?;
                self.add(Kind::Dict, count)?;
            }
            b'e' | 0x90 => {
                let count = self.since_mark()?;
                self.add(Kind::List, count)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.global(module, name)?,
                _ => return Err("imports something whose name is not text; nothing was executed".into()),
            },
            b'R' | 0x81 => self.reduce()?,
            b'b' => self.build()?,
            b'Q' => {
                let id = self.pop()?;
                self.make(Kind::Object, &[Value::Global(PERSISTENT), id])?;
            }
            b'q' => self.remember(1)?,
            b'r' => self.remember(4)?,
            0x94 => self.remember_as(self.memo.len() as u32)?,
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'.' => return self.pop().map(Some),
            _ => {
                let name = REFUSED.iter().find(|(code, _)| *code == opcode).map_or("unknown", |(_, name)| name);
                return Err(format!(
                    "opcode 0x{opcode:02x} ({name}) is not something a checkpoint holds; nothing was executed"
                ));
            }
        }
        Ok(None)
    }

    // ---- bytes

    fn take(&mut self, length: u64) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        if length > rest.len() as u64 {
            return Err(too_long(length, rest.len()));
        }
        self.at += length as usize;
        Ok(&rest[..length as usize])
    }

    /// An unsigned little-endian number of up to eight bytes.
    fn number(&mut self, width: u64) -> Step<u64> {
        let mut number = [0; 8];
        number[..width as usize].copy_from_slice(self.take(width)?);
        Ok(u64::from_le_bytes(number))
    }

    fn whole(&mut self, width: u64, signed: bool) -> Step<()> {
        if width > 8 {
            return Err(format!("a whole number of {width} bytes; expected at most 8"));
        }
        let unused = 64 - 8 * width as u32;
        let number = self.number(width)?;
        let number = if signed && unused < 64 { (number << unused) as i64 >> unused } else { number as i64 };
        self.push(Value::Int(number))
    }

    fn text(&mut self, width: u64) -> Step<()> {
        let length = self.number(width)?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|e| format!("a text is not UTF-8 ({e})"))?;
        self.push(Value::Text(text))
    }

    fn raw(&mut self, width: u64) -> Step<()> {
        let length = self.number(width)?;
        let bytes = self.take(length)?;
        self.push(Value::Bytes(bytes))
    }

    /// A line of text: a global's module or name.
    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(256).position(|&byte| byte == b'\n').ok_or("a global's name has no end")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|e| format!("a global's name is not UTF-8 ({e})"))
    }

    // ---- stack

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        if self.stack.len() == STACK {
            return Err(format!("more than {STACK} values at once; a checkpoint has some thousands"));
        }
        self.stack.push(value);
        Ok(())
    }

    /// Pops the top `count` values. Values below the last mark cannot be popped.
    fn pop_many(&mut self, count: usize) -> Step<Vec<Value<'a>>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= floor => Ok(self.stack.split_off(start)),
            _ => Err("takes more values than there are".into()),
        }
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        Ok(self.pop_many(1)?[0])
    }

    fn since_mark(&mut self) -> Step<usize> {
        let mark = self.marks.pop().ok_or("closes a mark that was never set")?;
        Ok(self.stack.len() - mark)
    }

    // ---- nodes

    fn make(&mut self, kind: Kind, values: &[Value<'a>]) -> Step<()> {
        let handle = Value::Node(kind, self.made.nodes.len());
        self.made.nodes.push(Node { weight: 1, ..Node::default() });
        self.fill(handle, values)?;
        self.push(handle)
    }

    /// Adds values to a node.
    fn fill(&mut self, handle: Value<'a>, values: &[Value<'a>]) -> Step<()> {
        let Value::Node(kind, node) = handle else {
            return Err("adds values to something that cannot hold any".into());
        };
        let weight: usize = values.iter().map(|value| self.weight(*value)).sum();
        let depth = values.iter().map(|value| 1 + self.depth(*value)).max().unwrap_or(0);
        let node = &mut self.made.nodes[node];
        node.weight += weight;
        node.depth = node.depth.max(depth);
        node.values.extend_from_slice(values);
        if node.depth > DEPTH {
            return Err(too_deep());
        }
        if node.weight > WEIGHT && matches!(kind, Kind::Tuple | Kind::Object) {
            return Err(format!(
                "one value expands to more than {WEIGHT} by nesting or repetition; no checkpoint has such a value"
            ));
        }
        Ok(())
    }

    fn weight(&self, value: Value<'a>) -> usize {
        match value {
            Value::Node(_, node) => self.made.nodes[node].weight,
            // In protocol 2, long text is an array's bytes, which are never copied.
            Value::Text(text) => 1 + text.len().min(4096) / 16,
            _ => 1,
        }
    }

    fn depth(&self, value: Value<'a>) -> usize {
        match value {
            Value::Node(_, node) => self.made.nodes[node].depth,
            _ => 0,
        }
    }

    fn tuple(&mut self, count: usize) -> Step<()> {
        let values = self.pop_many(count)?;
        self.make(Kind::Tuple, &values)
    }

    /// Moves the top `count` values into the dictionary or list under them.
    fn add(&mut self, kind: Kind, count: usize) -> Step<()> {
        let values = self.pop_many(count)?;
        if kind == Kind::Dict && !count.is_multiple_of(2) {
            return Err("a dictionary's key has no value".into());
        }
        let top = self.pop()?;
        if !matches!(top, Value::Node(got, _) if got == kind) {
            return Err(format!("adds to a {kind:?}, but there is none"));
        }
        self.fill(top, &values)?;
        self.push(top)
    }

    fn global(&mut self, module: &str, name: &str) -> Step<()> {
        let Some(word) = WORDS.iter().find(|word| **word == (module, name)) else {
            let shown: String = format!("{module}.{name}").chars().take(80).flat_map(char::escape_debug).collect();
            return Err(format!(
                "`{shown}` is not something a checkpoint holds; nothing was executed. Save the state dictionary alone"
            ));
        };
        self.push(Value::Global(*word))
    }

    fn reduce(&mut self) -> Step<()> {
        let (args, callable) = (self.pop()?, self.pop()?);
        let (Value::Node(Kind::Tuple, node), Value::Global(word)) = (args, callable) else {
            return Err(
                "calls something that is not a function, or without a tuple of arguments; nothing was executed".into(),
            );
        };
        if word == DEFAULT_DICT || word == ORDERED_DICT && self.made.nodes[node].values.is_empty() {
            return self.make(Kind::Dict, &[]);
        }
        self.make(Kind::Object, &[callable, args])
    }

    fn build(&mut self) -> Step<()> {
        let (state, top) = (self.pop()?, self.pop()?);
        match top {
            Value::Node(Kind::Object, node) if self.made.nodes[node].values.len() == 2 => self.fill(top, &[state])?,
            // The `_metadata` of a state dictionary, which PyTorch writes. Not used.
            Value::Node(Kind::Dict, _) => {}
            _ => return Err("sets the state of something that has none, or sets it twice".into()),
        }
        self.push(top)
    }

    // ---- memo

    fn remember(&mut self, width: u64) -> Step<()> {
        let key = self.number(width)?;
        self.remember_as(key as u32)
    }

    fn remember_as(&mut self, key: u32) -> Step<()> {
        let value = self.pop()?;
        self.copy(value)?;
        self.memo.insert(key, value);
        self.push(value)
    }

    fn recall(&mut self, width: u64) -> Step<()> {
        let key = self.number(width)?;
        let value = *self.memo.get(&(key as u32)).ok_or_else(|| format!("recalls memo {key}, which was never set"))?;
        self.copy(value)?;
        self.push(value)
    }

    fn copy(&mut self, value: Value<'a>) -> Step<()> {
        self.copied += self.weight(value);
        if self.copied > MEMO {
            return Err("repeats its values too often; no checkpoint does".into());
        }
        Ok(())
    }
}

fn too_deep() -> String {
    format!("nested deeper than {DEPTH} levels; no checkpoint is")
}

fn too_long(length: u64, left: usize) -> String {
    format!(
        "expected {length} more bytes, but {left} are left: the file is truncated, or its lengths are wrong; download or copy it again"
    )
}

/// Python's opcodes that are rejected here, so that an error can name them.
const REFUSED: [(u8, &str); 24] = [
    (b'0', "POP"),
    (b'1', "POP_MARK"),
    (b'2', "DUP"),
    (b'F', "FLOAT"),
    (b'I', "INT"),
    (b'L', "LONG"),
    (b'P', "PERSID"),
    (b'S', "STRING"),
    (b'T', "BINSTRING"),
    (b'U', "SHORT_BINSTRING"),
    (b'V', "UNICODE"),
    (b'd', "DICT"),
    (b'g', "GET"),
    (b'i', "INST"),
    (b'l', "LIST"),
    (b'o', "OBJ"),
    (b'p', "PUT"),
    (0x82, "EXT1"),
    (0x83, "EXT2"),
    (0x84, "EXT4"),
    (0x8b, "LONG4"),
    (0x92, "NEWOBJ_EX"),
    (0x97, "NEXT_BUFFER"),
    (0x98, "READONLY_BUFFER"),
];
