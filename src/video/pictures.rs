//! Numbered pictures as a video.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use super::{Frame, Rate, failure};
use crate::error::{Error, Result};
use crate::pixels::{Decoder, Image, sniff};

/// The pictures in a folder, in the order of the numbers in their names. Hidden files and other files are skipped; subfolders are not
/// searched.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// for name in ["frame10.png", "frame9.png", "notes.txt"] {
///     image::RgbImage::new(4, 4).save_with_format(folder.path().join(name), image::ImageFormat::Png).unwrap();
/// }
/// let names = rtformer::video::numbered(folder.path())?;
/// assert!(names.len() == 2 && names[0].ends_with("frame9.png"));
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// [`Error::Read`] if the folder cannot be read; [`Error::Video`] if it contains no pictures.
pub fn numbered(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::reading(folder))? {
        let path = entry.map_err(Error::reading(folder))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && sniff::is_photo(&path).map_err(Error::reading(&path))? {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(failure(folder, "has no pictures; expected numbered ones such as 000001.png"));
    }
    sort(&mut found);
    Ok(found)
}

/// Sorts names as people do: 9 before 10.
pub(super) fn sort(names: &mut [PathBuf]) {
    names.sort_by(|a, b| natural(&a.to_string_lossy(), &b.to_string_lossy()).then_with(|| a.cmp(b)));
}

fn natural(a: &str, b: &str) -> Ordering {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (mut a, mut b) = (a, b);
    loop {
        let (first, second) = (digits(a), digits(b));
        let order = if first > 0 && second > 0 {
            let (x, y) = (a[..first].trim_start_matches('0'), b[..second].trim_start_matches('0'));
            (a, b) = (&a[first..], &b[second..]);
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            let (mut x, mut y) = (a.chars(), b.chars());
            let (left, right) = (x.next(), y.next());
            if left.is_none() && right.is_none() {
                return Ordering::Equal;
            }
            (a, b) = (x.as_str(), y.as_str());
            left.cmp(&right)
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// The pictures as frames at a rate. A picture that cannot be decoded costs only its frame.
pub(super) fn frames(paths: Vec<PathBuf>, rate: Rate) -> impl Iterator<Item = Result<Frame>> + Send {
    paths.into_iter().zip(0..).map(move |(path, index)| {
        let image = Decoder::default().open(&path).map(Image::into_rgb)?;
        Ok(Frame { image, number: index + 1, time: rate.time(index), name: path })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sorted_by_value() {
        let mut names: Vec<PathBuf> =
            ["f10.png", "f9.png", "f0011.png", "f2b.png", "f2a.png", "g1.png", "f99999999999999999999.png"]
                .map(Into::into)
                .into();
        sort(&mut names);
        let want = ["f2a.png", "f2b.png", "f9.png", "f10.png", "f0011.png", "f99999999999999999999.png", "g1.png"];
        assert_eq!(names, want.map(PathBuf::from));
    }
}
