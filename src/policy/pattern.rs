//! Patterns with `*`, for paths, names and hosts: the only patterns of the crate.
//!
//! | kind | `*` | `**` | letter case |
//! |---|---|---|---|
//! | [`Kind::Path`] | a segment, or a run within one | segments, also none | kept |
//! | [`Kind::Name`] | a run without `/` | any run | kept |
//! | [`Kind::Repository`] | a run without `/` | any run | ignored |
//! | [`Kind::Word`] | any run, no blanks | the same | kept |
//! | [`Kind::Text`] | any run | the same | kept |
//!
//! A [`HostPattern`] is a name, the names below a name, or a network.
//!
//! Matching takes at most (length of pattern) × (length of text) steps. Comparisons of whole
//! patterns ([`Pattern::covers`], [`Pattern::intersects`], [`witness`], [`atoms`]) are exact: they
//! follow all patterns through one text at a time (`product.rs`).

mod fold;
mod host;
mod matching;
mod ports;
mod product;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::name::{self, PathError};

pub(super) use host::{BadPattern, HostPattern, Width, is_public, parse_network};
pub(super) use ports::PortSet;
pub use product::TooComplex;
pub(super) use product::{atoms, witness};

use fold::Server;
use matching::Piece;

/// Maximum number of `*` and `**` in one pattern: more would make comparisons expensive.
const MAX_WILDCARDS: usize = 10;

/// Maximum length of a pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1024;

/// A pattern over texts of one kind.
#[derive(Clone, Debug)]
pub struct Pattern {
    kind: Kind,
    /// The pattern as written.
    text: Box<str>,
    /// The pattern matches if one of these machines does.
    machines: Box<[Machine]>,
}

/// The kind of text that a pattern matches; decides the meaning of `*`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// The path of a request, without its query.
    Path,
    /// A name with segments, e.g. a package or a ref.
    Name,
    /// A repository. Forges ignore the letter case of repositories (ASCII).
    Repository,
    /// A name without segments, e.g. a tool or an operation.
    Word,
    /// Any text, e.g. a subject or the value of a claim.
    Text,
}

/// The reason why a text is no pattern. `Display` is a label: no capital letter, no full stop.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// The text is empty.
    #[error("an empty pattern")]
    Empty,
    /// A blank or control character in a name.
    #[error("a blank or control character")]
    Character,
    /// More than `MAX_PATTERN_BYTES`.
    #[error("longer than {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// More than `MAX_WILDCARDS`.
    #[error("more than {MAX_WILDCARDS} wildcards")]
    Wildcards,
    /// A path without a slash in front.
    #[error("a path begins with `/`")]
    NotAbsolute,
    /// `?` in a path.
    #[error("a query is never matched")]
    Query,
    /// `**` beside other characters of its segment.
    #[error("`**` stands alone, between slashes")]
    PartOfSegment,
    /// A path that no request can have.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The conversion of a text before it is compared.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Reading {
    /// No conversion.
    Exact,
    /// To lower case.
    AnyCase,
    /// The reading of a path by a kind of server.
    Path(Server),
}

/// A path as each kind of server reads it. Equal to [`name::Path::readings`] except for the case of
/// letters outside of ASCII.
#[derive(Clone, Debug)]
pub(super) struct Readings(Vec<Vec<u8>>);

/// One alternative of a pattern.
#[derive(Clone, Debug)]
struct Machine {
    reading: Reading,
    pieces: Box<[Piece]>,
}

impl Pattern {
    /// Parses a pattern.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::TooLong);
        }
        let pieces = match kind {
            Kind::Path => path_pieces(&canonical_path(text)?)?,
            Kind::Name => name_pieces(graphic(text)?),
            Kind::Repository => name_pieces(&graphic(text)?.to_ascii_lowercase()),
            Kind::Word => word_pieces(graphic(text)?),
            Kind::Text => word_pieces(text),
        };
        let wildcards = pieces.iter().filter(|piece| piece.is_run()).count();
        if wildcards > MAX_WILDCARDS {
            return Err(PatternError::Wildcards);
        }
        let reading = match kind {
            Kind::Repository => Reading::AnyCase,
            _ => Reading::Exact,
        };
        let pieces = pieces.into();
        Ok(Self {
            kind,
            text: text.into(),
            machines: [Machine { reading, pieces }].into(),
        })
    }

    /// Returns the pattern of a rule that denies or asks: it also matches each spelling that some
    /// server treats like a matching one.
    ///
    /// For names and words: any letter case (ASCII). For paths each of [`name::Path::readings`].
    /// Subjects and other texts stay as they are: an issuer writes them one way.
    #[must_use]
    pub fn widened(&self) -> Self {
        let machines = match self.kind {
            Kind::Path if self.is_widened() => return self.clone(),
            Kind::Path => Server::ALL
                .map(|server| self.read(Reading::Path(server)))
                .into(),
            Kind::Name | Kind::Repository | Kind::Word => [self.read(Reading::AnyCase)].into(),
            Kind::Text => return self.clone(),
        };
        Self {
            machines,
            ..self.clone()
        }
    }

    /// The parts of the [widened](Self::widened) pattern of a path, one for each kind of server.
    pub(super) fn readings(&self) -> [Self; Readings::COUNT] {
        Server::ALL.map(|server| Self {
            machines: [self.read(Reading::Path(server))].into(),
            ..self.clone()
        })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole text matches. The text of a path is canonical and has no query.
    pub fn matches(&self, text: &str) -> bool {
        self.machines.iter().any(|machine| machine.matches(text))
    }

    /// Whether this pattern matches each text that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        if let Some(only) = other.only_text() {
            return self.matches(only);
        }
        matches!(witness(&[other], &[self]), Ok(None))
    }

    /// Whether some text matches both patterns. `true` if the search takes too long.
    pub fn intersects(&self, other: &Self) -> bool {
        if let Some(only) = other.only_text() {
            return self.matches(only);
        }
        !matches!(witness(&[self, other], &[]), Ok(None))
    }

    /// Returns a shortest text that matches.
    #[cfg_attr(not(test), expect(dead_code, reason = "for differences of policies"))]
    pub(super) fn witness(&self) -> Option<String> {
        witness(&[self], &[]).ok().flatten()
    }

    /// Whether no text matches.
    #[cfg_attr(not(test), expect(dead_code, reason = "for differences of policies"))]
    pub(super) fn is_empty(&self) -> bool {
        matches!(witness(&[self], &[]), Ok(None))
    }

    /// Returns the text, if the pattern matches only one text.
    pub(super) fn only_text(&self) -> Option<&str> {
        match &*self.machines {
            [machine] if machine.reading == Reading::Exact && !self.text.contains(['*', '%']) => {
                Some(&self.text)
            }
            _ => None,
        }
    }

    fn is_widened(&self) -> bool {
        let mut readings = self.machines.iter().map(|machine| machine.reading);
        readings.any(|reading| reading != Reading::Exact)
    }

    fn read(&self, reading: Reading) -> Machine {
        let pieces = self.machines.first().map(|machine| &*machine.pieces);
        let pieces = pieces.unwrap_or_default();
        let pieces = match reading {
            Reading::Exact => pieces.into(),
            Reading::AnyCase => pieces.iter().map(|piece| piece.lower_case()).collect(),
            Reading::Path(server) => fold::pieces(pieces, server),
        };
        Machine { reading, pieces }
    }
}

