//! Reads a photo row by row, so that a large one never has to be in memory as a whole.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{ImageFormat, RgbImage};

use super::decode::tiff::TiffRows;
use super::decode::{self, Decoder, Image, Limits, guarded};
use super::sniff::{self, Kind};
use crate::error::{Error, Result};

mod png;

use png::PngRows;

/// A file or bytes in memory.
trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

/// What is read to look at a file, and for each chunk of it.
const BUFFER: usize = 256 << 10;

/// A photo that is read from top to bottom: 8-bit RGB, as [`Image`] decodes it.
///
/// PNGs and TIFFs are read by rows, and only a row, or a row of a TIFF's strips or tiles, is in memory. An interlaced PNG, a picture that its
/// metadata turns, a TIFF with other colours than grey and RGB, and every other format are decoded at once, within the decoder's limits. There is no
/// limit on the number of pixels, and sides can be as long as the decoder's limits allow.
///
/// ```
/// use rtformer::pixels::{Decoder, Image, RowReader};
///
/// let path = "tests/data/golden/photo.png";
/// let mut photo = RowReader::open(path, &Decoder::default())?;
/// let mut rows = vec![0; 2 * 3 * photo.width() as usize];
/// photo.read(&mut rows)?; // the first two
/// assert_eq!(rows[..], Image::open(path)?.rgb().as_raw()[..rows.len()]);
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct RowReader {
    name: PathBuf,
    size: (u32, u32),
    next: u32,
    rows: Rows,
    held: u64,
}

/// The decoders.
enum Rows {
    Png(Box<PngRows<Box<dyn Source>>>),
    Tiff(Box<TiffRows<Box<dyn Source>>>),
    Whole(Box<Image>),
}

impl RowReader {
    /// Opens a file. It must be a regular file, because its parts are not always in order.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read; [`Error::Image`] if it is not an image, is damaged, or has to be decoded at once and is too
    /// large for that.
    pub fn open(path: impl AsRef<Path>, decoder: &Decoder) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(Error::reading(path))?;
        let length = file.metadata().map_err(Error::reading(path))?.len();
        let open = || -> std::io::Result<Box<dyn Source>> {
            Ok(Box::new(BufReader::with_capacity(BUFFER, File::open(path)?)))
        };
        Self::new(open, length, path, decoder)
    }

    /// A photo in memory. Errors name it `name`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn decode(bytes: Vec<u8>, name: impl AsRef<Path>, decoder: &Decoder) -> Result<Self> {
        let length = bytes.len() as u64;
        let mut bytes = Some(bytes);
        let open = || Ok(Box::new(Cursor::new(bytes.take().unwrap_or_default())) as Box<dyn Source>);
        let reader = Self::new(open, length, name.as_ref(), decoder)?;
        Ok(Self { held: reader.held + length, ..reader })
    }

    /// Opens the file, which happens once.
    fn new(
        open: impl FnOnce() -> std::io::Result<Box<dyn Source>>,
        length: u64,
        name: &Path,
        decoder: &Decoder,
    ) -> Result<Self> {
        let mut file = open().map_err(Error::reading(name))?;
        let mut head = Vec::new();
        file.by_ref().take(sniff::HEAD as u64).read_to_end(&mut head).map_err(Error::reading(name))?;
        file.rewind().map_err(Error::reading(name))?;
        let format = match sniff::kind(&head, name) {
            Kind::Picture(format) => format,
            Kind::Unreadable(reason) | Kind::Other(reason) => return Err(Error::image(name, reason)),
        };
        let failed = |reason: String| Error::image(name, reason);
        let refused = || failed("the decoder failed on this file; save it again as JPEG or PNG".into());
        let opened = match format {
            ImageFormat::Png if decoder.bands.is_none() => {
                let rows = guarded(|| PngRows::new(&mut *file, decoder.depth)).ok_or_else(refused)?;
                let fits = rows.map_err(failed)?.by_rows();
                file.rewind().map_err(Error::reading(name))?;
                if fits {
                    let rows = guarded(|| PngRows::new(file, decoder.depth)).ok_or_else(refused)?.map_err(failed)?;
                    let held = 8 * u64::from(rows.size.0) + (BUFFER as u64);
                    Ok((rows.size, held, Rows::Png(Box::new(rows))))
                } else {
                    Err(file)
                }
            }
            ImageFormat::Tiff => {
                let rows = guarded(|| TiffRows::new(&mut *file, decoder.depth, decoder.bands)).ok_or_else(refused)?;
                let fits = match rows {
                    Ok(rows) => rows.orientation == Orientation::NoTransforms,
                    Err(reason) if decoder.bands.is_some() => return Err(failed(reason)),
                    Err(_) => false, // perhaps it can be decoded at once
                };
                file.rewind().map_err(Error::reading(name))?;
                if fits {
                    let rows = guarded(|| TiffRows::new(file, decoder.depth, decoder.bands)).ok_or_else(refused)?;
                    let mut rows = rows.map_err(failed)?;
                    let held = rows.held() + BUFFER as u64;
                    if held > decoder.limits.max_alloc {
                        let (held, most) = (held >> 20, decoder.limits.max_alloc >> 20);
                        return Err(failed(format!(
                            "a row of its strips or tiles has {held} MiB, the limit is {most} MiB; save it with smaller strips or tiles"
                        )));
                    }
                    Ok((rows.size, held, Rows::Tiff(Box::new(rows))))
                } else {
                    Err(file)
                }
            }
            _ => Err(file),
        };
        let (size, held, rows) = match opened {
            Ok(opened) => opened,
            Err(file) => {
                let image = whole(file, length, name, decoder)?;
                let size = (image.width(), image.height());
                (size, image.rgb().len() as u64, Rows::Whole(Box::new(image)))
            }
        };
        let unbounded = Limits { max_pixels: u64::MAX, ..decoder.limits };
        decode::check_size(size.0, size.1, &unbounded).map_err(failed)?;
        Ok(Self { name: name.to_path_buf(), size, next: 0, rows, held })
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.size.0
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.size.1
    }

    /// The file's path or given name.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The number of bytes that it holds while it is read.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// [`Image::likely_depth`], by the rows that were read.
    pub fn likely_depth(&self) -> Option<u8> {
        match &self.rows {
            Rows::Png(rows) => rows.likely_depth(),
            Rows::Tiff(rows) => rows.likely_depth(),
            Rows::Whole(image) => image.likely_depth(),
        }
    }

    /// Reads the next rows, as many as fit into `rows`: three bytes for each pixel, without padding.
    ///
    /// # Errors
    /// [`Error::Image`] if the file is damaged; [`Error::Input`] if the buffer does not hold whole rows, or if there are fewer left.
    pub fn read(&mut self, rows: &mut [u8]) -> Result<()> {
        let length = 3 * self.size.0 as usize;
        let count = rows.len() / length;
        if !rows.len().is_multiple_of(length) || count > (self.size.1 - self.next) as usize {
            return Err(Error::Input(format!(
                "{}: cannot read {} bytes: a row has {length}, and {} rows are left",
                self.name.display(),
                rows.len(),
                self.size.1 - self.next
            )));
        }
        for row in rows.chunks_exact_mut(length) {
            let y = self.next;
            let read = guarded(|| match &mut self.rows {
                Rows::Png(png) => png.row(row),
                Rows::Tiff(tiff) => tiff.row(y, row),
                Rows::Whole(image) => {
                    row.copy_from_slice(&image.rgb().as_raw()[y as usize * length..][..length]);
                    Ok(())
                }
            });
            let refused = || Err("the decoder failed on this file; save it again as JPEG or PNG".into());
            read.unwrap_or_else(refused).map_err(|reason| Error::image(&self.name, reason))?;
            self.next += 1;
        }
        Ok(())
    }
}

