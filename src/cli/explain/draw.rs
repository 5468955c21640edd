//! The picture of an explained photo: outlined, numbered regions, and their rules below it.

use std::path::Path;

use image::{Rgb, RgbImage, imageops};
use rtformer::explain::Kind;
use rtformer::pixels::render;
use rtformer::{Image, Scene};

use super::super::canvas::{Canvas, GLYPH, INK, PAPER};
use super::pixels;
use super::report::Explained;

/// The picture is at least this wide, so that rules have room.
const WIDTH: u32 = 960;
const LINE: u32 = GLYPH + 4;

/// Draws the chosen components. Superpixels are drawn only if no component is chosen, because they lie over each other.
pub(super) fn write(path: &Path, photo: &Image, scene: &Scene, explained: &Explained<'_>) -> rtformer::Result<()> {
    let all = explained.explanation.regions.all();
    let of = |kind: Kind| explained.chosen.iter().copied().filter(|&i| all[i].kind == kind).collect::<Vec<_>>();
    let (kind, shown) = match of(Kind::Component) {
        none if none.is_empty() => (Kind::Superpixel, of(Kind::Superpixel)),
        components => (Kind::Component, components),
    };
    let scale = WIDTH.div_ceil(photo.width().max(1));
    let map = explained.explanation.regions.map(kind);
    let (width, height) = (photo.width() * scale, photo.height() * scale);

    let mut lines = Vec::new();
    for &region in &shown {
        let report = explained.region(region);
        let mark = if report.agrees { "" } else { " (the network disagrees)" };
        let text = format!("{:>3}  {}{mark}", report.id, report.sentence());
        lines.extend(wrapped(&text, (width / GLYPH).saturating_sub(2) as usize));
    }
    let mut canvas = Canvas::new(width, height + (lines.len() as u32 + 1) * LINE);
    let large = imageops::resize(&picture(photo), width, height, imageops::FilterType::Triangle);
    imageops::replace(&mut canvas.picture, &large, 0, 0);
    let id = |x: u32, y: u32| map[(y / scale * photo.width() + x / scale) as usize];
    let chosen = |id: u16| shown.iter().any(|&i| all[i].id == usize::from(id));
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
        let own = id(x, y);
        let differs = |dx: u32, dy: u32| x + dx < width && y + dy < height && id(x + dx, y + dy) != own;
        let before = |dx: u32, dy: u32| x >= dx && y >= dy && id(x - dx, y - dy) != own;
        if chosen(own) && (differs(1, 0) || differs(0, 1) || before(1, 0) || before(0, 1)) {
            let class = all[usize::from(own) - 1].class;
            canvas.picture.put_pixel(x, y, Rgb(bright(scene.palette().color(class))));
        }
    }
    for &region in &shown {
        let text = all[region].id.to_string();
        let Some((x, y)) = middle(&map, photo.width(), all[region].id as u16) else { continue };
        let (x, y) = (x * scale, (y * scale).saturating_sub(GLYPH / 2));
        let x = x.saturating_sub(Canvas::length(&text, 1) / 2);
        canvas.fill((x.saturating_sub(1), y.saturating_sub(1)), (Canvas::length(&text, 1) + 2, GLYPH + 2), INK);
        canvas.text((x, y), &text, 1, PAPER);
    }
    for (line, row) in lines.iter().zip(0..) {
        canvas.text((GLYPH, height + LINE / 2 + row * LINE), line, 1, INK);
    }
    render::save_rgb(path, &canvas.picture)
}

/// The photo in 8-bit RGB.
pub(super) fn picture(photo: &Image) -> RgbImage {
    let pixels = pixels(photo);
    RgbImage::from_fn(photo.width(), photo.height(), |x, y| Rgb(pixels.rgb(x, y)))
}

/// A class's colour, light enough to be seen on a dark photo.
fn bright(color: [u8; 3]) -> [u8; 3] {
    color.map(|v| 96 + (u16::from(v) * 159 / 255) as u8)
}

/// The pixel of a region that is nearest to its centre, for its number.
fn middle(map: &[u16], width: u32, id: u16) -> Option<(u32, u32)> {
    let places =
        || map.iter().zip(0..).filter(|(other, _)| **other == id).map(|(_, i): (_, u32)| (i % width, i / width));
    let (sum, count) =
        places().fold(((0_u64, 0_u64), 0_u64), |((sx, sy), n), (x, y)| ((sx + u64::from(x), sy + u64::from(y)), n + 1));
    let center = (sum.0 / count.max(1), sum.1 / count.max(1));
    places().min_by_key(|&(x, y)| u64::from(x).abs_diff(center.0).pow(2) + u64::from(y).abs_diff(center.1).pow(2))
}

/// Breaks a text into lines at spaces. Later lines are indented.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if last_is_full(&lines[last], word, most) {
            lines.push(format!("     {word}"));
        } else {
            if !lines[last].is_empty() || word.is_empty() {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines
}

fn last_is_full(line: &str, word: &str, most: usize) -> bool {
    !line.trim().is_empty() && line.chars().count() + 1 + word.chars().count() > most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_break_at_spaces() {
        assert_eq!(wrapped("one two three", 8), ["one two", "     three"]);
        assert_eq!(wrapped("  1  car", 80), ["   1  car"]);
        assert_eq!(wrapped("unbreakable", 3), ["unbreakable"]);
    }

    #[test]
    fn a_number_is_inside_its_region() {
        // A ring: its centre is not in it.
        let map = [1, 1, 1, 1, 0, 1, 1, 1, 1];
        let (x, y) = middle(&map, 3, 1).unwrap();
        assert_eq!(map[(y * 3 + x) as usize], 1);
        assert_eq!(middle(&map, 3, 7), None);
    }
}
