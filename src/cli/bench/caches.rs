//! The CPU's caches as reports show them.

use rtformer::Device;
use serde::{Deserialize, Serialize};

/// Sizes in bytes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Caches {
    l1_bytes: usize,
    l2_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_bytes: Option<usize>,
    /// `cpuid`, `sysfs` or `assumed`.
    source: String,
    /// The L2 cache for which the kernels choose their block sizes: the machine's, or that of `RTFORMER_L2`.
    blocks_for_l2_bytes: usize,
}

impl Caches {
    pub(in super::super) fn this() -> rtformer::Result<Self> {
        let rtformer::backend::Caches { l1, l2, l3, source } = rtformer::backend::Caches::of_this_machine();
        let blocks_for_l2_bytes = Device::l2_cache()?;
        Ok(Self { l1_bytes: l1, l2_bytes: l2, l3_bytes: l3, source: source.into(), blocks_for_l2_bytes })
    }
}

impl std::fmt::Display for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { l1_bytes, l2_bytes, l3_bytes, source, blocks_for_l2_bytes } = self;
        write!(f, "L1 {}, L2 {}", size(*l1_bytes), size(*l2_bytes))?;
        if let Some(bytes) = l3_bytes {
            write!(f, ", L3 {}", size(*bytes))?;
        }
        write!(f, " ({source})")?;
        if blocks_for_l2_bytes != l2_bytes {
            write!(f, "; block sizes for an L2 cache of {} (RTFORMER_L2)", size(*blocks_for_l2_bytes))?;
        }
        Ok(())
    }
}

/// `512 KB`, `16 MB`.
fn size(bytes: usize) -> String {
    if bytes.is_multiple_of(1 << 20) { format!("{} MB", bytes >> 20) } else { format!("{} KB", bytes >> 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_every_level_and_an_override() {
        let caches = |l3_bytes, blocks_for_l2_bytes| Caches {
            l1_bytes: 32 << 10,
            l2_bytes: 1 << 20,
            l3_bytes,
            source: "cpuid".into(),
            blocks_for_l2_bytes,
        };
        assert_eq!(caches(Some(16 << 20), 1 << 20).to_string(), "L1 32 KB, L2 1 MB, L3 16 MB (cpuid)");
        let small = caches(None, 512 << 10).to_string();
        assert_eq!(small, "L1 32 KB, L2 1 MB (cpuid); block sizes for an L2 cache of 512 KB (RTFORMER_L2)");
    }
}
