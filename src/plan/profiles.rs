//! Approaches 1 and 2 of Hoffmann et al.: the best sizes read off the runs themselves, without a law for the loss.

use serde::Serialize;

use super::runs::{budgets_of, check_numbers};
use super::solve::cholesky_solve;
use super::{Interval, RESAMPLES, Run};
use crate::error::{Error, Result};
use crate::model::Noise;

/// Points at which the envelope is read, at equal ratios of the budget.
const READINGS: usize = 100;

/// How far outside of a budget's sizes a noisy parabola's minimum counts: a factor of `exp(1.5)`, 4.5.
const BEYOND: f64 = 1.5;

/// Approach 2: a parabola through the runs of each budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IsoFlop {
    /// The budgets whose runs have a minimum, smallest first.
    pub optimum: Vec<Parabola>,
    /// The exponent `a` of `N_opt ~ C^a`; `None` with fewer than two such budgets.
    pub params_exponent: Option<Interval>,
    /// What the other budgets lack.
    pub missing: Vec<String>,
}

/// `ln L` as a parabola of `ln N`, for the runs of one budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parabola {
    /// The budget, training FLOPs.
    pub flops: f64,
    /// Parameters at the minimum.
    pub params: Interval,
    /// Cross entropy at the minimum, in nats.
    pub cross_entropy: Interval,
    /// `ln L = c[0] + c[1] x + c[2] x^2` with `x = ln N`.
    pub coefficients: [f64; 3],
}

/// Approach 1: the lowest loss of any run for each budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Envelope {
    /// The best size that was run at each budget, smallest first: FLOPs, parameters and the mean cross entropy over seeds.
    pub best: Vec<[f64; 3]>,
    /// The exponent `a` of `N_opt ~ C^a`.
    pub params_exponent: Interval,
}

/// The runs of one budget and one size, whose seeds differ.
#[derive(Clone, Copy)]
struct Cell {
    /// The index of the budget.
    budget: usize,
    /// `ln C` of the budget.
    flops: f64,
    /// `ln N`.
    params: f64,
    /// The mean of `ln L`.
    loss: f64,
    count: f64,
}

