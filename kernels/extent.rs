//! The size of a padded picture, and the part of it without padding.

use crate::ShapeError;

/// A size, and the upper left part of it that is kept.
///
/// A photo that is padded at the bottom and right has an extent, and so do its logits. They are resized to
/// [`full`](Self::full), and the part under the padding is not computed. A plain size `(height, width)` converts to an
/// extent that keeps everything.
///
/// ```
/// use rtformer_kernels::Extent;
///
/// let padded = Extent { full: (384, 480), kept: (360, 480) };
/// assert!(padded.is_cropped() && !Extent::from((360, 480)).is_cropped());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Height and width with the padding; a resize scales to this size.
    pub full: (usize, usize),
    /// Height and width of the kept part, at most those of `full`.
    pub kept: (usize, usize),
}

impl Extent {
    /// Whether a part of the full size is dropped.
    pub fn is_cropped(self) -> bool {
        self.full != self.kept
    }

    /// `Ok` if the kept part lies inside the full size.
    pub(crate) fn check(self, op: &'static str) -> Result<(), ShapeError> {
        let inside = self.kept.0 <= self.full.0 && self.kept.1 <= self.full.1;
        ShapeError::ensure(inside, op, "kept part of the size", self.kept, format_args!("inside {:?}", self.full))
    }
}

impl From<(usize, usize)> for Extent {
    fn from(size: (usize, usize)) -> Self {
        Self { full: size, kept: size }
    }
}
