//! Files by PyTorch itself, those files spoiled, and archives that PyTorch never wrote.

use std::io::Write;
use std::path::PathBuf;

use zip::write::{SimpleFileOptions, ZipWriter};

use super::super::Checkpoint;
use super::super::pickle::tests::Pen;
use super::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

/// Written by PyTorch, `tests/data/torch_files.py`.
#[test]
fn pytorchs_files_give_the_same_tensors_as_paddles() {
    let mut want = Checkpoint::open(golden("pickle.safetensors")).unwrap();
    for file in ["torch.pth", "torch.script.pth", "torch.views.pth"] {
        if file == "torch.views.pth" {
            want.tensors.insert("brain".into(), Tensor { shape: vec![1, 3], data: vec![0.5, -1.25, 3.0] });
        }
        let got = Checkpoint::open(golden(file)).unwrap();
        assert_eq!(got.tensors.keys().collect::<Vec<_>>(), want.tensors.keys().collect::<Vec<_>>(), "{file}");
        for (name, tensor) in &want.tensors {
            assert_eq!(&got.tensors[name], tensor, "{file}: {name}");
        }
    }
}

#[test]
fn channels_last_is_refused_with_a_way_out() {
    let text = Checkpoint::open(golden("torch.channels_last.pth")).unwrap_err().to_string();
    assert!(text.contains("torch.channels_last.pth: `conv.weight`") && text.contains(".contiguous()"), "{text}");
}

#[test]
fn two_names_differ_and_no_others() {
    let cases = [
        ("conv1.1.running_mean", "conv1.1._mean"),
        ("conv1.1.running_var", "conv1.1._variance"),
        ("conv1.1.weight", "conv1.1.weight"),
        ("running_mean", "running_mean"),     // of no layer
        ("my_running_var", "my_running_var"), // another word
        ("a.running_var.b", "a.running_var.b"),
    ];
    for (theirs, ours) in cases {
        assert_eq!(paddle_name(theirs), ours);
    }
}

/// Storage, offset, sizes and strides of a tensor under the pen.
struct Made<'a> {
    class: &'a str,
    numbers: i32,
    offset: i32,
    sizes: &'a [i32],
    strides: &'a [i32],
}

const PLAIN: Made<'_> = Made { class: "FloatStorage", numbers: 4, offset: 0, sizes: &[2, 2], strides: &[2, 1] };

impl Made<'_> {
    fn draw(&self, pen: Pen) -> Pen {
        let tuple = |pen: Pen, numbers: &[i32]| numbers.iter().fold(pen.op(b"("), |pen, n| pen.int(*n)).op(b"t");
        let storage = pen.global("torch._utils", "_rebuild_tensor_v2").op(b"((").text("storage");
        let storage = storage.global("torch", self.class).text("0").text("cpu").int(self.numbers).op(b"tQ");
        let sizes = tuple(storage.int(self.offset), self.sizes);
        tuple(sizes, self.strides).op(b"\x89").global("collections", "OrderedDict").op(b")RtR")
    }

    /// A state dictionary of this tensor alone.
    fn alone(&self) -> Vec<u8> {
        pickled(self.draw(Pen::new().op(b"}").text("w")).op(b"s."))
    }
}

fn pickled(pen: Pen) -> Vec<u8> {
    pen.0
}

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, data) in entries {
        writer.start_file(*name, stored).unwrap();
        writer.write_all(data).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

const FOUR: [u8; 16] = [0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64];

fn with_data(pickle: &[u8]) -> Vec<u8> {
    archive(&[("model/data.pkl", pickle), ("model/data/0", &FOUR)])
}

fn open(bytes: &[u8]) -> crate::error::Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path)
}

#[test]
fn an_honest_archive_by_hand_is_read() {
    let tensors = open(&with_data(&PLAIN.alone())).unwrap().tensors;
    assert_eq!(tensors["w"], Tensor { shape: vec![2, 2], data: vec![1.0, 2.0, 3.0, 4.0] });
    let part = Made { offset: 1, sizes: &[3], strides: &[1], ..PLAIN };
    assert_eq!(open(&with_data(&part.alone())).unwrap().tensors["w"].data, [2.0, 3.0, 4.0]);
    for key in KEYS {
        let wrapped = PLAIN.draw(Pen::new().op(b"}").text(key).op(b"}").text("w")).op(b"ss.");
        assert_eq!(open(&with_data(&pickled(wrapped))).unwrap().tensors["w"].shape, [2, 2], "{key}");
    }
}

