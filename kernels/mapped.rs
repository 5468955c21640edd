//! Memory-mapped files.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A read-only memory map of a file. Bytes are loaded on access.
#[derive(Debug)]
pub struct Mapped(Option<memmap2::Mmap>);

impl Mapped {
    /// Maps the whole file. An empty file gives an empty slice.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // On most systems, mapping zero bytes is an error.
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the map is private to this value and read-only. The usual caveat applies: if another process changes
        // or shortens the file meanwhile, these bytes change or this process is killed. We only map files that no one
        // should edit.
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
    #[cfg_attr(miri, ignore = "Miri cannot map files")]
    fn a_mapped_file_is_its_bytes() {
        let folder = std::env::temp_dir();
        for (name, bytes) in [("empty", &b""[..]), ("short", b"x"), ("longer", &[7; 10_000])] {
            let path = folder.join(format!("rtformer-mapped-{name}-{}", std::process::id()));
            std::fs::write(&path, bytes).expect("the temporary folder is writable");
            assert_eq!(&*Mapped::open(&path).expect("the file exists"), bytes, "{name}");
            std::fs::remove_file(&path).expect("the test created the file");
        }
        assert!(Mapped::open(&folder.join("rtformer-no-such-file")).is_err());
    }
}
