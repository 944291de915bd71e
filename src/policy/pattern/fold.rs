//! Folds a path into the text as which a server may read it, for rules that deny or ask.
//!
//! Servers treat different spellings as the same path: they ignore letter case, decode escapes,
//! merge slashes and drop the last one, and some cut `;parameters` or read an escaped slash as a
//! slash. [`Fold`] does the same byte by byte, so that it can fold a text, and follow a set of
//! texts. It agrees with [`crate::name::Path::readings`] except for letters outside ASCII, whose
//! case stays. A path has no dot segments and no escaped escapes.

use super::matching::Piece;

/// Stands for `*` in a folded pattern: no path contains it.
const STAR: u8 = 0x01;

/// Stands for `**` in a folded pattern.
const TWO_STARS: u8 = 0x02;

/// How a server reads a path, besides the readings that all servers share.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Server {
    /// Whether an escaped slash counts as a slash.
    pub(super) divides: bool,
    /// Whether a segment ends at `;`.
    pub(super) cuts: bool,
}

impl Server {
    /// Every kind; the one with the fewest distinctions first.
    pub(super) const ALL: [Self; 4] = [
        Self::new(true, true),
        Self::new(true, false),
        Self::new(false, true),
        Self::new(false, false),
    ];

    const fn new(divides: bool, cuts: bool) -> Self {
        Self { divides, cuts }
    }
}

/// Folds a path, byte by byte.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Fold {
    server: Server,
    escape: Escape,
    segment: Segment,
    /// Whether nothing was written.
    empty: bool,
}

/// The part of `%XX` that was read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Escape {
    None,
    Percent,
    High(u8),
}

/// The part of a segment that was read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Segment {
    Start,
    Inside,
    /// After a `;`, if the server cuts there.
    Parameters,
}

impl Fold {
    pub(super) fn new(server: Server) -> Self {
        Self {
            server,
            escape: Escape::None,
            segment: Segment::Start,
            empty: true,
        }
    }

    /// Reads one byte and writes the bytes that are certain now.
    pub(super) fn step(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match (self.escape, digit(byte)) {
            (Escape::None, _) if byte == b'%' => self.escape = Escape::Percent,
            (Escape::None, _) => self.plain(byte, out),
            (Escape::Percent, Some(_)) => self.escape = Escape::High(byte),
            (Escape::High(high), Some(low)) => {
                self.escape = Escape::None;
                let value = digit(high).unwrap_or(0) * 16 + low;
                self.decoded(u8::try_from(value).unwrap_or(0), out);
            }
            (Escape::Percent | Escape::High(_), None) => {
                self.unfinished(out);
                self.step(byte, out);
            }
        }
    }

    /// Ends the path.
    pub(super) fn finish(mut self, out: &mut impl FnMut(u8)) {
        self.unfinished(out);
        if self.empty {
            out(b'/');
        }
    }

    /// Writes the beginning of an escape that turns out to be none.
    fn unfinished(&mut self, out: &mut impl FnMut(u8)) {
        let escape = std::mem::replace(&mut self.escape, Escape::None);
        if escape != Escape::None {
            self.plain(b'%', out);
        }
        if let Escape::High(high) = escape {
            self.plain(high, out);
        }
    }

    fn decoded(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        if byte == b'/' && !self.server.divides {
            b"%2f".iter().for_each(|byte| self.plain(*byte, out));
        } else {
            self.plain(byte, out);
        }
    }

    fn plain(&mut self, byte: u8, out: &mut impl FnMut(u8)) {
        match (self.segment, byte) {
            (_, b'/') => self.segment = Segment::Start,
            (Segment::Parameters, _) => {}
            (_, b';') if self.server.cuts => self.segment = Segment::Parameters,
            (segment, _) => {
                if segment == Segment::Start {
                    out(b'/');
                }
                out(byte.to_ascii_lowercase());
                (self.segment, self.empty) = (Segment::Inside, false);
            }
        }
    }
}

/// Returns the folded path.
pub(super) fn fold(text: &[u8], server: Server) -> Vec<u8> {
    let mut folded = Vec::with_capacity(text.len());
    let mut fold = Fold::new(server);
    let mut out = |byte| folded.push(byte);
    for byte in text {
        fold.step(*byte, &mut out);
    }
    fold.finish(&mut out);
    folded
}

/// Returns the pieces of a path pattern, folded like the paths that it is compared with.
pub(super) fn pieces(pieces: &[Piece], server: Server) -> Box<[Piece]> {
    let mut text = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match piece {
            Piece::Byte(byte) => text.push(*byte),
            Piece::Within => text.push(STAR),
            Piece::Below => text.extend([b'/', TWO_STARS]),
            Piece::One | Piece::Across => {}
        }
    }
    let folded = fold(&text, server);
    let is_slash = |at: Option<usize>| {
        let byte = at.and_then(|at| folded.get(at));
        byte.is_none_or(|byte| *byte == b'/')
    };
    let mut pieces = Vec::with_capacity(folded.len());
    for (place, byte) in folded.iter().enumerate() {
        match *byte {
            TWO_STARS => {
                pieces.pop();
                pieces.extend([Piece::Below, Piece::Across]);
            }
            STAR if is_slash(place.checked_sub(1)) && is_slash(Some(place + 1)) => {
                pieces.extend([Piece::One, Piece::Within]);
            }
            STAR => pieces.push(Piece::Within),
            byte => pieces.push(Piece::Byte(byte)),
        }
    }
    pieces.into()
}
