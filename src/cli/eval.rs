//! `rtformer eval`: measures the quality of a network on labelled photos.

mod adaptive;
mod against;
mod detail;
mod errors;
mod pictures;
mod report;
mod rules;
mod video;

use std::io::{Write, stdout};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rtformer::eval::{Evaluation, LabelFormat, Measures, Measuring, Pair};
use rtformer::explain::Explainer;
use rtformer::pixels::render;
use rtformer::{Builder, Segmenter, Size, Tiling};
use serde::Serialize;

use self::against::Against;
use self::detail::{Confidence, DetailArgs, Row};
use self::pictures::Pictures;
use self::report::Page;
use super::console::{Console, counted};
use super::labels::LabelArgs;
use super::model::{DeviceArgs, ModelArgs, opened};
use super::photos::{self, PhotoArgs};
use super::{Outcome, batch, misuse, plot};
use adaptive::Compared;

const ABOUT: &str = "Measure the IoU (intersection over union) on labelled photos";

const LABELS: &str = "\
The labels of a photo SUB/P.jpg are SUB/P.png, SUB/P_L.png (CamVid) or SUB/P.mask.png. Those of X_leftImg8bit.png (Cityscapes) are \
X_gtFine_labelTrainIds.png or X_gtFine_labelIds.png. Use --label-suffix for other names.

Labels are PNG files. Grey files hold class ids; 255 is ignored. RGB files hold the classes' colours; black is ignored. Indexed files \
hold class ids, unless their palette shows that they hold colours: it has the data set's colours in another order, or only some of \
them. If both readings are possible and differ, the file fails; use --label-kind to choose.

Example: rtformer eval --images val --labels val_labels";

/// The table mentions ignored pixels above this share. The data sets' own labels ignore less.
const MUCH_IGNORED: f64 = 0.15;

#[derive(Debug, clap::Args)]
#[command(about = ABOUT, long_about = format!("{ABOUT}\n\n{LABELS}"))]
#[command(group = clap::ArgGroup::new("written").multiple(true))]
pub(super) struct Args {
    /// Folder of the photos, or a list file (.txt or .lst)
    #[arg(long, value_name = "PATH", required_unless_present_any = ["list", "video"])]
    images: Option<PathBuf>,

    /// Folder of the label images; with a list file, only needed if it has lines without a label
    #[arg(long, value_name = "FOLDER")]
    labels: Option<PathBuf>,

    /// List file with any name. Each line is a photo and its label image, or a photo alone, whose label image is then searched for in
    /// --labels. Relative paths start at the list's folder or the current folder
    #[arg(long, value_name = "FILE", conflicts_with = "images")]
    list: Option<PathBuf>,

    /// Video to measure, as for `rtformer video`: reports how much masks flicker (the flip rate), and compares those frames with their labels
    /// for which --labels has any: 000001.png for the first frame, or the names of numbered pictures
    #[arg(long, value_name = "INPUT", conflicts_with_all = ["images", "list", "batch"])]
    video: Option<PathBuf>,

    /// Smooth the masks of a video, as for `rtformer video`: 0 to below 1 [default: 0]
    #[arg(long, value_name = "S", requires = "video", value_parser = super::model::strength)]
    smooth: Option<f32>,

    #[command(flatten)]
    format: LabelArgs,

    /// Measure the masks in which each region has the class of its rule, as `rtformer explain --by-rules` writes them
    #[arg(long, conflicts_with_all = ["video", "batch", "adaptive", "save_errors", "report"])]
    by_rules: bool,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Draw the confusion matrix to this PNG file
    #[arg(long, value_name = "FILE", group = "written")]
    plot: Option<PathBuf>,

    /// Replace the files that other flags name if they exist
    #[arg(long, requires = "written")]
    overwrite: bool,

    /// Size in pixels at which the network sees a photo: native (the photo's size), WxH (exactly), or within:WxH (the largest that fits in
    /// either orientation, with the photo's proportions); masks are evaluated at the photo's size
    #[arg(long, value_name = "SIZE", default_value = "native")]
    size: Size,