impl From<RgbImage> for RowReader {
    fn from(rgb: RgbImage) -> Self {
        let (size, held) = (rgb.dimensions(), rgb.len() as u64);
        Self { name: PathBuf::new(), size, next: 0, rows: Rows::Whole(Box::new(rgb.into())), held }
    }
}

impl fmt::Debug for RowReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, size, next, held, .. } = self;
        f.debug_struct("RowReader")
            .field("name", name)
            .field("size", size)
            .field("next", next)
            .field("held", held)
            .finish_non_exhaustive()
    }
}

/// Decodes the file at once. The limit on bytes decides, not that on pixels.
fn whole(mut file: Box<dyn Source>, length: u64, name: &Path, decoder: &Decoder) -> Result<Image> {
    let most = decoder.limits.max_alloc;
    if length > most {
        return Err(Error::image(
            name,
            format!("cannot be read by rows, and is longer than {most} bytes, which is the limit"),
        ));
    }
    let mut bytes = Vec::new();
    bytes
        .try_reserve(usize::try_from(length).unwrap_or(usize::MAX))
        .map_err(|_| Error::reading(name)(std::io::ErrorKind::OutOfMemory.into()))?;
    file.read_to_end(&mut bytes).map_err(Error::reading(name))?;
    let limits = Limits { max_pixels: u64::MAX, max_alloc: most.saturating_sub(length), ..decoder.limits };
    Decoder { limits, ..*decoder }.decode(&bytes, name).map_err(|error| match error {
        Error::Image { path, reason } => Error::Image {
            path,
            reason: format!(
                "{reason} (only PNGs without interlacing and TIFFs are read by rows; this file is decoded at once)"
            ),
        },
        other => other,
    })
}
