//! Keeps a result while the picture does not change.

use super::changes::Changes;
use crate::pixels::{PixelFormat, Pixels};
use crate::segmenter::Scene;
use crate::timing::Timings;

/// The last frame that went through the network, and its scene.
pub(super) struct Reuse {
    threshold: f32,
    reference: Option<Reference>,
    scene: Option<Scene>,
}

/// A copy of a frame.
struct Reference {
    data: Vec<u8>,
    size: (u32, u32),
    format: PixelFormat,
}

impl Reuse {
    /// `threshold` is that of [`Changes::between`].
    pub(super) fn new(threshold: f32) -> Self {
        Self { threshold, reference: None, scene: None }
    }

    /// Whether the frame must be segmented, because a block changed since the last frame that was. It is that frame from now on.
    ///
    /// Frames are not compared with their predecessor, so slow changes add up until they are seen.
    pub(super) fn is_new(&mut self, frame: &Pixels<'_>) -> bool {
        let unchanged = self.reference.as_ref().is_some_and(|reference| reference.holds(frame, self.threshold));
        if !unchanged {
            self.reference = Some(Reference::of(frame));
        }
        !unchanged
    }

    /// Keeps the result of the last new frame; `None` if it failed.
    pub(super) fn keep(&mut self, scene: Option<&Scene>) {
        self.scene = scene.cloned();
    }

    /// The scene of a frame that is not new. It took no time.
    pub(super) fn scene(&self) -> Option<Scene> {
        self.scene.clone().map(|scene| scene.with_timings(Timings::default()))
    }
}

impl Reference {
    fn of(frame: &Pixels<'_>) -> Self {
        let data = (0..frame.height()).flat_map(|y| frame.row(y)).copied().collect();
        Self { data, size: (frame.width(), frame.height()), format: frame.format() }
    }

    fn holds(&self, frame: &Pixels<'_>, threshold: f32) -> bool {
        let (width, height) = self.size;
        let stride = width as usize * self.format.channels();
        let reference = Pixels::new(&self.data, width, height, stride, self.format);
        let changes = reference.ok().and_then(|reference| Changes::between(&reference, frame, threshold));
        changes.is_some_and(|changes| changes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn slow_changes_add_up_and_small_ones_do_not_count() {
        let mut reuse = Reuse::new(6.0);
        let mut is_new = |image: &RgbImage| reuse.is_new(&image.into());
        let level = |level: u8| RgbImage::from_pixel(40, 24, Rgb([level; 3]));
        let found: Vec<_> = (0..20).step_by(2).map(|n| is_new(&level(100 + n))).collect();
        // 100 holds until 106; 108 is new and holds until 114; 116 is new.
        let want = [true, false, false, false, true, false, false, false, true, false];
        assert_eq!(found, want);
        let mut changed = level(116);
        changed.put_pixel(39, 23, Rgb([255; 3])); // 139 levels in one of 64 pixels: 2.2 on average
        assert!(!is_new(&changed));
        changed.put_pixel(38, 23, Rgb([255; 3]));
        changed.put_pixel(37, 23, Rgb([255; 3]));
        assert!(is_new(&changed), "three of 64 pixels: 6.5 on average");
        assert!(is_new(&RgbImage::new(24, 40)) && !is_new(&RgbImage::new(24, 40)), "another size");
    }
}
