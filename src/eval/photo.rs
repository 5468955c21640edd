//! What was counted on a photo.

use std::path::{Path, PathBuf};

use super::{Area, Areas};

/// The pixels of a photo, by class. Takes little memory: only the classes that occur are stored.
///
/// ```
/// use rtformer::eval::{Areas, Counted};
///
/// let photo = Counted::new("a.jpg", "a_labels.png", &Areas::new(2), &Areas::new(2), 12);
/// assert_eq!((photo.ignored(), photo.regions().miou()), (12, None));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    photo: PathBuf,
    label: PathBuf,
    classes: usize,
    pub(super) regions: Vec<(u16, Area)>,
    pub(super) boundaries: Vec<(u16, Area)>,
    ignored: u64,
}

impl Counted {
    /// A photo with these pixels of classes, pixels of their boundaries, and ignored pixels.
    pub fn new(
        photo: impl Into<PathBuf>,
        label: impl Into<PathBuf>,
        regions: &Areas,
        boundaries: &Areas,
        ignored: u64,
    ) -> Self {
        let (photo, label, classes) = (photo.into(), label.into(), regions.classes());
        let [regions, boundaries] = [regions, boundaries].map(|areas| areas.occurring().collect());
        Self { photo, label, classes, regions, boundaries, ignored }
    }

    /// The photo's path.
    pub fn photo(&self) -> &Path {
        &self.photo
    }

    /// The label image's path.
    pub fn label(&self) -> &Path {
        &self.label
    }

    /// The pixels of each class.
    pub fn regions(&self) -> Areas {
        self.dense(&self.regions)
    }

    /// The boundary pixels of each class; see [`Boundaries`](super::Boundaries).
    pub fn boundaries(&self) -> Areas {
        self.dense(&self.boundaries)
    }

    /// The number of labelled pixels.
    pub fn pixels(&self) -> u64 {
        self.regions.iter().map(|(_, area)| area.labelled).sum()
    }

    /// The number of pixels whose label is ignored.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn dense(&self, some: &[(u16, Area)]) -> Areas {
        let mut areas = Areas::new(self.classes);
        some.iter().for_each(|&(class, area)| areas.add(class, area));
        areas
    }
}
