//! What a file is, by its first bytes; a name's ending proves nothing.

use std::fmt;

/// What the bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    Safetensors,
    /// A Python pickle of protocol 2 or later, as `paddle.save` writes.
    Pickle,
    /// A zip archive, as `torch.save` writes.
    Zip,
    Empty,
    /// Something that people give by mistake, named.
    Other(&'static str),
    Unknown,
}

/// First bytes of what is given by mistake most often.
const MISTAKES: [(&[u8], &str); 14] = [
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a WebP image or another RIFF file"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7-zip archive; unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; run `git lfs pull`"),
    (b"\x89HDF", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a single numpy array"),
    (b"\x7fELF", "a program"),
    (b"%PDF", "a PDF document"),
];

impl Looks {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let text = bytes.trim_ascii_start();
        let starts = |tag: &[u8]| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
        match bytes {
            [] => Self::Empty,
            // The length of the header, then the header: JSON. A file of many gigabytes of header is none.
            [_, _, _, _, _, _, 0, 0, b'{', ..] => Self::Safetensors,
            [0x80, 2..=5, ..] => Self::Pickle,
            [b'P', b'K', 3, 4, ..] => Self::Zip,
            _ => match MISTAKES.iter().find(|(magic, _)| bytes.starts_with(magic)) {
                Some((_, what)) => Self::Other(what),
                None if starts(b"<!doctype") || starts(b"<html") => {
                    Self::Other("a web page, perhaps a download's error page")
                }
                None if matches!(bytes, [_, _, _, _, _, _, _, _, b'{', ..]) => Self::Safetensors,
                None => Self::Unknown,
            },
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
            Self::Unknown => f.write_str("no format that we know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell() {
        let cases: [(&[u8], Looks); 9] = [
            (b"", Looks::Empty),
            (b"\x10\0\0\0\0\0\0\0{\"a\":", Looks::Safetensors),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff{\"a\":", Looks::Safetensors), // a lying length is still meant as one
            (b"\x80\x04\x95", Looks::Pickle),
            (b"\x80\x06\x95", Looks::Unknown), // a protocol that does not exist
            (b"PK\x03\x04", Looks::Zip),
            (b"\x89PNG\r\n\x1a\n{", Looks::Other("a PNG image")),
            (b"\n <!DOCTYPE html>", Looks::Other("a web page, perhaps a download's error page")),
            (b"\0", Looks::Unknown),
        ];
        for (bytes, want) in cases {
            assert_eq!(Looks::of(bytes), want, "{bytes:?}");
        }
    }
}
