//! Draws a headline, labelled stages below it, and notes at the end, for `explain`.

use super::print;

/// The column of a stage's text: after ` ├ ` and the longest label.
const INDENT: usize = 14;

/// The content of the tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    head: (String, String),
    stages: Vec<(&'static str, Vec<String>)>,
    notes: Vec<(&'static str, String)>,
}

impl Tree {
    /// Makes a tree below `what`, with `verdict` at the right end of the first line.
    pub(super) fn new(what: impl Into<String>, verdict: impl Into<String>) -> Self {
        Self {
            head: (what.into(), verdict.into()),
            ..Self::default()
        }
    }

    /// Adds a stage of one line.
    pub(super) fn stage(&mut self, label: &'static str, text: impl Into<String>) {
        self.stages.push((label, vec![text.into()]));
    }

    /// Adds a stage of several lines; without lines, adds no stage.
    pub(super) fn stages(&mut self, label: &'static str, lines: Vec<String>) {
        if !lines.is_empty() {
            self.stages.push((label, lines));
        }
    }

    /// Adds a paragraph below the tree; its line breaks are kept.
    pub(super) fn note(&mut self, label: &'static str, text: impl Into<String>) {
        self.notes.push((label, text.into()));
    }

    /// Draws the tree, at most 100 columns wide.
    pub(super) fn draw(&self) -> String {
        let (what, verdict) = &self.head;
        let room = print::WIDTH.saturating_sub(verdict.chars().count() + 2);
        let mut text = format!("{:room$}  {verdict}\n", print::clean(what, room));
        for (at, (label, lines)) in self.stages.iter().enumerate() {
            let last = at + 1 == self.stages.len();
            let (branch, trunk) = if last { ('└', ' ') } else { ('├', '│') };
            for (at, line) in lines.iter().flat_map(|line| fold(line)).enumerate() {
                let lead = match at {
                    0 => format!(" {branch} {label}"),
                    _ => format!(" {trunk}"),
                };
                text.push_str(format!("{lead:INDENT$}{line}").trim_end());
                text.push('\n');
            }
        }
        for (label, note) in &self.notes {
            text.push_str(&paragraph(label, note));
        }
        text
    }
}

/// Formats a label, and beside it a text with its own line breaks, wrapped at words.
fn paragraph(label: &str, note: &str) -> String {
    let mut text = String::new();
    let mut lead = label;
    for line in note.lines().flat_map(wrap) {
        text.push_str(format!("{lead:INDENT$}{line}").trim_end());
        text.push('\n');
        lead = "";
    }
    text
}

/// Formats a line of a stage: unchanged if it fits, otherwise wrapped.
fn fold(line: &str) -> Vec<String> {
    let room = print::WIDTH - INDENT;
    if line.chars().count() <= room {
        return vec![print::clean(line, room)];
    }
    wrap(line)
}

fn wrap(line: &str) -> Vec<String> {
    let room = print::WIDTH - INDENT;
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let word = print::clean(word, room);
        match lines.last_mut() {
            Some(last) if last.is_empty() => *last = word,
            Some(last) if last.chars().count() + 1 + word.chars().count() <= room => {
                last.push(' ');
                last.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_a_branch_for_each_stage_and_a_corner_at_the_last() {
        let mut tree = Tree::new("CONNECT a.example:443", "deny  not_allowed");
        tree.stage("tier", "standard");
        tree.stages("rules", vec!["37 looked at".into(), "closest docs".into()]);
        tree.stages("none", Vec::new());
        tree.stage("verdict", "deny");
        tree.note("note", "one\ntwo");
        let text = tree.draw();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("CONNECT a.example:443 ") && lines[0].ends_with("not_allowed")
        );
        assert_eq!(
            lines[1..],
            [
                " ├ tier       standard",
                " ├ rules      37 looked at",
                " │            closest docs",
                " └ verdict    deny",
                "note          one",
                "              two",
            ]
        );
    }

    #[test]
    fn no_line_is_wider_than_100_columns_or_draws_on_the_terminal() {
        let long = "word\u{1b}[2J ".repeat(60);
        let mut tree = Tree::new(long.clone(), "allow  allowed");
        tree.stage("rules", "x".repeat(300));
        tree.note("note", long + &"y".repeat(200));
        let text = tree.draw();
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= print::WIDTH),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
    }
}
