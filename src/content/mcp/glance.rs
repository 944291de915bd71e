//! Finds messages of the Model Context Protocol where nobody announced them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::json::{Text, same};

/// The first parts of the methods of the protocol. What has no slash is a whole method.
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
/// The most values, one after the other, that are looked at.
const MOST_VALUES: usize = 16;

/// Whether a body is a message of the Model Context Protocol, or has one in it: an object, or an
/// array of objects, with `"jsonrpc":"2.0"` and one of its methods.
///
/// It is found as servers would find it, who are not strict: keys in any casing or twice, several
/// values one after the other, something behind them. A body may be cut off: what stands before the
/// cut counts.
pub fn is_message(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut reader = serde_json::Deserializer::from_slice(body);
    for _ in 0..MOST_VALUES {
        let mut glance = Glance::default();
        let read = glance.deserialize(&mut reader);
        if glance.found {
            return true;
        }
        if read.is_err() {
            return false;
        }
    }
    false
}

/// What was seen of a value so far.
#[derive(Default)]
struct Glance {
    /// How many arrays it is inside of.
    depth: u8,
    jsonrpc: bool,
    method: bool,
    found: bool,
}

impl Glance {
    fn note(&mut self, key: &str, value: &RawValue) {
        let Ok(Text(text)) = serde_json::from_str::<Text<'_>>(value.get()) else {
            return;
        };
        self.jsonrpc |= same(key, "jsonrpc") && text == "2.0";
        self.method |= same(key, "method") && is_method(&text);
        self.found |= self.jsonrpc && self.method;
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
        (self.jsonrpc, self.method) = (false, false);
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
