//! The robust fit of a law to runs: a grid over the two exponents, then Gauss-Newton on all five numbers.

/// The smallest threshold of the Huber loss on `ln L`, and the first (Hoffmann et al., arXiv:2203.15556, section D.2).
const SMALLEST_DELTA: f64 = 1e-3;

/// The threshold in standard deviations that keeps 95 % of the efficiency of least squares on normal noise (Huber, 1964).
const DELTA_IN_DEVIATIONS: f64 = 1.345;

/// Standard deviations of normal noise in its median absolute value.
const DEVIATION_IN_MEDIANS: f64 = 1.4826;

/// The exponents that are searched. The lowest is nearly a logarithm.
const EXPONENTS: (f64, f64) = (0.01, 3.0);

/// Exponents on each axis of the grid, at equal ratios.
const GRID: usize = 10;

/// Nodes of the grid from which Gauss-Newton starts.
const STARTS: usize = 4;

/// `E, a, b, alpha, beta`, where `a = A / N0^alpha` and `b = B / D0^beta` are the terms at the geometric mean of the runs. Unlike `A` and
/// `B`, they are of the order of the loss and hardly correlated with the exponents.
pub(super) type Numbers = [f64; 5];

/// Runs in the coordinates of the fit.
#[derive(Clone, Debug)]
pub(super) struct Points {
    /// `ln(N / N0)`, `ln(D / D0)`, `ln L` of each run.
    rows: Vec<[f64; 3]>,
    /// `ln N0` and `ln D0`, the means.
    pub(super) centre: [f64; 2],
    /// Residuals of `ln L` below it count quadratically, others linearly.
    delta: f64,
}

impl Points {
    /// From `N`, `D` and `L` of each run, all positive.
    pub(super) fn new(runs: impl Iterator<Item = [f64; 3]>) -> Self {
        let mut rows: Vec<_> = runs.map(|run| run.map(f64::ln)).collect();
        let mean = |axis: usize| rows.iter().map(|row| row[axis]).sum::<f64>() / rows.len() as f64;
        let centre = [mean(0), mean(1)];
        for row in &mut rows {
            row[0] -= centre[0];
            row[1] -= centre[1];
        }
        Self { rows, centre, delta: SMALLEST_DELTA }
    }

    /// The same runs with other numbers of crops, in the same coordinates.
    pub(super) fn with_crops(&self, crops: impl Iterator<Item = f64>) -> Self {
        let mut points = self.clone();
        for (row, crops) in points.rows.iter_mut().zip(crops) {
            row[1] = crops.ln() - self.centre[1];
        }
        points
    }

    /// The standard deviation of `ln L` around a fit, estimated by the median, which outliers hardly change.
    pub(super) fn deviation(&self, at: &Numbers) -> f64 {
        let mut sizes: Vec<_> = self.rows.iter().map(|row| residual(row, at).abs()).collect();
        sizes.sort_by(f64::total_cmp);
        // The five numbers take five degrees of freedom.
        DEVIATION_IN_MEDIANS * sizes[usize::midpoint(sizes.len(), 5).min(sizes.len() - 1)]
    }

    /// Sets the threshold of the Huber loss for noise of a standard deviation. A threshold far below the noise would make the fit a median
    /// regression, whose error is a quarter larger.
    pub(super) fn adapt(&mut self, deviation: f64) {
        self.delta = (DELTA_IN_DEVIATIONS * deviation).max(SMALLEST_DELTA);
    }

    /// The weighted sum of the Huber losses. `weights` has one number for each run.
    fn loss(&self, weights: &[f64], at: &Numbers) -> f64 {
        self.rows.iter().zip(weights).map(|(row, weight)| weight * huber(self.delta, residual(row, at))).sum()
    }

