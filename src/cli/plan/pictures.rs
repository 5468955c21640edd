//! The three pictures of a study, as in Hoffmann et al.: curves of equal FLOPs, the frontier, and the loss against the FLOPs.

use image::RgbImage;
use rtformer::plan::{Interval, Optimum, Run};

use super::Study;
use super::chart::{Axis, COLORS, COMPUTED, Chart, Series, Shape};

/// The files, in the order of [`draw`].
pub(super) const NAMES: [&str; 3] = ["isoflop.png", "frontier.png", "loss.png"];

/// Points of a curve.
const POINTS: usize = 60;

pub(super) fn draw(study: &Study) -> rtformer::Result<[RgbImage; 3]> {
    let last = study.fit.optimum.last().map_or(1.0, |optimum| optimum.flops);
    let first = study.fit.optimum.first().map_or(1.0, |optimum| optimum.flops);
    let optima = study.laws.fit(&spaced(0.7 * first, 1.4 * last))?.optimum;
    Ok([isoflop(study).draw(), frontier(study, &optima).draw(), loss(study, &optima).draw()])
}

/// The runs of each budget, and the parabola through them.
fn isoflop(study: &Study) -> Chart {
    let all = Run::with_all_photos(&study.runs);
    let mut series = Vec::new();
    let mut minima = Vec::new();
    for (&flops, color) in study.laws.budgets().iter().zip(COLORS.into_iter().cycle()) {
        let runs: Vec<_> = all.iter().filter(|run| (run.flops / flops).ln().abs() < 0.05).collect();
        let dots = Shape::Dots(runs.iter().map(|run| (run.params, run.cross_entropy)).collect());
        series.push(Series { name: format!("C = {flops:.1e}"), color, shape: dots });
        let found = study
            .isoflop
            .as_ref()
            .ok()
            .and_then(|found| found.optimum.iter().find(|parabola| (parabola.flops / flops).ln().abs() < 0.05));
        if let Some(parabola) = found {
            let (low, high) =
                runs.iter().fold((f64::MAX, f64::MIN), |range, run| (range.0.min(run.params), range.1.max(run.params)));
            let [a, b, c] = parabola.coefficients;
            let at = |params: f64| (params, (a + params.ln() * (b + params.ln() * c)).exp());
            series.push(Series {
                name: String::new(),
                color,
                shape: Shape::Line(spaced(low, high).into_iter().map(at).collect()),
            });
            minima.push((parabola.params.value, parabola.cross_entropy.value));
        }
    }
    series.push(Series { name: "minima".into(), color: COMPUTED, shape: Shape::Dots(minima) });
    Chart {
        title: "Runs with equal training FLOPs".into(),
        axes: [axis("parameters N", true), axis(LOSS, false)],
        series,
    }
}

const LOSS: &str = "cross entropy, nats";

/// The best size for each budget: by the law, by parabolas, and by the best run.
fn frontier(study: &Study, optima: &[Optimum]) -> Chart {
    let mut series = around("law (80 %)", optima, |optimum| optimum.params);
    if let Ok(found) = &study.isoflop {
        let bars = found.optimum.iter().map(|parabola| (parabola.flops, parabola.params.low, parabola.params.high));
        let dots = found.optimum.iter().map(|parabola| (parabola.flops, parabola.params.value));
        series.push(Series { name: String::new(), color: COLORS[0], shape: Shape::Bars(bars.collect()) });
        series.push(Series { name: "parabolas".into(), color: COLORS[0], shape: Shape::Dots(dots.collect()) });
    }
    if let Ok(found) = &study.envelope {
        let dots = found.best.iter().map(|[flops, params, _]| (*flops, *params)).collect();
        series.push(Series { name: "best run".into(), color: COLORS[1], shape: Shape::Dots(dots) });
    }
    Chart { title: "The best size for a budget".into(), axes: [axis(FLOPS, true), axis("parameters N", true)], series }
}

const FLOPS: &str = "training FLOPs C";

/// The loss of each size against the FLOPs, and that of the best size.
fn loss(study: &Study, optima: &[Optimum]) -> Chart {
    let mut series = around("best size (80 %)", optima, |optimum| optimum.cross_entropy);
    let runs = Run::with_all_photos(&study.runs);
    let mut sizes: Vec<_> = runs.iter().map(|run| run.params).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    for (size, color) in sizes.into_iter().zip(COLORS.into_iter().cycle()) {
        let runs = runs.iter().filter(|run| run.params == size).map(|run| (run.flops, run.cross_entropy));
        series.push(Series { name: format!("N = {size:.1e}"), color, shape: Shape::Dots(runs.collect()) });
    }
    Chart { title: "Loss against training FLOPs".into(), axes: [axis(FLOPS, true), axis(LOSS, false)], series }
}

/// The band of an interval over the budgets, and the line of its estimate.
fn around(name: &str, optima: &[Optimum], of: impl Fn(&Optimum) -> Interval) -> Vec<Series> {
    let band = optima.iter().map(|optimum| (optimum.flops, of(optimum).low, of(optimum).high)).collect();
    let line = optima.iter().map(|optimum| (optimum.flops, of(optimum).value)).collect();
    vec![
        Series { name: String::new(), color: COMPUTED, shape: Shape::Band(band) },
        Series { name: name.into(), color: COMPUTED, shape: Shape::Line(line) },
    ]
}

fn axis(title: &str, logarithmic: bool) -> Axis {
    Axis { title: title.into(), logarithmic }
}

/// Numbers at equal ratios.
fn spaced(low: f64, high: f64) -> Vec<f64> {
    (0..POINTS).map(|i| low * (high / low).powf(i as f64 / (POINTS - 1) as f64)).collect()
}
