//! The antecedent generator: emits the atoms of a rule, one after the other, from a region's features.
//!
//! Three layers of the width [`WIDTH`]: `region = relu(encoder(features))`, a GRU whose input is `region + embedding(last atom)`, and
//! a score for each atom and for the end of the rule.
//!
//! Source: SELOR, arXiv:2210.07024, section 3.3.

use crate::error::Result;
use crate::weights::Weights;

/// The width of every layer.
pub(super) const WIDTH: usize = 128;

/// `y = weight x + bias`.
struct Dense {
    outputs: usize,
    /// `[inputs][outputs]`, so that the inner loop runs over neighbours.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Dense {
    /// From `weight`, `[outputs][inputs]`.
    fn new(weight: &[f32], bias: Vec<f32>) -> Self {
        let outputs = bias.len();
        let inputs = weight.len() / outputs.max(1);
        let mut turned = vec![0.0; weight.len()];
        for (output, row) in weight.chunks_exact(inputs.max(1)).enumerate() {
            row.iter().enumerate().for_each(|(input, value)| turned[input * outputs + output] = *value);
        }
        Self { outputs, weight: turned, bias }
    }

    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut y = self.bias.clone();
        for (row, x) in self.weight.chunks_exact(self.outputs).zip(x).filter(|(_, x)| **x != 0.0) {
            y.iter_mut().zip(row).for_each(|(y, weight)| *y += weight * x);
        }
        y
    }
}

/// The generator's parameters.
pub(super) struct Generator {
    mean: Vec<f32>,
    std: Vec<f32>,
    encoder: Dense,
    /// The reset, update and new gates of the GRU.
    from_input: Dense,
    from_state: Dense,
    /// `from_input` of each atom's embedding, without the bias.
    from_atoms: Vec<Vec<f32>>,
    head: Dense,
}

/// A rule in the making.
pub(super) struct State {
    from_region: Vec<f32>,
    hidden: Vec<f32>,
}

impl Generator {
    /// Takes the tensors `explainer.*` for `atoms` atoms and `channels` features.
    ///
    /// # Errors
    /// Those of [`Reader::take`](crate::weights::Reader::take).
    pub(super) fn load(weights: &Weights, atoms: usize, channels: usize) -> Result<Self> {
        let mut reader = weights.reader(format!("an explainer with {atoms} atoms for {channels} features"));
        let mut take = |name: &str, shape: &[usize]| reader.take(&format!("explainer.{name}"), shape);
        let embedding = take("embedding.weight", &[atoms, WIDTH])?;
        let from_input = Dense::new(&take("gru.weight_ih", &[3 * WIDTH, WIDTH])?, take("gru.bias_ih", &[3 * WIDTH])?);
        let unbiased = Dense { bias: vec![0.0; 3 * WIDTH], weight: from_input.weight.clone(), ..from_input };
        Ok(Self {
            mean: take("mean", &[channels])?,
            std: take("std", &[channels])?,
            encoder: Dense::new(&take("encoder.weight", &[WIDTH, channels])?, take("encoder.bias", &[WIDTH])?),
            from_atoms: embedding.chunks_exact(WIDTH).map(|embedding| unbiased.apply(embedding)).collect(),
            from_input,
            from_state: Dense::new(&take("gru.weight_hh", &[3 * WIDTH, WIDTH])?, take("gru.bias_hh", &[3 * WIDTH])?),
            head: Dense::new(&take("head.weight", &[atoms + 1, WIDTH])?, take("head.bias", &[atoms + 1])?),
        })
    }

    /// Starts a rule for a region with these features, averaged over the region.
    pub(super) fn start(&self, features: &[f32]) -> State {
        let scaled = features.iter().zip(self.mean.iter().zip(&self.std)).map(|(x, (mean, std))| (x - mean) / std);
        let region: Vec<f32> =
            self.encoder.apply(&scaled.collect::<Vec<_>>()).into_iter().map(|y| y.max(0.0)).collect();
        State { from_region: self.from_input.apply(&region), hidden: vec![0.0; WIDTH] }
    }

    /// The scores of all atoms, and last that of the end, after the atom `last`.
    pub(super) fn next(&self, state: &mut State, last: Option<usize>) -> Vec<f32> {
        let mut input = state.from_region.clone();
        if let Some(atom) = last {
            input.iter_mut().zip(&self.from_atoms[atom]).for_each(|(sum, value)| *sum += value);
        }
        let kept = self.from_state.apply(&state.hidden);
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        for i in 0..WIDTH {
            let reset = sigmoid(input[i] + kept[i]);
            let update = sigmoid(input[WIDTH + i] + kept[WIDTH + i]);
            let new = (input[2 * WIDTH + i] + reset * kept[2 * WIDTH + i]).tanh();
            state.hidden[i] = (1.0 - update) * new + update * state.hidden[i];
        }
        self.head.apply(&state.hidden)
    }
}
