//! Command lines without the secrets that people write into them.
//!
//! A word that may be a secret is masked. A masked word that was none costs a label; a secret that
//! is written stays in every copy of the log. Three things mark a secret: the name in front of it
//! ([`names`]), its own form ([`shapes`]), and the place where a program expects one ([`programs`]).

mod names;
mod programs;
mod shapes;
#[cfg(test)]
mod tests;

use names::Named;
use programs::Program;

/// Stands for a secret.
const MASK: &str = "***";

/// The words of a command, joined by blanks, with every possible secret replaced by `***`.
pub(super) fn masked(words: &[String]) -> String {
    let feeds_stdin = words.iter().any(|word| programs::reads_secret(word));
    let mut line = Line {
        feeds_stdin,
        begins: true,
        ..Line::default()
    };
    let mut is_script = false;
    for word in words {
        line.word(word, is_script);
        is_script = programs::takes_script(word);
    }
    line.text.join(" ")
}

/// What the next part of the command is, by what came before it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
enum Expects {
    #[default]
    Nothing,
    /// A secret.
    Secret,
    /// `user:secret`.
    Pair,
    /// A header field.
    Header,
    /// More of a secret, up to a part that ends with a quote, or to the end of the word.
    Rest,
    /// More of a secret, up to the end of the word.
    Word,
    /// Text for a program's input, up to a part that is this one.
    Until(String),
}

/// A command line that is being masked.
#[derive(Debug, Default)]
struct Line {
    text: Vec<String>,
    expects: Expects,
    program: Program,
    /// Whether the next part names a program.
    begins: bool,
    /// Whether a program of this line reads a secret from its standard input.
    feeds_stdin: bool,
    quoted: Quoted,
}

/// What a part is within.
#[derive(Debug, Default)]
struct Quoted {
    /// Whether the word is one value that has blanks, and not a script.
    is_value: bool,
    /// Whether the part begins a quote that it does not end.
    is_open: bool,
}

impl Line {
    /// Takes one word of the command. The words of a script (`sh -c SCRIPT`) are separated by its
    /// blanks; any other word is one value, whatever blanks it has.
    fn word(&mut self, word: &str, is_script: bool) {
        let has_blanks = word.contains(char::is_whitespace);
        if has_blanks && !is_script {
            match self.expects {
                Expects::Secret | Expects::Pair => {
                    self.expects = Expects::Nothing;
                    self.text.push(MASK.to_owned());
                    return;
                }
                Expects::Nothing
                | Expects::Header
                | Expects::Rest
                | Expects::Word
                | Expects::Until(_) => {}
            }
        }
        self.quoted.is_value = has_blanks && !is_script;
        self.begins |= is_script;
        for part in word.split_whitespace() {
            let text = self.part(part);
            if text != MASK || self.text.last().is_none_or(|last| !last.ends_with(MASK)) {
                self.text.push(text);
            }
            // A secret in a word that is one value goes on to the end of the word.
            if self.quoted.is_value && self.expects == Expects::Rest {
                self.expects = Expects::Word;
            }
        }
        if matches!(
            self.expects,
            Expects::Rest | Expects::Word | Expects::Until(_)
        ) {
            self.expects = Expects::Nothing;
        }
    }

    fn part(&mut self, part: &str) -> String {
        self.quoted.is_open = part.starts_with(['\'', '"']) && (part.len() == 1 || !closes(part));
        match std::mem::take(&mut self.expects) {
            Expects::Until(end) => {
                if part.trim_matches(['\'', '"']) != end {
                    self.expects = Expects::Until(end);
                }
                return MASK.to_owned();
            }
            Expects::Word => {
                self.expects = Expects::Word;
                return MASK.to_owned();
            }
            Expects::Rest => {
                if !closes(part) {
                    self.expects = Expects::Rest;
                }
                return MASK.to_owned();
            }
            Expects::Secret if !is_flag(part) => return self.secret(part),
            Expects::Pair if !is_flag(part) && self.is_pair(part) => return self.secret(part),
            Expects::Header => return self.header(part),
            Expects::Nothing | Expects::Secret | Expects::Pair => {}
        }
        if part.contains("-----BEGIN") {
            self.expects = Expects::Word;
            return MASK.to_owned();
        }
        if let Some(end) = heredoc(part) {
            self.expects = end;
            return part.to_owned();
        }
        let text = self.known(part);
        self.program_of(part);
        text
    }

    /// A part that nothing before it makes a secret.
    fn known(&mut self, part: &str) -> String {
        if self.program.takes_secrets(self.feeds_stdin) && !self.begins && !is_operator(part) {
            return MASK.to_owned();
        }
        if let Some(text) = self.flag(part) {
            return text;
        }
        if let Some((kept, value)) = names::assigned(part) {
            let text = format!("{kept}{MASK}");
            self.goes_on(value);
            return text;
        }
        let text = shapes::masked(part);
        let before = self.text.last().map_or("", String::as_str);
        if text == part && names::announces(part, before) {
            self.expects = Expects::Secret;
        }
        text
    }

