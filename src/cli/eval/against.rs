//! `eval --against`: another network on the same photos, and what the difference is worth.

use std::ops::ControlFlow;

use rtformer::Segmenter;
use rtformer::eval::{
    Counted, Evaluation, Figure, Figures, Intervals, LEVEL, LabelFormat, Measuring, Pair, paired_intervals,
};
use serde::Serialize;

use super::super::console::{Console, counted};
use super::super::model::opened;
use super::super::{batch, misuse};
use super::{Args, percent};

/// Opens the other network, if there is one.
///
/// # Errors
/// If it cannot be opened, or has other classes.
pub(super) fn open(args: &Args, segmenter: &Segmenter) -> anyhow::Result<Option<Segmenter>> {
    let Some(weights) = &args.detail.against else { return Ok(None) };
    let mut model = args.model.clone();
    model.weights.clone_from(weights);
    let other = opened(args.sized(model.builder()?).confidence(true).build())?;
    let names = |of: &Segmenter| of.dataset().classes.iter().map(|class| class.name.clone()).collect::<Vec<_>>();
    let (own, others) = (names(segmenter), names(&other));
    if own != others {
        let differ = own.iter().zip(&others).find(|(own, other)| own != other);
        let differ = differ.map_or(String::new(), |(own, other)| format!(", of which `{own}` is `{other}` there"));
        return Err(misuse(format!(
            "--against {weights}: has {} classes of {}, but --weights has {} of {}{differ}; compare networks with the same classes",
            others.len(),
            other.dataset().name,
            own.len(),
            segmenter.dataset().name
        )));
    }
    Ok(Some(other))
}

/// The comparison, as `--json` prints it.
#[derive(Serialize)]
pub(super) struct Against {
    weights: String,
    model: String,
    /// The number of photos that both networks segmented.
    images: usize,
    /// The number of photos that only the first network segmented.
    failed: usize,
    /// The other network's figures on these photos.
    #[serde(flatten)]
    figures: Figures,
    /// The first network's figures on these photos, minus the other's.
    difference: Figures,
    /// The paired intervals of the differences.
    difference_intervals: Intervals,
    level: f64,
    resamples: u32,
    #[serde(skip)]
    own: Figures,
}

impl Against {
    /// Segments the photos that the first network segmented with the other one.
    pub(super) fn measure(
        args: &Args,
        format: LabelFormat,
        console: &Console,
        other: &Segmenter,
        first: &Evaluation,
    ) -> anyhow::Result<Self> {
        let pair = |photo: &Counted| Pair { photo: photo.photo().into(), label: photo.label().into() };
        let pairs: Vec<_> = first.photos.iter().map(pair).collect();
        let mut second = args.detail.evaluation(Evaluation::new(other)?)?;
        let batch = usize::from(batch::size(args.batch, other));
        let measuring = Measuring { decoder: args.photos.decoder(), format, batch };
        console.note(&format!("against {other}"));
        let bar = console.progress(pairs.len() as u64, "photos");
        second.measure(other, &pairs, &measuring, &mut |_, result| {
            if let Err(error) = result {
                console.error(&error.to_string());
            }
            bar.inc(1);
            ControlFlow::Continue(())
        });
        console.finish();
        Ok(Self::new(first, &second, other, args.detail.bootstrap))
    }

    fn new(first: &Evaluation, second: &Evaluation, other: &Segmenter, resamples: u32) -> Self {
        let classes = first.classes.len();
        // Both lists have the same order; the second may lack photos.
        let mut rest = second.photos.iter().peekable();
        let same = |a: &Counted, b: &Counted| (a.photo(), a.label()) == (b.photo(), b.label());
        let both: Vec<Counted> =
            first.photos.iter().filter(|photo| rest.next_if(|next| same(next, photo)).is_some()).cloned().collect();
        let (own, figures) = (Figures::of_photos(&both, classes), Figures::of_photos(&second.photos, classes));
        Self {
            weights: other.weights_name().display().to_string(),
            model: other.model().name(),
            images: second.images,
            failed: second.failed,
            figures,
            difference: own.minus(&figures),
            difference_intervals: paired_intervals(&both, &second.photos, classes, resamples as usize),
            level: LEVEL,
            resamples,
            own,
        }
    }

    /// The number of photos that failed.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// The rows of a table: the figure, its values, the difference and its interval in points of per cent.
    pub(super) fn rows(&self) -> impl Iterator<Item = [String; 5]> + '_ {
        Figure::ALL.into_iter().map(|figure| {
            let points = |value: f64| format!("{:+.2}", 100.0 * value);
            let range = self.difference_intervals.get(figure);
            [
                figure.name().to_owned(),
                percent(self.own.get(figure)),
                percent(self.figures.get(figure)),
                self.difference.get(figure).map_or_else(|| "-".into(), points),
                range.map_or_else(|| "-".into(), |range| format!("{} to {}", points(range.0), points(range.1))),
            ]
        })
    }

    /// What the table compares.
    pub(super) fn title(&self) -> String {
        format!("against {} ({}) on {}", self.weights, self.model, counted(self.images, "photo"))
    }

    /// The comparison as text.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "\n{}\n{:22}  {:>7}  {:>7}  {:>10}  {:>18}\n",
            self.title(),
            "figure",
            "%",
            "other %",
            "difference",
            "95 % interval"
        );
        for [name, own, other, difference, range] in self.rows() {
            text += &format!("{name:22}  {own:>7}  {other:>7}  {difference:>10}  {range:>18}\n");
        }
        text
    }
}
