//! Compares two texts line by line.

/// Maximum number of lines: longer texts are shown as replaced.
const MAX_LINES: usize = 2000;

/// Returns the lines with `-`, `+` or a blank before each; lines far from a change are left out.
pub(in crate::cli) fn lines(before: &str, after: &str) -> Vec<String> {
    const NEAR: usize = 3;
    let marked = mark(
        &before.lines().collect::<Vec<_>>(),
        &after.lines().collect::<Vec<_>>(),
    );
    let changed: Vec<usize> = (0..marked.len())
        .filter(|at| marked.get(*at).is_some_and(|(mark, _)| *mark != ' '))
        .collect();
    let near = |at: usize| changed.iter().any(|there| there.abs_diff(at) <= NEAR);
    let mut shown = Vec::new();
    let mut skipped = false;
    for (at, (mark, line)) in marked.iter().enumerate() {
        if near(at) {
            if skipped {
                shown.push("  ...".to_owned());
            }
            shown.push(format!("{mark} {line}"));
        }
        skipped = !near(at);
    }
    shown
}

fn mark<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<(char, &'a str)> {
    let mut marked = Vec::new();
    let (mut old, mut new) = (before, after);
    let lengths = lengths(before, after);
    while let ([a, olds @ ..], [b, news @ ..]) = (old, new) {
        let at = |old: &[&str], new: &[&str]| {
            let row = lengths.get(before.len() - old.len());
            row.and_then(|row| row.get(after.len() - new.len()))
                .copied()
        };
        if a == b {
            marked.push((' ', *a));
            (old, new) = (olds, news);
        } else if at(olds, new) >= at(old, news) {
            marked.push(('-', *a));
            old = olds;
        } else {
            marked.push(('+', *b));
            new = news;
        }
    }
    marked.extend(old.iter().map(|line| ('-', *line)));
    marked.extend(new.iter().map(|line| ('+', *line)));
    marked
}

/// Returns the length of the longest common subsequence after each pair of positions.
fn lengths(before: &[&str], after: &[&str]) -> Vec<Vec<u32>> {
    if before.len() > MAX_LINES || after.len() > MAX_LINES {
        return Vec::new();
    }
    let mut rows = vec![vec![0; after.len() + 1]];
    for a in before.iter().rev() {
        let below = rows.last().cloned().unwrap_or_default();
        let mut row = vec![0; after.len() + 1];
        for (at, b) in after.iter().enumerate().rev() {
            let of = |row: &[u32], at: usize| row.get(at).copied().unwrap_or_default();
            let length = if a == b {
                of(&below, at + 1) + 1
            } else {
                of(&below, at).max(of(&row, at + 1))
            };
            if let Some(cell) = row.get_mut(at) {
                *cell = length;
            }
        }
        rows.push(row);
    }
    rows.reverse();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_shown_with_what_is_near() {
        let before = "a\nb\nc\nd\ne\nf\n";
        assert_eq!(lines(before, before), Vec::<String>::new());
        assert_eq!(lines("a\nb\n", "a\nx\nb\n"), ["  a", "+ x", "  b"]);
        let shown = lines(before, "a\nb\nc\nd\ne\ng\n");
        assert_eq!(shown, ["  ...", "  c", "  d", "  e", "- f", "+ g"]);
    }
}
