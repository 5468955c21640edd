//! Draws a confusion matrix: one row for each true class, one column for each predicted class, and the class's `IoU` at the end.

use image::RgbImage;
use rtformer::eval::Confusion;

use super::canvas::{Canvas, Color, FAINT, GLYPH, INK, PAPER};

/// The colour and the text of the row of a class without labelled pixels.
const NOTHING: Color = [232, 232, 232];
const UNLABELLED: &str = "not labelled";
/// The colours from 0 to 1, evenly spaced. Lightness decreases steadily, so that the scale also works in grey.
const SCALE: [Color; 5] = [[247, 251, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]];

const MARGIN: u32 = 24;
/// Longer names are shortened, because they would leave too little space for the matrix.
const LONGEST_NAME: usize = 24;

/// The position and size of each part, in pixels.
struct Layout {
    classes: u32,
    /// The side of a cell.
    cell: u32,
    /// The scale of the classes' names; `None` if the cells are too small for names.
    names: Option<u32>,
    /// The scale of the percentages in the cells; `None` if the cells are too small.
    numbers: Option<u32>,
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Layout {
    fn new(names: &[String], widest_title: usize) -> Self {
        let classes = names.len().max(1) as u32;
        let (cell, text, numbers) = match classes {
            ..=12 => (60, Some(2), Some(2)),
            13..=32 => (36, Some(2), Some(1)),
            33..=200 => (12, Some(1), None),
            _ => ((2400 / classes).max(1), None, None),
        };
        let longest = names.iter().map(|name| name.chars().count() as u32).max().unwrap_or(0);
        let room = text.map_or(0, |scale| longest * GLYPH * scale + 12);
        // The title of the true classes is rotated and left of the names. The title of the columns and the colour scale are below theirs.
        let left = MARGIN + 2 * GLYPH + 16 + room;
        let top = MARGIN + 84;
        let side = classes * cell;
        let iou = if text.is_some() { 20 + 6 * GLYPH * 2 } else { 0 };
        let title = widest_title as u32 * GLYPH * 2 + 2 * MARGIN;
        let width = (left + side + iou + MARGIN).max(title).max(left + 300 + MARGIN);
        let height = top + side + 12 + room + 16 + 2 * GLYPH + 24 + 44 + MARGIN;
        Self { classes, cell, names: text, numbers, left, top, width, height }
    }

    fn side(&self) -> u32 {
        self.classes * self.cell
    }
}

/// Draws the matrix. The values of a row are shares of its class's labelled pixels.
pub(super) fn confusion(confusion: &Confusion, names: &[&str], title: &str, subtitle: &str) -> RgbImage {
    let names: Vec<String> = names.iter().map(|name| shortened(name)).collect();
    let at = Layout::new(&names, title.chars().count().max(subtitle.chars().count()));
    let mut canvas = Canvas::new(at.width, at.height);
    canvas.text((MARGIN, MARGIN), title, 2, INK);
    canvas.text((MARGIN, MARGIN + 26), subtitle, 2, FAINT);
    cells(&mut canvas, &at, confusion);
    if let Some(scale) = at.names {
        for (class, name) in names.iter().enumerate() {
            let middle = (class as u32 * at.cell) + (at.cell - GLYPH * scale) / 2;
            let length = Canvas::length(name, scale);
            canvas.text((at.left - 8 - length, at.top + middle), name, scale, INK);
            canvas.text_up((at.left + middle, at.top + at.side() + 8 + length), name, scale, INK);
            let iou = confusion.iou(class).map_or_else(|| "-".into(), |iou| format!("{:.1}", 100.0 * iou));
            let end = at.left + at.side() + 20 + 5 * GLYPH * 2;
            canvas.text((end - Canvas::length(&iou, scale), at.top + middle), &iou, scale, INK);
            if confusion.labelled(class) == 0 && Canvas::length(UNLABELLED, scale) < at.side() {
                canvas.text((at.left + 8, at.top + middle), UNLABELLED, scale, FAINT);
            }
        }
        canvas.text((at.left + at.side() + 20, at.top - 24), "IoU %", 2, FAINT);
    }
    axes(&mut canvas, &at);
    canvas.picture
}

fn cells(canvas: &mut Canvas, at: &Layout, confusion: &Confusion) {
    let line = u32::from(at.cell >= 12); // a thin line between the cells
    for truth in 0..at.classes {
        let labelled = confusion.labelled(truth as usize);
        for seen in 0..at.classes {
            let share = confusion.get(truth as usize, seen as usize) as f64 / labelled.max(1) as f64;
            let corner = (at.left + seen * at.cell, at.top + truth * at.cell);
            let color = if labelled == 0 { NOTHING } else { shade(share) };
            canvas.fill(corner, (at.cell - line, at.cell - line), color);
            let text = format!("{:.0}", 100.0 * share);
            let Some(scale) = at.numbers.filter(|_| text != "0") else { continue };
            let inset = |length: u32| (at.cell - line).saturating_sub(length) / 2;
            let from = (corner.0 + inset(Canvas::length(&text, scale)), corner.1 + inset(GLYPH * scale));
            canvas.text(from, &text, scale, if share > 0.5 { PAPER } else { INK });
        }
    }
}

/// The titles of the axes, and the scale of colours.
fn axes(canvas: &mut Canvas, at: &Layout) {
    let (seen, truth) = ("predicted class", "true class");
    let centred = |length: u32| at.side().saturating_sub(length) / 2;
    let bottom = at.height - MARGIN - 44;
    canvas.text((at.left + centred(Canvas::length(seen, 2)), bottom - 24 - 2 * GLYPH), seen, 2, FAINT);
    let foot = (at.top + at.side() - centred(Canvas::length(truth, 2))).max(at.top + Canvas::length(truth, 2));
    canvas.text_up((MARGIN, foot), truth, 2, FAINT);

    let length = at.side().clamp(300, 480);
    for x in 0..length {
        canvas.fill((at.left + x, bottom), (1, 16), shade(f64::from(x) / f64::from(length - 1)));
    }
    canvas.text((at.left, bottom + 24), "0", 2, FAINT);
    let middle = "% of class";
    canvas.text((at.left + (length - Canvas::length(middle, 2)) / 2, bottom + 24), middle, 2, FAINT);
    canvas.text((at.left + length - Canvas::length("100", 2), bottom + 24), "100", 2, FAINT);
}

/// The colour of a share, 0 to 1.
fn shade(share: f64) -> Color {
    let place = share.clamp(0.0, 1.0) * (SCALE.len() - 1) as f64;
    let below = (place as usize).min(SCALE.len() - 2);
    let part = place - below as f64;
    std::array::from_fn(|i| {
        let (from, to) = (f64::from(SCALE[below][i]), f64::from(SCALE[below + 1][i]));
        (from + (to - from) * part).round() as u8
    })
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= LONGEST_NAME {
        return name.to_owned();
    }
    name.chars().take(LONGEST_NAME - 2).chain("..".chars()).collect()
}

#[cfg(test)]
mod tests {
    use rtformer::eval::LabelImage;
    use rtformer::pixels::Mask;

