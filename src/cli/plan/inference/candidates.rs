//! The ways to run a network that are compared.

use std::fmt;

use rtformer::{Calibrated, ErrorKind, Policy, Precision, Segmenter, Size};

use super::super::super::console::Console;
use super::super::super::misuse;
use super::super::super::model::{named, opened, with_weights};
use super::super::quoted;
use super::InferenceArgs;

/// One way to run a network.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// As on the command line.
    pub(super) weights: String,
    pub(super) size: Size,
    pub(super) precision: Precision,
    /// The risk for which the rule in the weights is used; `None` for the full network.
    pub(super) epsilon: Option<f64>,
}

impl Candidate {
    pub(super) fn open(&self, args: &InferenceArgs) -> anyhow::Result<Segmenter> {
        let builder = with_weights(args.builder().size(self.size).precision(self.precision), &self.weights)?;
        opened(match self.epsilon {
            Some(epsilon) => builder.adaptive(epsilon).build(),
            None => builder.build(),
        })
    }

    /// The flags of `segment`, `eval` and `bench` for it.
    pub(super) fn flags(&self, args: &InferenceArgs) -> String {
        let Self { weights, size, precision, epsilon } = self;
        let mut flags = format!("--weights {} --size {size} --precision {precision}", quoted(weights));
        if let Some(epsilon) = epsilon {
            flags += &format!(" --adaptive {epsilon}");
        }
        if let Some(device) = args.device {
            flags += &format!(" --device {device}");
        }
        if let Some(threads) = args.threads {
            flags += &format!(" --threads {threads}");
        }
        if let Some(pad) = args.pad {
            flags += &format!(" --pad {pad}");
        }
        flags
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weights, size, precision, epsilon } = self;
        write!(f, "{weights}, {size}, {precision}")?;
        epsilon.map_or(Ok(()), |epsilon| write!(f, ", epsilon {epsilon}"))
    }
}

/// All combinations. The first is that of the first weights, size and precision: the plain network. For each epsilon, the weights that
/// were calibrated for it are added, at the size and the precision of their rule.
pub(super) fn list(
    args: &InferenceArgs,
    (width, height): (u32, u32),
    console: &Console,
) -> anyhow::Result<Vec<Candidate>> {
    let embedded = ["embedded".to_owned()];
    let weights = if args.weights.is_empty() { &embedded } else { args.weights.as_slice() };
    let part = |quarters: u32| {
        let [width, height] = [width, height].map(|side| (side * quarters / 4).max(1));
        Size::Within { width, height }
    };
    let sizes = if args.size.is_empty() { vec![Size::Native, part(3), part(2)] } else { args.size.clone() };
    let precisions = if args.precision.is_empty() { available(args, &weights[0])? } else { args.precision.clone() };
    let mut all = Vec::new();
    for weights in weights {
        for &precision in &precisions {
            let plain = |&size| Candidate { weights: weights.clone(), size, precision, epsilon: None };
            all.extend(sizes.iter().map(plain));
        }
    }
    let weights = weights.iter().filter(|_| !args.epsilon.is_empty());
    let adaptive = weights.map(|weights| adaptive(args, weights, &all, console)).collect::<anyhow::Result<Vec<_>>>()?;
    all.extend(adaptive.concat());
    Ok(all)
}

/// The adaptive versions of these weights' combinations. What there is none for is reported.
fn adaptive(
    args: &InferenceArgs,
    weights: &str,
    plain: &[Candidate],
    console: &Console,
) -> anyhow::Result<Vec<Candidate>> {
    let none = |reason: &str| {
        console.note(&format!("note: {weights}: no points with --adaptive: {reason}"));
        Ok(Vec::new())
    };
    let Some(rule) = Calibrated::of(&named(weights)?)? else {
        return none("it is not calibrated; use a file that `rtformer calibrate` wrote");
    };
    if rule.policy() == Policy::Full {
        return none("no saving was found when it was calibrated, so its rule is the full network");
    }
    let Calibrated { size, precision, .. } = &rule;
    let fits = |of: &&Candidate| {
        of.weights == weights && of.size.to_string() == *size && of.precision.to_string() == *precision
    };
    let Some(at) = plain.iter().find(fits) else {
        return none(&format!("its rule is for the size {size} and the precision {precision}; compare these as well"));
    };
    let mut usable = Vec::new();
    for &epsilon in &args.epsilon {
        let candidate = Candidate { epsilon: Some(epsilon), ..at.clone() };
        // Fails if the rule is for a larger risk, other tensors or another padding, and on a GPU.
        match candidate.open(args) {
            Ok(_) => usable.push(candidate),
            Err(error) => console.note(&format!("note: no point with --adaptive {epsilon}: {error}")),
        }
    }
    Ok(usable)
}

/// The precisions of the device, its default first.
fn available(args: &InferenceArgs, weights: &str) -> anyhow::Result<Vec<Precision>> {
    let builder = with_weights(args.builder(), weights)?;
    let mut all = vec![opened(builder.clone().build())?.precision()];
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        if all.contains(&precision) {
            continue;
        }
        match builder.clone().precision(precision).build() {
            Ok(_) => all.push(precision),
            Err(error) if error.kind() == ErrorKind::Device => {} // the device lacks it
            Err(error) => return Err(misuse(error.to_string())),
        }
    }
    Ok(all)
}
