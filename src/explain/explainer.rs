//! An explainer, read from a weights file, and what it says about a photo.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::Deserialize;

use super::atoms::Atoms;
use super::counts::{Counts, row_bytes};
use super::features::features;
use super::generator::Generator;
use super::pool::pool;
use super::regions::{Kind, Regions, most};
use super::table::wanted_features;
use crate::error::{Error, Result};
use crate::pixels::{IdsMut, Mask, Pixels};
use crate::process;
use crate::segmenter::Scene;
use crate::weights::{EXPLAINER, Weights};

/// The most atoms of a rule.
pub const MOST_ATOMS: usize = 4;
/// The version of the metadata and tensors.
const FORMAT: u32 = 1;
/// The number of similar training regions that a rule names.
const NEAREST: usize = 3;

/// The metadata `explainer`.
#[derive(Deserialize)]
struct Description {
    format: u32,
    atoms: Vec<String>,
    /// The quartiles of each feature.
    thresholds: Vec<(String, [f32; 3])>,
    classes: Vec<String>,
    channels: usize,
    regions: usize,
    minimum_support: usize,
    /// [`Weights::tensors_digest`] of the network that it was trained for.
    digest: String,
    /// The training photos, and the number of regions of each.
    photos: Vec<(String, usize)>,
}

/// Explains scenes with rules. Belongs to one network.
///
/// ```no_run
/// use rtformer::explain::Explainer;
/// use rtformer::{Image, Segmenter};
///
/// let explainer = Explainer::of(&Segmenter::embedded_weights()?)?;
/// let segmenter = Segmenter::builder().features(true).build()?;
/// let street = Image::open("street.jpg")?;
/// let explanation = explainer.explain(&street, &segmenter.segment(&street)?)?;
/// for (region, rule) in explanation.all() {
///     let Some(rule) = rule else { continue };
///     let conditions: Vec<_> = rule.atoms.iter().map(|atom| explainer.atoms().text(*atom)).collect();
///     println!("{}: {} ({} of {})", region.id, conditions.join(", "), rule.matches_of_class, rule.matches);
/// }
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct Explainer {
    path: PathBuf,
    atoms: Atoms,
    classes: usize,
    channels: usize,
    minimum_support: usize,
    generator: Generator,
    counts: Counts,
    /// The names of the training regions: the photo, a slash, and the region's number in it.
    names: Vec<String>,
}

impl Explainer {
    /// Reads the explainer of a weights file.
    ///
    /// ```
    /// # use rtformer::{explain::Explainer, weights::Weights};
    /// let refused = Explainer::of(&Weights::open("tests/data/golden/tiny.safetensors")?).err().unwrap();
    /// assert!(refused.to_string().contains("has no explainer; make one with weights/train/explain.py"));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Weights`] if there is none, or if it is damaged, of another version, or of another network;
    /// [`Error::MissingTensor`] and [`Error::Shape`].
    pub fn of(weights: &Weights) -> Result<Self> {
        let refuse = |reason: String| Error::weights(weights.path(), reason);
        let Some(text) = weights.metadata(EXPLAINER) else {
            let how = "make one with weights/train/explain.py (see `Explaining predictions` in the documentation)";
            return Err(refuse(format!("has no explainer; {how}")));
        };
        let described: Description = serde_json::from_str(text)
            .map_err(|e| refuse(format!("`{EXPLAINER}` in its metadata is invalid: {e}; make the explainer again")))?;
        let Description { format, classes, channels, regions, minimum_support, photos, .. } = described;
        if format != FORMAT {
            return Err(refuse(format!("its explainer has format {format}; this version reads {FORMAT}")));
        }
        let digest = weights.tensors_digest();
        if described.digest != digest {
            let (theirs, own) = (shortened(&described.digest), shortened(&digest));
            return Err(refuse(format!(
                "its explainer was trained for the network {theirs}, but this file holds the network {own}; train it again with \
                 weights/train/explain.py"
            )));
        }
        let names: Vec<_> = weights.dataset()?.classes.into_iter().map(|class| class.name).collect();
        if classes != names {
            return Err(refuse(format!("its explainer is for the classes {classes:?}; expected {names:?}")));
        }
        let features: Vec<_> = described.thresholds.iter().map(|(name, _)| name.as_str()).collect();
        if !features.iter().copied().eq(Atoms::features()) {
            let expected: Vec<_> = Atoms::features().collect();
            return Err(refuse(format!("its explainer measures {features:?}; this version measures {expected:?}")));
        }
        let thresholds = described.thresholds.into_iter().map(|(_, thresholds)| thresholds).collect();
        let atoms = Atoms::new(classes, thresholds).map_err(|e| refuse(format!("its explainer is invalid: {e}")))?;
        if !described.atoms.iter().map(String::as_str).eq(atoms.names()) {
            let (theirs, own) = (described.atoms.len(), atoms.len());
            let at = described.atoms.iter().map(String::as_str).zip(atoms.names()).position(|(a, b)| a != b);
            let first = at.map_or(String::new(), |at| format!(", the first other one is `{}`", described.atoms[at]));
            return Err(refuse(format!(
                "its explainer has {theirs} atoms; this version defines {own}{first}; train it again with \
                 weights/train/explain.py"
            )));
        }
        let model = format!("an explainer with {} atoms and {regions} training regions", atoms.len());
        let bytes = |name: &str, shape: &[usize]| weights.stored_bytes(&format!("explainer.{name}"), shape, &model);
        let labels: Vec<u16> = bytes("labels", &[regions])?.iter().map(|&label| u16::from(label)).collect();
        if let Some(label) = labels.iter().find(|label| usize::from(**label) >= names.len()) {
            return Err(refuse(format!("its explainer has the label {label}; expected 0 to {}", names.len() - 1)));
        }
        let bits = bytes("bits", &[atoms.stored().len(), row_bytes(regions)])?;
        let counts = Counts::new(&atoms, bits, labels);
        let numbers = bytes("region_ids", &[regions, 2])?.as_chunks().0.iter().map(|id| u16::from_le_bytes(*id));
        let of_photos = photos.iter().flat_map(|(photo, count)| std::iter::repeat_n(photo, *count));
        let names: Vec<_> = of_photos.zip(numbers).map(|(photo, id)| format!("{photo}/{id}")).collect();
        if names.len() != regions || minimum_support == 0 {
            let found = photos.iter().map(|(_, count)| count).sum::<usize>();
            return Err(refuse(format!(
                "its explainer names {found} regions of photos and a minimum support of {minimum_support}; expected {regions} \
                 regions, and at least 1"
            )));
        }
        let generator = Generator::load(weights, atoms.len(), channels)?;
        let (path, classes) = (weights.path().to_path_buf(), weights.dataset()?.classes.len());
        Ok(Self { path, atoms, classes, channels, minimum_support, generator, counts, names })
    }

