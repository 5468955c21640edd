//! Which classes a mask has: some merged into one, others ignored.

use crate::error::{Error, Result};
use crate::pixels::{IdsMut, Mask};
use crate::weights::Dataset;

/// Which classes a mask has.
///
/// The network chooses among all of its own classes first. Then classes are merged, and pixels of classes that are not kept get the mask's
/// [ignore id](Mask::ignore_id). A merged class has the id, the colour and the label id of the first of its classes.
///
/// ```
/// use rtformer::{Classes, Segmenter};
///
/// let classes = Classes {
///     merge: vec![("vehicle".into(), vec!["car".into(), "bicyclist".into()])],
///     keep: vec!["road".into(), "vehicle".into()],
/// };
/// let segmenter = Segmenter::builder().classes(classes).build()?;
/// assert_eq!(segmenter.dataset().classes[8].name, "vehicle");
/// let scene = segmenter.segment(&image::RgbImage::new(64, 48))?;
/// assert!(scene.classes().iter().all(|class| ["road", "vehicle"].contains(&class.name.as_str())));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// New names, each with the classes that are merged under it.
    pub merge: Vec<(String, Vec<String>)>,
    /// The names of the classes to keep, after merging; empty for all.
    pub keep: Vec<String>,
}

impl Classes {
    /// The ids and names of the classes that a mask can have, in the order of the ids.
    ///
    /// ```
    /// use rtformer::{Classes, weights::Dataset};
    ///
    /// let keep = Classes { keep: vec!["road".into(), "sky".into()], ..Classes::default() };
    /// let camvid = Dataset::named("camvid").unwrap();
    /// assert_eq!(keep.kept(&camvid)?, [(0, "sky".to_owned()), (3, "road".to_owned())]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Builder::build`](crate::Builder::build) with [`Builder::classes`](crate::Builder::classes).
    pub fn kept(&self, dataset: &Dataset) -> Result<Vec<(u16, String)>> {
        let mut dataset = dataset.clone();
        let ids = self.apply(&mut dataset)?;
        let all = dataset.classes.into_iter().enumerate().map(|(id, class)| (id as u16, class.name));
        Ok(all.filter(|(id, _)| ids.as_ref().is_none_or(|ids| ids[usize::from(*id)] == *id)).collect())
    }

    /// Renames the merged classes in the data set. Returns the mask's id of each of the network's classes, or `None` if all stay the same.
    ///
    /// # Errors
    /// [`Error::Input`] for a class that does not exist or is merged twice, and for a new name that another class has.
    pub(super) fn apply(&self, dataset: &mut Dataset) -> Result<Option<Vec<u16>>> {
        if self.merge.is_empty() && self.keep.is_empty() {
            return Ok(None);
        }
        let count = dataset.classes.len();
        let mut ids: Vec<u16> = (0..count).map(|id| id as u16).collect();
        let mut merged = vec![false; count];
        let names: Vec<String> = dataset.classes.iter().map(|class| class.name.clone()).collect();
        for (name, classes) in &self.merge {
            let members = classes.iter().map(|class| find(&names, class)).collect::<Result<Vec<_>>>()?;
            let Some(&first) = members.first() else {
                return Err(Error::Input(format!("cannot merge into `{name}`: it has no classes")));
            };
            if let Some(twice) = members.iter().find(|&&member| std::mem::replace(&mut merged[member], true)) {
                return Err(Error::Input(format!(
                    "cannot merge `{}` into `{name}`: it is merged already",
                    names[*twice]
                )));
            }
            let taken = names.iter().position(|other| other == name).is_some_and(|other| !members.contains(&other));
            if taken || self.merge.iter().filter(|(other, _)| other == name).count() > 1 {
                return Err(Error::Input(format!("cannot merge into `{name}`: another class has this name")));
            }
            members.iter().for_each(|&member| ids[member] = first as u16);
            dataset.classes[first].name.clone_from(name);
        }
        if !self.keep.is_empty() {
            let ignored = Mask::new(0, 0, count).ignore_id();
            // Merged classes have only their new name.
            let current: Vec<_> = (0..count)
                .map(|id| if usize::from(ids[id]) == id { dataset.classes[id].name.clone() } else { String::new() })
                .collect();
            let kept = self.keep.iter().map(|name| find(&current, name)).collect::<Result<Vec<_>>>()?;
            ids.iter_mut().filter(|id| !kept.contains(&usize::from(**id))).for_each(|id| *id = ignored);
        }
        Ok(Some(ids))
    }
}

