//! Which photos form one independent unit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use regex::Regex;

/// How photos are grouped.
#[derive(Clone, Debug)]
pub(super) enum GroupBy {
    /// The photos of a folder are a group.
    Folder,
    /// Photos whose paths match alike: the first capture group, or else the whole match.
    Regex(Regex),
}

impl FromStr for GroupBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "folder" {
            return Ok(Self::Folder);
        }
        Regex::new(text).map(Self::Regex).map_err(|error| format!("neither `folder` nor a regular expression: {error}"))
    }
}

impl GroupBy {
    /// The group of the photo at this path in the folder of photos.
    ///
    /// # Errors
    /// A description if the expression does not match.
    pub(super) fn group(&self, path: &Path) -> Result<String, String> {
        match self {
            Self::Folder => Ok(path.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned()),
            Self::Regex(regex) => {
                let text = path.to_string_lossy();
                let found = regex.captures(&text).and_then(|found| found.get(1).or_else(|| found.get(0)));
                found.map(|found| found.as_str().to_owned()).ok_or_else(|| {
                    format!("`{text}` does not match the expression `{regex}` of --group-by; expected it to match every photo's path")
                })
            }
        }
    }
}

/// The units: the positions of their photos, in the order of the groups' names.
pub(super) fn units(groups: impl Iterator<Item = String>) -> Vec<Vec<usize>> {
    let mut units = BTreeMap::<_, Vec<usize>>::new();
    for (photo, group) in groups.enumerate() {
        units.entry(group).or_default().push(photo);
    }
    units.into_values().collect()
}

/// The mean loss of each unit, from the losses of its photos.
pub(super) fn means(units: &[Vec<usize>], losses: &[f64]) -> Vec<f64> {
    units.iter().map(|unit| unit.iter().map(|photo| losses[*photo]).sum::<f64>() / unit.len() as f64).collect()
}

/// Whether most neighbours in this sorted list look like frames of one clip: same folder, and names that differ in one number only.
pub(super) fn look_like_clips(photos: &[PathBuf]) -> bool {
    let alike = photos.windows(2).filter(|pair| differ_in_one_number(&pair[0], &pair[1])).count();
    photos.len() > 2 && 2 * alike > photos.len()
}

fn differ_in_one_number(a: &Path, b: &Path) -> bool {
    let (a, b) = (parts(a), parts(b));
    let differing: Vec<_> = a.iter().zip(&b).filter(|(a, b)| a != b).collect();
    let number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    a.len() == b.len() && matches!(differing[..], [(a, b)] if number(a) && number(b))
}

/// A path as texts and numbers in turns.
fn parts(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut digits = None;
    for c in path.to_string_lossy().chars() {
        match parts.last_mut() {
            Some(last) if digits == Some(c.is_ascii_digit()) => last.push(c),
            _ => parts.push(c.to_string()),
        }
        digits = Some(c.is_ascii_digit());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_grouped_by_folder_or_expression() {
        let cases = [
            ("folder", "ulm/a.jpg", Ok("ulm")),
            ("folder", "a.jpg", Ok("")),
            ("^([^_]+)_", "0016E5_07959.jpg", Ok("0016E5")), // the first capture group
            ("^[^_]+_", "0016E5_07959.jpg", Ok("0016E5_")),  // without one, the whole match
            ("^(x)?0", "0016E5_07959.jpg", Ok("0")),
            ("^bochum", "ulm/a.jpg", Err("does not match")),
        ];
        for (text, path, want) in cases {
            let group = text.parse::<GroupBy>().unwrap().group(Path::new(path));
            match want {
                Ok(want) => assert_eq!(group.as_deref(), Ok(want), "{text}"),
                Err(want) => assert!(group.unwrap_err().contains(want), "{text}"),
            }
        }
        assert!("(".parse::<GroupBy>().unwrap_err().contains("regular expression"));
        let units = units(["b", "a", "b"].map(String::from).into_iter());
        assert_eq!(units, [vec![1], vec![0, 2]]);
        assert_eq!(means(&units, &[0.1, 0.5, 0.3]), [0.5, 0.2]);
    }

    #[test]
    fn clips_are_recognised_by_their_names() {
        let cases: [(&[&str], bool); 5] = [
            (&["0016E5_07959.jpg", "0016E5_07961.jpg", "0016E5_07963.jpg"], true),
            (&["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "b/3.jpg"], true),
            (&["ulm.jpg", "bochum.jpg", "aachen.jpg"], false),
            (&["1.jpg", "2.jpg"], false), // too few to tell
            (&["IMG_1_street.jpg", "IMG_2_park.jpg", "IMG_3_street.jpg"], false),
        ];
        for (photos, want) in cases {
            let photos: Vec<_> = photos.iter().map(PathBuf::from).collect();
            assert_eq!(look_like_clips(&photos), want, "{photos:?}");
        }
    }
}
