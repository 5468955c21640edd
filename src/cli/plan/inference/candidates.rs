//! The ways to run a network that are compared.

use std::fmt;

use rtformer::{ErrorKind, Precision, Segmenter, Size};

use super::super::super::misuse;
use super::super::super::model::{opened, with_weights};
use super::InferenceArgs;

/// One way to run a network.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// As on the command line.
    pub(super) weights: String,
    pub(super) size: Size,
    pub(super) precision: Precision,
}

impl Candidate {
    pub(super) fn open(&self, args: &InferenceArgs) -> anyhow::Result<Segmenter> {
        let builder = args.builder().size(self.size).precision(self.precision);
        opened(with_weights(builder, &self.weights)?.build())
    }

    /// The flags of `segment`, `eval` and `bench` for it.
    pub(super) fn flags(&self, args: &InferenceArgs) -> String {
        let Self { weights, size, precision } = self;
        let mut flags = format!("--weights {} --size {size} --precision {precision}", quoted(weights));
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
        let Self { weights, size, precision } = self;
        write!(f, "{weights}, {size}, {precision}")
    }
}

/// A word of a command line, in quotes if it needs them.
pub(super) fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:,+@%=".contains(letter);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// All combinations. The first is that of the first weights, size and precision: the plain network.
pub(super) fn list(args: &InferenceArgs, (width, height): (u32, u32)) -> anyhow::Result<Vec<Candidate>> {
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
            all.extend(sizes.iter().map(|&size| Candidate { weights: weights.clone(), size, precision }));
        }
    }
    Ok(all)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        for (word, want) in [
            ("embedded", "embedded"),
            ("runs/mine-1.safetensors", "runs/mine-1.safetensors"),
            ("my weights", "'my weights'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), want);
        }
    }
}
