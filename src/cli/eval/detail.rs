//! The flags of `eval` beyond the figures of all photos, and the table of photos.

use std::path::{Path, PathBuf};

use rtformer::Error;
use rtformer::eval::{Boundaries, Counted, Evaluation, Figure, Figures, Intervals, LEVEL, PerClass, intervals};
use rtformer::files::write_whole;
use serde::Serialize;

use super::super::misuse;
use super::{exists, percent};

/// The photos that are listed if only the file of the table was asked for.
pub(super) const WORST: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct DetailArgs {
    /// Width of the classes' boundaries for the boundary IoU, as a share of the photo's diagonal: its paper uses 0.02, and 0.005 for
    /// Cityscapes
    #[arg(long, value_name = "SHARE", default_value_t = Boundaries::WIDTH)]
    pub(super) boundary_width: f64,

    /// Number of resamples of the photos from which the 95 % intervals are computed; 0 omits them
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub(super) bootstrap: u32,

    /// Write a table with the figures of each photo to this .csv or .json file, and list the worst photos
    #[arg(long, value_name = "FILE", group = "written", conflicts_with = "video")]
    pub(super) per_image: Option<PathBuf>,

    /// List the N photos with the lowest mean IoU [default: 20 with --per-image, otherwise none]
    #[arg(long, value_name = "N", conflicts_with = "video")]
    pub(super) worst: Option<usize>,

    /// Write a picture of each photo's errors to this folder: wrong pixels are red, ignored ones black (SUB/P.errors.png)
    #[arg(long, value_name = "FOLDER", group = "written", conflicts_with = "video")]
    pub(super) save_errors: Option<PathBuf>,

    /// Measure another network with the same classes on the same photos, and print the differences with 95 % intervals
    #[arg(long, value_name = "FILE|NAME", conflicts_with = "video")]
    pub(super) against: Option<String>,

    /// Write a report with figures, charts and the worst photos as one HTML file
    #[arg(long, value_name = "FILE.html", group = "written", conflicts_with = "video")]
    pub(super) report: Option<PathBuf>,
}

impl DetailArgs {
    /// Checks the flags before any photo is processed.
    pub(super) fn check(&self, overwrite: bool) -> anyhow::Result<()> {
        Boundaries::new(1, self.boundary_width).map_err(|error| misuse(format!("--boundary-width: {error}")))?;
        if let Some(path) = &self.per_image {
            Format::of(path)?;
        }
        let mut files = self.per_image.iter().chain(&self.report);
        let existing = files.find(|path| !overwrite && path.exists());
        existing.map_or(Ok(()), |path| Err(exists(path)))
    }

    /// An evaluation of these settings without photos, made from one without settings.
    pub(super) fn evaluation(&self, evaluation: Evaluation) -> anyhow::Result<Evaluation> {
        let boundaries = Boundaries::new(evaluation.classes.len(), self.boundary_width)?;
        Ok(Evaluation { boundaries, ..evaluation })
    }

    /// The worst photos, if they were asked for, worst first.
    pub(super) fn worst<'a>(&self, evaluation: &'a Evaluation) -> Option<Vec<Row<'a>>> {
        let most = self.worst.or(self.per_image.as_ref().map(|_| WORST))?;
        Some(worst_first(evaluation).into_iter().take(most).map(|photo| Row::new(evaluation, photo)).collect())
    }

    /// Writes the table of photos, if it was asked for.
    pub(super) fn write(&self, evaluation: &Evaluation) -> anyhow::Result<Option<&Path>> {
        let Some(path) = self.per_image.as_deref() else { return Ok(None) };
        let rows: Vec<_> = evaluation.photos.iter().map(|photo| Row::new(evaluation, photo)).collect();
        match Format::of(path)? {
            Format::Json => write_whole(path, |out| Ok(serde_json::to_writer_pretty(out, &rows)?))?,
            Format::Csv => {
                let text = csv(&evaluation.classes, &rows).map_err(std::io::Error::other);
                let text = text.map_err(Error::writing(path))?;
                write_whole(path, |out| std::io::Write::write_all(out, &text))?;
            }
        }
        Ok(Some(path))
    }
}

/// The photos by their mean IoU, lowest first. Photos without labelled pixels are left out.
pub(super) fn worst_first(evaluation: &Evaluation) -> Vec<&Counted> {
    let miou = |photo: &Counted| photo.regions().miou();
    let mut photos: Vec<_> = evaluation.photos.iter().filter_map(|photo| Some((miou(photo)?, photo))).collect();
    photos.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    photos.into_iter().map(|(_, photo)| photo).collect()
}

