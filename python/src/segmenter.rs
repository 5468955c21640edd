//! `rtformer.Segmenter`: a network with its weights on a device.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rtformer::eval::LabelFormat;
use rtformer::video::Options;
use rtformer::weights::Official;
use rtformer::{Builder, Pull};

use crate::channels::Channels;
use crate::error::{exception, invalid};
use crate::evaluation::{self, Labels};
use crate::frame::{Frame, Photo};
use crate::scene::{Scene, palette};
use crate::stream::Stream;
use crate::video::Video;

/// A network with its weights on a device. Threads can share one, and on a CPU, forked children can.
///
/// - `weights`: `None` for the embedded ones (RTFormer-Slim for CamVid's 11 classes, for research), a `.safetensors` file, or the name
///   of an official checkpoint such as `"slim-cityscapes"`, which is downloaded, converted and cached
/// - `device`: `"auto"`, `"cpu"`, `"cuda"`, `"cuda:N"`, `"metal"` or `"reference"`
/// - `precision`: `"f32"`, `"bf16"` or `"f16"`; `None` for f32 on CPUs and f16 on GPUs
/// - `threads`: the CPU threads of one call; `None` for one per core
/// - `size`: the size in pixels at which the network sees a frame: `"native"`, `"WxH"`, or `"within:WxH"`. Masks have the frame's size
/// - `confidence`, `logits`: whether scenes have these arrays
/// - `reject_below`: pixels with a lower probability, 0 to 1, get the id 255 (65535 above 256 classes)
/// - `pad`: pad to a multiple of 1 to 256 pixels, or `"none"`; `None` for what the weights say
/// - `adaptive`: compute less where the network is certain early, by the rule in the weights that `rtformer calibrate` certified for a risk
///   of at most this, 0 to 1; on the CPU. `Scene.compute_share` says what a frame took. `None` for the full network
///
/// `seg(frame, channels="rgb")` segments one frame and returns its `Scene`. A frame is a path, the bytes of an image file, a Pillow image,
/// or an array on the CPU: `uint8 [height, width, channels]` with 1, 3 or 4 channels, or `[height, width]`; also an object with
/// `__array_interface__` or `__dlpack__`. `channels` is the order in arrays; OpenCV's is `"bgr"`. Alpha is ignored.
#[pyclass(frozen, module = "rtformer")]
pub(crate) struct Segmenter {
    segmenter: Arc<rtformer::Segmenter>,
    /// The arguments, for pickles.
    arguments: Py<PyDict>,
}

