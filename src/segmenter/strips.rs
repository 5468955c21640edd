//! Segments a photo strip by strip, in a bounded amount of memory.

use super::blend::Blend;
use super::tiles::Tiling;
use super::{Decision, Policy, Segmenter};
use crate::error::{Error, Result};
use crate::memory;
use crate::pixels::{Mask, PixelFormat, Pixels, RowReader, Size};
use crate::timing::{Timings, timed};

/// Complete rows of a photo, for [`Segmenter::segment_strips`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Strip<'a> {
    /// The photo's row that is the first one of the strip.
    pub top: u32,
    /// The pixels.
    pub photo: Pixels<'a>,
    /// The classes.
    pub mask: &'a Mask,
    /// The probabilities of the classes, row by row, if the segmenter returns them.
    pub confidence: Option<&'a [f32]>,
}

/// What the program, the libraries and the weights take, in bytes, without the network's maps: measured, rounded up.
const FIXED: u64 = 96 << 20;

/// The tiles that [`Segmenter::tiling_within`] tries: width and height. The overlap is an eighth of the shorter side.
const TRIED: [(u32, u32); 7] =
    [(4096, 4096), (4096, 2048), (2048, 2048), (2048, 1024), (1024, 1024), (1024, 512), (512, 512)];

impl Segmenter {
    /// Segments a photo in tiles, and calls `each` for strips of complete rows, from the top to the bottom. Only one row of tiles is in memory.
    ///
    /// Masks and probabilities are those of [`Builder::tile`](super::Builder::tile).
    ///
    /// ```
    /// use rtformer::pixels::{Decoder, RowReader};
    /// use rtformer::{Segmenter, Tiling};
    ///
    /// let mut photo = RowReader::open("tests/data/golden/photo.png", &Decoder::default())?;
    /// let mut rows = 0;
    /// Segmenter::builder().build()?.segment_strips(&mut photo, &"32x32+8".parse()?, &mut |strip| {
    ///     assert_eq!((strip.top, strip.mask.width()), (rows, strip.photo.width()));
    ///     rows += strip.mask.height();
    ///     Ok(())
    /// })?;
    /// assert_eq!(rows, photo.height());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`segment`](Self::segment), and those of the reader and of `each`; [`Error::Config`] with a size, features, adaptive inference or a [`Decision`].
    pub fn segment_strips(
        &self,
        photo: &mut RowReader,
        tiling: &Tiling,
        each: &mut (dyn FnMut(&Strip<'_>) -> Result<()> + Send),
    ) -> Result<Timings> {
        let whole = self.readout.features || self.plan.policy != Policy::Full || self.decision != Decision::Argmax;
        if self.preparation.size != Size::Native || whole {
            let what = "another size of the photo, features, adaptive inference, or a decision for the whole photo";
            return Err(Error::Config(format!("tiles cannot be combined with {what}")));
        }
        let name = photo.name().to_path_buf();
        let done = self.in_process(|| self.strips(photo, tiling, each));
        done.map_err(|error| match error {
            named @ (Error::Image { .. } | Error::Read { .. } | Error::Write { .. } | Error::Photo { .. }) => named,
            error => error.of_photo(Some(&name).filter(|name| !name.as_os_str().is_empty()).map(AsRef::as_ref)),
        })
    }

    fn strips(
        &self,
        photo: &mut RowReader,
        tiling: &Tiling,
        each: &mut (dyn FnMut(&Strip<'_>) -> Result<()> + Send),
    ) -> Result<Timings> {
        let (width, classes) = (photo.width(), self.model.num_classes());
        let mut blend = Blend::new(self, tiling, width, photo.height())?;
        let (side, row) = (blend.y.side, 3 * width as usize);
        let what = || format!("{side} rows of {width} pixels");
        let mut pixels = memory::filled(side * row, 0, what)?;
        let mut mask = Mask::new(0, 0, classes);
        let mut confidence = Vec::new();
        let (mut decode, mut kept) = (0.0, 0);
        for number in 0..blend.y.starts.len() {
            let (read, time) = timed(|| photo.read(&mut pixels[kept * row..]));
            read?;
            decode += time;
            let done = blend.y.step(number);
            mask.resize_for(width, done as u32, classes)?;
            if self.readout.needs_confidence() {
                memory::resize(&mut confidence, side * width as usize, 0.0, what)?;
            }
            let strip = Pixels::new(&pixels, width, side as u32, row, PixelFormat::Rgb8)?;
            blend.row(number, (&strip, 0), &mut |piece| {
                let confidence = Some(&mut confidence[..]).filter(|values| !values.is_empty());
                piece.choose(self.temperature, mask.ids_mut(), confidence);
            })?;
            let confidence = Some(&confidence[..]).filter(|values| !values.is_empty());
            let confidence = confidence.map(|values| &values[..done * width as usize]);
            self.finish(&mut mask, confidence);
            let photo = Pixels::new(&pixels, width, done as u32, row, PixelFormat::Rgb8)?;
            let confidence = confidence.filter(|_| self.readout.confidence);
            each(&Strip { top: blend.y.starts[number] as u32, photo, mask: &mask, confidence })?;
            pixels.copy_within(done * row.., 0);
            kept = side - done;
        }
        let spent = blend.spent;
        Ok(Timings { decode, prepare: spent.prepare, model: spent.model, argmax: spent.argmax })
    }

    /// The memory in bytes, rounded up, that [`segment_strips`](Self::segment_strips) needs for a photo of this size, with the program and its weights,
    /// but without what the reader [holds](RowReader::held).
    ///
    /// ```
    /// let segmenter = rtformer::Segmenter::builder().build()?;
    /// let needed = segmenter.memory_of_strips(20_000, 20_000, &"2048x1024+256".parse()?);
    /// assert!(needed < 1_000_000_000, "{needed}");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn memory_of_strips(&self, width: u32, height: u32, tiling: &Tiling) -> u64 {
        let (x, y) = tiling.axes(width, height);
        let multiple = self.preparation.pad_multiple.max(1) as usize;
        let padded = (x.side.next_multiple_of(multiple) * y.side.next_multiple_of(multiple)) as u64;
        let [across, down, width] = [x.side, y.side, width as usize].map(|side| side as u64);
        let classes = self.model.num_classes() as u64;
        // With an augmentation, the mean and one version are in memory.
        let versions = if self.augmentation.is_none() { 1 } else { 3 };
        let network = padded * self.model.bytes_per_pixel();
        let logits = 4 * classes * across * down * versions;
        let shared = 4 * classes * (y.most_shared() as u64 * width + x.most_shared() as u64 * down);
        let id = if classes > 256 { 2 } else { 1 };
        let probability = if self.readout.needs_confidence() { 4 } else { 0 };
        // The photo's rows, and a picture of them that is being written.
        let strip = width * down * (3 + 3 + id + probability);
        FIXED + network + logits + shared + strip + 3 * across * down
    }

    /// The largest tiles with which a photo of this size needs at most `memory` bytes, `held` of them for the [reader](RowReader::held). If the photo
    /// fits as a whole, it is a single tile.
    ///
    /// ```
    /// let segmenter = rtformer::Segmenter::builder().build()?;
    /// assert_eq!(segmenter.tiling_within(900, 600, 0, 2_000_000_000)?.to_string(), "900x600+0");
    /// assert_eq!(segmenter.tiling_within(20_000, 20_000, 0, 1_000_000_000)?.to_string(), "2048x1024+128");
    /// assert!(segmenter.tiling_within(20_000, 20_000, 0, 100_000_000).is_err());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] if even the smallest tiles need more.
    pub fn tiling_within(&self, width: u32, height: u32, held: u64, memory: u64) -> Result<Tiling> {
        let whole = Tiling { width: width.max(32), height: height.max(32), overlap: 0 };
        let fits = whole.check().is_ok() && self.preparation.extent(width, height).is_ok();
        let tried = TRIED.map(|(width, height)| Tiling { width, height, overlap: height / 8 });
        let needed = |tiling: &Tiling| held + self.memory_of_strips(width, height, tiling);
        let mut all = Some(whole).filter(|_| fits).into_iter().chain(tried);
        all.find(|tiling| needed(tiling) <= memory).ok_or_else(|| {
            let least = tried.iter().map(needed).min().unwrap_or_default().div_ceil(1_000_000);
            Error::Input(format!(
                "{width}x{height} pixels need at least {least} MB in tiles, the limit is {} MB; raise --memory, or scale the photo down",
                memory / 1_000_000
            ))
        })
    }
}
