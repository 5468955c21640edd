//! Charts with one or two logarithmic axes.

use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::super::canvas::{Canvas, Color, FAINT, GLYPH, INK};

/// Everything is drawn at this scale and made smaller, so that lines are smooth.
const FINE: u32 = 2;
const SIZE: (u32, u32) = (960 * FINE, 640 * FINE);
const TEXT: u32 = 2 * FINE;
/// The margins of the drawing area: left, top, right, bottom.
const MARGINS: [u32; 4] = [132 * FINE, 64 * FINE, 24 * FINE, 72 * FINE];
/// The space between the drawing area and the texts of the legend.
const LEGEND: u32 = 40 * FINE;
const GRID: Color = [228, 228, 228];

/// Colours of the points. The first six remain distinct with any colour vision (Okabe and Ito, 2008; without their yellow, which is faint on
/// white). Brown and olive follow, because a study has more sizes than that.
pub(super) const COLORS: [Color; 8] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [230, 159, 0],
    [86, 180, 233],
    [120, 66, 42],
    [124, 130, 20],
];
/// The colour of what is computed from the points, such as a law: none of [`COLORS`].
pub(super) const COMPUTED: Color = [60, 60, 60];

pub(super) struct Axis {
    pub(super) title: String,
    pub(super) logarithmic: bool,
}

/// What is drawn for a list of points.
pub(super) enum Shape {
    /// A line through `(x, y)`.
    Line(Vec<(f64, f64)>),
    /// A dot at each `(x, y)`.
    Dots(Vec<(f64, f64)>),
    /// A vertical bar from `low` to `high` at each `(x, low, high)`.
    Bars(Vec<(f64, f64, f64)>),
    /// The area between `low` and `high` of `(x, low, high)`, pale.
    Band(Vec<(f64, f64, f64)>),
}

impl Shape {
    fn places(&self) -> Vec<(f64, f64)> {
        match self {
            Self::Line(points) | Self::Dots(points) => points.clone(),
            Self::Bars(spans) | Self::Band(spans) => {
                spans.iter().flat_map(|&(x, low, high)| [(x, low), (x, high)]).collect()
            }
        }
    }
}

pub(super) struct Series {
    /// The text of the legend; empty for none.
    pub(super) name: String,
    pub(super) color: Color,
    pub(super) shape: Shape,
}

pub(super) struct Chart {
    pub(super) title: String,
    pub(super) axes: [Axis; 2],
    /// Drawn in this order.
    pub(super) series: Vec<Series>,
}

/// An axis on the picture: from `low` to `high`, in the axis' own scale, at pixels `from` to `to`.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>, from: u32, to: u32) -> Self {
        let own = |value: f64| if axis.logarithmic { value.log10() } else { value };
        let (low, high) = values
            .map(own)
            .filter(|value| value.is_finite())
            .fold((f64::MAX, f64::MIN), |range, value| (range.0.min(value), range.1.max(value)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let room = (0.05 * (high - low)).max(1e-3 * high.abs()).max(1e-9);
        let (from, to) = (f64::from(from), f64::from(to));
        Self { low: low - room, high: high + room, from, to, logarithmic: axis.logarithmic }
    }

    /// The pixel of a value; `None` if the axis has no place for it.
    fn place(&self, value: f64) -> Option<f64> {
        let own = if self.logarithmic { value.log10() } else { value };
        let part = (own - self.low) / (self.high - self.low);
        (-1e-9..=1.0 + 1e-9).contains(&part).then_some(self.from + part * (self.to - self.from))
    }

    /// Round values and their texts.
    fn ticks(&self) -> Vec<(f64, String)> {
        if self.logarithmic {
            let steps: &[i32] = if self.high - self.low < 2.5 { &[1, 2, 5] } else { &[1] };
            let decades = self.low.floor() as i32..=self.high.ceil() as i32;
            let all = decades.flat_map(|decade| steps.iter().map(move |step| (*step, decade)));
            let tick = |(step, decade): (i32, i32)| (f64::from(step) * 10_f64.powi(decade), format!("{step}e{decade}"));
            return all.map(tick).filter(|(value, _)| self.place(*value).is_some()).collect();
        }
        let rough = (self.high - self.low) / 6.0;
        let unit = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * unit).find(|step| *step >= rough).unwrap_or(unit);
        let places = (-step.log10().floor()).max(0.0) as usize;
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        (first..=last).map(|n| (n as f64 * step, format!("{:.places$}", n as f64 * step))).collect()
    }
}

impl Chart {
    pub(super) fn draw(&self) -> RgbImage {
        let mut canvas = Canvas::new(SIZE.0, SIZE.1);
        let [left, top, right, bottom] = self.margins();
        let places: Vec<_> = self.series.iter().flat_map(|series| series.shape.places()).collect();
        let x = Scale::new(&self.axes[0], places.iter().map(|place| place.0), left, SIZE.0 - right);
        let y = Scale::new(&self.axes[1], places.iter().map(|place| place.1), SIZE.1 - bottom, top);
        self.frame(&mut canvas, &x, &y);
        for series in &self.series {
            draw(&mut canvas, series, &x, &y);
        }
        self.legend(&mut canvas);
        resize(&canvas.picture, SIZE.0 / FINE, SIZE.1 / FINE, FilterType::Triangle)
    }

