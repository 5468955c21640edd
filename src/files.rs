//! Reads and writes complete files: a file that is too long is an error, and an output gets its name only once it is complete.

use std::borrow::Cow;
use std::fs::{self, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use walkdir::WalkDir;

use crate::error::{Error, Result};

/// Reads `reader` to its end. More than `longest` bytes are an error, so the result is never truncated.
///
/// ```
/// use rtformer::files::read_within;
///
/// assert_eq!(read_within(&b"four"[..], 4)?, b"four");
/// assert!(read_within(&b"five!"[..], 4).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The reader's error; [`io::ErrorKind::FileTooLarge`] for more than `longest` bytes.
pub fn read_within(reader: impl Read, longest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = reader.take(longest.saturating_add(1)).read_to_end(&mut bytes)? as u64;
    if length > longest {
        let reason = format!("it is longer than the maximum of {longest} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

/// Decodes a text file that a user edited: UTF-8 or UTF-16, with or without a byte-order mark.
///
/// Windows editors and `PowerShell` redirections write all of these. UTF-16 without a mark is detected by its first character,
/// which must be ASCII.
///
/// ```
/// use rtformer::files::text;
///
/// assert_eq!(text(b"\xef\xbb\xbf{}")?, "{}", "UTF-8 with a byte-order mark");
/// assert_eq!(text(b"\xff\xfe{\0}\0")?, "{}", "UTF-16, little-endian");
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// A phrase that says why the bytes are not text, such as "is UTF-32; save it as UTF-8".
pub fn text(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    let utf16 = |bytes: &[u8], number: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let text = char::decode_utf16(pairs.iter().map(|pair| number(*pair))).collect::<Result<String, _>>();
        match text {
            Ok(text) if rest.is_empty() => Ok(Cow::Owned(text)),
            _ => Err("is damaged UTF-16; save it as UTF-8".to_owned()),
        }
    };
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Err("is UTF-32; save it as UTF-8".into()),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [1..=0x7f, 0, ..] => utf16(bytes, u16::from_le_bytes),
        [0, 1..=0x7f, ..] => utf16(bytes, u16::from_be_bytes),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|e| format!("is not UTF-8 text ({e})"))
        }
    }
}

/// The SHA-256 of some bytes, in hexadecimal.
///
/// ```
/// let empty = rtformer::files::digest(b"");
/// assert!(empty.starts_with("e3b0c442") && empty.len() == 64);
/// ```
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of a file of any length, in hexadecimal.
///
/// ```
/// let path = "tests/data/golden/photo.png".as_ref();
/// assert_eq!(rtformer::files::digest_of_file(path)?, rtformer::files::digest(&std::fs::read(path).unwrap()));
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Read`] with `path`.
pub fn digest_of_file(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let copied = fs::File::open(path).and_then(|mut file| {
        let mut chunk = vec![0; 1 << 20];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(length) => hash.update(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    });
    copied.map_err(Error::reading(path))?;
    Ok(hex(&hash.finalize()))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |text, byte| text + &format!("{byte:02x}"))
}

/// What the names of temporary files start and end with.
const PREFIX: &str = ".rtformer-";
const SUFFIX: &str = ".part";

/// Writes a complete file: `fill` writes to a temporary file in the same folder, which is then renamed to `path`.
///
/// Missing parent folders are made. When anything fails, or the process dies, `path` is what it was before. A file that is replaced
/// keeps its permissions; those of a new one follow the umask.
///
/// ```
/// use rtformer::files::write_whole;
/// use std::io::{self, Write};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("sub/scene.json");
/// write_whole(&path, |file| file.write_all(b"{}"))?;
/// assert!(write_whole(&path, |_| Err(io::Error::other("the disk is full"))).is_err());
/// assert_eq!(std::fs::read(&path).unwrap(), b"{}", "unchanged");
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Write`] with `path`.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut WholeFile) -> io::Result<()>) -> Result<()> {
    let mut file = WholeFile::create(path)?;
    fill(&mut file).map_err(Error::writing(path))?;
    file.finish()
}

/// A complete file that is written in parts: it gets its name at the end, as with [`write_whole`].
///
/// ```
/// use std::io::Write;
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("scene.json");
/// let mut file = rtformer::files::WholeFile::create(&path)?;
/// file.write_all(b"{}").unwrap();
/// assert!(!path.exists());
/// file.finish()?;
/// assert!(path.exists());
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Debug)]
pub struct WholeFile {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl WholeFile {
    /// Starts to write the file. Missing parent folders are made.
    ///
    /// # Errors
    /// [`Error::Write`] with `path`.
    pub fn create(path: &Path) -> Result<Self> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let file = fs::create_dir_all(folder).and_then(|()| temporary(folder));
        Ok(Self { path: path.to_path_buf(), file: BufWriter::new(file.map_err(Error::writing(path))?) })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`Error::Write`] with the path. The path is then what it was before.
    pub fn finish(self) -> Result<()> {
        let Self { path, file } = self;
        let persist = || -> io::Result<()> {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            if let Some(old) = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)
                && old.permissions() != file.as_file().metadata()?.permissions()
            {
                file.as_file().set_permissions(old.permissions())?;
            }
            file.persist(&path).map_err(|failed| failed.error)?;
            Ok(())
        };
        persist().map_err(Error::writing(&path))
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A new file in `folder`, locked so that [`sweep`] keeps it.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    // The umask decides, as for any new file. The default would be private to the user.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    loop {
        let file = builder.tempfile_in(folder)?;
        // Another process's sweep may have found the file before it was locked, and is about to remove it or has done so.
        match file.as_file().try_lock() {
            Ok(()) if file.path().exists() => return Ok(file),
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(_)) => return Ok(file), // without locks nothing is swept
        }
    }
}

