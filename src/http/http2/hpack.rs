//! HPACK decoder that only looks for `#` in `:path` (RFC 7541).
//!
//! The library decodes each header block for the request. This decoder reads the same octets and
//! stores only two facts of each field: its size, and whether it is a `:path` with `#`. So no field
//! is copied, and a block needs no memory, however long it is and however many frames it has.

use std::collections::VecDeque;

use super::huffman::Huffman;

const PATH: &[u8] = b":path";
/// Bytes of the dynamic table: the default of `SETTINGS_HEADER_TABLE_SIZE`, which the gate does not
/// change.
const MAX_TABLE_SIZE: usize = 4096;
/// Size of a table entry in addition to its name and value (RFC 7541 section 4.1).
const ENTRY_SIZE: usize = 32;
/// An integer has at most four octets after the first, as in the library.
const MAX_INTEGER_SHIFT: u32 = 28;

/// The length of each name of the static table (RFC 7541 appendix A).
#[rustfmt::skip]
const STATIC_NAMES: [usize; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27,
    3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17,
    13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];
/// Indexes of `:path` in the static table; neither value contains `#`.
const STATIC_PATHS: [usize; 2] = [4, 5];

/// A block that is not HPACK, or that the library refuses as well.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Decodes the header blocks of one peer, one after the other.
pub(super) struct Decoder {
    table: Table,
    step: Step,
    /// Whether the block has a field already: a new table size must come before all fields.
    has_fields: bool,
    /// Whether the `:path` of this block contains `#`.
    has_fragment: bool,
}

/// The stored facts of a field, complete or not.
#[derive(Clone, Copy, Debug, Default)]
struct Field {
    is_path: bool,
    has_fragment: bool,
    /// Octets of the name.
    name: usize,
    /// Octets of the value.
    value: usize,
}

/// The meaning of the next octet.
enum Step {
    /// The first octet of a field or of a new size.
    First,
    Integer(Integer, Purpose),
    /// The first octet of the length of a string.
    Length(Literal),
    Text(Text, Literal),
}

/// The meaning of an integer.
#[derive(Clone, Copy)]
enum Purpose {
    Indexed,
    NameOf { is_added: bool },
    Resize,
    Length { is_huffman: bool, literal: Literal },
}

/// A field with a literal value, and perhaps a literal name.
#[derive(Clone, Copy)]
struct Literal {
    field: Field,
    is_added: bool,
    /// Whether the next string is the name.
    is_name: bool,
}

#[derive(Clone, Copy)]
struct Integer {
    value: usize,
    shift: u32,
}

