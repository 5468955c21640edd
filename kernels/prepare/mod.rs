//! Converts photos' bytes to the network's input.
//!
//! On the CPU, the caller computes rows, and [`fill_planes`] provides the memory for them. On a GPU, a kernel looks up
//! every byte in a table. A byte has 256 values, and the host computes the table with any arithmetic it likes, so the
//! results equal the host's exactly.

pub mod gpu;
#[cfg(any(test, feature = "emulation"))]
pub(crate) mod scalar;

use crate::{Layout, MapMut, ShapeError};

/// Fills a view of the network's input, which is planar and has three channels, from rows that `write` computes.
///
/// - `size`: height and width of the photo, at most those of the map; the rest of the map is padding and becomes zero
/// - `write`: called for each of the photo's rows in the view, with its number and its red, green and blue floats
/// - errors: [`ShapeError`] for another layout, a view of only some channels, or a photo larger than the map
pub fn fill_planes(
    mut out: MapMut,
    (height, width): (usize, usize),
    mut write: impl FnMut(usize, [&mut [f32]; 3]),
) -> Result<(), ShapeError> {
    const OP: &str = "fill_planes";
    let Layout { channels, lanes, height: rows, width: columns } = out.layout();
    ShapeError::check(OP, "channels and lanes", (channels, lanes), (3, 1))?;
    ShapeError::ensure(out.has_all_blocks(), OP, "channels of the view", out.blocks(), "all three")?;
    let fits = height <= rows && width <= columns;
    ShapeError::ensure(fits, OP, "size of the photo", (height, width), format_args!("within {rows} by {columns}"))?;
    for row in out.rows() {
        let (mut red, rest) = out.reborrow().split_blocks(1);
        let (mut green, mut blue) = rest.split_blocks(2);
        let planes = [red.row_mut(0, row), green.row_mut(1, row), blue.row_mut(2, row)];
        if row >= height {
            planes.into_iter().for_each(|plane| plane.fill(0.0));
            continue;
        }
        write(
            row,
            planes.map(|plane| {
                let (photo, padding) = plane.split_at_mut(width);
                padding.fill(0.0);
                photo
            }),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Owned;

    #[test]
    fn rows_are_in_place_and_surrounded_by_zeros() {
        let cases = [
            ((1, 1), (1, 1)), // one pixel
            ((3, 4), (3, 4)), // no padding
            ((3, 4), (5, 4)), // padding only at the bottom
            ((3, 4), (3, 8)), // padding only at the right
            ((1, 5), (7, 8)), // both
        ];
        for ((height, width), (rows, columns)) in cases {
            let layout = Layout::planar(3, rows, columns);
            let mut data = vec![7.0; layout.len()];
            let mut view = MapMut::new(&mut data, layout).expect("the length fits");
            view.clear_halo();
            let value = |channel: usize, y: usize, x: usize| (100 * channel + 10 * y + x + 1) as f32;
            let (top, bottom) = view.split_rows(rows / 2);
            for part in [top, bottom] {
                fill_planes(part, (height, width), |y, planes| {
                    for (channel, plane) in planes.into_iter().enumerate() {
                        assert_eq!(plane.len(), width);
                        plane.iter_mut().enumerate().for_each(|(x, out)| *out = value(channel, y, x));
                    }
                })
                .expect("the shapes fit");
            }
            let inside = |y, x| y < height && x < width;
            let pixels = (0..3).flat_map(|c| (0..rows).flat_map(move |y| (0..columns).map(move |x| (c, y, x))));
            let want: Vec<_> = pixels.map(|(c, y, x)| if inside(y, x) { value(c, y, x) } else { 0.0 }).collect();
            assert_eq!(data, Owned::from_nchw(&want, layout).all(), "{height}x{width} in {rows}x{columns}");
        }
    }

    #[test]
    fn other_shapes_are_errors() {
        let fill = |layout, size| fill_planes(Owned::zeros(layout).view(), size, |_, _| ()).is_err();
        assert!(!fill(Layout::planar(3, 4, 5), (4, 5)));
        assert!(fill(Layout::planar(3, 4, 5), (5, 5)), "more rows than the map has");
        assert!(fill(Layout::planar(3, 4, 5), (4, 6)), "more columns");
        assert!(fill(Layout::planar(4, 4, 5), (4, 5)), "another channel");
        assert!(fill(Layout::blocked(3, 4, 5), (4, 5)), "blocks");
        let mut map = Owned::zeros(Layout::planar(3, 4, 5));
        let (some, _) = map.view().split_blocks(2);
        assert!(fill_planes(some, (4, 5), |_, _| ()).is_err(), "two of three channels");
    }
}
