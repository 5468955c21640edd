//! The time of each stage of segmenting a photo.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

/// The duration of each stage for one photo, in milliseconds.
///
/// ```
/// use rtformer::Timings;
///
/// let mut timings = Timings::default();
/// (timings.model, timings.argmax) = (12.5, 1.5);
/// assert_eq!(timings.total(), 14.0);
/// assert_eq!(timings.to_string(), "decode 0.0 ms, prepare 0.0 ms, model 12.5 ms, argmax 1.5 ms");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// File or bytes to pixels; 0 if the pixels were already decoded.
    #[serde(rename = "decode_ms")]
    pub decode: f64,
    /// Pixels to the normalised (and resized) input.
    #[serde(rename = "prepare_ms")]
    pub prepare: f64,
    /// Upload and network; in a batch, the time of the batch divided by the number of photos.
    #[serde(rename = "model_ms")]
    pub model: f64,
    /// Upsampling, argmax and confidence at the photo's size.
    #[serde(rename = "argmax_ms")]
    pub argmax: f64,
}

impl Timings {
    /// The sum of all stages.
    pub fn total(&self) -> f64 {
        self.decode + self.prepare + self.model + self.argmax
    }
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decode, prepare, model, argmax } = self;
        write!(f, "decode {decode:.1} ms, prepare {prepare:.1} ms, model {model:.1} ms, argmax {argmax:.1} ms")
    }
}

/// Runs `work` and returns its result and its duration in milliseconds.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let done = work();
    (done, milliseconds(start.elapsed()))
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