    /// The numbers that minimise the weighted Huber loss, and that loss.
    pub(super) fn solve(&self, weights: &[f64]) -> (f64, Numbers) {
        let ratio = (EXPONENTS.1 / EXPONENTS.0).powf(1.0 / (GRID - 1) as f64);
        let exponents: [f64; GRID] = std::array::from_fn(|i| EXPONENTS.0 * ratio.powi(i as i32));
        let mut nodes = Vec::with_capacity(GRID * GRID);
        for alpha in exponents {
            for beta in exponents {
                nodes.push(self.linear(weights, alpha, beta));
            }
        }
        nodes.sort_by(|x, y| x.0.total_cmp(&y.0));
        let best = nodes[..STARTS].iter().map(|node| self.descend(weights, node.1));
        best.min_by(|x, y| x.0.total_cmp(&y.0)).unwrap_or(nodes[0])
    }

    /// The best `E, a, b >= 0` for given exponents: iteratively reweighted non-negative least squares on relative residuals.
    fn linear(&self, weights: &[f64], alpha: f64, beta: f64) -> (f64, Numbers) {
        let terms: Vec<_> = self.rows.iter().map(|[n, d, _]| [1.0, (-alpha * n).exp(), (-beta * d).exp()]).collect();
        let mut predicted: Vec<_> = self.rows.iter().map(|[_, _, y]| y.exp()).collect();
        let mut best = (f64::INFINITY, [0.0; 5]);
        for round in 0..12 {
            let (mut gram, mut right) = ([[0.0; 3]; 3], [0.0; 3]);
            for (((term, &p), [_, _, y]), weight) in terms.iter().zip(&predicted).zip(&self.rows).zip(weights) {
                let residual = p.ln() - y;
                let w = if round == 0 { *weight } else { weight * self.delta / residual.abs().max(self.delta) };
                for i in 0..3 {
                    right[i] += w * term[i] / p * (1.0 - residual);
                    for j in 0..3 {
                        gram[i][j] += w * term[i] * term[j] / (p * p);
                    }
                }
            }
            let [e, a, b] = non_negative(&gram, &right);
            let at = [e, a, b, alpha, beta];
            let loss = self.loss(weights, &at);
            if loss >= best.0 * (1.0 - 1e-6) || !loss.is_finite() {
                break;
            }
            best = (loss, at);
            for (p, term) in predicted.iter_mut().zip(&terms) {
                *p = e + a * term[1] + b * term[2];
            }
        }
        best
    }

    /// Gauss-Newton with Levenberg's damping and bounds, on residuals of `ln L` that are reweighted in each step.
    pub(super) fn descend(&self, weights: &[f64], from: Numbers) -> (f64, Numbers) {
        let bounds = [(0.0, f64::MAX), (0.0, f64::MAX), (0.0, f64::MAX), EXPONENTS, EXPONENTS];
        let (mut at, mut loss) = (from, self.loss(weights, &from));
        let (mut damping, mut idle) = (1e-3, 0);
        for _ in 0..400 {
            let (mut hessian, mut gradient) = ([[0.0; 5]; 5], [0.0; 5]);
            let [e, a, b, alpha, beta] = at;
            for (&[n, d, y], weight) in self.rows.iter().zip(weights) {
                let (u, v) = ((-alpha * n).exp(), (-beta * d).exp());
                let p = e + a * u + b * v;
                let residual = p.ln() - y;
                let w = weight * self.delta / residual.abs().max(self.delta);
                let slope = [1.0 / p, u / p, v / p, -n * a * u / p, -d * b * v / p];
                for i in 0..5 {
                    gradient[i] += w * slope[i] * residual;
                    for j in 0..=i {
                        hessian[i][j] += w * slope[i] * slope[j];
                    }
                }
            }
            // A number at its bound stays there if the loss would push it further out.
            let free: Vec<usize> = (0..5)
                .filter(|&i| {
                    !((at[i] <= bounds[i].0 && gradient[i] > 0.0) || (at[i] >= bounds[i].1 && gradient[i] < 0.0))
                })
                .collect();
            let mut system = [[0.0; 5]; 5];
            for (i, &row) in free.iter().enumerate() {
                for (j, &column) in free[..=i].iter().enumerate() {
                    system[i][j] = hessian[row][column];
                }
                system[i][i] += damping * hessian[row][row] + 1e-14;
            }
            let mut step = [0.0; 5];
            free.iter().enumerate().for_each(|(i, &row)| step[i] = -gradient[row]);
            cholesky_solve(&mut system, &mut step, free.len());
            let mut next = at;
            for (i, &row) in free.iter().enumerate() {
                next[row] = (at[row] + step[i]).clamp(bounds[row].0, bounds[row].1);
            }
            let found = self.loss(weights, &next);
            if found < loss {
                idle = if loss - found < 1e-9 * loss { idle + 1 } else { 0 };
                (at, loss, damping) = (next, found, (damping * 0.2).max(1e-9));
            } else {
                (damping, idle) = (damping * 4.0, idle + usize::from(damping > 1e3));
            }
            if idle > 2 || damping > 1e8 || loss < 1e-26 {
                break;
            }
        }
        (loss, at)
    }
}

