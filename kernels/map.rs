//! The memory layout of feature maps: blocks of sixteen channels with a border of zeros.
//!
//! A map with `lanes = 16` is `[channels / 16][height + 2][width + 2][16]`: the sixteen channels of one pixel are one
//! cache line and one vector. The border ("halo") of one zero pixel is the padding of a 3x3 convolution, so
//! convolutions need no special case along the edge. Channels past the last one ("padding lanes") are also zero, and
//! every kernel keeps them zero. A map with `lanes = 1` has the same layout with one plane per channel; the
//! three-channel photo uses it.

use std::marker::PhantomData;
use std::ops::Range;

use crate::ShapeError;

/// Sixteen floats in one cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Lanes(pub [f32; 16]);

impl Lanes {
    /// Sixteen zeros.
    pub const ZERO: Self = Self([0.0; 16]);

    /// `values` in blocks of sixteen; the last block is padded with zeros.
    pub fn from_channels(values: &[f32]) -> Vec<Self> {
        let mut lanes = vec![Self::ZERO; values.len().div_ceil(16)];
        floats_mut(&mut lanes)[..values.len()].copy_from_slice(values);
        lanes
    }
}

/// The same memory as plain floats.
pub fn floats(lanes: &[Lanes]) -> &[f32] {
    bytemuck::cast_slice(lanes)
}

/// The same memory as mutable plain floats.
pub fn floats_mut(lanes: &mut [Lanes]) -> &mut [f32] {
    bytemuck::cast_slice_mut(lanes)
}

/// A map's shape and memory layout. Lengths and strides are in floats and include the halo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Channels, without padding lanes.
    pub channels: usize,
    /// Rows, without the halo.
    pub height: usize,
    /// Pixels per row, without the halo.
    pub width: usize,
    /// Channels stored together per pixel: 16 (blocked) or 1 (planar).
    pub lanes: usize,
}

// The arithmetic saturates: an absurd shape asks for more memory than any slice has, so the checks reject it.
impl Layout {
    /// Blocks of sixteen channels, the layout of every map inside the network.
    pub const fn blocked(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width, lanes: 16 }
    }

    /// One plane per channel, the layout of the input image.
    pub const fn planar(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width, lanes: 1 }
    }

    /// The distance from a pixel to the one below it.
    pub const fn row_stride(&self) -> usize {
        self.width.saturating_add(2).saturating_mul(self.lanes)
    }

    /// The distance from one block to the next.
    pub const fn block_stride(&self) -> usize {
        self.height.saturating_add(2).saturating_mul(self.row_stride())
    }

    /// The number of blocks of `lanes` channels.
    pub const fn blocks(&self) -> usize {
        if self.lanes == 0 { 0 } else { self.channels.div_ceil(self.lanes) }
    }

    /// The number of floats in the whole map.
    pub const fn len(&self) -> usize {
        self.blocks().saturating_mul(self.block_stride())
    }

    /// Whether the map has no floats; never true of a map that [`Map::new`] or [`MapMut::new`] accepted.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Height and width.
    pub const fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// The offset of the first lane of an interior pixel.
    pub(crate) const fn offset(&self, block: usize, row: usize, column: usize) -> usize {
        block * self.block_stride() + (row + 1) * self.row_stride() + (column + 1) * self.lanes
    }

    /// How many lanes of a block are channels; the rest are padding lanes.
    pub(crate) fn real_lanes(&self, block: usize) -> usize {
        self.channels.saturating_sub(block * self.lanes).min(self.lanes)
    }

    fn check(&self, floats: usize) -> Result<(), ShapeError> {
        const OP: &str = "map";
        ShapeError::ensure(self.lanes == 1 || self.lanes == 16, OP, "lanes", self.lanes, "1 or 16")?;
        let some = self.channels > 0 && self.height > 0 && self.width > 0;
        let shape = (self.channels, self.height, self.width);
        ShapeError::ensure(some, OP, "shape (channels, height, width)", shape, "at least 1 each")?;
        let enough = self.len() <= floats && self.len() < isize::MAX as usize;
        ShapeError::ensure(enough, OP, "length of the data", floats, format_args!("at least {}", self.len()))
    }
}

/// A whole map, read-only.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    data: &'a [f32],
    layout: Layout,
}

