//! Segments a photo in tiles: weighted sums of the tiles' logits, of which only those that are not complete yet are kept.
//!
//! Tiles come row by row, from left to right. What a tile shares with the next one of its row waits in `side`, what a row of tiles shares with the next
//! row waits in `below`, as wide as the photo. Everything else of a tile is complete, and its classes are chosen.

use rayon::prelude::*;

use super::Segmenter;
use super::augment::Planes;
use super::engine::{Spent, Wanted};
use super::tiles::{Axis, Tiling};
use crate::error::Result;
use crate::memory;
use crate::pixels::{IdsMut, PixelFormat, Pixels};
use crate::timing::timed;

/// Blends the tiles of a photo.
pub(super) struct Blend<'s> {
    segmenter: &'s Segmenter,
    pub(super) x: Axis,
    pub(super) y: Axis,
    width: usize,
    tile: Vec<u8>,
    logits: Planes,
    /// For each class `[side of y, columns]`, with the columns that the last tile shares with the next.
    side: Vec<Vec<f32>>,
    /// For each class `[rows, width]`, with the rows that the last row of tiles shares with the next.
    below: Vec<Vec<f32>>,
    pub(super) spent: Spent,
}

/// Complete logits of a rectangle of the photo.
pub(super) struct Piece<'a> {
    /// Those of a tile, of which the first `size` rows and columns are complete.
    logits: &'a Planes,
    /// Column and row of the photo.
    at: (usize, usize),
    /// Height and width.
    size: (usize, usize),
    /// The photo's width.
    width: usize,
}

