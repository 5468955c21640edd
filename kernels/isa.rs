//! Which instruction set a kernel uses. A value of a vector variant is the proof that this CPU has it.

use crate::simd::Kernel;
use crate::{Element, ShapeError};

/// Proof that this CPU has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// Asks the CPU.
    pub fn detect() -> Option<Self> {
        let has =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

/// Proof that this CPU has AVX-512 F, BW, DQ and VL, and all that [`Avx2`] proves.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512 {
    /// Whether it has AVX512-BF16 too.
    bf16: bool,
}

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// Asks the CPU.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        (has && Avx2::detect().is_some()).then_some(Self { bf16: is_x86_feature_detected!("avx512bf16") })
    }
}

/// Proof that this CPU has NEON ("Advanced SIMD"), as every 64-bit Arm CPU that runs an operating system does.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neon(());

#[cfg(target_arch = "aarch64")]
impl Neon {
    /// Asks the CPU.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

/// An instruction set that this CPU has.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// The plain definitions: any CPU, and the yardstick of the others.
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
    /// The fastest one this CPU has.
    pub fn best() -> Self {
        Self::candidates().into_iter().flatten().last().unwrap_or(Self::Scalar)
    }

    /// All that this CPU has, the best last.
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

    /// The one of that name; `None` when the name is unknown or this CPU does not have it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::candidates().into_iter().flatten().find(|isa| isa.name() == name)
    }

    /// Whether it multiplies numbers of this kind: every one does f32; bf16 needs AVX512-BF16, or the definition.
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

    /// `Ok` when it [multiplies](Self::multiplies) what `op`'s operand `what` is packed as.
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

    /// Runs `kernel` with products of `element`, which the door has checked that this instruction set multiplies.
    pub(crate) fn run_products(self, element: Element, kernel: impl Kernel) {
        match (self, element) {
            // SAFETY: only `Avx512::detect` makes an `Avx512`, and it asked the CPU; `bf16` says that it has AVX512-BF16.
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512(Avx512 { bf16: true }), Element::Bf16) => unsafe {
                crate::simd::x86::with_avx512_bf16(kernel);
            },
            (_, Element::Bf16) => kernel.scalar(),
            (_, Element::F32) => self.run(kernel),
        }
    }

    /// Runs the form of `kernel` that this instruction set names.
    pub(crate) fn run(self, kernel: impl Kernel) {
        match self {
            Self::Scalar => kernel.scalar(),
            // SAFETY: only `Avx2::detect` makes an `Avx2`, and it asked the CPU.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => unsafe { crate::simd::x86::with_avx2(kernel) },
            // SAFETY: only `Avx512::detect` makes an `Avx512`, and it asked the CPU.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => unsafe { crate::simd::x86::with_avx512(kernel) },
            // SAFETY: only `Neon::detect` makes a `Neon`, and it asked the CPU.
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => unsafe { crate::simd::neon::with_neon(kernel) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_instruction_set() {
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
    fn the_best_is_the_last_and_scalar_is_always_there() {
        let available = Isa::available();
        assert_eq!(available.first(), Some(&Isa::Scalar));
        assert_eq!(available.last(), Some(&Isa::best()));
    }
}
