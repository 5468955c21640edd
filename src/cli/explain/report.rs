//! The JSON of an explained photo.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use rtformer::Timings;
use rtformer::explain::{Explainer, Explanation, Kind, Rule};
use rtformer::files::write_whole;
use serde::Serialize;

use super::inputs::Photo;

/// A photo, and what was found out about it.
pub(super) struct Explained<'a> {
    pub(super) photo: &'a Photo,
    /// The classes' names.
    pub(super) names: &'a [&'a str],
    pub(super) explainer: &'a Explainer,
    pub(super) explanation: &'a Explanation,
    /// The indices of the regions to report.
    pub(super) chosen: &'a [usize],
    /// The label of each region, if there are labels.
    pub(super) labels: Option<&'a [Option<u16>]>,
    pub(super) timings: Timings,
    /// How long explaining took.
    pub(super) milliseconds: f64,
}

/// The JSON object of a photo.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    path: String,
    /// Width and height.
    size: [u32; 2],
    /// The number of regions that rules are counted over.
    training_regions: usize,
    pub(super) regions: Vec<RegionReport>,
    timings: Timings,
    explain_ms: f64,
}

/// A region and its rule.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RegionReport {
    pub(super) id: usize,
    pub(super) kind: Kind,
    /// The network's class.
    pub(super) class: String,
    /// The label that most of its pixels have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
    pub(super) pixels: usize,
    /// Left, top, width and height.
    bbox: [u32; 4],
    /// Empty if no rule has the minimum support; then the counts are 0 and the ratios are null.
    pub(super) rule: Vec<Atom>,
    /// The rule's class.
    pub(super) consequent: Option<String>,
    pub(super) matches: usize,
    pub(super) matches_of_class: usize,
    pub(super) precision: Option<f64>,
    pub(super) coverage: Option<f64>,
    /// Whether the rule's class is the network's.
    pub(super) agrees: bool,
    /// The number of matching training regions with each label; labels without any are left out.
    by_class: BTreeMap<String, usize>,
    /// The most similar of the matching training regions.
    nearest: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Atom {
    atom: String,
    pub(super) text: String,
}

impl Explained<'_> {
    /// The name of a class.
    fn name(&self, class: u16) -> String {
        self.names.get(usize::from(class)).copied().unwrap_or("none").to_owned()
    }

    pub(super) fn report(&self) -> Report {
        Report {
            path: self.photo.path.display().to_string(),
            size: [self.explanation.regions.width(), self.explanation.regions.height()],
            training_regions: self.explainer.regions(),
            regions: self.chosen.iter().map(|&region| self.region(region)).collect(),
            timings: self.timings,
            explain_ms: self.milliseconds,
        }
    }

    pub(super) fn region(&self, index: usize) -> RegionReport {
        let region = &self.explanation.regions.all()[index];
        let rule = self.explanation.rules[index].as_ref();
        let atoms = self.explainer.atoms();
        let atom = |&atom: &usize| Atom { atom: atoms.name(atom).to_owned(), text: atoms.text(atom) };
        let counts = |rule: &Rule| {
            let counts = rule.by_class.iter().enumerate().filter(|(_, count)| **count > 0);
            counts.map(|(class, &count)| (self.name(class as u16), count)).collect()
        };
        let nearest = |rule: &Rule| rule.nearest.iter().map(|&region| self.explainer.name(region).to_owned()).collect();
        RegionReport {
            id: region.id,
            kind: region.kind,
            class: self.name(region.class),
            label: self.labels.and_then(|labels| labels[index]).map(|label| self.name(label)),
            pixels: region.pixels,
            bbox: region.bbox,
            rule: rule.map_or(Vec::new(), |rule| rule.atoms.iter().map(atom).collect()),
            consequent: rule.map(|rule| self.name(rule.class)),
            matches: rule.map_or(0, |rule| rule.matches),
            matches_of_class: rule.map_or(0, |rule| rule.matches_of_class),
            precision: rule.map(Rule::precision),
            coverage: rule.map(|rule| rule.coverage),
            agrees: rule.is_some_and(|rule| rule.class == region.class),
            by_class: rule.map_or_else(BTreeMap::new, counts),
            nearest: rule.map_or_else(Vec::new, nearest),
        }
    }
}

impl RegionReport {
    /// The rule in words: `car: touches road, lightness below 31 (381 of 413 training regions are car)`.
    pub(super) fn sentence(&self) -> String {
        let Some(consequent) = &self.consequent else {
            return format!("{}: no rule has enough support", self.class);
        };
        let texts: Vec<_> = self.rule.iter().map(|atom| atom.text.as_str()).collect();
        let label = self.label.as_ref().map_or(String::new(), |label| format!(", labelled {label}"));
        let (class, matches, of_class) = (&self.class, self.matches, self.matches_of_class);
        format!("{class}{label}: {} ({of_class} of {matches} such training regions are {consequent})", texts.join(", "))
    }
}

pub(super) fn write(path: &Path, value: &impl Serialize) -> rtformer::Result<()> {
    write_whole(path, |file| {
        serde_json::to_writer_pretty(&mut *file, value)?;
        file.write_all(b"\n")
    })
}
