//! `rtformer.Scene`: the result of segmenting a frame.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyImportError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::PyBytes;
use rtformer::pixels::{Ids, Mask};

use crate::array::{self, Values};
use crate::error::{exception, invalid};
use crate::frame::Photo;
use crate::shares::{ClassShare, Timings};

/// A segmented frame. It keeps its frame, for `overlay`.
///
/// `classes`, `digest`, `overlay` and the files are made from `mask` when they are asked for, so a change of the mask shows in
/// them.
#[pyclass(frozen, module = "rtformer")]
pub(crate) struct Scene {
    parts: Mutex<Parts>,
    photo: Photo,
    height: u32,
    width: u32,
    num_classes: usize,
}

/// A scene, and what was moved from it to NumPy.
struct Parts {
    scene: rtformer::Scene,
    mask: Option<Py<PyAny>>,
    confidence: Option<Py<PyAny>>,
    logits: Option<Py<PyAny>>,
    mean_confidence: Option<f64>,
}

impl Scene {
    pub(crate) fn new(scene: rtformer::Scene, photo: Photo) -> Self {
        let (height, width) = (scene.mask().height(), scene.mask().width());
        let num_classes = scene.mask().classes();
        let parts = Parts { scene, mask: None, confidence: None, logits: None, mean_confidence: None };
        Self { parts: Mutex::new(parts), photo, height, width, num_classes }
    }

    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Parts> {
        self.parts.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the library's scene with the mask as it is now, detached from the interpreter.
    fn with<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&rtformer::Scene) -> R + Send) -> PyResult<R> {
        let parts = &mut *self.lock(py);
        let Some(array) = &parts.mask else {
            let scene = &parts.scene;
            return Ok(py.detach(|| work(scene)));
        };
        let mask = self.copied(array.bind(py))?;
        parts.scene.set_mask(mask).map_err(exception)?;
        let scene = &parts.scene;
        let done = py.detach(|| work(scene));
        parts.scene.take_mask();
        Ok(done)
    }

    /// The mask in an array that was moved to NumPy.
    fn copied(&self, ids: &Bound<'_, PyAny>) -> PyResult<Mask> {
        let (found, want) = (array::shape(ids)?, self.shape());
        if found != want {
            return Err(invalid(format!("the mask was reshaped to {found:?}; expected {want:?}")));
        }
        let bytes = array::bytes(ids)?;
        let mask = if self.num_classes <= 256 {
            Mask::from_ids(self.width, self.height, self.num_classes, bytes.iter().copied())
        } else {
            let ids = bytes.as_chunks().0.iter().map(|pair| u16::from_ne_bytes(*pair));
            Mask::from_ids(self.width, self.height, self.num_classes, ids)
        };
        mask.map_err(exception)
    }

    fn shape(&self) -> [usize; 2] {
        [self.height as usize, self.width as usize]
    }
}

#[pymethods]
impl Scene {
    /// The number of the frame in its video, from 1. `None` for other frames.
    #[getter]
    fn number(&self) -> Option<u64> {
        match &self.photo {
            Photo::Frame(frame) => Some(frame.number),
            _ => None,
        }
    }

    /// The time at which the frame is shown, in seconds from the start of its video. `None` for other frames.
    #[getter]
    fn time(&self) -> Option<f64> {
        match &self.photo {
            Photo::Frame(frame) => Some(frame.time.as_secs_f64()),
            _ => None,
        }
    }

    /// The class of each pixel: `uint8 [height, width]`, `uint16` for more than 256 classes. Pixels without a class are 255 or
    /// 65535.
    #[getter]
    fn mask(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let parts = &mut *self.lock(py);
        if parts.mask.is_none() {
            let ids = match parts.scene.take_mask().into_ids() {
                Ids::U8(ids) => Values::U8(ids),
                Ids::U16(ids) => Values::U16(ids),
            };
            parts.mask = Some(array::array(py, ids, &self.shape())?.unbind());
        }
        Ok(reference(py, parts.mask.as_ref()))
    }

    /// The probability of each pixel's class, 0 to 1: `float32 [height, width]`. `None` if the segmenter has `confidence=False`.
    #[getter]
    fn confidence(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let parts = &mut *self.lock(py);
        if parts.confidence.is_none() {
            parts.mean_confidence = parts.scene.mean_confidence();
            if let Some(values) = parts.scene.take_confidence() {
                parts.confidence = Some(array::array(py, Values::F32(values), &self.shape())?.unbind());
            }
        }
        Ok(reference(py, parts.confidence.as_ref()))
    }

