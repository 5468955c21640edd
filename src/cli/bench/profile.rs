//! Where one frame's time goes, operation by operation, as a share of what the machine can do.

use std::fmt::Write as _;

use rtformer::Segmenter;
use rtformer::pixels::Input;
use serde::Serialize;

use super::stats::{median, rounded};

/// Each operation's time is the median of so many frames.
const FRAMES: usize = 7;

/// The operations of one frame, in the network's order.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) lines: Vec<Line>,
    /// The most that the device can do, in GFLOP/s; measured, and none where nobody knows.
    pub(super) peak_gflops: Option<f64>,
    /// The whole frame.
    total: Line,
}

/// One operation.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    name: String,
    ms: f64,
    /// 0 where it only moves memory.
    gflops: f64,
    /// Of the peak, 0 to 1.
    peak_share: Option<f64>,
}

impl Profile {
    /// Profiles some frames.
    pub(super) fn measure(segmenter: &Segmenter, input: &Input) -> anyhow::Result<Self> {
        let frames = (0..FRAMES).map(|_| segmenter.profile(input)).collect::<rtformer::Result<Vec<_>>>()?;
        let peak = segmenter.peak_flops().filter(|peak| *peak > 0.0);
        let line = |name: &str, ms: f64, flops: f64| {
            let speed = if ms > 0.0 { flops / (ms / 1e3) } else { 0.0 };
            let peak_share = peak.map(|peak| rounded(speed / peak));
            Line { name: name.into(), ms: rounded(ms), gflops: rounded(speed / 1e9), peak_share }
        };
        let mut lines = Vec::new();
        let (mut total_ms, mut total_flops) = (0.0, 0.0);
        // A frame is the same operations in the same order each time.
        for (index, op) in frames.first().into_iter().flatten().enumerate() {
            let times: Vec<f64> = frames.iter().filter_map(|ops| ops.get(index)).map(|op| op.milliseconds).collect();
            let ms = median(&times);
            lines.push(line(&op.name, ms, op.flops));
            total_ms += ms;
            total_flops += op.flops;
        }
        let total = line("total", total_ms, total_flops);
        Ok(Self { lines, peak_gflops: peak.map(|peak| rounded(peak / 1e9)), total })
    }

    /// For a person to read.
    pub(super) fn table(&self) -> String {
        if self.lines.is_empty() {
            return "this device does not tell how long each operation takes\n".into();
        }
        let width = self.lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0).max(9);
        let mut text = String::new();
        let peak = self.peak_gflops.map_or("not known".into(), |peak| format!("{peak:.1} GFLOP/s, measured"));
        let _ = writeln!(text, "one frame by operation, median of {FRAMES}; peak of this device: {peak}");
        let _ = writeln!(text, "{:width$} {:>9} {:>7} {:>9} {:>8}", "operation", "ms", "share", "GFLOP/s", "of peak");
        for line in self.lines.iter().chain([&self.total]) {
            let share = if self.total.ms > 0.0 { 100.0 * line.ms / self.total.ms } else { 0.0 };
            let (speed, of_peak) = if line.gflops > 0.0 {
                let of_peak = line.peak_share.map_or("-".into(), |share| format!("{:.1} %", 100.0 * share));
                (format!("{:.1}", line.gflops), of_peak)
            } else {
                ("-".into(), "-".into())
            };
            let _ = writeln!(text, "{:width$} {:9.3} {share:5.1} % {speed:>9} {of_peak:>8}", line.name, line.ms);
        }
        text
    }
}
