//! Detects a file's format by its first bytes. The file's name is not considered.

use std::borrow::Cow;
use std::fmt;

/// The format that the bytes appear to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    Safetensors,
    /// A Python pickle of protocol 2 or later, as `paddle.save` writes.
    Pickle,
    /// A zip archive, as `torch.save` writes.
    Zip,
    Empty,
    /// Another known kind of file: its name, and what to do.
    Other(Cow<'static, str>),
    Unknown,
}

const LFS: &str = "a Git LFS pointer, not the file itself; run `git lfs pull`";
const ERROR_PAGE: &str = "a web page or a server's error page, not the file; download it again";
const INFERENCE_PROGRAM: &str =
    "a Paddle program for inference, which holds no parameters; convert the `.pdparams` file that training wrote";
const INFERENCE_PARAMETERS: &str = "Paddle's parameters for inference (`.pdiparams`), which have no names; \
     convert the `.pdparams` file that training wrote";
const LEGACY_TORCH: &str =
    "PyTorch's format from before 1.6; load it with PyTorch and save it again: torch.save(torch.load(FILE), FILE)";

/// The first bytes of files that are often given by mistake.
const MISTAKES: [(&[u8], &str); 18] = [
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a WebP image or another RIFF file"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7-zip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"version https://git-lfs", LFS),
    (b"version https://hawser", LFS),
    (b"\x89HDF", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a single numpy array"),
    (b"\x7fELF", "a program"),
    (b"%PDF", "a PDF document"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", LEGACY_TORCH),
];

impl Looks {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let other = |what: &'static str| Self::Other(what.into());
        let mistake = MISTAKES.iter().find(|(magic, _)| bytes.starts_with(magic));
        match (bytes, mistake) {
            ([], _) => Self::Empty,
            // The length of the header, then the header, which is JSON. No header takes many gigabytes.
            ([_, _, _, _, _, _, 0, 0, b'{', ..], _) => Self::Safetensors,
            (_, Some((_, what))) => other(what),
            ([0x80, 2..=5, ..], _) => Self::Pickle,
            ([b'P', b'K', 3, 4, ..], _) => Self::Zip,
            ([b'P', b'K', 5, 6, ..], _) => other("an empty zip archive; download or copy it again"),
            _ if is_paddle_program(bytes) => other(INFERENCE_PROGRAM),
            _ if is_paddle_parameters(bytes) => other(INFERENCE_PARAMETERS),
            _ if is_onnx(bytes) => other(
                "an ONNX model; convert the checkpoint that it was exported from (.pdparams, .pth or .safetensors)",
            ),
            _ if bytes.get(4..8) == Some(b"TFL3") => other("a TensorFlow Lite model"),
            _ if bytes.get(257..262) == Some(b"ustar") => other("a tar archive; unpack it first"),
            _ => match text(bytes) {
                Some(text) => Self::Other(text_looks(text)),
                None if bytes.get(8) == Some(&b'{') => Self::Safetensors,
                None => Self::Unknown,
            },
        }
    }
}

/// A `ProgramDesc` (`.pdmodel`, `__model__`): field 1 is a block, whose field 1 is its index (0) and field 2 its parent (-1).
fn is_paddle_program(bytes: &[u8]) -> bool {
    let [0x0a, rest @ ..] = bytes else { return false };
    // The block's length: seven bits per byte; the high bit is clear in the last byte.
    let length = rest.iter().take(10).position(|byte| byte & 0x80 == 0);
    length.is_some_and(|end| rest[end + 1..].starts_with(&[0x08, 0x00, 0x10, 0xff, 0xff, 0xff, 0xff]))
}

/// A stream of tensors (`.pdiparams`): two versions and the number of levels, all 0, then a short `TensorDesc`, which starts with
/// its type.
fn is_paddle_parameters(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0; 16]) && matches!(bytes[16..], [2..=64, 0, 0, 0, 0x08, ..])
}

/// A `ModelProto`: field 1 is the format's version. The producer, the version of the operators or the graph follows.
fn is_onnx(bytes: &[u8]) -> bool {
    matches!(bytes, [0x08, 1..=0x20, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..])
}

