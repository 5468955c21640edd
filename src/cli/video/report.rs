//! The JSON line of a frame, and the summary of a run.

use std::path::Path;
use std::time::Instant;

use rtformer::video::{Frame, Shown};
use rtformer::{ClassShare, Timings};
use serde::Serialize;

/// A segmented frame.
#[derive(Debug, Serialize)]
struct Line {
    /// The number of the frame in the video, from 1.
    frame: u64,
    /// Seconds from the start of the video.
    time: f64,
    /// Width and height.
    size: [u32; 2],
    /// The classes that occur, largest share first.
    classes: Vec<ClassShare>,
    /// The share of pixels that changed class although their colour did not; `null` for the first frame.
    flip_rate: Option<f64>,
    /// The number of frames that were dropped since the previous line.
    dropped: u64,
    /// The number of frames that were dropped so far.
    dropped_total: u64,
    /// Whether the result is that of an earlier frame (`--reuse`).
    reused: bool,
    /// Milliseconds from the frame's arrival until its mask was written.
    age_ms: Option<f64>,
    timings: Timings,
    /// The mask's digest; see [`rtformer::pixels::Mask::digest`].
    digest: String,
    /// The file of the mask, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
}

/// A frame that could not be read or segmented.
#[derive(Debug, Serialize)]
struct Failure<'a> {
    error: &'a str,
}

/// The JSON line of a frame, without a line break.
pub(super) fn line(
    shown: &Shown<Frame>,
    flip_rate: Option<f64>,
    dropped_total: u64,
    output: Option<&Path>,
    age_ms: Option<f64>,
) -> String {
    let Shown { frame, scene, dropped, reused, .. } = shown;
    to_json(&Line {
        frame: frame.number,
        time: frame.time.as_secs_f64(),
        size: [frame.image.width(), frame.image.height()],
        classes: scene.classes(),
        flip_rate,
        dropped: *dropped,
        dropped_total,
        reused: *reused,
        age_ms,
        timings: scene.timings(),
        digest: scene.mask().digest(),
        output: output.map(|path| path.to_string_lossy().into_owned()),
    })
}

/// The JSON line of a failure.
pub(super) fn failure(error: &str) -> String {
    to_json(&Failure { error })
}

/// The milliseconds since a frame arrived.
pub(super) fn age(arrived: Instant) -> f64 {
    1e3 * arrived.elapsed().as_secs_f64()
}

fn to_json(value: &impl Serialize) -> String {
    // Strings, numbers and lists can always be serialised; a NaN becomes null.
    serde_json::to_string(value).unwrap_or_default()
}
