//! `--shard I/N`: divides photos among the tasks of an array job that do not know of each other.

use std::path::{Component, Path};
use std::str::FromStr;

use rtformer::files;

/// One of several shards.
///
/// A photo's shard depends only on its name and the number of shards, so every task that sees the same photos computes the same division.
/// The name is the photo's place in the output folder, so it is the same wherever the folder is mounted:
///
/// 1. the path in the named folder or list (the file name for a single file), with `/` between its parts and A to Z in lower case, in UTF-8;
/// 2. the first 8 bytes of its SHA-256, as a big-endian number;
/// 3. modulo N, plus 1.
///
/// Lower case, because photos whose names differ only in case get numbered outputs. One task must write all of them, whatever
/// the order of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    /// From 1 to `count`.
    index: u32,
    count: u32,
}

impl Shard {
    /// Whether the photo with this place belongs to the shard.
    pub(super) fn holds(self, place: &Path) -> bool {
        let parts = place.components().filter(|part| !matches!(part, Component::CurDir));
        let parts: Vec<_> = parts.map(|part| part.as_os_str().to_string_lossy()).collect();
        let digest = files::digest(parts.join("/").to_ascii_lowercase().as_bytes());
        let number = digest.get(..16).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        number.unwrap_or_default() % u64::from(self.count) + 1 == u64::from(self.index)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err("expected I/N with I from 1 to N, for example 2/8".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    fn shards(count: u32) -> impl Iterator<Item = Shard> {
        (1..=count).map(move |index| Shard { index, count })
    }

    #[test]
    fn shards_are_disjoint_complete_and_even() {
        let names: Vec<_> = (0..1000).map(|i| PathBuf::from(format!("clip{}/{i:06}.jpg", i % 13))).collect();
        for count in 1..=7 {
            let mut seen = BTreeSet::new();
            for shard in shards(count) {
                let held: Vec<_> = names.iter().filter(|name| shard.holds(name)).collect();
                // Binomial with a standard deviation of at most 16.
                let mean = 1000 / count as usize;
                assert!(held.len().abs_diff(mean) <= 50, "{shard}: {} photos, expected about {mean}", held.len());
                held.into_iter().for_each(|name| assert!(seen.insert(name), "{shard}: {} again", name.display()));
            }
            assert_eq!(seen.len(), 1000, "{count} shards");
        }
    }

    /// Computed by Python: `int.from_bytes(hashlib.sha256(name).digest()[:8], "big") % 7 + 1`.
    #[test]
    fn shards_do_not_change_between_versions() {
        let cases = [
            ("a.png", 2),
            ("A.PNG", 2), // would have the same output if case is ignored
            ("./a.png", 2),
            ("clip1/000001.jpg", 3),
            ("Stra\u{df}e \u{1f6a6}.jpg", 1),
        ];
        for (name, want) in cases {
            let found: Vec<_> =
                shards(7).filter(|shard| shard.holds(Path::new(name))).map(|shard| shard.index).collect();
            assert_eq!(found, [want], "{name}");
        }
    }

    #[test]
    fn a_shard_is_written_as_a_fraction() {
        for text in ["1/1", "3/7", "4294967295/4294967295"] {
            assert_eq!(text.parse::<Shard>().unwrap().to_string(), text);
        }
        for text in ["", "1", "0/3", "4/3", "1/0", "/", "1/", "-1/3", "1/3/5", "1 / 3", "1/4294967296", "a/b"] {
            assert!(text.parse::<Shard>().unwrap_err().contains("I from 1 to N"), "{text}");
        }
    }
}
