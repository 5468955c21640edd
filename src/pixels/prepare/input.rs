//! Converts pixels to normalised planes: by table lookup at the photo's own size, else with the arithmetic of `cv2.resize`.

use rayon::prelude::*;

use super::{Extent, Input, Normalization, Pixels, Preparation};
use crate::error::{Error, Result};
use crate::memory;

impl Input {
    /// Resizes, normalises and pads as `preparation` says.
    ///
    /// At the photo's own size, the result equals PaddleSeg's bit for bit. After resizing, it equals PaddleSeg with OpenCV's
    /// plain code bit for bit; if OpenCV was built with Intel's IPP, small pictures differ by up to 1e-5 of the range.
    ///
    /// ```
    /// use rtformer::pixels::{Input, Normalization, Preparation};
    ///
    /// let photo = image::RgbImage::new(96, 48);
    /// let normalization = Normalization { mean: [0.5; 3], std: [0.5; 3] };
    /// let preparation = Preparation { size: "within:64x64".parse()?, ..Preparation::new(normalization) };
    /// let input = Input::prepare(&(&photo).into(), &preparation)?;
    /// assert_eq!((input.width, input.height, input.data.len()), (64, 32, 3 * 64 * 32));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] for an invalid normalization; [`Error::OutOfMemory`]; otherwise as [`Preparation::extent`].
    pub fn prepare(pixels: &Pixels, preparation: &Preparation) -> Result<Self> {
        let mut input = Self::default();
        input.refill(pixels, preparation)?;
        Ok(input)
    }

    /// As [`prepare`](Self::prepare), but reuses the memory of this input.
    ///
    /// ```
    /// # use rtformer::pixels::{Input, Normalization, Preparation};
    /// let preparation = Preparation::new(Normalization { mean: [0.5; 3], std: [0.5; 3] });
    /// let mut input = Input::default();
    /// for photo in [image::RgbImage::new(64, 32), image::RgbImage::new(32, 32)] {
    ///     input.refill(&(&photo).into(), &preparation)?;
    ///     assert_eq!((input.width, input.height), (photo.width() as usize, 32));
    /// }
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare). On an error, this input is unchanged.
    pub fn refill(&mut self, pixels: &Pixels, preparation: &Preparation) -> Result<()> {
        let rows = Rows::new(preparation, pixels, Columns::default())?;
        let Extent { full: (height, width), kept } = rows.extent();
        let plane = height * width;
        let what = || format!("an input of {width}x{height} pixels");
        if self.data.capacity() / 2 > 3 * plane {
            // Do not keep the memory of a much larger photo.
            self.data = memory::filled(3 * plane, 0.0, what)?;
        } else {
            memory::resize(&mut self.data, 3 * plane, 0.0, what)?;
        }
        (self.width, self.height, self.kept) = (width, height, kept);
        let (red, rest) = self.data.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        let lines = red
            .par_chunks_exact_mut(width)
            .zip(green.par_chunks_exact_mut(width))
            .zip(blue.par_chunks_exact_mut(width));
        lines.enumerate().with_min_len(8).for_each(|(y, ((red, green), blue))| {
            let planes = [red, green, blue];
            if y >= kept.0 {
                planes.into_iter().for_each(|plane| plane.fill(0.0));
                return;
            }
            rows.write(
                pixels,
                y,
                planes.map(|plane| {
                    let (photo, padding) = plane.split_at_mut(kept.1);
                    padding.fill(0.0);
                    photo
                }),
            );
        });
        Ok(())
    }

    /// (height, width) with padding, and without.
    pub(crate) fn extent(&self) -> Extent {
        Extent { full: (self.height, self.width), kept: self.kept }
    }
}

/// The positions of a resized row's columns in the photo. The next photo's [`Rows`] can reuse the memory.
#[derive(Debug, Default)]
pub(crate) struct Columns(Vec<Tap>);

/// Computes rows of the network's input from photos of one size.
pub(crate) struct Rows {
    preparation: Preparation,
    extent: Extent,
    /// Height of the photo.
    from_height: u32,
    /// The normalised value of each byte, for red, green and blue. Used if photos are not resized.
    tables: [[f32; 256]; 3],
    /// `Some` if photos are resized.
    columns: Option<Columns>,
    spare: Columns,
}

impl Rows {
    /// Creates the rows for photos of the size of `photo`. Reuses the memory of `columns`.
    ///
    /// # Errors
    /// As [`Input::prepare`].
    pub(crate) fn new(preparation: &Preparation, photo: &Pixels, mut columns: Columns) -> Result<Self> {
        let Preparation { normalization, .. } = preparation;
        normalization.check()?;
        let extent = preparation.extent(photo.width(), photo.height())?;
        let (height, width) = extent.kept;
        let mut rows = Self {
            preparation: *preparation,
            extent,
            from_height: photo.height(),
            tables: [[0.0; 256]; 3],
            columns: None,
            spare: Columns::default(),
        };
        if (height, width) == (photo.height() as usize, photo.width() as usize) {
            (rows.tables, rows.spare) = (normalization.tables()?, columns);
        } else {
            columns.0.clear();
            let bytes = width * size_of::<Tap>();
            let room = columns.0.try_reserve_exact(width);
            room.map_err(|_| Error::OutOfMemory { what: format!("resizing to {width}x{height} pixels"), bytes })?;
            columns.0.extend((0..width).map(|x| Tap::column(photo.width(), width, x)));
            rows.columns = Some(columns);
        }
        Ok(rows)
    }

