//! JSON that keeps the order of its keys, so that a settings file stays as its user wrote it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// A JSON value whose objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) enum Json {
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
    /// Any other value.
    Plain(Value),
}

impl Json {
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, String> {
        let parsed = serde_json::from_str(text.trim_start_matches('\u{feff}'));
        parsed.map_err(|error| format!("this is not JSON that can be added to: {error}"))
    }

    pub(in crate::cli) fn text(text: impl Into<String>) -> Self {
        Self::Plain(Value::String(text.into()))
    }

    /// Formats the JSON as Claude Code writes its settings.
    pub(in crate::cli) fn pretty(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Formats the JSON in one line.
    pub(in crate::cli) fn compact(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(in crate::cli) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Plain(value) => value.as_str(),
            _ => None,
        }
    }

    pub(in crate::cli) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(pairs) => pairs.iter().find(|(name, _)| name == key).map(|(_, it)| it),
            _ => None,
        }
    }

    /// Returns the value of a key, adding it if it is missing; `None` if this is not an object.
    pub(in crate::cli) fn entry(&mut self, key: &str, made: Self) -> Option<&mut Self> {
        let Self::Object(pairs) = self else {
            return None;
        };
        if !pairs.iter().any(|(name, _)| name == key) {
            pairs.push((key.to_owned(), made));
        }
        let mut pairs = pairs.iter_mut();
        pairs.find(|(name, _)| name == key).map(|(_, it)| it)
    }

    pub(in crate::cli) fn set(&mut self, key: &str, value: Self) -> Option<()> {
        *self.entry(key, Self::Plain(Value::Null))? = value;
        Some(())
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        match value {
            Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Value::Object(pairs) => {
                let pair = |(name, value)| (name, Self::from(value));
                Self::Object(pairs.into_iter().map(pair).collect())
            }
            plain => Self::Plain(plain),
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Array(items) => items.serialize(to),
            Self::Plain(value) => value.serialize(to),
            Self::Object(pairs) => {
                let mut map = to.serialize_map(Some(pairs.len()))?;
                for (name, value) in pairs {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Plain(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::text(value))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Plain(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut read = Vec::new();
        while let Some(item) = items.next_element()? {
            read.push(item);
        }
        Ok(Json::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Json, A::Error> {
        let mut read: Vec<(String, Json)> = Vec::new();
        while let Some((name, value)) = pairs.next_entry::<String, Json>()? {
            // Readers differ over which of two values counts.
            if read.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom("a key occurs twice"));
            }
            read.push((name, value));
        }
        Ok(Json::Object(read))
    }
}
