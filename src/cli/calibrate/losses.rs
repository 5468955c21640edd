//! Reads a table of losses: a CSV file with a header, one column per threshold and one row per unit.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use rtformer::files;

/// The longest table that is read, in bytes.
const LONGEST: u64 = 1 << 30;

/// A table of losses.
#[derive(Debug, PartialEq)]
pub(super) struct Losses {
    /// The thresholds' names, safest first.
    pub(super) names: Vec<String>,
    /// `[threshold][unit]`, from 0 to 1.
    pub(super) columns: Vec<Vec<f64>>,
}

impl Losses {
    /// Whether the header may be a row of losses.
    pub(super) fn names_are_numbers(&self) -> bool {
        self.names.iter().all(|name| name.parse::<f64>().is_ok())
    }
}

/// Reads the table in `path`. UTF-8 and UTF-16, any line endings, and blank lines at the end are accepted.
///
/// # Errors
/// A phrase that names the line, the column and the value, and says what was expected.
pub(super) fn read(path: &Path) -> Result<Losses, String> {
    let bytes = File::open(path).and_then(|file| files::read_within(file, LONGEST));
    let bytes = bytes.map_err(|error| format!("cannot be read: {error}"))?;
    parse(&files::text(&bytes)?)
}

/// Writes a table that [`read`] accepts: the thresholds' names, and their losses `[threshold][unit]`.
pub(super) fn write(path: &Path, names: &[impl ToString], columns: &[Vec<f64>]) -> anyhow::Result<()> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(names.iter().map(ToString::to_string))?;
    for unit in 0..columns.first().map_or(0, Vec::len) {
        table.write_record(columns.iter().map(|column| column[unit].to_string()))?;
    }
    let table = table.into_inner()?;
    files::write_whole(path, |file| file.write_all(&table))?;
    Ok(())
}

fn parse(text: &str) -> Result<Losses, String> {
    // The csv crate skips blank lines. In a table of one column, a blank line may be a missing loss.
    let text = text.trim_end();
    if let Some(index) = text.lines().position(|line| line.trim().is_empty()) {
        return Err(format!("line {} is blank; expected a row of losses or no line at all", index + 1));
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut records = reader.records();
    let Some(header) = records.next() else {
        return Err(
            "is empty; expected a line with the thresholds' names, and a row of losses for each unit".to_owned()
        );
    };
    let names = names(&header.map_err(|error| error.to_string())?)?;
    let mut columns = vec![Vec::new(); names.len()];
    for record in records {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != names.len() {
            let (found, expected) = (record.len(), names.len());
            return Err(format!(
                "line {line} has {found} values; expected {expected}, one for each name in the first line"
            ));
        }
        for ((value, name), column) in record.iter().zip(&names).zip(&mut columns) {
            column.push(loss(value).ok_or_else(|| {
                format!(
                    "line {line}, column `{name}`: the loss is `{value}`; expected a number from 0 to 1, such as 0.05"
                )
            })?);
        }
    }
    if columns[0].is_empty() {
        return Err(
            "has no rows of losses after the first line, which names the thresholds; expected one for each unit"
                .to_owned(),
        );
    }
    Ok(Losses { names, columns })
}

/// The thresholds' names from the first line: none is empty, none occurs twice.
fn names(header: &csv::StringRecord) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for (index, name) in header.iter().map(str::trim).enumerate() {
        let column = index + 1;
        if name.is_empty() {
            return Err(format!(
                "line 1, column {column} has no name; expected the thresholds' names, without a column that numbers the rows"
            ));
        }
        if let Some(first) = names.iter().position(|other| other == name) {
            let missing = if loss(name).is_some() { ". Is the line of names missing?" } else { "" };
            return Err(format!(
                "line 1: columns {} and {column} are both named `{name}`; expected a different name for each threshold{missing}",
                first + 1
            ));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn loss(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|loss| (0.0..=1.0).contains(loss))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn tables_of_many_programs_are_read() {
        let plain = "never,0.9\n0,0.25\n0,1\n";
        let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(plain.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let cases: [&[u8]; 7] = [
            plain.as_bytes(),
            b"\xef\xbb\xbfnever,0.9\r\n0,0.25\r\n0,1\r\n", // a Windows editor
            b"never,0.9\n0,0.25\n0,1",                     // no line ending at the end
            b"never,0.9\n0,0.25\n0,1\n\n  \r\n",           // blank lines at the end
            b"\"never\", 0.9\n 0.0 ,2.5e-1\n-0,1.0\n",     // quotes, spaces, other ways to write a number
            b"never,0.9\r0,0.25\r0,1\r",                   // an old Mac
            &utf16,
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("losses.csv");
        for bytes in cases {
            fs::write(&path, bytes).unwrap();
            let losses = read(&path).unwrap();
            assert_eq!(losses.names, ["never", "0.9"]);
            assert_eq!(losses.columns, [[0.0, 0.0], [0.25, 1.0]], "{}", bytes.escape_ascii());
            assert!(!losses.names_are_numbers());
        }
        assert!(parse("0.9,0.8\n0,0\n").unwrap().names_are_numbers());
        write(&path, &["never", "0.9"], &[vec![0.0, 0.0], vec![0.25, 1.0]]).unwrap();
        assert_eq!(read(&path).unwrap().columns, [[0.0, 0.0], [0.25, 1.0]]);
    }

    #[test]
    fn a_table_that_is_not_clear_is_refused() {
        let cases: [(&str, &[&str]); 17] = [
            ("", &["is empty"]),
            (" \n\n", &["is empty"]),
            ("a,b\n", &["no rows"]),
            ("a,b\n0,0.1\n0,x\n", &["line 3", "`b`", "`x`", "0 to 1"]),
            ("a,b\n0,nan\n", &["line 2", "`b`", "`nan`"]),
            ("a,b\ninf,0\n", &["line 2", "`a`", "`inf`"]),
            ("a,b\n0,1.01\n", &["line 2", "`b`", "`1.01`"]),
            ("a,b\n-0.1,0\n", &["line 2", "`a`", "`-0.1`"]),
            ("a,b\n5%,0\n", &["line 2", "`a`", "`5%`"]),
            ("a,b\n0,\n", &["line 2", "`b`", "``"]), // a missing value
            ("a,b\n0,0\n0\n", &["line 3 has 1 values", "expected 2"]),
            ("a,b\n0,0,0\n", &["line 2 has 3 values", "expected 2"]), // decimal commas too
            ("a\n0\n\n0\n", &["line 3 is blank"]),                    // a missing value of one column
            ("a,b,a\n0,0,0\n", &["columns 1 and 3", "`a`"]),
            ("0,0.1,0.1\n0,0,0\n", &["columns 2 and 3", "`0.1`", "missing?"]), // no header
            (",a\n0,0\n", &["column 1 has no name"]),                          // a column that numbers the rows
            ("a;b\n0;0.1\n", &["line 2", "`a;b`", "`0;0.1`"]),                 // semicolons
        ];
        for (text, wanted) in cases {
            let error = parse(text).unwrap_err();
            assert!(wanted.iter().all(|word| error.contains(word)), "{text:?}: {error}");
        }
        assert!(read(Path::new("none.csv")).unwrap_err().contains("cannot be read"));
    }
}