impl<'a> Map<'a> {
    /// The map at the start of `data`, which may be longer.
    pub fn new(data: &'a [f32], layout: Layout) -> Result<Self, ShapeError> {
        layout.check(data.len())?;
        Ok(Self { data: &data[..layout.len()], layout })
    }

    /// The map's shape.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// All floats of the map, including the halo.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// One row of a block without its halo: `width * lanes` floats.
    pub(crate) fn row(&self, block: usize, row: usize) -> &'a [f32] {
        &self.data[self.layout.offset(block, row, 0)..][..self.layout.width * self.layout.lanes]
    }

    /// One value, for the definitions.
    pub(crate) fn at(&self, channel: usize, row: usize, column: usize) -> f32 {
        let lanes = self.layout.lanes;
        self.row(channel / lanes, row)[column * lanes + channel % lanes]
    }

    /// A pointer to the first lane of an interior pixel.
    pub(crate) fn pixel(&self, block: usize, row: usize, column: usize) -> *const f32 {
        debug_assert!(block < self.layout.blocks() && row < self.layout.height && column < self.layout.width);
        self.data.as_ptr().wrapping_add(self.layout.offset(block, row, column))
    }
}

/// A range of blocks and rows of a map, writable: the part that one thread computes.
///
/// Splitting gives disjoint views, like `slice::split_at_mut`. A row's left and right halo belong to the view that has
/// the row. The halo above and below belongs to the views that have the first and the last row.
#[derive(Debug)]
pub struct MapMut<'a> {
    /// The start of the whole map.
    data: *mut f32,
    layout: Layout,
    blocks: Range<usize>,
    rows: Range<usize>,
    exclusive: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view is an exclusive borrow of plain floats, and no two live views share a float.
unsafe impl Send for MapMut<'_> {}

impl<'a> MapMut<'a> {
    /// The whole map at the start of `data`, which may be longer.
    pub fn new(data: &'a mut [f32], layout: Layout) -> Result<Self, ShapeError> {
        layout.check(data.len())?;
        let (blocks, rows) = (0..layout.blocks(), 0..layout.height);
        Ok(Self { data: data.as_mut_ptr(), layout, blocks, rows, exclusive: PhantomData })
    }

    /// The shape of the whole map; this view may be a part of it.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The blocks of this view.
    pub fn blocks(&self) -> Range<usize> {
        self.blocks.clone()
    }

    /// The rows of this view.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Splits the view into the blocks before `mid` and the blocks from `mid` on. `mid` is an index in the whole map
    /// and is clamped to the view.
    pub fn split_blocks(self, mid: usize) -> (MapMut<'a>, MapMut<'a>) {
        let mid = mid.clamp(self.blocks.start, self.blocks.end);
        let (first, last) = (self.blocks.start..mid, mid..self.blocks.end);
        (Self { blocks: first, rows: self.rows.clone(), ..self }, Self { blocks: last, ..self })
    }

    /// Splits the view into the rows before `mid` and the rows from `mid` on. `mid` is an index in the whole map and is
    /// clamped to the view.
    pub fn split_rows(self, mid: usize) -> (MapMut<'a>, MapMut<'a>) {
        let mid = mid.clamp(self.rows.start, self.rows.end);
        let (first, last) = (self.rows.start..mid, mid..self.rows.end);
        (Self { rows: first, blocks: self.blocks.clone(), ..self }, Self { rows: last, ..self })
    }

