//! `eval --video`: the flip rate of a video, and its accuracy on the frames that have labels.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use rtformer::Segmenter;
use rtformer::eval::{Evaluation, LabelFormat, LabelImage, Pair, find_labels};
use rtformer::video::{FlipCounter, Frame, Keep, Options, Shown, Smoother, Source, numbered};

use super::super::Outcome;
use super::super::console::Console;
use super::super::model::opened;
use super::{Args, Flips, Results, report};

pub(super) fn run(args: &Args, input: &Path, format: &LabelFormat, console: &Console) -> anyhow::Result<Outcome> {
    let labels = Labels::find(args, input)?;
    let builder = args.model.builder()?.size(args.size).confidence(true).logits(args.smooth.is_some());
    let segmenter = Arc::new(opened(builder.build())?);
    console.note(&segmenter.to_string());
    let mut smoother = args.smooth.map(Smoother::new).transpose()?;
    let mut flips = FlipCounter::default();
    let mut evaluation = args.detail.evaluation(Evaluation::new(&segmenter)?)?;
    let mut frames = 0;
    let bar = console.count("frames");
    for shown in segmenter.stream(Source::open(input, &Options::default())?, Keep::Every) {
        let counted = shown.and_then(|mut shown| {
            if let Some(smoother) = &mut smoother {
                smoother.apply(&shown.frame.image, &mut shown.scene)?;
            }
            flips.count(&shown.frame.image, shown.scene.mask());
            frames += 1;
            labels
                .of(&shown.frame)
                .map_or(Ok(()), |path| count(path, &shown, &segmenter, format, &mut evaluation, args.smooth.is_some()))
        });
        if let Err(error) = counted {
            evaluation.failed += 1;
            console.error(&error.to_string());
        }
        bar.inc(1);
    }
    console.finish();
    if evaluation.images + evaluation.failed == 0 && args.labels.is_some() {
        bail!(
            "{}: none of {frames} frames has labels; expected names such as 000001.png for the first frame",
            input.display()
        );
    }
    let flips = Flips { flip_rate: flips.rate(), frames };
    report(args, console, &segmenter, &evaluation, Results { flips: Some(flips), ..Results::default() })?;
    Ok(if evaluation.failed == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

/// Counts a frame that has labels. Confidences are those of the frame alone, so they do not belong to smoothed masks.
fn count(
    path: &Path,
    shown: &Shown<Frame>,
    segmenter: &Segmenter,
    format: &LabelFormat,
    evaluation: &mut Evaluation,
    smoothed: bool,
) -> rtformer::Result<()> {
    let labels = LabelImage::open_for(path, segmenter, format)?;
    let (width, height) = shown.frame.image.dimensions();
    labels.check_size(&shown.frame.name, width, height)?;
    let pair = Pair { photo: shown.frame.name.clone(), label: path.to_path_buf() };
    evaluation.count(&pair, &labels, shown.scene.mask(), shown.scene.confidence().filter(|_| !smoothed))?;
    Ok(())
}

/// The label files, by what names their frame.
enum Labels {
    /// By the paths of pictures.
    Pictures(HashMap<PathBuf, PathBuf>),
    /// By the numbers of frames.
    Numbers(HashMap<u64, PathBuf>),
}

impl Labels {
    fn find(args: &Args, input: &Path) -> anyhow::Result<Self> {
        let Some(labels) = &args.labels else { return Ok(Self::Numbers(HashMap::new())) };
        let suffix = args.format.label_suffix.as_deref();
        if input.is_dir() {
            let pairs = find_labels(numbered(input)?, labels, suffix)?.pairs;
            return Ok(Self::Pictures(pairs.into_iter().map(|Pair { photo, label }| (photo, label)).collect()));
        }
        let endings = suffix.map_or(vec![".mask.png", "_L.png", ".png"], |suffix| vec![suffix]);
        let entries = std::fs::read_dir(labels).map_err(rtformer::Error::reading(labels))?;
        let number = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?;
            let stem = endings.iter().find_map(|ending| name.strip_suffix(ending))?;
            stem.bytes().all(|byte| byte.is_ascii_digit()).then(|| stem.parse().ok())?
        };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        Ok(Self::Numbers(paths.filter_map(|path| Some((number(&path)?, path))).collect()))
    }

    fn of(&self, frame: &Frame) -> Option<&Path> {
        match self {
            Self::Pictures(paths) => paths.get(&frame.name),
            Self::Numbers(numbers) => numbers.get(&frame.number),
        }
        .map(PathBuf::as_path)
    }
}