#[pymethods]
impl Segmenter {
    #[new]
    #[pyo3(signature = (
        weights = None, device = "auto", precision = None, threads = None, size = "native", confidence = true, *, logits = false,
        reject_below = None, pad = None, adaptive = None
    ))]
    #[allow(clippy::too_many_arguments, reason = "Python's keyword arguments")]
    fn new(
        py: Python<'_>,
        weights: Option<PathBuf>,
        device: &str,
        precision: Option<&str>,
        threads: Option<usize>,
        size: &str,
        confidence: bool,
        logits: bool,
        reject_below: Option<f32>,
        pad: Option<Bound<'_, PyAny>>,
        adaptive: Option<f64>,
    ) -> PyResult<Self> {
        let pad = pad.map(|pad| pad.str().map(|text| text.to_string())).transpose()?;
        let arguments = PyDict::new(py);
        arguments.set_item("weights", &weights)?;
        arguments.set_item("device", device)?;
        arguments.set_item("precision", precision)?;
        arguments.set_item("threads", threads)?;
        arguments.set_item("size", size)?;
        arguments.set_item("confidence", confidence)?;
        arguments.set_item("logits", logits)?;
        arguments.set_item("reject_below", reject_below)?;
        arguments.set_item("pad", &pad)?;
        arguments.set_item("adaptive", adaptive)?;
        let segmenter = py.detach(|| -> rtformer::Result<_> {
            let mut builder = rtformer::Segmenter::builder().device(device.parse()?).threads(threads.unwrap_or(0));
            builder = builder.size(size.parse()?).confidence(confidence).logits(logits);
            builder = set(builder, weights.map(weights_file).transpose()?.flatten(), Builder::weights);
            builder = set(builder, precision.map(str::parse).transpose()?, Builder::precision);
            builder = set(builder, reject_below, Builder::reject_below);
            builder = set(builder, pad.map(|pad| pad.parse()).transpose()?, Builder::pad);
            builder = set(builder, adaptive, Builder::adaptive);
            builder.build()
        });
        Ok(Self { segmenter: Arc::new(segmenter.map_err(exception)?), arguments: arguments.unbind() })
    }

    /// Segments one frame.
    #[pyo3(signature = (frame, *, channels = "rgb"))]
    fn __call__(&self, py: Python<'_>, frame: &Bound<'_, PyAny>, channels: &str) -> PyResult<Scene> {
        let frame = Frame::copy(frame, Channels::named(channels)?)?;
        let segmented = py.detach(|| -> rtformer::Result<(rtformer::Scene, Photo)> {
            let photo = frame.decode()?;
            let scene = self.segmenter.segment(photo.pixels(None)?)?;
            Ok((scene, photo))
        });
        segmented.map(|(scene, photo)| Scene::new(scene, photo)).map_err(exception)
    }

    /// Segments frames of any sizes, and returns their scenes in order. Neighbours of one size go through the network together.
    ///
    /// All frames and scenes are in memory at once; use `stream` for many. Raises the error of the first frame that failed, or with
    /// `return_exceptions=True` returns the errors in place of the scenes.
    #[pyo3(signature = (frames, *, channels = "rgb", return_exceptions = false))]
    fn batch(
        &self,
        py: Python<'_>,
        frames: &Bound<'_, PyAny>,
        channels: &str,
        return_exceptions: bool,
    ) -> PyResult<Vec<Py<PyAny>>> {
        let channels = Channels::named(channels)?;
        let mut copies = Vec::new();
        for frame in frames.try_iter()? {
            copies.push(Frame::copy(&frame?, channels));
        }
        let segmented = py.detach(|| segment_all(&self.segmenter, copies));
        let scenes = segmented.into_iter().map(|segmented| match segmented {
            Ok((scene, photo)) => Ok(Py::new(py, Scene::new(scene, photo))?.into_any()),
            Err(error) if return_exceptions => Ok(error.into_value(py).into_any()),
            Err(error) => Err(error),
        });
        scenes.collect()
    }

    /// An iterator over the scenes of frames, in order. It reads, decodes and segments `prefetch` frames ahead while the caller works on
    /// a scene, and holds no more than these.
    ///
    /// A frame that fails raises its error; the next call continues with the next frame. With `return_exceptions=True`, errors are
    /// returned in place of the scenes.
    #[pyo3(signature = (frames, prefetch = 2, *, channels = "rgb", return_exceptions = false))]
    fn stream(
        &self,
        frames: &Bound<'_, PyAny>,
        prefetch: usize,
        channels: &str,
        return_exceptions: bool,
    ) -> PyResult<Stream> {
        Stream::new(Arc::clone(&self.segmenter), frames, Channels::named(channels)?, prefetch, return_exceptions)
    }

    /// An iterator over the scenes of a video or a camera, in order. It reads and segments frames ahead while the caller works on a
    /// scene, in bounded memory.
    ///
    /// - `input`: a video file or address, which needs the program `ffmpeg`; a device, such as `"v4l2:/dev/video0"`; a y4m file; or a folder
    ///   of numbered pictures
    /// - `every`: segment only every Nth frame
    /// - `start`, `duration`: the part of the video, in seconds; `None` is to the end
    /// - `fps`: frames per second of numbered pictures; `None` is 25
    /// - `realtime`: treat a file like a camera: play it at its own speed, and keep only the newest frame
    /// - `smooth`: average over time where the picture does not change, with this weight for the past, 0 to below 1. The segmenter
    ///   needs `logits=True`; the scenes then have none
    /// - `reuse`: keep the last result while no block of 8x8 pixels changes by more than 6 grey levels on average
    ///
    /// Of a file, every frame is segmented. Of a camera, only the newest one is; `Video.dropped` counts the others. `Scene.number` and
    /// `Scene.time` say which frame it is, and `Scene.overlay(0)` is the frame itself.
    #[pyo3(signature = (
        input, *, every = 1, start = 0.0, duration = None, fps = None, realtime = false, smooth = None, reuse = false
    ))]
    #[allow(clippy::too_many_arguments, reason = "Python's keyword arguments")]
    fn video(
        &self,
        py: Python<'_>,
        input: PathBuf,
        every: u64,
        start: f64,
        duration: Option<f64>,
        fps: Option<f64>,
        realtime: bool,
        smooth: Option<f32>,
        reuse: bool,
    ) -> PyResult<Video> {
        let logits =
            self.arguments.bind(py).get_item("logits")?.is_some_and(|logits| logits.is_truthy().unwrap_or(false));
        if smooth.is_some() && !logits {
            return Err(invalid("`smooth` needs logits: make the segmenter with logits=True"));
        }
        let seconds = |name: &str, value: f64| {
            let why = |_| invalid(format!("invalid {name} {value}: expected seconds, from 0"));
            Duration::try_from_secs_f64(value).map_err(why)
        };
        let options = Options {
            every,
            start: seconds("start", start)?,
            duration: duration.map(|value| seconds("duration", value)).transpose()?,
            rate: fps.map(|fps| format!("{fps:.6}").parse()).transpose().map_err(exception)?,
            realtime,
            ..Options::default()
        };
        Video::open(py, &self.segmenter, input, options, (smooth, reuse))
    }

    /// Measures the quality on labelled photos, as `rtformer eval --json` does. Returns a dictionary:
    ///
    /// - `miou`, `pixel_accuracy`, and `ece`, the expected calibration error: 0 to 1, or `None` if nothing was counted
    /// - `mdice`, `mean_accuracy`, `fwiou`, `kappa`, `boundary_miou`, `image_miou`, `image_mdice`: as described in the book's chapter on accuracy
    /// - `iou`, `dice`, `accuracy`, `boundary_iou`: of each class, by name
    /// - `confusion`: pixels of each true class (rows) that were predicted as each class (columns)
    /// - `classes`, `images`, `pixels`, `ignored_share`
    /// - `failed`, the number of photos that were not counted, and `errors`, the reasons
    ///
    /// `images` and `labels` are two folders, or two sequences of paths. Labels are PNG files that hold ids or colours; `rtformer eval
    /// --help` describes their names and the options.
    #[pyo3(signature = (
        images, labels, *, label_kind = "auto", first_id = None, ignore_id = None, label_suffix = None
    ))]
    #[allow(clippy::too_many_arguments, reason = "Python's keyword arguments")]
    fn eval<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        label_kind: &str,
        first_id: Option<u16>,
        ignore_id: Option<Ids>,
        label_suffix: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let kind = label_kind.parse().map_err(exception)?;
        let format = LabelFormat { kind, first_id, ignore_ids: ignore_id.map_or_else(Vec::new, Ids::list) };
        evaluation::run(py, &self.segmenter, &Labels::find(images, labels, label_suffix)?, format)
    }

    /// The names of the classes, by id.
    #[getter]
    fn classes(&self) -> Vec<&str> {
        self.segmenter.dataset().classes.iter().map(|class| class.name.as_str()).collect()
    }

    /// The colour of each class: `uint8 [classes, 3]`, red, green and blue.
    #[getter]
    fn palette(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        palette(py, self.segmenter.palette())
    }

    /// The name of the data set that defines the classes.
    #[getter]
    fn dataset(&self) -> &str {
        &self.segmenter.dataset().name
    }

    /// The path of the weights, or `embedded`.
    #[getter]
    fn weights(&self) -> String {
        self.segmenter.weights_name().display().to_string()
    }

    /// The device in use, such as `cpu` or `cuda:0`; never `auto`.
    #[getter]
    fn device(&self) -> String {
        self.segmenter.device().to_string()
    }

    /// The arithmetic in use: `f32`, `bf16` or `f16`.
    #[getter]
    fn precision(&self) -> String {
        self.segmenter.precision().to_string()
    }

    /// The number of CPU threads of one call.
    #[getter]
    fn threads(&self) -> usize {
        self.segmenter.threads()
    }

    fn __repr__(&self) -> String {
        format!("Segmenter({})", self.segmenter)
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> ((), Bound<'py, PyDict>) {
        ((), self.arguments.bind(py).clone())
    }
}

