//! `eval --report`: one HTML file with figures and pictures, for people. It contains everything that it shows and requests nothing.

mod charts;
mod worst;

use std::path::Path;

use rtformer::eval::{Evaluation, Figure};
use rtformer::files::write_whole;
use rtformer::pixels::Palette;

use self::worst::Shown;
pub(super) use self::worst::Worst;
use super::super::html::escaped;
use super::detail::Confidence;
use super::{Against, percent};

const STYLE: &str = include_str!("report/page.css");
const SCRIPT: &str = include_str!("report/page.js");

/// The pictures of a page take at most this many bytes. Together with tables and charts, the page stays below 3 MB.
const MOST_BYTES: usize = 2_400_000;

/// What the page shows.
pub(super) struct Page<'a> {
    pub(super) title: String,
    /// Names and values that say what was measured.
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) evaluation: &'a Evaluation,
    pub(super) confidence: Option<&'a Confidence>,
    pub(super) against: Option<&'a Against>,
    pub(super) palette: &'a Palette,
    pub(super) worst: &'a Worst,
}

impl Page<'_> {
    /// Writes the page.
    pub(super) fn save(&self, path: &Path) -> rtformer::Result<()> {
        write_whole(path, |out| std::io::Write::write_all(out, self.html().as_bytes()))
    }

    fn html(&self) -> String {
        let facts = self.facts.iter().map(|(name, value)| format!("{name} {}", escaped(value)));
        let body = [
            format!("<h1>{}</h1>\n<p>{}</p>\n", escaped(&self.title), facts.collect::<Vec<_>>().join(" · ")),
            self.figures(),
            self.compared(),
            charts::classes(self.evaluation, self.palette),
            charts::calibration(self.evaluation),
            charts::confusion(self.evaluation),
            self.photos(),
        ]
        .concat();
        // The policy makes browsers refuse every request, so the page cannot depend on a server by accident.
        let policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
        let title = escaped(&self.title);
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
             <script>\n{SCRIPT}</script>\n</body>\n</html>\n"
        )
    }

    fn figures(&self) -> String {
        let figures = self.evaluation.figures();
        let row = |name: &str, value: Option<f64>, range: Option<rtformer::eval::Interval>| {
            let range = range.map_or(String::new(), |r| format!("{} to {}", percent(Some(r.0)), percent(Some(r.1))));
            format!("<tr><th scope=\"row\">{name}</th><td>{}</td><td>{range}</td></tr>\n", percent(value))
        };
        let interval = |figure| self.confidence.and_then(|confidence| confidence.intervals.get(figure));
        let rows: String =
            Figure::ALL.iter().map(|&figure| row(figure.name(), figures.get(figure), interval(figure))).collect();
        let ece = row("expected calibration error", self.evaluation.calibration.error(), None);
        section(
            "Figures",
            "The 95 % intervals say how much the figures would vary with another choice of independent photos.",
            &table("<th>figure</th><th>%</th><th>95 % interval</th>", &(rows + &ece), "figures"),
        )
    }

    fn compared(&self) -> String {
        let Some(against) = self.against else { return String::new() };
        let row = |[name, cells @ ..]: [String; 5]| {
            format!("<tr><th scope=\"row\">{name}</th><td>{}</td></tr>\n", cells.join("</td><td>"))
        };
        let rows: String = against.rows().map(row).collect();
        let head = "<th>figure</th><th>%</th><th>other %</th><th>difference</th><th>95 % interval</th>";
        section("Comparison", &escaped(&against.title()), &table(head, &rows, "comparison"))
    }

    fn photos(&self) -> String {
        let mut bytes = 0;
        let shown: Vec<_> =
            self.worst.shown().take_while(|photo| (bytes += photo.bytes(), bytes < MOST_BYTES).1).collect();
        if shown.is_empty() {
            return String::new();
        }
        let photos: String = shown.iter().map(|photo| card(photo)).collect();
        let content = format!(
            "<p class=\"controls\"><label><input type=\"checkbox\" id=\"mark\"> Mark wrong pixels in red</label></p>\n\
             <div class=\"photos\">\n{photos}</div>\n"
        );
        let explanation = format!(
            "{} with the lowest mean IoU. The slider moves from the photo to its label and to the mask; unlabelled pixels are black.",
            match shown.len() {
                1 => "The photo".to_owned(),
                count => format!("The {count} photos"),
            }
        );
        section("Worst photos", &explanation, &content)
    }
}

/// A photo with its slider.
fn card(photo: &Shown) -> String {
    let name = escaped(&photo.name);
    let image = |class: &str, source: &str, alt: &str| {
        format!(
            "<img class=\"{class}\" src=\"{source}\" width=\"{}\" height=\"{}\" alt=\"{alt}\">",
            photo.width, photo.height
        )
    };
    let stops = ["photo", "label", "mask"].join("</button><button type=\"button\">");
    format!(
        "<figure class=\"photo\">\n<div class=\"stack\" style=\"--label:100%;--mask:0%\">{}{}{}{}</div>\n\
         <div class=\"controls\"><input type=\"range\" min=\"0\" max=\"200\" step=\"5\" value=\"100\" aria-label=\"photo, label or mask of {name}\">\
         <div class=\"stops\"><button type=\"button\">{stops}</button></div></div>\n\
         <figcaption>{name}: mean IoU {} %, pixel accuracy {} %</figcaption>\n</figure>\n",
        image("shot", &photo.photo, &name),
        image("label", &photo.label, &format!("label of {name}")),
        image("mask", &photo.mask, &format!("mask of {name}")),
        image("wrong", &photo.wrong, ""),
        percent(photo.miou),
        percent(photo.accuracy),
    )
}

fn section(title: &str, explanation: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n<p>{explanation}</p>\n{content}</section>\n")
}

/// A table that scrolls if it is wider than the window. The region can be focused, so that the arrow keys scroll it.
fn table(head: &str, rows: &str, name: &str) -> String {
    format!(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{name}\"><table class=\"{name}\">\n<thead><tr>{head}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}