    use super::*;

    #[test]
    fn any_number_of_classes_and_any_name_can_be_drawn() {
        for classes in [1, 12, 13, 32, 33, 150, 200, 201, 2500] {
            let mut counts = Confusion::new(classes).unwrap();
            counts.count(&LabelImage::new("a", 2, 1, vec![0, 0]).unwrap(), &Mask::new(2, 1, classes)).unwrap();
            let names: Vec<_> = ["", "straße", "道", "a name that is much longer than any column is wide"]
                .into_iter()
                .cycle()
                .take(classes)
                .collect();
            let picture = confusion(&counts, &names, "title", &"subtitle ".repeat(9));
            let at = Layout::new(&names.iter().map(|name| shortened(name)).collect::<Vec<_>>(), 81);
            let cell = |x: u32, y: u32| picture.get_pixel(at.left + x * at.cell, at.top + y * at.cell).0;
            assert_eq!(cell(0, 0), SCALE[4], "{classes}: all pixels of the first class were found");
            if classes > 1 {
                assert_eq!((cell(1, 0), cell(1, 1)), (SCALE[0], NOTHING), "{classes}");
            }
            assert!(picture.width() < 6000 && picture.height() < 6000, "{classes}: {:?}", picture.dimensions());
        }
    }

    #[test]
    fn shades_run_from_light_to_dark() {
        assert_eq!((shade(0.0), shade(1.0), shade(0.25)), (SCALE[0], SCALE[4], SCALE[1]));
        assert_eq!((shade(-1.0), shade(2.0)), (SCALE[0], SCALE[4]));
    }
}
