//! The figures of `scale` in a file, and as tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use super::Part;
use crate::table;

/// All parts that were measured, perhaps at different times.
#[derive(Default, Deserialize, Serialize)]
pub struct Report {
    pub parts: BTreeMap<Part, Measured>,
}

/// What a part showed, and on what.
#[derive(Deserialize, Serialize)]
pub struct Measured {
    pub date: String,
    pub machine: String,
    /// The 1-minute load average before and after.
    pub load: [f64; 2],
    pub runs: Vec<Run>,
    /// Why it could not be measured.
    pub why_not: Option<String>,
}

/// One run in one situation.
#[derive(Deserialize, Serialize)]
pub struct Run {
    what: String,
    /// Each figure with its name and unit, in the order of the columns.
    figures: Vec<(String, f64)>,
}

impl Run {
    pub fn new(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            figures: Vec::new(),
        }
    }

    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.figures.push((name.to_owned(), value));
        self
    }

    fn figure(&self, name: &str) -> Option<f64> {
        let found = self.figures.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| *value)
    }
}

impl Report {
    /// What is in `file`; nothing if there is none.
    pub fn read(file: &Path) -> Result<Self> {
        if !file.exists() {
            return Ok(Self::default());
        }
        serde_json::from_str(&fs::read_to_string(file)?)
            .with_context(|| format!("{} is not as it should be", file.display()))
    }

    /// Writes the figures to `file`, and the tables beside it.
    pub fn write(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, serde_json::to_string_pretty(self)? + "\n")?;
        let tables: Vec<String> = self
            .parts
            .iter()
            .map(|(part, it)| table(*part, it))
            .collect();
        let text = format!(
            "# Scale\n\nEach cell: the median of the rounds (× the first row) [least to greatest].\n\n{}",
            tables.join("\n")
        );
        fs::write(file.with_extension("md"), text)?;
        println!("{}", file.with_extension("md").display());
        Ok(())
    }
}

/// A part as Markdown.
pub fn table(part: Part, measured: &Measured) -> String {
    let value = part.to_possible_value();
    let title = value.as_ref().and_then(|it| it.get_help());
    let title = title.map(ToString::to_string).unwrap_or_default();
    let mut text = format!(
        "## {title}\n\n{}, {}; load before and after: {:.1}, {:.1}.\n\n",
        measured.date, measured.machine, measured.load[0], measured.load[1]
    );
    if let Some(why_not) = &measured.why_not {
        let _ = writeln!(text, "NOT MEASURED: {why_not}");
        return text;
    }
    let (mut rows, mut columns): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for run in &measured.runs {
        add(&mut rows, &run.what);
        run.figures
            .iter()
            .for_each(|(name, _)| add(&mut columns, name));
    }
    let _ = writeln!(
        text,
        "| | {} |\n|---|{}",
        columns.join(" | "),
        "---|".repeat(columns.len())
    );
    for row in &rows {
        let cells: Vec<String> = columns
            .iter()
            .map(|column| cell(&measured.runs, rows[0], row, column))
            .collect();
        let _ = writeln!(text, "| {row} | {} |", cells.join(" | "));
    }
    text
}

fn add<'a>(names: &mut Vec<&'a str>, name: &'a str) {
    if !names.contains(&name) {
        names.push(name);
    }
}

fn cell(runs: &[Run], first: &str, row: &str, column: &str) -> String {
    let values = |row: &str| {
        let of_row = runs.iter().filter(|it| it.what == row);
        let mut values: Vec<f64> = of_row.filter_map(|it| it.figure(column)).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let own = values(row);
    let Some(median) = median(&own) else {
        return "-".to_owned();
    };
    let ratio = self::median(&values(first))
        .filter(|base| row != first && *base > 0.0)
        .map(|base| format!(" ({:.3})", median / base))
        .unwrap_or_default();
    let (least, greatest) = (own[0], own[own.len() - 1]);
    format!(
        "{}{ratio} [{} to {}]",
        table::number(median),
        table::number(least),
        table::number(greatest)
    )
}

/// The middle of sorted values, or the mean of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// `1,000,000 hosts`.
pub fn counted(value: usize, of: &str) -> String {
    let number = table::number(value as f64);
    format!("{} {of}", number.trim_end_matches(".00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_beside_the_first() {
        let run = |what: &str, rate| Run::new(what).with("rate", rate);
        let measured = Measured {
            date: "2026-11-30".to_owned(),
            machine: "2 processors".to_owned(),
            load: [1.0, 2.0],
            runs: vec![
                run("few", 100.0),
                run("many", 80.0).with("memory", 7.0),
                run("few", 300.0),
                run("many", 100.0).with("memory", 7.0),
            ],
            why_not: None,
        };
        let table = table(Part::Hosts, &measured);
        assert!(table.contains("| | rate | memory |"), "{table}");
        assert!(table.contains("| few | 200 [100 to 300] | - |"), "{table}");
        let many = "| many | 90.00 (0.450) [80.00 to 100] | 7.00 [7.00 to 7.00] |";
        assert!(table.contains(many), "{table}");
    }
}
