//! Hand-written pickles, most of them invalid, and corrupted valid ones.

use std::collections::BTreeMap;
use std::path::Path;

use crate::weights::Tensor;
use crate::weights::checkpoint::pickled;
use crate::weights::torch::Storages;

/// Reads the tensors of a pickle, as in a `.pdparams`.
fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, String> {
    pickled(bytes, Storages::new(), bytes.len(), None).map(|(tensors, _)| tensors)
}

/// Writes a pickle.
#[derive(Clone, Default)]
pub(in crate::weights) struct Pen(pub(in crate::weights) Vec<u8>);

impl Pen {
    pub(in crate::weights) fn new() -> Self {
        Self(b"\x80\x04".to_vec())
    }

    pub(in crate::weights) fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn repeat(mut self, bytes: &[u8], times: usize) -> Self {
        self.0.extend(bytes.repeat(times));
        self
    }

    pub(in crate::weights) fn text(self, text: &str) -> Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }

    fn raw(self, bytes: &[u8]) -> Self {
        self.op(b"B").op(&(bytes.len() as u32).to_le_bytes()).op(bytes)
    }

    pub(in crate::weights) fn int(self, number: i32) -> Self {
        self.op(b"J").op(&number.to_le_bytes())
    }

    pub(in crate::weights) fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    fn ints(self, numbers: &[i32]) -> Self {
        numbers.iter().fold(self.op(b"("), |pen, number| pen.int(*number)).op(b"t")
    }

    /// `dtype(code, False, True)`, with the byte order in its state.
    fn dtype(self, code: &str, order: &str) -> Self {
        self.global("numpy", "dtype").text(code).op(b"\x89\x88\x87R").op(b"(").int(3).text(order).op(b"NNNtb")
    }

    /// An array, as numpy pickles it. `data` writes its bytes.
    fn array(self, dtype: (&str, &str), shape: &[i32], data: impl FnOnce(Self) -> Self) -> Self {
        let array =
            self.global("numpy.core.multiarray", "_reconstruct").global("numpy", "ndarray").ints(&[0]).raw(b"b");
        let state = array.op(b"\x87R(").int(1).ints(shape).dtype(dtype.0, dtype.1).op(b"\x89");
        data(state).op(b"tb")
    }

    fn end(self) -> Vec<u8> {
        self.op(b".").0
    }
}

/// A dictionary of one tensor, `w`.
fn one(dtype: (&str, &str), shape: &[i32], data: impl FnOnce(Pen) -> Pen) -> Vec<u8> {
    Pen::new().op(b"}").text("w").array(dtype, shape, data).op(b"s").end()
}

#[test]
fn valid_pickles_are_read() {
    let bytes = one(("f4", "<"), &[2, 1], |pen| pen.raw(&[0, 0, 128, 63, 0, 0, 0, 64]));
    let tensors = read(&bytes).unwrap();
    assert_eq!((tensors["w"].shape.as_slice(), tensors["w"].data.as_slice()), (&[2, 1][..], &[1.0, 2.0][..]));
    // bfloat16, as Paddle writes it
    let tensors = read(&one(("u2", "<"), &[2], |pen| pen.raw(&[128, 63, 0, 64]))).unwrap();
    assert_eq!(tensors["w"].data, [1.0, 2.0]);
    // Paddle's (name, array), both ways
    let pair = |pen: Pen| pen.text("conv2d_0.w_0").array(("f4", "<"), &[1], |pen| pen.raw(&[0; 4])).op(b"\x86");
    let bare = pair(Pen::new().op(b"}").text("w")).op(b"s").end();
    let called = pair(Pen::new().op(b"}").text("w").global("builtins", "tuple")).op(b"\x85Rs").end();
    assert_eq!(read(&bare).unwrap()["w"].shape, [1]);
    assert_eq!(read(&called).unwrap()["w"].shape, [1]);
    // an ordered dictionary
    let ordered = Pen::new()
        .global("collections", "OrderedDict")
        .op(b")R")
        .text("w")
        .array(("f4", "<"), &[1], |pen| pen.raw(&[0; 4]));
    assert_eq!(read(&ordered.op(b"s").end()).unwrap().len(), 1);
}

