//! `rtformer.ClassShare` and `rtformer.Timings`.

use pyo3::prelude::*;

/// A class's share of a scene.
#[pyclass(frozen, eq, get_all, module = "rtformer")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClassShare {
    /// The class's value in the mask.
    id: u16,
    /// The class's name in the data set.
    name: String,
    /// Red, green and blue, 0 to 255.
    color: (u8, u8, u8),
    /// The class's share of all pixels, 0 to 1.
    share: f64,
}

impl From<rtformer::ClassShare> for ClassShare {
    fn from(class: rtformer::ClassShare) -> Self {
        let rtformer::ClassShare { id, name, color, share, .. } = class;
        Self { id, name, color: color.into(), share }
    }
}

#[pymethods]
impl ClassShare {
    fn __repr__(&self) -> String {
        let Self { id, name, color, share } = self;
        format!("ClassShare(id={id}, name={name:?}, color={color:?}, share={share:.4})")
    }
}

/// The time of each stage, in milliseconds.
#[pyclass(frozen, get_all, module = "rtformer")]
#[derive(Clone, Debug)]
pub(crate) struct Timings {
    /// File or bytes to pixels; 0 if the frame was an array.
    decode: f64,
    /// Pixels to the normalised and resized input.
    prepare: f64,
    /// The network; in a batch, the batch's time divided by the number of frames.
    model: f64,
    /// Classes and confidence at the frame's size.
    argmax: f64,
    /// The sum.
    total: f64,
}

impl From<rtformer::Timings> for Timings {
    fn from(timings: rtformer::Timings) -> Self {
        let total = timings.total();
        let rtformer::Timings { decode, prepare, model, argmax, .. } = timings;
        Self { decode, prepare, model, argmax, total }
    }
}

#[pymethods]
impl Timings {
    fn __repr__(&self) -> String {
        let Self { decode, prepare, model, argmax, total } = self;
        format!(
            "Timings(decode={decode:.2}, prepare={prepare:.2}, model={model:.2}, argmax={argmax:.2}, total={total:.2})"
        )
    }
}
