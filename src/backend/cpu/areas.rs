//! Rectangles of maps: copies rows.

use rtformer_kernels::Layout;

use super::{Cpu, Maps};
use crate::backend::areas::place;
use crate::backend::{Area, Areas, Backend};
use crate::error::Result;

impl Areas for Cpu {
    fn crop(&self, x: &Maps, area: Area) -> Result<Maps> {
        area.check("crop", self.shape(x))?;
        let layout = Layout { height: area.height, width: area.width, ..x.layout() };
        self.timed("crop", 0.0, || {
            let mut out = self.buffers().blank(x.count(), layout)?;
            for (i, out) in out.images_mut().enumerate() {
                copy((x.floats(i), x.layout(), (area.top, area.left)), (out, layout, (0, 0)), area);
            }
            Ok(out.freeze())
        })
    }

    fn paste(&self, x: Maps, patch: &Maps, at: (usize, usize)) -> Result<Maps> {
        let area = place(self.shape(&x), self.shape(patch), at)?;
        let patch = &*self.with_lanes(patch, x.layout().lanes)?;
        let layout = x.layout();
        self.timed("paste", 0.0, || {
            let mut out = self.buffers().thaw(x)?;
            for (i, out) in out.images_mut().enumerate() {
                copy((patch.floats(i), patch.layout(), (0, 0)), (out, layout, at), area);
            }
            Ok(out.freeze())
        })
    }
}

/// Copies the pixels of `area`'s size, all channels, from one map to another. Each is given with its first row and column.
fn copy(
    (from, source, start): (&[f32], Layout, (usize, usize)),
    (to, target, end): (&mut [f32], Layout, (usize, usize)),
    area: Area,
) {
    let offset = |layout: Layout, block: usize, row: usize, column: usize| {
        block * layout.block_stride() + (row + 1) * layout.row_stride() + (column + 1) * layout.lanes
    };
    let floats = area.width * source.lanes;
    for block in 0..source.blocks() {
        for row in 0..area.height {
            let from = &from[offset(source, block, start.0 + row, start.1)..][..floats];
            to[offset(target, block, end.0 + row, end.1)..][..floats].copy_from_slice(from);
        }
    }
}
