//! Writes flat JSON into bytes: only the shapes of a record, without failure cases.
//!
//! A general serializer would cost several times as much, and every flow has two lines. Text that
//! clients chose is escaped so that a terminal, a log viewer or an agent that reads the log shows
//! it literally: no controls, no direction changes, no invisible text.

use std::fmt::Display;
use std::io::Write as _;
use std::net::IpAddr;
use std::ops::Deref;

use jiff::Timestamp;
use jiff::tz::Offset;
use uuid::Uuid;

use crate::decimal;
use crate::diag::misleads;

/// Capacity in bytes for most lines of flows, without the fields that the writer adds.
const LINE_CAPACITY: usize = 1280;

/// One JSON object being written; [`Object::end`] closes the line.
pub(super) struct Object {
    bytes: Vec<u8>,
}

impl Object {
    /// Begins a line with its time and its name.
    pub(super) fn new(at: Timestamp, name: &str) -> Self {
        let mut bytes = Vec::with_capacity(LINE_CAPACITY);
        bytes.extend_from_slice(b"{\"timestamp\":\"");
        time(&mut bytes, at);
        bytes.extend_from_slice(b"\",\"event.name\":\"");
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'"');
        Self { bytes }
    }

    /// Returns the number of bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a text, truncated to `limit` characters.
    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    pub(super) fn text(&mut self, name: &str, text: &str, limit: usize) {
        self.name(name);
        quote(&mut self.bytes, cut(text, limit));
    }

    /// Adds a text, truncated to `limit` characters, if it is known.
    #[expect(
        clippy::inline_always,
        clippy::ref_option,
        reason = "as `text`; a field of facts is given as it is"
    )]
    #[inline(always)]
    pub(super) fn some<T: Deref<Target = str>>(
        &mut self,
        name: &str,
        text: &Option<T>,
        limit: usize,
    ) {
        if let Some(text) = text {
            self.text(name, text, limit);
        }
    }

    /// Adds a word that needs no escape, if it is not empty.
    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    pub(super) fn word(&mut self, name: &str, word: &str) {
        if !word.is_empty() {
            self.name(name);
            quoted(&mut self.bytes, word.as_bytes());
        }
    }

    /// Adds an address.
    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    pub(super) fn address(&mut self, name: &str, address: IpAddr) {
        self.name(name);
        quoted_address(&mut self.bytes, address);
    }

    /// Adds a time, to the microsecond.
    pub(super) fn time(&mut self, name: &str, at: Timestamp) {
        self.name(name);
        self.bytes.push(b'"');
        time(&mut self.bytes, at);
        self.bytes.push(b'"');
    }

    /// Adds a whole number.
    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        decimal::put(&mut self.bytes, value);
    }

    /// Adds `true` or `false`.
    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        self.name(name);
        let word: &[u8] = if value { b"true" } else { b"false" };
        self.bytes.extend_from_slice(word);
    }

    /// Adds milliseconds with three decimals; a value that is not a duration is left out.
    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    pub(super) fn millis(&mut self, name: &str, value: f64) {
        if value.is_finite() && value >= 0.0 {
            self.name(name);
            thousandths(&mut self.bytes, value);
        }
    }

    /// Adds a flow id.
    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    pub(super) fn id(&mut self, name: &str, id: &Uuid) {
        self.name(name);
        self.quoted_id(id);
    }

    /// Adds texts, each truncated to `limit` characters.
    pub(super) fn texts<'a>(
        &mut self,
        name: &str,
        texts: impl Iterator<Item = &'a str>,
        limit: usize,
    ) {
        self.list(name, texts, |bytes, text| quote(bytes, cut(text, limit)));
    }

    /// Adds addresses.
    pub(super) fn addresses<'a>(
        &mut self,
        name: &str,
        addresses: impl Iterator<Item = &'a IpAddr>,
    ) {
        self.list(name, addresses, |bytes, address| {
            quoted_address(bytes, *address);
        });
    }

    /// Adds values whose text needs no escape.
    fn plains(&mut self, name: &str, values: impl Iterator<Item = impl Display>) {
        self.list(name, values, |bytes, value| {
            let _ = write!(bytes, "\"{value}\"");
        });
    }

    /// Adds flow ids.
    pub(super) fn ids<'a>(&mut self, name: &str, ids: impl Iterator<Item = &'a Uuid>) {
        self.plains(name, ids.map(|id| id.hyphenated()));
    }

    /// Closes the object and the line.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"}\n");
        self.bytes
    }

    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    fn name(&mut self, name: &str) {
        self.bytes.extend_from_slice(b",\"");
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b"\":");
    }

    fn quoted_id(&mut self, id: &Uuid) {
        let mut buffer = Uuid::encode_buffer();
        let text = id.hyphenated().encode_lower(&mut buffer);
        quoted(&mut self.bytes, text.as_bytes());
    }

    fn list<T>(
        &mut self,
        name: &str,
        items: impl Iterator<Item = T>,
        write: impl Fn(&mut Vec<u8>, T),
    ) {
        self.name(name);
        self.bytes.push(b'[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.bytes.push(b',');
            }
            write(&mut self.bytes, item);
        }
        self.bytes.push(b']');
    }
}