#[derive(Clone, Copy)]
enum Format {
    Csv,
    Json,
}

impl Format {
    fn of(path: &Path) -> anyhow::Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("json") => Ok(Self::Json),
            _ => Err(misuse(format!("--per-image {}: expected a file ending in .csv or .json", path.display()))),
        }
    }
}

/// A photo in the table.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    pub(super) photo: String,
    label: String,
    pixels: u64,
    ignored: u64,
    #[serde(flatten)]
    pub(super) figures: Figures,
    iou: PerClass<'a>,
}

/// The figures of a single photo. The others are means over photos, which say nothing new about one.
const OF_A_PHOTO: [Figure; 7] = [
    Figure::Miou,
    Figure::PixelAccuracy,
    Figure::MeanAccuracy,
    Figure::Mdice,
    Figure::Fwiou,
    Figure::Kappa,
    Figure::BoundaryMiou,
];

impl<'a> Row<'a> {
    pub(super) fn new(evaluation: &'a Evaluation, photo: &Counted) -> Self {
        let regions = photo.regions();
        let names = evaluation.classes.iter().map(String::as_str);
        Self {
            photo: photo.photo().display().to_string(),
            label: photo.label().display().to_string(),
            pixels: photo.pixels(),
            ignored: photo.ignored(),
            figures: Figures::of(&regions, &photo.boundaries(), std::slice::from_ref(photo)),
            iou: PerClass((0..).zip(names).map(|(class, name)| (name, regions.get(class).iou())).collect()),
        }
    }

    fn fields(&self) -> impl Iterator<Item = String> + '_ {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let start = [self.photo.clone(), self.label.clone(), self.pixels.to_string(), self.ignored.to_string()];
        let figures = OF_A_PHOTO.iter().map(move |&figure| number(self.figures.get(figure)));
        start.into_iter().chain(figures).chain(self.iou.0.iter().map(move |(_, iou)| number(*iou)))
    }
}

/// The table as CSV: a line of names, then a line per photo. Values that do not exist are empty.
fn csv(classes: &[String], rows: &[Row<'_>]) -> anyhow::Result<Vec<u8>> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let start = ["photo", "label", "pixels", "ignored"].into_iter().map(str::to_owned);
    let figures = OF_A_PHOTO.iter().map(|figure| figure.key().to_owned());
    table.write_record(start.chain(figures).chain(classes.iter().map(|class| format!("iou:{class}"))))?;
    for row in rows {
        table.write_record(row.fields())?;
    }
    Ok(table.into_inner()?)
}

/// The worst photos as text.
pub(super) fn listed(worst: &[Row<'_>]) -> String {
    let wide = worst.iter().map(|row| row.photo.chars().count()).max().unwrap_or(0).max("worst photos".len());
    let mut text = format!(
        "\n{:wide$}  {:>10}  {:>16}  {:>14}\n",
        "worst photos", "mean IoU %", "pixel accuracy %", "boundary IoU %"
    );
    for row in worst {
        let [miou, accuracy, boundary] =
            [Figure::Miou, Figure::PixelAccuracy, Figure::BoundaryMiou].map(|figure| percent(row.figures.get(figure)));
        text += &format!("{:wide$}  {miou:>10}  {accuracy:>16}  {boundary:>14}\n", row.photo);
    }
    text
}

/// The intervals of all figures, as `--json` prints them.
#[derive(Serialize)]
pub(super) struct Confidence {
    level: f64,
    resamples: u32,
    #[serde(flatten)]
    pub(super) intervals: Intervals,
}

impl Confidence {
    /// The intervals, unless they were turned off or there are fewer than two photos.
    pub(super) fn of(args: &DetailArgs, evaluation: &Evaluation) -> Option<Self> {
        let resamples = args.bootstrap;
        (resamples > 0 && evaluation.photos.len() > 1).then(|| Self {
            level: LEVEL,
            resamples,
            intervals: intervals(&evaluation.photos, evaluation.classes.len(), resamples as usize),
        })
    }
}

/// The figures that are not means in the table of classes, and the intervals.
pub(super) fn summary(figures: &Figures, confidence: Option<&Confidence>) -> String {
    let head = confidence.map_or("", |_| "  95 % interval");
    let mut text = format!("\n{:22}  {:>7}{head}\n", "figure", "%");
    for figure in Figure::ALL {
        let range = confidence.and_then(|confidence| confidence.intervals.get(figure));
        let range = range
            .map_or(String::new(), |range| format!("  {:>6} to {:>6}", percent(Some(range.0)), percent(Some(range.1))));
        text += &format!("{:22}  {:>7}{range}\n", figure.name(), percent(figures.get(figure)));
    }
    text
}
