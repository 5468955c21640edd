//! A borrowed picture of 8-bit pixels.

use std::path::Path;
use std::sync::Arc;

use image::{DynamicImage, GrayImage, RgbImage, RgbaImage};

use crate::error::{Error, Result};
use crate::pixels::decode::{self, Image};

/// The order of the bytes in a pixel.
///
/// ```
/// use rtformer::pixels::{PixelFormat, Pixels};
///
/// assert_eq!(PixelFormat::Bgra8.channels(), 4);
/// let pixels = Pixels::new(&[1, 2, 3, 255], 1, 1, 4, PixelFormat::Bgra8)?;
/// assert_eq!(pixels.rgb(0, 0), [3, 2, 1]);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// Red, green, blue.
    Rgb8,
    /// Blue, green, red: OpenCV's order.
    Bgr8,
    /// Red, green, blue and alpha, which is ignored.
    Rgba8,
    /// Blue, green, red and alpha, which is ignored.
    Bgra8,
    /// One byte, used for red, green and blue.
    Gray8,
}

impl PixelFormat {
    /// Bytes per pixel.
    pub fn channels(self) -> usize {
        match self {
            Self::Gray8 => 1,
            Self::Rgb8 | Self::Bgr8 => 3,
            Self::Rgba8 | Self::Bgra8 => 4,
        }
    }

    /// The offsets of red, green and blue in a pixel.
    pub(crate) fn offsets(self) -> [usize; 3] {
        match self {
            Self::Gray8 => [0, 0, 0],
            Self::Rgb8 | Self::Rgba8 => [0, 1, 2],
            Self::Bgr8 | Self::Bgra8 => [2, 1, 0],
        }
    }
}

/// A borrowed picture of 8-bit pixels: a decoded file, a camera's buffer, or an `image` buffer.
///
/// ```
/// use rtformer::pixels::{PixelFormat, Pixels};
///
/// // Two rows of two BGR pixels. Like the buffers of many cameras, each row is padded to 8 bytes.
/// let frame = [1, 2, 3, 4, 5, 6, 0, 0, 7, 8, 9, 10, 11, 12, 0, 0];
/// let pixels = Pixels::new(&frame, 2, 2, 8, PixelFormat::Bgr8)?;
/// assert_eq!(pixels.rgb(1, 1), [12, 11, 10]);
/// assert!(Pixels::new(&frame, 2, 3, 8, PixelFormat::Bgr8).is_err(), "there is no third row");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pixels<'a> {
    data: Data<'a>,
    width: u32,
    height: u32,
    stride: usize,
    format: PixelFormat,
    decode_ms: f64,
    name: Option<&'a Path>,
}

/// Shared if a conversion was needed, so that a clone never copies a picture.
#[derive(Clone, Debug)]
enum Data<'a> {
    Borrowed(&'a [u8]),
    Shared(Arc<Vec<u8>>),
}

impl<'a> Pixels<'a> {
    /// A picture in `data`, whose rows start `stride` bytes apart.
    ///
    /// # Errors
    /// [`Error::Pixels`] if a side is 0, a row is longer than the stride, or `data` ends before the last pixel.
    pub fn new(data: &'a [u8], width: u32, height: u32, stride: usize, format: PixelFormat) -> Result<Self> {
        let refuse = |why: String| Err(Error::Pixels(format!("{width}x{height} {format:?}, stride {stride}: {why}")));
        if width == 0 || height == 0 {
            return refuse("has no pixels".into());
        }
        let Some(row) = (width as usize).checked_mul(format.channels()) else {
            return refuse("a row does not fit in memory".into());
        };
        if stride < row {
            return refuse(format!("a row is {row} bytes, longer than the stride"));
        }
        // The last row needs no padding.
        let needed = (height as usize - 1).checked_mul(stride).and_then(|above| above.checked_add(row));
        match needed {
            Some(needed) if needed <= data.len() => {
                Ok(Self::whole(Data::Borrowed(data), width, height, stride, format))
            }
            Some(needed) => refuse(format!("needs {needed} bytes, the buffer has {}", data.len())),
            None => refuse(format!("needs more bytes than fit in memory, the buffer has {}", data.len())),
        }
    }

    fn whole(data: Data<'a>, width: u32, height: u32, stride: usize, format: PixelFormat) -> Self {
        Self { data, width, height, stride, format, decode_ms: 0.0, name: None }
    }

