//! The figures of a set of photos, and what chance in the choice of photos does to them.

use rayon::prelude::*;
use serde::{Serialize, Serializer};

use super::photo::Counted;
use super::{Area, Areas};
use crate::model::Noise;
use crate::process;

/// The level of [`intervals`]: 95 %.
pub const LEVEL: f64 = 0.95;

/// A figure of a set of photos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// [`Areas::miou`].
    Miou,
    /// [`Areas::pixel_accuracy`].
    PixelAccuracy,
    /// [`Areas::mean_accuracy`].
    MeanAccuracy,
    /// [`Areas::mdice`].
    Mdice,
    /// [`Areas::frequency_weighted_iou`].
    Fwiou,
    /// [`Areas::kappa`].
    Kappa,
    /// [`Areas::miou`] of the boundaries.
    BoundaryMiou,
    /// The mean over photos of each photo's own [`Areas::miou`].
    ImageMiou,
    /// The mean over photos of each photo's own [`Areas::mdice`].
    ImageMdice,
}

impl Figure {
    /// All figures.
    pub const ALL: [Self; 9] = [
        Self::Miou,
        Self::PixelAccuracy,
        Self::MeanAccuracy,
        Self::Mdice,
        Self::Fwiou,
        Self::Kappa,
        Self::BoundaryMiou,
        Self::ImageMiou,
        Self::ImageMdice,
    ];

    /// The key in JSON, such as `miou`.
    pub fn key(self) -> &'static str {
        [
            "miou",
            "pixel_accuracy",
            "mean_accuracy",
            "mdice",
            "fwiou",
            "kappa",
            "boundary_miou",
            "image_miou",
            "image_mdice",
        ][self as usize]
    }

    /// The name for people, such as `mean IoU`.
    pub fn name(self) -> &'static str {
        [
            "mean IoU",
            "pixel accuracy",
            "mean accuracy",
            "mean Dice",
            "frequency-weighted IoU",
            "kappa",
            "mean boundary IoU",
            "mean IoU per photo",
            "mean Dice per photo",
        ][self as usize]
    }
}

/// The value of each [`Figure`], or `None` if it has none. Serialises as a map.
///
/// ```
/// use rtformer::eval::{Areas, Figure, Figures};
///
/// let nothing = Figures::of(&Areas::new(2), &Areas::new(2), &[]);
/// assert_eq!(nothing.get(Figure::Miou), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures([Option<f64>; Figure::ALL.len()]);

impl Figures {
    /// The figures of a set of photos: the sums over its photos of the pixels of classes and of their boundaries, and the photos.
    pub fn of(regions: &Areas, boundaries: &Areas, photos: &[Counted]) -> Self {
        let photos: Vec<_> = photos.iter().map(Photo::of).collect();
        Self::new(regions, boundaries, &photos.iter().collect::<Vec<_>>())
    }

    /// The figures of a set of photos of this number of classes.
    pub fn of_photos(photos: &[Counted], classes: usize) -> Self {
        let photos: Vec<_> = photos.iter().map(Photo::of).collect();
        let all: Vec<_> = (0..photos.len()).collect();
        figures(&photos, &all, classes, &mut Default::default())
    }

