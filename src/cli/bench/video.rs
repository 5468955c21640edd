//! `bench --video`: sustained speed, and how old masks are.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use image::RgbImage;
use rtformer::Segmenter;
use rtformer::video::Keep;
use serde::{Deserialize, Serialize};

use super::super::stats::{percentile, rounded};

/// Measured on a stream of frames in memory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Video {
    /// Frames per second if every frame of a file is segmented.
    fps: f64,
    /// Frames per second of the live source: twice as many.
    source_fps: f64,
    /// The age of a live source's masks, from the frame's arrival, in milliseconds.
    age_median_ms: f64,
    age_p95_ms: f64,
    age_p99_ms: f64,
    /// The share of the live source's frames that were dropped.
    dropped_share: f64,
    /// The number of masks in each of the two measurements.
    masks: usize,
}

impl Video {
    /// Measures `runs` frames of a file, then as many masks of a live source that is twice as fast.
    pub(super) fn measure(
        segmenter: &Arc<Segmenter>,
        frame: &RgbImage,
        runs: u32,
        warmup: u32,
    ) -> rtformer::Result<Self> {
        // Each frame is another picture, as in a video.
        let frame = frame.clone();
        let shifted = move |n: u32| {
            let mut frame = frame.clone();
            let bytes = frame.len();
            frame.rotate_left(3 * n as usize % bytes);
            Ok(frame)
        };
        let (warmup, runs) = (warmup.max(1) as usize, runs as usize);
        let make = shifted.clone();
        let file = (0..(warmup + runs) as u32).map(make);
        let times = segmenter.stream(file, Keep::Every).map(|shown| shown.map(|_| Instant::now()));
        let times: Vec<_> = times.collect::<Result<_, _>>()?;
        let seconds = times[warmup + runs - 1].duration_since(times[warmup - 1]).as_secs_f64();
        let fps = runs as f64 / seconds;

        let pause = Duration::from_secs_f64(0.5 / fps);
        let mut due = Instant::now();
        let live = (0..).map(move |n| {
            let made = shifted(n);
            due += pause;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            made
        });
        let (mut ages, mut dropped) = (Vec::new(), 0);
        for shown in segmenter.stream(live, Keep::Newest).skip(warmup).take(runs) {
            let shown = shown?;
            ages.push(1e3 * shown.arrived.elapsed().as_secs_f64());
            dropped += shown.dropped;
        }
        ages.sort_by(f64::total_cmp);
        let age = |percent| rounded(percentile(&ages, percent));
        let dropped_share = rounded(dropped as f64 / (dropped as f64 + runs as f64));
        let (fps, source_fps) = (rounded(fps), rounded(2.0 * fps));
        let (age_median_ms, age_p95_ms, age_p99_ms) = (age(50.0), age(95.0), age(99.0));
        Ok(Self { fps, source_fps, age_median_ms, age_p95_ms, age_p99_ms, dropped_share, masks: runs })
    }

    /// The text form.
    pub(super) fn table(&self) -> String {
        let Self { fps, source_fps, age_median_ms, age_p95_ms, age_p99_ms, dropped_share, masks } = self;
        format!(
            "video    {fps:.2} frames per second, sustained over {masks} frames\n         age of masks of a live source of {source_fps:.2} \
             frames per second, in milliseconds: median {age_median_ms:.2}, p95 {age_p95_ms:.2}, p99 {age_p99_ms:.2}; \
             {:.1} % of its frames dropped\n",
            100.0 * dropped_share
        )
    }
}