/// A string that is being read.
struct Text {
    /// Missing octets.
    missing: usize,
    huffman: Option<Huffman>,
    /// Length after decoding.
    length: usize,
    /// Whether the text so far is the beginning of `:path`.
    is_path: bool,
    has_hash: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            table: Table::new(),
            step: Step::First,
            has_fields: false,
            has_fragment: false,
        }
    }

    /// Processes the next octets of a block, in pieces of any size.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while let [first, rest @ ..] = bytes {
            // After an error no more octets are processed.
            let step = std::mem::replace(&mut self.step, Step::First);
            (self.step, bytes) = match step {
                Step::First => (self.begin(*first)?, rest),
                Step::Length(literal) => {
                    let is_huffman = first & 0x80 != 0;
                    let purpose = Purpose::Length {
                        is_huffman,
                        literal,
                    };
                    (self.integer(*first, 7, purpose)?, rest)
                }
                Step::Integer(integer, purpose) => match integer.more(*first)? {
                    (integer, true) => (self.use_integer(integer.value, purpose)?, rest),
                    (integer, false) => (Step::Integer(integer, purpose), rest),
                },
                Step::Text(mut text, literal) => {
                    let (part, rest) = bytes.split_at(text.missing.min(bytes.len()));
                    text.take(part)?;
                    (self.use_text(text, literal)?, rest)
                }
            };
        }
        Ok(())
    }

    /// Ends the block; returns whether its `:path` contains `#`.
    pub(super) fn end(&mut self) -> Result<bool, Malformed> {
        if !matches!(self.step, Step::First) {
            return Err(Malformed);
        }
        self.has_fields = false;
        Ok(std::mem::take(&mut self.has_fragment))
    }

    /// Processes the first octet of a field (RFC 7541 section 6).
    fn begin(&mut self, first: u8) -> Result<Step, Malformed> {
        let (bits, purpose) = match first {
            0x80.. => (7, Purpose::Indexed),
            0x40.. => (6, Purpose::NameOf { is_added: true }),
            0x20.. if self.has_fields => return Err(Malformed),
            0x20.. => (5, Purpose::Resize),
            _ => (4, Purpose::NameOf { is_added: false }),
        };
        self.has_fields |= !matches!(purpose, Purpose::Resize);
        self.integer(first, bits, purpose)
    }

    /// Processes the first octet of an integer (RFC 7541 section 5.1).
    fn integer(&mut self, first: u8, bits: u32, purpose: Purpose) -> Result<Step, Malformed> {
        let most = (1 << bits) - 1;
        let value = usize::from(first) & most;
        if value < most {
            return self.use_integer(value, purpose);
        }
        Ok(Step::Integer(Integer { value, shift: 0 }, purpose))
    }

    fn use_integer(&mut self, value: usize, purpose: Purpose) -> Result<Step, Malformed> {
        match purpose {
            Purpose::Indexed => {
                self.has_fragment |= self.table.get(value)?.has_fragment;
                Ok(Step::First)
            }
            Purpose::Resize => {
                self.table.resize(value)?;
                Ok(Step::First)
            }
            Purpose::NameOf { is_added } => {
                let is_name = value == 0;
                let field = match value {
                    0 => Field::default(),
                    _ => self.table.name(value)?,
                };
                Ok(Step::Length(Literal {
                    field,
                    is_added,
                    is_name,
                }))
            }
            Purpose::Length {
                is_huffman,
                literal,
            } => self.use_text(Text::new(value, is_huffman), literal),
        }
    }

    /// Continues after a string if the string is complete.
    fn use_text(&mut self, text: Text, mut literal: Literal) -> Result<Step, Malformed> {
        if text.missing > 0 {
            return Ok(Step::Text(text, literal));
        }
        let text = text.end()?;
        if literal.is_name {
            literal.field.name = text.length;
            literal.field.is_path = text.is_path && text.length == PATH.len();
            literal.is_name = false;
            return Ok(Step::Length(literal));
        }
        literal.field.value = text.length;
        literal.field.has_fragment = literal.field.is_path && text.has_hash;
        self.has_fragment |= literal.field.has_fragment;
        if literal.is_added {
            self.table.add(literal.field);
        }
        Ok(Step::First)
    }
}

impl Integer {
    /// Processes an octet after the first; returns whether the integer is complete.
    fn more(mut self, octet: u8) -> Result<(Self, bool), Malformed> {
        self.value += usize::from(octet & 0x7f) << self.shift;
        self.shift += 7;
        match octet {
            0x80.. if self.shift == MAX_INTEGER_SHIFT => Err(Malformed),
            0x80.. => Ok((self, false)),
            _ => Ok((self, true)),
        }
    }
}

/// The result of decoding a string.
struct Decoded {
    length: usize,
    is_path: bool,
    has_hash: bool,
}

impl Text {
    fn new(missing: usize, is_huffman: bool) -> Self {
        Self {
            missing,
            huffman: is_huffman.then(Huffman::default),
            length: 0,
            is_path: true,
            has_hash: false,
        }
    }

    fn take(&mut self, part: &[u8]) -> Result<(), Malformed> {
        self.missing = self.missing.saturating_sub(part.len());
        let Some(mut huffman) = self.huffman.take() else {
            for octet in part {
                self.see(*octet);
            }
            return Ok(());
        };
        for octet in part {
            let taken = huffman.take(*octet, |octet| self.see(octet));
            taken.ok_or(Malformed)?;
        }
        self.huffman = Some(huffman);
        Ok(())
    }

    fn see(&mut self, octet: u8) {
        self.is_path &= PATH.get(self.length).is_none_or(|wanted| *wanted == octet);
        self.has_hash |= octet == b'#';
        self.length += 1;
    }

    fn end(self) -> Result<Decoded, Malformed> {
        if let Some(huffman) = self.huffman {
            huffman.end().ok_or(Malformed)?;
        }
        Ok(Decoded {
            length: self.length,
            is_path: self.is_path,
            has_hash: self.has_hash,
        })
    }
}

