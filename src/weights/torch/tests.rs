//! Files that PyTorch wrote, corrupted copies of them, and archives that PyTorch never writes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use zip::write::{SimpleFileOptions, ZipWriter};

use super::super::pickle::tests::Pen;
use super::super::{Checkpoint, checkpoint};
use super::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

/// PyTorch wrote the files, with `tests/data/torch_files.py`.
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
fn channels_last_gives_the_same_tensor() {
    let want = Checkpoint::open(golden("pickle.safetensors")).unwrap();
    let got = Checkpoint::open(golden("torch.channels_last.pth")).unwrap();
    assert_eq!(got.tensors["conv.weight"], want.tensors["conv.weight"]);
}

/// PyTorch wrote the file, with `tests/data/torch_files.py`.
#[test]
fn a_training_scripts_file_gives_its_network() {
    let path = golden("torch.training.pth");
    let (averaged, latest) = (Checkpoint::open(&path).unwrap(), Checkpoint::open_part(&path, "model").unwrap());
    assert_eq!(averaged.tensors["conv1.0.weight"].data[0], 1.0);
    assert_eq!(averaged.tensors["conv1.1._mean"].data, [0.5, 0.5]);
    assert_eq!(averaged.tensors["seghead_extra.conv1.weight"], averaged.tensors["seghead.conv1.weight"], "tied");
    assert_eq!((averaged.found.dictionary.as_str(), averaged.found.prefix.as_str()), ("model_ema", ""));
    assert_eq!((averaged.found.renamed, &averaged.found.left_out[..]), (2, &[][..]));
    assert_eq!(averaged.found.alternatives, ["model.module"]);
    assert_eq!(latest.tensors["conv1.0.weight"].data[0], 0.5);
    assert_eq!((latest.found.dictionary.as_str(), latest.found.prefix.as_str()), ("model", "module."));
    assert_eq!(latest.tensors.len() + 1, averaged.tensors.len(), "the same names without prefix, and no counter");
    let text = Checkpoint::open_part(&path, "optimizer").unwrap_err().to_string();
    assert!(text.contains("has no part `optimizer`; it has `model.module`, `model_ema`"), "{text}");
}

#[test]
fn pytorchs_other_files_are_named() {
    let cases = [
        ("torch.optimizer.pth", "holds the state of an optimizer, not a model"),
        ("torch.legacy.pth", "is PyTorch's format from before 1.6; load it with PyTorch and save it again"),
        ("torch.script.pt", "is a TorchScript archive; save its parameters"),
    ];
    for (file, want) in cases {
        let text = Checkpoint::open(golden(file)).unwrap_err().to_string();
        assert!(text.contains(file) && text.contains(want), "{text}");
    }
}

/// The storage, offset, sizes and strides of a tensor to write.
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

    /// A state dictionary with only this tensor.
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

/// The archive with the ZIP64 records that PyTorch always writes.
fn with_zip64(mut archive: Vec<u8>) -> Vec<u8> {
    let at = archive.len() - 22;
    let end = archive.split_off(at);
    let little = |from: usize, to: usize| end[from..to].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let (entries, size, offset) = (little(10, 12), little(12, 16), little(16, 20));
    archive.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x1e\x03\x2d\0\0\0\0\0\0\0\0\0");
    archive.extend([entries, entries, size, offset].map(u64::to_le_bytes).as_flattened());
    archive.extend(b"PK\x06\x07\0\0\0\0");
    archive.extend((at as u64).to_le_bytes());
    archive.extend([&[1, 0, 0, 0], &*end].concat());
    archive
}

