//! Writes pictures row by row.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use png::{BitDepth, ColorType};

use super::{Text, colors_of, header};
use crate::pixels::mask::Mask;
use crate::pixels::palette::Palette;

/// A PNG that is written from top to bottom, for pictures that do not fit in memory.
///
/// ```
/// use rtformer::pixels::render::PictureWriter;
///
/// let mut picture = PictureWriter::gray(Vec::new(), (2, 2), None)?;
/// picture.write(&[0, 50])?;
/// picture.write(&[100, 150])?;
/// let file = picture.finish()?;
/// assert_eq!(image::load_from_memory(&file).unwrap().to_luma8().as_raw(), &[0, 50, 100, 150]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct PictureWriter<W: Write + 'static> {
    rows: png::StreamWriter<'static, Shared<W>>,
    out: Arc<Mutex<W>>,
}

/// The writer, which the PNG's writer does not return.
struct Shared<W>(Arc<Mutex<W>>);

impl<W: Write> Write for Shared<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().flush()
    }
}

impl<W: Write + 'static> PictureWriter<W> {
    /// A mask of a number of classes, as [`IndexedPicture`](super::IndexedPicture) writes it.
    ///
    /// # Errors
    /// The writer's, here and below.
    pub fn mask(
        out: W,
        size: (u32, u32),
        classes: usize,
        palette: &Palette,
        text: Option<Text<'_>>,
    ) -> io::Result<Self> {
        if classes <= 256 {
            return Self::new(out, size, (ColorType::Indexed, BitDepth::Eight), Some(colors_of(palette)), text);
        }
        Self::new(out, size, (ColorType::Grayscale, BitDepth::Sixteen), None, text)
    }

    /// A grey picture.
    pub fn gray(out: W, size: (u32, u32), text: Option<Text<'_>>) -> io::Result<Self> {
        Self::new(out, size, (ColorType::Grayscale, BitDepth::Eight), None, text)
    }

    /// A colour picture: three bytes per pixel.
    pub fn rgb(out: W, size: (u32, u32), text: Option<Text<'_>>) -> io::Result<Self> {
        Self::new(out, size, (ColorType::Rgb, BitDepth::Eight), None, text)
    }

    fn new(
        out: W,
        size: (u32, u32),
        kind: (ColorType, BitDepth),
        palette: Option<Vec<u8>>,
        text: Option<Text<'_>>,
    ) -> io::Result<Self> {
        let out = Arc::new(Mutex::new(out));
        let header = header(Shared(Arc::clone(&out)), size, kind, palette, text)?;
        Ok(Self { rows: header.into_stream_writer()?, out })
    }

    /// Writes the next rows.
    pub fn write(&mut self, rows: &[u8]) -> io::Result<()> {
        self.rows.write_all(rows)
    }

    /// Writes the next rows of a mask.
    pub fn write_mask(&mut self, rows: &Mask) -> io::Result<()> {
        match rows.ids_u8() {
            Some(ids) => self.write(ids),
            None => self.write(&rows.iter().flat_map(u16::to_be_bytes).collect::<Vec<u8>>()),
        }
    }

    /// Ends the picture, and returns the writer. Fails if rows are missing.
    pub fn finish(self) -> io::Result<W> {
        self.rows.finish()?;
        let out = Arc::into_inner(self.out).ok_or_else(|| io::Error::other("the PNG's writer was not closed"))?;
        Ok(out.into_inner())
    }
}

impl<W: Write + 'static> fmt::Debug for PictureWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PictureWriter").finish_non_exhaustive()
    }
}