    /// The size of the input.
    pub(crate) fn extent(&self) -> Extent {
        self.extent
    }

    /// Computes row `y`, below the kept height, of `photo`, which has the size that this was made for; each plane is as long as the
    /// kept width.
    pub(crate) fn write(&self, photo: &Pixels, y: usize, planes: [&mut [f32]; 3]) {
        match &self.columns {
            None => look_up(photo, y, &self.tables, planes),
            Some(columns) => {
                let line = Tap::line(self.from_height, self.extent.kept.0, y);
                resize_row(photo, &columns.0, line, &self.preparation.normalization, planes);
            }
        }
    }

    /// The memory, for the next photo.
    pub(crate) fn into_columns(self) -> Columns {
        self.columns.unwrap_or(self.spare)
    }
}

impl Normalization {
    fn check(&self) -> Result<()> {
        let usable = |value: &f64| value.is_finite();
        if self.mean.iter().chain(&self.std).all(usable) && !self.std.contains(&0.0) {
            return Ok(());
        }
        Err(Error::Input(format!(
            "invalid normalization with mean {:?} and std {:?}: all values must be finite, and no std may be 0",
            self.mean, self.std
        )))
    }

    /// Normalises one value from 0 to 255 as `paddleseg.transforms.functional.normalize` does: numpy divides by 255 in f32,
    /// computes each in-place step with an f64 array in f64, and rounds the result to f32.
    #[inline]
    fn apply(&self, channel: usize, value: f32) -> f32 {
        let scaled = value / 255.0;
        let centred = (f64::from(scaled) - self.mean[channel]) as f32;
        (f64::from(centred) / self.std[channel]) as f32
    }

    /// The normalised value of every byte, for red, green and blue. An error if the normalization is invalid.
    pub(crate) fn tables(&self) -> Result<[[f32; 256]; 3]> {
        self.check()?;
        Ok(std::array::from_fn(|channel| std::array::from_fn(|value| self.apply(channel, value as f32))))
    }
}

fn look_up(pixels: &Pixels, y: usize, tables: &[[f32; 256]; 3], planes: [&mut [f32]; 3]) {
    let row = pixels.row(y as u32);
    match pixels.format().channels() {
        1 => look_up_row::<1>(row, pixels.format().offsets(), tables, planes),
        3 => look_up_row::<3>(row, pixels.format().offsets(), tables, planes),
        _ => look_up_row::<4>(row, pixels.format().offsets(), tables, planes),
    }
}

fn look_up_row<const N: usize>(row: &[u8], offsets: [usize; 3], tables: &[[f32; 256]; 3], planes: [&mut [f32]; 3]) {
    let [red, green, blue] = planes;
    let planes = red.iter_mut().zip(green).zip(blue);
    for (pixel, ((red, green), blue)) in row.as_chunks::<N>().0.iter().zip(planes) {
        *red = tables[0][usize::from(pixel[offsets[0]])];
        *green = tables[1][usize::from(pixel[offsets[1]])];
        *blue = tables[2][usize::from(pixel[offsets[2]])];
    }
}

/// The two pixels (or rows) between which a target pixel lies, and the weight of the second: OpenCV's `INTER_LINEAR`.
#[derive(Clone, Copy, Debug)]
struct Tap {
    first: usize,
    second: usize,
    weight: f32,
}

impl Tap {
    /// The tap of a column. Beyond the first or last column there is only one pixel, with weight 1.
    fn column(from: u32, to: usize, x: usize) -> Self {
        let tap = Self::line(from, to, x);
        if tap.first == tap.second { Self { weight: 0.0, ..tap } } else { tap }
    }

    /// The tap of a row. Beyond the first or last row, OpenCV still adds two weighted values of that row, which may round.
    ///
    /// As in OpenCV, the position is computed in f64 and rounded to f32 before it is split. On a wide photo, that rounding
    /// changes a weight by 1e-4, which more exact arithmetic would not reproduce.
    fn line(from: u32, to: usize, y: usize) -> Self {
        let scale = 1.0 / (to as f64 / f64::from(from));
        let position = ((y as f64 + 0.5) * scale - 0.5) as f32;
        let (floor, last) = (position.floor(), i64::from(from) - 1);
        let inside = |at: i64| at.clamp(0, last) as usize;
        Self { first: inside(floor as i64), second: inside(floor as i64 + 1), weight: position - floor }
    }
}

/// Computes one row of the target: first horizontally, then vertically, with each product and each sum rounded to f32.
fn resize_row(pixels: &Pixels, columns: &[Tap], line: Tap, normalization: &Normalization, planes: [&mut [f32]; 3]) {
    let (above, below) = (pixels.row(line.first as u32), pixels.row(line.second as u32));
    let n = pixels.format().channels();
    for (channel, (plane, offset)) in planes.into_iter().zip(pixels.format().offsets()).enumerate() {
        for (out, tap) in plane.iter_mut().zip(columns) {
            let across = |row: &[u8]| {
                let (first, second) = (f32::from(row[tap.first * n + offset]), f32::from(row[tap.second * n + offset]));
                first * (1.0 - tap.weight) + second * tap.weight
            };
            let value = across(above) * (1.0 - line.weight) + across(below) * line.weight;
            *out = normalization.apply(channel, value);
        }
    }
}

#[cfg(test)]
mod tests;