    /// Segment photos in overlapping tiles, as `segment --tile` does, to measure how much that changes
    #[arg(long, value_name = "WxH[+OVERLAP]", conflicts_with_all = ["adaptive", "by_rules", "video"])]
    tile: Option<Tiling>,

    /// Compute less where the network is certain early, by the rule that `rtformer calibrate` stored in the weights for a risk of at most
    /// EPS, 0 to 1; also reports risk, work and time next to the full network's. On the CPU [default: the full network]
    #[arg(long, value_name = "EPS", conflicts_with = "video", value_parser = super::model::epsilon)]
    adaptive: Option<f64>,

    /// Number of photos that go through the network together, if consecutive photos have the same size [default: 1 on CPUs, 8 on GPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Option<u16>,

    #[command(flatten)]
    detail: DetailArgs,

    #[command(flatten)]
    photos: PhotoArgs,

    #[command(flatten)]
    model: ModelArgs,
}

impl Args {
    /// The builder with the flags that `--against` uses as well.
    fn sized(&self, builder: Builder) -> Builder {
        let builder = builder.size(self.size);
        match self.tile {
            Some(tiling) => builder.tile(tiling),
            None => builder,
        }
    }

    pub(super) fn device(&self) -> &DeviceArgs {
        &self.model.device
    }
}

