//! Writes flat JSON into bytes: only the shapes of a record, without failure cases.
//!
//! A general serializer would cost several times as much, and every flow has two lines. Text that
//! clients chose is escaped so that a terminal, a log viewer or an agent that reads the log shows
//! it literally: no controls, no direction changes, no invisible text.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::Deref;

use jiff::Timestamp;
use jiff::tz::Offset;
use uuid::Uuid;

use crate::decimal::{self, Digits, two_digits};
use crate::diag::misleads;

/// Capacity in bytes for most lines of flows, without the fields that the writer adds: those with a
/// session, a call and a process have some 1,600.
const LINE_CAPACITY: usize = 2048;

/// One JSON object being written; [`Object::end`] closes the line.
pub(super) struct Object {
    bytes: Vec<u8>,
}

impl Object {
    /// Begins a line with its time and its name.
    pub(super) fn new(at: Timestamp, name: &str) -> Self {
        let mut object = Self {
            bytes: Vec::with_capacity(LINE_CAPACITY),
        };
        object.push(b"{\"timestamp\":");
        object.quoted_time(at);
        object.word_field("event.name", name.as_bytes());
        object
    }

    /// Returns the number of bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the text from a position on.
    pub(super) fn since(&self, start: usize) -> &[u8] {
        self.bytes.get(start..).unwrap_or_default()
    }

    /// Adds a text, truncated to `limit` characters.
    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    pub(super) fn text(&mut self, name: &str, text: &str, limit: usize) {
        let text = cut(text, limit);
        if is_plain(text.as_bytes()) {
            self.word_field(name, text.as_bytes());
        } else {
            self.name(name);
            self.escaped(text);
        }
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
            self.word_field(name, word.as_bytes());
        }
    }

    /// Adds an address.
    pub(super) fn address(&mut self, name: &str, address: IpAddr) {
        self.name(name);
        self.quoted_address(address);
    }

    /// Adds a time, to the microsecond.
    pub(super) fn time(&mut self, name: &str, at: Timestamp) {
        self.name(name);
        self.quoted_time(at);
    }

    /// Adds a whole number.
    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    pub(super) fn number(&mut self, name: &str, value: u64) {
        let digits = Digits::of(value, 1);
        self.put([b",\"", name.as_bytes(), b"\":", digits.as_bytes()]);
    }

    /// Adds `true` or `false`.
    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        self.name(name);
        self.push(if value { b"true" } else { b"false" });
    }

    /// Adds milliseconds with three decimals, if they are known; a value that is not a duration is
    /// left out.
    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    pub(super) fn millis(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value.filter(|it| it.is_finite() && *it >= 0.0) {
            self.name(name);
            self.thousandths(value);
        }
    }

    /// Adds a flow id.
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
        self.list(name, texts, |object, text| object.quote(cut(text, limit)));
    }

    /// Adds addresses.
    pub(super) fn addresses<'a>(
        &mut self,
        name: &str,
        addresses: impl Iterator<Item = &'a IpAddr>,
    ) {
        self.list(name, addresses, |object, address| {
            object.quoted_address(*address);
        });
    }

    /// Adds flow ids.
    pub(super) fn ids<'a>(&mut self, name: &str, ids: impl Iterator<Item = &'a Uuid>) {
        self.list(name, ids, Self::quoted_id);
    }

    /// Adds fields that are written already.
    pub(super) fn raw(&mut self, fields: &[u8]) {
        self.push(fields);
    }

    /// Closes the object and the line.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.push(b"}\n");
        self.bytes
    }

    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    fn name(&mut self, name: &str) {
        self.put([b",\"", name.as_bytes(), b"\":"]);
    }

    /// Appends a field whose value needs no escape.
    #[expect(
        clippy::inline_always,
        reason = "with a name known at compile time, a copy of it costs a few instructions"
    )]
    #[inline(always)]
    fn word_field(&mut self, name: &str, word: &[u8]) {
        self.put([b",\"", name.as_bytes(), b"\":\"", word, b"\""]);
    }

    fn list<T>(
        &mut self,
        name: &str,
        items: impl Iterator<Item = T>,
        write: impl Fn(&mut Self, T),
    ) {
        self.name(name);
        self.push(b"[");
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.push(b",");
            }
            write(self, item);
        }
        self.push(b"]");
    }

    /// Appends a non-negative number, with three decimals.
    fn thousandths(&mut self, value: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "finite and not negative; a time too long for u64 is cut at its end"
        )]
        let digits = Digits::of((value * 1000.0 + 0.5) as u64, 4);
        if let Some((whole, decimals)) = digits.as_bytes().split_last_chunk::<3>() {
            self.put([whole, b".", decimals]);
        }
    }

    /// Appends a time in RFC 3339, in UTC, with six decimals, like `{at:.6}`.
    fn quoted_time(&mut self, at: Timestamp) {
        let civil = Offset::UTC.to_datetime(at);
        let Ok(year) = u16::try_from(civil.year()) else {
            // Before the year 0.
            let _ = write!(self, "\"{at:.6}\"");
            return;
        };
        let micros = civil.subsec_nanosecond().unsigned_abs() / 1000;
        let mut text = *b"\"0000-00-00T00:00:00.000000Z\"";
        text[1..3].copy_from_slice(&two_digits(year / 100));
        text[3..5].copy_from_slice(&two_digits(year));
        text[6..8].copy_from_slice(&two_digits(civil.month().unsigned_abs()));
        text[9..11].copy_from_slice(&two_digits(civil.day().unsigned_abs()));
        text[12..14].copy_from_slice(&two_digits(civil.hour().unsigned_abs()));
        text[15..17].copy_from_slice(&two_digits(civil.minute().unsigned_abs()));
        text[18..20].copy_from_slice(&two_digits(civil.second().unsigned_abs()));
        text[21..23].copy_from_slice(&two_digits(micros / 10_000));
        text[23..25].copy_from_slice(&two_digits(micros / 100));
        text[25..27].copy_from_slice(&two_digits(micros));
        self.push(&text);
    }

    fn quoted_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                let (text, used) = decimal::ipv4(address);
                self.quoted(text.get(..used).unwrap_or_default());
            }
            IpAddr::V6(address) => {
                let _ = write!(self, "\"{address}\"");
            }
        }
    }

    fn quoted_id(&mut self, id: &Uuid) {
        let mut buffer = Uuid::encode_buffer();
        let text = id.hyphenated().encode_lower(&mut buffer);
        self.quoted(text.as_bytes());
    }

    /// Appends a text between quotes.
    fn quote(&mut self, text: &str) {
        if is_plain(text.as_bytes()) {
            self.quoted(text.as_bytes());
        } else {
            self.escaped(text);
        }
    }

    /// Appends a text between quotes, with escapes.
    #[cold]
    fn escaped(&mut self, text: &str) {
        self.push(b"\"");
        for character in text.chars() {
            self.escape(character);
        }
        self.push(b"\"");
    }

    fn escape(&mut self, character: char) {
        match character {
            '"' => self.push(b"\\\""),
            '\\' => self.push(b"\\\\"),
            '\n' => self.push(b"\\n"),
            '\r' => self.push(b"\\r"),
            '\t' => self.push(b"\\t"),
            _ if misleads(character) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(self, "\\u{unit:04x}");
                }
            }
            _ => self.push(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }

    /// Appends a text without escapes between quotes.
    fn quoted(&mut self, text: &[u8]) {
        self.put([b"\"", text, b"\""]);
    }

    #[inline]
    fn push(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
    }

    /// Appends parts.
    #[expect(
        clippy::inline_always,
        reason = "parts whose length is known at compile time cost a few instructions each"
    )]
    #[inline(always)]
    fn put<const N: usize>(&mut self, parts: [&[u8]; N]) {
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }
}