    /// A flag that takes a secret, by itself or in its next word.
    fn flag(&mut self, part: &str) -> Option<String> {
        let part = part.trim_start_matches(['\'', '"']);
        if !part.starts_with('-') {
            return None;
        }
        if part.starts_with("-H")
            && let Some(text) = self.attached(part)
        {
            return Some(text);
        }
        let (flag, value) = match part.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (part, None),
        };
        let named = names::flag(flag, &self.program);
        match (named, value) {
            (Named::Secret | Named::Body, Some(value)) if !value.is_empty() => {
                self.goes_on(value);
                Some(format!("{flag}={MASK}"))
            }
            (Named::Pair, Some(value)) if self.is_pair(value) => {
                self.goes_on(value);
                Some(format!("{flag}={MASK}"))
            }
            (Named::Header, Some(value)) => {
                let text = self.header(value);
                Some(format!("{flag}={text}"))
            }
            (Named::Secret | Named::Body, None) => Some(self.await_value(flag, Expects::Secret)),
            (Named::Pair, None) => Some(self.await_value(flag, Expects::Pair)),
            (Named::Header, None) => Some(self.await_value(flag, Expects::Header)),
            _ => self.attached(part),
        }
    }

    fn await_value(&mut self, flag: &str, expects: Expects) -> String {
        self.expects = expects;
        flag.to_owned()
    }

    /// `-pSECRET`, `-uUSER:SECRET`, `-HName: SECRET`.
    fn attached(&mut self, part: &str) -> Option<String> {
        if part.starts_with("--") {
            return None;
        }
        let (flag, value) = programs::attached(part, &self.program)?;
        match names::flag(flag, &self.program) {
            Named::Pair if !self.is_pair(value) => None,
            Named::Header => {
                let text = self.header(value);
                Some(format!("{flag}{text}"))
            }
            Named::Nothing => None,
            Named::Secret | Named::Body | Named::Pair => {
                self.goes_on(value);
                Some(format!("{flag}{MASK}"))
            }
        }
    }

    /// A value that begins here is a secret.
    fn secret(&mut self, value: &str) -> String {
        self.goes_on(value);
        MASK.to_owned()
    }

    /// Notes whether a secret that begins with `value` goes on in the next part.
    fn goes_on(&mut self, value: &str) {
        let opens = value.starts_with(['\'', '"', '`', '{', '[', '('])
            || value.starts_with("$(")
            || value.starts_with("$'")
            || value.is_empty();
        let alone = value.len() == 1;
        let goes_on = opens && (alone || !closes(value));
        if value.ends_with('\\') || goes_on || self.quoted.is_open || self.quoted.is_value {
            self.expects = Expects::Rest;
        }
    }

    /// A header field: its value is a secret, unless its name is one that never has any.
    fn header(&mut self, part: &str) -> String {
        let bare = part.trim_start_matches(['\'', '"']);
        let name = bare.split_once(':').map(|(name, _)| name);
        match name {
            Some(name) if names::is_plain_header(name) => part.to_owned(),
            Some(name) => {
                if !closes(part) {
                    self.expects = Expects::Rest;
                }
                format!("{name}:{MASK}")
            }
            // A file, or the first half of a field that is not split where others are.
            None if bare.starts_with('@') => part.to_owned(),
            None => {
                if !closes(part) {
                    self.expects = Expects::Rest;
                }
                MASK.to_owned()
            }
        }
    }

    fn is_pair(&self, value: &str) -> bool {
        value.contains([':', '%', ',']) || self.program.is_http_client()
    }

    /// Notes which program the next parts are for.
    fn program_of(&mut self, part: &str) {
        if is_operator(part) {
            self.begins = true;
            self.program = Program::default();
            return;
        }
        if self.begins && !is_flag(part) && !part.contains('=') && !programs::is_wrapper(part) {
            self.program = Program::named(part);
            self.begins = false;
        }
        if part.ends_with(';') {
            self.begins = true;
            self.program = Program::default();
        }
    }
}

fn is_flag(part: &str) -> bool {
    part.len() > 2 && part.starts_with("--") || part.len() == 2 && part.starts_with('-')
}

fn is_operator(part: &str) -> bool {
    matches!(
        part,
        "|" | "||" | "&&" | ";" | "&" | "|&" | "(" | "{" | "then" | "do"
    )
}

/// Whether a part ends what a quote or a bracket began.
fn closes(part: &str) -> bool {
    part.trim_end_matches([';', ',', '}', ']', '|', '&'])
        .ends_with(['\'', '"', ')', '`'])
        || part.ends_with(['}', ']'])
}

/// Input that is written into the command: `<<END` up to END, `<<<WORD`.
fn heredoc(part: &str) -> Option<Expects> {
    let (_, after) = part.split_once("<<")?;
    if let Some(word) = after.strip_prefix('<') {
        return word.is_empty().then_some(Expects::Secret);
    }
    let end = after
        .trim_start_matches('-')
        .trim_matches(['\'', '"', '\\']);
    Some(Expects::Until(end.to_owned()))
}