    /// The mean of the network's `confidence`, 0 to 1. `None` if the segmenter has `confidence=False`.
    #[getter]
    fn mean_confidence(&self, py: Python<'_>) -> Option<f64> {
        let parts = self.lock(py);
        parts.mean_confidence.or_else(|| parts.scene.mean_confidence())
    }

    /// The logits: `float32 [classes, height, width]`. `None` unless the segmenter has `logits=True`.
    #[getter]
    fn logits(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let parts = &mut *self.lock(py);
        if parts.logits.is_none() {
            let [height, width] = self.shape();
            if let Some(values) = parts.scene.take_logits() {
                parts.logits =
                    Some(array::array(py, Values::F32(values), &[self.num_classes, height, width])?.unbind());
            }
        }
        Ok(reference(py, parts.logits.as_ref()))
    }

    /// The classes that occur, largest share first.
    #[getter]
    fn classes(&self, py: Python<'_>) -> PyResult<Vec<ClassShare>> {
        self.with(py, |scene| scene.classes().into_iter().map(ClassShare::from).collect())
    }

    /// The colour of each class: `uint8 [classes, 3]`, red, green and blue.
    #[getter]
    fn palette(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        palette(py, self.lock(py).scene.palette())
    }

    /// The SHA-256 of the mask's size and ids, in hexadecimal; the same as the `digest` of the command line's JSON.
    #[getter]
    fn digest(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |scene| scene.mask().digest())
    }

    /// The time of each stage, in milliseconds.
    #[getter]
    fn timings(&self, py: Python<'_>) -> Timings {
        self.lock(py).scene.timings().into()
    }

    /// The multiplications that the frame took, as a share of the full network's: 1 unless the segmenter has `adaptive`, and with it
    /// sometimes slightly above 1.
    #[getter]
    fn compute_share(&self, py: Python<'_>) -> f64 {
        self.lock(py).scene.compute_share()
    }

    /// Height in pixels.
    #[getter]
    fn height(&self) -> u32 {
        self.height
    }

    /// Width in pixels.
    #[getter]
    fn width(&self) -> u32 {
        self.width
    }

    /// The frame, blended with the colours of the mask. An `alpha` of 0 gives the frame alone, 1 the colours alone.
    ///
    /// A `PIL.Image.Image` if Pillow is installed, otherwise an array, `uint8 [height, width, 3]`, RGB.
    #[pyo3(signature = (alpha = 0.5))]
    fn overlay(&self, py: Python<'_>, alpha: f32) -> PyResult<Py<PyAny>> {
        let photo = &self.photo;
        let picture = self.with(py, |scene| Ok(scene.overlay(photo.pixels(None)?, alpha)))?.map_err(exception)?;
        let [height, width] = self.shape();
        let array = array::array(py, Values::U8(picture.into_raw()), &[height, width, 3])?;
        match py.import(intern!(py, "PIL.Image")) {
            Ok(pillow) => Ok(pillow.call_method1(intern!(py, "fromarray"), (array,))?.unbind()),
            Err(error) if error.is_instance_of::<PyImportError>(py) => Ok(array.unbind()),
            Err(error) => Err(error),
        }
    }

    /// Writes the mask as an indexed PNG with the data set's colours; 16-bit grey above 256 classes. An existing file is replaced
    /// once the new one is complete.
    fn save_mask(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.with(py, |scene| scene.save_mask(path))?.map_err(exception)
    }

    /// Writes `overlay(alpha)` as PNG.
    #[pyo3(signature = (path, alpha = 0.5))]
    fn save_overlay(&self, py: Python<'_>, path: PathBuf, alpha: f32) -> PyResult<()> {
        let photo = &self.photo;
        self.with(py, |scene| scene.save_overlay(path, photo.pixels(None)?, alpha))?.map_err(exception)
    }

    /// The bytes of the file that `save_mask` writes.
    fn mask_png<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let png = self.with(py, |scene| {
            let mut png = Vec::new();
            scene.to_indexed().write_to(&mut png).map(|()| png)
        })?;
        png.map(|png| PyBytes::new(py, &png)).map_err(exception)
    }

    fn __repr__(&self) -> String {
        format!("Scene(width={}, height={})", self.width, self.height)
    }
}

/// Another reference to an array, or `None`.
fn reference(py: Python<'_>, array: Option<&Py<PyAny>>) -> Py<PyAny> {
    array.map_or_else(|| py.None(), |array| array.clone_ref(py))
}

/// The colours as an array.
pub(crate) fn palette(py: Python<'_>, palette: &rtformer::pixels::Palette) -> PyResult<Py<PyAny>> {
    let colors = Values::U8(palette.as_flat_rgb().to_vec());
    array::array(py, colors, &[palette.len(), 3]).map(Bound::unbind)
}
