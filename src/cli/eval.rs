//! `rtformer eval`: how good a network is on labelled photos.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::thread;

use crossbeam_channel::bounded;
use rtformer::eval::{Calibration, Confusion, LabelImage, Pair, find_pairs};
use rtformer::pixels::{Decoder, Image, render};
use rtformer::weights::Dataset;
use rtformer::{Error, Segmenter, Size};
use serde::{Serialize, Serializer};

use super::console::Console;
use super::model::{DeviceArgs, ModelArgs, opened};
use super::photos::{self, PhotoArgs};
use super::plot;
use super::{Outcome, batch};

const ABOUT: &str = "Measure IoU on labelled photos";

const LABELS: &str = "\
A photo SUB/P.jpg goes with the labels SUB/P.png or SUB/P_L.png (CamVid), and X_leftImg8bit.png (Cityscapes) with \
X_gtFine_labelTrainIds.png or X_gtFine_labelIds.png. Labels are grey or indexed PNG files of class ids, where 255 is ignored; RGB ones \
are read by the classes' colours.";

#[derive(Debug, clap::Args)]
#[command(about = ABOUT, long_about = format!("{ABOUT}\n\n{LABELS}"))]
pub(super) struct Args {
    /// The folder of the photos
    #[arg(long, value_name = "FOLDER")]
    images: PathBuf,

    /// The folder of the label images
    #[arg(long, value_name = "FOLDER")]
    labels: PathBuf,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Draw the confusion matrix into this PNG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// The size at which the network sees a photo: native, WxH, or within:WxH (masks are measured at the photo's size)
    #[arg(long, value_name = "SIZE", default_value = "native")]
    size: Size,

    /// Photos that are given to the network together, where neighbours have one size: 1 on CPUs, 8 on GPUs unless said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Option<u16>,

    #[command(flatten)]
    photos: PhotoArgs,

    #[command(flatten)]
    model: ModelArgs,
}

impl Args {
    pub(super) fn device(&self) -> &DeviceArgs {
        &self.model.device
    }
}

/// A pair, decoded; or why it is not.
type Opened<'a> = (&'a Pair, rtformer::Result<(Image, LabelImage)>);

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    let found = find_pairs(&args.images, &args.labels)?;
    found.failed.iter().for_each(|error| console.error(&error.to_string()));
    let segmenter = opened(args.model.builder()?.size(args.size).confidence(true).build())?;
    console.note(&segmenter.to_string());

    let confusion = Confusion::new(segmenter.dataset().classes.len())?;
    let calibration = Calibration::default();
    let mut tally = Tally { confusion, calibration, images: 0, failed: found.failed.len() };
    measure(args, console, &segmenter, &found.pairs, &mut tally);

    let report = Report::new(args, &segmenter, &tally);
    if args.json {
        writeln!(stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        stdout().lock().write_all(report.table(&tally).as_bytes())?;
    }
    if let Some(path) = &args.plot {
        let names: Vec<_> = segmenter.dataset().classes.iter().map(|class| class.name.as_str()).collect();
        let title = format!("Confusion matrix: {} on {}", report.model, segmenter.dataset().name);
        let (miou, accuracy) = (percent(report.miou), percent(report.pixel_accuracy));
        let subtitle = format!("mean IoU {miou} %, pixel accuracy {accuracy} %, {}", photos(tally.images));
        render::save_rgb(path, &plot::confusion(&tally.confusion, &names, &title, &subtitle))?;
        console.note(&format!("confusion matrix -> {}", path.display()));
    }
    Ok(if tally.failed == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

/// What came of the pairs.
struct Tally {
    confusion: Confusion,
    calibration: Calibration,
    images: usize,
    failed: usize,
}

/// Counts every pair. The next ones are decoded while the network runs; no more than two batches are in memory.
fn measure(args: &Args, console: &Console, segmenter: &Segmenter, pairs: &[Pair], tally: &mut Tally) {
    let bar = console.progress(pairs.len() as u64, "photos");
    let batch = usize::from(batch::size(args.batch, segmenter));
    let dataset = segmenter.dataset();
    thread::scope(|scope| {
        let (door, opened) = bounded::<Opened<'_>>(batch);
        scope.spawn(move || {
            for pair in pairs {
                let opened = open(pair, args.photos.decoder(), dataset);
                if let Some(warning) = opened.as_ref().ok().and_then(|(photo, _)| photos::warning(&pair.photo, photo)) {
                    console.note(&warning);
                }
                if door.send((pair, opened)).is_err() {
                    break;
                }
            }
        });
        loop {
            let batch: Vec<_> = opened.iter().take(batch).collect();
            if batch.is_empty() {
                break;
            }
            let done = batch.len() as u64;
            for (pair, counted) in count(segmenter, batch, tally) {
                match counted {
                    Ok(()) => {
                        tally.images += 1;
                        console.detail(&format!("{} done", pair.photo.display()));
                    }
                    Err(error) => {
                        tally.failed += 1;
                        console.error(&error.to_string());
                    }
                }
            }
            bar.inc(done);
        }
    });
    console.finish();
}

fn open(pair: &Pair, decoder: Decoder, dataset: &Dataset) -> rtformer::Result<(Image, LabelImage)> {
    let photo = decoder.open(&pair.photo)?;
    let labels = LabelImage::open(&pair.label, dataset)?;
    labels.check_size(photo.width(), photo.height())?; // before the network runs for nothing
    Ok((photo, labels))
}

/// Segments a batch and counts it; what came of each pair.
fn count<'a>(
    segmenter: &Segmenter,
    batch: Vec<Opened<'a>>,
    tally: &mut Tally,
) -> Vec<(&'a Pair, rtformer::Result<()>)> {
    let photos = batch.iter().filter_map(|(_, opened)| opened.as_ref().ok()).map(|(photo, _)| photo);
    let mut scenes = segmenter.segment_each(photos).into_iter();
    let counted = batch.into_iter().map(|(pair, opened)| {
        let counted = opened.and_then(|(_, labels)| {
            let missing = || Error::Backend { operation: "segment_batch", reason: "a photo has no scene".into() };
            let scene = scenes.next().unwrap_or_else(|| Err(missing()))?;
            tally.confusion.count(&labels, scene.mask())?;
            tally.calibration.count(&labels, scene.mask(), scene.confidence().unwrap_or_default())
        });
        (pair, counted)
    });
    counted.collect()
}

/// What `--json` prints; ratios are 0 to 1, `null` where nothing was counted.
#[derive(Serialize)]
struct Report<'a> {
    miou: Option<f64>,
    pixel_accuracy: Option<f64>,
    /// Expected calibration error.
    ece: Option<f64>,
    iou: Ious<'a>,
    classes: Vec<&'a str>,
    /// A row for each true class, a column for each predicted one.
    confusion: Vec<&'a [u64]>,
    images: usize,
    /// Pixels that were counted: the labelled ones.
    pixels: u64,
    failed: usize,
    model: String,
    weights: String,
    dataset: &'a str,
    device: String,
    instruction_set: &'a str,
    threads: usize,
    precision: String,
    temperature: f32,
    size: String,
    /// Photos are padded to a multiple of this; 1 is no padding.
    pad_multiple: u32,
    batch: u16,
}