    fn new(regions: &Areas, boundaries: &Areas, photos: &[&Photo<'_>]) -> Self {
        let mean = |of: fn(&Photo<'_>) -> Option<f64>| {
            let values: Vec<f64> = photos.iter().filter_map(|photo| of(photo)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        Self(Figure::ALL.map(|figure| match figure {
            Figure::Miou => regions.miou(),
            Figure::PixelAccuracy => regions.pixel_accuracy(),
            Figure::MeanAccuracy => regions.mean_accuracy(),
            Figure::Mdice => regions.mdice(),
            Figure::Fwiou => regions.frequency_weighted_iou(),
            Figure::Kappa => regions.kappa(),
            Figure::BoundaryMiou => boundaries.miou(),
            Figure::ImageMiou => mean(|photo| photo.miou),
            Figure::ImageMdice => mean(|photo| photo.mdice),
        }))
    }

    /// The value of a figure; all are from 0 to 1, except that kappa can be negative.
    pub fn get(&self, figure: Figure) -> Option<f64> {
        self.0[figure as usize]
    }

    /// The difference to other figures; `None` where one has no value.
    pub fn minus(&self, other: &Self) -> Self {
        Self(Figure::ALL.map(|figure| Some(self.get(figure)? - other.get(figure)?)))
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(Figure::ALL.iter().map(|&figure| (figure.key(), self.get(figure))))
    }
}

/// The range of a figure over resampled sets of photos. Serialises as `[low, high]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval(pub f64, pub f64);

/// An interval for each [`Figure`], or `None` if there are too few photos. Serialises as a map.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Intervals([Option<Interval>; Figure::ALL.len()]);

impl Intervals {
    /// The interval of a figure.
    pub fn get(&self, figure: Figure) -> Option<Interval> {
        self.0[figure as usize]
    }
}

impl Serialize for Intervals {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(Figure::ALL.iter().map(|&figure| (figure.key(), self.get(figure))))
    }
}

/// Percentile bootstrap intervals at the level of 95 %: draws as many photos as there are, with replacement, `resamples` times.
///
/// They tell how much the figures would vary with another choice of photos, if the photos are independent. Neighbouring frames of a video
/// are not, so intervals from them are too narrow. The same photos give the same intervals. With fewer than two photos there are none.
///
/// Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
///
/// ```
/// assert_eq!(rtformer::eval::intervals(&[], 19, 1000), Default::default());
/// ```
pub fn intervals(photos: &[Counted], classes: usize, resamples: usize) -> Intervals {
    let photos: Vec<_> = photos.iter().map(Photo::of).collect();
    percentiles(photos.len(), resamples, |drawn, work| figures(&photos, drawn, classes, work))
}

/// The intervals of the difference between two networks on the same photos, `first` minus `second`. Each resample draws the same photos
/// for both, so that a photo that is hard for both does not widen the interval.
///
/// `first[i]` and `second[i]` must be the same photo; photos at the end that only one list has are not used.
pub fn paired_intervals(first: &[Counted], second: &[Counted], classes: usize, resamples: usize) -> Intervals {
    let [first, second] = [first, second].map(|photos| photos.iter().map(Photo::of).collect::<Vec<_>>());
    percentiles(first.len().min(second.len()), resamples, |drawn, work| {
        figures(&first, drawn, classes, work).minus(&figures(&second, drawn, classes, work))
    })
}

/// A photo's numbers, and what is computed from them once.
struct Photo<'a> {
    counted: &'a Counted,
    miou: Option<f64>,
    mdice: Option<f64>,
}

impl<'a> Photo<'a> {
    fn of(counted: &'a Counted) -> Self {
        let regions = counted.regions();
        Self { counted, miou: regions.miou(), mdice: regions.mdice() }
    }
}

/// The figures of the drawn photos. `work` is reused.
fn figures(photos: &[Photo<'_>], drawn: &[usize], classes: usize, work: &mut [Areas; 2]) -> Figures {
    work.iter_mut().for_each(Areas::clear);
    let [regions, boundaries] = work;
    if regions.classes() != classes {
        (*regions, *boundaries) = (Areas::new(classes), Areas::new(classes));
    }
    let drawn: Vec<_> = drawn.iter().map(|&index| &photos[index]).collect();
    let add = |to: &mut Areas, from: &[(u16, Area)]| from.iter().for_each(|&(class, area)| to.add(class, area));
    for photo in &drawn {
        add(regions, &photo.counted.regions);
        add(boundaries, &photo.counted.boundaries);
    }
    Figures::new(regions, boundaries, &drawn)
}

fn percentiles(
    photos: usize,
    resamples: usize,
    figures: impl Fn(&[usize], &mut [Areas; 2]) -> Figures + Sync,
) -> Intervals {
    if photos < 2 || resamples == 0 {
        return Intervals::default();
    }
    let resampled = |work: &mut [Areas; 2], seed| figures(&draw(seed, photos), work);
    let resamples = (0..resamples as u64).into_par_iter().map_init(Default::default, resampled);
    let all: Vec<Figures> = process::parallel(|| resamples.collect());
    Intervals(Figure::ALL.map(|figure| {
        let mut values: Vec<f64> = all.iter().filter_map(|figures| figures.get(figure)).collect();
        values.sort_unstable_by(f64::total_cmp);
        let tail = 0.5 * (1.0 - LEVEL);
        Some(Interval(quantile(&values, tail)?, quantile(&values, 1.0 - tail)?))
    }))
}

/// The indices of a resample.
fn draw(seed: u64, photos: usize) -> Vec<usize> {
    let mut noise = Noise::new(seed);
    let place = |_| (0.5 * (f64::from(noise.uniform()) + 1.0) * photos as f64) as usize;
    (0..photos).map(place).map(|index| index.min(photos - 1)).collect()
}

/// A quantile of sorted values, interpolated between the two nearest; `None` if there are none.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * (sorted.len().checked_sub(1)?) as f64;
    let (below, part) = (place as usize, place.fract());
    let above = sorted.get(below + 1).copied().unwrap_or(sorted[below]);
    Some(sorted[below] + part * (above - sorted[below]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Photos of 100 pixels of two classes, of which so many are right.
    fn photos(right: impl Iterator<Item = u64>) -> Vec<Counted> {
        let photo = |right: u64| {
            let mut regions = Areas::new(2);
            regions.add(0, Area { hit: right, predicted: right, labelled: 100 });
            regions.add(1, Area { hit: 0, predicted: 100 - right, labelled: 0 });
            Counted::new("a.jpg", "a.png", &regions, &Areas::new(2), 0)
        };
        right.map(photo).collect()
    }

    /// 40 to 90, in an order without pattern.
    fn scattered(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|i| 40 + i * 37 % 51)
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_the_central_limit_theorem() {
        // The pixel accuracy of photos of one size is the mean of their accuracies.
        let photos = photos(scattered(204));
        let values: Vec<f64> = scattered(204).map(|right| right as f64 / 100.0).collect();
        let mean = values.iter().sum::<f64>() / 204.0;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 204.0;
        let half = 1.96 * (variance / 204.0).sqrt();
        let Interval(low, high) = intervals(&photos, 2, 4000).get(Figure::PixelAccuracy).unwrap();
        assert!((low - (mean - half)).abs() < 0.08 * half, "{low} instead of {}", mean - half);
        assert!((high - (mean + half)).abs() < 0.08 * half, "{high} instead of {}", mean + half);
    }

    #[test]
    fn a_paired_interval_removes_what_photos_have_in_common() {
        // The second network is worse by 2 or 3 pixels on every photo, which varies much less than the photos do.
        let first = photos(scattered(50));
        let second = photos(scattered(50).enumerate().map(|(i, right)| right - 2 - (i % 2) as u64));
        let Interval(low, high) = paired_intervals(&first, &second, 2, 2000).get(Figure::PixelAccuracy).unwrap();
        assert!(0.02 < low && low < 0.025 && 0.025 < high && high < 0.03, "{low} to {high}");
        let single = intervals(&first, 2, 2000).get(Figure::PixelAccuracy).unwrap();
        assert!(single.1 - single.0 > 10.0 * (high - low), "{single:?}");
        let same = paired_intervals(&first, &first, 2, 100).get(Figure::Miou);
        assert_eq!(same, Some(Interval(0.0, 0.0)));
    }

    #[test]
    fn too_few_photos_have_no_interval() {
        assert_eq!(intervals(&photos(scattered(1)), 2, 100), Intervals::default());
        assert_eq!(intervals(&photos(scattered(2)), 2, 0), Intervals::default());
        // Kappa has no value if there is one class only.
        assert_eq!(intervals(&photos([100, 100].into_iter()), 2, 100).get(Figure::Kappa), None);
    }

    #[test]
    fn quantiles_are_interpolated() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!((quantile(&[3.0], 0.975), quantile(&[1.0, 2.0, 4.0], 0.75)), (Some(3.0), Some(3.0)));
    }
}
