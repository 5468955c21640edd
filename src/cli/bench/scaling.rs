//! How the time of a frame falls with the number of threads.

use std::fmt::Write as _;
use std::time::Instant;

use image::RgbImage;
use rtformer::bench;
use serde::{Deserialize, Serialize};

use super::super::stats::{Figures, rounded};
use super::{Args, Console};

/// The figures of the stage `mask` for several numbers of threads.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Scaling {
    /// The share of the work that splits over threads, from Amdahl's law and the least and the largest number measured; `None` if only
    /// one was measured.
    parallel_share: Option<f64>,
    lines: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    threads: usize,
    ms: f64,
    /// The speedup over the least number of threads, divided by the number of times that there are more threads.
    efficiency: f64,
    /// Whether the time follows from the parallel share, because this machine has fewer cores. It assumes that memory is as fast for all.
    modelled: bool,
}

impl Scaling {
    /// Measures the numbers of threads for which there are cores, in turns, and models the others.
    pub(super) fn measure(args: &Args, frame: &RgbImage, console: &Console) -> anyhow::Result<Self> {
        let mut numbers: Vec<usize> = args.device.threads.iter().map(|&number| usize::from(number)).collect();
        let default = rtformer::backend::Threads::of_this_process().number;
        numbers.iter_mut().filter(|number| **number == 0).for_each(|number| *number = default);
        numbers.sort_unstable();
        numbers.dedup();
        // At least one is measured.
        let cores = default.max(numbers.first().copied().unwrap_or(1));
        let (measured, missing): (Vec<_>, Vec<_>) = numbers.into_iter().partition(|number| *number <= cores);
        let segmenters = measured.iter().map(|&number| args.segmenter(number)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut residents = Vec::new();
        for segmenter in &segmenters {
            let inputs = vec![bench::prepare(segmenter, frame)?; args.batch as usize];
            residents.push((bench::resident(segmenter, &inputs)?, Vec::new()));
        }
        let all = args.warmup + args.runs;
        let bar = console.progress(u64::from(all), "runs");
        for run in 0..all {
            for (resident, times) in &mut residents {
                let start = Instant::now();
                resident.compute_masks()?;
                if run >= args.warmup {
                    times.push(1e3 * start.elapsed().as_secs_f64());
                }
            }
            bar.inc(1);
        }
        console.finish();
        let times = residents.iter().map(|(_, times)| Figures::of(times, args.batch).median_ms);
        let measured: Vec<_> = measured.iter().copied().zip(times).collect();
        Ok(Self::of(&measured, &missing))
    }

    /// From measured pairs of threads and milliseconds, sorted by threads, and the numbers of threads to model.
    fn of(measured: &[(usize, f64)], missing: &[usize]) -> Self {
        let parallel_share = parallel_share(measured);
        let least = measured.first().copied().unwrap_or((1, 0.0));
        let line = |(threads, ms): (usize, f64), modelled| Line {
            threads,
            ms: rounded(ms),
            efficiency: if ms > 0.0 { rounded(least.1 * least.0 as f64 / (ms * threads as f64)) } else { 0.0 },
            modelled,
        };
        let modelled = missing.iter().filter_map(|&threads| {
            let share = parallel_share?;
            let ms = least.1 * relative(share, threads) / relative(share, least.0);
            Some(line((threads, ms), true))
        });
        let lines = measured.iter().map(|&measured| line(measured, false)).chain(modelled).collect();
        Self { parallel_share: parallel_share.map(rounded), lines }
    }

    /// The text form.
    pub(super) fn table(&self) -> String {
        let mut text = String::from("threads  median ms  efficiency  (stage mask, all numbers of threads in turns)\n");
        for Line { threads, ms, efficiency, modelled } in &self.lines {
            let note = if *modelled { "  modelled: fewer cores here" } else { "" };
            let _ = writeln!(text, "{threads:7} {ms:10.2} {:9.1} %{note}", 100.0 * efficiency);
        }
        if let Some(share) = self.parallel_share {
            let _ = writeln!(text, "{:.1} % of the work splits over threads (Amdahl's law)", 100.0 * share);
        }
        text
    }
}

/// The time of `threads` relative to that of one if `share` of the work splits.
fn relative(share: f64, threads: usize) -> f64 {
    1.0 - share + share / threads as f64
}

/// The share for which [`relative`] gives the ratio of the last to the first of the measured times.
fn parallel_share(measured: &[(usize, f64)]) -> Option<f64> {
    let [(few, slow), .., (many, fast)] = *measured else { return None };
    let ratio = if slow > 0.0 { fast / slow } else { return None };
    let saved = |threads: usize| 1.0 - 1.0 / threads as f64;
    let share = (1.0 - ratio) / (saved(many) - ratio * saved(few));
    share.is_finite().then(|| share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_continues_the_measured_times() {
        // 80 % splits: 100, 60 and 40 ms for one, two and four threads.
        for measured in [vec![(1, 100.0), (2, 60.0)], vec![(2, 60.0), (4, 40.0)]] {
            let scaling = Scaling::of(&measured, &[8]);
            assert_eq!(scaling.parallel_share, Some(0.8));
            let line = scaling.lines.last().unwrap();
            assert!(line.modelled && (line.ms - 30.0).abs() < 1e-9, "{line:?}");
        }
        let scaling = Scaling::of(&[(1, 100.0), (2, 60.0)], &[8]);
        let efficiencies: Vec<_> = scaling.lines.iter().map(|line| line.efficiency).collect();
        assert_eq!(efficiencies, [1.0, 0.8333, 0.4167]);
    }

    #[test]
    fn without_two_measured_numbers_nothing_is_modelled() {
        let scaling = Scaling::of(&[(1, 100.0)], &[2, 4]);
        assert_eq!((scaling.parallel_share, scaling.lines.len()), (None, 1));
        // Noise can make more threads seem slower.
        assert_eq!(Scaling::of(&[(1, 100.0), (2, 120.0)], &[]).parallel_share, Some(0.0));
    }
}
