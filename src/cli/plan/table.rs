//! Reads the table of training runs.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use rtformer::Error;
use rtformer::plan::Run;

/// The columns that every table has.
const NEEDED: [&str; 4] = ["params", "crops", "flops", "cross_entropy"];

/// The number of different photos; a table may lack the column.
const UNIQUE: &str = "unique";

/// A table of runs, and what else it says about them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Table {
    pub(super) runs: Vec<Run>,
    /// The width of each run's network, if the table has the column `width`.
    pub(super) widths: Option<Vec<u32>>,
    /// The learning rate as the table writes it, if it has the column `lr` and all runs share one.
    pub(super) learning_rate: Option<String>,
    /// The different values of the column `crop`; empty without the column.
    pub(super) crops: Vec<String>,
    /// The different values of the column `batch`; empty without the column.
    pub(super) batches: Vec<String>,
}

/// The crops of runs whose table has no column `crop`; so are those of [`own`]'s.
pub(super) const CROP: &str = "256x192";

/// The crops per iteration of runs whose table has no column `batch`; so are those of [`own`]'s.
pub(super) const BATCH: &str = "12";

/// What messages call the table of [`own`].
pub(super) const OWN: &str = "the runs of this version";

/// How `train.py` learns from the photos of [`own`]'s runs, and measures on those that they did not learn from.
pub(super) const OWN_SPLIT: &str = "--data CAMVID --also-val --fold 0006R0";

/// The runs of this version: widths of RTFormer-Slim on CamVid. `Training budgets` in the documentation describes the study.
pub(super) fn own() -> anyhow::Result<Table> {
    let table = parse(include_str!("../../../weights/train/sweep.csv")).context(OWN)?;
    Ok(Table { crops: vec![CROP.into()], batches: vec![BATCH.into()], ..table })
}

