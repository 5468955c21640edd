//! The time of each operation of a frame, as a share of the frame and of the machine's peak.

use std::fmt::Write as _;

use image::RgbImage;
use rtformer::Segmenter;
use rtformer::bench::{self, FrameProfile};
use rtformer::pixels::Mask;
use serde::{Deserialize, Serialize};

use super::super::stats::rounded;

/// The operations of one frame, in the network's order.
///
/// Medians of operations do not add up to the median of frames. So each line is the operation's mean over the same set of frames: those
/// whose time lies in the middle half. This is as robust as a median, and `lines` and `between_ms` add up to `frame_ms`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Profile {
    /// The number of measured frames that are averaged.
    frames: usize,
    /// The wall-clock time of the whole frame.
    pub(super) frame_ms: f64,
    /// The part of the frame's time outside of all operations: distributing work to threads, and the backend's bookkeeping.
    pub(super) between_ms: f64,
    /// For the whole frame.
    gflops: f64,
    peak_share: Option<f64>,
    /// The device's measured peak in f32, in GFLOP/s; `None` if unknown.
    peak_gflops: Option<f64>,
    pub(super) lines: Vec<Line>,
}

/// One operation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) ms: f64,
    /// The share of the frame's time, 0 to 1.
    share: f64,
    /// 0 if the operation only moves memory.
    gflops: f64,
    /// The share of the peak. It can exceed 1 if an algorithm saves arithmetic, or in bf16.
    peak_share: Option<f64>,
    /// The least that must be read and written, per second; 0 if not counted.
    #[serde(default)]
    gbytes_per_s: f64,
}

impl Profile {
    /// Profiles `runs` frames after `warmup` frames.
    pub(super) fn measure(segmenter: &Segmenter, frame: &RgbImage, runs: u32, warmup: u32) -> anyhow::Result<Self> {
        let mut mask = Mask::new(frame.width(), frame.height(), segmenter.model().num_classes());
        for _ in 0..warmup {
            bench::profile(segmenter, frame, &mut mask)?;
        }
        let frames =
            (0..runs).map(|_| bench::profile(segmenter, frame, &mut mask)).collect::<rtformer::Result<Vec<_>>>()?;
        Ok(Self::of(frames, bench::peak_flops(segmenter).filter(|peak| *peak > 0.0)))
    }

    /// Averages the middle half of `frames`; `peak` is in floating-point operations per second.
    fn of(mut frames: Vec<FrameProfile>, peak: Option<f64>) -> Self {
        frames.sort_by(|a, b| a.milliseconds.total_cmp(&b.milliseconds));
        let outer = frames.len() / 4;
        let frames = &frames[outer..frames.len() - outer];
        let mean = |time: &dyn Fn(&FrameProfile) -> f64| {
            let sum: f64 = frames.iter().map(time).sum();
            sum / frames.len().max(1) as f64
        };
        // Billions per second.
        let giga = |ms: f64, of: f64| if ms > 0.0 { of / (ms * 1e6) } else { 0.0 };
        let peak_share = |gflops: f64| peak.map(|peak| rounded(gflops * 1e9 / peak));

        let frame_ms = mean(&|frame| frame.milliseconds);
        // Every frame has the same operations in the same order.
        let operations = frames.first().map_or(&[][..], |frame| &frame.operations);
        let line = |(index, op): (usize, &bench::OpTime)| {
            let ms = mean(&|frame| frame.operations.get(index).map_or(0.0, |op| op.milliseconds));
            let gflops = giga(ms, op.flops);
            let share = rounded(if frame_ms > 0.0 { ms / frame_ms } else { 0.0 });
            Line {
                name: op.name.clone(),
                ms: rounded(ms),
                share,
                gflops: rounded(gflops),
                peak_share: peak_share(gflops),
                gbytes_per_s: rounded(giga(ms, op.bytes)),
            }
        };
        let lines: Vec<_> = operations.iter().enumerate().map(line).collect();
        let frame_ms = rounded(frame_ms);
        let gflops = giga(frame_ms, operations.iter().map(|op| op.flops).sum());
        Self {
            frames: frames.len(),
            frame_ms,
            between_ms: rounded(frame_ms - lines.iter().map(|line| line.ms).sum::<f64>()),
            gflops: rounded(gflops),
            peak_share: peak_share(gflops),
            peak_gflops: peak.map(|peak| rounded(peak / 1e9)),
            lines,
        }
    }

