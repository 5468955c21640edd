//! Devices and precisions.

use std::fmt;
use std::str::FromStr;

use rtformer_kernels::{Caches, Isa, parse_bytes};

use crate::backend::{cuda_numbers, has_cuda};
use crate::error::{Error, Result};

/// Where the network runs.
///
/// ```
/// use rtformer::Device;
///
/// assert_eq!("cuda:1".parse::<Device>()?, Device::Cuda(1));
/// assert_eq!(Device::Reference.to_string(), "reference");
/// assert!(Device::available().contains(&Device::Cpu));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// The GPU, if there is one whose results for a small frame match the CPU's, which is checked on opening; otherwise the CPU.
    #[default]
    Auto,
    /// This machine's CPU.
    Cpu,
    /// The NVIDIA GPU with this number.
    Cuda(usize),
    /// A Mac's GPU.
    Metal,
    /// Stock candle operations on the CPU: slow and simple. They define the correct results.
    Reference,
}

impl Device {
    /// [`Device::Auto`].
    ///
    /// ```
    /// # use rtformer::{Device, Segmenter};
    /// let segmenter = Segmenter::embedded(Device::auto())?;
    /// assert_ne!(segmenter.device(), Device::Auto, "it is an available device");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn auto() -> Self {
        Self::Auto
    }

    /// This machine's devices that this version supports: GPUs first, then the CPU, and the reference last.
    ///
    /// ```
    /// # use rtformer::Device;
    /// assert_eq!(Device::available().last(), Some(&Device::Reference));
    /// ```
    pub fn available() -> Vec<Self> {
        let metal = has_metal().then_some(Self::Metal);
        cuda_numbers().map(Self::Cuda).chain(metal).chain([Self::Cpu, Self::Reference]).collect()
    }

    /// The instruction sets of this machine's CPU for which there are kernels, the fastest first.
    /// [`Builder::isa`](crate::Builder::isa) selects one.
    ///
    /// ```
    /// assert_eq!(rtformer::Device::instruction_sets().last(), Some(&"scalar"));
    /// ```
    pub fn instruction_sets() -> Vec<&'static str> {
        Isa::available().into_iter().rev().map(Isa::name).collect()
    }

    /// The instruction set with this name, for [`Builder::isa`](crate::Builder::isa): `scalar`, `avx2`, `avx512` or `neon`.
    ///
    /// ```
    /// # use rtformer::{Device, Isa};
    /// if let Ok(isa) = Device::instruction_set("avx2") {
    ///     assert_eq!(isa.name(), "avx2"); // this CPU has it
    /// }
    /// assert_eq!(Device::instruction_set("scalar")?, Isa::Scalar);
    /// assert!(Device::instruction_set("mmx").is_err());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`] if the name is unknown or this CPU lacks it.
    pub fn instruction_set(name: &str) -> Result<Isa> {
        Isa::from_name(name).ok_or_else(|| Error::Device {
            device: "cpu".into(),
            reason: format!(
                "instruction set `{name}` is not available; this CPU has {}",
                Self::instruction_sets().join(", ")
            ),
        })
    }

    /// The size in bytes of the L2 cache from which the CPU's block sizes follow: the one that the environment variable `RTFORMER_L2`
    /// names, such as `512K`, or else this machine's. It affects only the speed.
    ///
    /// ```
    /// # use rtformer::Device;
    /// assert!(Device::l2_cache()? >= 64 << 10);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`] if the variable is not a size from 64K to 64M.
    pub fn l2_cache() -> Result<usize> {
        let Some(text) = std::env::var_os("RTFORMER_L2") else { return Ok(Caches::of_this_machine().l2) };
        let bytes = text.to_str().and_then(parse_bytes).filter(|bytes| Caches::PLAUSIBLE_L2.contains(bytes));
        bytes.ok_or_else(|| Error::Device {
            device: "cpu".into(),
            reason: format!(
                "RTFORMER_L2 is `{}`; expected the size of an L2 cache from 64K to 64M, such as 512K",
                text.display()
            ),
        })
    }

    /// The device itself, if this platform can have it.
    ///
    /// # Errors
    /// [`Error::Device`] if it cannot. There is no silent fallback.
    pub(super) fn resolve(self) -> Result<Self> {
        match self {
            Self::Metal if !cfg!(target_os = "macos") => Err(Error::Device {
                device: self.to_string(),
                reason: "Metal is available on Macs only; use `cpu` or `auto`".into(),
            }),
            // If a GPU fails, opening it reports the cause.
            Self::Cpu | Self::Reference | Self::Cuda(_) | Self::Metal | Self::Auto => Ok(self),
        }
    }

    /// Whether the device is a GPU.
    ///
    /// ```
    /// # use rtformer::Device;
    /// assert!(Device::Cuda(1).is_gpu() && !Device::Cpu.is_gpu());
    /// ```
    pub fn is_gpu(self) -> bool {
        matches!(self, Self::Cuda(_) | Self::Metal)
    }
}

