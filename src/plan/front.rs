//! Time against quality: the points that no other point beats in both.

/// Points within this share of each other's time count as equally fast: on a quiet machine, repeated measurements differ by less.
const SAME_TIME: f64 = 0.05;

/// Points within this quality of each other count as equally good: half a percentage point.
const SAME_QUALITY: f64 = 0.005;

/// The cost and the worth of one way to run a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Milliseconds per frame.
    pub ms: f64,
    /// The quality, 0 to 1, such as the mean `IoU`. `NaN` if it is unknown; then the point is on no front.
    pub quality: f64,
}

/// What the user needs of a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The best quality at this number of frames per second or more.
    Fps(f64),
    /// The best quality in this number of milliseconds per frame or fewer.
    Latency(f64),
    /// The fastest point with this quality or a better one.
    Quality(f64),
}

impl Goal {
    /// Whether a point has what is needed.
    pub fn is_met(&self, point: &Point) -> bool {
        match *self {
            Self::Fps(fps) => point.ms * fps <= 1e3 && !point.quality.is_nan(),
            Self::Latency(ms) => point.ms <= ms && !point.quality.is_nan(),
            Self::Quality(quality) => point.quality >= quality,
        }
    }
}

/// The Pareto-optimal points, fastest first: those that no other point beats. Of equal points, only the first counts.
///
/// ```
/// use rtformer::plan::{Point, front};
///
/// let points = [(90.0, 0.66), (40.0, 0.60), (50.0, 0.58)].map(|(ms, quality)| Point { ms, quality });
/// assert_eq!(front(&points), [1, 0], "the third is slower and worse than the second");
/// ```
pub fn front(points: &[Point]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).filter(|&i| !points[i].quality.is_nan()).collect();
    // The sort is stable: equal points keep their order.
    order.sort_by(|&a, &b| points[a].ms.total_cmp(&points[b].ms).then(points[b].quality.total_cmp(&points[a].quality)));
    let mut best = f64::NEG_INFINITY;
    order.retain(|&i| {
        let better = points[i].quality > best;
        best = best.max(points[i].quality);
        better
    });
    order
}

/// The point that serves a goal best; `None` if no point meets it.
///
/// ```
/// use rtformer::plan::{Goal, Point, choose};
///
/// let points = [(90.0, 0.66), (40.0, 0.60), (20.0, 0.50)].map(|(ms, quality)| Point { ms, quality });
/// assert_eq!(choose(&points, Goal::Fps(20.0)), Some(1)); // 50 ms are left for a frame
/// assert_eq!(choose(&points, Goal::Quality(0.55)), Some(1));
/// assert_eq!(choose(&points, Goal::Latency(10.0)), None);
/// ```
pub fn choose(points: &[Point], goal: Goal) -> Option<usize> {
    let mut met = front(points).into_iter().filter(|&i| goal.is_met(&points[i]));
    match goal {
        Goal::Fps(_) | Goal::Latency(_) => met.next_back(), // quality rises along the front
        Goal::Quality(_) => met.next(),
    }
}

/// Whether nothing is gained by leaving the point `plain`: the front has only points that are as fast and as good as it, to within 5 % of its
/// time and half a percentage point of quality.
///
/// ```
/// use rtformer::plan::{Point, is_flat};
///
/// let points = [(90.0, 0.66), (88.0, 0.658), (94.0, 0.661)].map(|(ms, quality)| Point { ms, quality });
/// assert!(is_flat(&points, 0));
/// assert!(!is_flat(&[points[0], Point { ms: 45.0, quality: 0.6 }], 0));
/// ```
pub fn is_flat(points: &[Point], plain: usize) -> bool {
    let Some(plain) = points.get(plain) else { return false };
    front(points).into_iter().all(|i| {
        let point = &points[i];
        (point.ms / plain.ms - 1.0).abs() <= SAME_TIME && (point.quality - plain.quality).abs() <= SAME_QUALITY
    })
}

/// The fastest point that is as good as `plain`, to within half a percentage point, if it is more than 5 % faster.
///
/// ```
/// use rtformer::plan::{Point, saving};
///
/// let points = [(90.0, 0.66), (60.0, 0.657), (40.0, 0.60)].map(|(ms, quality)| Point { ms, quality });
/// assert_eq!(saving(&points, 0), Some(1));
/// assert_eq!(saving(&points[..1], 0), None);
/// ```
pub fn saving(points: &[Point], plain: usize) -> Option<usize> {
    let plain = points.get(plain)?;
    let fastest = choose(points, Goal::Quality(plain.quality - SAME_QUALITY))?;
    (points[fastest].ms < (1.0 - SAME_TIME) * plain.ms).then_some(fastest)
}

