//! Random parameters for benchmarks: real shapes, realistic magnitudes, and the same values in every run.

use super::parts::Parameters;
use crate::error::Result;

/// Seeded random parameters.
///
/// ```
/// use rtformer::model::{Noise, Parameters};
///
/// let kernel = Noise::new(7).take("conv1.0.weight", &[32, 3, 3, 3])?;
/// assert_eq!(kernel.len(), 32 * 3 * 3 * 3);
/// assert_eq!(kernel, Noise::new(7).take("conv1.0.weight", &[32, 3, 3, 3])?);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Noise(u64);

impl Noise {
    /// Parameters from a seed. The same seed gives the same network.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform in `[-1, 1)`; splitmix64 (Steele, Lea and Flood, 2014).
    pub(crate) fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

impl Parameters for Noise {
    /// Convolutions have the variance that preserves that of their input (He et al., 2015); norms are near the identity.
    fn take(&mut self, name: &str, want: &[usize]) -> Result<Vec<f32>> {
        let (centre, spread) = match want {
            [_, fan_in @ ..] if !fan_in.is_empty() => (0.0, (6.0 / fan_in.iter().product::<usize>() as f32).sqrt()),
            _ if name.ends_with("_variance") => (1.0, 0.2),
            _ if name.ends_with(".weight") => (0.7, 0.2),
            _ => (0.0, 0.2),
        };
        Ok((0..want.iter().product()).map(|_| centre + spread * self.uniform()).collect())
    }
}
