//! Formats a text table to the width of a terminal.

use super::page::{plain_width, wrap};

/// The blanks between two columns.
const GAP: usize = 2;
/// Minimum width of a column, in characters.
const MIN_COLUMN: usize = 8;

/// The rows of a table; the first is its head.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns the lines of the table, each at most `width` characters wide if the columns allow
    /// it.
    pub(super) fn lines(&self, width: usize) -> Vec<String> {
        let columns = columns(&self.rows, width);
        let mut lines = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            lines.extend(cells(row, &columns));
            if at == 0 {
                lines.push(
                    columns
                        .iter()
                        .map(|wide| "─".repeat(*wide))
                        .collect::<Vec<_>>()
                        .join("  "),
                );
            }
        }
        lines
    }
}

/// Returns the width of each column: that of its widest cell, or a share of the remaining width.
fn columns(rows: &[Vec<String>], width: usize) -> Vec<usize> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut needed: Vec<usize> = (0..count)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| plain_width(cell)).max().unwrap_or(0)
        })
        .collect();
    let room = width.saturating_sub(GAP * count.saturating_sub(1));
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|column| needed.get(*column).copied());
    let (mut left, mut others) = (room, count);
    for column in order {
        let share = (left / others.max(1)).max(MIN_COLUMN);
        if let Some(wide) = needed.get_mut(column) {
            *wide = (*wide).min(share);
            left = left.saturating_sub(*wide);
        }
        others = others.saturating_sub(1);
    }
    needed
}

/// Returns the lines of one row.
fn cells(row: &[String], columns: &[usize]) -> Vec<String> {
    let wrapped: Vec<Vec<String>> = row
        .iter()
        .zip(columns)
        .map(|(cell, wide)| wrap(cell, *wide))
        .collect();
    let height = wrapped.iter().map(Vec::len).max().unwrap_or(0);
    (0..height)
        .map(|line| {
            let mut text = String::new();
            for (cell, wide) in wrapped.iter().zip(columns) {
                let part = cell.get(line).map_or("", String::as_str);
                let blanks = (wide + GAP).saturating_sub(plain_width(part));
                text.push_str(part);
                text.push_str(&" ".repeat(blanks));
            }
            text.trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[&[&str]]) -> Table {
        let row = |row: &&[&str]| row.iter().map(|cell| (*cell).to_owned()).collect();
        Table {
            rows: rows.iter().map(row).collect(),
        }
    }

    #[test]
    fn a_wide_column_takes_what_the_narrow_ones_leave() {
        let table = table(&[&["key", "meaning"], &["a", "one two three four five six"]]);
        assert_eq!(
            table.lines(20),
            [
                "key  meaning",
                "───  ───────────────",
                "a    one two three",
                "     four five six",
            ]
        );
    }
}