#[test]
fn what_pytorch_never_wrote_is_refused() {
    let canary = std::env::temp_dir().join(format!("rtformer-canary-{}", std::process::id()));
    let shell = Pen::new().global("os", "system").text(&format!("touch {}", canary.display())).op(b"\x85R.");
    let eval = Pen::new().global("builtins", "eval").text("1").op(b"\x85R.");
    let hook = Pen::new().global("torch.serialization", "load").op(b")R.");
    let dict = |pen: fn(Pen) -> Pen| with_data(&pickled(pen(Pen::new())));
    let made = |made: Made<'_>| with_data(&made.alone());
    let plain = PLAIN.alone();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a call of the shell", with_data(&pickled(shell)), "`os.system` is not something a PyTorch state dictionary"),
        ("a call of eval", with_data(&pickled(eval)), "`builtins.eval` is not something"),
        ("another of PyTorch's functions", with_data(&pickled(hook)), "`torch.serialization.load` is not something"),
        ("an archive of photos", archive(&[("photo.jpg", b"\xff\xd8\xff")]), "without a `data.pkl`"),
        ("nothing in it", archive(&[]), "model.pth"),
        (
            "two pickles",
            archive(&[("a/data.pkl", &plain), ("b/data.pkl", &plain), ("a/data/0", &FOUR)]),
            "several pickles",
        ),
        ("an empty pickle", with_data(b""), "byte 0 of the pickle"),
        ("a list", dict(|pen| pen.op(b"].")), "does not hold a dictionary"),
        ("no tensors", dict(|pen| pen.op(b"}.")), "holds no tensors"),
        ("numbers alone", dict(|pen| pen.op(b"}").text("epoch").int(3).op(b"s.")), "holds no tensors"),
        ("no such storage", archive(&[("model/data.pkl", &plain)]), "`w` cannot be read"),
        (
            "a storage too short",
            archive(&[("model/data.pkl", &plain), ("model/data/0", &FOUR[..12])]),
            "`w` cannot be read",
        ),
        ("whole numbers for weights", made(Made { class: "IntStorage", ..PLAIN }), "`torch.IntStorage` is not"),
        (
            "a shape that overflows",
            made(Made { sizes: &[9, 9, 9, 9, 9, 9, 9, 9], strides: &[1; 8], ..PLAIN }),
            "malformed",
        ),
        ("a size past the file", made(Made { sizes: &[i32::MAX, 2], ..PLAIN }), "malformed tensor"),
        ("more numbers than the storage", made(Made { sizes: &[2, 40], strides: &[40, 1], ..PLAIN }), "cannot be read"),
        ("a negative size", made(Made { sizes: &[-2, 2], ..PLAIN }), "malformed tensor"),
        ("a negative offset", made(Made { offset: -1, ..PLAIN }), "malformed tensor"),
        ("an offset past the storage", made(Made { offset: 3, ..PLAIN }), "`w` cannot be read"),
        ("a stride for no size", made(Made { strides: &[2, 1, 1], ..PLAIN }), "malformed tensor"),
        ("nine dimensions", made(Made { sizes: &[1; 9], strides: &[1; 9], ..PLAIN }), "malformed tensor"),
        ("one number everywhere", made(Made { strides: &[0, 0], ..PLAIN }), ".contiguous()"),
        (
            "a parameter of nothing",
            dict(|pen| pen.op(b"}").text("w").global("torch._utils", "_rebuild_parameter").op(b")Rs.")),
            { "a parameter of nothing" },
        ),
        ("NaN", archive(&[("m/data.pkl", &plain), ("m/data/0", &[0xff; 16])]), "tensor `w` holds NaN"),
    ];
    for (why, bytes, want) in cases {
        match open(&bytes) {
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(want) && text.contains("model.pth"), "{why}: {text}");
            }
            Ok(checkpoint) => panic!("{why}: gave {checkpoint:?}"),
        }
    }
    assert!(!canary.exists(), "something was executed");
}

#[test]
fn tensors_that_share_bytes_cannot_grow_past_the_file() {
    let page = Made { numbers: 1024, sizes: &[1024], strides: &[1], ..PLAIN };
    let shared = |tensors: usize| {
        let pen = (0..tensors).fold(Pen::new().op(b"}"), |pen, i| page.draw(pen.text(&i.to_string())).op(b"s"));
        open(&archive(&[("m/data.pkl", &pickled(pen.op(b"."))), ("m/data/0", &[0; 4096])]))
    };
    assert_eq!(shared(1).unwrap().tensors["0"].shape, [1024]);
    let text = shared(64).unwrap_err().to_string();
    assert!(text.contains("more bytes than the file"), "{text}");
}

/// [`Checkpoint::open`] of bytes that most often never get as far as candle, which must have a file.
fn open_spoiled(path: &Path, bytes: &[u8]) -> Option<Checkpoint> {
    vet(bytes).ok()?;
    std::fs::write(path, bytes).unwrap();
    Checkpoint::open(path).ok()
}

#[test]
fn a_truncated_archive_is_an_error_wherever_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    let bytes = std::fs::read(golden("torch.pth")).unwrap();
    for end in 0..bytes.len() {
        assert!(open_spoiled(&path, &bytes[..end]).is_none(), "{end} of {} bytes", bytes.len());
    }
}

#[test]
fn a_spoiled_archive_is_an_error_or_other_numbers_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    for name in ["torch.pth", "torch.views.pth"] {
        let honest = std::fs::read(golden(name)).unwrap();
        for _ in 0..1_500 {
            let mut bytes = honest.clone();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                bytes[at] = match next(3) {
                    0 => next(256) as u8,
                    1 => bytes[at] ^ (1 << next(8)),
                    _ => b"(t}]ubseaRhqQ\x85K."[next(16)],
                };
            }
            if let Some(checkpoint) = open_spoiled(&path, &bytes) {
                let numbers: usize = checkpoint.tensors.values().map(|tensor| tensor.data.len()).sum();
                assert!(numbers <= bytes.len(), "{name}: more numbers than bytes");
            }
        }
    }
}