/// The static and the dynamic table (RFC 7541 section 2.3).
struct Table {
    /// The newest entry first.
    entries: VecDeque<Field>,
    size: usize,
    max_size: usize,
}

impl Table {
    fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max_size: MAX_TABLE_SIZE,
        }
    }

    /// Returns the field at this index; the first index is 1.
    fn get(&self, index: usize) -> Result<Field, Malformed> {
        let place = index.checked_sub(1).ok_or(Malformed)?;
        if let Some(name) = STATIC_NAMES.get(place) {
            // The values are not stored in the table, so their lengths do not matter.
            return Ok(Field {
                is_path: STATIC_PATHS.contains(&index),
                name: *name,
                ..Field::default()
            });
        }
        let field = self.entries.get(place - STATIC_NAMES.len());
        field.copied().ok_or(Malformed)
    }

    /// Returns the name of the field at this index.
    fn name(&self, index: usize) -> Result<Field, Malformed> {
        let Field { is_path, name, .. } = self.get(index)?;
        Ok(Field {
            is_path,
            name,
            ..Field::default()
        })
    }

    /// Adds a field, unless it is larger than the table, which is then empty.
    fn add(&mut self, field: Field) {
        let size = field.size();
        self.evict(self.max_size.saturating_sub(size));
        if size <= self.max_size {
            self.size += size;
            self.entries.push_front(field);
        }
    }

    fn resize(&mut self, max_size: usize) -> Result<(), Malformed> {
        if max_size > MAX_TABLE_SIZE {
            return Err(Malformed);
        }
        self.max_size = max_size;
        self.evict(max_size);
        Ok(())
    }

    /// Removes the oldest entries until at most `size` bytes are left.
    fn evict(&mut self, size: usize) {
        while self.size > size
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}

