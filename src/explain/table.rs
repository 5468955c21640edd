//! The table of regions from which explainers are trained.

use super::atoms::{Atoms, quartiles};
use super::features::{Features, features};
use super::pool::pool;
use super::regions::{Kind, Region, Regions};
use crate::error::{Error, Result};
use crate::eval::LabelImage;
use crate::pixels::Pixels;
use crate::segmenter::Scene;

/// The regions of photos, with everything that is measured of them.
///
/// Rows are kept until the end, because the thresholds of a new data set's atoms are the quartiles of all of its regions.
///
/// ```
/// use rtformer::Segmenter;
/// use rtformer::explain::Table;
///
/// let segmenter = Segmenter::builder().features(true).build()?;
/// let photo = image::RgbImage::from_fn(96, 64, |x, y| image::Rgb([x as u8, 2 * y as u8, 90]));
/// let mut table = Table::new(segmenter.dataset().classes.iter().map(|class| class.name.clone()).collect());
/// table.add("street", &photo, &segmenter.segment(&photo)?, None)?;
/// let atoms = table.atoms(None)?;
/// assert_eq!(table.header(&atoms)[..5], ["photo", "region", "class", "label", "pixels"]);
/// assert!(table.rows(&atoms).all(|row| row.len() == table.header(&atoms).len()));
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct Table {
    classes: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    photo: String,
    region: Region,
    label: Option<u16>,
    features: Features,
    pooled: Vec<f32>,
}

impl Table {
    /// A table without rows, for a data set with these classes.
    pub fn new(classes: Vec<String>) -> Self {
        Self { classes, rows: Vec::new() }
    }

    /// Adds the regions of a photo, with their labels if there are any. Returns the map of its superpixels, in which each pixel holds the
    /// region's id, or 0.
    ///
    /// # Errors
    /// [`Error::Input`] if the scene has no features, or is of another photo; [`Error::Image`] if the labels have another size.
    pub fn add<'a>(
        &mut self,
        photo: &str,
        pixels: impl Into<Pixels<'a>>,
        scene: &Scene,
        labels: Option<&LabelImage>,
    ) -> Result<Vec<u16>> {
        let regions = Regions::of(pixels, scene.mask())?;
        let pooled = pool(&regions, wanted_features(scene)?)?;
        let labels = match labels {
            Some(labels) => regions.labels(labels)?,
            None => vec![None; regions.all().len()],
        };
        let measured = features(&regions).into_iter().zip(pooled);
        for ((region, label), (features, pooled)) in regions.all().iter().zip(labels).zip(measured) {
            self.rows.push(Row { photo: photo.to_owned(), region: region.clone(), label, features, pooled });
        }
        Ok(regions.map(Kind::Superpixel))
    }

    /// The number of regions.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no region.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The atoms with these thresholds, or with the quartiles of this table's regions.
    ///
    /// # Errors
    /// As [`Atoms::new`].
    pub fn atoms(&self, thresholds: Option<&[[f32; 3]]>) -> Result<Atoms> {
        let features: Vec<_> = self.rows.iter().map(|row| row.features.clone()).collect();
        Atoms::new(self.classes.clone(), thresholds.map_or_else(|| quartiles(&features), <[_]>::to_vec))
    }

    /// The names of the columns: `photo,region,class,label,pixels`, then `f_*` (what is measured), `a_*` (atoms) and `h_*` (the network's
    /// features, averaged over the region).
    pub fn header(&self, atoms: &Atoms) -> Vec<String> {
        let first = ["photo", "region", "class", "label", "pixels"].map(str::to_owned).into_iter();
        let values = atoms.value_names().into_iter().map(|name| format!("f_{name}"));
        let holds = atoms.names().map(|name| format!("a_{name}"));
        let channels = self.rows.first().map_or(0, |row| row.pooled.len());
        first.chain(values).chain(holds).chain((0..channels).map(|i| format!("h_{i}"))).collect()
    }

    /// The values of each region. Numbers are written so that reading them as f32 gives them back.
    pub fn rows<'a>(&'a self, atoms: &'a Atoms) -> impl Iterator<Item = Vec<String>> + 'a {
        let name = |class: u16| self.classes.get(usize::from(class)).cloned().unwrap_or_default();
        self.rows.iter().map(move |row| {
            let Row { photo, region, label, features, pooled } = row;
            let label = label.map_or_else(String::new, name);
            let first = [photo.clone(), region.id.to_string(), name(region.class), label, region.pixels.to_string()];
            let values = atoms.values(features).into_iter().map(|value| value.to_string());
            let holds = atoms.of(features).into_iter().map(|holds| u8::from(holds).to_string());
            // Five digits are more than a training run can tell apart, and a third of the size.
            let pooled = pooled.iter().map(|value| format!("{value:.4}"));
            first.into_iter().chain(values).chain(holds).chain(pooled).collect()
        })
    }
}

/// The features of a scene.
pub(super) fn wanted_features(scene: &Scene) -> Result<&crate::segmenter::Features> {
    scene.features().ok_or_else(|| {
        Error::Input("the scene has no features; open the segmenter with Builder::features(true)".into())
    })
}
