//! Chooses the encoder's arithmetic on a backend that rounds products.
//!
//! Each layer amplifies the errors of the layers before it, so those of the encoder change the logits most. In a trained network
//! the amplification is small; in a random one, 8 bits in the encoder change the class of every fifth pixel (`benches/README.md`).

use std::collections::HashMap;

use super::encoder::Encoder;
use super::{Config, RtFormer};
use crate::backend::Backend;
use crate::error::Result;
use crate::model::noise::Noise;
use crate::model::parts::{Parameters, Parts};

/// By how much the encoder's rounding may change the logits of a noise photo: root mean square, relative. In bf16, with and without
/// Winograd's transforms, the embedded network changes by 0.6 and 0.3 %, the random networks of the parity tests by 14 to 16 and 5 to 6 %.
const LARGEST_ERROR: f64 = 0.02;
/// Height and width of the noise photo.
const NOISE: [usize; 2] = [128, 256];

impl<B: Backend> Encoder<B> {
    /// The encoder, and a second one that multiplies in f32 if the backend would round products.
    pub(super) fn both(parts: &mut Parts<'_, B>, config: &Config) -> Result<(Self, Option<Self>)> {
        let backend = parts.backend;
        if !backend.rounds_products() {
            return Ok((Self::load(parts, config)?, None));
        }
        let mut kept = Kept { source: parts.parameters, taken: HashMap::new() };
        let mut load = |exact| Self::load(&mut Parts { backend, parameters: &mut kept, exact }, config);
        Ok((load(false)?, Some(load(true)?)))
    }
}

impl<B: Backend> RtFormer<B> {
    /// Replaces the encoder by `exact`, unless that changes the logits of a noise photo by at most [`LARGEST_ERROR`].
    pub(super) fn limit_rounding(mut self, b: &B, exact: Encoder<B>) -> Result<Self> {
        let got = self.logits_of_noise(b)?;
        let rounding = std::mem::replace(&mut self.encoder, exact);
        let want = self.logits_of_noise(b)?;
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
        let off = square(&mut got.iter().zip(&want).map(|(a, b)| a - b));
        // Also false for NaN.
        if (off / square(&mut want.iter().copied())).sqrt() <= LARGEST_ERROR {
            self.encoder = rounding;
        }
        Ok(self)
    }

    fn logits_of_noise(&self, b: &B) -> Result<Vec<f32>> {
        let [height, width] = NOISE;
        let mut noise = Noise::new(1);
        // The variance of `uniform` is a third; that of normalised photos is about 1.
        let photo: Vec<f32> = (0..3 * height * width).map(|_| 3f32.sqrt() * noise.uniform()).collect();
        b.run(|| b.download(&self.forward(b, b.upload(&photo, [1, 3, height, width])?)?))
    }
}

/// Parameters that can be taken twice: a source of random ones would return others.
struct Kept<'a> {
    source: &'a mut dyn Parameters,
    taken: HashMap<String, Vec<f32>>,
}

impl Parameters for Kept<'_> {
    fn take(&mut self, name: &str, want: &[usize]) -> Result<Vec<f32>> {
        if let Some(taken) = self.taken.get(name) {
            return Ok(taken.clone());
        }
        let values = self.source.take(name, want)?;
        self.taken.insert(name.to_owned(), values.clone());
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Algorithm, Cpu, Isa};
    use crate::weights::Weights;

    /// Whether the encoder of the network on a CPU in bf16 multiplies in f32.
    fn is_exact(algorithm: Algorithm, config: &Config, parameters: &mut dyn Parameters) -> bool {
        let mut x3 = |b: Cpu| {
            let network = RtFormer::load(&b, config, parameters).unwrap();
            let mut noise = Noise::new(2);
            let photo: Vec<f32> = (0..3 * 32 * 32).map(|_| noise.uniform()).collect();
            let photo = b.upload(&photo, [1, 3, 32, 32]).unwrap();
            b.download(&network.encoder.forward(&b, photo, &mut |_, _| Ok(())).unwrap().1).unwrap()
        };
        let cpu = || Cpu::new(Isa::Scalar, 2).unwrap().algorithm(algorithm);
        x3(cpu()) == x3(cpu().bf16().unwrap())
    }

    #[test]
    fn an_encoder_whose_rounding_changes_the_logits_multiplies_in_f32() {
        for (path, exact) in
            [("weights/rtformer-slim-camvid.safetensors", false), ("tests/data/golden/tiny.safetensors", true)]
        {
            let weights = Weights::open(path).unwrap();
            let config = Config::of(&weights).unwrap();
            for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
                assert_eq!(is_exact(algorithm, &config, &mut weights.reader(path)), exact, "{path}, {algorithm:?}");
            }
        }
    }
}
