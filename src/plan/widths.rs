//! Parameters and FLOPs of a network by its width.

use serde::Serialize;

use super::{Interval, Run};
use crate::error::{Error, Result};

/// Widths are multiples of it: those that train and run about as fast as their FLOPs suggest.
const STEP: u32 = 4;

/// How much wider than the widest network of the runs a recommended one can be.
const REACH: u32 = 8;

/// Parameters and FLOPs per crop for each width, from runs whose widths are known.
///
/// All widths of a network are multiples of one number, so both are polynomials of the second degree in it. Three different widths determine
/// them exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Widths {
    params: [f64; 3],
    flops: [f64; 3],
    /// The smallest and the largest width of the runs.
    pub range: (u32, u32),
    /// The largest width to choose.
    widest: u32,
}

/// What to train, and what to expect of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// Training FLOPs of the recommended network.
    pub flops: f64,
    /// Base channels of the network.
    pub width: Interval,
    /// Parameters.
    pub params: Interval,
    /// Training crops.
    pub crops: Interval,
    /// The expected cross entropy of the recommended network, in nats. The interval is that of the law; a single run varies more.
    pub cross_entropy: Interval,
}

impl Widths {
    /// From each run's width.
    ///
    /// # Errors
    /// [`Error::Runs`] if there are fewer than three widths, if parameters or FLOPs per crop do not grow with the width, or if they are not
    /// polynomials of it: then the runs differ in classes or in the size of the crops.
    pub fn of(runs: &[(u32, Run)]) -> Result<Self> {
        let mut widths: Vec<_> = runs.iter().map(|(width, _)| *width).collect();
        widths.sort_unstable();
        widths.dedup();
        if widths.len() < 3 {
            return Err(Error::Runs(format!("found {} of at least 3 widths", widths.len())));
        }
        let (smallest, largest) = (widths[0], widths[widths.len() - 1]);
        let fitted = |what: &str, of: &dyn Fn(&Run) -> f64| {
            let fault = |width: u32, got: f64, want: f64, whose: &str| {
                Err(Error::Runs(format!(
                    "a run of width {width} has {got:.4e} {what}, {whose} {want:.4e}; do the runs differ in classes or in the size of the crops?"
                )))
            };
            let first = |width: u32| runs.iter().find(|run| run.0 == width).map_or(f64::NAN, |run| of(&run.1));
            if let Some((width, run)) = runs.iter().find(|(width, run)| apart(of(run), first(*width))) {
                return fault(*width, of(run), first(*width), "another run of this width");
            }
            let nodes = [smallest, widths[widths.len() / 2], largest];
            let through = parabola_through(nodes.map(|width| (f64::from(width), first(width))));
            match widths.iter().find(|&&width| apart(first(width), at(through, f64::from(width)))) {
                Some(&width) => fault(width, first(width), at(through, f64::from(width)), "the other widths suggest"),
                None => Ok(through),
            }
        };
        let found = Self {
            params: fitted("parameters", &|run| run.params)?,
            flops: fitted("FLOPs per crop", &|run| run.flops / run.crops)?,
            range: (smallest, largest),
            widest: largest.saturating_mul(REACH).max(STEP),
        };
        let grow = |of: &dyn Fn(u32) -> f64| widths.windows(2).all(|pair| of(pair[0]) < of(pair[1]));
        if grow(&|width| found.params(width))
            && grow(&|width| found.flops_per_crop(width))
            && found.choices().next().is_some()
        {
            Ok(found)
        } else {
            Err(Error::Runs(
                "parameters and FLOPs per crop do not grow with the width; are the columns mixed up?".into(),
            ))
        }
    }

    /// These networks without those that are wider than `widest`.
    pub fn up_to(&self, widest: u32) -> Self {
        Self { widest: widest.min(self.widest), ..self.clone() }
    }

    /// Parameters of the network with a width.
    pub fn params(&self, width: u32) -> f64 {
        at(self.params, f64::from(width))
    }

    /// FLOPs of one crop, forward and backward.
    pub fn flops_per_crop(&self, width: u32) -> f64 {
        at(self.flops, f64::from(width))
    }

    /// The widths to choose from: multiples of four.
    pub fn choices(&self) -> impl Iterator<Item = u32> + '_ {
        // Below the runs' widths the polynomials may turn negative.
        (STEP..=self.widest)
            .step_by(STEP as usize)
            .filter(|&width| self.params(width) > 0.0 && self.flops_per_crop(width) > 0.0)
    }
}

/// Whether two numbers differ by more than one per cent.
fn apart(got: f64, want: f64) -> bool {
    ((got - want) / want).abs() > 0.01
}

fn at([a, b, c]: [f64; 3], x: f64) -> f64 {
    a + x * (b + x * c)
}

/// The coefficients of the parabola through three points, by Newton's divided differences.
fn parabola_through([(x0, y0), (x1, y1), (x2, y2)]: [(f64, f64); 3]) -> [f64; 3] {
    let (first, second) = ((y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1));
    let c = (second - first) / (x2 - x0);
    [y0 - first * x0 + c * x0 * x1, first - c * (x0 + x1), c]
}
