//! A picture to draw texts, areas and lines on.

use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage};

pub(super) type Color = [u8; 3];

pub(super) const PAPER: Color = [255, 255, 255];
pub(super) const INK: Color = [34, 34, 34];
pub(super) const FAINT: Color = [110, 110, 110];

/// The side of a glyph at scale 1, in pixels.
pub(super) const GLYPH: u32 = 8;

/// A picture to draw on. Anything outside of it is not drawn.
pub(super) struct Canvas {
    pub(super) picture: RgbImage,
}

impl Canvas {
    /// An empty picture.
    pub(super) fn new(width: u32, height: u32) -> Self {
        Self { picture: RgbImage::from_pixel(width, height, Rgb(PAPER)) }
    }

    fn dot(&mut self, x: u32, y: u32, color: Color) {
        if let Some(pixel) = self.picture.get_pixel_mut_checked(x, y) {
            *pixel = Rgb(color);
        }
    }

    pub(super) fn fill(&mut self, (x, y): (u32, u32), (width, height): (u32, u32), color: Color) {
        for (dx, dy) in (0..height).flat_map(|dy| (0..width).map(move |dx| (dx, dy))) {
            self.dot(x + dx, y + dy, color);
        }
    }

    /// A disc around a place, in pixels. Parts outside of the picture are not drawn.
    pub(super) fn disc(&mut self, (x, y): (f64, f64), radius: f64, color: Color) {
        let (width, height) = self.picture.dimensions();
        let span = |middle: f64, most: u32| {
            (middle - radius).max(0.0) as u32..((middle + radius + 1.0).max(0.0) as u32).min(most)
        };
        for (down, right) in span(y, height).flat_map(|down| span(x, width).map(move |right| (down, right))) {
            if (f64::from(right) - x).hypot(f64::from(down) - y) <= radius {
                self.dot(right, down, color);
            }
        }
    }

    /// A straight line, `width` pixels wide.
    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, color: Color) {
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().clamp(1.0, 1e4);
        for step in 0..=steps as u32 {
            let part = f64::from(step) / steps;
            self.disc((from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1)), 0.5 * width, color);
        }
    }

    /// The length of a text in pixels.
    pub(super) fn length(text: &str, scale: u32) -> u32 {
        text.chars().count() as u32 * GLYPH * scale
    }

    /// Writes from left to right. The text's top left corner is at `(x, y)`.
    pub(super) fn text(&mut self, (x, y): (u32, u32), text: &str, scale: u32, color: Color) {
        dots(text, |along, down| {
            self.fill((x + along * scale, y + down * scale), (scale, scale), color);
        });
    }

    /// Writes from bottom to top, rotated by 90 degrees counterclockwise. The bottom left corner of the drawn text is at `(x, y)`.
    pub(super) fn text_up(&mut self, (x, y): (u32, u32), text: &str, scale: u32, color: Color) {
        dots(text, |along, down| {
            self.fill((x + down * scale, y.saturating_sub((along + 1) * scale)), (scale, scale), color);
        });
    }
}

/// Calls `draw` for every dot of a text, with its distance along the line and its distance from the line's top.
fn dots(text: &str, mut draw: impl FnMut(u32, u32)) {
    for (letter, at) in text.chars().zip(0..) {
        for (row, down) in glyph(letter).into_iter().zip(0..) {
            (0..GLYPH).filter(|bit| row >> bit & 1 == 1).for_each(|bit| draw(at * GLYPH + bit, down));
        }
    }
}

fn glyph(letter: char) -> [u8; 8] {
    let known = font8x8::BASIC_FONTS.get(letter).or_else(|| font8x8::LATIN_FONTS.get(letter));
    known.or_else(|| font8x8::GREEK_FONTS.get(letter)).or_else(|| font8x8::BASIC_FONTS.get('?')).unwrap_or_default()
}
