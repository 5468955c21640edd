//! Keeps small pictures of the worst photos while all are being measured.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, Rgba, RgbaImage, imageops};
use rtformer::Error;
use rtformer::eval::{Confusion, Measured, Pair};
use rtformer::pixels::{IndexedPicture, Mask, Palette, render};

/// The width and height of the pictures are at most this.
const SIDE: u32 = 480;
const QUALITY: u8 = 78;

/// The worst photos so far, worst first.
pub(in super::super) struct Worst {
    most: usize,
    kept: Vec<Shown>,
}

/// A photo on the page. Pictures are data URLs.
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) miou: Option<f64>,
    pub(super) accuracy: Option<f64>,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) photo: String,
    pub(super) label: String,
    pub(super) mask: String,
    /// Red where the mask is wrong, otherwise transparent.
    pub(super) wrong: String,
}

impl Shown {
    pub(super) fn bytes(&self) -> usize {
        [&self.photo, &self.label, &self.mask, &self.wrong].iter().map(|url| url.len()).sum()
    }
}

impl Worst {
    /// Keeps this many photos.
    pub(in super::super) fn new(most: usize) -> Self {
        Self { most, kept: Vec::new() }
    }

    pub(super) fn shown(&self) -> impl Iterator<Item = &Shown> {
        self.kept.iter()
    }

    /// Keeps a photo's pictures if it is among the worst so far.
    ///
    /// # Errors
    /// [`Error::Image`] if a picture cannot be encoded.
    pub(in super::super) fn see(
        &mut self,
        pair: &Pair,
        measured: &Measured<'_>,
        palette: &Palette,
    ) -> rtformer::Result<()> {
        let regions = measured.counted.regions();
        let Some(miou) = regions.miou() else { return Ok(()) };
        let place = self.kept.partition_point(|kept| kept.miou.is_some_and(|kept| kept <= miou));
        if place >= self.most {
            return Ok(());
        }
        let shown = small(measured, palette).map_err(|error| Error::image(&pair.photo, error.to_string()))?;
        let name = pair.photo.display().to_string();
        self.kept.insert(place, Shown { name, miou: Some(miou), accuracy: regions.pixel_accuracy(), ..shown });
        self.kept.truncate(self.most);
        Ok(())
    }
}

/// The pictures of a photo at a small size. Ids are those of the nearest pixel, so that no colours mix.
fn small(measured: &Measured<'_>, palette: &Palette) -> anyhow::Result<Shown> {
    let (photo, mask) = (measured.photo.rgb(), measured.scene.mask());
    let scale = (f64::from(SIDE) / f64::from(photo.width().max(photo.height()))).min(1.0);
    let [width, height] = [photo.width(), photo.height()].map(|side| ((f64::from(side) * scale) as u32).max(1));
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(&imageops::thumbnail(photo, width, height))?;

    let near =
        |at: u32, side: u32, whole: u32| ((2 * u64::from(at) + 1) * u64::from(whole) / (2 * u64::from(side))) as u32;
    let rows = (0..height).map(|y| near(y, height, photo.height()));
    let places: Vec<_> = rows.flat_map(|y| (0..width).map(move |x| (near(x, width, photo.width()), y))).collect();
    let truth = |&(x, y): &(u32, u32)| measured.labels.ids()[y as usize * photo.width() as usize + x as usize];
    let seen = |&(x, y): &(u32, u32)| mask.get(x, y);
    let ignore = Confusion::ignore_id(mask.classes());
    let wrong = places.iter().map(|place| truth(place) != ignore && truth(place) != seen(place));
    let mut marks = RgbaImage::new(width, height);
    marks.pixels_mut().zip(wrong).filter(|(_, wrong)| *wrong).for_each(|(pixel, _)| *pixel = Rgba([255, 0, 40, 170]));
    let mut wrong = std::io::Cursor::new(Vec::new());
    marks.write_to(&mut wrong, ImageFormat::Png)?;

    let picture = |ids: Vec<u16>| {
        let mask = Mask::from_ids(width, height, mask.classes(), ids)?;
        let mut png = Vec::new();
        match mask.ids_u8() {
            Some(_) => IndexedPicture::new(&mask, palette).write_to(&mut png)?,
            None => render::write_rgb(&mut png, &render::colors(&mask, palette), None)?,
        }
        anyhow::Ok(url("png", &png))
    };
    Ok(Shown {
        name: String::new(),
        miou: None,
        accuracy: None,
        width,
        height,
        photo: url("jpeg", &jpeg),
        label: picture(places.iter().map(truth).collect())?,
        mask: picture(places.iter().map(seen).collect())?,
        wrong: url("png", wrong.get_ref()),
    })
}

/// A picture as part of a page.
pub(super) fn url(kind: &str, bytes: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", STANDARD.encode(bytes))
}
