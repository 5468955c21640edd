//! The number of threads that a backend starts unless it is told another.

use std::collections::BTreeSet;
use std::fs;

/// A number of threads, and why it is that number.
///
/// ```
/// let threads = rtformer::backend::Threads::of_this_process();
/// assert!(threads.number >= 1 && !threads.reason.is_empty());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threads {
    /// At least one.
    pub number: usize,
    /// What decided it, such as `one per core`.
    pub reason: String,
}

/// The CPUs that the system reports. A CPU is a hardware thread; a core has one or several.
#[derive(Clone, Copy, Debug)]
struct Cpus {
    /// Of this machine.
    online: usize,
    /// Of this machine that the process may run on (its affinity mask).
    allowed: usize,
    /// Cores to which the allowed CPUs belong.
    cores: usize,
}

impl Threads {
    /// One per core that this process may use. Two threads on one core would compete for its multipliers.
    ///
    /// Respects the affinity mask, the CPU limit of a container (cgroup, version 1 or 2) and, like other programs that use rayon,
    /// the environment variable `RAYON_NUM_THREADS`.
    ///
    /// ```
    /// # use rtformer::backend::{Cpu, Isa, Threads};
    /// assert_eq!(Cpu::new(Isa::best(), 0)?.threads(), Threads::of_this_process().number);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    pub fn of_this_process() -> Self {
        let named = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok());
        // The standard library knows affinity masks and CPU limits, but not which CPUs share a core.
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        Self::decide(named.filter(|&number| number > 0), available, Cpus::of_this_process())
    }

    /// The number if rayon's variable is `named`, the standard library reports `available`, and Linux `cpus`.
    fn decide(named: Option<usize>, available: usize, cpus: Option<Cpus>) -> Self {
        let (number, reason) = match (named, cpus) {
            (Some(number), _) => (number, "RAYON_NUM_THREADS".into()),
            (None, None) => (available, "one per available CPU".into()),
            (None, Some(Cpus { allowed, cores, .. })) if available < allowed && available <= cores => {
                (available, format!("the CPU limit of the container allows {available} of {allowed} CPUs"))
            }
            (None, Some(Cpus { online, allowed, cores })) => {
                let mask = if allowed < online {
                    format!(" among the {allowed} of {online} CPUs that the affinity mask allows")
                } else {
                    String::new()
                };
                let reason = match allowed {
                    _ if cores < allowed => {
                        format!("one per core{mask}; {allowed} hardware threads share {cores} cores")
                    }
                    _ => format!("one per core{mask}"),
                };
                (cores, reason)
            }
        };
        Self { number: number.clamp(1, super::Cpu::MOST_THREADS), reason }
    }
}

impl Cpus {
    /// `None` if this is not Linux, or if it does not tell.
    fn of_this_process() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let allowed = cpu_list(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)?;
        let online = cpu_list(&fs::read_to_string("/sys/devices/system/cpu/online").ok()?)?;
        let siblings = |cpu: &usize| {
            fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).ok()
        };
        Self::of(&online, &allowed, siblings)
    }

    /// Counts cores: CPUs with the same list of `siblings` share one.
    fn of(online: &[usize], allowed: &[usize], siblings: impl Fn(&usize) -> Option<String>) -> Option<Self> {
        let cores: BTreeSet<_> = allowed.iter().map(siblings).collect::<Option<_>>()?;
        (!cores.is_empty()).then_some(Self { online: online.len(), allowed: allowed.len(), cores: cores.len() })
    }
}

/// The numbers in a list such as `0-2,5`.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if last >= 1 << 16 {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_that_of_cores_unless_something_limits_it() {
        let cpus = |online, allowed, cores| Some(Cpus { online, allowed, cores });
        let cases = [
            // (RAYON_NUM_THREADS, available, CPUs), number, reason
            ((None, 8, cpus(8, 8, 8)), 8, "one per core"),
            ((None, 16, cpus(16, 16, 8)), 8, "one per core; 16 hardware threads share 8 cores"),
            ((None, 2, cpus(8, 2, 2)), 2, "one per core among the 2 of 8 CPUs that the affinity mask allows"),
            ((None, 3, cpus(8, 8, 8)), 3, "the CPU limit of the container allows 3 of 8 CPUs"),
            // A limit that is above the number of cores changes nothing.
            ((None, 12, cpus(16, 16, 8)), 8, "one per core; 16 hardware threads share 8 cores"),
            ((None, 4, None), 4, "one per available CPU"),
            ((Some(5), 2, cpus(2, 2, 2)), 5, "RAYON_NUM_THREADS"),
            ((Some(100_000), 2, None), 1024, "RAYON_NUM_THREADS"),
        ];
        for ((named, available, cpus), number, reason) in cases {
            assert_eq!(Threads::decide(named, available, cpus), Threads { number, reason: reason.into() }, "{cpus:?}");
        }
    }

    #[test]
    fn cpus_with_the_same_siblings_are_one_core() {
        let pairs = |cpu: &usize| Some(format!("{},{}\n", cpu % 4, cpu % 4 + 4));
        let cpus = |allowed: &[usize]| {
            Cpus::of(&[0, 1, 2, 3, 4, 5, 6, 7], allowed, pairs).map(|cpus| (cpus.allowed, cpus.cores))
        };
        assert_eq!(cpus(&[0, 1, 2, 3, 4, 5, 6, 7]), Some((8, 4)));
        assert_eq!(cpus(&[1, 5]), Some((2, 1)));
        assert_eq!(cpus(&[]), None);
        assert!(Cpus::of(&[0], &[0], |_| None).is_none(), "no topology");
    }

    #[test]
    fn lists_of_cpus_are_read() {
        for (text, want) in
            [("0\n", Some(vec![0])), ("\t0-2,5", Some(vec![0, 1, 2, 5])), ("", None), ("a", None), ("0-99999999", None)]
        {
            assert_eq!(cpu_list(text), want, "{text:?}");
        }
    }
}
