//! Compares whole patterns, by following several of them through one text.
//!
//! A state holds the positions in each pattern after some text. The search goes from the empty text
//! through all states, one symbol at a time, shortest text first. One symbol represents all symbols
//! that no pattern distinguishes, so the search is finite and its results are exact.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::fold::Fold;
use super::matching::Piece;
use super::{Kind, Machine, Pattern, Reading, canonical_path};
use crate::name;

/// Maximum number of steps of one search. In a step, one machine reads one symbol.
const MAX_STEPS: usize = 1 << 21;

/// A search took more than `MAX_STEPS` and has no result.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("these patterns are too many to compare, or have too many wildcards")]
pub struct TooComplex;

/// A class of texts that match the same patterns of a set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::policy) struct Atom {
    /// For each pattern, whether it matches.
    pub(in crate::policy) matched: Box<[bool]>,
    /// A shortest text of the class.
    pub(in crate::policy) witness: String,
}

/// Returns a text that each pattern of `inside` and no pattern of `outside` matches, if there is
/// one. All patterns are of one kind, and there is at least one.
pub(in crate::policy) fn witness(
    inside: &[&Pattern],
    outside: &[&Pattern],
) -> Result<Option<String>, TooComplex> {
    let patterns: Vec<&Pattern> = inside.iter().chain(outside).copied().collect();
    let mut found = None;
    let wanted = |pattern: usize| pattern < inside.len();
    explore(
        &patterns,
        |state| (0..inside.len()).all(|pattern| state.is_alive(pattern)),
        |matched, text| {
            let fits = |(pattern, matched): (usize, &bool)| *matched == wanted(pattern);
            if !matched.iter().enumerate().all(fits) {
                return ControlFlow::Continue(());
            }
            found = Some(text());
            ControlFlow::Break(())
        },
    )?;
    Ok(found)
}

/// Partitions all texts by the patterns that match: each text is in exactly one atom. All patterns
/// are of one kind.
pub(in crate::policy) fn atoms(patterns: &[&Pattern]) -> Result<Vec<Atom>, TooComplex> {
    let mut atoms: BTreeMap<Box<[bool]>, (usize, String)> = BTreeMap::new();
    explore(
        patterns,
        |_| true,
        |matched, text| {
            let order = atoms.len();
            if !atoms.contains_key(matched) {
                atoms.insert(matched.into(), (order, text()));
            }
            ControlFlow::Continue(())
        },
    )?;
    let mut found: Vec<_> = atoms.into_iter().collect();
    found.sort_by_key(|(_, (order, _))| *order);
    let atom = |(matched, (_, witness))| Atom { matched, witness };
    Ok(found.into_iter().map(atom).collect())
}

/// The positions in all patterns, without machines that can no longer match.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct State {
    domain: Domain,
    tracks: Vec<Track>,
}

/// The positions in one machine of one pattern.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Track {
    pattern: usize,
    machine: usize,
    fold: Option<Fold>,
    /// The indexes of pieces, ascending; `None`: every text matches from here.
    places: Option<Vec<usize>>,
}

impl State {
    fn start(patterns: &[&Pattern], kind: Kind) -> Self {
        let mut tracks = Vec::new();
        for (pattern, of) in patterns.iter().enumerate() {
            for (machine, how) in of.machines.iter().enumerate() {
                let track = Track {
                    pattern,
                    machine,
                    fold: how.fold(),
                    places: Some(vec![0]),
                };
                tracks.extend(track.settled(&how.pieces));
            }
        }
        let domain = Domain::start(kind);
        Self { domain, tracks }
    }

    fn is_alive(&self, pattern: usize) -> bool {
        self.tracks.iter().any(|track| track.pattern == pattern)
    }

    fn step(&self, patterns: &[&Pattern], symbol: &str) -> Option<Self> {
        let domain = self.domain.step(symbol)?;
        let step = |track: &Track| track.step(track.machine_of(patterns)?, symbol.as_bytes());
        let tracks = self.tracks.iter().filter_map(step).collect();
        Some(Self { domain, tracks })
    }

