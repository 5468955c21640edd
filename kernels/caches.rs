//! The sizes of this machine's data caches, and the block sizes that follow from them.
//!
//! Blocks affect only the speed: results are bit-identical for all sizes.

use std::sync::OnceLock;

/// The data caches that one core uses.
///
/// Of a cache that several cores share, a core gets its part, except of the last level. The sizes come from the CPU's
/// CPUID instruction, or from Linux's sysfs; if neither knows them, they are assumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// Bytes of the first level.
    pub l1: usize,
    /// Bytes of the second level, from which the block sizes follow.
    pub l2: usize,
    /// Bytes of the third level, shared by several cores; `None` if there is none or it is unknown.
    pub l3: Option<usize>,
    /// `"cpuid"`, `"sysfs"` or `"assumed"`.
    pub source: &'static str,
}

impl Caches {
    /// The smallest and the largest size of an L2 cache that is believed: 64 KB and 64 MB.
    pub const PLAUSIBLE_L2: std::ops::RangeInclusive<usize> = 64 << 10..=64 << 20;

    /// Small caches, which most CPUs have at least.
    const ASSUMED: Self = Self { l1: 32 << 10, l2: 512 << 10, l3: None, source: "assumed" };

    /// The caches of this machine, which are read once.
    pub fn of_this_machine() -> Self {
        static CACHES: OnceLock<Caches> = OnceLock::new();
        *CACHES.get_or_init(|| cpuid().or_else(sysfs).unwrap_or(Self::ASSUMED))
    }

    /// The sizes by level, if they are plausible. Each entry is a level, its bytes, and how many hardware threads
    /// share it.
    fn of(entries: impl Iterator<Item = (usize, usize, usize)>, source: &'static str) -> Option<Self> {
        let (mut l1, mut l2, mut l3) = (0, 0, None);
        for (level, bytes, sharers) in entries {
            // A core has up to two hardware threads.
            let part = bytes / (sharers / 2).max(1);
            match level {
                1 => l1 = part,
                2 => l2 = part,
                3 => l3 = Some(bytes),
                _ => {}
            }
        }
        (l1 > 0 && Self::PLAUSIBLE_L2.contains(&l2)).then_some(Self { l1, l2, l3, source })
    }
}

/// Asks the CPU: leaf 4 (Intel) or `0x8000_001d` (AMD), which have one format.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[allow(unused_unsafe, reason = "CPUID is a safe function in newer versions of Rust")]
fn cpuid() -> Option<Caches> {
    use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

    // SAFETY: every x86-64 CPU has the instruction.
    let most = |first| unsafe { __cpuid(first) }.eax;
    let entries = |leaf| {
        let entry = move |CpuidResult { eax, ebx, ecx, .. }: CpuidResult| {
            let (line, partitions, ways) = ((ebx & 0xfff) + 1, (ebx >> 12 & 0x3ff) + 1, (ebx >> 22) + 1);
            let bytes = [line, partitions, ways, ecx.wrapping_add(1)].map(|n| n as usize).iter().product();
            ((eax >> 5 & 7) as usize, bytes, (eax >> 14 & 0xfff) as usize + 1)
        };
        // SAFETY: as above. Type 0 ends the list, and type 2 is a cache of instructions.
        let all = (0..16).map(move |i| unsafe { __cpuid_count(leaf, i) }).take_while(|found| found.eax & 0x1f != 0);
        all.filter(|found| found.eax & 0x1f != 2).map(entry)
    };
    let intel = (most(0) >= 4).then(|| Caches::of(entries(4), "cpuid")).flatten();
    intel.or_else(|| (most(0x8000_0000) >= 0x8000_001d).then(|| Caches::of(entries(0x8000_001d), "cpuid")).flatten())
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn cpuid() -> Option<Caches> {
    None
}

/// Reads what Linux knows about the first CPU.
fn sysfs() -> Option<Caches> {
    if !cfg!(target_os = "linux") || cfg!(miri) {
        return None;
    }
    let entry = |index: usize| {
        let read = |name: &str| {
            std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}")).ok()
        };
        sysfs_entry(&read("level")?, &read("type")?, &read("size")?, read("shared_cpu_list").as_deref())
    };
    Caches::of((0..16).filter_map(entry), "sysfs")
}

/// Level, bytes and sharing hardware threads of a data cache from the texts of its files.
fn sysfs_entry(level: &str, kind: &str, size: &str, shared: Option<&str>) -> Option<(usize, usize, usize)> {
    if kind.trim() == "Instruction" {
        return None;
    }
    let sharers = shared.map_or(1, |list| list.trim().split(',').map(cpus).sum());
    Some((level.trim().parse().ok()?, parse_bytes(size)?, sharers))
}