#[test]
fn values_other_than_tensors_are_skipped() {
    let array = |pen: Pen| pen.array(("f4", "<"), &[1], |pen| pen.raw(&[0, 0, 128, 63])).op(b"q\x01");
    // An array, and the same array under a second name.
    let valid = || array(Pen::new().op(b"}").text("w")).op(b"s").text("tied").op(b"h\x01s");
    let object =
        |module: &str, name: &str| Pen::default().global(module, name).op(b")\x81}").text("lr").int(1).op(b"sb").0;
    let values: Vec<(&str, Vec<u8>)> = vec![
        ("a whole number", Pen::default().int(3).0),
        ("a fraction", b"G\x3f\xf0\0\0\0\0\0\0".to_vec()),
        ("a list of lists", b"]]a".to_vec()),
        ("arguments", object("argparse", "Namespace")),
        ("a path", Pen::default().global("pathlib", "PosixPath").op(b"(").text("runs").op(b"tR").0),
        ("a counter", Pen::default().global("collections", "Counter").op(b"}\x85R").0),
        ("a set of protocol 2", Pen::default().global("__builtin__", "set").op(b"]K\x01a\x85R").0),
        ("a set of protocol 4", b"\x8f(K\x01K\x02\x90".to_vec()),
        ("a frozen set", b"(K\x01\x91".to_vec()),
        ("a dictionary with numbers for keys", b"}K\x01}s".to_vec()),
        ("a dictionary with a default", {
            Pen::default()
                .global("collections", "defaultdict")
                .global("__builtin__", "list")
                .op(b"\x85R")
                .text("x")
                .int(1)
                .op(b"s")
                .0
        }),
        ("numpy's number", {
            Pen::default().global("numpy.core.multiarray", "scalar").dtype("f8", "<").raw(&[0; 8]).op(b"\x86R").0
        }),
    ];
    for (why, value) in values {
        let bytes = valid().text("beside").op(&value).op(b"s").end();
        let (tensors, found) =
            pickled(&bytes, Storages::new(), bytes.len(), None).unwrap_or_else(|e| panic!("{why}: {e}"));
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["tied", "w"], "{why}");
        assert_eq!(tensors["tied"], tensors["w"], "{why}");
        assert_eq!(found.left_out, ["beside"], "{why}");
    }
}