    fn matched(&self, patterns: &[&Pattern]) -> Box<[bool]> {
        let mut matched = vec![false; patterns.len()];
        for track in &self.tracks {
            let accepts = track
                .machine_of(patterns)
                .is_some_and(|machine| track.accepts(machine));
            if let Some(matched) = matched.get_mut(track.pattern) {
                *matched |= accepts;
            }
        }
        matched.into()
    }
}

impl Track {
    fn machine_of<'p>(&self, patterns: &[&'p Pattern]) -> Option<&'p Machine> {
        patterns.get(self.pattern)?.machines.get(self.machine)
    }

    /// Reads a symbol. Returns `None` if the machine can no longer match.
    fn step(&self, machine: &Machine, symbol: &[u8]) -> Option<Self> {
        let mut next = self.clone();
        let Some(places) = &mut next.places else {
            return Some(next);
        };
        let mut advance = |byte| *places = advanced(&machine.pieces, places, byte);
        for byte in symbol {
            match &mut next.fold {
                None => advance(machine.read(*byte)),
                Some(fold) => fold.step(*byte, &mut advance),
            }
        }
        next.settled(&machine.pieces)
    }

    fn accepts(&self, machine: &Machine) -> bool {
        let Some(mut places) = self.places.clone() else {
            return true;
        };
        if let Some(fold) = self.fold {
            let mut advance = |byte| places = advanced(&machine.pieces, &places, byte);
            fold.finish(&mut advance);
        }
        with_skipped(&machine.pieces, places).contains(&machine.pieces.len())
    }

    /// Adds the places that are reached without a byte, and removes redundant places.
    fn settled(mut self, pieces: &[Piece]) -> Option<Self> {
        if let Some(places) = self.places.take() {
            let places = with_skipped(pieces, places);
            let last = pieces.len().checked_sub(1);
            let at_end = |place: &usize| {
                Some(*place) == last && matches!(pieces.get(*place), Some(Piece::Across))
            };
            if places.is_empty() {
                return None;
            }
            self.places = (!places.iter().any(at_end)).then_some(places);
        }
        if self.places.is_none() {
            self.fold = None;
        }
        Some(self)
    }
}

impl Machine {
    fn fold(&self) -> Option<Fold> {
        match self.reading {
            Reading::Exact | Reading::AnyCase => None,
            Reading::Path(server) => Some(Fold::new(server)),
        }
    }

    fn read(&self, byte: u8) -> u8 {
        match self.reading {
            Reading::AnyCase => byte.to_ascii_lowercase(),
            Reading::Exact | Reading::Path(_) => byte,
        }
    }
}

/// Returns the places after one byte.
fn advanced(pieces: &[Piece], places: &[usize], byte: u8) -> Vec<usize> {
    let after = |place: &usize| match pieces.get(*place)? {
        Piece::Byte(wanted) => (*wanted == byte).then_some(place + 1),
        Piece::One => (byte != b'/').then_some(place + 1),
        Piece::Within => (byte != b'/').then_some(*place),
        Piece::Across => Some(*place),
        Piece::Below => (byte == b'/').then_some(place + 1),
    };
    with_skipped(pieces, places.iter().filter_map(after).collect())
}

/// Adds the places behind pieces that may match nothing.
///
/// Places before an [`Piece::Across`] that was reached are dropped: each way from them leads there.
fn with_skipped(pieces: &[Piece], mut places: Vec<usize>) -> Vec<usize> {
    let mut at = 0;
    while let Some(place) = places.get(at) {
        let skip = match pieces.get(*place) {
            Some(Piece::Within | Piece::Across) => Some(place + 1),
            Some(Piece::Below) => Some(place + 2),
            _ => None,
        };
        places.extend(skip.filter(|skip| !places.contains(skip)));
        at += 1;
    }
    places.sort_unstable();
    places.dedup();
    let across = |place: &&usize| matches!(pieces.get(**place), Some(Piece::Across));
    if let Some(last) = places.iter().rev().find(across).copied() {
        places.retain(|place| *place >= last);
    }
    places
}

/// The position in the grammar of the texts of a kind.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Domain {
    /// Any text but the empty one.
    Empty,
    NotEmpty,
    /// Canonical paths.
    BeforePath,
    AfterSlash,
    Dot,
    DotDot,
    Segment,
}

