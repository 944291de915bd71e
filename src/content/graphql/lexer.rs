//! The tokens of a GraphQL document (GraphQL specification, section 2.1).

/// A token. Ignored text (white space, commas, comments, byte order marks) makes no token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Token<'a> {
    /// A name or a keyword.
    Name(&'a str),
    /// One of `!$&()[]{}:=@|`.
    Mark(u8),
    /// `...`.
    Spread,
    /// A string.
    Text,
    /// A number.
    Number,
}

/// Reads a document from its beginning.
pub(super) struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// Returns the next token, or `Ok(None)` at the end; `Err` if the text is not GraphQL, or if
    /// readers differ over it.
    pub(super) fn next(&mut self) -> Result<Option<Token<'a>>, ()> {
        loop {
            let ignored = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | ',' | '\u{feff}');
            self.rest = self.rest.trim_start_matches(ignored);
            match self.rest.strip_prefix('#') {
                Some(comment) => self.rest = after_comment(comment)?,
                None => break,
            }
        }
        let Some(first) = self.rest.bytes().next() else {
            return Ok(None);
        };
        match first {
            b'!' | b'$' | b'&' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b':' | b'=' | b'@'
            | b'|' => self.take(1, |_| Token::Mark(first)),
            b'.' if self.rest.starts_with("...") => self.take(3, |_| Token::Spread),
            b'"' => self.text(),
            b'-' | b'0'..=b'9' => {
                let number = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
                self.take(span(self.rest, number), |_| Token::Number)
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                self.take(span(self.rest, name), Token::Name)
            }
            _ => Err(()),
        }
    }

    fn take(
        &mut self,
        length: usize,
        token: impl FnOnce(&'a str) -> Token<'a>,
    ) -> Result<Option<Token<'a>>, ()> {
        let (text, rest) = self.rest.split_at_checked(length).ok_or(())?;
        self.rest = rest;
        Ok(Some(token(text)))
    }

    fn text(&mut self) -> Result<Option<Token<'a>>, ()> {
        let length = match self.rest.strip_prefix("\"\"\"") {
            Some(block) => 3 + block_string(block)?,
            None => 1 + string(self.rest.get(1..).unwrap_or_default())?,
        };
        self.take(length, |_| Token::Text)
    }
}

/// Returns the length of the leading characters of a kind.
fn span(text: &str, of: impl Fn(char) -> bool) -> usize {
    text.find(|c| !of(c)).unwrap_or(text.len())
}

/// Returns the text after a comment. A comment ends with its line; some readers know more line ends
/// than others, so text after such a line end is refused.
fn after_comment(comment: &str) -> Result<&str, ()> {
    let end = span(comment, |c| !matches!(c, '\n' | '\r'));
    let (inside, rest) = comment.split_at_checked(end).ok_or(())?;
    let odd = |c: char| (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}');
    if inside.contains(odd) {
        Err(())
    } else {
        Ok(rest)
    }
}

/// Returns the length of a string with its closing quote.
fn string(text: &str) -> Result<usize, ()> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\n' | b'\r' => return Err(()),
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Ok(at + 1),
            _ => {}
        }
    }
    Err(())
}

/// Returns the length of a block string with its closing quotes. Readers from before block strings
/// see other tokens inside one, so it must not contain the word `mutation`.
fn block_string(text: &str) -> Result<usize, ()> {
    let mut at = 0;
    loop {
        let rest = text.get(at..).ok_or(())?;
        let quotes = rest.find("\"\"\"").ok_or(())?;
        let before = rest.get(..quotes).unwrap_or_default();
        at += quotes + 3;
        if !before.ends_with('\\') {
            break;
        }
    }
    let inside = text.get(..at).unwrap_or_default();
    if inside.contains("mutation") {
        Err(())
    } else {
        Ok(at)
    }
}
