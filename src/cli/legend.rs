//! Writes the names and colours of a scene's classes below a picture.

use image::RgbImage;
use image::imageops::replace;
use rtformer::ClassShare;

use super::canvas::{Canvas, FAINT, GLYPH, INK};

/// The picture with a legend: one entry for each class, in as many rows as it takes. Letters grow with the picture, and are never smaller than
/// 16 pixels; a picture that is narrower than an entry gets a margin on the right.
pub(super) fn add(picture: &RgbImage, classes: &[ClassShare]) -> RgbImage {
    if classes.is_empty() {
        return picture.clone();
    }
    let scale = (picture.width() / 480).clamp(2, 12);
    let (text, gap) = (GLYPH * scale, GLYPH * scale / 2);
    let entry = |class: &ClassShare| text + gap + Canvas::length(&class.name, scale) + 2 * gap;
    let widest = classes.iter().map(entry).max().unwrap_or(0);
    let width = picture.width().max(gap + widest);

    let mut places = Vec::new();
    let (mut x, mut row) = (gap, 0);
    for class in classes {
        if x > gap && x + entry(class) > width {
            (x, row) = (gap, row + 1);
        }
        places.push((x, row));
        x += entry(class);
    }
    let mut canvas = Canvas::new(width, picture.height() + (row + 1) * (text + gap) + gap);
    replace(&mut canvas.picture, picture, 0, 0);
    for (class, (x, row)) in classes.iter().zip(places) {
        let y = picture.height() + gap + row * (text + gap);
        canvas.fill((x, y), (text, text), FAINT);
        canvas.fill((x + scale, y + scale), (text - 2 * scale, text - 2 * scale), class.color);
        canvas.text((x + text + gap, y), &class.name, scale, INK);
    }
    canvas.picture
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use rtformer::{Device, Segmenter};

    use super::*;

    /// Classes with these names, whose colours are those of a data set.
    fn classes() -> Vec<ClassShare> {
        let segmenter = Segmenter::builder().device(Device::Cpu);
        let segmenter = segmenter.weights("tests/data/golden/tiny.safetensors").build().unwrap();
        let photo = RgbImage::from_fn(160, 120, |x, y| Rgb([(x * 3) as u8, (y * 5) as u8, (x * y) as u8]));
        segmenter.segment(&photo).unwrap().classes()
    }

    #[test]
    fn every_class_has_its_colour_and_name_below_a_picture_of_any_size() {
        let classes = classes();
        assert!(classes.len() > 2, "the photo has {} classes", classes.len());
        for (width, height) in [(1, 1), (40, 300), (480, 360), (4096, 16)] {
            let picture = RgbImage::from_pixel(width, height, Rgb([1, 2, 3]));
            let got = add(&picture, &classes);
            for (x, y, pixel) in picture.enumerate_pixels() {
                assert_eq!(got.get_pixel(x, y), pixel);
            }
            let below: Vec<_> = got.enumerate_pixels().filter(|(_, y, _)| *y >= height).collect();
            let scale = (width / 480).clamp(2, 12);
            for class in &classes {
                let colored = below.iter().filter(|(.., pixel)| pixel.0 == class.color).count() as u32;
                assert_eq!(colored, (6 * scale).pow(2), "{width}x{height}: {class:?}");
            }
            let ink = below.iter().filter(|(.., pixel)| pixel.0 == INK).count();
            assert!(ink > 40 * classes.len(), "{width}x{height}: {ink} dots of text");
        }
        let alone = RgbImage::new(7, 5);
        assert_eq!(add(&alone, &[]), alone);
    }
}
