//! Compute-optimal training: how large a network and how many crops a budget is best spent on.

mod table;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use rtformer::plan::{Fit, Interval, Run, fit};

use super::Outcome;

/// Predict the best network size and number of crops for a training budget from small runs
///
/// Fits L = E + A / N^alpha + B / D^beta to finished training runs: L is the cross entropy on held-out photos, N the number of
/// parameters, D the number of crops. Prints the law and the best N and D for each budget, with 80 % bootstrap intervals. The FLOPs of a
/// crop are taken from the runs. Each run needs its own complete learning-rate schedule.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A table of runs, CSV with a header: the columns params, crops, flops and cross_entropy, and optionally unique, the number of
    /// different photos. Other columns are ignored
    #[arg(long, value_name = "FILE.csv")]
    fit: PathBuf,

    /// Also predict for this budget, training FLOPs, such as 1.6e14; without it, only for the budgets in the file
    #[arg(long, value_name = "C", value_parser = budget)]
    flops: Option<f64>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn budget(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(flops) if flops > 0.0 && flops.is_finite() => Ok(flops),
        _ => Err("expected a positive number of FLOPs, such as 1.6e14".into()),
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let runs = table::read(&args.fit)?;
    let fit = fit(&runs, args.flops.as_slice()).map_err(|error| anyhow::anyhow!("{}: {error}", args.fit.display()))?;
    let text = if args.json { serde_json::to_string_pretty(&fit)? + "\n" } else { text(&fit, &runs) };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

/// For a person to read.
fn text(fit: &Fit, runs: &[Run]) -> String {
    let mut text =
        format!("L = E + A / N^alpha + B / D^beta, {} runs, {:.0} % intervals\n\n", fit.runs, 100.0 * fit.interval);
    let law = [("E", fit.e), ("A", fit.a), ("alpha", fit.alpha), ("B", fit.b), ("beta", fit.beta)];
    let more = fit.repeats.map(|repeats| ("R", repeats));
    for (name, interval) in law.into_iter().chain(more).chain([("N_opt ~ C^", fit.params_exponent)]) {
        let _ = writeln!(text, "  {name:10}  {}", shown(&interval));
    }
    let _ = writeln!(text, "\n  runs lie {:.1} % around the law", 100.0 * fit.deviation);
    let repeated = runs.iter().any(|run| run.unique.is_some_and(|unique| unique < run.crops));
    match fit.unique {
        Some(unique) => {
            let _ = writeln!(text, "  the table below assumes {unique} different photos");
        }
        None if repeated => text.push_str(
            "  repeated photos count as new ones: to measure what they are worth, add runs of one budget with fewer photos\n",
        ),
        None => {}
    }
    let _ = writeln!(text, "\n  {:10}  {:28}  {:28}  cross entropy", "FLOPs", "parameters N", "crops D");
    for optimum in &fit.optimum {
        let [params, crops, loss] = [optimum.params, optimum.crops, optimum.cross_entropy].map(|of| shown(&of));
        let flops = format!("{:.2e}", optimum.flops);
        let _ = writeln!(text, "  {flops:10}  {params:28}  {crops:28}  {loss}");
    }
    text
}

/// `0.45 (0.41 to 0.52)`, with no more digits than the interval supports: down to the first digit of half its width.
fn shown(Interval { value, low, high }: &Interval) -> String {
    let half = 0.5 * (high - low);
    let place = if half > 0.0 { half.log10().floor() } else { value.abs().max(1e-3).log10().floor() - 3.0 };
    let number = |number: f64| {
        let size = if number == 0.0 { place } else { number.abs().log10().floor() };
        if place < -6.0 || size >= 5.0 {
            format!("{number:.*e}", (size - place).clamp(0.0, 6.0) as usize)
        } else {
            let unit = 10_f64.powf(place);
            format!("{:.*}", (-place).max(0.0) as usize, (number / unit).round() * unit)
        }
    };
    format!("{} ({} to {})", number(*value), number(*low), number(*high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_their_intervals_support() {
        let cases = [
            ((0.4534, 0.4123, 0.5211), "0.45 (0.41 to 0.52)"),
            ((0.4534, 0.4532, 0.4537), "0.4534 (0.4532 to 0.4537)"),
            ((0.0, 0.0, 0.3), "0.0 (0.0 to 0.3)"),             // a bound of the fit
            ((4321.0, 3100.0, 5900.0), "4000 (3000 to 6000)"), // no digits below the first of 1400
            ((843_210.0, 612_345.0, 1_250_000.0), "8e5 (6e5 to 1.2e6)"),
            ((843_210.0, 812_345.0, 863_456.0), "8.4e5 (8.1e5 to 8.6e5)"),
            ((40.0, 40.0, 40.0), "40.00 (40.00 to 40.00)"), // no noise
            ((f64::NAN, 0.0, f64::INFINITY), "NaN (0e0 to inf)"), // no panic
        ];
        for ((value, low, high), want) in cases {
            assert_eq!(shown(&Interval { value, low, high }), want);
        }
    }
}
