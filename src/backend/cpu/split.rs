//! How a batch of maps is split into views for the threads, and filled.

use rtformer_kernels::{self as kernels, Layout, MapMut};

use super::buffers::Blank;
use super::failure::Failure;
use super::{Cpu, Maps};
use crate::error::Result;

/// Views that a kernel may be given in parallel: only some kernels can see a part of the blocks or of the rows.
#[derive(Clone, Copy)]
pub(super) struct Split {
    /// Rows stay together in groups of so many; all of them if it is 0.
    pub(super) rows: usize,
    pub(super) blocks: bool,
    /// Whether pieces have some blocks of all rows before they have some rows: where the weights are more to read than the input.
    pub(super) blocks_first: bool,
    /// Several a thread, so that one which the system holds up delays the others little.
    pub(super) pieces: usize,
}

impl Split {
    pub(super) const ROWS: Self = Self { rows: 1, blocks: false, blocks_first: false, pieces: 4 };
    pub(super) const BLOCKS: Self = Self { rows: 0, blocks: true, ..Self::ROWS };
    pub(super) const BOTH: Self = Self { rows: 1, blocks: true, ..Self::ROWS };
    pub(super) const TILES: Self = Self { rows: kernels::WINOGRAD_TILE, ..Self::BOTH };
}

impl Cpu {
    /// Into how many pieces work is split.
    pub(super) fn pieces(&self, split: Split) -> usize {
        if self.threads() == 1 { 1 } else { split.pieces * self.threads() }
    }

    /// Makes a batch of maps: `work` fills the view it is given of one image; views are disjoint and come in parallel.
    pub(super) fn fill<E: Into<Failure> + Send>(
        &self,
        op: &'static str,
        count: usize,
        layout: Layout,
        split: Split,
        work: impl Fn(usize, MapMut<'_>) -> Result<(), E> + Sync,
    ) -> Result<Maps> {
        let mut blank = self.buffers.blank(count, layout)?;
        self.fill_blank(op, &mut blank, split, work)?;
        Ok(blank.freeze())
    }

    pub(super) fn fill_blank<E: Into<Failure> + Send>(
        &self,
        op: &'static str,
        blank: &mut Blank,
        split: Split,
        work: impl Fn(usize, MapMut<'_>) -> Result<(), E> + Sync,
    ) -> Result<()> {
        let pieces = self.pieces(split);
        let layout = blank.layout();
        for (image, floats) in blank.images_mut().enumerate() {
            let filled = match MapMut::new(floats, layout) {
                Ok(map) => in_pieces(map, pieces, split, &|view| work(image, view)).map_err(Into::into),
                Err(error) => Err(error.into()),
            };
            filled.map_err(|failure: Failure| failure.named(op))?;
        }
        Ok(())
    }
}

/// Halves a view again and again until there are `pieces`, and gives each to `work`, in parallel.
fn in_pieces<E: Send>(
    view: MapMut<'_>,
    pieces: usize,
    split: Split,
    work: &(impl Fn(MapMut<'_>) -> Result<(), E> + Sync),
) -> Result<(), E> {
    let (rows, blocks) = (view.rows(), view.blocks());
    let by_rows = pieces > 1 && split.rows > 0 && rows.len() > split.rows;
    let by_blocks = pieces > 1 && split.blocks && blocks.len() > 1;
    let (first, last) = if by_rows && !(by_blocks && split.blocks_first) {
        view.split_rows((rows.start + rows.len() / 2).next_multiple_of(split.rows))
    } else if by_blocks {
        view.split_blocks(blocks.start + blocks.len() / 2)
    } else {
        return work(view);
    };
    let (first, last) =
        rayon::join(|| in_pieces(first, pieces / 2, split, work), || in_pieces(last, pieces / 2, split, work));
    first.and(last)
}