pub(super) fn run(args: &Args, console: &Console) -> anyhow::Result<Outcome> {
    // Check the flags before any photo is processed.
    let format = args.format.checked()?;
    if let Some(path) = args.plot.as_ref().filter(|path| !args.overwrite && path.exists()) {
        return Err(exists(path));
    }
    args.detail.check(args.overwrite)?;
    // clap does not check `requires` if the required flag conflicts with another one that is present.
    if args.smooth.is_some() && args.video.is_none() {
        return Err(misuse("--smooth is for videos; name one with --video"));
    }
    if let Some(input) = &args.video {
        return video::run(args, input, &format, console);
    }
    rules::check(args)?;
    let explainer = if args.by_rules { Some(Explainer::of(&args.model.opened()?)?) } else { None };
    let images = args.images.as_deref().unwrap_or(Path::new("."));
    let found = args.format.pairs(images, args.list.as_deref(), args.labels.as_deref())?;
    found.failed.iter().for_each(|error| console.error(&error.to_string()));
    let builder = args.sized(args.model.builder()?);
    let builder = if args.by_rules { builder.features(true) } else { builder.confidence(true) };
    let segmenter = opened(match args.adaptive {
        Some(epsilon) => builder.adaptive(epsilon).build(),
        None => builder.build(),
    })?;
    console.note(&segmenter.to_string());

    let mut evaluation = args.detail.evaluation(Evaluation::new(&segmenter)?)?;
    evaluation.failed = found.failed.len();
    let other = against::open(args, &segmenter)?;
    let mut pictures = Pictures::new(args, segmenter.palette(), &found.pairs)?;
    if let Some(explainer) = &explainer {
        let measuring = Measuring { decoder: args.photos.decoder(), format: format.clone(), batch: 1 };
        rules::measure(explainer, console, &segmenter, (&found.pairs, &measuring), &mut evaluation);
    } else {
        measure(args, &format, console, &segmenter, (&found.pairs, &mut pictures), &mut evaluation);
    }
    let against = other.map(|other| Against::measure(args, format, console, &other, &evaluation)).transpose()?;

    let adaptive = args.adaptive.map(|_| Compared::measure(args, console, &segmenter, &found.pairs)).transpose()?;
    let results = Results { against: against.as_ref(), worst: pictures.worst(), adaptive, flips: None };
    report(args, console, &segmenter, &evaluation, results)?;
    let failed = evaluation.failed + pictures.failed() + against.as_ref().map_or(0, Against::failed);
    Ok(if failed == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

/// The error for a file that is not to be replaced.
fn exists(path: &Path) -> anyhow::Error {
    misuse(format!("{}: exists already; use --overwrite to replace it", path.display()))
}

/// What was measured besides the evaluation.
#[derive(Default)]
struct Results<'a> {
    against: Option<&'a Against>,
    worst: Option<&'a report::Worst>,
    adaptive: Option<Compared>,
    flips: Option<Flips>,
}

/// Prints and draws the results.
fn report(
    args: &Args,
    console: &Console,
    segmenter: &Segmenter,
    evaluation: &Evaluation,
    results: Results<'_>,
) -> anyhow::Result<()> {
    let worst = results.worst;
    let report = Report::new(args, segmenter, evaluation, results);
    if args.json {
        writeln!(stdout(), "{}", serde_json::to_string(&report)?)?;
    } else {
        stdout().lock().write_all(report.table(evaluation).as_bytes())?;
    }
    if let Some(path) = args.detail.write(evaluation)? {
        console.note(&format!("table of photos -> {}", path.display()));
    }
    if let (Some(path), Some(worst)) = (&args.detail.report, worst) {
        report.page(segmenter, evaluation, worst).save(path)?;
        console.note(&format!("report -> {}", path.display()));
    }
    if let Some(path) = &args.plot {
        let names: Vec<_> = segmenter.dataset().classes.iter().map(|class| class.name.as_str()).collect();
        let title = format!("Confusion matrix: {} on {}", report.model, segmenter.dataset().name);
        let (miou, accuracy) = (percent(report.measures.miou), percent(report.measures.pixel_accuracy));
        let subtitle =
            format!("mean IoU {miou} %, pixel accuracy {accuracy} %, {}", counted(evaluation.images, "photo"));
        render::save_rgb(path, &plot::confusion(&evaluation.confusion, &names, &title, &subtitle))?;
        console.note(&format!("confusion matrix -> {}", path.display()));
    }
    Ok(())
}

/// Counts every pair and reports it.
fn measure(
    args: &Args,
    format: &LabelFormat,
    console: &Console,
    segmenter: &Segmenter,
    (pairs, pictures): (&[Pair], &mut Pictures<'_>),
    evaluation: &mut Evaluation,
) {
    let bar = console.progress(pairs.len() as u64, "photos");
    let batch = usize::from(batch::size(args.batch, segmenter));
    let measuring = Measuring { decoder: args.photos.decoder(), format: format.clone(), batch };
    evaluation.observe(segmenter, pairs, &measuring, &mut |pair, result| {
        match result {
            Ok(measured) => {
                if let Some(warning) = photos::warning(&pair.photo, measured.photo) {
                    console.note(&warning);
                }
                pictures.see(pair, &measured, console);
                console.detail(&format!("{} done", pair.photo.display()));
            }
            Err(error) => console.error(&error.to_string()),
        }
        bar.inc(1);
        ControlFlow::Continue(())
    });
    console.finish();
}

/// How much the masks of a video flicker.
#[derive(Clone, Copy, Serialize)]
struct Flips {
    /// The share of pixels that change class although their colour does not.
    flip_rate: Option<f64>,
    frames: u64,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    measures: Measures<'a>,
    #[serde(flatten)]
    flips: Option<Flips>,
    /// The 95 % intervals of the figures over resampled photos.
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence_intervals: Option<Confidence>,
    /// The width of boundaries as a share of the diagonal.
    boundary_width: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    worst: Option<Vec<Row<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adaptive: Option<Compared>,
    against: Option<&'a Against>,
    model: String,
    weights: String,
    dataset: &'a str,
    device: String,
    instruction_set: &'a str,
    threads: usize,
    precision: String,
    temperature: f32,
    size: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tile: Option<String>,
    /// What the class of each pixel is chosen for.
    decide: String,
    /// Photos are padded to a multiple of this number of pixels; 1 means no padding.
    pad_multiple: u32,
    batch: u16,
    /// Whether the masks are those of the rules.
    by_rules: bool,
}

impl<'a> Report<'a> {
    fn new(args: &Args, segmenter: &'a Segmenter, evaluation: &'a Evaluation, results: Results<'a>) -> Self {
        Self {
            measures: evaluation.measures(),
            flips: results.flips,
            confidence_intervals: Confidence::of(&args.detail, evaluation),
            boundary_width: args.detail.boundary_width,
            worst: args.detail.worst(evaluation),
            adaptive: results.adaptive,
            against: results.against,
            model: segmenter.model().name(),
            weights: segmenter.weights_name().display().to_string(),
            dataset: &segmenter.dataset().name,
            device: segmenter.device().to_string(),
            instruction_set: segmenter.instruction_set(),
            threads: segmenter.threads(),
            precision: segmenter.arithmetic(),
            temperature: segmenter.temperature(),
            size: args.size.to_string(),
            tile: args.tile.map(|tiling| tiling.to_string()),
            decide: args.model.decide.to_string(),
            pad_multiple: segmenter.pad_multiple(),
            batch: batch::size(args.batch, segmenter),
            by_rules: args.by_rules,
        }
    }

    /// The same as a page.
    fn page<'b>(&'b self, segmenter: &'b Segmenter, evaluation: &'b Evaluation, worst: &'b report::Worst) -> Page<'b> {
        Page {
            title: format!("{} on {}", self.model, self.dataset),
            facts: vec![
                ("Weights", self.weights.clone()),
                ("photos", evaluation.images.to_string()),
                ("failed", evaluation.failed.to_string()),
                ("labelled pixels", self.measures.pixels.to_string()),
                ("size", self.size.clone()),
                ("decision", self.decide.clone()),
                ("tiles", self.tile.clone().unwrap_or_else(|| "none".into())),
                ("device", self.device.clone()),
                ("precision", self.precision.clone()),
                ("rtformer", env!("CARGO_PKG_VERSION").to_owned()),
            ],
            evaluation,
            confidence: self.confidence_intervals.as_ref(),
            against: self.against,
            palette: segmenter.palette(),
            worst,
        }
    }

    fn table(&self, evaluation: &Evaluation) -> String {
        let flips = self.flips.map_or(String::new(), |flips| {
            let rate = flips.flip_rate.map_or("-".into(), |rate| format!("{:.3}", 100.0 * rate));
            format!("flip rate {rate} % over {} frames\n", flips.frames)
        });
        if self.flips.is_some() && self.measures.images == 0 {
            return flips;
        }
        let wide = self.measures.classes.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("class".len());
        let mut text = format!(
            "{:wide$}  {:>7}  {:>7}  {:>14}  {:>10}  {:>15}\n",
            "class", "IoU %", "Dice %", "boundary IoU %", "accuracy %", "labelled pixels"
        );
        let measures = &self.measures;
        let mut line = |name: &str, shares: [Option<f64>; 4], pixels: u64| {
            let [iou, dice, boundary, accuracy] = shares.map(percent);
            text += &format!("{name:wide$}  {iou:>7}  {dice:>7}  {boundary:>14}  {accuracy:>10}  {pixels:>15}\n");
        };
        for (class, (name, iou)) in measures.iou.0.iter().enumerate() {
            let [dice, boundary, accuracy] =
                [&measures.dice, &measures.boundary_iou, &measures.accuracy].map(|each| each.0[class].1);
            line(name, [*iou, dice, boundary, accuracy], evaluation.confusion.labelled(class));
        }
        line("mean", [measures.miou, measures.mdice, measures.boundary_miou, measures.mean_accuracy], measures.pixels);
        text += &detail::summary(&evaluation.figures(), self.confidence_intervals.as_ref());
        let (ece, temperature) = (percent(self.measures.ece), self.temperature);
        text += &if self.by_rules {
            "\nmasks by rules, which have no confidence\n".to_owned()
        } else {
            format!("\nexpected calibration error {ece} % at a temperature of {temperature}\n")
        };
        if let Some(share) = self.measures.ignored_share.filter(|share| *share > MUCH_IGNORED) {
            let share = percent(Some(share));
            text += &format!(
                "{share} % of the labels' pixels are ignored; check --label-kind, --first-id and --ignore-id if you expected less\n"
            );
        }
        text += &flips;
        if let Some(compared) = &self.adaptive {
            text += &compared.text();
        }
        text += &counted(self.measures.images, "photo");
        if self.measures.failed > 0 {
            text += &format!(", {} failed", self.measures.failed);
        }
        text += "\n";
        text += &self.against.map_or(String::new(), Against::table);
        text + &self.worst.as_deref().map_or(String::new(), detail::listed)
    }
}

/// Per cent with two decimal places, or a dash if nothing was counted.
fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".into(), |ratio| format!("{:.2}", 100.0 * ratio))
}