/// The folder in the archive has the name of the file. With 21 characters, the first entry is as long as the ZIP64 records.
#[test]
fn a_file_may_have_a_name_of_any_length() {
    for length in 1..40 {
        let folder = "x".repeat(length);
        let program = PLAIN.alone();
        let parts = [(format!("{folder}/data.pkl"), &*program), (format!("{folder}/data/0"), &[0; 16])];
        let file = with_zip64(archive(&parts.each_ref().map(|(name, part)| (&**name, *part))));
        let (got, storages) = super::open(&file).unwrap_or_else(|error| panic!("{length}: {error}"));
        assert_eq!((got, storages["0"]), (&*program, &[0; 16][..]), "{length}");
    }
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
fn valid_archives_are_read() {
    let tensors = open(&with_data(&PLAIN.alone())).unwrap().tensors;
    assert_eq!(tensors["w"], Tensor { shape: vec![2, 2], data: vec![1.0, 2.0, 3.0, 4.0] });
    let part = Made { offset: 1, sizes: &[3], strides: &[1], ..PLAIN };
    assert_eq!(open(&with_data(&part.alone())).unwrap().tensors["w"].data, [2.0, 3.0, 4.0]);
    for key in ["state_dict", "model", "any other key"] {
        let wrapped = PLAIN.draw(Pen::new().op(b"}").text(key).op(b"}").text("w")).op(b"ss.");
        assert_eq!(open(&with_data(&pickled(wrapped))).unwrap().tensors["w"].shape, [2, 2], "{key}");
    }
    let views = [
        (Made { strides: &[1, 2], ..PLAIN }, vec![1.0, 3.0, 2.0, 4.0]), // transposed
        (Made { sizes: &[2], strides: &[2], ..PLAIN }, vec![1.0, 3.0]), // a column
        (Made { strides: &[0, 0], ..PLAIN }, vec![1.0; 4]),             // expanded
        (
            Made { class: "IntStorage", ..PLAIN },
            [0x3f80_0000, 0x4000_0000, 0x4040_0000, 0x4080_0000].map(|n| n as f32).to_vec(),
        ),
        (Made { class: "HalfStorage", numbers: 8, ..PLAIN }, vec![0.0, 1.875, 0.0, 2.0]),
        (Made { class: "BoolStorage", numbers: 16, offset: 2, ..PLAIN }, vec![128.0, 63.0, 0.0, 0.0]),
    ];
    for (view, want) in views {
        assert_eq!(
            open(&with_data(&view.alone())).unwrap().tensors["w"].data,
            want,
            "{:?} {:?}",
            view.class,
            view.strides
        );
    }
}

#[test]
fn invalid_archives_are_rejected() {
    let canary = std::env::temp_dir().join(format!("rtformer-canary-{}", std::process::id()));
    let shell = Pen::new().global("os", "system").text(&format!("touch {}", canary.display())).op(b"\x85R.");
    let eval = Pen::new().global("builtins", "eval").text("1").op(b"\x85R.");
    let hook = Pen::new().global("torch.serialization", "load").op(b")R.");
    let dict = |pen: fn(Pen) -> Pen| with_data(&pickled(pen(Pen::new())));
    let made = |made: Made<'_>| with_data(&made.alone());
    let plain = PLAIN.alone();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a call of the shell", with_data(&pickled(shell)), "`os.system` is not something a checkpoint"),
        ("a call of eval", with_data(&pickled(eval)), "`builtins.eval` is not something"),
        ("another of PyTorch's functions", with_data(&pickled(hook)), "`torch.serialization.load` is not something"),
        ("an archive of photos", archive(&[("photo.jpg", b"\xff\xd8\xff")]), "without a `data.pkl`"),
        ("an empty archive", archive(&[]), "an empty zip archive"),
        ("a zipped checkpoint", archive(&[("run/model.pdparams", b"\x80\x02}.")]), "unpack it first"),
        ("numpy's archive", archive(&[("w.npy", b"\x93NUMPY")]), "numpy's archive of arrays"),
        ("big-endian", archive(&[("m/data.pkl", &plain), ("m/byteorder", b"big"), ("m/data/0", &FOUR)]), "big-endian"),
        ("a damaged part", damaged(&with_data(&plain)), "its part `data/0` is damaged"),
        (
            "two pickles",
            archive(&[("a/data.pkl", &plain), ("b/data.pkl", &plain), ("a/data/0", &FOUR)]),
            "several pickles",
        ),
        ("an empty pickle", with_data(b""), "byte 0 of the pickle"),
        ("a list", dict(|pen| pen.op(b"].")), "not of a dictionary of tensors"),
        ("no tensors", dict(|pen| pen.op(b"}.")), "holds no tensors"),
        ("only numbers", dict(|pen| pen.op(b"}").text("epoch").int(3).op(b"s.")), "holds no tensors"),
        ("no such storage", archive(&[("model/data.pkl", &plain)]), "the part `data/0`, which is missing"),
        (
            "a storage too short",
            archive(&[("model/data.pkl", &plain), ("model/data/0", &FOUR[..12])]),
            "`w` needs 4 numbers in the part `data/0`, which has 12 bytes",
        ),
        ("complex numbers", made(Made { class: "ComplexFloatStorage", ..PLAIN }), "`torch.ComplexFloatStorage` is not"),
        (
            "a shape that overflows",
            made(Made { sizes: &[9, 9, 9, 9, 9, 9, 9, 9], strides: &[1; 8], ..PLAIN }),
            "more bytes than the file has",
        ),
        ("a size past the file", made(Made { sizes: &[i32::MAX, 2], ..PLAIN }), "more bytes than the file has"),
        ("more numbers than the storage", made(Made { sizes: &[2, 40], strides: &[40, 1], ..PLAIN }), "past the end"),
        ("a negative size", made(Made { sizes: &[-2, 2], ..PLAIN }), "sizes that are not whole numbers"),
        ("a negative stride", made(Made { strides: &[2, -1], ..PLAIN }), "sizes that are not whole numbers"),
        ("strides that overflow", made(Made { strides: &[i32::MAX, i32::MAX], ..PLAIN }), "past the end"),
        ("a negative length", made(Made { numbers: -1, ..PLAIN }), "needs -1 numbers"),
        ("a negative offset", made(Made { offset: -1, ..PLAIN }), "malformed tensor"),
        ("an offset past the storage", made(Made { offset: 3, ..PLAIN }), "past the end of its storage"),
        ("a stride without a size", made(Made { strides: &[2, 1, 1], ..PLAIN }), "has 2 sizes and 3 strides"),
        ("nine dimensions", made(Made { sizes: &[1; 9], strides: &[1; 9], ..PLAIN }), "has 9 dimensions"),
        (
            "a parameter without a tensor",
            dict(|pen| pen.op(b"}").text("w").global("torch._utils", "_rebuild_parameter").op(b")Rs.")),
            "a parameter without a tensor",
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
    let page = Made { numbers: 1 << 14, sizes: &[1 << 14], strides: &[1], ..PLAIN };
    let shared = |tensors: usize| {
        let pen = (0..tensors).fold(Pen::new().op(b"}"), |pen, i| page.draw(pen.text(&i.to_string())).op(b"s"));
        open(&archive(&[("m/data.pkl", &pickled(pen.op(b"."))), ("m/data/0", &vec![0; 1 << 16])]))
    };
    assert_eq!(shared(1).unwrap().tensors["0"].shape, [1 << 14]);
    assert_eq!(shared(3).unwrap().tensors.len(), 3, "tied weights");
    let text = shared(64).unwrap_err().to_string();
    assert!(text.contains("more bytes than the file has"), "{text}");
}

/// The tensors of an archive in memory.
fn tensors(bytes: &[u8]) -> Option<BTreeMap<String, Tensor>> {
    let (program, storages) = super::open(bytes).ok()?;
    Some(checkpoint::pickled(program, storages, bytes.len(), None).ok()?.0)
}

/// Flips one bit of the last storage.
fn damaged(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(FOUR.len()).rposition(|window| window == FOUR).unwrap();
    bytes[at] ^= 1;
    bytes
}

#[test]
fn a_truncated_archive_is_an_error() {
    let bytes = std::fs::read(golden("torch.pth")).unwrap();
    for end in 0..bytes.len() {
        assert!(tensors(&bytes[..end]).is_none(), "{end} of {} bytes", bytes.len());
    }
}

#[test]
fn a_corrupted_archive_never_panics() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    for name in ["torch.pth", "torch.views.pth"] {
        let valid = std::fs::read(golden(name)).unwrap();
        for _ in 0..1_500 {
            let mut bytes = valid.clone();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                bytes[at] = match next(3) {
                    0 => next(256) as u8,
                    1 => bytes[at] ^ (1 << next(8)),
                    _ => b"(t}]ubseaRhqQ\x85K."[next(16)],
                };
            }
            if let Some(tensors) = tensors(&bytes) {
                let numbers: usize = tensors.values().map(|tensor| tensor.data.len()).sum();
                assert!(numbers <= 4 * bytes.len() + (1 << 18), "{name}: more numbers than bytes");
            }
        }
    }
}
