//! The tables and charts of the page.

use std::fmt::Write as _;

use rtformer::eval::{Confusion, Evaluation};
use rtformer::pixels::Palette;

use super::super::super::{html::escaped, plot};
use super::worst::url;
use super::{percent, section, table};

/// Up to this number of classes, the confusion matrix is a table; above, a picture.
const MOST_CELLS: usize = 40;
/// The number of confusions that are listed.
const LISTED: usize = 10;

/// The measures of each class, as bars.
pub(super) fn classes(evaluation: &Evaluation, palette: &Palette) -> String {
    let measures = evaluation.measures();
    let mut rows = String::new();
    for (class, (name, iou)) in (0_u16..).zip(&measures.iou.0) {
        let [r, g, b] = palette.color(class);
        let index = usize::from(class);
        let share = 100.0 * iou.unwrap_or(0.0);
        let others = [&measures.dice, &measures.boundary_iou, &measures.accuracy].map(|each| percent(each.0[index].1));
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\"><span class=\"swatch\" style=\"background:rgb({r},{g},{b})\"></span>{}</th>\
             <td><span class=\"share\"><i style=\"width:{share:.1}%\"></i></span>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(name),
            percent(*iou),
            others.join("</td><td>"),
            evaluation.confusion.labelled(index),
        );
    }
    let head =
        "<th>class</th><th>IoU %</th><th>Dice %</th><th>boundary IoU %</th><th>accuracy %</th><th>labelled pixels</th>";
    section("Classes", "A dash: the class does not occur.", &table(head, &rows, "classes"))
}

/// The share of right pixels at each confidence, as a chart.
pub(super) fn calibration(evaluation: &Evaluation) -> String {
    let bins: Vec<_> = evaluation.calibration.bins().collect();
    if bins.is_empty() {
        return String::new();
    }
    let (left, top, side) = (40.0, 10.0, 300.0);
    let at = |confidence: f64, share: f64| (left + side * confidence, top + side * (1.0 - share));
    let most = bins.iter().map(|bin| bin.pixels).max().unwrap_or(1) as f64;
    let mut chart = String::new();
    for bin in &bins {
        let width = side / 15.0;
        let x = left + (bin.confidence * 15.0).floor().min(14.0) * width;
        let height = 0.25 * side * bin.pixels as f64 / most;
        let y = top + side - height;
        let _ = write!(
            chart,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"var(--line)\"/>",
            width - 1.0
        );
    }
    let ((x0, y0), (x1, y1)) = (at(0.0, 0.0), at(1.0, 1.0));
    let _ = write!(
        chart,
        "<path d=\"M{x0} {y1}V{y0}H{x1}\" fill=\"none\" stroke=\"var(--faint)\"/>\
         <path d=\"M{x0} {y0}L{x1} {y1}\" stroke=\"var(--faint)\" stroke-dasharray=\"4 4\"/>"
    );
    let points: Vec<_> = bins.iter().map(|bin| at(bin.confidence, bin.accuracy)).collect();
    let line: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(
        chart,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"var(--bar)\" stroke-width=\"2\"/>",
        line.join(" ")
    );
    for ((x, y), bin) in points.iter().zip(&bins) {
        let title = format!(
            "confidence {} %, right {} %, {} pixels",
            percent(Some(bin.confidence)),
            percent(Some(bin.accuracy)),
            bin.pixels
        );
        let _ = write!(
            chart,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"var(--bar)\"><title>{title}</title></circle>"
        );
    }
    for tick in [0.0, 0.5, 1.0] {
        let ((x, _), (_, y)) = (at(tick, 0.0), at(0.0, tick));
        let text = 100.0 * tick;
        let _ = write!(
            chart,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{text}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{text}</text>",
            y0 + 16.0,
            left - 6.0,
            y + 4.0
        );
    }
    let _ = write!(
        chart,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">confidence %</text>\
         <text transform=\"translate(12 {}) rotate(-90)\" text-anchor=\"middle\">right %</text>",
        left + side / 2.0,
        y0 + 32.0,
        top + side / 2.0
    );
    let error = percent(evaluation.calibration.error());
    let svg = format!(
        "<svg viewBox=\"0 0 360 350\" role=\"img\" aria-label=\"calibration curve; expected calibration error {error} %\">{chart}</svg>\n"
    );
    let explanation = "The share of right pixels at each confidence. On the dashed line, the confidence is exact; below it, the network is too \
                       sure. Grey: how many pixels have this confidence.";
    section("Calibration", explanation, &svg)
}

/// The confusion matrix, and the most frequent confusions.
pub(super) fn confusion(evaluation: &Evaluation) -> String {
    let (matrix, names) = (&evaluation.confusion, &evaluation.classes);
    let drawn = if names.len() > MOST_CELLS { picture(matrix, names) } else { cells(matrix, names) };
    let mut confusions: Vec<_> = (0..names.len())
        .flat_map(|truth| (0..names.len()).map(move |seen| (truth, seen)))
        .filter(|(truth, seen)| truth != seen && matrix.get(*truth, *seen) > 0)
        .collect();
    confusions.sort_by_key(|&(truth, seen)| std::cmp::Reverse(matrix.get(truth, seen)));
    let row = |&(truth, seen): &(usize, usize)| {
        let pixels = matrix.get(truth, seen);
        let share = percent(Some(pixels as f64 / matrix.labelled(truth).max(1) as f64));
        let [truth, seen] = [truth, seen].map(|class| escaped(&names[class]));
        format!("<tr><th scope=\"row\">{truth}</th><td>{seen}</td><td>{pixels}</td><td>{share}</td></tr>\n")
    };
    let rows: String = confusions.iter().take(LISTED).map(row).collect();
    let head = "<th>true class</th><th>predicted as</th><th>pixels</th><th>% of the class</th>";
    let listed = format!("<h2>Most frequent confusions</h2>\n{}", table(head, &rows, "confusions"));
    let explanation = "Rows are true classes, columns are predicted classes; each cell is a share of the true class's pixels, in per cent.";
    section("Confusion matrix", explanation, &(drawn + &listed))
}

fn cells(matrix: &Confusion, names: &[String]) -> String {
    let mut head = "<th>true class</th>".to_owned();
    names.iter().for_each(|name| head += &format!("<th scope=\"col\">{}</th>", escaped(name)));
    let mut rows = String::new();
    for (truth, name) in names.iter().enumerate() {
        let labelled = matrix.labelled(truth);
        rows += &format!("<tr><th scope=\"row\">{}</th>", escaped(name));
        for seen in 0..names.len() {
            let share = 100.0 * matrix.get(truth, seen) as f64 / labelled.max(1) as f64;
            let text = if share < 0.5 { String::new() } else { format!("{share:.0}") };
            let high = if share.round() > 71.0 { " class=\"high\"" } else { "" };
            rows += &format!("<td{high} style=\"--p:{share:.0}%\">{text}</td>");
        }
        rows += "</tr>\n";
    }
    table(&head, &rows, "matrix")
}

fn picture(matrix: &Confusion, names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let drawn = plot::confusion(matrix, &names, "", "");
    let mut png = Vec::new();
    // Writing to memory cannot fail.
    let _ = rtformer::pixels::render::write_rgb(&mut png, &drawn, None);
    let (width, height) = drawn.dimensions();
    format!(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"matrix\"><img src=\"{}\" width=\"{width}\" height=\"{height}\" \
         alt=\"confusion matrix of {} classes\"></div>\n",
        url("png", &png),
        names.len()
    )
}