/// Approach 2. `deviation` is the relative standard deviation of a run's cross entropy, such as [`Laws::deviation`](super::Laws::deviation).
///
/// Only runs with the most different photos take part.
///
/// # Errors
/// [`Error::Input`] if a number of a run is not positive. [`Error::Runs`] if no budget has a minimum; the text says what each lacks: three
/// sizes, losses that curve upwards, or a size beyond the best one.
pub fn isoflop(runs: &[Run], deviation: f64) -> Result<IsoFlop> {
    let (budgets, cells) = cells(runs)?;
    let mut noise = Noise::new(1);
    let (mut optimum, mut drawn, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for (index, &flops) in budgets.iter().enumerate() {
        let row: Vec<_> = cells.iter().filter(|cell| cell.budget == index).copied().collect();
        match minimum_of(&row) {
            Err(lack) => missing.push(format!("{flops:.2e} FLOPs: {lack}")),
            Ok((coefficients, at)) => {
                let noisy: Vec<_> = (0..RESAMPLES).map(|_| vertex(&disturbed(&row, deviation, &mut noise))).collect();
                let over = |i: usize, best: f64| Interval::of(best.exp(), noisy.iter().map(|v| v[i].exp()).collect());
                let loss = value(&coefficients, at);
                optimum.push(Parabola { flops, params: over(0, at), cross_entropy: over(1, loss), coefficients });
                drawn.push((flops.ln(), at, noisy));
            }
        }
    }
    if optimum.is_empty() {
        return Err(Error::Runs(missing.join("; ")));
    }
    let params_exponent = (optimum.len() > 1).then(|| {
        let best = slope(&drawn.iter().map(|(flops, at, _)| (*flops, *at)).collect::<Vec<_>>());
        let noisy = |i: usize| slope(&drawn.iter().map(|(flops, _, noisy)| (*flops, noisy[i][0])).collect::<Vec<_>>());
        Interval::of(best, (0..RESAMPLES).map(noisy).collect())
    });
    Ok(IsoFlop { optimum, params_exponent, missing })
}

/// Approach 1, on complete runs only: between two budgets, the loss of a size is interpolated. `deviation` and the runs that take part are
/// as in [`isoflop`].
///
/// # Errors
/// [`Error::Input`] if a number of a run is not positive. [`Error::Runs`] if the runs have no envelope: fewer than two budgets, fewer than two
/// sizes with runs at several budgets, none of which is between two budgets of a size, or one size that is best everywhere.
pub fn envelope(runs: &[Run], deviation: f64) -> Result<Envelope> {
    let (budgets, cells) = cells(runs)?;
    if budgets.len() < 2 {
        return Err(Error::Runs(format!("found {} of at least 2 budgets", budgets.len())));
    }
    let lines = cells.windows(2).filter(|pair| pair[0].params == pair[1].params);
    let mut sizes: Vec<_> = lines.map(|pair| pair[0].params).collect();
    sizes.dedup();
    if sizes.len() < 2 {
        return Err(Error::Runs(format!("found {} of at least 2 sizes with runs at several budgets", sizes.len())));
    }
    let best = best_sizes(&cells);
    if best.len() < 2 {
        return Err(Error::Runs("found no two sizes with runs around one budget".into()));
    }
    if best.windows(2).all(|pair| pair[0].1 == pair[1].1) {
        return Err(Error::Runs(format!(
            "{:.3e} parameters are best at every budget; add smaller or larger sizes, or budgets that are further apart",
            best[0].1.exp()
        )));
    }
    let mut noise = Noise::new(2);
    let drawn = (0..RESAMPLES).map(|_| slope(&best_sizes(&disturbed(&cells, deviation, &mut noise)))).collect();
    let lowest = |(index, &flops): (usize, &f64)| {
        let row = cells.iter().filter(|cell| cell.budget == index);
        row.min_by(|x, y| x.loss.total_cmp(&y.loss)).map(|cell| [flops, cell.params.exp(), cell.loss.exp()])
    };
    Ok(Envelope {
        best: budgets.iter().enumerate().filter_map(lowest).collect(),
        params_exponent: Interval::of(slope(&best), drawn),
    })
}

/// The budgets, and a cell for each pair of size and budget: by size, then by budget.
fn cells(runs: &[Run]) -> Result<(Vec<f64>, Vec<Cell>)> {
    check_numbers(runs)?;
    let mut runs = Run::with_all_photos(runs);
    let budgets = budgets_of(&runs);
    runs.sort_by(|x, y| x.params.total_cmp(&y.params).then(x.flops.total_cmp(&y.flops)));
    let mut cells: Vec<Cell> = Vec::new();
    for run in runs {
        let distance = |budget: usize| (budgets[budget] / run.flops).ln().abs();
        let nearest = (0..budgets.len()).min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
        let Some(budget) = nearest else { continue };
        let (params, loss) = (run.params.ln(), run.cross_entropy.ln());
        match cells.last_mut().filter(|cell| cell.budget == budget && cell.params == params) {
            Some(cell) => {
                cell.loss = (cell.loss * cell.count + loss) / (cell.count + 1.0);
                cell.count += 1.0;
            }
            None => cells.push(Cell { budget, flops: budgets[budget].ln(), params, loss, count: 1.0 }),
        }
    }
    Ok((budgets, cells))
}

/// The cells with other noise: of a run's deviation, less where seeds were averaged.
fn disturbed(cells: &[Cell], deviation: f64, noise: &mut Noise) -> Vec<Cell> {
    let mut uniform = || (0.5 * (f64::from(noise.uniform()) + 1.0)).clamp(1e-9, 1.0);
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    cells.iter().map(|cell| Cell { loss: cell.loss + deviation / cell.count.sqrt() * normal(), ..*cell }).collect()
}

/// The coefficients of a budget's parabola and `ln N` at its minimum, or what its runs lack.
fn minimum_of(row: &[Cell]) -> std::result::Result<([f64; 3], f64), String> {
    let (Some(first), Some(last)) = (row.first(), row.last()) else { return Err("no runs".into()) };
    if row.len() < 3 {
        return Err(format!("found {} of at least 3 model sizes", row.len()));
    }
    let c = parabola(row);
    let at = -c[1] / (2.0 * c[2]);
    let size = |cell: &Cell| format!("{:.3e} parameters", cell.params.exp());
    if c[2] > 0.0 && (first.params..=last.params).contains(&at) {
        Ok((c, at))
    } else if value(&c, first.params) < value(&c, last.params) {
        Err(format!("no minimum between the sizes; add one below {}", size(first)))
    } else {
        Err(format!("no minimum between the sizes; add one above {}", size(last)))
    }
}

/// `ln N` and `ln L` at the minimum of a noisy parabola. Without a minimum near the sizes, it is where the nearest one could be.
fn vertex(row: &[Cell]) -> [f64; 2] {
    let (low, high) = (row[0].params, row[row.len() - 1].params);
    let c = parabola(row);
    let at = if c[2] > 0.0 {
        (-c[1] / (2.0 * c[2])).clamp(low - BEYOND, high + BEYOND)
    } else if value(&c, low) < value(&c, high) {
        low - BEYOND
    } else {
        high + BEYOND
    };
    [at, value(&c, at)]
}

fn value(c: &[f64; 3], x: f64) -> f64 {
    c[0] + x * (c[1] + x * c[2])
}

/// Least squares, weighted by the number of seeds.
fn parabola(row: &[Cell]) -> [f64; 3] {
    let total: f64 = row.iter().map(|cell| cell.count).sum();
    let centre = row.iter().map(|cell| cell.count * cell.params).sum::<f64>() / total;
    let (mut gram, mut right) = ([[0.0; 5]; 5], [0.0; 5]);
    for cell in row {
        let x = cell.params - centre;
        let powers = [1.0, x, x * x];
        for i in 0..3 {
            right[i] += cell.count * powers[i] * cell.loss;
            for j in 0..=i {
                gram[i][j] += cell.count * powers[i] * powers[j];
            }
        }
    }
    cholesky_solve(&mut gram, &mut right, 3);
    let [a, b, c, ..] = right;
    [a - centre * (b - centre * c), b - 2.0 * centre * c, c]
}

/// `ln C` and `ln N` of the size with the lowest loss, between the smallest and the largest budget.
fn best_sizes(cells: &[Cell]) -> Vec<(f64, f64)> {
    let (low, high) = cells
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), cell| (low.min(cell.flops), high.max(cell.flops)));
    let reading = |i: usize| {
        let flops = low + (high - low) * i as f64 / (READINGS - 1) as f64;
        let losses = cells.windows(2).filter_map(|pair| {
            let (from, to) = (pair[0], pair[1]);
            let inside = from.params == to.params && from.flops <= flops + 1e-9 && flops <= to.flops + 1e-9;
            let part = (flops - from.flops) / (to.flops - from.flops);
            inside.then_some((from.loss + part * (to.loss - from.loss), from.params))
        });
        losses.min_by(|x, y| x.0.total_cmp(&y.0)).map(|(_, params)| (flops, params))
    };
    (0..READINGS).filter_map(reading).collect()
}

/// The slope of a straight line by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / count, sum.1 + point.1 / count));
    let both: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    both / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}
