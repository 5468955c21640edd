//! The answer of the inference half: for people, as JSON, and as a picture.

use std::fmt::Write as _;
use std::path::Path;

use image::RgbImage;
use rtformer::pixels::Image;
use rtformer::plan::{Goal, Point, choose, front, is_flat, saving};
use serde::Serialize;

use super::super::super::console::counted;
use super::super::chart::{Axis, COLORS, COMPUTED, Chart, Series, Shape};
use super::super::quoted;
use super::quality::Quality;
use super::{InferenceArgs, Measured, goal};

/// The file of the picture.
pub(in super::super) const NAMES: [&str; 1] = ["front.png"];

/// A point as JSON.
#[derive(Clone, Serialize)]
struct Row {
    weights: String,
    size: String,
    precision: String,
    /// The risk for which adaptive inference was used; `None` for the full network.
    epsilon: Option<f64>,
    /// The median.
    latency_ms: f64,
    min_ms: f64,
    p25_ms: f64,
    p75_ms: f64,
    /// Frames per second at the median.
    fps: f64,
    runs: usize,
    #[serde(flatten)]
    quality: Quality,
    /// Whether no other point is both faster and better.
    optimal: bool,
    /// The command that measures the time again.
    bench: String,
    #[serde(skip)]
    flags: String,
}

/// The answer.
#[derive(Serialize)]
pub(super) struct Answer {
    /// What is timed.
    photo: String,
    width: u32,
    height: u32,
    device: String,
    /// `miou` or `consistency`.
    quality: &'static str,
    /// The number of photos that could not be measured.
    failed: usize,
    /// The first is the plain network.
    points: Vec<Row>,
    /// Whether the plain network is the answer: no other point is faster or better.
    flat: bool,
    /// How many times as fast as the plain network the fastest point of the same quality is; 1 if it is not 5 % faster.
    saving: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Wanted>,
    /// The point for the goal; `None` without one, or if no point meets it.
    chosen: Option<Row>,
    #[serde(skip)]
    fastest: Option<usize>,
    #[serde(skip)]
    images: String,
    /// Whether adaptive inference was asked for.
    #[serde(skip)]
    risks: bool,
}

/// A goal as JSON.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Fps(f64),
    LatencyMs(f64),
    Miou(f64),
}

impl Answer {
    pub(super) fn new(args: &InferenceArgs, photo: &Image, measured: &[Measured], failed: usize) -> Self {
        let timed = photo.name().display().to_string();
        let quality = |point: &Measured| point.quality.miou.or(point.quality.consistency).unwrap_or(f64::NAN);
        let points: Vec<_> =
            measured.iter().map(|of| Point { ms: of.figures.median_ms, quality: quality(of) }).collect();
        let (optimal, flat) = (front(&points), is_flat(&points, 0));
        let rows: Vec<_> = measured
            .iter()
            .enumerate()
            .map(|(i, Measured { candidate, figures, quality, .. })| {
                let flags = candidate.flags(args);
                Row {
                    weights: candidate.weights.clone(),
                    size: candidate.size.to_string(),
                    precision: candidate.precision.to_string(),
                    epsilon: candidate.epsilon,
                    latency_ms: figures.median_ms,
                    min_ms: figures.min_ms,
                    p25_ms: figures.p25_ms,
                    p75_ms: figures.p75_ms,
                    fps: figures.fps,
                    runs: figures.runs,
                    quality: *quality,
                    optimal: optimal.contains(&i),
                    bench: format!("rtformer bench --photo {} {flags} --stages frame", quoted(&timed)),
                    flags,
                }
            })
            .collect();
        let goal = goal(args);
        let chosen = goal.and_then(|goal| match points.first() {
            Some(plain) if flat && goal.is_met(plain) => Some(0),
            _ => choose(&points, goal),
        });
        let fastest = saving(&points, 0);
        Self {
            photo: timed,
            width: photo.width(),
            height: photo.height(),
            device: measured.first().map_or(String::new(), |point| point.on.clone()),
            quality: if args.labels.is_some() { "miou" } else { "consistency" },
            failed,
            flat,
            saving: fastest.map_or(1.0, |i| points[0].ms / points[i].ms),
            goal: goal.map(|goal| match goal {
                Goal::Fps(fps) => Wanted::Fps(fps),
                Goal::Latency(ms) => Wanted::LatencyMs(ms),
                Goal::Quality(miou) => Wanted::Miou(miou),
            }),
            chosen: chosen.map(|i| rows[i].clone()),
            fastest,
            images: args.images.as_ref().map_or(String::new(), |images| quoted(&images.display().to_string())),
            points: rows,
            risks: !args.epsilon.is_empty(),
        }
    }

    /// Why no point was chosen, if there is a goal.
    pub(super) fn unmet(&self) -> Option<String> {
        let wanted = self.goal.filter(|_| self.chosen.is_none())?;
        let fastest = self.points.iter().map(|row| row.fps).fold(0.0, f64::max);
        let best = self.points.iter().filter_map(|row| row.quality.miou).fold(0.0, f64::max);
        Some(match wanted {
            Wanted::Fps(fps) => format!("no point reaches {fps} frames per second; the fastest has {fastest:.1}"),
            Wanted::LatencyMs(ms) => {
                format!("no point needs at most {ms} ms per frame; the fastest needs {:.1}", 1e3 / fastest)
            }
            Wanted::Miou(miou) => format!("no point has a mean IoU of {miou}; the best has {best:.4}"),
        })
    }

