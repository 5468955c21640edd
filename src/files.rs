//! Outputs are written whole: into a temporary file beside the target, then renamed over it.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Writes `path` whole: `fill` writes a temporary file in the same folder, which then takes the name.
///
/// Missing parent folders are made. When anything fails, or the process dies, `path` is what it was before.
///
/// ```
/// use rtformer::files::write_whole;
/// use std::io::{self, Write};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("sub/scene.json");
/// write_whole(&path, |file| file.write_all(b"{}"))?;
/// assert!(write_whole(&path, |_| Err(io::Error::other("the disk is full"))).is_err());
/// assert_eq!(std::fs::read(&path).unwrap(), b"{}", "as it was");
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Write`], naming `path`.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut BufWriter<&mut fs::File>) -> io::Result<()>) -> Result<()> {
    let attempt = || -> io::Result<()> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(".rtformer-").suffix(".part").tempfile_in(folder)?;
        let mut writer = BufWriter::new(file.as_file_mut());
        fill(&mut writer)?;
        writer.flush()?;
        drop(writer);
        make_readable(file.as_file())?;
        file.persist(path).map_err(|failed| failed.error)?;
        Ok(())
    };
    attempt().map_err(Error::writing(path))
}

/// Temporary files are made private (0600); an output has the rights of any new file.
#[cfg(unix)]
fn make_readable(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_: &fs::File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
