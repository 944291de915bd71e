//! Matches one text, without recursion and without memory.

/// One step of a pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Piece {
    /// That byte.
    Byte(u8),
    /// One byte except a slash.
    One,
    /// A run without slashes, possibly empty.
    Within,
    /// Any run.
    Across,
    /// An empty text, or a slash and the run after it: always before [`Piece::Across`].
    Below,
}

impl Piece {
    /// Whether the piece matches texts of any length.
    pub(super) fn is_run(self) -> bool {
        matches!(self, Self::Within | Self::Across)
    }

    pub(super) fn lower_case(self) -> Self {
        match self {
            Self::Byte(byte) => Self::Byte(byte.to_ascii_lowercase()),
            piece => piece,
        }
    }
}

/// Whether the whole text matches; `lower` reads the text in lower case.
///
/// On a mismatch the last [`Piece::Within`] extends by one byte (never a slash), or otherwise the
/// last [`Piece::Across`]. Earlier runs need no second attempt: the pieces after them matched at
/// the first possible position, and a later position leaves less text for the rest.
///
/// A [`Piece::Within`] that reached the end of its segment has tried every position in that
/// segment. So the run across continues at the next segment, instead of one byte further: otherwise
/// a long segment would be searched once for each of its bytes.
pub(super) fn matches(pieces: &[Piece], text: &[u8], lower: bool) -> bool {
    let (mut at, mut next) = (0, 0);
    let mut within: Option<(usize, usize)> = None;
    let mut across: Option<(usize, usize)> = None;
    loop {
        let read = |byte: &u8| {
            if lower {
                byte.to_ascii_lowercase()
            } else {
                *byte
            }
        };
        let byte = text.get(next).map(read);
        match (pieces.get(at), byte) {
            (None, None) => return true,
            (Some(Piece::Across), _) => {
                at += 1;
                (across, within) = (Some((at, next)), None);
                continue;
            }
            (Some(Piece::Within), _) => {
                at += 1;
                within = Some((at, next));
                continue;
            }
            (Some(Piece::Below), None) => {
                at += 2;
                continue;
            }
            (Some(Piece::Below), Some(b'/')) => {
                at += 2;
                (across, within) = (Some((at, next)), None);
                continue;
            }
            (Some(Piece::One), Some(byte)) if byte != b'/' => {
                (at, next) = (at + 1, next + 1);
                continue;
            }
            (Some(Piece::Byte(wanted)), Some(byte)) if *wanted == byte => {
                (at, next) = (at + 1, next + 1);
                continue;
            }
            _ => {}
        }
        if let Some((after, taken)) = within
            && text.get(taken).is_some_and(|byte| *byte != b'/')
        {
            (at, next) = (after, taken + 1);
            within = Some((after, taken + 1));
        } else if let Some((after, taken)) = across
            && taken < text.len()
        {
            let again = match within {
                Some((_, end)) if end >= text.len() => return false,
                Some((at, end)) => (taken + 1).max((end + 1).saturating_sub(at - after)),
                None => taken + 1,
            };
            (at, next) = (after, again);
            (across, within) = (Some((after, again)), None);
        } else {
            return false;
        }
    }
}