/// The first bytes, if they are text: UTF-8 without control characters.
fn text(bytes: &[u8]) -> Option<&str> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let start = &bytes[..bytes.len().min(4096)];
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // A character may be split at the end.
        Err(e) if e.error_len().is_none() && start.len() < bytes.len() => {
            std::str::from_utf8(&start[..e.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    (!text.contains(control)).then(|| text.trim())
}

/// The kind of a text file. Most often, a server sent it in place of the requested file.
fn text_looks(text: &str) -> Cow<'static, str> {
    let has = |word: &str| text.contains(word);
    match text.chars().next() {
        None => "only white space; download it again".into(),
        Some('<') if has("<net ") => "an OpenVINO model; convert the checkpoint that it was exported from".into(),
        Some('<') => ERROR_PAGE.into(),
        Some('{') if has("\"base_code\"") => INFERENCE_PROGRAM.into(),
        Some('{') if has("\"weight_map\"") => {
            "the index of a model in several files; RTFormer's weights are one file".into()
        }
        Some('{' | '[') => "a JSON text, perhaps a server's reply; download the file again".into(),
        Some(_) => {
            let line: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
            format!(
                "a text that begins with `{}`; if this is a server's reply, download the file again",
                line.escape_debug()
            )
            .into()
        }
    }
}

impl fmt::Display for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Safetensors => f.write_str("a safetensors file"),
            Self::Pickle => f.write_str("a Python pickle, as PaddleSeg's .pdparams are"),
            Self::Zip => f.write_str("a zip archive, as PyTorch's .pth are"),
            Self::Empty => f.write_str("empty"),
            Self::Other(what) => f.write_str(what),
            Self::Unknown => f.write_str("in an unknown format"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_detected() {
        let cases: [(&[u8], Looks); 9] = [
            (b"", Looks::Empty),
            (b"\x10\0\0\0\0\0\0\0{\"a\":", Looks::Safetensors),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff{\"a\":", Looks::Safetensors), // with a wrong length
            (b"\x80\x04\x95", Looks::Pickle),
            (b"\x80\x02}q\0", Looks::Pickle),
            (b"\x80\x06\x95", Looks::Unknown), // a protocol that does not exist
            (b"PK\x03\x04", Looks::Zip),
            (b"\0", Looks::Unknown),
            (&[0; 64], Looks::Unknown), // a file of zeros
        ];
        for (bytes, want) in cases {
            assert_eq!(Looks::of(bytes), want, "{bytes:?}");
        }
    }

    #[test]
    fn other_files_are_named() {
        let program = b"\x0a\xc0\x1b\x08\0\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x1a\x15";
        let cases: [(&[u8], &str); 24] = [
            (b"\x89PNG\r\n\x1a\n{", "a PNG image"),
            (b"\n <!DOCTYPE html>", "error page"),
            (b"<HTML><HEAD>", "error page"),
            (b"\xef\xbb\xbf<html>", "error page"), // with a byte-order mark
            (b"<!-- cached --><html>", "error page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "error page"), // S3, BOS
            (b"<Error><Code>NoSuchKey</Code></Error>", "error page"),                           // without a declaration
            (b"<?xml version=\"1.0\"?><net name=\"m\" version=\"11\">", "an OpenVINO model"),
            (b"{\"error\":\"Repository not found\"}", "a JSON text, perhaps a server's reply"),
            (b"{\"metadata\": {}, \"weight_map\": {}}", "the index of a model in several files"),
            (b"{\"base_code\":{\"magic\":\"pir\"},\"program\":{}}", "a Paddle program for inference"), // Paddle 3
            (b"404: Not Found", "a text that begins with `404: Not Found`"),
            (b"Entry not found\nx", "a text that begins with `Entry not found`"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
            (program, "a Paddle program for inference"),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0a\0\0\0\x08\x05\x10\x40", "Paddle's parameters for inference"),
            (b"\x08\x07\x12\x07pytorch\x1a\x05", "an ONNX model"),
            (b"\x08\x08\x3a\xc0\x1b\x0a", "an ONNX model"), // without a producer
            (b"\x08\x0a\x12\x0epaddle2onnx", "an ONNX model"),
            (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "from before 1.6"),
            (b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
            (b"PK\x05\x06\0\0", "an empty zip archive"),
            (b"\n\n", "white space"),
            (b"\x1f\x8b\x08", "unpack it first"),
        ];
        for (bytes, want) in cases {
            let Looks::Other(what) = Looks::of(bytes) else { panic!("{want}: {:?}", Looks::of(bytes)) };
            assert!(what.contains(want), "{bytes:?}: {what}");
        }
        let escaped = Looks::of("see \u{202e}there".as_bytes()).to_string();
        assert!(escaped.contains("\\u{202e}"), "{escaped}");
    }
}
