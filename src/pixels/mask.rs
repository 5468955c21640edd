//! The result of segmentation: one class id per pixel.

use image::{DynamicImage, ImageBuffer, Luma};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::hex;
use crate::memory;

/// One train id per pixel, at the photo's own size.
///
/// Ids are bytes for up to 256 classes, and 16-bit numbers for more. The highest value of either width is the
/// [ignore id](Mask::ignore_id), for pixels that belong to no class. (With exactly 256 classes, id 255 is a class.)
///
/// ```
/// use rtformer::pixels::Mask;
///
/// let mask = Mask::from_ids(3, 1, 19, [0_u8, 13, 255])?;
/// assert_eq!(mask.get(1, 0), 13);
/// assert_eq!(mask.counts()[13], 1);
/// assert_eq!(mask.counts().iter().sum::<u64>(), 2, "255 is ignored");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    width: u32,
    height: u32,
    classes: usize,
    ids: Ids,
}

/// The ids of a mask, row by row, without the mask.
///
/// ```
/// use rtformer::pixels::{Ids, Mask};
///
/// assert_eq!(Mask::new(2, 1, 19).into_ids(), Ids::U8(vec![0, 0]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Up to 256 classes.
    U8(Vec<u8>),
    /// More than 256 classes.
    U16(Vec<u16>),
}

