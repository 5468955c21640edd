//! The stages: what each one does, and how long it takes.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use rtformer::files::write_whole;
use rtformer::pixels::{Image, IndexedPicture, Mask};
use rtformer::{Segmenter, bench};
use serde::{Deserialize, Serialize};

use super::super::stats::Figures;
use super::{Args, Console, misuse};

/// What is measured, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// Network and full-size bilinear logits
    Paper,
    /// Network and mask
    Mask,
    /// 8-bit frame to 8-bit mask
    Frame,
    /// JPEG file to mask PNG file
    File,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Mask => "mask",
            Self::Frame => "frame",
            Self::File => "file",
        }
    }

    /// Whether it starts with a photo, on which adaptive inference decides.
    pub(super) fn reads_photos(self) -> bool {
        matches!(self, Self::Frame | Self::File)
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Paper => "network and full-size logits, input and output on the device (as in papers)",
            Self::Mask => "network and mask, input and output on the device",
            Self::Frame => "8-bit frame in memory to 8-bit mask in memory",
            Self::File => "JPEG file to mask PNG file, with a warm disk cache",
        }
    }
}

/// Times the requested stages in turns: one run of each, then the next run of each.
pub(super) fn measure(
    args: &Args,
    segmenter: &Segmenter,
    frame: &RgbImage,
    console: &Console,
) -> anyhow::Result<BTreeMap<Stage, Figures>> {
    let folder = tempfile::tempdir().context("cannot create a temporary folder for the photo and its mask")?;
    let (photo, picture) = (folder.path().join("frame.jpg"), folder.path().join("frame.mask.png"));
    if args.stages.contains(&Stage::File) {
        write_whole(&photo, |file| {
            JpegEncoder::new_with_quality(file, 90).encode_image(frame).map_err(std::io::Error::other)
        })?;
    }
    let (width, height) = frame.dimensions();
    let stages: Vec<Stage> =
        args.stages.iter().copied().filter(|stage| args.adaptive.is_none() || stage.reads_photos()).collect();
    if stages.is_empty() {
        return Err(misuse("--adaptive measures the stages frame and file; choose one of them with --stages"));
    }
    let classes = segmenter.model().num_classes();
    let batch = args.batch as usize;
    let input = bench::prepare(segmenter, frame)?;
    let (seen_width, seen_height) = (input.width, input.height);
    let resident = bench::resident(segmenter, &vec![input; batch])?;
    let floats = seen_width * seen_height * classes * batch;
    if stages.contains(&Stage::Paper) && Vec::<f32>::new().try_reserve_exact(floats).is_err() {
        return Err(misuse(format!(
            "stage paper: {classes} floats for each of {batch} times {seen_width}x{seen_height} pixels do not fit into memory; reduce --size or --batch, or \
             leave out the stage with --stages"
        )));
    }
    let mut mask = Mask::new(width, height, classes);
    let mut once = |stage| match stage {
        Stage::Paper => resident.compute_logits(),
        Stage::Mask => resident.compute_masks(),
        Stage::Frame if batch == 1 => segmenter.segment_into(frame, &mut mask).map(drop),
        Stage::Frame => segmenter.segment_batch(vec![frame; batch]).map(drop),
        Stage::File => {
            let photos = (0..batch).map(|_| Image::open(&photo)).collect::<Result<Vec<_>, _>>()?;
            let save = |mask: &Mask| IndexedPicture::new(mask, segmenter.palette()).save(&picture);
            if let [photo] = &photos[..] {
                segmenter.segment_into(photo, &mut mask)?;
                return save(&mask);
            }
            segmenter.segment_batch(&photos)?.iter().try_for_each(|scene| save(scene.mask()))
        }
    };
    let mut times: BTreeMap<Stage, Vec<f64>> = stages.iter().map(|stage| (*stage, Vec::new())).collect();
    let all = args.warmup + args.runs;
    let bar = console.progress(u64::from(all), "runs");
    for run in 0..all {
        for (stage, times) in &mut times {
            let start = Instant::now();
            once(*stage)?;
            let took = start.elapsed();
            if run >= args.warmup {
                times.push(1e3 * took.as_secs_f64());
            }
        }
        bar.inc(1);
    }
    console.finish();
    Ok(times.into_iter().map(|(stage, times)| (stage, Figures::of(&times, args.batch))).collect())
}