impl Readings {
    /// Number of kinds of servers.
    pub(super) const COUNT: usize = Server::ALL.len();

    /// Returns the readings of a canonical path without its query.
    pub(super) fn of(path: &str) -> Self {
        // Only escapes and parameters have several readings.
        let servers = if path.contains(['%', ';']) {
            &Server::ALL[..]
        } else {
            &Server::ALL[..1]
        };
        let fold = |server: &Server| fold::fold(path.as_bytes(), *server);
        Self(servers.iter().map(fold).collect())
    }

    /// Whether a part of a pattern ([`Pattern::readings`]) matches as that kind of server reads.
    pub(super) fn is_matched(&self, pattern: &Pattern, server: usize) -> bool {
        let text = self.0.get(server).or(self.0.first());
        let machine = pattern.machines.first();
        let both = machine.zip(text);
        both.is_some_and(|(machine, text)| matching::matches(&machine.pieces, text, false))
    }
}

impl Machine {
    fn matches(&self, text: &str) -> bool {
        let text = text.as_bytes();
        match self.reading {
            Reading::Exact => matching::matches(&self.pieces, text, false),
            Reading::AnyCase => matching::matches(&self.pieces, text, true),
            Reading::Path(server) => {
                matching::matches(&self.pieces, &fold::fold(text, server), false)
            }
        }
    }
}

/// The pattern as written.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Patterns with the same text and the same readings are equal.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        let alike = |(left, right): (&Machine, &Machine)| left.reading == right.reading;
        self.kind == other.kind
            && self.text == other.text
            && self.machines.len() == other.machines.len()
            && self.machines.iter().zip(&other.machines).all(alike)
    }
}

impl Eq for Pattern {}

fn graphic(text: &str) -> Result<&str, PatternError> {
    let sound = |byte: u8| byte.is_ascii_graphic() || byte >= 0x80;
    if text.bytes().all(sound) {
        return Ok(text);
    }
    Err(PatternError::Character)
}

/// Converts a path to the canonical spelling of requests.
fn canonical_path(text: &str) -> Result<String, PatternError> {
    if !text.starts_with('/') {
        return Err(PatternError::NotAbsolute);
    }
    if text.contains('?') {
        return Err(PatternError::Query);
    }
    Ok(name::Path::parse(text.as_bytes())?.path().to_owned())
}

fn path_pieces(text: &str) -> Result<Vec<Piece>, PatternError> {
    let mut pieces = Vec::with_capacity(text.len());
    for segment in text.split('/').skip(1) {
        match segment {
            "**" if pieces.ends_with(&[Piece::Below, Piece::Across]) => {}
            "**" => pieces.extend([Piece::Below, Piece::Across]),
            "*" => pieces.extend([Piece::Byte(b'/'), Piece::One, Piece::Within]),
            _ if segment.contains("**") => return Err(PatternError::PartOfSegment),
            _ => {
                pieces.push(Piece::Byte(b'/'));
                pieces.extend(segment.bytes().map(|byte| match byte {
                    b'*' => Piece::Within,
                    byte => Piece::Byte(byte),
                }));
            }
        }
    }
    Ok(pieces)
}

fn name_pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (piece, after) = match (first, after) {
            (b'*', [b'*', after @ ..]) => (Piece::Across, after),
            (b'*', _) => (Piece::Within, after),
            (byte, _) => (Piece::Byte(*byte), after),
        };
        push_run(&mut pieces, piece);
        rest = after;
    }
    pieces
}

fn word_pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        let piece = match byte {
            b'*' => Piece::Across,
            byte => Piece::Byte(byte),
        };
        push_run(&mut pieces, piece);
    }
    pieces
}

/// Adds a piece; of consecutive runs, only the widest is kept.
fn push_run(pieces: &mut Vec<Piece>, piece: Piece) {
    match (pieces.last_mut(), piece) {
        (Some(Piece::Across), Piece::Across | Piece::Within) => {}
        (Some(last @ Piece::Within), Piece::Across | Piece::Within) => {
            if piece == Piece::Across {
                *last = piece;
            }
        }
        _ => pieces.push(piece),
    }
}