/// Appends a non-negative number, with three decimals.
fn thousandths(bytes: &mut Vec<u8>, value: f64) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite and not negative; a time too long for u64 is cut at its end"
    )]
    let all = (value * 1000.0).round() as u64;
    decimal::put(bytes, all / 1000);
    bytes.push(b'.');
    decimal::put_padded(bytes, all % 1000, 3);
}

/// Appends a time in RFC 3339, in UTC, with six decimals, like `{at:.6}`.
fn time(bytes: &mut Vec<u8>, at: Timestamp) {
    let civil = Offset::UTC.to_datetime(at);
    let Ok(year) = u16::try_from(civil.year()) else {
        // Before the year 0.
        let _ = write!(bytes, "{at:.6}");
        return;
    };
    let micros = civil.subsec_nanosecond().unsigned_abs() / 1000;
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    for (at, digits) in [
        (0, pair(year / 100)),
        (2, pair(year % 100)),
        (5, pair(civil.month())),
        (8, pair(civil.day())),
        (11, pair(civil.hour())),
        (14, pair(civil.minute())),
        (17, pair(civil.second())),
        (20, pair(micros / 10_000)),
        (22, pair(micros / 100 % 100)),
        (24, pair(micros % 100)),
    ] {
        if let Some(place) = text.get_mut(at..at + 2) {
            place.copy_from_slice(&digits);
        }
    }
    bytes.extend_from_slice(&text);
}

fn pair(value: impl TryInto<u8>) -> [u8; 2] {
    decimal::two_digits(value.try_into().unwrap_or(0))
}

fn quoted_address(bytes: &mut Vec<u8>, address: IpAddr) {
    bytes.push(b'"');
    match address {
        IpAddr::V4(address) => decimal::put_ipv4(bytes, address),
        IpAddr::V6(address) => {
            let _ = write!(bytes, "{address}");
        }
    }
    bytes.push(b'"');
}

/// Returns the first `limit` characters.
fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    text.char_indices()
        .nth(limit)
        .and_then(|(end, _)| text.get(..end))
        .unwrap_or(text)
}

/// Appends a text without escapes between quotes.
fn quoted(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.reserve(text.len() + 2);
    bytes.push(b'"');
    bytes.extend_from_slice(text);
    bytes.push(b'"');
}

/// Appends a text between quotes.
#[expect(
    clippy::needless_bitwise_bool,
    reason = "without an early end the compiler looks at many bytes at once"
)]
fn quote(bytes: &mut Vec<u8>, text: &str) {
    let plain = text.bytes().fold(true, |plain, byte| {
        plain & matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\')
    });
    if plain {
        return quoted(bytes, text.as_bytes());
    }
    bytes.push(b'"');
    for character in text.chars() {
        escape(bytes, character);
    }
    bytes.push(b'"');
}

