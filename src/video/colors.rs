//! Conversions between RGB and YUV, by the crate `yuv`.
//!
//! The accuracy of a conversion to YUV is half a step (rounding); of one to RGB 1.5 steps, because the crate's arithmetic is integer.
//! Chroma is not interpolated: each sample of a subsampled plane stands for its two or four pixels, as in FFmpeg's default conversion.

use std::str::FromStr;

use image::RgbImage;
use yuv::{
    BufferStoreMut, YuvBiPlanarImage, YuvConversionMode, YuvError, YuvGrayImage, YuvPlanarImage, YuvPlanarImageMut,
    YuvRange, YuvStandardMatrix,
};

use crate::error::{Error, Result};

/// The values that stand for black and white.
///
/// ```
/// use rtformer::video::Range;
///
/// assert_eq!("full".parse::<Range>()?, Range::Full);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    /// 16 to 235, and 16 to 240 for chroma: videos, unless they say otherwise.
    #[default]
    Limited,
    /// 0 to 255: JPEG and some cameras.
    Full,
}

impl FromStr for Range {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "limited" => Ok(Self::Limited),
            "full" => Ok(Self::Full),
            _ => Err(Error::Input(format!("invalid range `{text}`: expected limited or full"))),
        }
    }
}

/// The weights of red, green and blue in the luma.
///
/// ```
/// use rtformer::video::Matrix;
///
/// assert_eq!("bt709".parse::<Matrix>()?, Matrix::Bt709);
/// assert_eq!((Matrix::of_size(720, 576), Matrix::of_size(1280, 720)), (Matrix::Bt601, Matrix::Bt709));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    /// ITU-R BT.601: standard definition, and JPEG.
    Bt601,
    /// ITU-R BT.709: high definition.
    Bt709,
}

impl Matrix {
    /// The matrix of a video that does not name one: BT.709 from 1280 pixels of width or 577 of height, as in mpv. This is right for videos,
    /// also if FFmpeg writes them as y4m, which does not change their samples. Frames that FFmpeg converts from RGB are BT.601 at every size.
    pub fn of_size(width: u32, height: u32) -> Self {
        if width >= 1280 || height > 576 { Self::Bt709 } else { Self::Bt601 }
    }
}

impl FromStr for Matrix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "bt601" => Ok(Self::Bt601),
            "bt709" => Ok(Self::Bt709),
            _ => Err(Error::Input(format!("invalid matrix `{text}`: expected bt601 or bt709"))),
        }
    }
}

/// The relation between RGB and YUV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colors {
    pub(super) range: Range,
    pub(super) matrix: Matrix,
}

impl Colors {
    fn parts(self) -> (YuvRange, YuvStandardMatrix) {
        let range = match self.range {
            Range::Limited => YuvRange::Limited,
            Range::Full => YuvRange::Full,
        };
        let matrix = match self.matrix {
            Matrix::Bt601 => YuvStandardMatrix::Bt601,
            Matrix::Bt709 => YuvStandardMatrix::Bt709,
        };
        (range, matrix)
    }
}

