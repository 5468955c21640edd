//! Boundary `IoU`: how well masks agree near the contours of the classes.

use super::{Areas, Confusion, LabelImage};
use crate::error::{Error, Result};
use crate::pixels::Mask;
use crate::process;

/// The boundary `IoU` of each class, summed over photos.
///
/// A class's boundary is its pixels whose distance to a pixel of another class, or to the outside of the image, is at most `width`; the
/// distance is the larger of the horizontal and the vertical one. The boundary `IoU` is the intersection over union of the boundaries of labels and mask.
/// Like the `IoU` of regions, it is computed from sums over all photos. `width` is a share of the image's diagonal, at least
/// one pixel. Contours of unlabelled regions count as contours, but their pixels are not counted.
///
/// Source: Cheng et al., "Boundary `IoU`: Improving Object-Centric Image Segmentation Evaluation", arXiv:2103.16562, and its authors' code,
/// which erodes a mask by a square and treats unlabelled pixels in this way.
///
/// ```
/// use rtformer::eval::{Boundaries, LabelImage};
/// use rtformer::pixels::Mask;
///
/// // 5x5 pixels: a frame of class 0 and a centre of class 1; the mask misses the centre. The boundary is 1 pixel wide.
/// let mut ids = vec![0; 25];
/// ids[12] = 1;
/// let mut boundaries = Boundaries::new(2, Boundaries::WIDTH)?;
/// boundaries.count(&LabelImage::new("a_labels.png", 5, 5, ids)?, &Mask::new(5, 5, 2))?;
/// // All 24 pixels of class 0 touch its contour in the labels; in the mask, only the 16 at the edge do.
/// assert_eq!(boundaries.areas().get(0).iou(), Some(16.0 / 24.0));
/// assert_eq!(boundaries.areas().get(1).iou(), Some(0.0));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Boundaries {
    areas: Areas,
    width: f64,
}

impl Boundaries {
    /// The paper's width for COCO and LVIS: 2 % of the diagonal. It uses 0.5 % for Cityscapes.
    pub const WIDTH: f64 = 0.02;

    /// No photos; `width` is a share of the diagonal.
    ///
    /// ```
    /// use rtformer::eval::Boundaries;
    ///
    /// assert!(Boundaries::new(19, 0.005).is_ok());
    /// assert!(Boundaries::new(19, 2.0).is_err());
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] unless `width` is above 0 and at most 1.
    pub fn new(classes: usize, width: f64) -> Result<Self> {
        if !(width > 0.0 && width <= 1.0) {
            return Err(Error::Input(format!(
                "invalid width {width} of boundaries: expected a share of the diagonal, above 0 and at most 1"
            )));
        }
        Ok(Self { areas: Areas::new(classes), width })
    }

    /// The width of boundaries, as a share of the diagonal.
    pub fn width(&self) -> f64 {
        self.width
    }

    /// Counts a photo.
    ///
    /// # Errors
    /// As [`Confusion::count`]; then nothing of the photo is counted.
    pub fn count(&mut self, labels: &LabelImage, mask: &Mask) -> Result<()> {
        labels.check_size("its mask", mask.width(), mask.height())?;
        labels.check_ids(self.areas.classes())?;
        let (width, height) = (labels.width() as usize, labels.height() as usize);
        let distance = pixels(self.width, width, height);
        let of_labels = || boundary(labels.ids().iter().copied(), (width, height), distance);
        let of_mask = || boundary(mask.iter(), (width, height), distance);
        let (truth, seen) = process::parallel(|| rayon::join(of_labels, of_mask));
        let ignore = Confusion::ignore_id(self.areas.classes());
        let ids = labels.ids().iter().copied().zip(mask.iter());
        for ((label, class), (in_truth, in_seen)) in ids.zip(truth.into_iter().zip(seen)) {
            if label != ignore {
                self.areas.pixel(in_truth.then_some(label), in_seen.then_some(class));
            }
        }
        Ok(())
    }

    /// The boundary pixels of each class: [`Area::iou`](super::Area::iou) is the boundary `IoU`, [`Areas::miou`] its mean.
    pub fn areas(&self) -> &Areas {
        &self.areas
    }

    /// Adds boundary pixels of a class.
    pub(super) fn add(&mut self, class: u16, area: super::Area) {
        self.areas.add(class, area);
    }
}

