//! Converts logits to class ids at the photo's size. Bilinear upsampling and argmax are one step, so full-size logits
//! are never stored. Where the surrounding pixels agree on a class (`settled.rs`), they are not even computed.

mod chunk;
pub mod gpu;
mod scalar;
mod settled;
mod vector;

use std::ops::Range;

use crate::resize_add::Axis;
use crate::simd::Kernel;
use crate::{Extent, Isa, Map, ShapeError};

/// The type of a stored class id: `u8` or `u16`.
pub trait ClassId: Copy + Send + 'static {
    /// How many classes the type can represent.
    const CLASSES: usize;

    /// The id of `class`, which must be below [`ClassId::CLASSES`].
    fn from_class(class: u32) -> Self;
}

impl ClassId for u8 {
    const CLASSES: usize = 1 << 8;

    fn from_class(class: u32) -> Self {
        class as Self
    }
}

impl ClassId for u16 {
    const CLASSES: usize = 1 << 16;

    fn from_class(class: u32) -> Self {
        class as Self
    }
}

/// Where to write the confidence of the winning class.
#[derive(Debug)]
pub struct Confidence<'a> {
    /// The output; as long as the ids.
    pub values: &'a mut [f32],
    /// The logits are divided by it before the softmax; positive.
    pub temperature: f32,
}

/// The class with the largest upsampled logit, for the output rows `rows`. Of equal logits, the lowest class wins.
///
/// - `logits`: `[classes, h, w]`, blocked; `size`: height and width of the output; upsampled like [`crate::resize()`].
///   With an [`Extent`], logits are scaled to the full size, and the output is the kept part
/// - `ids`: `[rows, width]`
/// - `confidence`: the softmax probability of the winner, `1 / sum over c of exp((logit_c - winner) / temperature)`
/// - accuracy: logits within `1e-6` of the definition, relative to the largest; confidence within `1e-5`
/// - errors: [`ShapeError`] if a length differs, if `rows` is outside the output, if `T` cannot represent all classes,
///   or if the temperature is not positive
pub fn argmax<T: ClassId>(
    isa: Isa,
    logits: Map,
    size: impl Into<Extent>,
    rows: Range<usize>,
    ids: &mut [T],
    confidence: Option<Confidence>,
) -> Result<(), ShapeError> {
    const OP: &str = "argmax";
    let classes = logits.layout().channels;
    let upsampled = Upsampled::new(OP, logits, size.into(), rows)?;
    let few = classes <= T::CLASSES;
    ShapeError::ensure(few, OP, "number of classes", classes, format_args!("at most {}", T::CLASSES))?;
    ShapeError::check(OP, "length of the ids", ids.len(), upsampled.pixels())?;
    if let Some(confidence) = &confidence {
        ShapeError::check(OP, "length of the confidence", confidence.values.len(), ids.len())?;
        let positive = confidence.temperature > 0.0;
        ShapeError::ensure(positive, OP, "temperature", confidence.temperature, "positive")?;
    }
    let skip = upsampled.skips();
    isa.run(Argmax { upsampled, ids, confidence, skip });
    Ok(())
}

/// The upsampled logits for the output rows `rows`: exactly the values that [`argmax`] compares.
///
/// - `planes`: one of `[rows, width]` per class, so that a caller can split the rows of one array over threads
/// - accuracy: within `1e-6` of the definition, relative to the largest
/// - errors: [`ShapeError`] if `rows` is outside the output, or if the number of planes or the length of a plane
///   differs
pub fn upsample(
    isa: Isa,
    logits: Map,
    size: impl Into<Extent>,
    rows: Range<usize>,
    planes: &mut [&mut [f32]],
) -> Result<(), ShapeError> {
    const OP: &str = "upsample";
    let upsampled = Upsampled::new(OP, logits, size.into(), rows)?;
    ShapeError::check(OP, "number of planes", planes.len(), logits.layout().channels)?;
    for plane in planes.iter() {
        ShapeError::check(OP, "length of a plane", plane.len(), upsampled.pixels())?;
    }
    isa.run(Upsample { upsampled, planes });
    Ok(())
}

/// A range of output rows of upsampled logits, not yet computed.
#[derive(Clone)]
struct Upsampled<'a> {
    logits: Map<'a>,
    width: usize,
    rows: Range<usize>,
    vertical: Axis,
    horizontal: Axis,
}

impl<'a> Upsampled<'a> {
    fn new(op: &'static str, logits: Map<'a>, size: Extent, rows: Range<usize>) -> Result<Self, ShapeError> {
        let (height, width) = size.kept;
        size.check(op)?;
        ShapeError::check(op, "lanes of the logits", logits.layout().lanes, 16)?;
        let some = width > 0 && width.checked_mul(height).is_some_and(|pixels| pixels > 0);
        ShapeError::ensure(some, op, "size of the output", (height, width), "at least 1 by 1, and not too large")?;
        let inside = rows.start <= rows.end && rows.end <= height;
        ShapeError::ensure(inside, op, "rows", &rows, format_args!("inside 0..{height}"))?;
        let (vertical, horizontal) =
            (Axis::new(logits.layout().height, size.full.0), Axis::new(logits.layout().width, size.full.1));
        Ok(Self { logits, width, rows, vertical, horizontal })
    }

    /// The number of pixels in all the rows.
    fn pixels(&self) -> usize {
        self.rows.len() * self.width
    }

    /// Whether looking for settled pixels is worthwhile. If the input is hardly smaller than the output, it rarely
    /// settles any.
    fn skips(&self) -> bool {
        self.vertical.ratio() <= 0.5 && self.horizontal.ratio() <= 0.5
    }
}

struct Argmax<'a, T> {
    upsampled: Upsampled<'a>,
    ids: &'a mut [T],
    confidence: Option<Confidence<'a>>,
    /// Skips interpolation where the winner is already known. The result is the same.
    skip: bool,
}

struct Upsample<'a, 'p> {
    upsampled: Upsampled<'a>,
    planes: &'a mut [&'p mut [f32]],
}

impl<T: ClassId> Kernel for Argmax<'_, T> {
    fn scalar(self) {
        scalar::argmax(self);
    }
}

impl Kernel for Upsample<'_, '_> {
    fn scalar(self) {
        scalar::upsample(self);
    }
}

#[cfg(test)]
mod tests;