    /// The pixels of a buffer without padding.
    fn packed(data: Data<'a>, (width, height): (u32, u32), format: PixelFormat) -> Self {
        Self::whole(data, width, height, width as usize * format.channels(), format)
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The order of the bytes in a pixel.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// The time for decoding, in milliseconds; 0 if these pixels are not from an [`Image`].
    ///
    /// ```
    /// let photo = image::RgbImage::new(2, 2);
    /// assert_eq!(rtformer::pixels::Pixels::from(&photo).decode_ms(), 0.0);
    /// ```
    pub fn decode_ms(&self) -> f64 {
        self.decode_ms
    }

    /// The same picture with a name. Errors of the segmenter then start with it.
    ///
    /// ```
    /// use rtformer::pixels::{PixelFormat, Pixels};
    ///
    /// let frame = [0; 12];
    /// let pixels = Pixels::new(&frame, 2, 2, 6, PixelFormat::Rgb8)?.named("camera 1");
    /// assert_eq!(pixels.name(), Some("camera 1".as_ref()));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn named(self, name: &'a (impl AsRef<Path> + ?Sized)) -> Self {
        Self { name: Some(name.as_ref()), ..self }
    }

    /// The name of the [`Image`], or the one given to [`named`](Self::named); `None` if there is none.
    pub fn name(&self) -> Option<&'a Path> {
        self.name
    }

    /// The bytes of one row, without padding.
    ///
    /// ```
    /// # use rtformer::pixels::{PixelFormat, Pixels};
    /// let padded = [1, 2, 0, 0, 3, 4, 0, 0];
    /// let pixels = Pixels::new(&padded, 2, 2, 4, PixelFormat::Gray8)?;
    /// assert_eq!(pixels.row(1), [3, 4]);
    /// assert_eq!((pixels.width(), pixels.height(), pixels.format()), (2, 2, PixelFormat::Gray8));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, y: u32) -> &[u8] {
        assert!(y < self.height, "row {y} of {}", self.height);
        let data = match &self.data {
            Data::Borrowed(data) => data,
            Data::Shared(data) => data.as_slice(),
        };
        let start = y as usize * self.stride;
        &data[start..start + self.width as usize * self.format.channels()]
    }

    /// Red, green and blue of one pixel.
    ///
    /// # Panics
    /// If the pixel is outside the picture.
    pub fn rgb(&self, x: u32, y: u32) -> [u8; 3] {
        let pixel = &self.row(y)[x as usize * self.format.channels()..];
        self.format.offsets().map(|offset| pixel[offset])
    }
}

impl<'a> From<&'a RgbImage> for Pixels<'a> {
    fn from(image: &'a RgbImage) -> Self {
        Self::packed(Data::Borrowed(image.as_raw()), image.dimensions(), PixelFormat::Rgb8)
    }
}

impl<'a> From<&'a RgbaImage> for Pixels<'a> {
    fn from(image: &'a RgbaImage) -> Self {
        Self::packed(Data::Borrowed(image.as_raw()), image.dimensions(), PixelFormat::Rgba8)
    }
}

impl<'a> From<&'a GrayImage> for Pixels<'a> {
    fn from(image: &'a GrayImage) -> Self {
        Self::packed(Data::Borrowed(image.as_raw()), image.dimensions(), PixelFormat::Gray8)
    }
}

/// Borrows 8-bit grey, RGB and RGBA. Converts other kinds as decoding does (16-bit samples keep their high byte). Floats, which
/// decoding rejects, are scaled from `0.0..=1.0` to `0..=255`.
impl<'a> From<&'a DynamicImage> for Pixels<'a> {
    fn from(image: &'a DynamicImage) -> Self {
        match image {
            DynamicImage::ImageRgb8(image) => image.into(),
            DynamicImage::ImageRgba8(image) => image.into(),
            DynamicImage::ImageLuma8(image) => image.into(),
            other => {
                let rgb = decode::to_rgb(other);
                let size = rgb.dimensions();
                Self::packed(Data::Shared(Arc::new(rgb.into_raw())), size, PixelFormat::Rgb8)
            }
        }
    }
}

impl<'a> From<&'a Image> for Pixels<'a> {
    fn from(image: &'a Image) -> Self {
        let name = Some(image.name()).filter(|name| !name.as_os_str().is_empty());
        Self { decode_ms: image.decode_ms(), name, ..image.rgb().into() }
    }
}

impl<'a> From<&Pixels<'a>> for Pixels<'a> {
    fn from(pixels: &Pixels<'a>) -> Self {
        pixels.clone()
    }
}