/// The planes of a frame, and how chroma is sampled.
#[derive(Clone, Copy, Debug)]
pub(super) enum Planes<'a> {
    /// Luma alone.
    Gray(&'a [u8]),
    /// Luma, then chroma at half the width and height.
    Yuv420([&'a [u8]; 3]),
    /// Luma, then chroma at half the width.
    Yuv422([&'a [u8]; 3]),
    /// Three planes of one size.
    Yuv444([&'a [u8]; 3]),
    /// Luma, then interleaved chroma at half the width and height.
    Nv12([&'a [u8]; 2]),
}

/// Converts a frame to RGB. Planes have no padding; halves of odd sides are rounded up.
///
/// # Errors
/// [`Error::Pixels`] if a plane has the wrong size.
pub(super) fn to_rgb(planes: Planes<'_>, width: u32, height: u32, colors: Colors) -> Result<RgbImage> {
    let mut rgb = RgbImage::new(width, height);
    let (out, row) = (&mut *rgb, 3 * width);
    let (range, matrix) = colors.parts();
    let half = width.div_ceil(2);
    let planar = |[y, u, v]: [&'_ [u8]; 3], chroma: u32, convert: Convert, out: &mut [u8]| {
        let planes = YuvPlanarImage {
            y_plane: y,
            y_stride: width,
            u_plane: u,
            u_stride: chroma,
            v_plane: v,
            v_stride: chroma,
            width,
            height,
        };
        convert(&planes, out, row, range, matrix)
    };
    let done = match planes {
        Planes::Gray(y_plane) => {
            let image = YuvGrayImage { y_plane, y_stride: width, width, height };
            yuv::yuv400_to_rgb(&image, out, row, range, matrix)
        }
        Planes::Yuv420(planes) => planar(planes, half, yuv::yuv420_to_rgb, out),
        Planes::Yuv422(planes) => planar(planes, half, yuv::yuv422_to_rgb, out),
        Planes::Yuv444(planes) => planar(planes, width, yuv::yuv444_to_rgb, out),
        Planes::Nv12([y_plane, uv_plane]) => {
            let image = YuvBiPlanarImage { y_plane, y_stride: width, uv_plane, uv_stride: 2 * half, width, height };
            yuv::yuv_nv12_to_rgb(&image, out, row, range, matrix, YuvConversionMode::Professional)
        }
    };
    done.map_err(|error| unfit(&error, width, height))?;
    Ok(rgb)
}

type Convert = fn(&YuvPlanarImage<'_, u8>, &mut [u8], u32, YuvRange, YuvStandardMatrix) -> Result<(), YuvError>;

/// Converts a frame to three planes of its own size.
///
/// # Errors
/// [`Error::Pixels`] if the picture has no pixels.
pub(super) fn from_rgb(rgb: &RgbImage, colors: Colors, planes: &mut [Vec<u8>; 3]) -> Result<()> {
    let (width, height) = rgb.dimensions();
    planes.iter_mut().for_each(|plane| plane.resize(width as usize * height as usize, 0));
    let (range, matrix) = colors.parts();
    let [y, u, v] = planes;
    let mut image = YuvPlanarImageMut {
        y_plane: BufferStoreMut::Borrowed(y),
        y_stride: width,
        u_plane: BufferStoreMut::Borrowed(u),
        u_stride: width,
        v_plane: BufferStoreMut::Borrowed(v),
        v_stride: width,
        width,
        height,
    };
    yuv::rgb_to_yuv444(&mut image, rgb, 3 * width, range, matrix, YuvConversionMode::Professional)
        .map_err(|error| unfit(&error, width, height))
}

fn unfit(error: &YuvError, width: u32, height: u32) -> Error {
    Error::Pixels(format!("a {width}x{height} frame cannot be converted: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Colors; 4] = [
        Colors { range: Range::Limited, matrix: Matrix::Bt601 },
        Colors { range: Range::Limited, matrix: Matrix::Bt709 },
        Colors { range: Range::Full, matrix: Matrix::Bt601 },
        Colors { range: Range::Full, matrix: Matrix::Bt709 },
    ];

    /// The definition: luma, blue and red difference in f64, before rounding. Source: ITU-R BT.601-7 and BT.709-6.
    fn exact([r, g, b]: [u8; 3], colors: Colors) -> [f64; 3] {
        let (kr, kb) = if colors.matrix == Matrix::Bt601 { (0.299, 0.114) } else { (0.2126, 0.0722) };
        let [r, g, b] = [r, g, b].map(f64::from);
        let y = kr * r + (1.0 - kr - kb) * g + kb * b;
        let (cb, cr) = ((b - y) / (2.0 * (1.0 - kb)), (r - y) / (2.0 * (1.0 - kr)));
        match colors.range {
            Range::Full => [y, 128.0 + cb, 128.0 + cr],
            Range::Limited => [16.0 + y * 219.0 / 255.0, 128.0 + cb * 224.0 / 255.0, 128.0 + cr * 224.0 / 255.0],
        }
    }

    /// A picture of odd size with 17 values of each channel.
    fn cube() -> RgbImage {
        let level = |step: u32| (step * 255 / 16) as u8;
        RgbImage::from_fn(17, 17 * 17, |x, y| image::Rgb([level(x), level(y % 17), level(y / 17)]))
    }

    #[test]
    fn colors_match_the_standards_within_rounding() {
        let cube = cube();
        for colors in ALL {
            let mut planes = Default::default();
            from_rgb(&cube, colors, &mut planes).unwrap();
            for (i, pixel) in cube.pixels().enumerate() {
                for (plane, want) in planes.iter().zip(exact(pixel.0, colors)) {
                    let off = (f64::from(plane[i]) - want.min(255.0)).abs();
                    assert!(off <= 0.52, "{colors:?}, {:?}: {} for {want}", pixel.0, plane[i]);
                }
            }
            let [y, u, v] = &planes;
            let back = to_rgb(Planes::Yuv444([y, u, v]), cube.width(), cube.height(), colors).unwrap();
            for (a, b) in cube.iter().zip(back.iter()) {
                assert!(a.abs_diff(*b) <= 2, "{colors:?}: {a} became {b}");
            }
        }
    }

    #[test]
    fn every_layout_and_odd_size_gives_the_same_colors() {
        // One colour, so that subsampling changes nothing.
        for (width, height) in [(1, 1), (2, 2), (5, 3), (33, 17), (64, 48)] {
            for colors in ALL {
                let picture = RgbImage::from_pixel(width, height, image::Rgb([200, 60, 30]));
                let mut planes = Default::default();
                from_rgb(&picture, colors, &mut planes).unwrap();
                let [y, u, v] = &planes;
                let half = (width.div_ceil(2) * height.div_ceil(2)) as usize;
                let sides = (width.div_ceil(2) * height) as usize;
                let interleaved: Vec<u8> = [u[0], v[0]].repeat(half);
                let layouts = [
                    Planes::Yuv444([y, u, v]),
                    Planes::Yuv422([y, &vec![u[0]; sides], &vec![v[0]; sides]]),
                    Planes::Yuv420([y, &vec![u[0]; half], &vec![v[0]; half]]),
                    Planes::Nv12([y, &interleaved]),
                ];
                for planes in layouts {
                    let back = to_rgb(planes, width, height, colors).unwrap();
                    for pixel in back.pixels() {
                        let near = pixel.0.iter().zip([200_u8, 60, 30]).all(|(a, b)| a.abs_diff(b) <= 2);
                        assert!(near, "{width}x{height}, {colors:?}: {:?}", pixel.0);
                    }
                }
                let gray = to_rgb(Planes::Gray(y), width, height, colors).unwrap();
                assert!(gray.pixels().all(|pixel| pixel.0[0] == pixel.0[1] && pixel.0[1] == pixel.0[2]));
            }
        }
    }

    #[test]
    fn a_short_plane_is_an_error() {
        let plane = vec![0; 11];
        let colors = ALL[0];
        for planes in [Planes::Gray(&plane), Planes::Yuv420([&plane; 3]), Planes::Nv12([&plane; 2])] {
            assert!(to_rgb(planes, 4, 3, colors).is_err(), "{planes:?}");
        }
    }
}
