//! Photos through the network together, so that one which cannot be done costs itself alone.

use rtformer::pixels::{Image, Pixels};
use rtformer::{Error, Scene, Segmenter};

/// How many photos are given to the network together: what was asked for, or what the device is fast with. On a GPU the copies of one
/// overlap with the computation of another; on a CPU one photo keeps every core busy.
pub(super) fn size(asked: Option<u16>, segmenter: &Segmenter) -> u16 {
    asked.unwrap_or(if segmenter.device().is_gpu() { 8 } else { 1 })
}

/// Segments the photos that were decoded, in order; every error names its photo.
pub(super) fn segment<'a>(
    segmenter: &Segmenter,
    images: impl Iterator<Item = &'a Image>,
) -> Vec<rtformer::Result<Scene>> {
    let (names, photos): (Vec<_>, Vec<_>) =
        images.map(|image| (image.name().to_path_buf(), Pixels::from(image))).unzip();
    let scenes: Vec<_> = match segmenter.segment_batch(&photos) {
        Ok(scenes) => scenes.into_iter().map(Ok).collect(),
        Err(error) if photos.len() == 1 => vec![Err(error)],
        // The error is of one of them: each by itself then.
        Err(_) => photos.iter().map(|photo| segmenter.segment(photo)).collect(),
    };
    // What the library says of pixels or of a device does not name the file that it was busy with.
    let named = names.into_iter().zip(scenes).map(|(name, scene)| {
        scene.map_err(|error| match error {
            Error::Input(reason) | Error::Pixels(reason) => Error::image(name, reason),
            other => Error::image(name, other.to_string()),
        })
    });
    named.collect()
}