    /// The grid, its numbers and the titles.
    fn frame(&self, canvas: &mut Canvas, x: &Scale, y: &Scale) {
        let [left, top, right, bottom] = self.margins();
        let (width, height) = (SIZE.0 - left - right, SIZE.1 - top - bottom);
        for (value, text) in x.ticks() {
            let Some(at) = x.place(value).map(|at| at as u32) else { continue };
            canvas.fill((at, top), (FINE, height), GRID);
            canvas.text(
                (at.saturating_sub(Canvas::length(&text, TEXT) / 2), top + height + 8 * FINE),
                &text,
                TEXT,
                INK,
            );
        }
        for (value, text) in y.ticks() {
            let Some(at) = y.place(value).map(|at| at as u32) else { continue };
            canvas.fill((left, at), (width, FINE), GRID);
            let end = left - 8 * FINE;
            canvas.text((end.saturating_sub(Canvas::length(&text, TEXT)), at - GLYPH * TEXT / 2), &text, TEXT, INK);
        }
        canvas.fill((left, top), (FINE, height), INK);
        canvas.fill((left, top + height), (width, FINE), INK);
        let middle = |start: u32, room: u32, text: &str| start + room.saturating_sub(Canvas::length(text, TEXT)) / 2;
        let [across, up] = [&self.axes[0].title, &self.axes[1].title];
        canvas.text((left, 24 * FINE), &self.title, TEXT, INK);
        canvas.text((middle(left, width, across), SIZE.1 - 28 * FINE), across, TEXT, FAINT);
        canvas.text_up((16 * FINE, middle(top, height, up) + Canvas::length(up, TEXT)), up, TEXT, FAINT);
    }

    /// Left, top, right, bottom: right of the drawing area is the legend.
    fn margins(&self) -> [u32; 4] {
        let [left, top, right, bottom] = MARGINS;
        let longest = self.series.iter().map(|series| Canvas::length(&series.name, TEXT)).max().unwrap_or(0);
        [left, top, right + if longest > 0 { longest + LEGEND } else { 0 }, bottom]
    }

    /// The names of the series.
    fn legend(&self, canvas: &mut Canvas) {
        let left = SIZE.0 - self.margins()[2] + 16 * FINE;
        for (series, line) in self.series.iter().filter(|series| !series.name.is_empty()).zip(0..) {
            let y = MARGINS[1] + line * (GLYPH * TEXT + 8 * FINE);
            canvas.fill((left, y), (12 * FINE, GLYPH * TEXT), tone(series));
            canvas.text((left + LEGEND - 20 * FINE, y), &series.name, TEXT, INK);
        }
    }
}

fn tone(series: &Series) -> Color {
    if matches!(series.shape, Shape::Band(_)) { series.color.map(|tone| 255 - (255 - tone) / 4) } else { series.color }
}

fn draw(canvas: &mut Canvas, series: &Series, x: &Scale, y: &Scale) {
    let place = |(a, b): (f64, f64)| Some((x.place(a)?, y.place(b)?));
    let fine = f64::from(FINE);
    match &series.shape {
        Shape::Line(points) => {
            for pair in points.windows(2) {
                if let (Some(from), Some(to)) = (place(pair[0]), place(pair[1])) {
                    canvas.line(from, to, 2.0 * fine, series.color);
                }
            }
        }
        Shape::Dots(points) => {
            points.iter().filter_map(|&point| place(point)).for_each(|at| canvas.disc(at, 5.0 * fine, series.color));
        }
        Shape::Bars(spans) => {
            for &(at, low, high) in spans {
                if let (Some(from), Some(to)) = (place((at, low)), place((at, high))) {
                    canvas.line(from, to, 3.0 * fine, series.color);
                }
            }
        }
        Shape::Band(spans) => {
            for pair in spans.windows(2) {
                let edges =
                    [(pair[0].0, pair[0].1), (pair[0].0, pair[0].2), (pair[1].0, pair[1].1), (pair[1].0, pair[1].2)];
                let [Some(a), Some(b), Some(c), Some(d)] = edges.map(place) else { continue };
                for column in a.0 as u32..c.0.ceil() as u32 {
                    let part = ((f64::from(column) - a.0) / (c.0 - a.0)).clamp(0.0, 1.0);
                    let (low, high) = (a.1 + part * (c.1 - a.1), b.1 + part * (d.1 - b.1));
                    canvas.fill((column, high as u32), (1, (low - high).max(1.0) as u32), tone(series));
                }
            }
        }
    }
}