    /// The text form.
    pub(super) fn table(&self) -> String {
        let width = self.lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0).max(10);
        let Self { frames, frame_ms, between_ms, gflops, peak_share, .. } = *self;
        let peak = self.peak_gflops.map_or("not known".into(), |peak| format!("{peak:.1} GFLOP/s, measured"));
        let mut text = format!(
            "one frame by operation, mean of the {frames} frames in the middle half by time; f32 peak of this device: {peak}\n"
        );
        let _ = writeln!(
            text,
            "{:width$} {:>9} {:>7} {:>9} {:>8} {:>8}",
            "operation", "ms", "share", "GFLOP/s", "of peak", "GB/s"
        );
        let mut line = |name: &str, ms: f64, gflops: f64, peak_share: Option<f64>, gbytes: f64| {
            let share = if frame_ms > 0.0 { 100.0 * ms / frame_ms } else { 0.0 };
            let speed = if gflops > 0.0 { format!("{gflops:.1}") } else { "-".into() };
            let of_peak =
                peak_share.filter(|_| gflops > 0.0).map_or("-".into(), |share| format!("{:.1} %", 100.0 * share));
            let moved = if gbytes > 0.0 { format!("{gbytes:.1}") } else { "-".into() };
            let _ = writeln!(text, "{name:width$} {ms:9.3} {share:5.1} % {speed:>9} {of_peak:>8} {moved:>8}");
        };
        for op in &self.lines {
            line(&op.name, op.ms, op.gflops, op.peak_share, op.gbytes_per_s);
        }
        line("operations", frame_ms - between_ms, 0.0, None, 0.0);
        line("between", between_ms, 0.0, None, 0.0);
        line("frame", frame_ms, gflops, peak_share, 0.0);
        text += "GFLOP/s count each convolution's direct multiplications and additions. The peak is that of f32. Layers can exceed it \
                 if Winograd's algorithm needs fewer operations, or in bf16.\n";
        text
    }
}

#[cfg(test)]
mod tests {
    use rtformer::{Device, Segmenter};

    use super::*;

    /// Real profiles of a tiny frame; their times are made up.
    fn frames(milliseconds: &[f64]) -> Vec<FrameProfile> {
        let segmenter = Segmenter::open("tests/data/golden/tiny.safetensors", Device::Cpu).unwrap();
        let mut mask = Mask::new(0, 0, 5);
        let frame = |ms: &f64| {
            let mut frame = bench::profile(&segmenter, &RgbImage::new(32, 32), &mut mask).unwrap();
            frame.operations.truncate(2);
            frame.milliseconds = *ms;
            for (op, share) in frame.operations.iter_mut().zip([0.25, 0.5]) {
                (op.milliseconds, op.flops) = (share * ms, 1e6);
            }
            frame
        };
        milliseconds.iter().map(frame).collect()
    }

    #[test]
    fn the_middle_half_is_averaged_and_the_parts_add_up() {
        // Of eight, the two fastest and the two slowest are left out.
        let profile = Profile::of(frames(&[1.0, 100.0, 9.0, 11.0, 2.0, 8.0, 12.0, 900.0]), Some(1e9));
        assert_eq!((profile.frames, profile.frame_ms, profile.between_ms), (4, 10.0, 2.5));
        let ms: Vec<_> = profile.lines.iter().map(|line| (line.ms, line.share)).collect();
        assert_eq!(ms, [(2.5, 0.25), (5.0, 0.5)]);
        // A million operations in 2.5 ms are 0.4 GFLOP/s; two million in the frame's 10 ms are 0.2.
        assert_eq!((profile.lines[0].gflops, profile.lines[0].peak_share), (0.4, Some(0.4)));
        assert_eq!((profile.gflops, profile.peak_share, profile.peak_gflops), (0.2, Some(0.2), Some(1.0)));
    }

    #[test]
    fn few_frames_are_all_averaged() {
        for (times, want) in [(&[3.0][..], 3.0), (&[1.0, 3.0], 2.0), (&[5.0, 1.0, 3.0], 3.0)] {
            let profile = Profile::of(frames(times), None);
            assert_eq!((profile.frames, profile.frame_ms, profile.peak_share), (times.len(), want, None));
        }
    }
}
