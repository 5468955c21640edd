//! The instruction set that a kernel uses. A value of a vector variant proves that this CPU supports it.

use crate::simd::Kernel;
use crate::{Element, ShapeError};

/// Proof that this CPU supports AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// Checks the CPU; `None` if it lacks any of them.
    pub fn detect() -> Option<Self> {
        let has =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

/// Proof that this CPU supports AVX-512 F, BW, DQ and VL, and everything that [`Avx2`] proves.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512 {
    /// Whether the CPU also supports AVX512-BF16.
    bf16: bool,
}

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// Checks the CPU; `None` if it lacks any of the required features.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        (has && Avx2::detect().is_some()).then_some(Self { bf16: is_x86_feature_detected!("avx512bf16") })
    }
}

/// Proof that this CPU supports NEON ("Advanced SIMD"), as does every 64-bit Arm CPU that runs an operating system.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neon(());

#[cfg(target_arch = "aarch64")]
impl Neon {
    /// Checks the CPU; `None` if it lacks NEON.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

/// An instruction set that this CPU supports. Select one by name with [`Isa::from_name`]: the variants for vectors contain a proof
/// that only a check of the CPU can make.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// The plain definitions: they run on any CPU, and the others are tested against them.
    Scalar,
    /// 256-bit vectors with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 512-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// 128-bit vectors with fused multiply-add.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Isa {
    /// The fastest instruction set of this CPU.
    pub fn best() -> Self {
        Self::candidates().into_iter().flatten().last().unwrap_or(Self::Scalar)
    }

    /// All instruction sets of this CPU, the fastest last.
    pub fn available() -> Vec<Self> {
        Self::candidates().into_iter().flatten().collect()
    }

    /// `"scalar"`, `"avx2"`, `"avx512"` or `"neon"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
        }
    }

    /// The instruction set of that name; `None` if the name is unknown or this CPU does not support it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::candidates().into_iter().flatten().find(|isa| isa.name() == name)
    }

    /// Whether this instruction set can multiply elements of this kind. All multiply f32; bf16 needs AVX512-BF16 or the
    /// definition.
    pub fn multiplies(self, element: Element) -> bool {
        match (self, element) {
            (_, Element::F32) | (Self::Scalar, Element::Bf16) => true,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512(proof), Element::Bf16) => proof.bf16,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2(_), Element::Bf16) => false,
            #[cfg(target_arch = "aarch64")]
            (Self::Neon(_), Element::Bf16) => false,
        }
    }

    /// `Ok` if this instruction set [multiplies](Self::multiplies) the element that operand `what` of `op` is packed
    /// as.
    pub(crate) fn check(self, op: &'static str, what: &'static str, element: Element) -> Result<(), ShapeError> {
        ShapeError::ensure(self.multiplies(element), op, what, element, "f32 here")
    }

    #[cfg(target_arch = "x86_64")]
    fn candidates() -> [Option<Self>; 3] {
        [Some(Self::Scalar), Avx2::detect().map(Self::Avx2), Avx512::detect().map(Self::Avx512)]
    }

    #[cfg(target_arch = "aarch64")]
    fn candidates() -> [Option<Self>; 2] {
        [Some(Self::Scalar), Neon::detect().map(Self::Neon)]
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn candidates() -> [Option<Self>; 1] {
        [Some(Self::Scalar)]
    }

    /// Runs `kernel` with products of `element`. The caller has checked that this instruction set multiplies it.
    pub(crate) fn run_products(self, element: Element, kernel: impl Kernel) {
        match (self, element) {
            // SAFETY: only `Avx512::detect` makes an `Avx512`, after checking the CPU; `bf16` is true only with
            // AVX512-BF16.
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512(Avx512 { bf16: true }), Element::Bf16) => unsafe {
                crate::simd::x86::with_avx512_bf16(kernel);
            },
            (_, Element::Bf16) => kernel.scalar(),
            (_, Element::F32) => self.run(kernel),
        }
    }

    /// Runs `kernel` in the form for this instruction set.
    pub(crate) fn run(self, kernel: impl Kernel) {
        match self {
            Self::Scalar => kernel.scalar(),
            // SAFETY: only `Avx2::detect` makes an `Avx2`, after checking the CPU.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => unsafe { crate::simd::x86::with_avx2(kernel) },
            // SAFETY: only `Avx512::detect` makes an `Avx512`, after checking the CPU.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => unsafe { crate::simd::x86::with_avx512(kernel) },
            // SAFETY: only `Neon::detect` makes a `Neon`, after checking the CPU.
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => unsafe { crate::simd::neon::with_neon(kernel) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_selects_its_instruction_set() {
        for isa in Isa::available() {
            assert_eq!(Isa::from_name(isa.name()), Some(isa));
        }
        assert_eq!(Isa::from_name("mmx"), None);
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn every_64_bit_arm_has_neon() {
        assert_eq!(Isa::best().name(), "neon");
    }

    #[test]
    fn the_best_is_last_and_scalar_is_always_available() {
        let available = Isa::available();
        assert_eq!(available.first(), Some(&Isa::Scalar));
        assert_eq!(available.last(), Some(&Isa::best()));
    }
}