    /// The atoms that rules consist of.
    pub fn atoms(&self) -> &Atoms {
        &self.atoms
    }

    /// The number of training regions that rules are counted over.
    pub fn regions(&self) -> usize {
        self.counts.regions()
    }

    /// The fewest training regions that match a rule.
    pub fn minimum_support(&self) -> usize {
        self.minimum_support
    }

    /// The name of a training region: its photo, a slash, and its number in it.
    pub fn name(&self, region: usize) -> &str {
        &self.names[region]
    }

    /// Explains every region of a photo.
    ///
    /// # Errors
    /// [`Error::Input`] if the scene has no features, or is of another photo; [`Error::Weights`] if the features are another network's.
    pub fn explain<'a>(&self, photo: impl Into<Pixels<'a>>, scene: &Scene) -> Result<Explanation> {
        let regions = Regions::of(photo, scene.mask())?;
        let found = wanted_features(scene)?;
        if found.channels != self.channels || scene.mask().classes() != self.classes {
            let (channels, classes) = (found.channels, scene.mask().classes());
            return Err(Error::weights(
                &self.path,
                format!(
                    "its explainer is for {} features and {} classes, but the network has {channels} and {classes}",
                    self.channels, self.classes
                ),
            ));
        }
        let pooled = pool(&regions, found)?;
        let measured = features(&regions);
        let rules = process::parallel(|| {
            let each = pooled.par_iter().zip(&measured);
            each.map(|(pooled, features)| self.rule(pooled, &self.atoms.of(features))).collect()
        });
        Ok(Explanation { regions, rules })
    }

    /// Removes atoms that the others imply: without them, the same regions match.
    fn simplify(&self, atoms: &mut Vec<usize>, matches: usize) {
        let mut at = 0;
        while at < atoms.len() && atoms.len() > 1 {
            let mut set = self.counts.everything();
            atoms
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != at)
                .for_each(|(_, &atom)| self.counts.restrict(&mut set, atom));
            if self.counts.count(&set) == matches {
                atoms.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// The rule for a region with these features and atoms. `None` if no atom that holds has the minimum support.
    fn rule(&self, pooled: &[f32], holds: &[bool]) -> Option<Rule> {
        let end = self.atoms.len();
        let mut state = self.generator.start(pooled);
        let (mut set, mut matches) = (self.counts.everything(), self.counts.regions());
        let mut atoms: Vec<usize> = Vec::new();
        while atoms.len() < MOST_ATOMS {
            let scores = self.generator.next(&mut state, atoms.last().copied());
            let mut order: Vec<usize> = (0..end).filter(|&atom| holds[atom]).collect();
            order.extend((!atoms.is_empty()).then_some(end));
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            // An atom must exclude some of the regions, which an atom that is used already cannot, and keep enough of them.
            let allowed = |&choice: &usize| {
                let count = if choice == end { matches } else { self.counts.count_with(&set, choice) };
                (choice == end || (self.minimum_support..matches).contains(&count)).then_some((choice, count))
            };
            match order.iter().find_map(allowed) {
                Some((atom, count)) if atom != end => {
                    self.counts.restrict(&mut set, atom);
                    matches = count;
                    atoms.push(atom);
                }
                _ => break,
            }
        }
        if atoms.is_empty() {
            return None;
        }
        self.simplify(&mut atoms, matches);
        let by_class = self.counts.by_class(&set, self.classes);
        let class = most(&by_class);
        let matches_of_class = by_class[usize::from(class)];
        let nearest = self.counts.nearest(&set, holds, NEAREST);
        let coverage = matches as f64 / self.counts.regions() as f64;
        Some(Rule { atoms, class, matches, matches_of_class, by_class, coverage, nearest })
    }
}

fn shortened(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// A rule: conditions that hold for a region, and what is known of the training regions for which they hold.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// Indices in [`Explainer::atoms`], at most four, in the order in which they were chosen.
    pub atoms: Vec<usize>,
    /// The consequent: the label that most of the matching training regions have.
    pub class: u16,
    /// The number of training regions for which all atoms hold.
    pub matches: usize,
    /// Those with the label `class`.
    pub matches_of_class: usize,
    /// Those with each label.
    pub by_class: Vec<usize>,
    /// The share of all training regions that match, 0 to 1.
    pub coverage: f64,
    /// The matching training regions that share most atoms with the region, nearest first.
    pub nearest: Vec<usize>,
}

impl Rule {
    /// The share of the matching training regions that have the rule's class, 0 to 1.
    pub fn precision(&self) -> f64 {
        self.matches_of_class as f64 / self.matches.max(1) as f64
    }

    /// How likely a label is under the rule, 0 to 1: the share of the matching training regions that have it. One region is added for each
    /// class, so that no label is impossible.
    pub fn likelihood(&self, label: u16) -> f64 {
        let of_label = self.by_class.get(usize::from(label)).copied().unwrap_or(0);
        (of_label + 1) as f64 / (self.matches + self.by_class.len()) as f64
    }
}

/// The regions of a photo with their rules.
pub struct Explanation {
    /// The regions.
    pub regions: Regions,
    /// The rule of each region; `None` if no condition that holds has the minimum support.
    pub rules: Vec<Option<Rule>>,
}

impl Explanation {
    /// The regions with their rules.
    pub fn all(&self) -> impl Iterator<Item = (&super::Region, Option<&Rule>)> {
        self.regions.all().iter().zip(self.rules.iter().map(Option::as_ref))
    }

    /// Gives each pixel the class of its component's rule, or if the component is too small to have one, that of its superpixel's rule.
    /// Pixels for which there is neither keep their class. Returns the number of pixels that got their class from a rule.
    ///
    /// The result is a prediction that consists of rules only, which is self-explaining in the sense of SELOR.
    ///
    /// # Errors
    /// [`Error::Input`] if the mask has another size.
    pub fn relabel(&self, mask: &mut Mask) -> Result<usize> {
        let (width, height) = (self.regions.width(), self.regions.height());
        if (mask.width(), mask.height()) != (width, height) {
            let (w, h) = (mask.width(), mask.height());
            return Err(Error::Input(format!(
                "a mask of {w}x{h} pixels; expected the explained one of {width}x{height}"
            )));
        }
        let of = |region: Option<usize>| region.and_then(|region| self.rules[region].as_ref()).map(|rule| rule.class);
        let class: Vec<Option<u16>> = (0..self.regions.components.len())
            .map(|pixel| self.regions.of_pixel(pixel).into_iter().find_map(of))
            .collect();
        let found = class.iter().zip(0..).filter_map(|(class, i)| class.map(|class| (i, class)));
        match mask.ids_mut() {
            IdsMut::U8(ids) => found.for_each(|(i, class): (usize, u16)| ids[i] = class as u8),
            IdsMut::U16(ids) => found.for_each(|(i, class): (usize, u16)| ids[i] = class),
        }
        Ok(class.iter().flatten().count())
    }

    /// The indices of the regions of one kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = usize> + '_ {
        let all = self.regions.all().iter().enumerate();
        all.filter(move |(_, region)| region.kind == kind).map(|(i, _)| i)
    }
}
