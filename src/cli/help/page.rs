//! Renders Markdown as text for a terminal.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::super::print::WIDTH;
use super::table::Table;

const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Renders a chapter at most 100 columns wide, except for lines of code. Headings are bold if
/// `colour` is set.
pub(super) fn render(markdown: &str, colour: bool) -> String {
    let mut page = Page {
        colour,
        ..Page::default()
    };
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        page.take(event);
    }
    page.text
}

/// Returns the number of characters of a text.
pub(super) fn plain_width(text: &str) -> usize {
    text.chars().count()
}

/// Wraps a text to lines of at most `width` characters; a longer word is broken.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    textwrap::wrap(text, width)
        .into_iter()
        .map(std::borrow::Cow::into_owned)
        .collect()
}

/// The output so far, and the current block.
#[derive(Default)]
struct Page {
    colour: bool,
    text: String,
    /// The words of the block so far.
    words: String,
    /// One entry per enclosing list: the number of the next item, or `None` for a list of dashes.
    lists: Vec<Option<u64>>,
    /// The mark of the item whose first block comes next.
    mark: String,
    in_code: bool,
    table: Option<Table>,
}

impl Page {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.words.push_str(&text),
            Event::Code(code) => {
                self.words.push('`');
                self.words.push_str(&code);
                self.words.push('`');
            }
            Event::SoftBreak => self.words.push(' '),
            Event::HardBreak => self.words.push('\n'),
            _ => {}
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::List(first) => {
                self.block();
                self.lists.push(*first);
            }
            Tag::Item => self.mark = self.next_mark(),
            Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented) => {
                self.block();
                self.in_code = true;
            }
            Tag::Table(_) => self.table = Some(Table::default()),
            Tag::TableHead | Tag::TableRow => {
                if let Some(table) = &mut self.table {
                    table.rows.push(Vec::new());
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => self.heading(level),
            TagEnd::Paragraph => {
                self.block();
                self.blank();
            }
            TagEnd::Item => self.block(),
            TagEnd::List(_) => {
                self.lists.pop();
                if self.lists.is_empty() {
                    self.blank();
                }
            }
            TagEnd::CodeBlock => self.code(),
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.words);
                if let Some(row) = self.table.as_mut().and_then(|table| table.rows.last_mut()) {
                    row.push(cell);
                }
            }
            TagEnd::Table => self.draw_table(),
            _ => {}
        }
    }

    /// Returns the mark of the next item of the innermost list.
    fn next_mark(&mut self) -> String {
        match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!("{}. ", *number - 1)
            }
            _ => "- ".to_owned(),
        }
    }

    /// Returns the indentation of a block in the enclosing lists.
    fn indent(&self) -> String {
        let of_list = |list: &Option<u64>| if list.is_some() { 3 } else { 2 };
        " ".repeat(self.lists.iter().map(of_list).sum())
    }

    /// Writes the words so far as a paragraph, or as the first block of an item.
    fn block(&mut self) {
        let words = std::mem::take(&mut self.words);
        if words.trim().is_empty() {
            return;
        }
        let indent = self.indent();
        let mark = std::mem::take(&mut self.mark);
        let first = format!(
            "{}{mark}",
            &indent[..indent.len().saturating_sub(mark.len())]
        );
        let options = textwrap::Options::new(WIDTH)
            .initial_indent(&first)
            .subsequent_indent(&indent);
        self.text.push_str(&textwrap::fill(words.trim(), options));
        self.text.push('\n');
    }

    fn heading(&mut self, level: HeadingLevel) {
        let words = std::mem::take(&mut self.words);
        let line = if level == HeadingLevel::H1 {
            '═'
        } else {
            '─'
        };
        if self.colour {
            self.text.extend([BOLD, &words, PLAIN, "\n\n"]);
        } else {
            let rule: String = std::iter::repeat_n(line, plain_width(&words).min(WIDTH)).collect();
            self.text.extend([&words, "\n", &rule, "\n\n"]);
        }
    }

    /// Writes a block of code unchanged.
    fn code(&mut self) {
        self.in_code = false;
        let code = std::mem::take(&mut self.words);
        let indent = self.indent();
        self.blank();
        for line in code.lines() {
            self.text.push_str(format!("{indent}    {line}").trim_end());
            self.text.push('\n');
        }
        self.text.push('\n');
    }

    fn draw_table(&mut self) {
        let Some(table) = self.table.take() else {
            return;
        };
        let indent = self.indent();
        for line in table.lines(WIDTH.saturating_sub(indent.len())) {
            self.text.extend([&indent, line.as_str(), "\n"]);
        }
        self.text.push('\n');
    }

    /// Writes one empty line, unless there is one.
    fn blank(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manual::CHAPTERS;

    #[test]
    fn headings_lists_code_and_tables_are_drawn() {
        let text = render(
            "# Title\n\nOne\ntwo [`jail`].\n\n- first\n  - inner\n- second\n\n1. a\n2. b\n\n```toml\n[a]\nb = 1\n```\n\n\
             | k | v |\n|---|---|\n| `x` | y |\n\n[`jail`]: jail.md\n",
            false,
        );
        assert_eq!(
            text,
            "Title\n═════\n\nOne two `jail`.\n\n- first\n  - inner\n- second\n\n1. a\n2. b\n\n    [a]\n    b = 1\n\n\
             k    v\n───  ─\n`x`  y\n\n"
        );
    }

    #[test]
    fn no_line_of_the_manual_is_too_wide_but_in_code() {
        for chapter in CHAPTERS {
            let text = render(chapter.text, false);
            let wide: Vec<&str> = text
                .lines()
                .filter(|line| !line.starts_with("    ") && plain_width(line) > WIDTH)
                .collect();
            assert!(wide.is_empty(), "{}: {wide:#?}", chapter.name);
        }
    }

    #[test]
    fn every_chapter_names_itself_and_only_chapters_that_exist() {
        for chapter in CHAPTERS {
            assert!(chapter.text.starts_with("# "), "{}", chapter.name);
            let links = chapter
                .text
                .lines()
                .filter_map(|line| line.split_once("]: "));
            for (_, file) in links.filter(|(name, _)| name.starts_with('[')) {
                let name = file.trim_end_matches(".md");
                let known = CHAPTERS.iter().any(|other| other.name == name);
                assert!(known, "{} links {file}", chapter.name);
            }
        }
    }
}
