//! The spelling of a path that servers have in common, for rules that deny or ask.
//!
//! Servers differ in what they take for the same path: they ignore letter case, drop `;parameters`
//! and trailing slashes, collapse doubled slashes, and decode percent-encoding, some of them also
//! `%2F` and twice. [`Fold`] removes all of it, a byte at a time, so that a text can be folded and a
//! set of texts can be followed through it.

use super::matching::Piece;

/// Stands for `*` in a folded pattern: no path contains it.
const STAR: u8 = 0x01;

/// Stands for `**` in a folded pattern.
const TWO_STARS: u8 = 0x02;

/// Folds a path, a byte at a time.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Fold {
    /// Whether an encoded slash is a slash.
    decode: bool,
    escape: Escape,
    segment: Segment,
    /// Whether nothing was written.
    empty: bool,
}

/// How much of `%XX` was read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Escape {
    None,
    Percent,
    High(u8),
}

/// How much of a segment was read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Segment {
    Start,
    Dot,
    DotDot,
    Inside,
    Parameters,
}

/// The path climbs: where it leads depends on the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Climbs;

impl Fold {
    pub(super) fn new(decode: bool) -> Self {
        Self {
            decode,
            escape: Escape::None,
            segment: Segment::Start,
            empty: true,
        }
    }

    /// Reads one byte and writes what is certain now.
    pub(super) fn step(&mut self, byte: u8, out: &mut impl FnMut(u8)) -> Result<(), Climbs> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match (self.escape, digit(byte)) {
            (Escape::None, _) if byte == b'%' => {
                self.escape = Escape::Percent;
                Ok(())
            }
            (Escape::None, _) => self.plain(byte, out),
            (Escape::Percent, Some(_)) => {
                self.escape = Escape::High(byte);
                Ok(())
            }
            (Escape::High(high), Some(low)) => {
                self.escape = Escape::None;
                let value = digit(high).unwrap_or(0) * 16 + low;
                self.decoded(u8::try_from(value).unwrap_or(0), out)
            }
            (Escape::Percent | Escape::High(_), None) => {
                self.unfinished(out)?;
                self.step(byte, out)
            }
        }
    }

    /// Ends the path.
    pub(super) fn finish(mut self, out: &mut impl FnMut(u8)) -> Result<(), Climbs> {
        self.unfinished(out)?;
        if self.segment == Segment::DotDot {
            return Err(Climbs);
        }
        if self.empty {
            out(b'/');
        }
        Ok(())
    }

    /// Writes an escape that is none.
    fn unfinished(&mut self, out: &mut impl FnMut(u8)) -> Result<(), Climbs> {
        let escape = std::mem::replace(&mut self.escape, Escape::None);
        if escape != Escape::None {
            self.plain(b'%', out)?;
        }
        match escape {
            Escape::High(high) => self.plain(high, out),
            Escape::None | Escape::Percent => Ok(()),
        }
    }

    fn decoded(&mut self, byte: u8, out: &mut impl FnMut(u8)) -> Result<(), Climbs> {
        match byte {
            b'%' if self.decode => {
                self.escape = Escape::Percent;
                Ok(())
            }
            b'/' | b'\\' if !self.decode => {
                let digits: &[u8] = if byte == b'/' { b"%2f" } else { b"%5c" };
                digits.iter().try_for_each(|byte| self.plain(*byte, out))
            }
            byte => self.plain(byte, out),
        }
    }

    fn plain(&mut self, byte: u8, out: &mut impl FnMut(u8)) -> Result<(), Climbs> {
        let dots: &[u8] = match (self.segment, byte) {
            (Segment::DotDot, b'/' | b'\\' | b';') => return Err(Climbs),
            (_, b'/' | b'\\') => {
                self.segment = Segment::Start;
                return Ok(());
            }
            (Segment::Parameters, _) => return Ok(()),
            (_, b';') => {
                self.segment = Segment::Parameters;
                return Ok(());
            }
            (Segment::Start, b'.') => {
                self.segment = Segment::Dot;
                return Ok(());
            }
            (Segment::Dot, b'.') => {
                self.segment = Segment::DotDot;
                return Ok(());
            }
            (Segment::Start, _) => b"/",
            (Segment::Dot, _) => b"/.",
            (Segment::DotDot, _) => b"/..",
            (Segment::Inside, _) => b"",
        };
        dots.iter().for_each(|byte| out(*byte));
        out(byte.to_ascii_lowercase());
        (self.segment, self.empty) = (Segment::Inside, false);
        Ok(())
    }
}

/// The folded path; `None` where it climbs.
pub(super) fn fold(text: &[u8], decode: bool) -> Option<Vec<u8>> {
    let mut folded = Vec::with_capacity(text.len());
    let mut fold = Fold::new(decode);
    let mut out = |byte| folded.push(byte);
    for byte in text {
        fold.step(*byte, &mut out).ok()?;
    }
    fold.finish(&mut out).ok()?;
    Some(folded)
}

/// The pieces of a path pattern, folded like the paths that it is compared with.
pub(super) fn pieces(pieces: &[Piece], decode: bool) -> Box<[Piece]> {
    let mut text = Vec::with_capacity(pieces.len());
    for piece in pieces {
        match piece {
            Piece::Byte(byte) => text.push(*byte),
            Piece::One => {}
            Piece::Within => text.push(STAR),
            Piece::Below => text.extend([b'/', TWO_STARS]),
            Piece::Across => {}
        }
    }
    let folded = fold(&text, decode).unwrap_or(text);
    let mut pieces = Vec::with_capacity(folded.len());
    for (place, byte) in folded.iter().enumerate() {
        let slash =
            |at: Option<usize>| at.is_none_or(|at| folded.get(at).is_none_or(|byte| *byte == b'/'));
        match *byte {
            TWO_STARS => {
                pieces.pop();
                pieces.extend([Piece::Below, Piece::Across]);
            }
            STAR if slash(place.checked_sub(1)) && slash(Some(place + 1)) => {
                pieces.extend([Piece::One, Piece::Within]);
            }
            STAR => pieces.push(Piece::Within),
            byte => pieces.push(Piece::Byte(byte)),
        }
    }
    pieces.into()
}
