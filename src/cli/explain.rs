//! `rtformer explain`: explains predictions with logic rules, and writes the table from which explainers are trained.

mod args;
mod draw;
mod inputs;
mod page;
mod report;
mod suspicious;
mod table;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::anyhow;
use rtformer::eval::{LabelImage, find_labels};
use rtformer::explain::{Explainer, Explanation};
use rtformer::pixels::IndexedPicture;
use rtformer::{Image, Scene, Segmenter};

use super::Outcome;
use super::console::{Console, counted};
use super::model::opened;
use super::photos;
use args::Emit;
use inputs::Photo;
use report::Explained;
use suspicious::Suspicious;

pub(super) use args::Args;

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    args.check()?;
    let (found, mut failed) = inputs::find(&args.photos, &args.out, console);
    if found.is_empty() {
        return Err(anyhow!("no photo was found; name photos or folders of photos"));
    }
    let labels = labels(args, &found, console, &mut failed)?;
    let weights = args.model.opened()?;
    let explainer = if args.explains() { Some(Explainer::of(&weights)?) } else { None };
    let ranks = args.labels.is_some() && args.explains();
    let segmenter = opened(args.model.builder()?.features(true).logits(ranks).build())?;
    console.note(&segmenter.to_string());
    let run = Run { args, console, class: args.class(&segmenter)?, segmenter, explainer, thresholds: weights };

    let mut table = args.emits(Emit::Table).then(|| table::Writer::new(&run.segmenter, &args.out));
    let mut suspicious = Suspicious::default();
    let bar = console.progress(found.len() as u64, "photos");
    let mut done = 0;
    for (photo, label) in found.iter().zip(&labels) {
        match run.photo(photo, label.as_deref(), table.as_mut(), &mut suspicious) {
            Ok(()) => done += 1,
            Err(error) => {
                failed += 1;
                console.error(&format!("{error:#}"));
            }
        }
        bar.inc(1);
    }
    console.finish();
    if let Some(table) = table {
        table.finish(&run.thresholds, args.overwrite, console)?;
    }
    if ranks {
        suspicious.write(&args.out, args.overwrite, console)?;
    }
    console.note(&format!("{} explained -> {}", counted(done, "photo"), args.out.display()));
    Ok(if failed == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

/// The label image of each photo. A photo without one is reported, and explained without.
fn labels(args: &Args, found: &[Photo], console: &Console, failed: &mut usize) -> anyhow::Result<Vec<Option<PathBuf>>> {
    let Some(folder) = &args.labels else { return Ok(vec![None; found.len()]) };
    let pairs = find_labels(found.iter().map(|photo| &photo.path), folder, None)?;
    pairs.failed.iter().for_each(|error| console.error(&error.to_string()));
    *failed += pairs.failed.len();
    let of = |photo: &Photo| pairs.pairs.iter().find(|pair| pair.photo == photo.path).map(|pair| pair.label.clone());
    Ok(found.iter().map(of).collect())
}

/// What all photos have in common.
struct Run<'a> {
    args: &'a Args,
    console: &'a Console,
    segmenter: Segmenter,
    explainer: Option<Explainer>,
    thresholds: rtformer::weights::Weights,
    /// The only class to report.
    class: Option<u16>,
}

