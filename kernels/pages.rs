//! Memory requested directly from the system, in huge pages if available. This causes fewer page faults on the first
//! write, and fewer TLB misses when a kernel reads many rows that are far apart.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::{MmapOptions, MmapRaw};

use crate::Lanes;

/// The huge page size of most processors. With larger or no huge pages, this is only an alignment.
const HUGE_PAGE: usize = 2 << 20;

/// Memory that is zero at first.
#[derive(Debug)]
pub(crate) struct Pages {
    map: MmapRaw,
    /// Bytes before the first lane, which starts at a huge page boundary.
    ahead: usize,
    len: usize,
}

impl Pages {
    /// Memory for `len` lanes.
    ///
    /// - errors: the system's error if it has no more memory
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(size_of::<Lanes>()).and_then(|bytes| bytes.checked_add(HUGE_PAGE));
        let bytes = bytes.filter(|&bytes| isize::try_from(bytes).is_ok()).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = MmapRaw::from(MmapOptions::new().len(bytes).map_anon()?);
        let ahead = map.as_ptr().addr().wrapping_neg() % HUGE_PAGE;
        // A system without huge pages returns an error here and keeps small pages. (Miri does not support `madvise`.)
        #[cfg(all(target_os = "linux", not(miri)))]
        let _ = map.advise_range(memmap2::Advice::HugePage, ahead, bytes - HUGE_PAGE);
        Ok(Self { map, ahead, len })
    }

    /// As many whole huge pages as `len` lanes need.
    ///
    /// - errors: the system's error if it has no more memory
    pub(crate) fn whole(len: usize) -> io::Result<Self> {
        Self::new(len.checked_next_multiple_of(HUGE_PAGE / size_of::<Lanes>()).ok_or(io::ErrorKind::OutOfMemory)?)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first of `len` correctly aligned lanes, which live as long as these pages.
    pub(crate) fn as_mut_ptr(&self) -> *mut Lanes {
        self.map.as_mut_ptr().wrapping_add(self.ahead).cast()
    }
}

/// Lanes that are written once and read often, such as a layer's weights.
#[derive(Debug)]
pub(crate) enum Table {
    /// Too few lanes to fill a huge page, or a fallback if the system refused the pages.
    Few(Vec<Lanes>),
    /// The only owner of its pages.
    Many(Pages),
}

impl Table {
    /// `len` lanes of zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let many = if len * size_of::<Lanes>() < HUGE_PAGE { None } else { Pages::new(len).ok() };
        many.map_or_else(|| Self::Few(vec![Lanes::ZERO; len]), Self::Many)
    }
}

impl Deref for Table {
    type Target = [Lanes];

    fn deref(&self) -> &[Lanes] {
        match self {
            Self::Few(lanes) => lanes,
            // SAFETY: the pages hold this many lanes, and any bits are valid lanes; no one else has a pointer to them.
            Self::Many(pages) => unsafe { std::slice::from_raw_parts(pages.as_mut_ptr(), pages.len()) },
        }
    }
}

impl DerefMut for Table {
    fn deref_mut(&mut self) -> &mut [Lanes] {
        match self {
            Self::Few(lanes) => lanes,
            // SAFETY: as in `deref`; the exclusive borrow of the only owner passes to the result.
            Self::Many(pages) => unsafe { std::slice::from_raw_parts_mut(pages.as_mut_ptr(), pages.len()) },
        }
    }
}

impl Clone for Table {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_keep_their_values_and_copies_are_independent() {
        let edge = HUGE_PAGE / size_of::<Lanes>(); // the boundary between `Few` and `Many`
        let lens = [0, 1, 1000, edge - 1, edge, edge + 1, 100_000];
        let step = if cfg!(miri) { 1000 } else { 1 };
        for &len in if cfg!(miri) { &lens[4..5] } else { &lens[..] } {
            let mut table = Table::zeros(len);
            assert!(table.len() == len && table.iter().step_by(step).all(|lanes| *lanes == Lanes::ZERO));
            table.iter_mut().enumerate().step_by(step).for_each(|(i, lanes)| lanes.0[15] = i as f32);
            let copy = table.clone();
            table.iter_mut().step_by(step).for_each(|lanes| *lanes = Lanes::ZERO);
            let kept = |(i, lanes): (usize, &Lanes)| lanes.0[15] == i as f32 && lanes.0[0] == 0.0;
            assert!(copy.iter().enumerate().step_by(step).all(kept));
        }
    }

    #[test]
    fn pages_start_at_a_huge_page_boundary() {
        for len in [1, 100, 50_000] {
            let pages = Pages::new(len).expect("memory is available");
            assert_eq!((pages.as_mut_ptr().addr() % HUGE_PAGE, pages.len()), (0, len));
            assert_eq!(Pages::whole(len).expect("memory is available").len() % (HUGE_PAGE / 64), 0);
        }
        assert!(Pages::whole(usize::MAX).is_err() && Pages::new(usize::MAX / 64).is_err());
    }
}