/// The class with this name.
fn find(names: &[String], name: &str) -> Result<usize> {
    names.iter().position(|other| other == name && !name.is_empty()).ok_or_else(|| {
        let known: Vec<_> = names.iter().filter(|name| !name.is_empty()).map(String::as_str).collect();
        Error::Input(format!("there is no class `{name}`; the classes are {}", known.join(", ")))
    })
}

/// Replaces each class of a mask by the one that `ids` has for it.
pub(super) fn replace(mask: &mut Mask, ids: &[u16]) {
    let new = |id: u16| ids.get(usize::from(id)).copied().unwrap_or(id);
    match mask.ids_mut() {
        IdsMut::U8(pixels) => {
            let table: [u8; 256] = std::array::from_fn(|id| new(id as u16) as u8);
            pixels.iter_mut().for_each(|id| *id = table[usize::from(*id)]);
        }
        IdsMut::U16(pixels) => pixels.iter_mut().for_each(|id| *id = new(*id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(merge: &[(&str, &[&str])], keep: &[&str]) -> Classes {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Classes { merge: merge.iter().map(|(name, of)| (name.to_string(), owned(of))).collect(), keep: owned(keep) }
    }

    #[test]
    fn classes_are_merged_and_dropped() {
        // sky building pole road sidewalk tree sign fence car pedestrian bicyclist
        let (all, x) = ((0..11).collect::<Vec<u16>>(), 255);
        let cases = [
            (classes(&[("vehicle", &["car", "bicyclist"])], &[]), vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8]),
            (classes(&[], &["car", "road"]), vec![x, x, x, 3, x, x, x, x, 8, x, x]),
            (classes(&[("car", &["bicyclist", "car"])], &["car"]), vec![x, x, x, x, x, x, x, x, 10, x, 10]), // an old name
            (classes(&[("a", &["sky"]), ("b", &["road", "sidewalk"])], &["a"]), vec![0, x, x, x, x, x, x, x, x, x, x]),
        ];
        for (classes, want) in cases {
            let mut dataset = Dataset::named("camvid").unwrap();
            assert_eq!(classes.apply(&mut dataset).unwrap(), Some(want), "{classes:?}");
        }
        let mut dataset = Dataset::named("camvid").unwrap();
        assert_eq!(Classes::default().apply(&mut dataset).unwrap(), None);
        let mut mask = Mask::from_ids(4, 1, 11, [8_u8, 10, 3, 255]).unwrap();
        replace(&mut mask, &all.iter().map(|&id| if id == 10 { 8 } else { id }).collect::<Vec<_>>());
        assert_eq!(mask.iter().collect::<Vec<_>>(), [8, 8, 3, 255]);
        let mut wide = Mask::from_ids(2, 1, 300, [299_u16, 65535]).unwrap();
        replace(&mut wide, &vec![7; 300]);
        assert_eq!(wide.iter().collect::<Vec<_>>(), [7, 65535]);
    }

    #[test]
    fn a_wrong_name_is_an_error() {
        let cases = [
            (classes(&[], &["cars"]), "there is no class `cars`; the classes are sky, building"),
            (classes(&[], &[""]), "there is no class ``"),
            (classes(&[("vehicle", &["car", "lorry"])], &[]), "there is no class `lorry`"),
            (classes(&[("vehicle", &["car"])], &["car"]), "there is no class `car`"), // it is called vehicle now
            (classes(&[("road", &["car"])], &[]), "another class has this name"),
            (classes(&[("a", &["car"]), ("a", &["road"])], &[]), "another class has this name"),
            (classes(&[("a", &["car"]), ("b", &["car"])], &[]), "cannot merge `car` into `b`: it is merged already"),
            (classes(&[("a", &["car", "car"])], &[]), "it is merged already"),
            (classes(&[("a", &[])], &[]), "it has no classes"),
        ];
        for (classes, want) in cases {
            let error = classes.apply(&mut Dataset::named("camvid").unwrap()).unwrap_err().to_string();
            assert!(error.contains(want), "{want}: {error}");
        }
    }
}
