//! `plan --train --fps F`: which widths are fast enough on this machine.

use rtformer::plan::{Widths, largest_within};
use rtformer::{Precision, Segmenter, bench};
use serde::Serialize;

use super::super::console::Console;
use super::super::model::opened;
use super::super::stats::Figures;
use super::super::{frame, misuse};
use super::inference::InferenceArgs;

/// Frames before those that are timed, and those that are.
const FRAMES: (u32, u32) = (2, 7);

/// A network whose first frame takes this many times what it may is not measured further.
const HOPELESS: f64 = 2.0;

/// The networks that reach a number of frames per second.
#[derive(Clone, Serialize)]
pub(super) struct Speed {
    /// What has to be reached.
    pub(super) fps: f64,
    /// The size of the frames.
    pub(super) size: String,
    pub(super) device: String,
    pub(super) precision: String,
    /// The widest network that reaches it.
    pub(super) widest: u32,
    /// The widths that were measured, in rising order.
    #[serde(skip)]
    pub(super) measured: Vec<Timed>,
}

/// The time of one width.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Timed {
    pub(super) width: u32,
    pub(super) latency_ms: f64,
    pub(super) fps: f64,
}

/// Measures networks with random parameters, until the widest that reaches `fps` is found.
///
/// # Errors
/// A misuse if no width reaches it, or the flags name no single size and precision.
pub(super) fn measure(args: &InferenceArgs, fps: f64, widths: &Widths, console: &Console) -> anyhow::Result<Speed> {
    let size = match args.size[..] {
        [] => None,
        [size] => Some(size),
        _ => return Err(misuse("--train --fps measures frames of one size; --size names several")),
    };
    let [width, height] = frame::sides(size)?;
    let precision: Option<Precision> = match args.precision[..] {
        [] => None,
        [precision] => Some(precision),
        _ => return Err(misuse("--train --fps measures one precision; --precision names several")),
    };
    let (size, noise) = (format!("{width}x{height}"), frame::noise([width, height]));
    let open = |width: u32| -> anyhow::Result<Segmenter> {
        let builder = args.builder();
        let builder = precision.map_or(builder.clone(), |precision| builder.precision(precision));
        opened(bench::random_of_width(width, builder))
    };
    console.note(&format!("measuring which networks reach {fps} frames per second at {size}"));
    let limit = 1e3 / fps;
    let (mut measured, mut on) = (Vec::new(), (String::new(), String::new()));
    let choices: Vec<_> = widths.choices().collect();
    let widest = largest_within(&choices, limit, |width| {
        let segmenter = open(width)?;
        on = (segmenter.device().to_string(), segmenter.precision().to_string());
        let first = bench::frames(&segmenter, &noise, 0, 1)?;
        let hopeless = first[0] > HOPELESS * limit && width > choices[0];
        let times = if hopeless { first } else { bench::frames(&segmenter, &noise, FRAMES.0, FRAMES.1)? };
        let Figures { median_ms, fps, .. } = Figures::of(&times, 1);
        measured.push(Timed { width, latency_ms: median_ms, fps });
        anyhow::Ok(median_ms)
    })?;
    measured.sort_by_key(|timed| timed.width);
    let Some(widest) = widest else {
        let reached = measured.first().map_or(0.0, |timed| timed.fps);
        return Err(misuse(format!(
            "--fps {fps}: not even width {} reaches it at {size}, but {reached:.1}; use smaller frames (--size) or fewer frames per second",
            choices.first().copied().unwrap_or(0)
        )));
    };
    let (device, precision) = on;
    Ok(Speed { fps, size, device, precision, widest, measured })
}
