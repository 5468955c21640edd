//! A photo as planes of CIE L\*a\*b\* and saturation.
//!
//! Source of the formulas: CIE 15:2004 with the D65 white point, and IEC 61966-2-1 (sRGB).

use std::sync::OnceLock;

use crate::pixels::Pixels;

/// One value per pixel in each plane, row by row.
pub(super) struct Planes {
    pub(super) width: usize,
    pub(super) height: usize,
    /// L\*, 0 to 100.
    pub(super) lightness: Vec<f32>,
    /// a\*: green (negative) to red.
    pub(super) green_red: Vec<f32>,
    /// b\*: blue (negative) to yellow.
    pub(super) blue_yellow: Vec<f32>,
    /// HSV saturation, 0 to 1.
    pub(super) saturation: Vec<f32>,
}

/// The cube root with a linear part near 0 that L\*a\*b\* is made of, in steps of 1 / 4096. Interpolated, it is within 1e-4.
const STEPS: usize = 4096;

struct Tables {
    linear: [f32; 256],
    root: Vec<f32>,
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let linear = std::array::from_fn(|v| {
            let v = v as f32 / 255.0;
            if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        });
        let root = |t: f32| if t > 216.0 / 24389.0 { t.cbrt() } else { (24389.0 / 27.0 * t + 16.0) / 116.0 };
        Tables { linear, root: (0..=STEPS + 1).map(|i| root(i as f32 / STEPS as f32)).collect() }
    })
}

impl Tables {
    fn root(&self, t: f32) -> f32 {
        let place = t.clamp(0.0, 1.0) * STEPS as f32;
        let below = place as usize;
        let part = place - below as f32;
        self.root[below] * (1.0 - part) + self.root[below + 1] * part
    }

    /// L\*, a\*, b\* of an sRGB colour.
    fn lab(&self, rgb: [u8; 3]) -> [f32; 3] {
        let [r, g, b] = rgb.map(|v| self.linear[usize::from(v)]);
        let x = self.root((0.412_456 * r + 0.357_576 * g + 0.180_437 * b) / 0.950_47);
        let y = self.root(0.212_673 * r + 0.715_152 * g + 0.072_175 * b);
        let z = self.root((0.019_334 * r + 0.119_192 * g + 0.950_304 * b) / 1.088_83);
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }
}

impl Planes {
    pub(super) fn of(photo: &Pixels<'_>) -> Self {
        let (width, height) = (photo.width() as usize, photo.height() as usize);
        let tables = tables();
        let plane = || Vec::with_capacity(width * height);
        let mut planes =
            Self { width, height, lightness: plane(), green_red: plane(), blue_yellow: plane(), saturation: plane() };
        for y in 0..photo.height() {
            for x in 0..photo.width() {
                let rgb = photo.rgb(x, y);
                let [l, a, b] = tables.lab(rgb);
                planes.lightness.push(l);
                planes.green_red.push(a);
                planes.blue_yellow.push(b);
                let [r, g, b] = rgb;
                let (most, least) = (r.max(g).max(b), r.min(g).min(b));
                planes.saturation.push(f32::from(most - least) / f32::from(most.max(1)));
            }
        }
        planes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of other programs: L*a*b* of the primaries, rounded to two digits.
    #[test]
    fn known_colors_have_their_known_values() {
        let cases = [
            ([0, 0, 0], [0.0, 0.0, 0.0]),
            ([255, 255, 255], [100.0, 0.0, 0.0]),
            ([255, 0, 0], [53.24, 80.09, 67.20]),
            ([0, 255, 0], [87.73, -86.18, 83.18]),
            ([0, 0, 255], [32.30, 79.19, -107.86]),
            ([119, 119, 119], [50.03, 0.0, 0.0]),
        ];
        for (rgb, want) in cases {
            let got = tables().lab(rgb);
            for (got, want) in got.into_iter().zip(want) {
                assert!((got - want).abs() < 0.1, "{rgb:?}: {got} instead of {want}");
            }
        }
    }
}
