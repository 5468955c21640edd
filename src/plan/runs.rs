//! What a set of runs must have, and its budgets.

use super::Run;
use super::law::Law;
use crate::error::{Error, Result};

/// Five numbers are fitted; fewer runs leave nothing to estimate the noise from.
const FEWEST_RUNS: usize = 8;

/// Budgets that differ by less are one budget: the number of crops is rounded to whole batches.
pub(super) const SAME_BUDGET: f64 = 1.05;

/// The budgets of the runs, smallest first: runs whose FLOPs are nearly equal share one, their geometric mean.
pub(super) fn budgets_of(runs: &[Run]) -> Vec<f64> {
    let mut flops: Vec<_> = runs.iter().map(|run| run.flops).collect();
    flops.sort_by(f64::total_cmp);
    let mut budgets = Vec::new();
    while let Some(&first) = flops.first() {
        let count = flops.iter().take_while(|&&flops| flops <= first * SAME_BUDGET).count();
        let equal = flops[count - 1] == first;
        let mean = flops[..count].iter().map(|flops| flops.ln()).sum::<f64>() / count as f64;
        budgets.push(if equal { first } else { mean.exp() });
        flops.drain(..count);
    }
    budgets
}

fn check(what: &str, got: f64) -> Result<()> {
    let good = got > 0.0 && got.is_finite();
    if good { Ok(()) } else { Err(Error::Input(format!("{what} is {got}, expected a positive number"))) }
}

pub(super) fn check_budgets(budgets: &[f64]) -> Result<()> {
    budgets.iter().try_for_each(|&budget| check("the budget in FLOPs", budget))
}

pub(super) fn check_numbers(runs: &[Run]) -> Result<()> {
    for (index, run) in runs.iter().enumerate() {
        let unique = run.unique.unwrap_or(1.0);
        let named = [("params", run.params), ("crops", run.crops), ("flops", run.flops)];
        for (name, number) in named.into_iter().chain([("cross_entropy", run.cross_entropy), ("unique", unique)]) {
            check(&format!("run {}: `{name}`", index + 1), number)?;
        }
    }
    Ok(())
}

/// Refuses a law in which size or crops make no difference: it has no best size.
pub(super) fn check_terms(law: &Law) -> Result<()> {
    let lack = match (law.a > 0.0, law.b > 0.0) {
        (true, true) => return Ok(()),
        (false, true) => "more `params` do not lower the loss; add smaller sizes, or more crops for each",
        (true, false) => "more `crops` do not lower the loss; add runs with fewer crops",
        (false, false) => "neither more `params` nor more `crops` lower the loss",
    };
    Err(Error::Runs(format!("the best size is not determined: in these runs, {lack}")))
}

/// Refuses runs that do not determine the five numbers, and names everything that is missing.
pub(super) fn check_enough(runs: &[Run], budgets: &[f64]) -> Result<()> {
    let distinct = |of: &dyn Fn(&Run) -> (u64, u64)| {
        let mut values: Vec<_> = runs.iter().map(of).collect();
        values.sort_unstable();
        values.dedup();
        values.len()
    };
    let pairs = distinct(&|run| (run.params.to_bits(), run.crops.to_bits()));
    let rows = [
        (runs.len(), FEWEST_RUNS, "runs"),
        (budgets.len(), 2, "budgets (`flops` that differ by more than 5 %)"),
        (distinct(&|run| (run.params.to_bits(), 0)), 3, "model sizes (`params`)"),
        (distinct(&|run| (run.crops.to_bits(), 0)), 3, "numbers of `crops`"),
        (pairs, 6, "different pairs of `params` and `crops` (other seeds of a pair count once)"),
    ];
    let missing: Vec<_> = (rows.iter().filter(|(found, needed, _)| found < needed))
        .map(|(found, needed, what)| format!("found {found} of at least {needed} {what}"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Runs(missing.join("; "))) }
}
