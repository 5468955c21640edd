//! A file as a slice of bytes, without reading it.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A read-only memory map of a file. Its bytes are read when they are looked at.
#[derive(Debug)]
pub struct Mapped(Option<memmap2::Mmap>);

impl Mapped {
    /// Maps the whole file; an empty file is an empty slice.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // Mapping no bytes is an error on most systems, and there is nothing to map.
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the map is private to this value and read-only. The usual caveat stays: another process that changes or
        // shortens the file meanwhile changes these bytes or ends this process; we only map files that nobody should edit.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        Ok(Self(Some(map)))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_mapped_file_is_its_bytes() {
        let folder = std::env::temp_dir();
        for (name, bytes) in [("empty", &b""[..]), ("short", b"x"), ("longer", &[7; 10_000])] {
            let path = folder.join(format!("rtformer-mapped-{name}-{}", std::process::id()));
            std::fs::write(&path, bytes).expect("the temporary folder can be written");
            assert_eq!(&*Mapped::open(&path).expect("the file is there"), bytes, "{name}");
            std::fs::remove_file(&path).expect("the file was ours");
        }
        assert!(Mapped::open(&folder.join("rtformer-no-such-file")).is_err());
    }
}
