//! Names for the outputs of photos. No two photos share a name.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The stem of every photo's outputs, in order: the output folder mirrors the input folder.
///
/// `street.jpg` gives `street`. If photos would share a stem (`street.jpg` and `street.png`), each keeps its full file name instead. If
/// they share that too (in two folders), all but the first get a number. The comparison ignores case, like the file systems of macOS and
/// Windows.
pub(super) fn stems(out: &Path, places: &[&Path]) -> Vec<PathBuf> {
    let key = |stem: &Path| stem.to_string_lossy().to_lowercase();
    let short = |place: &Path| key(&place.with_extension(""));
    let mut sharing = HashMap::<String, usize>::new();
    for place in places {
        *sharing.entry(short(place)).or_default() += 1;
    }
    let alone = |place: &Path| sharing[&short(place)] == 1;
    // Unique stems are reserved first, so the other photos cannot take them.
    let mut taken: HashSet<String> = places.iter().filter(|place| alone(place)).map(|place| short(place)).collect();
    let stem = |&place: &&Path| {
        if alone(place) {
            return out.join(place.with_extension(""));
        }
        let numbered = (2..).map(|number| {
            let mut name = OsString::from(place);
            name.push(format!("-{number}"));
            PathBuf::from(name)
        });
        let free = std::iter::once(place.to_path_buf()).chain(numbered).find(|place| taken.insert(key(place)));
        out.join(free.unwrap_or_default())
    };
    places.iter().map(stem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_photos_share_an_output() {
        let cases: [(&[&str], &[&str]); 7] = [
            (&["a.jpg", "b.jpg"], &["a", "b"]),
            (&["x/a.jpg", "y/a.jpg"], &["x/a", "y/a"]), // folders are mirrored
            (&["a.jpg", "a.png", "b.png"], &["a.jpg", "a.png", "b"]), // the same stem: full names
            (&["a.jpg", "A.JPG"], &["a.jpg", "A.JPG-2"]), // the same name if case is ignored
            (&["a.jpg", "a.jpg", "a.jpg"], &["a.jpg", "a.jpg-2", "a.jpg-3"]), // in three folders
            (&["a.jpg", "a.png", "a.jpg.gif"], &["a.jpg-2", "a.png", "a.jpg"]), // a stem that is another photo's full name
            (&["stdin"], &["stdin"]),
        ];
        for (places, want) in cases {
            let places: Vec<_> = places.iter().map(Path::new).collect();
            let want: Vec<_> = want.iter().map(|stem| Path::new("out").join(stem)).collect();
            assert_eq!(stems(Path::new("out"), &places), want);
        }
    }
}