    /// For a person to read.
    pub(super) fn text(&self) -> String {
        let Self { photo, width, height, device, .. } = self;
        let images = self.points.iter().map(|row| row.quality.images).min().unwrap_or(0);
        let (name, what) = match self.quality {
            "miou" => ("mIoU %", "mean IoU"),
            _ => ("same %", "consistency with the first point"),
        };
        let mut text =
            format!("time of {photo} ({width}x{height}) on {device}; {what} of {}\n\n", counted(images, "photo"));
        let wide = self.points.iter().map(|row| row.weights.chars().count()).max().unwrap_or(0).max("weights".len());
        let size = self.points.iter().map(|row| row.size.len()).max().unwrap_or(0);
        // The column is there if a risk was asked for.
        let risk = |risk: &dyn std::fmt::Display| if self.risks { format!("{risk:7}  ") } else { String::new() };
        let column = risk(&"epsilon");
        let _ =
            writeln!(text, "  {:wide$}  {:size$}  precision  {column}median ms      FPS  {name}", "weights", "size");
        for row in self.sorted() {
            let mark = if row.optimal { '*' } else { ' ' };
            let quality = row.quality.miou.or(row.quality.consistency);
            let quality = quality.map_or("-".into(), |quality| format!("{:.2}", 100.0 * quality));
            let Row { weights, size: seen, precision, epsilon, latency_ms, fps, .. } = row;
            let epsilon = risk(&epsilon.map_or("-".into(), |epsilon| epsilon.to_string()));
            let _ = writeln!(
                text,
                "{mark} {weights:wide$}  {seen:size$}  {precision:9}  {epsilon}{latency_ms:9.2}  {fps:7.2}  {quality:>6}"
            );
        }
        text += "\n* no other point is both faster and better\n";
        let plain = &self.points[0];
        text += &match self.fastest.map(|i| &self.points[i]) {
            _ if self.flat => {
                format!(
                    "The front is flat: use the plain network ({}). Nothing else is faster or better.\n",
                    plain.flags
                )
            }
            Some(row) => format!(
                "At the quality of the plain network, to within half a point, {:.2} times as fast: {}\n",
                self.saving, row.flags
            ),
            None => format!("No point is faster than the plain network ({}) at its quality.\n", plain.flags),
        };
        if let Some(chosen) = &self.chosen {
            let goal = match self.goal {
                Some(Wanted::Fps(fps)) => format!("--fps {fps}"),
                Some(Wanted::LatencyMs(ms)) => format!("--latency {ms}"),
                Some(Wanted::Miou(miou)) => format!("--miou {miou}"),
                None => String::new(),
            };
            let Row { latency_ms, fps, bench, flags, .. } = chosen;
            let _ = write!(
                text,
                "\n{goal}: {latency_ms:.2} ms per frame, {fps:.2} frames per second\n\n  rtformer segment {} -o out {flags}\n  {bench}\n",
                self.images
            );
        }
        text
    }

    /// The points, fastest first.
    fn sorted(&self) -> Vec<&Row> {
        let mut rows: Vec<_> = self.points.iter().collect();
        rows.sort_by(|a, b| a.latency_ms.total_cmp(&b.latency_ms));
        rows
    }

    /// Time against quality: the front as a line, and the points of each file and precision.
    pub(super) fn picture(&self) -> RgbImage {
        let place = |row: &Row| Some((row.latency_ms, 100.0 * row.quality.miou.or(row.quality.consistency)?));
        let kind = |row: &Row| (row.weights.clone(), row.precision.clone(), row.epsilon.is_some());
        let mut kinds: Vec<_> = self.points.iter().map(kind).collect();
        kinds.dedup();
        let front: Vec<_> = self.sorted().into_iter().filter(|row| row.optimal).filter_map(place).collect();
        // Between two points of the front, the best that can be had is the faster one.
        let steps = front.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]).chain(front.last().copied());
        let line = Shape::Line(steps.collect());
        let mut series = vec![Series { name: "front".into(), color: COMPUTED, shape: line }];
        for (of, color) in kinds.iter().zip(COLORS.into_iter().cycle()) {
            let rows = self.points.iter().filter(|row| kind(row) == *of);
            let (weights, precision, adaptive) = of;
            let name = Path::new(weights).file_stem().unwrap_or_default().to_string_lossy();
            let short: String = name.chars().rev().take(16).collect::<Vec<_>>().into_iter().rev().collect();
            series.push(Series {
                name: format!("{short} {precision}{}", if *adaptive { " adaptive" } else { "" }),
                color,
                shape: Shape::Dots(rows.filter_map(place).collect()),
            });
        }
        let quality = if self.quality == "miou" { "mean IoU, %" } else { "same class as the first point, %" };
        let times = || self.points.iter().map(|row| row.latency_ms);
        let wide = times().fold(0.0, f64::max) > 8.0 * times().fold(f64::MAX, f64::min);
        let axis = |title: &str, logarithmic| Axis { title: title.into(), logarithmic };
        Chart {
            title: "Time against quality".into(),
            axes: [axis("milliseconds per frame", wide), axis(quality, false)],
            series,
        }
        .draw()
    }
}
