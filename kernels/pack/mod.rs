//! Converts plain images to maps and back: on the CPU with these functions, on a GPU with the launches of [`gpu`].

pub mod gpu;

use crate::{Layout, Map, MapMut, ShapeError};

/// Copies the plain image `[channels, height, width]` into the view's blocks and rows; padding lanes become zero.
///
/// - errors: [`ShapeError`] unless the length of `image` matches the map's shape
pub fn pack_nchw(image: &[f32], mut out: MapMut) -> Result<(), ShapeError> {
    let Layout { channels, height, width, lanes } = out.layout();
    ShapeError::check("pack_nchw", "length of the image", image.len(), channels * height * width)?;
    for block in out.blocks() {
        for row in out.rows() {
            let line = out.row_mut(block, row);
            if lanes == 1 {
                line.copy_from_slice(&image[(block * height + row) * width..][..width]);
                continue;
            }
            for lane in 0..lanes {
                let channel = block * lanes + lane;
                for column in 0..width {
                    line[column * lanes + lane] =
                        if channel < channels { image[(channel * height + row) * width + column] } else { 0.0 };
                }
            }
        }
    }
    Ok(())
}

/// Fills the view's blocks and rows from a map of the same shape in another layout; padding lanes become zero.
///
/// - errors: [`ShapeError`] unless `map` has the channels, height and width of `out`
pub fn repack(map: Map, mut out: MapMut) -> Result<(), ShapeError> {
    let (from, Layout { channels, height, width, lanes }) = (map.layout(), out.layout());
    ShapeError::check("repack", "shape of the map", (from.channels, from.size()), (channels, (height, width)))?;
    for block in out.blocks() {
        let real = out.layout().real_lanes(block);
        for row in out.rows() {
            let line = out.row_mut(block, row);
            for lane in 0..lanes {
                let to = line.iter_mut().skip(lane).step_by(lanes);
                if lane < real {
                    let channel = block * lanes + lane;
                    let source =
                        map.row(channel / from.lanes, row).iter().skip(channel % from.lanes).step_by(from.lanes);
                    to.zip(source).for_each(|(to, value)| *to = *value);
                } else {
                    to.for_each(|to| *to = 0.0);
                }
            }
        }
    }
    Ok(())
}

/// Copies a map into the plain image `[channels, height, width]`.
///
/// - errors: [`ShapeError`] unless the length of `image` matches the map's shape
pub fn unpack_nchw(map: Map, image: &mut [f32]) -> Result<(), ShapeError> {
    let Layout { channels, height, width, lanes } = map.layout();
    ShapeError::check("unpack_nchw", "length of the image", image.len(), channels * height * width)?;
    for channel in 0..channels {
        for row in 0..height {
            let line = map.row(channel / lanes, row);
            let plain = &mut image[(channel * height + row) * width..][..width];
            for (column, value) in plain.iter_mut().enumerate() {
                *value = line[column * lanes + channel % lanes];
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::LAYOUTS;
    use crate::testing::{Owned, noise};

    #[test]
    fn images_round_trip_and_the_rest_stays_zero() {
        for layout in LAYOUTS {
            let image = noise(layout.channels * layout.height * layout.width, 1);
            let map = Owned::from_nchw(&image, layout);
            assert_eq!(map.to_nchw(), image, "{layout:?}");
            let kept = map.all().iter().filter(|v| **v != 0.0).count();
            assert_eq!(kept, image.iter().filter(|v| **v != 0.0).count(), "{layout:?}");
        }
    }

    #[test]
    fn maps_convert_between_all_layouts() {
        for layout in LAYOUTS {
            let image = noise(layout.channels * layout.height * layout.width, 1);
            let map = Owned::from_nchw(&image, layout);
            for lanes in [1, 16] {
                let other = Layout { lanes, ..layout };
                let mut data = vec![7.0; other.len()];
                let mut view = MapMut::new(&mut data, other).expect("the length fits");
                view.clear_halo();
                let (top, bottom) = view.split_rows(layout.height / 2);
                for view in [top, bottom] {
                    repack(map.map(), view).expect("the shapes fit");
                }
                assert_eq!(data, Owned::from_nchw(&image, other).all(), "{layout:?} to {lanes}");
            }
            let mut narrow = Owned::zeros(Layout { width: layout.width + 1, ..layout });
            assert!(repack(map.map(), narrow.view()).is_err());
        }
    }

    #[test]
    fn other_shapes_are_errors() {
        let mut map = Owned::zeros(Layout::blocked(17, 4, 3));
        assert!(pack_nchw(&[0.0; 17 * 12 - 1], map.view()).is_err());
        assert!(unpack_nchw(map.map(), &mut [0.0; 17 * 12 + 1]).is_err());
    }
}