/// The GPU that [`Device::Auto`] tries, or the reason that there is none.
pub(super) fn fastest(precision: Option<Precision>, isa: Option<Isa>) -> Result<Device, String> {
    if let Some(isa) = isa {
        return Err(format!("only CPUs have the instruction set {}", isa.name()));
    }
    if precision.is_some_and(|precision| precision.on_gpu().is_none()) {
        return Err("only CPUs support bf16".into());
    }
    match has_cuda(0) {
        Ok(()) => Ok(Device::Cuda(0)),
        Err(Some(why)) => Err(format!("the NVIDIA GPU cannot be used: {why}")),
        Err(None) if has_metal() => Ok(Device::Metal),
        Err(None) => Err("no supported GPU was found".into()),
    }
}

/// Whether this is a Mac with a GPU that can run the kernels.
fn has_metal() -> bool {
    #[cfg(target_os = "macos")]
    let there = crate::backend::metal(crate::backend::GpuElement::F32).is_ok();
    #[cfg(not(target_os = "macos"))]
    let there = false;
    there
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.split_once(':').unwrap_or((name, "0")) {
            ("auto", "0") => Ok(Self::Auto),
            ("cpu", "0") => Ok(Self::Cpu),
            ("metal", "0") => Ok(Self::Metal),
            ("reference", "0") => Ok(Self::Reference),
            ("cuda", number) if number.parse::<usize>().is_ok() => Ok(Self::Cuda(number.parse().unwrap_or_default())),
            _ => Err(Error::Device {
                device: name.into(),
                reason: "unknown device; expected auto, cpu, cuda, cuda:N, metal or reference".into(),
            }),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
            Self::Reference => f.write_str("reference"),
        }
    }
}

/// The arithmetic of the network.
///
/// ```
/// use rtformer::Precision;
///
/// assert_eq!("f32".parse::<Precision>()?, Precision::default());
/// assert_eq!("bf16".parse::<Precision>()?, Precision::Bf16);
/// assert!("f64".parse::<Precision>().is_err());
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// Single precision; within 1e-4 of the oracle.
    #[default]
    F32,
    /// Convolutions multiply in bf16 and add in f32. Needs a CPU with AVX512-BF16. 1.5 to 1.8 times as fast there; a few pixels in a
    /// thousand change class. In networks that amplify rounding errors, as untrained ones do, the encoder stays in f32
    /// ([`RtFormer::load`](crate::model::RtFormer::load)).
    Bf16,
    /// Feature maps and weights in f16, sums in f32. Needs a GPU.
    F16,
}

impl Precision {
    /// The type that a GPU stores; `None` if no GPU supports it.
    pub(super) fn on_gpu(self) -> Option<crate::backend::GpuElement> {
        match self {
            Self::F32 => Some(crate::backend::GpuElement::F32),
            Self::F16 => Some(crate::backend::GpuElement::F16),
            Self::Bf16 => None,
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(Error::Input(format!("unknown precision `{name}`: expected f32, bf16 or f16"))),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// The instruction set that the environment variable `RTFORMER_ISA` names, or else the fastest.
pub(super) fn default_isa() -> Result<Isa> {
    match std::env::var("RTFORMER_ISA") {
        Err(_) => Ok(Isa::best()),
        Ok(name) => Device::instruction_set(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_displayed() {
        for name in ["auto", "cpu", "cuda:0", "cuda:3", "metal", "reference"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for name in ["", "gpu", "cuda:", "cuda:x", "cpu:1"] {
            assert!(name.parse::<Device>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_device_selected_by_name_is_never_replaced() {
        assert_eq!(Device::Metal.resolve().is_ok(), cfg!(target_os = "macos"));
        // Opening reports whether there is such a GPU.
        assert_eq!(Device::Cuda(7).resolve().unwrap(), Device::Cuda(7));
    }
}
