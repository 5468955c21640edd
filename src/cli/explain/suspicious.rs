//! `--labels`: the regions whose rule contradicts their label.

use std::path::Path;

use serde::Serialize;

use super::super::console::{Console, counted};
use super::refuse_existing;
use super::report::{Explained, RegionReport, write};

/// A region whose rule contradicts its label.
#[derive(Debug, Serialize)]
struct Entry {
    photo: String,
    /// How likely the label is under the rule, 0 to 1: the share of the matching training regions that have it, with one region added
    /// for each class.
    likelihood: f64,
    /// How likely the network considers the labels of the region's pixels, 0 to 1 (a soft minimum).
    network: f64,
    #[serde(flatten)]
    region: RegionReport,
}

/// The suspicious labels of all photos.
#[derive(Debug, Default)]
pub(super) struct Suspicious {
    entries: Vec<Entry>,
}

impl Suspicious {
    /// Adds a photo's. `likelihoods` are the network's, of each region.
    pub(super) fn add(&mut self, explained: &Explained<'_>, likelihoods: &[Option<f64>]) {
        let Some(labels) = explained.labels else { return };
        for &region in explained.chosen {
            let rule = explained.explanation.rules[region].as_ref();
            let Some((label, rule)) = labels[region].zip(rule).filter(|(label, rule)| rule.class != *label) else {
                continue;
            };
            self.entries.push(Entry {
                photo: explained.photo.path.display().to_string(),
                likelihood: rule.likelihood(label),
                network: likelihoods.get(region).copied().flatten().unwrap_or(1.0),
                region: explained.region(region),
            });
        }
    }

    /// Writes `suspicious.json`: the least likely labels first, the larger region first on a tie. Labels are ranked by the product of both
    /// likelihoods, which finds more wrong labels than either (`make explain-goals`).
    pub(super) fn write(mut self, out: &Path, overwrite: bool, console: &Console) -> anyhow::Result<()> {
        let path = out.join("suspicious.json");
        refuse_existing(&path, overwrite)?;
        let both = |entry: &Entry| entry.likelihood * entry.network;
        self.entries.sort_by(|a, b| both(a).total_cmp(&both(b)).then_with(|| b.region.pixels.cmp(&a.region.pixels)));
        write(&path, &self.entries)?;
        console.note(&format!(
            "{} with a suspicious label -> {}",
            counted(self.entries.len(), "region"),
            path.display()
        ));
        for entry in self.entries.iter().take(10) {
            console.note(&format!("  {} region {}: {}", entry.photo, entry.region.id, entry.region.sentence()));
        }
        Ok(())
    }
}
