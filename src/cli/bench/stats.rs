//! Figures of a series of times.

use serde::Serialize;

/// A stage is noisy when its slowest tenth takes more than this times its median: something else runs on the machine.
const STEADY: f64 = 1.25;

/// What a series of times comes to. Percentiles interpolate linearly between ranks, as numpy's default does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) median_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) min_ms: f64,
    /// One second over the median.
    pub(super) fps: f64,
    pub(super) runs: usize,
}

impl Figures {
    /// The figures of these milliseconds; all 0 where there are none.
    pub(super) fn of(milliseconds: &[f64]) -> Self {
        let mut sorted = milliseconds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |p| percentile(&sorted, p);
        let fps = if at(50.0) > 0.0 { 1000.0 / at(50.0) } else { 0.0 };
        Self {
            median_ms: rounded(at(50.0)),
            p90_ms: rounded(at(90.0)),
            p99_ms: rounded(at(99.0)),
            min_ms: rounded(at(0.0)),
            fps: rounded(fps),
            runs: sorted.len(),
        }
    }

    /// Whether the spread is that of a machine that does nothing else.
    pub(super) fn is_steady(&self) -> bool {
        self.p90_ms <= STEADY * self.median_ms
    }
}

/// The median of numbers in any order; 0 of none.
pub(super) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile(&sorted, 50.0)
}

/// The value under which `percent` of the sorted numbers lie, between two of them in proportion; 0 of none.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let rank = percent / 100.0 * last as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[(rank.ceil() as usize).min(last)]);
    below + (above - below) * rank.fract()
}

/// To a ten-thousandth: a tenth of a microsecond is past what a clock around a frame can tell.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_numpys() {
        // numpy.percentile(numbers, [0, 50, 90, 99, 100])
        let cases: [(&[f64], [f64; 5]); 5] = [
            (&[], [0.0; 5]),                                                // no run at all
            (&[7.0], [7.0; 5]),                                             // one is all of them
            (&[1.0, 2.0], [1.0, 1.5, 1.9, 1.99, 2.0]),                      // between the only two
            (&[1.0, 2.0, 3.0], [1.0, 2.0, 2.8, 2.98, 3.0]),                 // a median that is there
            (&[1.0, 1.0, 1.0, 1.0, 100.0], [1.0, 1.0, 60.4, 96.04, 100.0]), // one outlier
        ];
        for (numbers, want) in cases {
            for (percent, want) in [0.0, 50.0, 90.0, 99.0, 100.0].into_iter().zip(want) {
                let got = percentile(numbers, percent);
                assert!((got - want).abs() < 1e-9, "{percent} % of {numbers:?}: {got}, wanted {want}");
            }
        }
    }

    #[test]
    fn figures_do_not_depend_on_the_order() {
        let figures = Figures::of(&[30.0, 10.0, 20.0]);
        assert_eq!(figures, Figures::of(&[10.0, 20.0, 30.0]));
        assert_eq!((figures.median_ms, figures.min_ms, figures.fps, figures.runs), (20.0, 10.0, 50.0, 3));
        assert!((median(&[3.0, 1.0, 2.0, 10.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn no_run_has_no_speed() {
        let figures = Figures::of(&[]);
        assert_eq!((figures.fps, figures.runs, figures.is_steady()), (0.0, 0, true));
    }

    #[test]
    fn a_busy_machine_shows() {
        assert!(Figures::of(&[10.0, 10.1, 10.2, 10.3, 11.0]).is_steady());
        assert!(!Figures::of(&[10.0, 10.1, 10.2, 19.0, 20.0]).is_steady());
    }
}