/// Removes the temporary files that killed processes left in `folder` and its subfolders. Files of running processes stay.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// let left = folder.path().join(".rtformer-a1b2c3.part");
/// std::fs::write(&left, "half of a mask").unwrap();
/// rtformer::files::sweep(folder.path());
/// assert!(!left.exists());
/// ```
pub fn sweep(folder: &Path) {
    let files = WalkDir::new(folder).into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    for entry in files {
        let name = entry.file_name().to_string_lossy();
        if !(name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            continue;
        }
        // The lock is held until the file is gone, so that nobody starts to write to it.
        let file = fs::OpenOptions::new().write(true).open(entry.path());
        if file.as_ref().is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path()); // an attempt: what stays does no harm
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_completely_or_not_at_all() {
        let cases = [(0, 0, true), (1, 0, false), (7, 8, true), (8, 8, true), (9, 8, false), (9, u64::MAX, true)];
        for (length, longest, fits) in cases {
            match read_within(&vec![1; length][..], longest) {
                Ok(bytes) => assert!(fits && bytes.len() == length, "{length} of {longest}"),
                Err(e) => assert!(!fits && e.to_string().contains("longer than"), "{length} of {longest}: {e}"),
            }
        }
    }

    #[test]
    fn text_of_every_editor_is_decoded() {
        let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let long = "{\"name\": \"Stra\u{df}e \u{1f6a6}\"}"; // two bytes in UTF-8, and a surrogate pair in UTF-16
        for text_in in ["", "{}", long, "{\r\n}"] {
            let (little, big) = (utf16(text_in, u16::to_le_bytes), utf16(text_in, u16::to_be_bytes));
            let forms: [&[&[u8]]; 6] = [
                &[text_in.as_bytes()],
                &[b"\xef\xbb\xbf", text_in.as_bytes()], // Notepad
                &[b"\xff\xfe", &little],                // PowerShell 5's `>`
                &[b"\xfe\xff", &big],
                &[&little], // .NET without a preamble
                &[&big],
            ];
            for form in forms {
                assert_eq!(text(&form.concat()).unwrap(), text_in, "{form:?}");
            }
        }
        let refused: [(&[u8], &str); 6] = [
            (b"\xff\xfe\0\0{\0\0\0", "UTF-32"),
            (b"\0\0\xfe\xff\0\0\0{", "UTF-32"),
            (b"\xff\xfe{\0}", "damaged UTF-16"), // truncated in the middle of a character
            (b"\xff\xfe\x00\xd8{\0", "damaged UTF-16"), // half of a surrogate pair
            (b"\xe9t\xe9", "not UTF-8"),         // Latin-1
            (b"\x89PNG", "not UTF-8"),
        ];
        for (bytes, want) in refused {
            assert!(text(bytes).unwrap_err().contains(want), "{bytes:?}");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/mask.png");
        write_whole(&path, |w| w.write_all(b"old")).unwrap();
        write_whole(&path, |w| {
            w.write_all(b"half of the ne")?;
            Err(io::Error::other("disk full"))
        })
        .unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_a_new_file_or_of_the_old_one() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o7777;
        fs::write(folder.path().join("plain"), "").unwrap(); // by the umask
        write_whole(&folder.path().join("new"), |_| Ok(())).unwrap();
        assert_eq!(mode("new"), mode("plain"));
        for bits in [0o600, 0o664, 0o444, 0o755] {
            fs::set_permissions(folder.path().join("new"), fs::Permissions::from_mode(bits)).unwrap();
            write_whole(&folder.path().join("new"), |w| w.write_all(b"x")).unwrap();
            assert_eq!(mode("new"), bits, "{bits:o}");
        }
    }

    #[test]
    fn a_sweep_keeps_what_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let files = || fs::read_dir(folder.path()).unwrap().count();
        fs::write(folder.path().join(".rtformer-killed.part"), "").unwrap();
        fs::write(folder.path().join(".rtformer-own"), "").unwrap(); // another program's name
        write_whole(&folder.path().join("mask.png"), |w| {
            assert_eq!(files(), 3);
            sweep(folder.path());
            assert_eq!(files(), 2, "the killed process's file is gone");
            w.write_all(b"whole")
        })
        .unwrap();
        assert_eq!(fs::read(folder.path().join("mask.png")).unwrap(), b"whole");
    }
}
