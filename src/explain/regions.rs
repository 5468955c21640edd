//! The regions of a segmented photo: connected components of its mask, and superpixels.

use super::components::components;
use super::planes::Planes;
use super::superpixels::superpixels;
use crate::error::{Error, Result};
use crate::eval::{Confusion, LabelImage};
use crate::pixels::{Mask, Pixels};

/// The fewest pixels of a region.
pub const FEWEST_PIXELS: usize = 64;

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A connected component of the mask: neighbouring pixels of one class.
    Component,
    /// A part of the photo with uniform colour, regardless of classes.
    Superpixel,
}

/// A region of a photo.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Its number in the photo, from 1. Components come first.
    pub id: usize,
    /// What it is.
    pub kind: Kind,
    /// The network's class of most of its pixels.
    pub class: u16,
    /// The number of its pixels.
    pub pixels: usize,
    /// Left, top, width and height, in pixels.
    pub bbox: [u32; 4],
}

/// The regions of a photo, and which region each pixel is in.
///
/// ```
/// use rtformer::explain::{Kind, Regions};
/// use rtformer::pixels::Mask;
///
/// let photo = image::RgbImage::new(40, 20);
/// let mask = Mask::from_ids(40, 20, 2, (0..800).map(|i| u8::from(i % 40 >= 30)))?; // two classes side by side
/// let regions = Regions::of(&photo, &mask)?;
/// let components: Vec<_> = regions.all().iter().filter(|region| region.kind == Kind::Component).collect();
/// assert_eq!((components[0].class, components[0].bbox), (0, [0, 0, 30, 20]));
/// assert_eq!((components[1].class, components[1].pixels), (1, 200));
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct Regions {
    pub(super) planes: Planes,
    /// The classes' number.
    pub(super) classes: usize,
    /// The component of each pixel, small ones included.
    pub(super) components: Vec<u32>,
    /// The class of each component.
    pub(super) component_classes: Vec<u16>,
    /// The superpixel of each pixel.
    pub(super) superpixels: Vec<u32>,
    /// The component that contains most of each superpixel.
    pub(super) homes: Vec<u32>,
    /// The index in `all` of each component and of each superpixel, if it is large enough to be a region.
    pub(super) of_component: Vec<Option<usize>>,
    pub(super) of_superpixel: Vec<Option<usize>>,
    pub(super) all: Vec<Region>,
}

impl Regions {
    /// Finds the regions of a photo and its mask.
    ///
    /// # Errors
    /// [`Error::Input`] if the sizes differ.
    pub fn of<'a>(photo: impl Into<Pixels<'a>>, mask: &Mask) -> Result<Self> {
        let photo = photo.into();
        if (photo.width(), photo.height()) != (mask.width(), mask.height()) {
            let (w, h) = (mask.width(), mask.height());
            return Err(Error::Input(format!(
                "a mask of {w}x{h} pixels does not belong to a photo of {}x{}",
                photo.width(),
                photo.height()
            )));
        }
        let planes = Planes::of(&photo);
        let width = planes.width;
        let ids: Vec<u16> = mask.iter().collect();
        let (components, count) = components(&ids, width);
        let mut component_classes = vec![0; count];
        components.iter().zip(&ids).for_each(|(&component, &id)| component_classes[component as usize] = id);
        let (superpixels, parts) = superpixels(&planes);

        let is_class = |class: u16| usize::from(class) < mask.classes();
        let mut all = Vec::new();
        let boxes = boxes(&components, count, width);
        let of_component = component_classes
            .iter()
            .zip(boxes)
            .map(|(&class, (pixels, bbox))| {
                add(&mut all, is_class(class), Region { id: 0, kind: Kind::Component, class, pixels, bbox })
            })
            .collect();
        let homes = homes(&superpixels, parts, &components, &component_classes, mask.classes());
        let boxes = self::boxes(&superpixels, parts, width);
        let of_superpixel = homes
            .iter()
            .zip(boxes)
            .map(|(&(_, class), (pixels, bbox))| {
                add(&mut all, is_class(class), Region { id: 0, kind: Kind::Superpixel, class, pixels, bbox })
            })
            .collect();
        Ok(Self {
            planes,
            classes: mask.classes(),
            components,
            component_classes,
            superpixels,
            homes: homes.into_iter().map(|(home, _)| home).collect(),
            of_component,
            of_superpixel,
            all,
        })
    }

    /// The regions in the order of their ids.
    pub fn all(&self) -> &[Region] {
        &self.all
    }

    /// The width of the photo in pixels.
    pub fn width(&self) -> u32 {
        self.planes.width as u32
    }

    /// The height of the photo in pixels.
    pub fn height(&self) -> u32 {
        self.planes.height as u32
    }

    /// The indices in [`all`](Self::all) of the regions that contain a pixel: its component and its superpixel, if they are large enough.
    /// Empty outside of the photo.
    pub fn at(&self, x: u32, y: u32) -> impl Iterator<Item = usize> + use<> {
        let inside = x < self.width() && y < self.height();
        let pixel = y as usize * self.planes.width + x as usize;
        inside.then(|| self.of_pixel(pixel)).into_iter().flatten().flatten()
    }

    /// The component and the superpixel that a pixel is in, as indices in `all`.
    pub(super) fn of_pixel(&self, pixel: usize) -> [Option<usize>; 2] {
        let (component, superpixel) = (self.components[pixel], self.superpixels[pixel]);
        [self.of_component[component as usize], self.of_superpixel[superpixel as usize]]
    }

    /// The id of the region of this kind that each pixel is in, row by row; 0 for none.
    pub fn map(&self, kind: Kind) -> Vec<u16> {
        let (map, regions) = match kind {
            Kind::Component => (&self.components, &self.of_component),
            Kind::Superpixel => (&self.superpixels, &self.of_superpixel),
        };
        let id = |part: &u32| regions[*part as usize].map_or(0, |i| u16::try_from(self.all[i].id).unwrap_or(u16::MAX));
        map.iter().map(id).collect()
    }

    /// The label that most of each region's labelled pixels have; `None` if fewer than half of its pixels are labelled.
    ///
    /// # Errors
    /// [`Error::Image`] with the label image's name if it has another size.
    pub fn labels(&self, labels: &LabelImage) -> Result<Vec<Option<u16>>> {
        labels.check_size("its photo", self.width(), self.height())?;
        let ignore = Confusion::ignore_id(self.classes);
        let mut counts = vec![0_usize; self.all.len() * self.classes];
        for (pixel, &label) in labels.ids().iter().enumerate().filter(|(_, label)| **label != ignore) {
            let label = usize::from(label);
            if label < self.classes {
                self.of_pixel(pixel).iter().flatten().for_each(|region| counts[region * self.classes + label] += 1);
            }
        }
        let most = |(counts, region): (&[usize], &Region)| {
            let labelled: usize = counts.iter().sum();
            (2 * labelled >= region.pixels).then(|| most(counts))
        };
        Ok(counts.chunks_exact(self.classes.max(1)).zip(&self.all).map(most).collect())
    }
}