/// The runs of a CSV file. Columns are found by name, in any order; unknown ones are ignored.
///
/// # Errors
/// Names the file, the line, the column, the value and what was expected.
pub(super) fn read(path: &Path) -> anyhow::Result<Table> {
    let bytes = std::fs::read(path).map_err(Error::reading(path))?;
    let text = rtformer::files::text(&bytes).map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> anyhow::Result<Table> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    let place = |name: &str| -> anyhow::Result<Option<usize>> {
        let mut places = header.iter().enumerate().filter(|(_, column)| *column == name).map(|(place, _)| place);
        let first = places.next();
        ensure!(places.next().is_none(), "line 1: two columns are named `{name}`, expected one");
        Ok(first)
    };
    let unique = place(UNIQUE)?;
    let (width, rate) = (place("width")?, place("lr")?);
    let recipe = [place("crop")?, place("batch")?];
    let mut places = [0; 4];
    let mut missing = Vec::new();
    for (slot, name) in places.iter_mut().zip(NEEDED) {
        match place(name)? {
            Some(found) => *slot = found,
            None => missing.push(name),
        }
    }
    if !missing.is_empty() {
        let found: Vec<_> = header.iter().collect();
        bail!(
            "line 1: column {} is missing, the header has `{}`; expected a header with {}, separated by commas",
            missing.join(", "),
            found.join(","),
            NEEDED.join(",")
        );
    }
    let (mut runs, mut widths, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    let mut recipes = [Vec::new(), Vec::new()];
    for record in reader.records() {
        let record = record?;
        let line = || line(text, record.position().map_or(0, |position| position.byte() as usize));
        if record.len() != header.len() {
            bail!("line {}: found {} values, the header has {} columns", line(), record.len(), header.len());
        }
        let number = |place: usize| {
            let (name, value) = (&header[place], &record[place]);
            let number = value.parse::<f64>().ok().filter(|number| *number > 0.0 && number.is_finite());
            number.with_context(|| format!("line {}: `{name}` is `{value}`, expected a positive number", line()))
        };
        let [params, crops, flops, cross_entropy] = places;
        runs.push(Run {
            params: number(params)?,
            crops: number(crops)?,
            flops: number(flops)?,
            cross_entropy: number(cross_entropy)?,
            unique: unique.map(number).transpose()?,
        });
        if let Some(place) = width {
            let whole = number(place)?;
            ensure!(
                whole.fract() == 0.0 && whole <= 1024.0,
                "line {}: `width` is `{whole}`, expected a whole number up to 1024",
                line()
            );
            widths.push(whole as u32);
        }
        rates.extend(rate.map(|place| record[place].to_owned()));
        for (values, place) in recipes.iter_mut().zip(recipe) {
            let value = place.map(|place| record[place].to_owned());
            values.extend(value.filter(|value| !values.contains(value)));
        }
    }
    rates.dedup();
    let learning_rate = rates.pop().filter(|rate| rates.is_empty() && rate.parse::<f64>().is_ok_and(|rate| rate > 0.0));
    let [crops, batches] = recipes;
    Ok(Table { runs, widths: width.map(|_| widths), learning_rate, crops, batches })
}

/// The number of the line of a record, from 1. `csv` counts from the end of the record before, ahead of `\n` in `\r\n` and of blank lines.
fn line(text: &str, end_of_last: usize) -> usize {
    let rest = text.get(end_of_last..).unwrap_or_default();
    let start = text.len() - rest.trim_start_matches(['\r', '\n']).len();
    let before = &text[..start];
    1 + before.matches('\n').count().max(before.matches('\r').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let run = Run { params: 1e6, crops: 200.0, flops: 1e13, cross_entropy: 0.5, unique: None };
        let cases = [
            ("params,crops,flops,cross_entropy\n1000000,200,1e13,0.5\n", None),
            ("seed,cross_entropy, flops,crops,params\r\n1,0.5, 1e13 ,200,1e6\r\n", None), // any order, spaces, CRLF
            ("params,crops,flops,cross_entropy,unique\n1e6,200,1e13,0.5,367", Some(367.0)), // no line break at the end
            ("\"params\",crops,flops,cross_entropy,lr\n\n1e6,200,1e13,\"0.5\",n/a\n", None), // quotes, a blank line, a column of words
        ];
        for (text, unique) in cases {
            assert_eq!(parse(text).unwrap().runs, [Run { unique, ..run }], "{text:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sweep.csv");
        std::fs::write(&path, format!("\u{feff}{}", cases[0].0)).unwrap(); // Excel's byte-order mark
        assert_eq!(read(&path).unwrap(), Table { runs: vec![run], ..Table::default() });
        let more = "width,lr,params,crops,flops,cross_entropy\n8,1.5e-3,1e6,200,1e13,0.5\n12,1.5e-3,1e6,200,1e13,0.5\n";
        let table = parse(more).unwrap();
        assert_eq!((table.widths, table.learning_rate), (Some(vec![8, 12]), Some("1.5e-3".into())));
        assert_eq!(parse(&more.replace("12,1.5e-3", "12,3e-3")).unwrap().learning_rate, None); // two rates
        let recipe =
            "params,crops,flops,cross_entropy,crop,batch\n1e6,200,1e13,0.5,256x192,12\n1e6,200,1e13,0.5,256x192,8\n";
        let table = parse(recipe).unwrap();
        assert_eq!((table.crops, table.batches), (vec!["256x192".to_owned()], vec!["12".to_owned(), "8".to_owned()]));
        std::fs::write(&path, b"PK\x03\x04\xff\xff").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("sweep.csv: ") && error.contains("not UTF-8"), "{error}");
        assert!(read(&folder.path().join("none.csv")).unwrap_err().to_string().contains("none.csv: cannot be read"));
    }

    #[test]
    fn a_fault_is_named_by_line_column_and_value() {
        let cases = [
            ("", "line 1: column params, crops, flops, cross_entropy is missing"),
            ("params;crops;flops;cross_entropy\n", "the header has `params;crops;flops;cross_entropy`"), // a semicolon table
            ("params,crops,flops\n1,2,3\n", "line 1: column cross_entropy is missing"),
            ("params,crops,params,flops,cross_entropy\n", "line 1: two columns are named `params`, expected one"),
            ("params,crops,flops,cross_entropy\n1,2,3,4\n1,2,3\n", "line 3: found 3 values, the header has 4 columns"),
            (
                "params,crops,flops,cross_entropy\n1,2,3,4\n1,2,x,4\n",
                "line 3: `flops` is `x`, expected a positive number",
            ),
            ("params,crops,flops,cross_entropy\n\n0,2,3,4\n", "line 3: `params` is `0`"), // a blank line counts
            ("params,crops,flops,cross_entropy\r\n1,2,3,4\r\n\r\n1,2,?,4\r\n", "line 4: `flops` is `?`"), // Windows
            ("params,crops,flops,cross_entropy\r1,2,3,4\r1,2,?,4", "line 3: `flops` is `?`"), // lines that end in CR only
            ("params,crops,flops,cross_entropy\n1,-2,3,4\n", "line 2: `crops` is `-2`"),
            ("params,crops,flops,cross_entropy\n1,2,inf,4\n", "line 2: `flops` is `inf`"),
            ("params,crops,flops,cross_entropy\n1,2,3,NaN\n", "line 2: `cross_entropy` is `NaN`"), // a run that diverged
            ("params,crops,flops,cross_entropy,unique\n1,2,3,4,\n", "line 2: `unique` is ``"),
            (
                "width,params,crops,flops,cross_entropy\n8.5,1,2,3,4\n",
                "line 2: `width` is `8.5`, expected a whole number",
            ),
        ];
        for (text, want) in cases {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(want), "{want}: {error}");
        }
    }
}
