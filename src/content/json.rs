//! Reads JSON that all readers understand in the same way.
//!
//! JSON readers differ over a repeated key (first, last, both), over keys in another case (some
//! match them), and over nesting deeper than their limit. Values are kept as slices of the body, so
//! parts that are not needed cost no memory.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use hashbrown::HashSet;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Maximum number of members of an object, or elements of an array.
const MAX_MEMBERS: usize = 4096;

/// The members of an object, in their order.
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Parses `text` as an object.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Like [`Object::parse`], but `None` if a key occurs twice.
    pub(super) fn unambiguous(text: &'a str) -> Option<Self> {
        Self::parse(text).filter(|object| !object.repeats_a_key())
    }

    /// Returns the members, in their order.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (&**key, *value))
    }

    /// Returns the first value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.members()
            .find(|(found, _)| *found == key)
            .map(|(_, value)| value)
    }

    /// Returns the text of a key; `None` if the key is absent or has another type.
    pub(super) fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key).and_then(text)
    }

    /// Whether a key occurs twice.
    pub(super) fn repeats_a_key(&self) -> bool {
        let mut seen = HashSet::with_capacity(self.0.len());
        self.0.iter().any(|(key, _)| !seen.insert(&**key))
    }

    /// Whether one of these keys occurs in another case, which some readers accept.
    pub(super) fn varies(&self, keys: &[&str]) -> bool {
        let varies = |key: &str| {
            keys.iter()
                .any(|wanted| key != *wanted && same(key, wanted))
        };
        self.0.iter().any(|(key, _)| varies(key))
    }
}

/// Whether two keys are the same to a reader that ignores case, as Go's does: by simple folding,
/// where the long s and the Kelvin sign are letters too.
pub(super) fn same(key: &str, other: &str) -> bool {
    let fold = |text: &str| -> String {
        let upper = text.chars().flat_map(char::to_uppercase);
        upper.flat_map(char::to_lowercase).collect()
    };
    key.len() <= 4 * other.len() && fold(key) == fold(other)
}

/// Parses `text` as an array and returns its elements.
pub(super) fn elements(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str::<Elements<'_>>(text)
        .ok()
        .map(|elements| elements.0)
}

/// Returns the text of a string value.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(value.get())
        .ok()
        .map(|text| text.0)
}

/// Whether a value is `null`.
pub(super) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Whether no value in `text` is nested deeper than `most`.
pub(super) fn is_shallow(text: &str, most: usize) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > most {
            return false;
        }
    }
    true
}

/// Text that is borrowed if it has no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Collect(PhantomData::<Self>))
    }
}

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Collect(PhantomData::<Self>))
    }
}

struct Collect<T>(PhantomData<T>);

impl<'de> Visitor<'de> for Collect<Object<'de>> {
    type Value = Object<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Text(key), value)) = map.next_entry()? {
            if members.len() >= MAX_MEMBERS {
                return Err(de::Error::custom("too many members"));
            }
            members.push((key, value));
        }
        Ok(Object(members))
    }
}

impl<'de> Visitor<'de> for Collect<Elements<'de>> {
    type Value = Elements<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(value) = list.next_element()? {
            if elements.len() >= MAX_MEMBERS {
                return Err(de::Error::custom("too many elements"));
            }
            elements.push(value);
        }
        Ok(Elements(elements))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_may_be_escaped_and_is_still_the_same_key() {
        let object = Object::parse(r#"{"qu\u0065ry": 1, "query": 2}"#).unwrap();
        assert!(object.repeats_a_key());
        assert!(Object::unambiguous(r#"{"a":1,"\u0061":2}"#).is_none());
        assert!(Object::unambiguous(r#"{"a":{"b":1},"b":2}"#).is_some());
    }

    #[test]
    fn other_casings_are_seen() {
        let varies = |text| Object::parse(text).unwrap().varies(&["params", "skip"]);
        assert!(varies(r#"{"PARAMS":1}"#));
        assert!(varies(r#"{"param\u017f":1}"#), "the long s");
        assert!(varies(r#"{"s\u212aip":1}"#), "the Kelvin sign");
        assert!(!varies(r#"{"params":1,"skip":2,"parameters":3}"#));
    }

    #[test]
    fn what_is_not_json_is_nothing() {
        for text in [
            "",
            "[]",
            "1",
            "{",
            r#"{"a":1}x"#,
            "\u{feff}{}",
            "{'a':1}",
            "{\"\\ud800\":1}",
        ] {
            assert!(Object::parse(text).is_none(), "{text}");
        }
        assert!(elements("[1,{}]x").is_none());
        assert_eq!(elements("[1, {} ]").unwrap().len(), 2);
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        assert!(is_shallow(r#"{"a":"[[[[\"[["}"#, 1));
        assert!(!is_shallow("[[1]]", 1));
        let bomb = "[".repeat(1 << 20);
        assert!(!is_shallow(&bomb, 64));
        assert!(elements(&bomb).is_none(), "and is not read by recursion");
    }

    #[test]
    fn an_array_of_thousands_is_not_read() {
        let many = format!("[{}1]", "1,".repeat(MAX_MEMBERS));
        assert!(elements(&many).is_none());
    }

    /// Returns an object as text, and whether it was made with a repeated key.
    fn objects() -> impl Strategy<Value = (String, bool)> {
        let key = prop_oneof!["[ab]{1,2}", "\\PC{0,3}"];
        let member = (key, any::<bool>(), "(1|null|\\[\\{\"a\":1\\}\\]|\"\\}\")");
        prop::collection::vec(member, 0..6).prop_map(|members| {
            let keys: HashSet<&str> = members.iter().map(|(key, ..)| &**key).collect();
            let twice = keys.len() != members.len();
            let spell = |key: &str, escaped: bool| {
                let units = key.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
                let plain = serde_json::to_string(key).unwrap();
                if escaped {
                    format!("\"{}\"", units.collect::<String>())
                } else {
                    plain
                }
            };
            let text = members
                .iter()
                .map(|(key, escaped, value)| format!("{}:{value}", spell(key, *escaped)))
                .collect::<Vec<_>>();
            (format!("{{{}}}", text.join(",")), twice)
        })
    }

    proptest! {
        #[test]
        fn repeated_keys_are_found_however_they_are_spelt((text, twice) in objects()) {
            let object = Object::parse(&text).unwrap();
            prop_assert_eq!(object.repeats_a_key(), twice);
            // A reader that keeps the last of each key has fewer members exactly then.
            let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(map.len() != object.members().count(), twice);
        }

        #[test]
        fn what_is_accepted_is_what_the_parser_of_values_accepts(text in "[\\[\\]{}\":,a1\\\\ue.\\- ]{0,24}") {
            let value = serde_json::from_str::<serde_json::Value>(&text);
            let object = value.is_ok_and(|value| value.is_object());
            // A skipped value may contain half a surrogate pair; nothing else differs.
            prop_assert!(!object || Object::parse(&text).is_some());
        }
    }
}