/// Adds a region if it is large enough. Returns its index.
fn add(all: &mut Vec<Region>, is_class: bool, mut region: Region) -> Option<usize> {
    (is_class && region.pixels >= FEWEST_PIXELS).then(|| {
        region.id = all.len() + 1;
        all.push(region);
        all.len() - 1
    })
}

/// The index of the largest count, the first of equals.
pub(super) fn most(counts: &[usize]) -> u16 {
    let best = counts.iter().enumerate().max_by_key(|(i, count)| (**count, std::cmp::Reverse(*i)));
    best.map_or(0, |(i, _)| i as u16)
}

/// The number of pixels and the bounding box of each part.
fn boxes(map: &[u32], count: usize, width: usize) -> Vec<(usize, [u32; 4])> {
    let mut found = vec![(0_usize, [usize::MAX, usize::MAX, 0, 0]); count];
    for (y, row) in map.chunks_exact(width.max(1)).enumerate() {
        for (x, &part) in row.iter().enumerate() {
            let (pixels, [left, top, right, bottom]) = &mut found[part as usize];
            *pixels += 1;
            (*left, *top) = ((*left).min(x), (*top).min(y));
            (*right, *bottom) = ((*right).max(x), y);
        }
    }
    let sides =
        |[left, top, right, bottom]: [usize; 4]| [left, top, right + 1 - left, bottom + 1 - top].map(|v| v as u32);
    found.into_iter().map(|(pixels, corners)| (pixels, sides(corners))).collect()
}

/// The component that contains most pixels of each superpixel, and the class that most of its pixels have.
fn homes(
    superpixels: &[u32],
    count: usize,
    components: &[u32],
    component_classes: &[u16],
    classes: usize,
) -> Vec<(u32, u16)> {
    // Runs of equal pairs, so that the map of pairs is rarely touched.
    let mut shared: Vec<Vec<(u32, usize)>> = vec![Vec::new(); count];
    let pairs: Vec<_> = superpixels.iter().copied().zip(components.iter().copied()).collect();
    for run in pairs.chunk_by(|a, b| a == b) {
        let (superpixel, component) = run[0];
        let shared = &mut shared[superpixel as usize];
        match shared.iter_mut().find(|(other, _)| *other == component) {
            Some((_, pixels)) => *pixels += run.len(),
            None => shared.push((component, run.len())),
        }
    }
    let home = |shared: Vec<(u32, usize)>| {
        let mut counts = vec![0; classes];
        for (component, pixels) in &shared {
            if let Some(count) = counts.get_mut(usize::from(component_classes[*component as usize])) {
                *count += pixels;
            }
        }
        let class = if counts.iter().any(|count| *count > 0) { most(&counts) } else { u16::MAX };
        let home = shared.iter().max_by_key(|(component, pixels)| (*pixels, std::cmp::Reverse(*component)));
        (home.map_or(0, |(component, _)| *component), class)
    };
    shared.into_iter().map(home).collect()
}
