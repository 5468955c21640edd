//! Pixels to normalised planes: a table at the photo's own size, `cv2.resize`'s arithmetic at another.

use rayon::prelude::*;

use super::{Input, Normalization, Pixels, Size};
use crate::error::{Error, Result};

/// What a photo may become, in pixels. RTFormer-Slim was measured to hold 68 bytes a pixel of input, Base holds half as much again: this
/// is 4 or 7 GiB, and a machine without them would kill the program where an error can still be reported.
const MOST_PIXELS: usize = 64 << 20;

impl Input {
    /// Resizes where `size` says so, normalises, and puts the planes one after the other.
    ///
    /// At the photo's own size the result equals PaddleSeg's bit for bit. Resized, it equals PaddleSeg over OpenCV's plain
    /// code bit for bit; where OpenCV was built with Intel's IPP, small pictures differ by up to 1e-5 of the range.
    ///
    /// ```
    /// use rtformer::pixels::{Input, Normalization, Size};
    ///
    /// let photo = image::RgbImage::new(96, 48);
    /// let normalization = Normalization { mean: [0.5; 3], std: [0.5; 3] };
    /// let input = Input::prepare(&(&photo).into(), &normalization, "within:64x64".parse::<Size>()?)?;
    /// assert_eq!((input.width, input.height, input.data.len()), (64, 32, 3 * 64 * 32));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Pixels`] for a picture without pixels, [`Error::Input`] for a normalization by 0 or a size past 64 megapixels.
    pub fn prepare(pixels: &Pixels, normalization: &Normalization, size: Size) -> Result<Self> {
        let mut input = Self::default();
        input.refill(pixels, normalization, size)?;
        Ok(input)
    }

    /// [`prepare`](Self::prepare) into this one's memory.
    ///
    /// ```
    /// # use rtformer::pixels::{Input, Normalization, Size};
    /// let normalization = Normalization { mean: [0.5; 3], std: [0.5; 3] };
    /// let mut input = Input::default();
    /// for photo in [image::RgbImage::new(64, 32), image::RgbImage::new(32, 32)] {
    ///     input.refill(&(&photo).into(), &normalization, Size::Native)?;
    ///     assert_eq!((input.width, input.height), (photo.width() as usize, 32));
    /// }
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare); this input then is what it was.
    pub fn refill(&mut self, pixels: &Pixels, normalization: &Normalization, size: Size) -> Result<()> {
        normalization.check()?;
        let (width, height) = Self::checked_size(pixels, size)?;
        let (w, h, plane) = (width as usize, height as usize, width as usize * height as usize);
        let (from_width, from_height) = (pixels.width(), pixels.height());

        // A much larger photo's memory is not kept for good.
        if self.data.capacity() / 2 > 3 * plane {
            self.data = Vec::new();
        }
        self.data.resize(3 * plane, 0.0);
        (self.width, self.height) = (w, h);
        let (red, rest) = self.data.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        let rows = red.par_chunks_exact_mut(w).zip(green.par_chunks_exact_mut(w)).zip(blue.par_chunks_exact_mut(w));
        let rows = rows.map(|((red, green), blue)| [red, green, blue]).enumerate().with_min_len(8);

        if (width, height) == (from_width, from_height) {
            let tables = normalization.tables()?;
            rows.for_each(|(y, planes)| look_up(pixels, y, &tables, planes));
        } else {
            self.columns.clear();
            self.columns.extend((0..w).map(|x| Tap::column(from_width, w, x)));
            let columns = &self.columns;
            rows.for_each(|(y, planes)| {
                resize_row(pixels, columns, Tap::line(from_height, h, y), normalization, planes);
            });
        }
        Ok(())
    }

    /// Width and height of what `pixels` become at `size`; as [`prepare`](Self::prepare) refuses them.
    pub(crate) fn checked_size(pixels: &Pixels, size: Size) -> Result<(u32, u32)> {
        let (from_width, from_height) = (pixels.width(), pixels.height());
        if from_width == 0 || from_height == 0 {
            return Err(Error::Pixels(format!("{from_width}x{from_height} has no pixels")));
        }
        let (width, height) = size.of(from_width, from_height);
        let plane = (width as usize).checked_mul(height as usize);
        if plane.is_some_and(|plane| (1..=MOST_PIXELS).contains(&plane)) {
            return Ok((width, height));
        }
        Err(Error::Input(format!(
            "size {size} makes {from_width}x{from_height} pixels {width}x{height}; the network takes 1 to 64 megapixels, so ask for \
             another size"
        )))
    }
}

impl Normalization {
    fn check(&self) -> Result<()> {
        let usable = |value: &f64| value.is_finite();
        if self.mean.iter().chain(&self.std).all(usable) && !self.std.contains(&0.0) {
            return Ok(());
        }
        Err(Error::Input(format!(
            "normalization with mean {:?} and std {:?}: all must be finite, no std 0",
            self.mean, self.std
        )))
    }

    /// One channel's value from 0 to 255, as `paddleseg.transforms.functional.normalize` does it: numpy divides by 255
    /// in f32, computes each in-place step with its f64 array in f64, and rounds the result to f32.
    #[inline]
    fn apply(&self, channel: usize, value: f32) -> f32 {
        let scaled = value / 255.0;
        let centred = (f64::from(scaled) - self.mean[channel]) as f32;
        (f64::from(centred) / self.std[channel]) as f32
    }

    /// Every byte's normalised value, for red, green and blue; an error for a normalization by 0.
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

/// Which two pixels (or rows) a target pixel lies between, and the weight of the second: OpenCV's `INTER_LINEAR`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    first: usize,
    second: usize,
    weight: f32,
}

impl Tap {
    /// Past the first or last column there is one pixel, and it counts whole.
    fn column(from: u32, to: usize, x: usize) -> Self {
        let tap = Self::line(from, to, x);
        if tap.first == tap.second { Self { weight: 0.0, ..tap } } else { tap }
    }

    /// Past the first or last row OpenCV still adds that row's two shares, which may round.
    ///
    /// The position is computed in f64 and rounded to f32 before it is split, as OpenCV does: on a wide photo that rounding
    /// moves a weight by 1e-4, which more exact arithmetic would not reproduce.
    fn line(from: u32, to: usize, y: usize) -> Self {
        let scale = 1.0 / (to as f64 / f64::from(from));
        let position = ((y as f64 + 0.5) * scale - 0.5) as f32;
        let (floor, last) = (position.floor(), i64::from(from) - 1);
        let inside = |at: i64| at.clamp(0, last) as usize;
        Self { first: inside(floor as i64), second: inside(floor as i64 + 1), weight: position - floor }
    }
}

/// One row of the target: across first, then down, each product and each sum rounded to f32.
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
