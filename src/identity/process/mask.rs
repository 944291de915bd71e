//! Masks secrets in command lines.
//!
//! A word that may be a secret is masked. Masking a harmless word costs a label; an unmasked secret
//! stays in every copy of the log. Three features mark a secret: the name before it ([`names`]),
//! its own form ([`shapes`]), and a position where a program ([`programs`]) or its subcommand
//! ([`commands`]) expects one.

mod commands;
mod names;
mod parts;
mod programs;
mod shapes;
#[cfg(test)]
mod tests;

use commands::Places;
use names::Named;
use parts::{closes, ends_with_quote, heredoc, is_flag, is_operator};
use programs::Program;

/// The replacement for a secret.
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
        let is_command = line.program.runs_words() && word.contains(char::is_whitespace);
        line.word(word, is_script || is_command);
        let goes_on = is_script && word.starts_with('-') && !word.contains(' ');
        is_script = (goes_on || programs::takes_script(word)) && line.program.is_shell();
    }
    line.text.join(" ")
}

/// The expected meaning of the next part, from the parts before it.
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
    /// `NAME=secret`.
    Assignment,
    /// A name, followed by a secret.
    Name,
    /// Code of a language other than shell.
    Code,
    /// More of such code, up to a part that ends with this quote.
    CodeUntil(char),
    /// Code, if it has more than one word.
    Words,
    /// More of a secret, up to a part that ends with a quote, or to the end of the word.
    Rest,
    /// More of a secret, up to the end of the word.
    Word,
    /// Text for a program's input, up to a part that equals this one.
    Until(String),
}

/// A command line that is being masked.
#[derive(Debug, Default)]
struct Line {
    text: Vec<String>,
    expects: Expects,
    program: Program,
    places: Places,
    /// Whether the next part names a program.
    begins: bool,
    /// Whether a program of this line reads a secret from its standard input.
    feeds_stdin: bool,
    quoted: Quoted,
}

/// The context of a part.
#[derive(Debug, Default)]
struct Quoted {
    /// Whether the word is one value with blanks, and not a script.
    is_value: bool,
    /// Whether the part opens a quote that it does not close.
    is_open: bool,
}