/// `ln` of the predicted loss minus `ln L`.
fn residual(&[n, d, y]: &[f64; 3], &[e, a, b, alpha, beta]: &Numbers) -> f64 {
    (e + a * (-alpha * n).exp() + b * (-beta * d).exp()).ln() - y
}

fn huber(delta: f64, residual: f64) -> f64 {
    let size = residual.abs();
    if size <= delta { 0.5 * size * size } else { delta * (size - 0.5 * delta) }
}

/// The `x >= 0` that minimises `x' gram x - 2 right' x`: tries every set of positive numbers, of which there are seven.
fn non_negative(gram: &[[f64; 3]; 3], right: &[f64; 3]) -> [f64; 3] {
    let mut best = (0.0, [0.0; 3]);
    for set in 1..8_usize {
        let members: Vec<usize> = (0..3).filter(|i| (set >> i) & 1 == 1).collect();
        let (mut system, mut part) = ([[0.0; 5]; 5], [0.0; 5]);
        for (i, &row) in members.iter().enumerate() {
            for (j, &column) in members[..=i].iter().enumerate() {
                system[i][j] = gram[row][column];
            }
            system[i][i] *= 1.0 + 1e-13;
            part[i] = right[row];
        }
        cholesky_solve(&mut system, &mut part, members.len());
        let mut x = [0.0; 3];
        members.iter().enumerate().for_each(|(i, &row)| x[row] = part[i]);
        let value: f64 = (0..3).map(|i| x[i] * ((0..3).map(|j| gram[i][j] * x[j]).sum::<f64>() - 2.0 * right[i])).sum();
        if x.iter().all(|x| *x >= 0.0) && value < best.0 {
            best = (value, x);
        }
    }
    best.1
}

/// Solves `matrix x = right` in place for the first `size` rows. `matrix` is symmetric; only its lower triangle is read.
///
/// A direction in which the matrix is singular gets zero.
pub(super) fn cholesky_solve(matrix: &mut [[f64; 5]; 5], right: &mut [f64; 5], size: usize) {
    for i in 0..size {
        let diagonal = matrix[i][i];
        for j in 0..=i {
            let sum = matrix[i][j] - (0..j).map(|k| matrix[i][k] * matrix[j][k]).sum::<f64>();
            matrix[i][j] = if j < i {
                sum / matrix[j][j]
            } else if sum > 1e-15 * diagonal {
                sum.sqrt()
            } else {
                f64::INFINITY
            };
        }
    }
    for i in 0..size {
        right[i] = (right[i] - (0..i).map(|k| matrix[i][k] * right[k]).sum::<f64>()) / matrix[i][i];
    }
    for i in (0..size).rev() {
        right[i] = (right[i] - (i + 1..size).map(|k| matrix[k][i] * right[k]).sum::<f64>()) / matrix[i][i];
    }
}
