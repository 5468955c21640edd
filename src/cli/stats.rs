//! Statistics of a series of times.

use serde::{Deserialize, Serialize};

/// A stage is noisy if its slowest tenth takes more than this many times its median, because something else runs on the machine.
const STEADY: f64 = 1.25;

/// The statistics of a series of times. Percentiles interpolate linearly between ranks, like numpy's default.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) median_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) min_ms: f64,
    /// The quartiles. Half of the runs lie between them.
    pub(super) p25_ms: f64,
    pub(super) p75_ms: f64,
    /// Frames per second: the frames of a run divided by the median.
    pub(super) fps: f64,
    pub(super) runs: usize,
}

impl Figures {
    /// The statistics of these times in milliseconds, each for `batch` frames; all 0 if there are none.
    pub(super) fn of(milliseconds: &[f64], batch: u32) -> Self {
        let mut sorted = milliseconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |p| percentile(&sorted, p);
        let fps = if at(50.0) > 0.0 { 1000.0 * f64::from(batch) / at(50.0) } else { 0.0 };
        Self {
            median_ms: rounded(at(50.0)),
            p90_ms: rounded(at(90.0)),
            p99_ms: rounded(at(99.0)),
            min_ms: rounded(at(0.0)),
            p25_ms: rounded(at(25.0)),
            p75_ms: rounded(at(75.0)),
            fps: rounded(fps),
            runs: sorted.len(),
        }
    }

    /// Whether the middle halves of both series overlap. If so, the difference of their medians may be noise.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.p25_ms <= other.p75_ms && other.p25_ms <= self.p75_ms
    }

    /// Whether the spread is as small as on a machine that runs nothing else.
    pub(super) fn is_steady(&self) -> bool {
        self.p90_ms <= STEADY * self.median_ms
    }
}

/// The percentile of sorted numbers, interpolated between neighbours; 0 if there are none.
pub(super) fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let rank = percent / 100.0 * last as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[(rank.ceil() as usize).min(last)]);
    below + (above - below) * rank.fract()
}

/// Rounds to a ten-thousandth. For milliseconds, this is a tenth of a microsecond, which is finer than the clock's accuracy for a frame.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_match_numpy() {
        // numpy.percentile(numbers, [0, 50, 90, 99, 100])
        let cases: [(&[f64], [f64; 5]); 5] = [
            (&[], [0.0; 5]),                                                // no runs
            (&[7.0], [7.0; 5]),                                             // a single run
            (&[1.0, 2.0], [1.0, 1.5, 1.9, 1.99, 2.0]),                      // interpolated between two runs
            (&[1.0, 2.0, 3.0], [1.0, 2.0, 2.8, 2.98, 3.0]),                 // the median is one of the runs
            (&[1.0, 1.0, 1.0, 1.0, 100.0], [1.0, 1.0, 60.4, 96.04, 100.0]), // one outlier
        ];
        for (numbers, want) in cases {
            for (percent, want) in [0.0, 50.0, 90.0, 99.0, 100.0].into_iter().zip(want) {
                let got = percentile(numbers, percent);
                assert!((got - want).abs() < 1e-9, "{percent} % of {numbers:?}: got {got}, expected {want}");
            }
        }
    }

    #[test]
    fn figures_do_not_depend_on_the_order() {
        let figures = Figures::of(&[30.0, 10.0, 20.0], 1);
        assert_eq!(figures, Figures::of(&[10.0, 20.0, 30.0], 1));
        assert_eq!((figures.median_ms, figures.min_ms, figures.fps, figures.runs), (20.0, 10.0, 50.0, 3));
        assert_eq!((figures.p25_ms, figures.p75_ms), (15.0, 25.0));
        assert_eq!(Figures::of(&[20.0], 8).fps, 400.0, "eight frames per run");
    }

    #[test]
    fn series_overlap_if_their_middle_halves_do() {
        let slow = Figures::of(&[10.0, 11.0, 12.0, 13.0, 30.0], 1); // 11 to 13
        for (other, want) in [
            ([12.0, 12.0, 13.5, 14.0, 15.0], true), // 12 to 14
            ([1.0, 13.0, 14.0, 15.0, 16.0], true),  // touches at 13
            ([1.0, 13.1, 14.0, 15.0, 16.0], false), // 13.1 to 15, although its fastest run is within
            ([7.0, 8.0, 9.0, 10.0, 40.0], false),   // 8 to 10, although its slowest run is beyond
        ] {
            let other = Figures::of(&other, 1);
            assert_eq!((slow.overlaps(&other), other.overlaps(&slow)), (want, want), "{other:?}");
        }
    }

    #[test]
    fn without_runs_the_speed_is_zero() {
        let figures = Figures::of(&[], 1);
        assert_eq!((figures.fps, figures.runs, figures.is_steady()), (0.0, 0, true));
    }

    #[test]
    fn a_busy_machine_is_not_steady() {
        assert!(Figures::of(&[10.0, 10.1, 10.2, 10.3, 11.0], 1).is_steady());
        assert!(!Figures::of(&[10.0, 10.1, 10.2, 19.0, 20.0], 1).is_steady());
    }
}