/// The argument `ignore_id`.
#[derive(FromPyObject)]
enum Ids {
    One(u16),
    Several(Vec<u16>),
}

impl Ids {
    fn list(self) -> Vec<u16> {
        match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids,
        }
    }
}

/// The file of these weights; `None` for the embedded ones. The name of an official checkpoint that is no file is downloaded and
/// converted once.
fn weights_file(weights: PathBuf) -> rtformer::Result<Option<PathBuf>> {
    if weights.as_os_str() == "embedded" {
        return Ok(None);
    }
    match weights.to_str().and_then(Official::named).filter(|_| !weights.exists()) {
        Some(official) => rtformer::pull(official, &Pull::from_env(), &mut |_| ()).map(Some),
        None => Ok(Some(weights)),
    }
}

/// Decodes and segments frames. A frame that fails does not affect the others.
fn segment_all(
    segmenter: &rtformer::Segmenter,
    frames: Vec<PyResult<Frame>>,
) -> Vec<PyResult<(rtformer::Scene, Photo)>> {
    let names: Vec<_> = (0..frames.len()).map(|i| PathBuf::from(format!("frame {i}"))).collect();
    let photos: Vec<PyResult<Photo>> =
        frames.into_iter().map(|frame| frame.and_then(|frame| frame.decode().map_err(exception))).collect();
    let pixels: Vec<_> = photos
        .iter()
        .zip(&names)
        .map(|(photo, name)| match photo {
            Ok(photo) => Some(photo.pixels(Some(name))),
            Err(_) => None,
        })
        .collect();
    let mut scenes = segmenter.segment_each(pixels.iter().flatten().flatten()).into_iter();
    let scenes: Vec<_> = pixels
        .into_iter()
        .map(|pixels| pixels.map(|pixels| pixels.and_then(|_| scenes.next().unwrap_or(Err(missing())))))
        .collect();
    photos
        .into_iter()
        .zip(scenes)
        .map(|(photo, scene)| {
            let photo = photo?;
            let scene = scene.unwrap_or_else(|| Err(missing())).map_err(exception)?;
            Ok((scene, photo))
        })
        .collect()
}

/// The error for a frame without a result, which does not happen.
fn missing() -> rtformer::Error {
    rtformer::Error::Backend { operation: "segment_each", reason: "a frame has no result".into() }
}

/// The builder with an option, if it is given.
fn set<T>(builder: Builder, value: Option<T>, option: impl FnOnce(Builder, T) -> Builder) -> Builder {
    match value {
        Some(value) => option(builder, value),
        None => builder,
    }
}