impl Run<'_> {
    fn photo(
        &self,
        photo: &Photo,
        label: Option<&Path>,
        table: Option<&mut table::Writer>,
        suspicious: &mut Suspicious,
    ) -> anyhow::Result<()> {
        let outputs = self.outputs(photo)?;
        let picture = self.args.decoding.decoder().open(&photo.path)?;
        if let Some(warning) = photos::warning(&photo.path, &picture) {
            self.console.note(&warning);
        }
        let labels = label.map(|path| LabelImage::open(path, self.segmenter.dataset())).transpose()?;
        let mut scene = self.segmenter.segment(&picture)?;
        if let Some(table) = table {
            table.add(photo, &picture, &scene, labels.as_ref(), self.args.overwrite)?;
        }
        let Some(explainer) = &self.explainer else { return Ok(()) };
        let started = Instant::now();
        let explanation = explainer.explain(&picture, &scene)?;
        let milliseconds = 1e3 * started.elapsed().as_secs_f64();
        let chosen = self.chosen(&explanation, photo)?;
        let names: Vec<_> = self.segmenter.dataset().classes.iter().map(|class| class.name.as_str()).collect();
        let regions = &explanation.regions;
        let likelihoods = match (&labels, scene.logits()) {
            (Some(labels), Some(logits)) => regions.likelihoods(logits, self.segmenter.temperature(), labels)?,
            _ => Vec::new(),
        };
        let labels = labels.map(|labels| regions.labels(&labels)).transpose()?;
        let explained = Explained {
            photo,
            names: &names,
            explainer,
            explanation: &explanation,
            chosen: &chosen,
            labels: labels.as_deref(),
            timings: scene.timings(),
            milliseconds,
        };
        let report = explained.report();
        suspicious.add(&explained, &likelihoods);
        for (emit, path) in &outputs {
            match emit {
                Emit::Json => report::write(path, &report)?,
                Emit::Png => draw::write(path, &picture, &scene, &explained)?,
                Emit::Html => page::write(path, &picture, &explained, &report)?,
                Emit::Table => {}
            }
        }
        self.relabel(photo, &explanation, &mut scene)?;
        self.console.detail(&format!("{} done, explained in {milliseconds:.1} ms", photo.path.display()));
        Ok(())
    }

    /// The outputs of a photo and their paths. None of them exists, unless it may be replaced.
    fn outputs(&self, photo: &Photo) -> anyhow::Result<Vec<(Emit, PathBuf)>> {
        let of = |emit: Emit| (emit, photo.output(&self.args.out, emit.suffix()));
        let outputs: Vec<_> =
            self.args.emit.iter().filter(|emit| **emit != Emit::Table).map(|emit| of(*emit)).collect();
        let mask = self.args.by_rules.then(|| photo.output(&self.args.out, MASK));
        for path in outputs.iter().map(|(_, path)| path).chain(&mask) {
            refuse_existing(path, self.args.overwrite)?;
        }
        Ok(outputs)
    }

    /// The indices of the regions to report.
    fn chosen(&self, explanation: &Explanation, photo: &Photo) -> anyhow::Result<Vec<usize>> {
        let regions = &explanation.regions;
        let mut chosen: Vec<usize> = match self.args.at {
            None => (0..regions.all().len()).collect(),
            Some((x, y)) if x < regions.width() && y < regions.height() => regions.at(x, y).collect(),
            Some((x, y)) => {
                let (photo, width, height) = (photo.path.display(), regions.width(), regions.height());
                return Err(anyhow!(
                    "{photo}: --at {x},{y} is outside of the photo, which has {width}x{height} pixels"
                ));
            }
        };
        chosen.retain(|&region| self.class.is_none_or(|class| regions.all()[region].class == class));
        Ok(chosen)
    }

    /// Writes the mask that consists of the rules' consequents.
    fn relabel(&self, photo: &Photo, explanation: &Explanation, scene: &mut Scene) -> anyhow::Result<()> {
        if !self.args.by_rules {
            return Ok(());
        }
        let mut mask = scene.take_mask();
        let by_rules = explanation.relabel(&mut mask)?;
        let all = mask.iter().count();
        if by_rules < all {
            let photo = photo.path.display();
            let kept = counted(all - by_rules, "pixel");
            self.console.note(&format!("{photo}: {kept} without a rule keep the network's class"));
        }
        let path = photo.output(&self.args.out, MASK);
        IndexedPicture::new(&mask, self.segmenter.palette()).save(path)?;
        Ok(())
    }
}

/// The ending of the mask that `--by-rules` writes.
const MASK: &str = ".rules.mask.png";

/// An error if a file exists that may not be replaced.
fn refuse_existing(path: &Path, overwrite: bool) -> anyhow::Result<()> {
    if !overwrite && path.exists() {
        return Err(anyhow!("{}: exists already; use --overwrite to replace it", path.display()));
    }
    Ok(())
}

/// The name of a photo in the table: its path in the named folder, without the extension.
fn name(image: &Photo) -> String {
    image.stem.to_string_lossy().replace('\\', "/")
}

/// A photo and its mask's colours, for pictures.
fn pixels(photo: &Image) -> rtformer::pixels::Pixels<'_> {
    photo.into()
}