impl Domain {
    fn start(kind: Kind) -> Self {
        match kind {
            Kind::Path => Self::BeforePath,
            Kind::Name | Kind::Repository | Kind::Word | Kind::Text => Self::Empty,
        }
    }

    /// Reads a symbol. Returns `None` if no text continues with it.
    fn step(self, symbol: &str) -> Option<Self> {
        let dots = matches!(self, Self::Dot | Self::DotDot);
        let first = symbol.as_bytes().first();
        match (self, first?) {
            (Self::Empty | Self::NotEmpty, _) => Some(Self::NotEmpty),
            (_, b'/' | b';' | b'%') if dots => None,
            (_, b'/') => Some(Self::AfterSlash),
            (Self::BeforePath, _) => None,
            (_, b'%') if symbol.eq_ignore_ascii_case("%2F") => Some(Self::AfterSlash),
            (Self::AfterSlash, b'.') => Some(Self::Dot),
            (Self::Dot, b'.') => Some(Self::DotDot),
            _ => Some(Self::Segment),
        }
    }

    fn may_end(self) -> bool {
        matches!(self, Self::NotEmpty | Self::AfterSlash | Self::Segment)
    }
}

/// The bytes that some machine expects next: all symbols without them have the same effect.
#[derive(Debug)]
struct Wanted {
    bytes: [bool; 256],
    /// Some machine expects a literal escape.
    escapes: bool,
}

impl Wanted {
    fn of(state: &State, patterns: &[&Pattern]) -> Self {
        let mut wanted = Self {
            bytes: [false; 256],
            escapes: false,
        };
        for track in &state.tracks {
            let (Some(machine), Some(places)) = (track.machine_of(patterns), &track.places) else {
                continue;
            };
            wanted.add(&machine.pieces, places);
            // A fold writes a slash before the first letter of a segment.
            if track.fold.is_some() {
                let after = advanced(&machine.pieces, places, b'/');
                wanted.add(&machine.pieces, &after);
            }
        }
        wanted
    }

    fn add(&mut self, pieces: &[Piece], places: &[usize]) {
        for piece in places.iter().filter_map(|place| pieces.get(*place)) {
            if let Piece::Byte(byte) = piece {
                self.escapes |= *byte == b'%';
                if let Some(wanted) = self.bytes.get_mut(usize::from(byte.to_ascii_lowercase())) {
                    *wanted = true;
                }
            }
        }
    }

    /// Returns the symbols with different effects, in their order: the first of each class.
    fn among<'s>(&self, symbols: &'s [String]) -> impl Iterator<Item = &'s str> {
        let has = |byte: u8| self.bytes.get(usize::from(byte)).copied() == Some(true);
        let (mut plain, mut escaped) = (false, false);
        let mut is_first = move |symbol: &&str| match shape(symbol) {
            Shape::Plain(byte) => has(byte) || !std::mem::replace(&mut plain, true),
            Shape::Escaped(byte) => {
                self.escapes || has(byte) || !std::mem::replace(&mut escaped, true)
            }
            Shape::Special => true,
        };
        let mut told_apart: Vec<&'s str> = symbols.iter().map(String::as_str).collect();
        told_apart.retain(|symbol| is_first(symbol));
        told_apart.into_iter()
    }
}

/// The effect of a symbol on machines.
enum Shape {
    /// Like that byte, or its upper case.
    Plain(u8),
    /// Like the escape of that byte, or of its upper case.
    Escaped(u8),
    /// Unlike any other symbol.
    Special,
}

fn shape(symbol: &str) -> Shape {
    match symbol.as_bytes() {
        [b'/' | b'.' | b';' | b'%'] => Shape::Special,
        [byte] => Shape::Plain(byte.to_ascii_lowercase()),
        [b'%', digits @ ..] => {
            let value = str::from_utf8(digits).ok().filter(|it| it.len() == 2);
            let value = value.and_then(|it| u8::from_str_radix(it, 16).ok());
            match value {
                Some(b'/' | b'.' | b';' | b'%') | None => Shape::Special,
                Some(byte) => Shape::Escaped(byte.to_ascii_lowercase()),
            }
        }
        _ => Shape::Special,
    }
}