/// Class by class, in the order of their ids.
struct Ious<'a>(Vec<(&'a str, Option<f64>)>);

impl Serialize for Ious<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().copied())
    }
}

impl<'a> Report<'a> {
    fn new(args: &Args, segmenter: &'a Segmenter, tally: &'a Tally) -> Self {
        let Tally { confusion, calibration, images, failed } = tally;
        let names = segmenter.dataset().classes.iter().map(|class| class.name.as_str());
        Self {
            miou: confusion.miou(),
            pixel_accuracy: confusion.pixel_accuracy(),
            ece: calibration.error(),
            iou: Ious(names.clone().enumerate().map(|(class, name)| (name, confusion.iou(class))).collect()),
            classes: names.collect(),
            confusion: (0..confusion.classes()).map(|class| confusion.row(class)).collect(),
            images: *images,
            pixels: confusion.pixels(),
            failed: *failed,
            model: segmenter.model().name(),
            weights: segmenter.weights_name().display().to_string(),
            dataset: &segmenter.dataset().name,
            device: segmenter.device().to_string(),
            instruction_set: segmenter.instruction_set(),
            threads: segmenter.threads(),
            precision: segmenter.precision().to_string(),
            temperature: segmenter.temperature(),
            size: args.size.to_string(),
            pad_multiple: segmenter.pad_multiple(),
            batch: batch::size(args.batch, segmenter),
        }
    }

    fn table(&self, tally: &Tally) -> String {
        let wide = self.classes.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("mean IoU".len());
        let mut text = format!("{:wide$}  {:>7}  {:>10}  {:>15}\n", "class", "IoU %", "accuracy %", "labelled pixels");
        for (class, (name, iou)) in self.iou.0.iter().enumerate() {
            let (accuracy, labelled) = (tally.confusion.accuracy(class), tally.confusion.labelled(class));
            text += &format!("{name:wide$}  {:>7}  {:>10}  {labelled:>15}\n", percent(*iou), percent(accuracy));
        }
        let (miou, accuracy) = (percent(self.miou), percent(self.pixel_accuracy));
        text += &format!("{:wide$}  {miou:>7}\n", "mean IoU");
        text += &format!("{:wide$}  {:>7}  {accuracy:>10}  {:>15}\n", "pixels", "", self.pixels);
        let (ece, temperature) = (percent(self.ece), self.temperature);
        text += &format!("\nexpected calibration error {ece} % at a temperature of {temperature}\n");
        text += &photos(self.images);
        if self.failed > 0 {
            text += &format!(", {} failed", self.failed);
        }
        text + "\n"
    }
}

fn photos(count: usize) -> String {
    format!("{count} photo{}", if count == 1 { "" } else { "s" })
}

/// Per cent with two digits; a dash where nothing was counted.
fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".into(), |ratio| format!("{:.2}", 100.0 * ratio))
}