/// A mask's ids, row by row, for writing.
///
/// ```
/// use rtformer::pixels::{IdsMut, Mask};
///
/// let mut mask = Mask::new(2, 1, 19);
/// match mask.ids_mut() {
///     IdsMut::U8(ids) => ids.fill(13),
///     IdsMut::U16(ids) => ids.fill(13),
/// }
/// assert_eq!(mask.ids_u8(), Some(&[13, 13][..]));
/// ```
#[derive(Debug, PartialEq, Eq)]
pub enum IdsMut<'a> {
    /// Up to 256 classes.
    U8(&'a mut [u8]),
    /// More than 256 classes.
    U16(&'a mut [u16]),
}

impl Mask {
    /// A mask of zeros for a number of classes.
    pub fn new(width: u32, height: u32, classes: usize) -> Self {
        let pixels = width as usize * height as usize;
        let ids = if classes <= 256 { Ids::U8(vec![0; pixels]) } else { Ids::U16(vec![0; pixels]) };
        Self { width, height, classes, ids }
    }

    /// A mask with these ids, row by row: bytes or 16-bit numbers.
    ///
    /// ```
    /// # use rtformer::pixels::Mask;
    /// let mask = Mask::from_ids(2, 2, 300, [0_u16, 299, 65_535, 7])?;
    /// assert_eq!(mask.get(0, 1), mask.ignore_id());
    /// assert!(Mask::from_ids(2, 2, 19, [0_u8, 1, 2]).is_err(), "three ids for four pixels");
    /// assert!(Mask::from_ids(1, 1, 19, [19_u8]).is_err(), "neither a class nor the ignore id");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] if the number of ids is not that of the pixels, or if an id is neither a class nor the ignore id.
    pub fn from_ids<I: Into<u16>>(
        width: u32,
        height: u32,
        classes: usize,
        ids: impl IntoIterator<Item = I>,
    ) -> Result<Self> {
        let refuse = |why: String| Err(Error::Input(format!("a {width}x{height} mask of {classes} classes: {why}")));
        let mut mask = Self { width, height, classes, ids: Ids::U8(Vec::new()) };
        if classes > 256 {
            mask.ids = Ids::U16(Vec::new());
        }
        let ignore = mask.ignore_id();
        for (i, id) in ids.into_iter().map(Into::into).enumerate() {
            if usize::from(id) >= classes && id != ignore {
                return refuse(format!("id {id} at index {i} is neither a class nor the ignore id {ignore}"));
            }
            match &mut mask.ids {
                Ids::U8(ids) => ids.push(id as u8),
                Ids::U16(ids) => ids.push(id),
            }
        }
        let (got, want) = (mask.len(), width as usize * height as usize);
        if got == want { Ok(mask) } else { refuse(format!("expected {want} ids, got {got}")) }
    }

    /// Changes the size and the number of classes; reuses the memory if possible. The ids are unspecified.
    ///
    /// ```
    /// let mut mask = rtformer::pixels::Mask::new(4, 4, 19);
    /// mask.resize_for(2, 3, 19)?;
    /// assert_eq!((mask.width(), mask.height(), mask.iter().count()), (2, 3, 6));
    ///
    /// let refused = mask.resize_for(u32::MAX, u32::MAX, 300).unwrap_err();
    /// assert!(matches!(refused, rtformer::Error::OutOfMemory { .. }));
    /// assert_eq!(mask.iter().count(), 6, "unchanged");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; then the mask is unchanged.
    pub fn resize_for(&mut self, width: u32, height: u32, classes: usize) -> Result<()> {
        let what = || format!("a mask of {width}x{height} pixels");
        let pixels = width as usize * height as usize;
        match &mut self.ids {
            Ids::U8(ids) if classes <= 256 => memory::resize(ids, pixels, 0, what)?,
            Ids::U16(ids) if classes > 256 => memory::resize(ids, pixels, 0, what)?,
            other if classes <= 256 => *other = Ids::U8(memory::filled(pixels, 0, what)?),
            other => *other = Ids::U16(memory::filled(pixels, 0, what)?),
        }
        (self.width, self.height, self.classes) = (width, height, classes);
        Ok(())
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The number of classes, without the ignore id.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The ids row by row, if they are bytes: up to 256 classes.
    ///
    /// ```
    /// let mask = rtformer::pixels::Mask::new(2, 1, 19);
    /// assert_eq!((mask.ids_u8(), mask.ids_u16()), (Some(&[0, 0][..]), None));
    /// ```
    pub fn ids_u8(&self) -> Option<&[u8]> {
        match &self.ids {
            Ids::U8(ids) => Some(ids),
            Ids::U16(_) => None,
        }
    }

    /// The ids row by row, if they are 16-bit: more than 256 classes.
    ///
    /// ```
    /// let mask = rtformer::pixels::Mask::new(2, 1, 300);
    /// assert_eq!((mask.ids_u8(), mask.ids_u16()), (None, Some(&[0, 0][..])));
    /// ```
    pub fn ids_u16(&self) -> Option<&[u16]> {
        match &self.ids {
            Ids::U8(_) => None,
            Ids::U16(ids) => Some(ids),
        }
    }

    /// The ids row by row, for writing.
    pub fn ids_mut(&mut self) -> IdsMut<'_> {
        match &mut self.ids {
            Ids::U8(ids) => IdsMut::U8(ids),
            Ids::U16(ids) => IdsMut::U16(ids),
        }
    }

    /// The ids row by row, without a copy.
    ///
    /// ```
    /// # use rtformer::pixels::{Ids, Mask};
    /// assert_eq!(Mask::new(2, 1, 300).into_ids(), Ids::U16(vec![0, 0]));
    /// ```
    pub fn into_ids(self) -> Ids {
        self.ids
    }

    /// The id of one pixel.
    ///
    /// # Panics
    /// If the pixel is outside the mask.
    pub fn get(&self, x: u32, y: u32) -> u16 {
        self.reached(x, y).unwrap_or_else(|| panic!("({x}, {y}) is outside a {}x{} mask", self.width, self.height))
    }

    /// The ids, row by row.
    ///
    /// ```
    /// let mask = rtformer::pixels::Mask::new(2, 2, 19);
    /// assert!(mask.iter().all(|id| id == 0));
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.len()).map(|i| self.at(i))
    }

    /// The id of pixels that belong to no class: 255, or 65535 if ids are 16-bit.
    ///
    /// ```
    /// # use rtformer::pixels::Mask;
    /// assert_eq!((Mask::new(1, 1, 19).ignore_id(), Mask::new(1, 1, 300).ignore_id()), (255, 65_535));
    /// ```
    pub fn ignore_id(&self) -> u16 {
        match &self.ids {
            Ids::U8(_) => u16::from(u8::MAX),
            Ids::U16(_) => u16::MAX,
        }
    }

    /// The number of pixels of each class. Other ids, such as the ignore id, are not counted.
    pub fn counts(&self) -> Vec<u64> {
        // A table of all possible ids needs no branch per pixel.
        let mut counts = match &self.ids {
            Ids::U8(ids) => tally(ids.iter().map(|&id| usize::from(id)), 1 << 8),
            Ids::U16(ids) => tally(ids.iter().map(|&id| usize::from(id)), 1 << 16),
        };
        counts.resize(self.classes, 0);
        counts
    }

    /// The SHA-256 of the width and the height (32 bits each) and of every id (8 or 16 bits), all little endian, in hexadecimal.
    ///
    /// ```
    /// let mask = rtformer::pixels::Mask::new(2, 1, 19);
    /// assert_eq!(mask.digest().len(), 64);
    /// assert_ne!(mask.digest(), rtformer::pixels::Mask::new(1, 2, 19).digest());
    /// ```
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.width.to_le_bytes());
        hash.update(self.height.to_le_bytes());
        match &self.ids {
            Ids::U8(ids) => hash.update(ids),
            Ids::U16(ids) => ids.chunks(4096).for_each(|some| {
                hash.update(some.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
            }),
        }
        hex(&hash.finalize())
    }

    /// The ids as a grey picture, 8-bit or 16-bit.
    ///
    /// ```
    /// let mask = rtformer::pixels::Mask::new(2, 1, 19);
    /// assert_eq!(mask.to_image().to_luma8().as_raw(), &[0, 0]);
    /// ```
    ///
    /// # Panics
    /// Never, because the number of ids is that of the pixels.
    pub fn to_image(&self) -> DynamicImage {
        let (width, height) = (self.width, self.height);
        match &self.ids {
            Ids::U8(ids) => ImageBuffer::<Luma<u8>, _>::from_raw(width, height, ids.clone()).map(Into::into),
            Ids::U16(ids) => ImageBuffer::<Luma<u16>, _>::from_raw(width, height, ids.clone()).map(Into::into),
        }
        .expect("one id per pixel")
    }

    /// The id of one pixel; `None` outside the mask.
    pub(super) fn reached(&self, x: u32, y: u32) -> Option<u16> {
        (x < self.width && y < self.height).then(|| self.at(y as usize * self.width as usize + x as usize))
    }

    fn len(&self) -> usize {
        match &self.ids {
            Ids::U8(ids) => ids.len(),
            Ids::U16(ids) => ids.len(),
        }
    }

    fn at(&self, i: usize) -> u16 {
        match &self.ids {
            Ids::U8(ids) => u16::from(ids[i]),
            Ids::U16(ids) => ids[i],
        }
    }
}