/// Visits each state that some text reaches and `keep` accepts, with a shortest text.
fn explore(
    patterns: &[&Pattern],
    keep: impl Fn(&State) -> bool,
    mut visit: impl FnMut(&[bool], &dyn Fn() -> String) -> ControlFlow<()>,
) -> Result<(), TooComplex> {
    let kind = patterns.first().map_or(Kind::Text, |pattern| pattern.kind);
    let symbols = symbols(patterns, kind);
    let start = State::start(patterns, kind);
    let mut seen: HashSet<State, FixedState> = HashSet::default();
    seen.insert(start.clone());
    // For each state, its predecessor and the symbol between.
    let mut steps: Vec<(usize, &str)> = vec![(0, "")];
    let mut queue = VecDeque::from([(start, 0)]);
    let mut work = 0;
    while let Some((state, number)) = queue.pop_front() {
        if state.domain.may_end() {
            let text = || text_of(&steps, number);
            if visit(&state.matched(patterns), &text).is_break() {
                return Ok(());
            }
        }
        let wanted = Wanted::of(&state, patterns);
        for symbol in wanted.among(&symbols) {
            work += state.tracks.len() + 1;
            if work > MAX_STEPS {
                return Err(TooComplex);
            }
            let Some(next) = state.step(patterns, symbol).filter(&keep) else {
                continue;
            };
            if !seen.insert(next.clone()) {
                continue;
            }
            queue.push_back((next, steps.len()));
            steps.push((number, symbol));
        }
    }
    Ok(())
}

fn text_of(steps: &[(usize, &str)], mut number: usize) -> String {
    let mut symbols = Vec::new();
    while let Some((before, symbol)) = steps.get(number).filter(|_| number > 0) {
        symbols.push(*symbol);
        number = *before;
    }
    symbols.into_iter().rev().collect()
}

/// Returns one symbol for each class that the patterns distinguish; plain letters first.
fn symbols(patterns: &[&Pattern], kind: Kind) -> Vec<String> {
    let mut named: Vec<String> = Vec::new();
    for pattern in patterns {
        match kind {
            Kind::Path => path_symbols(&pattern.text, &mut named),
            _ => named.extend(pattern.text.chars().map(String::from)),
        }
    }
    let mut readings = patterns.iter().flat_map(|pattern| &pattern.machines);
    if readings.any(|machine| machine.reading != Reading::Exact) {
        let cases = |text: &String| [text.to_ascii_lowercase(), text.to_ascii_uppercase()];
        let single: Vec<String> = named
            .iter()
            .filter(|text| text.len() == 1)
            .cloned()
            .collect();
        named.extend(single.iter().flat_map(cases));
        if kind == Kind::Path {
            named.extend([";", "%2F"].map(String::from));
            named.extend(single.iter().map(|text| escaped(text)));
        }
    }
    named.push("/".into());
    let used = |text: &str| named.iter().any(|name| name.eq_ignore_ascii_case(text));
    let plain = "xyzwvutsrqponmlkjihgfedcba0123456789-_~!$'()+,=@";
    let other = plain.chars().map(String::from).find(|text| !used(text));
    let mut symbols: Vec<String> = other.into_iter().collect();
    named.sort_by_key(|text| (text.len(), text.to_ascii_lowercase() != *text, text.clone()));
    named.dedup();
    symbols.extend(
        named
            .into_iter()
            .filter(|text| kind != Kind::Path || is_canonical(text)),
    );
    symbols
}

/// Adds the characters and whole escapes of a text.
fn path_symbols(text: &str, into: &mut Vec<String>) {
    let text = canonical_path(text).unwrap_or_default();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let mut len = first.len_utf8();
        if first == '%' {
            len = 3;
            // The escapes of one character form one symbol.
            while !is_canonical(rest.get(..len).unwrap_or_default()) && len < 12 {
                len += 3;
            }
        }
        let (symbol, after) = rest.split_at_checked(len).unwrap_or((rest, ""));
        into.push(symbol.to_owned());
        rest = after;
    }
}

fn escaped(text: &str) -> String {
    let escapes: Vec<String> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    escapes.concat()
}

/// Whether a symbol can occur in a canonical path.
fn is_canonical(symbol: &str) -> bool {
    let text = format!("/x{symbol}");
    name::Path::parse(text.as_bytes()).is_ok_and(|path| path.path() == text)
}