/// The largest of some sizes, in rising order, that takes at most `limit` milliseconds, for times that grow with the size. `None` if not even the
/// smallest does.
///
/// It measures few sizes, and none that is much too slow: every second, fourth, eighth and so on until one is too slow, then between them.
///
/// ```
/// use rtformer::plan::largest_within;
///
/// let largest = largest_within(&[4, 8, 12, 16, 20], 50.0, |width| Ok(3.0 * f64::from(width)))?;
/// assert_eq!(largest, Some(16));
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// Those of `measure`.
pub fn largest_within<E>(
    sizes: &[u32],
    limit: f64,
    mut measure: impl FnMut(u32) -> Result<f64, E>,
) -> Result<Option<u32>, E> {
    // Everything before `low` is fast enough, and nothing from `high` on.
    let (mut low, mut high, mut step) = (0, sizes.len(), 1);
    while low < high {
        let middle = if high == sizes.len() { (low + step - 1).min(high - 1) } else { low + (high - low) / 2 };
        if measure(sizes[middle])? <= limit {
            (low, step) = (middle + 1, 2 * step);
        } else {
            high = middle;
        }
    }
    Ok(low.checked_sub(1).map(|last| sizes[last]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Noise;

    /// Whether a point is at least as fast and at least as good as the other, and better in one of both.
    fn beats(point: &Point, other: &Point) -> bool {
        let no_worse = point.ms <= other.ms && point.quality >= other.quality;
        no_worse && (point.ms < other.ms || point.quality > other.quality)
    }

    /// Points on a coarse grid, so that many are equal in one or both.
    fn points(noise: &mut Noise, count: usize) -> Vec<Point> {
        let mut step = |most: f32| f64::from((most * noise.uniform().abs()).floor());
        (0..count).map(|_| Point { ms: 10.0 + step(9.0), quality: 0.1 * step(9.0) }).collect()
    }

    #[test]
    fn the_front_is_what_no_other_point_beats() {
        let mut noise = Noise::new(3);
        for count in (0..40).chain([200]) {
            let mut points = points(&mut noise, count);
            if count > 3 {
                points[2].quality = f64::NAN;
            }
            let beaten =
                |i: usize| points.iter().any(|other| beats(other, &points[i])) || points[..i].contains(&points[i]);
            let mut want: Vec<_> = (0..count).filter(|&i| !points[i].quality.is_nan() && !beaten(i)).collect();
            want.sort_by(|&a, &b| points[a].ms.total_cmp(&points[b].ms));
            assert_eq!(front(&points), want, "{points:?}");

            for goal in [Goal::Fps(70.0), Goal::Latency(14.0), Goal::Quality(0.45), Goal::Quality(2.0)] {
                let met = (0..count).filter(|&i| goal.is_met(&points[i]));
                // Exhaustively: the best by the first criterion, then by the second, then the first in order.
                let key = |&i: &usize| match goal {
                    Goal::Quality(_) => (points[i].ms, -points[i].quality),
                    _ => (-points[i].quality, points[i].ms),
                };
                let want = met.min_by(|a, b| key(a).partial_cmp(&key(b)).unwrap());
                assert_eq!(choose(&points, goal), want, "{goal:?} of {points:?}");
            }
        }
    }

    #[test]
    fn a_flat_front_offers_nothing_but_the_plain_network() {
        let cases = [
            (vec![(90.0, 0.66)], true, None),                               // only the plain network
            (vec![(90.0, 0.66), (45.0, 0.5)], false, None),                 // faster and worse
            (vec![(90.0, 0.66), (45.0, 0.657)], false, Some(1)),            // faster and as good
            (vec![(90.0, 0.66), (99.0, 0.69)], false, None),                // slower and better
            (vec![(90.0, 0.66), (99.0, 0.60)], true, None),                 // slower and worse
            (vec![(90.0, 0.66), (87.0, 0.662), (91.0, 0.663)], true, None), // the same within noise
            (vec![(90.0, 0.66), (87.0, f64::NAN)], true, None),             // unknown
        ];
        for (points, flat, faster) in cases {
            let points: Vec<_> = points.into_iter().map(|(ms, quality)| Point { ms, quality }).collect();
            assert_eq!((is_flat(&points, 0), saving(&points, 0)), (flat, faster), "{points:?}");
        }
    }

    #[test]
    fn the_largest_size_is_found_with_few_measurements() {
        let sizes: Vec<u32> = (1..=64).map(|i| 4 * i).collect();
        for limit in 0..=260 {
            let mut measured = Vec::new();
            let found = largest_within(&sizes, f64::from(limit), |size| {
                measured.push(size);
                Ok::<_, ()>(f64::from(size))
            });
            let want = sizes.iter().copied().filter(|&size| size <= limit).max();
            assert_eq!(found, Ok(want), "{limit}");
            let most = measured.iter().copied().max().unwrap_or(0);
            assert!(measured.len() <= 11 && most <= 4 * limit.max(1) + 4, "{limit}: {measured:?}");
        }
        assert_eq!(largest_within(&[4], 1.0, |_| Err("no device")), Err("no device"));
        assert_eq!(largest_within(&[], 1.0, |_| Err("no device")), Ok(None));
    }
}