impl Field {
    fn size(&self) -> usize {
        self.name + self.value + ENTRY_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &[&str] = &[
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ];
    const HUFFMAN: &[&str] = &[
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ];

    fn octets(hex: &str) -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2);
        let octet = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16);
        pairs.map(|pair| octet(pair).expect("hex")).collect()
    }

    fn block(decoder: &mut Decoder, bytes: &[u8]) -> Result<bool, Malformed> {
        decoder.take(bytes)?;
        decoder.end()
    }

    /// Encodes name and value of a literal, without Huffman; `first` is the first octet.
    fn literal(first: u8, name: &str, value: &str) -> Vec<u8> {
        let mut bytes = vec![first];
        for text in [name, value] {
            bytes.push(u8::try_from(text.len()).expect("short"));
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    const ADDED: u8 = 0x40;
    const NOT_ADDED: u8 = 0;
    const NEVER: u8 = 0x10;

    /// RFC 7541 appendix C.3 and C.4: sizes of the table after each request.
    #[test]
    fn the_table_is_kept_as_the_standard_shows_it() {
        for blocks in [PLAIN, HUFFMAN] {
            for size in 1..40 {
                let mut decoder = Decoder::new();
                for (text, table) in blocks.iter().zip([57, 110, 164]) {
                    for piece in octets(text).chunks(size) {
                        assert_eq!(decoder.take(piece), Ok(()));
                    }
                    assert_eq!(decoder.end(), Ok(false));
                    assert_eq!(decoder.table.size, table, "{text} in pieces of {size}");
                }
                let lengths: Vec<_> = decoder
                    .table
                    .entries
                    .iter()
                    .map(|field| (field.name, field.value))
                    .collect();
                assert_eq!(lengths, [(10, 12), (13, 8), (10, 15)]);
            }
        }
    }

    /// RFC 7541 appendix C.5 and C.6: a table of 256 bytes, from which entries are evicted.
    #[test]
    fn entries_are_evicted_as_the_standard_shows_it() {
        let plain = [
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54\
             6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f\
             3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076\
             657273696f6e3d31",
        ];
        let huffman = [
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f\
             0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335df\
             dfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ];
        for blocks in [plain, huffman] {
            let mut decoder = Decoder::new();
            decoder.table.resize(256).expect("small");
            for (text, table) in blocks.iter().zip([222, 222, 215]) {
                assert_eq!(block(&mut decoder, &octets(text)), Ok(false), "{text}");
                assert_eq!(decoder.table.size, table, "{text}");
            }
        }
    }

    /// RFC 7541 appendix C.1 and C.2.
    #[test]
    fn integers_and_literals_of_the_standard_are_decoded() {
        let first = Integer {
            value: 31,
            shift: 0,
        };
        let (next, is_complete) = first.more(0x9a).expect("more");
        assert!(!is_complete);
        let (last, is_complete) = next.more(0x0a).expect("more");
        assert_eq!((last.value, is_complete), (1337, true));
        for (text, size) in [
            ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", 55),
            ("040c2f73616d706c652f70617468", 0),
            ("100870617373776f726406736563726574", 0),
            ("82", 0),
        ] {
            let mut decoder = Decoder::new();
            assert_eq!(block(&mut decoder, &octets(text)), Ok(false), "{text}");
            assert_eq!(decoder.table.size, size, "{text}");
        }
    }

    #[test]
    fn a_hash_is_found_in_a_path_and_nowhere_else() {
        for first in [ADDED, NOT_ADDED, NEVER] {
            for (name, value, found) in [
                (":path", "/a#b", true),
                (":path", "#", true),
                (":path", "/a?b#", true),
                (":path", "/a%23b", false),
                (":path", "", false),
                (":pat", "/a#b", false),
                (":paths", "/a#b", false),
                ("", "#", false),
                ("x", "#", false),
                ("a#", "#", false),
            ] {
                let bytes = literal(first, name, value);
                for size in 1..=bytes.len() {
                    let mut decoder = Decoder::new();
                    for piece in bytes.chunks(size) {
                        assert_eq!(decoder.take(piece), Ok(()));
                    }
                    assert_eq!(decoder.end(), Ok(found), "{name}: {value}, {size}");
                    assert_eq!(decoder.end(), Ok(false));
                }
            }
        }
        // A name of the static table; a value with the Huffman code.
        for first in [0x44, 0x45, 0x04, 0x15] {
            let mut decoder = Decoder::new();
            assert_eq!(block(&mut decoder, &[first, 0x82, 0xff, 0xaf]), Ok(true));
        }
    }

    #[test]
    fn a_path_in_the_table_is_found_again_while_it_is_there() {
        let mut decoder = Decoder::new();
        assert_eq!(
            block(&mut decoder, &literal(ADDED, ":path", "/#")),
            Ok(true)
        );
        assert_eq!(block(&mut decoder, &[0xbe]), Ok(true));
        // The name of the entry with another value.
        assert_eq!(block(&mut decoder, &[0x7e, 1, b'/']), Ok(false));
        assert_eq!(block(&mut decoder, &[0xbe]), Ok(false));
        assert_eq!(block(&mut decoder, &[0xbf]), Ok(true));
        assert_eq!(block(&mut decoder, &[0x20, 0x3f, 0xe1, 0x1f]), Ok(false));
        assert_eq!(block(&mut decoder, &[0xbe]), Err(Malformed));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bytes in [
            &[0x80][..],
            &[0xbe],
            &[0xff, 0x80, 0x80, 0x80, 0x80, 0x00],
            &[0x3f, 0xe2, 0x1f],
            &[0x82, 0x20],
            &[0x00, 0x05, b':'],
            &[0x44],
            &[0x44, 0x7f],
            &[0x44, 0x81, 0x06],
            &[0x44, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            let refused = block(&mut Decoder::new(), bytes);
            assert_eq!(refused, Err(Malformed), "{bytes:x?}");
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let mut decoder = Decoder::new();
        for _ in 0..1000 {
            assert_eq!(block(&mut decoder, &literal(ADDED, "", "")), Ok(false));
        }
        assert_eq!(decoder.table.entries.len(), MAX_TABLE_SIZE / ENTRY_SIZE);
        let long = [&[0x44, 0x7f, 0x81, 0x1f][..], &[b'#'; 4096]].concat();
        assert_eq!(block(&mut decoder, &long), Ok(true));
        assert_eq!((decoder.table.entries.len(), decoder.table.size), (0, 0));
    }

    proptest::proptest! {
        #[test]
        fn no_octets_are_too_much(bytes: Vec<u8>, size in 1_usize..9) {
            let mut whole = Decoder::new();
            let expected = block(&mut whole, &bytes);
            let mut pieces = Decoder::new();
            let taken = bytes.chunks(size).try_for_each(|piece| pieces.take(piece));
            proptest::prop_assert_eq!(taken.and_then(|()| pieces.end()), expected);
        }
    }
}