/// The width of boundaries in pixels. Halves are rounded to even, as in Python.
fn pixels(share: f64, width: usize, height: usize) -> usize {
    ((share * (width as f64).hypot(height as f64)).round_ties_even() as usize).max(1)
}

/// Which pixels are within `distance` of another class or of the outside, `[height, width]`. `ids` come row by row.
///
/// A pixel is inside if the square around it has a single id. Rows are tested first: runs of equal ids, shortened at both ends. Then runs
/// of such pixels are followed down the columns.
fn boundary(ids: impl Iterator<Item = u16>, (width, height): (usize, usize), distance: usize) -> Vec<bool> {
    let mut found = vec![true; width * height];
    // The id of each pixel of the row if it is inside within the row, and how many rows up that is the same.
    let mut above: Vec<(Option<u16>, usize)> = vec![(None, 0); width];
    let mut row = Vec::with_capacity(width);
    let mut ids = ids;
    for y in 0..height {
        row.clear();
        row.extend(ids.by_ref().take(width));
        let mut start = 0;
        for run in row.chunk_by(|a, b| a == b) {
            for (place, (known, rows)) in above[start..start + run.len()].iter_mut().enumerate() {
                let inside = place >= distance && place + distance < run.len();
                let id = inside.then_some(run[0]);
                *rows = if id.is_some() && *known == id { *rows + 1 } else { usize::from(inside) };
                *known = id;
                if *rows > 2 * distance {
                    found[(y - distance) * width + start + place] = false;
                }
            }
            start += run.len();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: tests every pixel of the square around each pixel.
    fn slow(ids: &[u16], (width, height): (usize, usize), distance: usize) -> Vec<bool> {
        let at = |x: isize, y: isize| {
            let inside = (0..width as isize).contains(&x) && (0..height as isize).contains(&y);
            inside.then(|| ids[y as usize * width + x as usize])
        };
        let reach = distance as isize;
        let near =
            |x: isize, y: isize| (-reach..=reach).any(|dy| (-reach..=reach).any(|dx| at(x + dx, y + dy) != at(x, y)));
        (0..height as isize).flat_map(|y| (0..width as isize).map(move |x| (x, y))).map(|(x, y)| near(x, y)).collect()
    }

    #[test]
    fn boundaries_equal_the_definition() {
        let cases = [
            (1, 1, 1), // a single pixel
            (9, 1, 1), // a row has no inside
            (7, 7, 3), // exactly one pixel is inside
            (7, 7, 4), // the square is larger than the image
            (23, 17, 1),
            (31, 40, 2),
            (64, 48, 5),
        ];
        for (width, height, distance) in cases {
            for blob in [1, 3, 8, 100] {
                // Rectangles of three ids whose corners do not align between rows of rectangles.
                let id = |x: usize, y: usize| ((x + 5 * (y / blob)) / blob + y / blob) as u16 % 3;
                let ids: Vec<u16> = (0..width * height).map(|i| id(i % width, i / width)).collect();
                let got = boundary(ids.iter().copied(), (width, height), distance);
                assert_eq!(got, slow(&ids, (width, height), distance), "{width}x{height}, {distance}, {blob}");
                if blob == 100 && width.min(height) > 2 * distance {
                    assert!(got.contains(&false), "{width}x{height}: some pixels are inside");
                }
            }
        }
    }

    #[test]
    fn the_width_is_rounded_as_in_python_and_at_least_one_pixel() {
        let cases = [(0.02, 480, 360, 12), (0.005, 2048, 1024, 11), (0.02, 10, 10, 1), (0.5, 3, 4, 2), (0.5, 6, 8, 5)];
        for (share, width, height, want) in cases {
            assert_eq!(pixels(share, width, height), want, "{share} of {width}x{height}");
        }
    }
}
