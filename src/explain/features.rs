//! What is measured of a region. Every number has a plain meaning; atoms are conditions on these numbers.

use super::regions::{Kind, Regions};

/// The features that have thresholds, with a text and a unit for each.
pub(super) const NUMBERS: [Number; 20] = [
    Number { name: "x", text: "centre", unit: "% of the width", digits: 0 },
    Number { name: "y", text: "centre", unit: "% of the height", digits: 0 },
    Number { name: "left", text: "left end", unit: "% of the width", digits: 0 },
    Number { name: "right", text: "right end", unit: "% of the width", digits: 0 },
    Number { name: "top", text: "top", unit: "% of the height", digits: 0 },
    Number { name: "bottom", text: "bottom", unit: "% of the height", digits: 0 },
    Number { name: "area", text: "area", unit: "% of the frame", digits: 2 },
    Number { name: "width", text: "width", unit: "% of the frame", digits: 1 },
    Number { name: "height", text: "height", unit: "% of the frame", digits: 1 },
    Number { name: "aspect", text: "width / height", unit: "", digits: 2 },
    Number { name: "fill", text: "share of its box", unit: "%", digits: 0 },
    Number { name: "compact", text: "compactness", unit: "%", digits: 0 },
    Number { name: "lightness", text: "lightness", unit: "of 100", digits: 0 },
    Number { name: "green_red", text: "green to red", unit: "", digits: 1 },
    Number { name: "blue_yellow", text: "blue to yellow", unit: "", digits: 1 },
    Number { name: "saturation", text: "saturation", unit: "%", digits: 0 },
    Number { name: "spread", text: "spread of lightness", unit: "", digits: 1 },
    Number { name: "texture", text: "texture", unit: "", digits: 2 },
    Number { name: "upright", text: "vertical edges", unit: "% of all", digits: 0 },
    Number { name: "contrast", text: "lighter than around by", unit: "", digits: 1 },
];

/// A feature with thresholds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) unit: &'static str,
    /// Decimal places in texts.
    pub(super) digits: usize,
}

/// How a region lies to a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// The class is next to at least 5 % of its outline.
    Touches,
    /// The class is next to at least half of its outline.
    Surrounded,
    /// Of what comes first below its lower outline, at least a quarter is of the class; and so on.
    Above,
    Below,
    Beside,
}

impl Relation {
    pub(super) const ALL: [Self; 5] = [Self::Touches, Self::Surrounded, Self::Above, Self::Below, Self::Beside];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Touches => "touches",
            Self::Surrounded => "surrounded",
            Self::Above => "above",
            Self::Below => "below",
            Self::Beside => "beside",
        }
    }

    /// The share of the outline from which the relation holds.
    pub(super) fn share(self) -> f32 {
        match self {
            Self::Touches => 0.05,
            Self::Surrounded => 0.5,
            _ => 0.25,
        }
    }
}

/// The sides of the frame that a region can reach.
pub(super) const EDGES: [&str; 4] = ["left", "right", "top", "bottom"];

/// The features of a region.
#[derive(Clone, Debug, Default)]
pub(super) struct Features {
    pub(super) numbers: [f32; NUMBERS.len()],
    /// Whether it reaches each side of the frame, in the order of [`EDGES`].
    pub(super) edges: [bool; 4],
    /// For each class, the shares of the outline that [`Relation`] compares: next to it, and first above, below and beside it.
    pub(super) next: Vec<f32>,
    pub(super) above: Vec<f32>,
    pub(super) below: Vec<f32>,
    pub(super) beside: Vec<f32>,
}

impl Features {
    /// The share that a relation to a class compares.
    pub(super) fn share(&self, relation: Relation, class: usize) -> f32 {
        match relation {
            Relation::Touches | Relation::Surrounded => self.next[class],
            // The region is above what is first below it.
            Relation::Above => self.below[class],
            Relation::Below => self.above[class],
            Relation::Beside => self.beside[class],
        }
    }
}

/// Sums over the pixels of a region.
#[derive(Clone, Default)]
struct Sums {
    x: usize,
    y: usize,
    lightness: f64,
    squares: f64,
    green_red: f64,
    blue_yellow: f64,
    saturation: f64,
    texture: f64,
    across: f64,
    down: f64,
    /// Pairs of neighbouring pixels of which only one is in the region, or is at the frame's edge.
    outline: usize,
    /// Those in the frame, by side: left, right, up, down.
    sides: [usize; 4],
    /// The sum of the differences of lightness over those pairs.
    contrast: f64,
    /// For each class, the pairs whose other pixel is of the class and of another component than the region's own.
    next: Vec<u32>,
    /// For each side and class, the pairs beyond which the class comes first.
    first: [Vec<u32>; 4],
}