impl<'s> Blend<'s> {
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), and [`Error::Input`](crate::Error::Input) for tiles that are not supported.
    pub(super) fn new(segmenter: &'s Segmenter, tiling: &Tiling, width: u32, height: u32) -> Result<Self> {
        tiling.check()?;
        let (x, y) = tiling.axes(width, height);
        let classes = segmenter.model.num_classes();
        let what = || format!("what the tiles of {width}x{height} pixels share");
        let width = width as usize;
        let planes =
            |floats: usize| (0..classes).map(|_| memory::filled(floats, 0.0, what)).collect::<Result<Vec<_>>>();
        Ok(Self {
            tile: memory::filled(3 * x.side * y.side, 0, what)?,
            logits: Planes::zeros(classes, (y.side, x.side))?,
            side: planes(y.side * x.most_shared())?,
            below: planes(y.most_shared() * width)?,
            spent: Spent::default(),
            segmenter,
            x,
            y,
            width,
        })
    }

    /// Segments a row of tiles, which begins in the row `top` of `strip`, and calls `each` for each part that is complete.
    pub(super) fn row(
        &mut self,
        number: usize,
        (strip, top): (&Pixels<'_>, usize),
        each: &mut (dyn FnMut(&Piece<'_>) + Send),
    ) -> Result<()> {
        for column in 0..self.x.starts.len() {
            let left = self.x.starts[column];
            copy(strip, (left, top), self.logits.size, &mut self.tile);
            let (height, width) = self.logits.size;
            let tile = Pixels::new(&self.tile, width as u32, height as u32, 3 * width, PixelFormat::Rgb8)?;
            let (size, logits) = (self.logits.size, Some(&mut self.logits.data[..]));
            let wanted = Wanted { size, ids: None, confidence: None, logits, features: None };
            let spent = self.segmenter.run_network(&[tile], &mut [wanted])?;
            let segmenter = self.segmenter;
            let (blended, time) = timed(|| {
                segmenter.on_threads(|| {
                    self.add(number, column);
                    let (at, size) = ((left, self.y.starts[number]), (self.y.step(number), self.x.step(column)));
                    each(&Piece { logits: &self.logits, at, size, width: self.width });
                    Ok(())
                })
            });
            blended?;
            self.spent.prepare += spent.prepare;
            self.spent.model += spent.model;
            self.spent.argmax += spent.argmax + time;
        }
        Ok(())
    }

    /// Weights the logits of a tile, adds what waits for it, and keeps what is not complete.
    fn add(&mut self, number: usize, column: usize) {
        let Self { x, y, logits, side, below, width, .. } = self;
        let (height, across, width) = (y.side, x.side, *width);
        let shared_left = column.checked_sub(1).map_or(0, |left| x.shared(left));
        let shared_above = number.checked_sub(1).map_or(0, |above| y.shared(above));
        let (shared_right, shared_below) = (x.shared(column), y.shared(number));
        let (done, start, columns) = (x.step(column), x.starts[column], x.most_shared());
        let (weights_x, weights_y) = (&x.weights[column], &y.weights[number]);
        let planes = logits.data.par_chunks_exact_mut((height * across).max(1));
        planes.zip(side).zip(below).for_each(|((plane, side), below)| {
            for (row, values) in plane.chunks_exact_mut(across).enumerate() {
                let weight = weights_y[row];
                values.iter_mut().zip(weights_x).for_each(|(value, x)| *value *= weight * x);
                let side = &mut side[row * columns..][..columns];
                values.iter_mut().zip(&side[..shared_left]).for_each(|(value, add)| *value += *add);
                side[..shared_right].copy_from_slice(&values[done..]);
            }
            for row in 0..shared_above {
                let values = plane[row * across..][..done].iter_mut();
                values.zip(&below[row * width + start..][..done]).for_each(|(value, add)| *value += *add);
            }
            for row in 0..shared_below {
                let values = &plane[(height - shared_below + row) * across..][..done];
                below[row * width + start..][..done].copy_from_slice(values);
            }
        });
    }
}

/// Copies a rectangle, from a column and row on, as RGB.
fn copy(strip: &Pixels<'_>, (left, top): (usize, usize), (height, width): (usize, usize), to: &mut [u8]) {
    let (channels, offsets) = (strip.format().channels(), strip.format().offsets());
    for (y, to) in (top..top + height).zip(to.chunks_exact_mut(3 * width)) {
        let row = &strip.row(y as u32)[left * channels..];
        for (pixel, to) in row.chunks_exact(channels).zip(to.as_chunks_mut::<3>().0) {
            *to = offsets.map(|offset| pixel[offset]);
        }
    }
}

impl Piece<'_> {
    /// Writes the logits to those of the whole photo.
    fn copy(&self, all: &mut [f32]) {
        let (tile, (height, width)) = (self.logits, self.size);
        let pixels = all.len() / tile.planes().len().max(1);
        for (plane, all) in tile.planes().zip(all.chunks_exact_mut(pixels.max(1))) {
            for row in 0..height {
                let place = (self.at.1 + row) * self.width + self.at.0;
                all[place..][..width].copy_from_slice(&plane[row * tile.size.1..][..width]);
            }
        }
    }

    /// Writes the class of the largest logit, and its probability, to rows of the photo's width, of which the first is the piece's.
    pub(super) fn choose(&self, temperature: f32, ids: IdsMut<'_>, confidence: Option<&mut [f32]>) {
        match ids {
            IdsMut::U8(ids) => self.choose_rows(temperature, ids, confidence, |id| id as u8),
            IdsMut::U16(ids) => self.choose_rows(temperature, ids, confidence, |id| id),
        }
    }

    fn choose_rows<T: Send>(
        &self,
        temperature: f32,
        ids: &mut [T],
        confidence: Option<&mut [f32]>,
        to_id: impl Fn(u16) -> T + Sync,
    ) {
        let (height, width) = self.size;
        let mut rows: Vec<Option<&mut [f32]>> = match confidence {
            Some(values) => values.chunks_exact_mut(self.width).map(Some).collect(),
            None => Vec::new(),
        };
        rows.resize_with(height, || None);
        let rows = ids.par_chunks_exact_mut(self.width).zip(rows).enumerate();
        rows.for_each_init(Vec::new, |best: &mut Vec<(u16, f32)>, (y, (ids, confidence))| {
            best.clear();
            best.resize(width, (0, f32::NEG_INFINITY));
            let row = y * self.logits.size.1..y * self.logits.size.1 + width;
            for (class, plane) in (0..).zip(self.logits.planes()) {
                let larger = best.iter_mut().zip(&plane[row.clone()]).filter(|(best, value)| **value > best.1);
                larger.for_each(|(best, value)| *best = (class, *value));
            }
            ids[self.at.0..][..width].iter_mut().zip(&*best).for_each(|(id, best)| *id = to_id(best.0));
            let Some(confidence) = confidence else { return };
            let confidence = &mut confidence[self.at.0..][..width];
            confidence.fill(0.0);
            for plane in self.logits.planes() {
                for ((sum, value), (_, most)) in confidence.iter_mut().zip(&plane[row.clone()]).zip(&*best) {
                    *sum += ((value - most) / temperature).exp();
                }
            }
            confidence.iter_mut().for_each(|sum| *sum = 1.0 / *sum);
        });
    }
}

impl Segmenter {
    /// Segments photos in tiles, one after the other.
    pub(super) fn run_tiled(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>], tiling: &Tiling) -> Result<Spent> {
        let mut sum = Spent::default();
        for (photo, wanted) in photos.iter().zip(wanted) {
            let mut blend = Blend::new(self, tiling, photo.width(), photo.height())?;
            for number in 0..blend.y.starts.len() {
                let top = blend.y.starts[number];
                let width = photo.width() as usize;
                blend.row(number, (photo, top), &mut |piece| {
                    if let Some(all) = &mut wanted.logits {
                        piece.copy(all);
                    }
                    let ids = match &mut wanted.ids {
                        Some(IdsMut::U8(ids)) => IdsMut::U8(&mut ids[top * width..]),
                        Some(IdsMut::U16(ids)) => IdsMut::U16(&mut ids[top * width..]),
                        None => return,
                    };
                    let confidence = wanted.confidence.as_mut().map(|wanted| &mut wanted.values[top * width..]);
                    piece.choose(self.temperature, ids, confidence);
                })?;
            }
            sum.prepare += blend.spent.prepare;
            sum.model += blend.spent.model;
            sum.argmax += blend.spent.argmax;
        }
        Ok(sum)
    }
}