#[test]
fn invalid_pickles_are_rejected() {
    let four = |pen: Pen| pen.raw(&[0; 4]);
    let new = Pen::new;
    let bomb = (0..40_u8).fold(new().op(b")q\0"), |pen, i| pen.op(&[b'h', i, b'h', i, 0x86, b'q', i + 1]));
    let page = |pen: Pen| pen.raw(&vec![0; 1 << 16]);
    let mut sharing = new().op(b"}").text("first").array(("f4", "<"), &[1 << 14], page).op(b"q\x01s");
    for i in 0..64 {
        sharing = sharing.text(&i.to_string()).op(b"h\x01s");
    }
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "a call of the shell",
            new().global("posix", "system").text("id").op(b"\x85R").end(),
            "`posix.system` is not something a checkpoint holds; nothing was executed",
        ),
        (
            "the same by another opcode",
            new().text("builtins").text("eval").op(b"\x93").end(),
            "`builtins.eval` is not something",
        ),
        ("a name with line breaks", new().text("os\n\u{1b}[2J").text("x").op(b"\x93").end(), r"`os\n\u{1b}[2J.x`"),
        (
            "a function inside a function",
            new().global("numpy", "ndarray.__class__").end(),
            "`numpy.ndarray.__class__` is not",
        ),
        ("an old call", new().op(b"(X\x02\0\0\0idios\nsystem\n").end(), "opcode 0x69 (INST)"),
        ("a new object", new().global("numpy", "ndarray").op(b")\x81").end(), "not of a dictionary"),
        (
            "a new object of an unknown class",
            new().global("models", "Net").op(b")\x81").end(),
            "Save the state dictionary alone",
        ),
        ("a new object with keywords", new().global("numpy", "ndarray").op(b")}\x92").end(), "opcode 0x92 (NEWOBJ_EX)"),
        ("an extension", new().op(b"\x82\x01").end(), "opcode 0x82 (EXT1)"),
        ("a persistent id", new().text("x").op(b"Q").end(), "not of a dictionary"),
        (
            "a tensor whose argument is a persistent id",
            new().op(b"}").text("w").global("torch._utils", "_rebuild_tensor_v2").text("x").op(b"Q\x85Rs").end(),
            "`w` is a malformed tensor",
        ),
        ("an unknown opcode", new().op(b"\xff").end(), "opcode 0xff (unknown)"),
        ("a call of text", new().text("eval").op(b")R").end(), "calls something that is not a function"),
        ("protocol 6", b"\x80\x06.".to_vec(), "unsupported protocol 6"),
        ("a long text", new().op(b"X\xff\xff\xff\xffabc").end(), "expected 4294967295 more bytes, but 4 are left"),
        (
            "longer bytes",
            new().op(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc").end(),
            "expected 18446744073709551615 more bytes",
        ),
        ("a long byte array", new().op(b"\x96\0\0\0\0\0\0\0\x10abc").end(), "expected 1152921504606846976 more bytes"),
        ("a long frame", new().op(b"\x95\0\0\0\0\0\0\0\x80").end(), "expected 9223372036854775808 more bytes"),
        ("a long number", new().op(b"\x8a\xff").repeat(b"\x01", 255).end(), "a whole number of 255 bytes"),
        ("invalid text", new().op(b"X\x01\0\0\0\xff").end(), "not UTF-8"),
        ("a name without an end", new().op(b"c").repeat(b"a", 10_000).end(), "a global's name has no end"),
        ("open marks", new().repeat(b"(", 100_000).end(), "nested deeper than 32"),
        ("tuples in tuples", new().op(b")").repeat(b"\x85", 100_000).end(), "nested deeper than 32"),
        ("lists in lists", new().repeat(b"]", 60_000).repeat(b"a", 59_999).end(), "nested deeper than 32"),
        (
            "dictionaries in dictionaries",
            new().repeat(b"}N", 30_000).op(b"N").repeat(b"s", 30_000).end(),
            "nested deeper than 32",
        ),
        ("a tuple that doubles", bomb.end(), "expands to more than 4096"),
        (
            "a dictionary recalled",
            new().op(b"}q\0").repeat(b"(NNNNNNNNu", 1_000).repeat(b"h\0", 10_000).end(),
            "repeats its values too often",
        ),
        ("many values", new().repeat(b"N", 100_000).end(), "more than 65536 values at once"),
        ("many opcodes", new().op(b"}").repeat(b"(NNu", 300_000).end(), "more than 1048576 opcodes"),
        ("an unknown memo", new().op(b"h\x07").end(), "recalls memo 7"),
        ("an unknown large memo", new().op(b"j\xff\xff\xff\xff").end(), "recalls memo 4294967295"),
        ("nothing to remember", new().op(b"\x94").end(), "more values than there are"),
        ("too little for a tuple", new().op(b"N\x87").end(), "more values than there are"),
        ("reaching under a mark", new().op(b"NN(\x86").end(), "more values than there are"),
        ("a mark that was never set", new().op(b"}u").end(), "a mark that was never set"),
        ("a key without a value", new().op(b"}(Nu").end(), "key has no value"),
        ("an entry in a tuple", new().op(b")NNs").end(), "adds to a Dict"),
        ("a state for a text", new().text("x").op(b")b").end(), "sets the state"),
        ("no end", new().op(b"}").0, "is truncated"),
        ("an end without a value", new().end(), "more values than there are"),
        ("not a dictionary", new().op(b")").end(), "not of a dictionary of tensors"),
        ("a number of ten bytes", new().op(b"\x8a\x0a0123456789").end(), "a whole number of 10 bytes"),
        ("keys that are not text", new().op(b"}NNs").end(), "holds no tensors"),
        ("a value that is not an array", new().op(b"}").text("w").int(3).op(b"s").end(), "holds no tensors"),
        ("a dictionary in a dictionary", new().op(b"}").text("model").op(b"}s").end(), "holds no tensors"),
        ("a dictionary in itself", new().op(b"}q\0").text("w").op(b"h\0s").end(), "holds no tensors"),
        ("tensors in pieces", new().op(b"}").text("UnpackBigParamInfor@@").op(b"}s").end(), "more than 1 GB"),
        (
            "a tensor twice",
            new()
                .op(b"}")
                .text("w")
                .array(("f4", "<"), &[1], four)
                .op(b"s")
                .text("w")
                .array(("f4", "<"), &[1], four)
                .op(b"s")
                .end(),
            "`w` twice",
        ),
        ("bytes shared by many", sharing.end(), "more bytes than the file has"),
        ("a shape that overflows", one(("f4", "<"), &[i32::MAX; 4], four), "more bytes than the file has"),
        ("a shape too large", one(("f4", "<"), &[1 << 20], four), "more bytes than the file has"),
        ("a shape too small", one(("f4", "<"), &[2], |pen| pen.raw(&[0; 12])), "takes 8 bytes, but has 12"),
        ("a negative size", one(("f4", "<"), &[-1], four), "sizes that are not whole numbers"),
        ("nothing", one(("f4", "<"), &[0], four), "a size of zero"),
        ("nine dimensions", one(("f4", "<"), &[1; 9], four), "has 9 dimensions"),
        ("whole numbers", one(("i8", "<"), &[1], |pen| pen.raw(&[0; 8])), "numpy's type `i8`"),
        ("Python objects", one(("O8", "|"), &[1], |pen| pen.op(b"]Na")), "numpy's type `O8`"),
        ("big-endian numbers", one(("f4", ">"), &[1], four), "big-endian"),
        (
            "text that is not latin-1",
            one(("f4", "<"), &[1], |pen| {
                pen.global("_codecs", "encode").text("\u{3b1}bcd").text("latin1").op(b"\x86R")
            }),
            "has no bytes",
        ),
        (
            "text in another encoding",
            one(("f4", "<"), &[1], |pen| pen.global("_codecs", "encode").text("abcd").text("rot13").op(b"\x86R")),
            "has no bytes",
        ),
    ];
    for (why, bytes, want) in cases {
        match read(&bytes) {
            Err(text) => assert!(text.contains(want), "{why}: {text}"),
            Ok(tensors) => panic!("{why}: gave {tensors:?}"),
        }
    }
}

/// The bytes of a golden file, which PaddlePaddle wrote.
fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)).unwrap()
}

const GOLDENS: [&str; 3] = ["pickle.p2.pdparams", "pickle.p4.pdparams", "pickle.p5.pdparams"];

#[test]
fn a_truncated_file_is_an_error() {
    for name in GOLDENS {
        let bytes = golden(name);
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "{name} of {end} bytes");
        }
    }
}

#[test]
fn a_corrupted_file_never_panics() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    for name in GOLDENS {
        let valid = golden(name);
        for _ in 0..3_000 {
            let mut bytes = valid.clone();
            for _ in 0..=next(4) {
                let at = next(bytes.len());
                match next(4) {
                    0 => bytes[at] = next(256) as u8,
                    1 => bytes[at] ^= 1 << next(8),
                    2 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b"(t}]ubseaRhq\x85\x94\x93."[next(16)]),
                }
            }
            if let Ok(tensors) = read(&bytes) {
                let numbers: usize = tensors.values().map(|tensor| tensor.data.len()).sum();
                assert!(numbers <= bytes.len(), "{name}: more numbers than bytes");
            }
        }
    }
}