fn tally(ids: impl Iterator<Item = usize>, values: usize) -> Vec<u64> {
    let mut counts = vec![0; values];
    ids.for_each(|id| counts[id] += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(width: u32, height: u32, classes: usize, ids: &[u16]) -> Mask {
        Mask::from_ids(width, height, classes, ids.iter().copied()).unwrap()
    }

    #[test]
    fn ids_that_do_not_fit_are_refused() {
        type Case<'a> = (u32, u32, usize, &'a [u16], Option<&'a str>);
        let cases: [Case<'_>; 10] = [
            (0, 0, 3, &[], None),
            (2, 1, 3, &[0, 255], None),
            (1, 1, 256, &[255], None), // a class
            (1, 1, 257, &[65_535], None),
            (2, 1, 3, &[0], Some("expected 2 ids, got 1")),
            (2, 1, 3, &[0, 1, 2], Some("expected 2 ids, got 3")),
            (0, 7, 3, &[0], Some("expected 0 ids, got 1")),
            (1, 1, 3, &[3], Some("id 3 at index 0 is neither a class nor the ignore id 255")),
            (2, 1, 3, &[0, 256], Some("id 256 at index 1")), // must not become 0
            (1, 1, 257, &[257], Some("the ignore id 65535")),
        ];
        for (width, height, classes, ids, want) in cases {
            match (Mask::from_ids(width, height, classes, ids.iter().copied()), want) {
                (Ok(mask), None) => {
                    assert_eq!((mask.iter().collect::<Vec<_>>(), mask.classes()), (ids.into(), classes));
                }
                (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, want) => panic!("{ids:?}: {got:?}, wanted {want:?}"),
            }
        }
    }

    #[test]
    fn ids_are_as_wide_as_the_classes_need() {
        let cases = [
            (1, true, 255),      // the smallest model
            (256, true, 255),    // the most that fit in a byte
            (257, false, 65535), // one more
        ];
        for (classes, bytes, ignore) in cases {
            let mask = filled(2, 1, classes, &[0, ignore]);
            assert_eq!((mask.ids_u8().is_some(), mask.ids_u16().is_some()), (bytes, !bytes), "{classes} classes");
            assert_eq!(mask.ignore_id(), ignore, "{classes} classes");
            assert_eq!(mask.iter().collect::<Vec<_>>(), [0, ignore]);
            assert_eq!((mask.get(0, 0), mask.get(1, 0)), (0, ignore));
            assert_eq!(mask.to_image().width(), 2);
        }
    }

    #[test]
    fn ignored_pixels_are_not_counted() {
        let mut mask = filled(5, 1, 3, &[2, 0, 2, 255, 1]);
        assert_eq!(mask.counts(), [1, 1, 2]);
        if let IdsMut::U8(ids) = mask.ids_mut() {
            ids[4] = 3; // not a class either
        }
        assert_eq!(mask.counts(), [1, 0, 2]);
        assert_eq!(filled(3, 1, 300, &[299, 65535, 1]).counts()[299], 1);
        assert_eq!(filled(1, 1, 70_000, &[9]).counts().len(), 70_000);
    }

    #[test]
    fn a_digest_depends_on_the_size_the_width_of_the_ids_and_the_ids() {
        // printf '\2\0\0\0\1\0\0\0\0\7' | sha256sum
        let known = "6aad49584a5b091e41b0cdb5c00f45bf411d87d637b5041a516257bd5cab76ba";
        let masks = [
            filled(2, 1, 19, &[0, 7]),
            filled(1, 2, 19, &[0, 7]),
            filled(2, 1, 19, &[7, 0]),
            filled(2, 1, 300, &[0, 7]),
        ];
        assert_eq!(masks[0].digest(), known);
        let digests: std::collections::BTreeSet<_> = masks.iter().map(Mask::digest).collect();
        assert_eq!(digests.len(), masks.len());
    }

    #[test]
    fn a_mask_is_reused_for_another_size_and_another_model() {
        let mut mask = Mask::new(4, 4, 19);
        for (width, height, classes) in [(2, 3, 19), (5, 5, 300), (0, 7, 2)] {
            mask.resize_for(width, height, classes).unwrap();
            assert_eq!((mask.width(), mask.height()), (width, height));
            assert_eq!(mask.iter().count(), (width * height) as usize);
            assert_eq!(mask.ids_u16().is_some(), classes > 256);
        }
    }
}
