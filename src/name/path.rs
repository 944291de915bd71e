//! Paths of plain or inspected requests.

/// The path and query of a request: the one string that is matched and forwarded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Path {
    text: Box<str>,
    path_len: usize,
}

impl Path {
    /// Parses `/path[?query]` strictly: no dot segments (plain or encoded), no `//`, no backslash,
    /// no encoded slash, NUL, control or unreserved characters, no fragment, ASCII only.
    pub fn parse(_text: &[u8]) -> Result<Self, PathError> {
        todo!()
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.text.get(..self.path_len).unwrap_or_default()
    }

    /// The query, without its `?`. Read to classify an action; never written to any record.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_len + 1..)
    }

    /// Path and query as they go on the wire.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Why a path could not be parsed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {}
