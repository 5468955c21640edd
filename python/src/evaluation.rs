//! `Segmenter.eval`: the quality on labelled photos.

use std::ops::ControlFlow;
use std::path::PathBuf;

use pyo3::intern;
use pyo3::prelude::*;
use rtformer::Segmenter;
use rtformer::eval::{Evaluation, LabelFormat, Measuring, Pair, Pairs, find_pairs};

use crate::error::{exception, invalid};

/// The pairs to measure, and the reasons for those that are missing.
pub(crate) struct Labels(Pairs);

impl Labels {
    /// Pairs of two folders, or of two sequences of paths.
    pub(crate) fn find(images: &Bound<'_, PyAny>, labels: &Bound<'_, PyAny>, suffix: Option<&str>) -> PyResult<Self> {
        if let (Ok(photos), Ok(labels)) = (images.extract::<PathBuf>(), labels.extract::<PathBuf>()) {
            let found = images.py().detach(|| find_pairs(photos, labels, suffix));
            return found.map(Self).map_err(exception);
        }
        let (photos, labels): (Vec<PathBuf>, Vec<PathBuf>) = (images.extract()?, labels.extract()?);
        if photos.len() != labels.len() {
            return Err(invalid(format!(
                "{} photos have {} labels: expected one for each",
                photos.len(),
                labels.len()
            )));
        }
        if photos.is_empty() {
            return Err(invalid("no photos were given"));
        }
        let pairs = photos.into_iter().zip(labels).map(|(photo, label)| Pair { photo, label }).collect();
        Ok(Self(Pairs { pairs, failed: Vec::new() }))
    }
}

/// Measures all pairs; Ctrl-C ends it between two of them.
pub(crate) fn run<'py>(
    py: Python<'py>,
    segmenter: &Segmenter,
    labels: &Labels,
    format: LabelFormat,
) -> PyResult<Bound<'py, PyAny>> {
    format.check().map_err(exception)?;
    let Labels(Pairs { pairs, failed }) = labels;
    let mut errors: Vec<String> = failed.iter().map(ToString::to_string).collect();
    let mut evaluation = Evaluation::new(segmenter).map_err(exception)?;
    evaluation.failed = failed.len();
    let measuring = Measuring { format, ..Measuring::default() };
    let mut interrupted = Ok(());
    let measures = py.detach(|| {
        evaluation.measure(segmenter, pairs, &measuring, &mut |_, counted| {
            errors.extend(counted.err().map(ToString::to_string));
            interrupted = Python::attach(check_signals);
            if interrupted.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        serde_json::to_string(&evaluation.measures())
    });
    interrupted?;
    let measures = measures.map_err(|error| invalid(error.to_string()))?;
    let measures = py.import(intern!(py, "json"))?.call_method1(intern!(py, "loads"), (measures,))?;
    measures.set_item(intern!(py, "errors"), errors)?;
    Ok(measures)
}

/// Raises what Python's handlers of signals raise, such as `KeyboardInterrupt`.
fn check_signals(py: Python<'_>) -> PyResult<()> {
    py.check_signals()
}