impl Line {
    /// Masks one word of the command. The words of a script (`sh -c SCRIPT`) are separated by its
    /// blanks; any other word is one value, even with blanks in it.
    fn word(&mut self, word: &str, is_script: bool) {
        let has_blanks = word.contains(char::is_whitespace);
        if has_blanks && !is_script {
            match self.expects {
                Expects::Secret | Expects::Pair => {
                    self.expects = Expects::Nothing;
                    self.text.push(MASK.to_owned());
                    return;
                }
                Expects::Code | Expects::Words => {
                    self.expects = Expects::Nothing;
                    self.text.push(shapes::hosts(word));
                    return;
                }
                Expects::Nothing
                | Expects::Assignment
                | Expects::Name
                | Expects::CodeUntil(_)
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
            // In a word that is one value, a secret continues to the end of the word.
            if self.quoted.is_value && self.expects == Expects::Rest {
                self.expects = Expects::Word;
            }
        }
        if matches!(
            self.expects,
            Expects::Rest | Expects::Word | Expects::Until(_) | Expects::CodeUntil(_)
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
            Expects::Secret if !is_flag(part) => {
                let text = self.secret(part);
                // A flag with a secret name may take no value: `-genkey -keypass X`.
                if self.expects == Expects::Nothing && names::is_secret_flag(part, &self.program) {
                    self.expects = Expects::Secret;
                }
                return text;
            }
            Expects::Name => {
                self.expects = Expects::Secret;
                return shapes::masked(part);
            }
            Expects::Assignment => {
                if let Some((name, value)) = part.split_once('=')
                    && !part.starts_with('-')
                {
                    let text = self.assignment(name, value);
                    // Some flags take several values: `--parameter-overrides A=X B=Y`.
                    if self.expects == Expects::Nothing {
                        self.expects = Expects::Assignment;
                    }
                    return text;
                }
            }
            Expects::Code => return self.code(part),
            Expects::CodeUntil(quote) => {
                if !ends_with_quote(part, quote) {
                    self.expects = Expects::CodeUntil(quote);
                }
                return shapes::hosts(part);
            }
            Expects::Words if part.starts_with(['\'', '"']) && self.quoted.is_open => {
                return self.code(part);
            }
            Expects::Pair if !is_flag(part) && self.is_pair(part) => return self.secret(part),
            Expects::Header => return self.header(part),
            Expects::Nothing | Expects::Secret | Expects::Pair | Expects::Words => {}
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

    /// Masks a part that no earlier part marks as a secret.
    fn known(&mut self, part: &str) -> String {
        if self.program.takes_secrets(self.feeds_stdin) && !self.begins && !is_operator(part) {
            return MASK.to_owned();
        }
        if let Some(text) = self.flag(part) {
            return text;
        }
        if self.program.is_code(part) {
            return self.code(part);
        }
        if let Some(text) = self.item(part).or_else(|| self.variable(part)) {
            return text;
        }
        if let Some((kept, value)) = names::assigned(part) {
            let text = format!("{kept}{MASK}");
            self.goes_on(value);
            return text;
        }
        if !self.begins
            && !self.quoted.is_value
            && !is_operator(part)
            && self.places.is_secret(part)
        {
            return match part.split_once('=') {
                Some((name, value)) if !value.is_empty() => self.assignment(name, value),
                _ => self.secret(part),
            };
        }
        let text = shapes::masked(part);
        let before = self.text.last().map_or("", String::as_str);
        if text == part && names::announces(part, before) {
            self.expects = Expects::Secret;
        }
        text
    }

    /// Masks a flag that takes a secret, in the same word or in the next.
    fn flag(&mut self, part: &str) -> Option<String> {
        let part = part.trim_start_matches(['\'', '"']);
        if !part.starts_with('-') {
            return None;
        }
        if let Some(text) = self.attached(part) {
            // The whole word may also be a flag (`-privatekey`), with its secret in the next word.
            let both = self.expects == Expects::Nothing && !self.program.attaches_passwords();
            if both && names::is_secret_flag(part, &self.program) {
                self.expects = Expects::Secret;
            }
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
            (Named::Assignment, Some(value)) => {
                let (name, value) = value.split_once('=')?;
                Some(self.assignment(&format!("{flag}={name}"), value))
            }
            (Named::Assignment, None) => Some(self.await_value(flag, Expects::Assignment)),
            (Named::Name, None) => Some(self.await_value(flag, Expects::Name)),
            (Named::Code | Named::Words, Some(value)) => {
                Some(format!("{flag}={}", self.code(value)))
            }
            (Named::Code, None) => Some(self.await_value(flag, Expects::Code)),
            (Named::Words, None) => Some(self.await_value(flag, Expects::Words)),
            (Named::Script, None) => {
                self.begins = true;
                Some(flag.to_owned())
            }
            _ => None,
        }
    }

    fn await_value(&mut self, flag: &str, expects: Expects) -> String {
        self.expects = expects;
        flag.to_owned()
    }

    /// `-pSECRET`, `-uUSER:SECRET`, `-HName: SECRET`.
    fn attached(&mut self, part: &str) -> Option<String> {
        if part.starts_with("--") || self.program.flag(part).is_some() {
            return None;
        }
        let (flag, value) = programs::attached(part, &self.program)?;
        match names::flag(flag, &self.program) {
            Named::Pair if !self.is_pair(value) => None,
            Named::Header => {
                let text = self.header(value);
                Some(format!("{flag}{text}"))
            }
            Named::Assignment => {
                let (name, value) = value.split_once('=')?;
                Some(self.assignment(&format!("{flag}{name}"), value))
            }
            Named::Code if self.program.attaches_code() => {
                Some(format!("{flag}{}", self.code(value)))
            }
            Named::Nothing | Named::Name | Named::Code | Named::Words | Named::Script => None,
            Named::Secret | Named::Body | Named::Pair => {
                self.goes_on(value);
                Some(format!("{flag}{MASK}"))
            }
        }
    }

    /// Masks `name=value` or `Name:value`, from which an HTTP client builds a request.
    fn item(&mut self, part: &str) -> Option<String> {
        if !self.program.takes_items() || part.contains("://") {
            return None;
        }
        let at = part.find(['=', ':']).filter(|at| *at > 0)?;
        let (name, value) = (part.get(..=at)?, part.get(at + 1..)?);
        let is_port = value
            .split('/')
            .next()?
            .bytes()
            .all(|byte| byte.is_ascii_digit());
        if is_port && name.ends_with(':') {
            return None;
        }
        self.goes_on(value);
        Some(format!("{name}{MASK}"))
    }

    /// Masks `NAME=VALUE` where a variable is set: before a command, or after `export`.
    fn variable(&mut self, part: &str) -> Option<String> {
        if !self.begins && !self.program.sets_variables() {
            return None;
        }
        let (name, value) = part.split_once('=')?;
        let bare = name.trim_start_matches(['\'', '"', '(', '{']);
        let bare = bare.trim_end_matches('+');
        if value.is_empty() || !names::is_variable(bare) || names::is_plain_variable(bare) {
            return None;
        }
        let command = value.trim_start_matches('"').strip_prefix("$(");
        if let Some(command) = command.filter(|it| !it.is_empty() && !names::is_secret(bare)) {
            self.begins = true;
            self.program_of(command);
            return Some(shapes::masked(part));
        }
        Some(self.assignment(name, value))
    }

    fn assignment(&mut self, name: &str, value: &str) -> String {
        self.goes_on(value);
        format!("{name}={MASK}")
    }

    /// Masks code that begins in this part: only the hosts of its URLs remain.
    fn code(&mut self, part: &str) -> String {
        let quote = part
            .chars()
            .next()
            .filter(|first| matches!(first, '\'' | '"'));
        if self.quoted.is_value {
            self.expects = Expects::Word;
        } else if let Some(quote) = quote
            && (part.len() == 1 || !ends_with_quote(part, quote))
        {
            self.expects = Expects::CodeUntil(quote);
        }
        shapes::hosts(part)
    }

    /// Masks a value that begins in this part.
    fn secret(&mut self, value: &str) -> String {
        self.goes_on(value);
        MASK.to_owned()
    }

    /// Sets whether a secret that begins with `value` continues in the next part.
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

    /// Masks the value of a header field, unless its name is one that never has a secret.
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
            // A file, or the first half of a field that is split at another place.
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

    /// Sets the program of the next parts.
    fn program_of(&mut self, part: &str) {
        if is_operator(part) {
            self.begin();
            return;
        }
        let names_client = !self.quoted.is_value && self.program.runs_another(part);
        let names_program = !is_flag(part) && !part.contains('=') && !programs::is_wrapper(part);
        if names_client || self.begins && names_program {
            self.program = Program::named(part);
            self.places = Places::of(self.program.name());
            self.begins = false;
        }
        if part.ends_with(';') {
            self.begin();
        }
    }

    /// The next part begins a command.
    fn begin(&mut self) {
        self.begins = true;
        self.program = Program::default();
        self.places = Places::default();
    }
}
