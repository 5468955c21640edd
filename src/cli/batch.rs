//! Photos through the network together, so that one which cannot be done costs itself alone.

use rtformer::pixels::{Image, Pixels};
use rtformer::{Error, Scene, Segmenter};

/// Segments the photos that were decoded, in order; every error names its photo.
pub(super) fn segment<'a>(
    segmenter: &Segmenter,
    images: impl Iterator<Item = &'a Image>,
) -> Vec<rtformer::Result<Scene>> {
    let (names, photos): (Vec<_>, Vec<_>) =
        images.map(|image| (image.name().to_path_buf(), Pixels::from(image))).unzip();
    let scenes: Vec<_> = match segmenter.segment_batch(&photos) {
        Ok(scenes) => scenes.into_iter().map(Ok).collect(),
        // One of them was refused: each by itself then.
        Err(_) => photos.iter().map(|photo| segmenter.segment(photo)).collect(),
    };
    // What the library says of pixels does not name the file that they are from.
    let named = names.into_iter().zip(scenes).map(|(name, scene)| {
        scene.map_err(|error| match error {
            Error::Input(reason) | Error::Pixels(reason) => Error::image(name, reason),
            other => other,
        })
    });
    named.collect()
}
