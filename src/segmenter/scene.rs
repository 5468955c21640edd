//! What was seen on a photo.

use std::sync::Arc;

use image::RgbImage;

use crate::pixels::{IndexedPicture, Mask, Palette, Pixels, render};
use crate::timing::Timings;
use crate::weights::Dataset;

/// What the classes are called and how they are coloured.
#[derive(Debug)]
pub(super) struct Labels {
    pub(super) dataset: Dataset,
    pub(super) palette: Palette,
}

/// A segmented photo.
#[derive(Clone, Debug)]
pub struct Scene {
    pub(super) labels: Arc<Labels>,
    pub(super) mask: Mask,
    pub(super) confidence: Option<Vec<f32>>,
    pub(super) logits: Option<Vec<f32>>,
    pub(super) timings: Timings,
}

/// A class's part of a scene.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct ClassShare {
    /// The train id, which is the mask's value.
    pub id: u16,
    /// The class's name in the data set.
    pub name: String,
    /// Its colour in the palette, RGB.
    pub color: [u8; 3],
    /// Its share of all the photo's pixels, 0 to 1.
    pub share: f64,
}

impl Scene {
    /// The class of every pixel, at the photo's own size.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The mask alone, without a copy.
    pub fn into_mask(self) -> Mask {
        self.mask
    }

    /// The classes that occur, largest share first. Rejected pixels belong to none.
    pub fn classes(&self) -> Vec<ClassShare> {
        let classes = &self.labels.dataset.classes;
        let pixels = f64::from(self.mask.width()) * f64::from(self.mask.height());
        let counts = self.mask.counts(classes.len());
        let mut shares: Vec<_> = classes
            .iter()
            .zip(counts)
            .enumerate()
            .filter(|(_, (_, count))| *count > 0)
            .map(|(id, (class, count))| ClassShare {
                id: id as u16,
                name: class.name.clone(),
                color: class.color,
                share: count as f64 / pixels,
            })
            .collect();
        shares.sort_by(|a, b| b.share.total_cmp(&a.share)); // stable: the lower id first on a tie
        shares
    }

    /// The mask as a picture in the data set's colours, whose indices are the train ids.
    pub fn palette(&self) -> IndexedPicture<'_> {
        IndexedPicture::new(&self.mask, &self.labels.palette)
    }

    /// The photo with the mask's colours over it; `alpha` of 0 is the photo alone, 1 the colours alone.
    pub fn overlay<'a>(&self, photo: impl Into<Pixels<'a>>, alpha: f32) -> RgbImage {
        render::overlay(&photo.into(), &self.mask, &self.labels.palette, alpha)
    }

    /// The softmax probability of each pixel's class, `[height, width]`, where [`Builder::confidence`](super::Builder::confidence)
    /// asked for it.
    pub fn confidence(&self) -> Option<&[f32]> {
        self.confidence.as_deref()
    }

    /// The mean of [`confidence`](Self::confidence).
    pub fn mean_confidence(&self) -> Option<f64> {
        let confidence = self.confidence.as_ref()?;
        Some(confidence.iter().map(|&p| f64::from(p)).sum::<f64>() / confidence.len() as f64)
    }

    /// The logits at the photo's size, `[classes, height, width]`, where [`Builder::logits`](super::Builder::logits) asked for them.
    pub fn logits(&self) -> Option<&[f32]> {
        self.logits.as_deref()
    }

    /// Where the time went.
    pub fn timings(&self) -> Timings {
        self.timings
    }
}
