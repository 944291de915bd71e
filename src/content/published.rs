//! The publication time of a version, from a document of its registry. No other part is kept:
//! documents of some packages have tens of thousands of versions.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::policy::{Element, Place};

/// Returns the time at a place in a document; the latest if several elements match. `None` if there
/// is none, or one of them is not a time.
pub fn published(document: &[u8], place: &Place) -> Option<Timestamp> {
    let mut reader = serde_json::Deserializer::from_slice(document);
    let way = Way {
        keys: &place.keys,
        element: place.element.as_ref(),
    };
    let found = way.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    match found {
        Found::At(time) => Some(time),
        Found::Nothing | Found::Garbage => None,
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    Nothing,
    At(Timestamp),
    /// A value that should be a time but is not.
    Garbage,
}

impl Found {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Garbage, _) | (_, Self::Garbage) => Self::Garbage,
            (Self::At(one), Self::At(two)) => Self::At(one.max(two)),
            (Self::Nothing, found) | (found, Self::Nothing) => found,
        }
    }

    fn time(text: &str) -> Self {
        text.parse().map_or(Self::Garbage, Self::At)
    }
}

/// The rest of the path to the time.
#[derive(Clone, Copy)]
struct Way<'p> {
    keys: &'p [Box<str>],
    element: Option<&'p Element>,
}

impl<'de> DeserializeSeed<'de> for Way<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Way<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the document of a package")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let Some((first, rest)) = self.keys.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Found::Garbage);
        };
        let mut found = Found::Nothing;
        while let Some(key) = map.next_key::<Text<'de>>()? {
            if key.0 == **first {
                found = found.and(map.next_value_seed(Way { keys: rest, ..self })?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Found, A::Error> {
        let Some(element) = self.element.filter(|_| self.keys.is_empty()) else {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Found::Garbage);
        };
        let mut found = Found::Nothing;
        while let Some(one) = list.next_element_seed(One(element))? {
            found = found.and(one);
        }
        Ok(found)
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        let ends = self.keys.is_empty() && self.element.is_none();
        Ok(if ends {
            Found::time(text)
        } else {
            Found::Garbage
        })
    }

    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Garbage)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::Garbage)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::Garbage)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Found, E> {
        Ok(Found::Garbage)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::Garbage)
    }
}

/// One element of a list, which may match.
struct One<'p>(&'p Element);

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file or version")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let (mut meant, mut time) = (false, None);
        while let Some(key) = map.next_key::<Text<'de>>()? {
            if key.0 == *self.0.key {
                meant |= map.next_value::<Text<'de>>()?.0 == *self.0.value;
            } else if key.0 == *self.0.time {
                // The time of an element that does not match may be malformed.
                let told = map.next_value::<Option<Text<'de>>>()?;
                let told = told.map_or(Found::Garbage, |text| Found::time(&text.0));
                time = Some(time.map_or(told, |before: Found| before.and(told)));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(match time {
            _ if !meant => Found::Nothing,
            Some(time) => time,
            None => Found::Garbage,
        })
    }
}

/// A string, borrowed if it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(keys: &[&str]) -> Place {
        Place {
            keys: keys.iter().map(|key| Box::from(*key)).collect(),
            element: None,
        }
    }

    fn of_file(keys: &[&str]) -> Place {
        Place {
            element: Some(Element {
                key: "file".into(),
                value: "a-1.whl".into(),
                time: "when".into(),
            }),
            ..at(keys)
        }
    }

    fn finds(document: &str, place: &Place) -> Option<String> {
        published(document.as_bytes(), place).map(|time| time.to_string())
    }

    #[test]
    fn the_time_of_a_version_is_found_by_its_keys() {
        let document =
            r#"{"a":[1,{"time":{}}],"time":{"1.0":"2020-01-02T03:04:05.678Z","2/0":"x"}}"#;
        let found = finds(document, &at(&["time", "1.0"]));
        assert_eq!(found.as_deref(), Some("2020-01-02T03:04:05.678Z"));
        assert_eq!(finds(document, &at(&["time", "1.1"])), None);
        assert_eq!(finds(document, &at(&["time", "2/0"])), None);
        assert_eq!(finds(document, &at(&["time"])), None);
        let offset = r#"{"Time":"2020-01-02T03:04:05+02:00"}"#;
        assert_eq!(
            finds(offset, &at(&["Time"])).as_deref(),
            Some("2020-01-02T01:04:05Z")
        );
    }

    #[test]
    fn of_several_elements_the_youngest_counts() {
        let document = r#"{"files":[
            {"file":"b-1.whl","when":null,"x":{"file":"a-1.whl"}},
            {"when":"2020-01-01T00:00:00Z","file":"a-1.whl"},
            {"file":"a-1.whl","when":"2021-01-01T00:00:00Z"}]}"#;
        let found = finds(document, &of_file(&["files"]));
        assert_eq!(found.as_deref(), Some("2021-01-01T00:00:00Z"));
        let list = r#"[{"file":"a-1.whl","when":"2020-01-01T00:00:00Z"}]"#;
        assert_eq!(
            finds(list, &of_file(&[])).as_deref(),
            Some("2020-01-01T00:00:00Z")
        );
    }

    #[test]
    fn what_lies_tells_no_time() {
        let (version, file) = (at(&["time", "1.0"]), of_file(&["files"]));
        for document in [
            "",
            "{",
            "[]",
            "null",
            r#"{"time":"2020-01-01T00:00:00Z"}"#,
            r#"{"time":{"1.0":1577836800}}"#,
            r#"{"time":{"1.0":null}}"#,
            r#"{"time":{"1.0":"yesterday"}}"#,
            r#"{"time":{"1.0":{"1.0":"2020-01-01T00:00:00Z"}}}"#,
            r#"{"time":{"1.0":"2020-01-01T00:00:00Z"}"#,
            r#"{"time":{"1.0":"2020-01-01T00:00:00Z"}} more"#,
            r#"{"time":{"1.0":"2020-01-01T00:00:00Z","1.0":"never"}}"#,
            r#"{"files":{}}"#,
            r#"{"files":[{"file":"a-1.whl"}]}"#,
            r#"{"files":[{"file":"a-1.whl","when":null}]}"#,
            r#"{"files":[{"file":"a-1.whl","when":"2020-01-01T00:00:00Z"},{"file":"a-1.whl"}]}"#,
        ] {
            assert_eq!(finds(document, &version), None, "{document}");
            assert_eq!(finds(document, &file), None, "{document}");
        }
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert_eq!(finds(&deep, &version), None);
        let twice = r#"{"time":{"1.0":"2020-01-01T00:00:00Z","1.0":"2021-01-01T00:00:00Z"}}"#;
        assert_eq!(
            finds(twice, &version).as_deref(),
            Some("2021-01-01T00:00:00Z")
        );
    }
}