/// The number of CPUs in a range such as `3` or `0-7`.
fn cpus(range: &str) -> usize {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    first
        .parse::<usize>()
        .ok()
        .zip(last.parse::<usize>().ok())
        .map_or(0, |(first, last)| (last + 1).saturating_sub(first))
}

/// A size such as `512K`, `1M` or `65536`, in bytes.
pub fn parse_bytes(text: &str) -> Option<usize> {
    let text = text.trim();
    let (number, unit) = match text.strip_suffix(['K', 'k']) {
        Some(number) => (number, 1 << 10),
        None => text.strip_suffix(['M', 'm']).map_or((text, 1), |number| (number, 1 << 20)),
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// Block sizes in bytes, by one rule for every machine: shares of the L2 cache, because a block is read several times
/// while weights and outputs stream past it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    l2: usize,
}

impl Blocks {
    pub(crate) fn of_this_machine() -> Self {
        Self::of_l2(Caches::of_this_machine().l2)
    }

    pub(crate) fn of_l2(bytes: usize) -> Self {
        Self { l2: bytes }
    }

    /// Winograd's transformed inputs and sums of one group of tiles. The weights of a few blocks need the rest.
    pub(crate) fn winograd(self) -> usize {
        self.l2 / 8 * 5
    }

    /// A direct convolution's weights that are read again for each row.
    pub(crate) fn weights(self) -> usize {
        self.l2 / 2
    }

    /// The strip of a direct convolution's input. It stays in the cache together with such weights.
    pub(crate) fn strip(self) -> usize {
        self.l2 / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_plausible_caches() {
        let Caches { l1, l2, l3, source } = Caches::of_this_machine();
        assert!((4 << 10..=1 << 20).contains(&l1) && Caches::PLAUSIBLE_L2.contains(&l2), "{l1} {l2} from {source}");
        assert!(l3.is_none_or(|l3| l3 >= 256 << 10), "{l3:?} from {source}");
        if let (Some(asked), Some(read)) = (cpuid(), sysfs()) {
            assert_eq!((asked.l1, asked.l2), (read.l1, read.l2), "CPUID and sysfs agree");
        }
    }

    #[test]
    fn shared_caches_are_divided_and_implausible_ones_refused() {
        let of = |entries: &[(usize, usize, usize)]| Caches::of(entries.iter().copied(), "sysfs");
        let caches = |l1, l2, l3| Some(Caches { l1, l2, l3, source: "sysfs" });
        // Two hardware threads per core; a third level shared by eight.
        assert_eq!(
            of(&[(1, 32 << 10, 2), (2, 512 << 10, 2), (3, 16 << 20, 8)]),
            caches(32 << 10, 512 << 10, Some(16 << 20))
        );
        // A second level shared by four cores of one thread, and no third level.
        assert_eq!(of(&[(1, 64 << 10, 1), (2, 4 << 20, 4)]), caches(64 << 10, 2 << 20, None));
        assert_eq!(of(&[(1, 32 << 10, 1)]), None, "no second level");
        assert_eq!(of(&[(1, 32 << 10, 1), (2, 1 << 40, 1)]), None, "a terabyte");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn files_of_sysfs_are_read() {
        assert_eq!(sysfs_entry("1\n", "Data\n", "32K\n", Some("0,64\n")), Some((1, 32 << 10, 2)));
        assert_eq!(sysfs_entry("3\n", "Unified\n", "16384K\n", Some("0-3,64-67\n")), Some((3, 16 << 20, 8)));
        assert_eq!(sysfs_entry("2", "Unified", "1M", None), Some((2, 1 << 20, 1)));
        assert_eq!(sysfs_entry("1", "Instruction", "32K", None), None);
        assert_eq!(sysfs_entry("1", "Data", "", None), None);
        for (text, want) in
            [("512K", Some(512 << 10)), ("1m", Some(1 << 20)), (" 4096 ", Some(4096)), ("K", None), ("1G", None)]
        {
            assert_eq!(parse_bytes(text), want, "{text}");
        }
    }

    #[test]
    fn blocks_fit_into_the_cache_together() {
        for l2 in [64 << 10, 512 << 10, 1 << 20] {
            let blocks = Blocks::of_l2(l2);
            assert!(blocks.winograd() < l2 && blocks.weights() + blocks.strip() < l2);
        }
    }
}
