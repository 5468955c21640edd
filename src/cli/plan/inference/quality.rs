//! The quality of each point: on labels, or as the consistency with the first point.

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, bail};
use rtformer::Segmenter;
use rtformer::eval::{Evaluation, LabelFormat, LabelKind, Measuring, Pair};
use rtformer::pixels::{Decoder, IndexedPicture};
use serde::Serialize;
use tempfile::TempDir;

use super::super::super::console::Console;
use super::super::super::{labels, misuse};
use super::InferenceArgs;

/// The quality of a point. Ratios are 0 to 1.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Quality {
    /// The mean `IoU` on the labels.
    pub(super) miou: Option<f64>,
    /// The share of labelled pixels with the right class.
    pub(super) pixel_accuracy: Option<f64>,
    /// Without labels, the share of pixels whose class is that of the first point.
    pub(super) consistency: Option<f64>,
    /// The number of photos that were measured.
    pub(super) images: usize,
}

/// The photos to measure on.
pub(super) struct Photos {
    /// The labels of each photo: the user's, or, once the first point was measured, its masks.
    pairs: Vec<Pair>,
    format: LabelFormat,
    failed: usize,
    masks: Option<Masks>,
}

/// The first point's masks, which replace labels.
struct Masks {
    /// Deleted when dropped.
    _folder: TempDir,
    /// The classes of the first point; `None` before it was measured.
    classes: Option<Vec<String>>,
}

impl Photos {
    pub(super) fn find(args: &InferenceArgs, format: LabelFormat, console: &Console) -> anyhow::Result<Self> {
        let images = args.images.as_ref().context("--images is missing")?;
        let report = |errors: &[rtformer::Error]| errors.iter().for_each(|error| console.error(&error.to_string()));
        if args.labels.is_some() {
            let found = args.format.pairs(images, None, args.labels.as_deref())?;
            report(&found.failed);
            return Ok(Self { pairs: found.pairs, format, failed: found.failed.len(), masks: None });
        }
        if format != LabelFormat::default() || args.format.label_suffix.is_some() {
            return Err(misuse("--label-kind, --first-id, --ignore-id and --label-suffix need --labels"));
        }
        let (photos, failed) = labels::photos(images)?;
        report(&failed);
        let folder = tempfile::tempdir().context("cannot create a temporary folder for masks")?;
        let mask = |number: usize| folder.path().join(format!("{number}.png"));
        let pairs = photos.into_iter().enumerate().map(|(number, photo)| Pair { photo, label: mask(number) }).collect();
        let format = LabelFormat { kind: LabelKind::TrainId, ..LabelFormat::default() };
        let masks = Some(Masks { _folder: folder, classes: None });
        Ok(Self { pairs, format, failed: failed.len(), masks })
    }

    /// The paths of the photos.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.pairs.iter().map(|pair| &pair.photo)
    }

    /// The number of photos that could not be measured.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// The quality of a network. Photos that fail are reported and left out from then on.
    pub(super) fn measure(&mut self, segmenter: &Segmenter, console: &Console) -> anyhow::Result<Quality> {
        let quality = if self.is_first(segmenter)? {
            self.keep_masks(segmenter, console)
        } else {
            self.evaluate(segmenter, console)?
        };
        if quality.images == 0 {
            bail!("no photo could be measured; the errors above say why");
        }
        Ok(quality)
    }

    /// Whether the masks of this network, the first one, replace labels.
    fn is_first(&mut self, segmenter: &Segmenter) -> anyhow::Result<bool> {
        let Some(masks) = &mut self.masks else { return Ok(false) };
        let names: Vec<_> = segmenter.dataset().classes.iter().map(|class| class.name.clone()).collect();
        match &masks.classes {
            None => masks.classes = Some(names),
            Some(first) if *first == names => return Ok(false),
            Some(_) => bail!(
                "{}: its classes are not those of the first weights, so their masks cannot be compared; use --labels",
                segmenter.weights_name().display()
            ),
        }
        Ok(true)
    }

    /// Compares with the labels, or with the first point's masks.
    fn evaluate(&mut self, segmenter: &Segmenter, console: &Console) -> anyhow::Result<Quality> {
        let mut evaluation = Evaluation::new(segmenter)?;
        let measuring = Measuring { decoder: Decoder::default(), format: self.format.clone(), batch: 1 };
        let bar = console.progress(self.pairs.len() as u64, "photos");
        let mut counted = Vec::new();
        evaluation.measure(segmenter, &self.pairs, &measuring, &mut |pair, result| {
            match result {
                Ok(_) => counted.push(pair.clone()),
                Err(error) => console.error(&error.to_string()),
            }
            bar.inc(1);
            ControlFlow::Continue(())
        });
        console.finish();
        self.failed += evaluation.failed;
        self.pairs = counted;
        let labelled = self.masks.is_none();
        let accuracy = evaluation.confusion.pixel_accuracy();
        Ok(Quality {
            miou: evaluation.confusion.miou().filter(|_| labelled),
            pixel_accuracy: accuracy.filter(|_| labelled),
            consistency: accuracy.filter(|_| !labelled),
            images: evaluation.images,
        })
    }

    /// Writes the masks of the first point, to compare the others with.
    fn keep_masks(&mut self, segmenter: &Segmenter, console: &Console) -> Quality {
        let before = self.pairs.len();
        let bar = console.progress(before as u64, "photos");
        self.pairs.retain(|pair| {
            let kept = Decoder::default().open(&pair.photo).and_then(|photo| {
                let scene = segmenter.segment(&photo)?;
                IndexedPicture::new(scene.mask(), segmenter.palette()).save(&pair.label)
            });
            bar.inc(1);
            kept.map_err(|error| console.error(&error.to_string())).is_ok()
        });
        console.finish();
        self.failed += before - self.pairs.len();
        // It agrees with itself.
        Quality { miou: None, pixel_accuracy: None, consistency: Some(1.0), images: self.pairs.len() }
    }
}
