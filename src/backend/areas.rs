//! Rectangles of maps.

use super::Backend;
use crate::error::{Error, Result};

/// A rectangle of a map, in the map's pixels.
///
/// ```
/// use rtformer::backend::Area;
///
/// let area = Area { top: 1, left: 2, height: 3, width: 4 };
/// assert!(area.is_inside((4, 6)) && !area.is_inside((4, 5)));
/// assert_eq!(area.pixels(), 12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Area {
    /// Whether it has pixels and lies inside a map of this height and width.
    pub fn is_inside(self, (height, width): (usize, usize)) -> bool {
        let fits = |start: usize, length: usize, side: usize| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= side)
        };
        fits(self.top, self.height, height) && fits(self.left, self.width, width)
    }

    /// The number of pixels.
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    /// An error of `operation` unless this is inside `[_, _, height, width]`.
    pub(super) fn check(self, operation: &'static str, [_, _, height, width]: [usize; 4]) -> Result<()> {
        if self.is_inside((height, width)) {
            return Ok(());
        }
        Err(Error::Backend { operation, reason: format!("{self:?} is not inside a map of {width}x{height} pixels") })
    }
}

/// A backend that can compute in rectangles, as adaptive inference does.
pub trait Areas: Backend {
    /// Copies a rectangle of every map: `[n, c, h, w]` → `[n, c, area.height, area.width]`.
    ///
    /// ```
    /// # use rtformer::backend::{Area, Areas, Backend, Reference};
    /// # let b = Reference::folded();
    /// let x = b.upload(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [1, 1, 2, 3])?;
    /// let part = b.crop(&x, Area { top: 0, left: 1, height: 2, width: 2 })?;
    /// assert_eq!(b.download(&part)?, [1.0, 2.0, 4.0, 5.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`] unless the rectangle lies inside the map.
    fn crop(&self, x: &Self::Tensor, area: Area) -> Result<Self::Tensor>;

    /// Writes `patch` `[n, c, h, w]` into `x`, its first pixel at the row and column `at`.
    ///
    /// ```
    /// # use rtformer::backend::{Areas, Backend, Reference};
    /// # let b = Reference::folded();
    /// let (x, patch) = (b.upload(&[0.0; 6], [1, 1, 2, 3])?, b.upload(&[1.0, 2.0], [1, 1, 2, 1])?);
    /// assert_eq!(b.download(&b.paste(x, &patch, (0, 2))?)?, [0.0, 0.0, 1.0, 0.0, 0.0, 2.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`] unless the patch fits inside and has the same number of images and channels.
    fn paste(&self, x: Self::Tensor, patch: &Self::Tensor, at: (usize, usize)) -> Result<Self::Tensor>;
}

/// Where a patch goes, if it fits into `x`.
pub(super) fn place(x: [usize; 4], patch: [usize; 4], (top, left): (usize, usize)) -> Result<Area> {
    let area = Area { top, left, height: patch[2], width: patch[3] };
    area.check("paste", x)?;
    if x[..2] != patch[..2] {
        let reason = format!("expected {} images of {} channels, got {} of {}", x[0], x[1], patch[0], patch[1]);
        return Err(Error::Backend { operation: "paste", reason });
    }
    Ok(area)
}