/// The features of every region, in one pass over the pixels.
pub(super) fn features(regions: &Regions) -> Vec<Features> {
    let planes = &regions.planes;
    let (width, height, classes) = (planes.width, planes.height, regions.classes);
    let blank = || Sums { next: vec![0; classes], first: std::array::from_fn(|_| vec![0; classes]), ..Sums::default() };
    let mut sums: Vec<Sums> = (0..regions.all.len()).map(|_| blank()).collect();
    let beyond = Beyond::of(regions);
    let maps = [
        (&regions.components, &regions.of_component, Kind::Component),
        (&regions.superpixels, &regions.of_superpixel, Kind::Superpixel),
    ];
    let light = &planes.lightness;
    for y in 0..height {
        for x in 0..width {
            let i = y * width + x;
            let (left, right) = (i - usize::from(x > 0), i + usize::from(x + 1 < width));
            let up = if y > 0 { i - width } else { i };
            let down = if y + 1 < height { i + width } else { i };
            let across = f64::from(light[right] - light[left]) / 2.0;
            let downward = f64::from(light[down] - light[up]) / 2.0;
            let texture = f64::from((across as f32).hypot(downward as f32));
            for (map, of, kind) in maps {
                let part = map[i];
                let Some(region) = of[part as usize] else { continue };
                let sum = &mut sums[region];
                sum.x += x;
                sum.y += y;
                let lightness = f64::from(light[i]);
                sum.lightness += lightness;
                sum.squares += lightness * lightness;
                sum.green_red += f64::from(planes.green_red[i]);
                sum.blue_yellow += f64::from(planes.blue_yellow[i]);
                sum.saturation += f64::from(planes.saturation[i]);
                sum.texture += texture;
                sum.across += across * across;
                sum.down += downward * downward;
                for (side, j) in [left, right, up, down].into_iter().enumerate() {
                    if j == i {
                        sum.outline += 1; // the frame's edge
                        continue;
                    }
                    if map[j] == part {
                        continue;
                    }
                    sum.outline += 1;
                    sum.sides[side] += 1;
                    sum.contrast += lightness - f64::from(light[j]);
                    let home = if kind == Kind::Component { part } else { regions.homes[part as usize] };
                    let first = if regions.components[j] == home {
                        beyond.class(side, j)
                    } else {
                        let class = regions.component_classes[regions.components[j] as usize];
                        if let Some(next) = sum.next.get_mut(usize::from(class)) {
                            *next += 1;
                        }
                        class
                    };
                    if let Some(first) = sum.first[side].get_mut(usize::from(first)) {
                        *first += 1;
                    }
                }
            }
        }
    }
    let frame = (width as f32, height as f32);
    sums.into_iter().zip(&regions.all).map(|(sums, region)| sums.features(region.pixels, region.bbox, frame)).collect()
}

impl Sums {
    fn features(self, pixels: usize, bbox: [u32; 4], (width, height): (f32, f32)) -> Features {
        let n = pixels as f64;
        let mean = |sum: f64| (sum / n) as f32;
        let [left, top, w, h] = bbox.map(|v| v as f32);
        let variance = (self.squares / n - (self.lightness / n).powi(2)).max(0.0);
        let inner: usize = self.sides.iter().sum();
        let outline = self.outline.max(1) as f32;
        let numbers = [
            100.0 * (mean(self.x as f64) + 0.5) / width,
            100.0 * (mean(self.y as f64) + 0.5) / height,
            100.0 * left / width,
            100.0 * (left + w) / width,
            100.0 * top / height,
            100.0 * (top + h) / height,
            100.0 * pixels as f32 / (width * height),
            100.0 * w / width,
            100.0 * h / height,
            w / h,
            100.0 * pixels as f32 / (w * h),
            // 100 % for a square, whose outline is the shortest that pixels can have.
            1600.0 * pixels as f32 / (outline * outline),
            mean(self.lightness),
            mean(self.green_red),
            mean(self.blue_yellow),
            100.0 * mean(self.saturation),
            variance.sqrt() as f32,
            mean(self.texture),
            (100.0 * self.across / (self.across + self.down).max(1e-9)) as f32,
            (self.contrast / inner.max(1) as f64) as f32,
        ];
        let share = |counts: &[u32], of: usize| counts.iter().map(|&n| n as f32 / of.max(1) as f32).collect::<Vec<_>>();
        let [from_left, from_right, up, down] = &self.first;
        let beside: Vec<_> = from_left.iter().zip(from_right).map(|(a, b)| a + b).collect();
        Features {
            numbers,
            edges: [left == 0.0, left + w >= width, top == 0.0, top + h >= height],
            next: share(&self.next, inner),
            above: share(up, self.sides[2]),
            below: share(down, self.sides[3]),
            beside: share(&beside, self.sides[0] + self.sides[1]),
        }
    }
}

/// For each pixel and side, the class of the component that comes after the pixel's own.
struct Beyond {
    sides: [Vec<u16>; 4],
}

/// No class: the frame ends first.
const NOTHING: u16 = u16::MAX;

impl Beyond {
    fn of(regions: &Regions) -> Self {
        let (width, pixels) = (regions.planes.width, regions.components.len());
        let mut sides: [Vec<u16>; 4] = std::array::from_fn(|_| vec![NOTHING; pixels]);
        let of = |i: usize| regions.components[i];
        let class = |i: usize| regions.component_classes[of(i) as usize];
        for i in 0..pixels {
            if i % width > 0 {
                sides[0][i] = if of(i) == of(i - 1) { sides[0][i - 1] } else { class(i - 1) };
            }
            if i >= width {
                sides[2][i] = if of(i) == of(i - width) { sides[2][i - width] } else { class(i - width) };
            }
        }
        for i in (0..pixels).rev() {
            if (i + 1) % width > 0 {
                sides[1][i] = if of(i) == of(i + 1) { sides[1][i + 1] } else { class(i + 1) };
            }
            if i + width < pixels {
                sides[3][i] = if of(i) == of(i + width) { sides[3][i + width] } else { class(i + width) };
            }
        }
        Self { sides }
    }

    fn class(&self, side: usize, pixel: usize) -> u16 {
        self.sides[side][pixel]
    }
}
