//! Chooses the encoder's arithmetic on a backend that rounds products.
//!
//! Each layer amplifies the errors of the layers before it, so those of the encoder change the logits most. In the embedded network the
//! amplification is small; in random ones, 8 bits change the class of up to a fifth of the pixels (`benches/README.md`).

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
    pub(super) fn load_for(parts: &mut Parts<'_, B>, config: &Config) -> Result<(Self, Option<Self>)> {
        let backend = parts.backend;
        if !backend.rounds_products() {
            return Ok((Self::load(parts, config)?, None));
        }
        let mut twice = Twice { source: parts.parameters, taken: HashMap::new() };
        let mut load = |exact| Self::load(&mut Parts { backend, parameters: &mut twice, exact }, config);
        Ok((load(false)?, Some(load(true)?)))
    }
}

impl<B: Backend> RtFormer<B> {
    /// Replaces the encoder by `exact`, unless that changes the logits of a noise photo by at most [`LARGEST_ERROR`].
    pub(super) fn limit_rounding(mut self, b: &B, exact: Encoder<B>) -> Result<Self> {
        b.ready()?;
        // Afterwards, the backend holds no share of the encoder that is not used.
        b.finish_packing()?;
        let got = self.logits_of_noise(b)?;
        let rounding = std::mem::replace(&mut self.encoder, exact);
        let want = self.logits_of_noise(b)?;
        let off = sum_of_squares(got.iter().zip(&want).map(|(a, b)| a - b));
        // Not with NaN.
        let harmless = (off / sum_of_squares(want)).sqrt() <= LARGEST_ERROR;
        if harmless {
            self.encoder = rounding;
        }
        self.exact_encoder = !harmless;
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

fn sum_of_squares(values: impl IntoIterator<Item = f32>) -> f64 {
    values.into_iter().map(|v| f64::from(v).powi(2)).sum()
}

/// Parameters that can be taken twice: a source of random ones would return others.
struct Twice<'a> {
    source: &'a mut dyn Parameters,
    taken: HashMap<String, Vec<f32>>,
}

impl Parameters for Twice<'_> {
    fn take(&mut self, name: &str, want: &[usize]) -> Result<Vec<f32>> {
        if let Some(taken) = self.taken.remove(name) {
            return Ok(taken);
        }
        let values = self.source.take(name, want)?;
        self.taken.insert(name.to_owned(), values.clone());
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Algorithm, Cpu, Element, Isa};
    use crate::weights::Weights;

    /// `x3` of a small photo, and whether the encoder multiplies in f32 on a backend that rounds products.
    fn x3(b: &Cpu, config: &Config, parameters: &mut dyn Parameters) -> (Vec<f32>, bool) {
        let network = RtFormer::load(b, config, parameters).unwrap();
        let mut noise = Noise::new(2);
        let photo: Vec<f32> = (0..3 * 32 * 32).map(|_| noise.uniform()).collect();
        let photo = b.upload(&photo, [1, 3, 32, 32]).unwrap();
        let (_, x3) = network.encoder.forward(b, photo, &mut |_, _| Ok(())).unwrap();
        (b.download(&x3).unwrap(), network.exact_encoder)
    }

    #[test]
    fn an_encoder_whose_rounding_changes_the_logits_multiplies_in_f32() {
        let trained = Weights::open("weights/rtformer-slim-camvid.safetensors").unwrap();
        let random = Weights::open("tests/data/golden/tiny.safetensors").unwrap();
        let config = |weights| Config::of(weights).unwrap();
        for isa in Isa::available().into_iter().filter(|isa| isa.multiplies(Element::Bf16)) {
            for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
                let check = |what: &str, exact: bool, x3: &dyn Fn(&Cpu) -> (Vec<f32>, bool)| {
                    let cpu = || Cpu::new(isa, 2).unwrap().algorithm(algorithm);
                    let (want, got) = (x3(&cpu()), x3(&cpu().bf16().unwrap()));
                    let what = format!("{what}, {algorithm:?} on {}", isa.name());
                    assert_eq!((want.1, got.1), (false, exact), "{what}");
                    assert_eq!(want.0 == got.0, exact, "{what}");
                };
                check("trained", false, &|b| x3(b, &config(&trained), &mut trained.reader("trained")));
                check("random", true, &|b| x3(b, &config(&random), &mut random.reader("random")));
                // The norms of `Noise` do not follow the maps' statistics, so that errors do not grow: benchmarks measure bf16.
                check("noise", false, &|b| x3(b, &config(&trained), &mut Noise::new(7)));
            }
        }
    }

    #[test]
    fn random_parameters_are_the_same_the_second_time() {
        let mut noise = Noise::new(7);
        let mut twice = Twice { source: &mut noise, taken: HashMap::new() };
        let mut take = |name| twice.take(name, &[2, 3]).unwrap();
        let first = [take("a"), take("b")];
        assert_eq!([take("a"), take("b")], first);
        assert_ne!(first[0], first[1]);
    }
}