impl std::fmt::Write for Object {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Whether a text needs no escape: printable ASCII without quotes and backslashes. Looks at eight
/// bytes at once.
fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    // The last eight bytes of a longer text, or all of a shorter text with spaces.
    let last = text.last_chunk().copied().unwrap_or_else(|| {
        let mut last = [b' '; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        last
    });
    let words = words.iter().chain([&last]);
    let found = words.fold(0, |found, word| found | special(u64::from_ne_bytes(*word)));
    found & repeat(0x80) == 0
}

/// Sets the highest bit of the first special byte, and perhaps of others: a control character, a
/// byte that is not ASCII, a quote, or a backslash.
fn special(word: u64) -> u64 {
    // The highest bit of a byte minus one is set if the byte is zero, or 129 and more.
    let is_zero = |bytes: u64| bytes.wrapping_sub(repeat(1));
    word | is_zero(word ^ repeat(b'"'))
        | is_zero(word ^ repeat(b'\\'))
        | is_zero(word ^ repeat(0x7f))
        | word.wrapping_sub(repeat(b' '))
}

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
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
            id: u128,
        ) {
            let at = Timestamp::from_microsecond(micros).expect("a time");
            let mut line = Object::new(at, "x");
            line.time("a", at);
            line.number("b", number);
            line.address("c", address);
            line.addresses("d", [address, address].iter());
            line.id("e", &Uuid::from_u128(id));
            let line = value(line);
            let printed = format!("{at:.6}");
            prop_assert_eq!(line["timestamp"].as_str(), Some(printed.as_str()));
            prop_assert_eq!(line["a"].as_str(), Some(printed.as_str()));
            prop_assert_eq!(line["b"].as_u64(), Some(number));
            let printed = address.to_string();
            prop_assert_eq!(line["c"].as_str(), Some(printed.as_str()));
            prop_assert_eq!(line["d"][1].as_str(), Some(printed.as_str()));
            let printed = Uuid::from_u128(id).to_string();
            prop_assert_eq!(line["e"].as_str(), Some(printed.as_str()));
        }
    }

    #[test]
    fn timings_have_three_decimals() {
        let mut line = object();
        line.millis("a", Some(12.345_6));
        line.millis("b", Some(0.000_4));
        line.millis("c", Some(f64::NAN));
        line.millis("d", Some(-1.0));
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
