//! Finds messages of the Model Context Protocol in requests to servers that no policy lists.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::Fields;
use super::super::json::{Text, same};
use super::encoded;

/// The first parts of the protocol's methods. An entry without a slash is a whole method.
const METHODS: &[&str] = &[
    "initialize",
    "ping",
    "completion/",
    "elicitation/",
    "logging/",
    "notifications/",
    "prompts/",
    "resources/",
    "roots/",
    "sampling/",
    "server/discover",
    "subscriptions/",
    "tasks/",
    "tools/",
];
/// Maximum number of consecutive values that are read.
const MAX_VALUES: usize = 16;

/// The result of reading a body so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recognised {
    /// The body is no message of the protocol.
    No,
    /// The body is a message, or contains one.
    Yes,
    /// The part that was read is no message, but the missing part could complete one; or the body
    /// has a coding that the gate does not read.
    Undecided,
}

/// Whether a body is a message of the Model Context Protocol, or contains one: an object, or an
/// array of objects, with `"jsonrpc":"2.0"` and one of the protocol's methods. Decompresses gzip
/// and deflate, and reads UTF-16 and UTF-32.
///
/// The search is as tolerant as servers are: keys in any case or twice, several consecutive values,
/// bytes after them. A body may be truncated: the part before the cut counts.
///
/// If the rest is missing (the body has not `ended`), one of the two words is enough. Text that
/// this reader rejects but another might accept (half a surrogate pair in a key) counts if it
/// contains the protocol's name.
pub fn recognise(fields: &Fields<'_>, body: &[u8], ended: bool) -> Recognised {
    match encoded::content(fields, body) {
        Some((content, true)) if content.is_empty() => Recognised::Undecided,
        Some((content, cut)) => in_text(&encoded::text(&content), cut || !ended),
        None => Recognised::Undecided,
    }
}

/// Whether the gate can decompress the codings of a body.
pub fn is_readable(fields: &Fields<'_>) -> bool {
    encoded::content(fields, b"").is_some()
}

/// Whether a body may begin as JSON does; `None` if more bytes are needed.
///
/// `passed` counts the bytes that need no second look when the same body has grown.
pub fn may_begin(fields: &Fields<'_>, body: &[u8], passed: &mut usize) -> Option<bool> {
    if encoded::is_compressed(fields) {
        return Some(true);
    }
    encoded::may_begin(body, passed)
}

fn in_text(text: &str, cut: bool) -> Recognised {
    let mut reader = serde_json::Deserializer::from_str(text);
    for _ in 0..MAX_VALUES {
        let mut glance = Glance::default();
        let read = glance.deserialize(&mut reader);
        if glance.found {
            return Recognised::Yes;
        }
        match read {
            Ok(()) => {}
            Err(error) if error.is_eof() => return glance.at_the_end(cut),
            Err(_) if names_it(text) => return Recognised::Yes,
            // Nested too deep for this reader, or not JSON: the rest is unknown.
            Err(_) if cut && glance.began => return Recognised::Undecided,
            Err(_) => return Recognised::No,
        }
    }
    Recognised::No
}

/// Whether a text could contain the protocol's name in a key.
fn names_it(text: &str) -> bool {
    let word = b"jsonrpc";
    let named = |part: &[u8]| part.eq_ignore_ascii_case(word);
    let escaped = text.contains("\\u") && text.contains("2.0");
    text.as_bytes().windows(word.len()).any(named) || escaped
}

/// The state of one value so far.
#[derive(Default)]
struct Glance {
    /// Whether the value is an object or array.
    began: bool,
    /// The number of arrays around the value.
    depth: u8,
    jsonrpc: bool,
    /// Whether its method is one of the protocol's.
    method: Option<bool>,
    found: bool,
}

impl Glance {
    /// Returns the result for a text that ends before its value does.
    fn at_the_end(&self, cut: bool) -> Recognised {
        match (self.method, self.jsonrpc) {
            _ if !cut || !self.began => Recognised::No,
            (Some(true), _) | (None, true) => Recognised::Yes,
            (Some(false), _) if self.depth == 0 => Recognised::No,
            _ => Recognised::Undecided,
        }
    }

    fn note(&mut self, key: &str, value: &RawValue) {
        let Ok(Text(text)) = serde_json::from_str::<Text<'_>>(value.get()) else {
            return;
        };
        self.jsonrpc |= same(key, "jsonrpc") && text == "2.0";
        if same(key, "method") {
            self.method = Some(is_method(&text) || self.method == Some(true));
        }
        self.found |= self.jsonrpc && self.method == Some(true);
    }
}

fn is_method(text: &str) -> bool {
    METHODS.iter().any(|method| match method.strip_suffix('/') {
        Some(_) => text.starts_with(method),
        None => text == *method,
    })
}

impl<'de> DeserializeSeed<'de> for &mut Glance {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Glance {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.began = true;
        (self.jsonrpc, self.method) = (false, None);
        while let Some(Text(key)) = map.next_key()? {
            let wanted = same(&key, "jsonrpc") || same(&key, "method");
            if wanted {
                self.note(&key, map.next_value::<&RawValue>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.began = true;
        if self.depth > 0 {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        self.depth = 1;
        while list.next_element_seed(&mut *self)?.is_some() {}
        self.depth = 0;
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
