//! Splits a batch of maps into views for the threads, and fills them.

use rtformer_kernels::{self as kernels, Layout, MapMut};

use super::buffers::Blank;
use super::failure::Failure;
use super::{Cpu, Maps};
use crate::error::Result;

/// How a kernel's output may be split into parallel views. Only some kernels can compute a part of the blocks or rows.
#[derive(Clone, Copy)]
pub(super) struct Split {
    /// Rows are split at multiples of this; 0 means that they are not split.
    pub(super) rows: usize,
    pub(super) blocks: bool,
    /// Whether to split blocks before rows: for operations that read more weights than input.
    pub(super) blocks_first: bool,
    /// Pieces per thread; several, so that a thread that the system delays does not hold up the others for long.
    pub(super) pieces: usize,
}

impl Split {
    pub(super) const ROWS: Self = Self { rows: 1, blocks: false, blocks_first: false, pieces: 4 };
    pub(super) const BLOCKS: Self = Self { rows: 0, blocks: true, ..Self::ROWS };
    pub(super) const BOTH: Self = Self { rows: 1, blocks: true, ..Self::ROWS };
    pub(super) const TILES: Self = Self { rows: kernels::WINOGRAD_TILE, ..Self::BOTH };
}

impl Cpu {
    /// The number of pieces into which work is split.
    pub(super) fn pieces(&self, split: Split) -> usize {
        if self.threads() == 1 { 1 } else { split.pieces * self.threads() }
    }

    /// Creates a batch of maps. `work` gets the number of an image and a view of its map, and fills it. Views are disjoint and
    /// filled in parallel.
    pub(super) fn fill<E: Into<Failure> + Send>(
        &self,
        op: &'static str,
        count: usize,
        layout: Layout,
        split: Split,
        work: impl Fn(usize, MapMut<'_>) -> Result<(), E> + Sync,
    ) -> Result<Maps> {
        let mut blank = self.buffers().blank(count, layout)?;
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

/// Halves a view repeatedly until there are `pieces`, and calls `work` on each in parallel.
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