fn escape(bytes: &mut Vec<u8>, character: char) {
    match character {
        '"' => bytes.extend_from_slice(b"\\\""),
        '\\' => bytes.extend_from_slice(b"\\\\"),
        '\n' => bytes.extend_from_slice(b"\\n"),
        '\r' => bytes.extend_from_slice(b"\\r"),
        '\t' => bytes.extend_from_slice(b"\\t"),
        _ if misleads(character) => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(bytes, "\\u{unit:04x}");
            }
        }
        _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object() -> Object {
        Object::new(Timestamp::UNIX_EPOCH, "test")
    }

    fn value(object: Object) -> serde_json::Value {
        serde_json::from_slice(&object.end()).expect("a line is JSON")
    }

    #[test]
    fn time_has_six_decimals_and_a_z() {
        let at = Timestamp::from_microsecond(1_700_000_000_000_100).expect("a time");
        let line = value(Object::new(at, "x"));
        assert_eq!(line["timestamp"], "2023-11-14T22:13:20.000100Z");
    }

    proptest! {
        #[test]
        fn times_numbers_and_addresses_are_written_as_they_print(
            micros in -62_167_219_200_000_000..253_402_207_200_000_000_i64,
            number: u64,
            address: IpAddr,
        ) {
            let at = Timestamp::from_microsecond(micros).expect("a time");
            let mut line = Object::new(at, "x");
            line.time("a", at);
            line.number("b", number);
            line.address("c", address);
            line.addresses("d", [address, address].iter());
            let line = value(line);
            let printed = format!("{at:.6}");
            prop_assert_eq!(line["timestamp"].as_str(), Some(printed.as_str()));
            prop_assert_eq!(line["a"].as_str(), Some(printed.as_str()));
            prop_assert_eq!(line["b"].as_u64(), Some(number));
            let printed = address.to_string();
            prop_assert_eq!(line["c"].as_str(), Some(printed.as_str()));
            prop_assert_eq!(line["d"][1].as_str(), Some(printed.as_str()));
        }
    }

    #[test]
    fn timings_have_three_decimals() {
        let mut line = object();
        line.millis("a", 12.345_6);
        line.millis("b", 0.000_4);
        line.millis("c", f64::NAN);
        line.millis("d", -1.0);
        let text = String::from_utf8(line.end()).expect("UTF-8");
        assert!(text.ends_with("\"a\":12.346,\"b\":0.000}\n"), "{text}");
    }

    #[test]
    fn what_misleads_a_reader_is_escaped() {
        for hostile in [
            '\0', '\u{1b}', '\u{7f}', '\u{9b}', '\u{2028}', '\u{202e}', '\u{2066}',
        ] {
            let mut line = object();
            line.text("a", &format!("x{hostile}y"), 253);
            let bytes = line.end();
            let text = String::from_utf8(bytes).expect("UTF-8");
            assert!(
                !text.trim_end().contains(hostile),
                "{hostile:?} stands in {text:?}"
            );
            assert!(
                text.contains(&format!("x\\u{:04x}y", u32::from(hostile))),
                "{text}"
            );
        }
    }

    #[test]
    fn hidden_tags_are_escaped_as_a_pair() {
        let mut line = object();
        line.text("a", "\u{e0041}", 253);
        assert!(
            String::from_utf8(line.end())
                .expect("UTF-8")
                .contains("\\udb40\\udc41")
        );
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let mut line = object();
        line.text("a", &"é".repeat(300), 253);
        assert_eq!(
            value(line)["a"].as_str().map(|text| text.chars().count()),
            Some(253)
        );
    }

    proptest! {
        #[test]
        fn every_text_reads_back_and_stays_on_its_line(text in any::<String>(), number: u64) {
            let mut line = object();
            line.text("a", &text, usize::MAX);
            line.number("b", number);
            line.texts("c", [text.as_str(), "x"].into_iter(), usize::MAX);
            let bytes = line.end();
            prop_assert_eq!(bytes.iter().position(|byte| *byte == b'\n'), Some(bytes.len() - 1));
            let read: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            prop_assert_eq!(read["a"].as_str(), Some(text.as_str()));
            prop_assert_eq!(read["b"].as_u64(), Some(number));
            prop_assert_eq!(read["c"][0].as_str(), Some(text.as_str()));
        }
    }
}