    /// The same view with a shorter lifetime.
    pub fn reborrow(&mut self) -> MapMut<'_> {
        MapMut { blocks: self.blocks(), rows: self.rows(), exclusive: PhantomData, ..*self }
    }

    /// Sets only this view's part of the halo to zero.
    pub fn clear_halo(&mut self) {
        let Layout { height, width, lanes, .. } = self.layout;
        let row_stride = self.layout.row_stride();
        for block in self.blocks() {
            for row in self.rows() {
                let first = self.layout.offset(block, row, 0);
                self.zero(first - lanes, lanes);
                self.zero(first + width * lanes, lanes);
                if row == 0 {
                    self.zero(first - lanes - row_stride, row_stride);
                }
                if row + 1 == height {
                    self.zero(first - lanes + row_stride, row_stride);
                }
            }
        }
    }

    /// Sets floats that belong to this view to zero.
    fn zero(&mut self, start: usize, len: usize) {
        debug_assert!(start + len <= self.layout.len());
        // SAFETY: `clear_halo` passes only the halo of its own rows, which is inside the map and belongs to this view.
        unsafe { self.data.add(start).write_bytes(0, len) }
    }

    /// One row of a block without its halo: `width * lanes` floats.
    pub(crate) fn row_mut(&mut self, block: usize, row: usize) -> &mut [f32] {
        let len = self.layout.width * self.layout.lanes;
        // SAFETY: `pixel` checked that the row is in this view, which holds all its floats exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.pixel(block, row, 0), len) }
    }

    /// A pointer to the first lane of an interior pixel; the rest of its row follows.
    pub(crate) fn pixel(&mut self, block: usize, row: usize, column: usize) -> *mut f32 {
        assert!(
            self.blocks.contains(&block) && self.rows.contains(&row) && column < self.layout.width,
            "outside the view"
        );
        self.data.wrapping_add(self.layout.offset(block, row, column))
    }

    /// Whether the view has every row of its blocks.
    pub(crate) fn has_all_rows(&self) -> bool {
        self.rows == (0..self.layout.height)
    }

    /// Whether the view has every block of its rows.
    pub(crate) fn has_all_blocks(&self) -> bool {
        self.blocks == (0..self.layout.blocks())
    }
}

/// Of every kind.
#[cfg(test)]
pub(crate) const LAYOUTS: [Layout; 8] = [
    Layout::blocked(1, 1, 1), // the smallest map
    Layout::blocked(3, 2, 5),
    Layout::blocked(16, 3, 4), // no padding lanes
    Layout::blocked(17, 4, 3),
    Layout::blocked(33, 1, 9),
    Layout::blocked(64, 5, 2),
    Layout::planar(1, 1, 1),
    Layout::planar(3, 7, 6), // the photo
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack_nchw;
    use crate::testing::Owned;

    #[test]
    fn clearing_the_halo_of_every_view_clears_exactly_the_halo() {
        for layout in LAYOUTS {
            let image = vec![1.0; layout.channels * layout.height * layout.width];
            let mut data = vec![7.0; layout.len()];
            let view = MapMut::new(&mut data, layout).expect("the length fits");
            let (top, bottom) = view.split_rows(layout.height / 2);
            let (first, rest) = bottom.split_blocks(1);
            for mut view in [top, first, rest] {
                view.clear_halo();
                pack_nchw(&image, view).expect("the length fits");
            }
            assert_eq!(data, Owned::from_nchw(&image, layout).all(), "{layout:?}");
        }
    }

    #[test]
    fn views_are_disjoint_and_clamped() {
        let layout = Layout::blocked(40, 6, 2);
        let mut data = vec![0.0; layout.len()];
        let mut view = MapMut::new(&mut data, layout).expect("the length fits");
        let (left, right) = view.reborrow().split_blocks(99);
        assert_eq!((left.blocks(), right.blocks(), right.rows()), (0..3, 3..3, 0..6));
        let (top, bottom) = view.reborrow().split_rows(2);
        assert_eq!((top.rows(), bottom.rows()), (0..2, 2..6));
        let (none, all) = bottom.split_rows(0);
        assert_eq!((none.rows(), all.rows(), all.blocks()), (2..2, 2..6, 0..3));
        assert!(all.has_all_blocks() && !all.has_all_rows());
    }

    #[test]
    fn other_shapes_are_errors() {
        let layout = Layout::blocked(17, 4, 3);
        for wrong in [
            Layout { lanes: 0, ..layout },
            Layout { lanes: 8, ..layout },
            Layout { channels: 0, ..layout },
            Layout { height: 0, ..layout },
            Layout { width: 0, ..layout },
            Layout { width: usize::MAX, ..layout },
            Layout { channels: usize::MAX, height: usize::MAX, ..layout },
            Layout { height: 5, ..layout },
        ] {
            let mut data = vec![0.0; layout.len()];
            assert!(Map::new(&data, wrong).is_err(), "{wrong:?}");
            assert!(MapMut::new(&mut data, wrong).is_err(), "{wrong:?}");
        }
        let error = Map::new(&[0.0; 9], layout).expect_err("nine floats are too few");
        assert_eq!(error.to_string(), "map: length of the data is 9, expected at least 960");
    }
}
