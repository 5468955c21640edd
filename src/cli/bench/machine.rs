//! Where and when the figures were measured. Without this, a figure cannot be interpreted.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::caches::Caches;

/// The machine, as far as it is known.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Machine {
    cpu: String,
    /// The number of cores that this process may use.
    cores: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caches: Option<Caches>,
    os: String,
    arch: String,
}

impl Machine {
    pub(super) fn this() -> Self {
        Self {
            cpu: cpu().unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory(),
            // An invalid RTFORMER_L2 has been refused when the network was opened.
            caches: Caches::this().ok(),
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, os, arch, .. } = self;
        write!(f, "{cpu}, {cores} cores")?;
        if let Some(bytes) = self.memory_bytes {
            write!(f, ", {:.1} GiB", bytes as f64 / f64::from(1 << 30))?;
        }
        if let Some(caches) = &self.caches {
            write!(f, "; {caches}")?;
        }
        write!(f, "; {os} {arch}")
    }
}

fn cpu() -> Option<String> {
    match std::env::consts::OS {
        "linux" => first_field(&fs::read_to_string("/proc/cpuinfo").ok()?, "model name"),
        "macos" => sysctl("machdep.cpu.brand_string"),
        "windows" => std::env::var("PROCESSOR_IDENTIFIER").ok(),
        _ => None,
    }
}

fn memory() -> Option<u64> {
    match std::env::consts::OS {
        "linux" => {
            let total = first_field(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")?;
            total.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        }
        "macos" => sysctl("hw.memsize")?.parse().ok(),
        _ => None,
    }
}

/// The value of the first line `name : value`.
fn first_field(text: &str, name: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(field, _)| field.trim() == name)?;
    Some(value.trim().to_owned())
}

fn sysctl(name: &str) -> Option<String> {
    let output = Command::new("sysctl").args(["-n", name]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The current time, such as `2026-01-31T09:08:07Z`; `None` if the clock is before 1970.
pub(super) fn now() -> Option<String> {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| utc(since.as_secs()))
}

/// Formats seconds since 1970 as a date. Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100); // from 1 March
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        // date -u -d @SECONDS +%FT%TZ
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"), // a leap day in the last year of a century
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_772_323_200, "2026-03-01T00:00:00Z"), // not a leap year
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ];
        for (seconds, want) in cases {
            assert_eq!(utc(seconds), want);
        }
    }

    #[test]
    fn a_field_is_found_by_its_full_name() {
        let text = "model\t\t: 85\nmodel name\t: A CPU: fast\nmodel name\t: another\nMemTotal:  16 kB\n";
        assert_eq!(first_field(text, "model name").as_deref(), Some("A CPU: fast"));
        assert_eq!(first_field(text, "MemTotal").as_deref(), Some("16 kB"));
        assert_eq!(first_field(text, "name"), None);
    }
}
