//! Reads one table of a file into one struct, and reports as many errors at once as possible.
//!
//! Serde stops at the first error. So this reader first reports all unknown keys, then removes (or
//! adds) the wrong values one by one until serde reports nothing new.

use std::ops::Range;
use std::sync::Arc;

use serde::de::value::Error as ProbeError;
use serde::de::{DeserializeOwned, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

use crate::diag::{Diagnostic, Place, Source, closest, did_you_mean};
use crate::policy::source::{self, Placed};

/// A value of a file, with its position.
pub(super) struct Value<'i, 's> {
    /// The text of the file.
    pub source: &'s Arc<Source>,
    /// The name of its section, e.g. `[[rule]]`.
    pub what: &'s str,
    /// The value.
    pub content: Spanned<DeValue<'i>>,
}

impl<'i> Value<'i, '_> {
    /// Reads the table; `None` if it has any error.
    pub(super) fn read<T: DeserializeOwned>(
        self,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<Placed<T>> {
        let span = self.content.span();
        let (source, what) = (self.source, self.what);
        let table = self.table(findings)?;
        let mut reading = Reading {
            source,
            what,
            span: span.clone(),
            table,
            assumed: Vec::new(),
            findings,
        };
        let known = reading.take_out_unknown(keys_of::<T>());
        let read = reading.read::<T>()?;
        known.then(|| Placed {
            source: source.clone(),
            span,
            value: read,
        })
    }

    /// Returns the table; reports a finding if the value has another type.
    pub(super) fn table(self, findings: &mut Vec<Diagnostic>) -> Option<DeTable<'i>> {
        let place = Place::new(self.source, self.content.span());
        match self.content.into_inner() {
            DeValue::Table(table) => Some(table),
            DeValue::Array(_) => {
                let message = format!("`{}` is one table, not a list of them", self.what);
                let help = format!("write `{}`", self.what);
                findings.push(Diagnostic::error("wrong-type", place, message).help(help));
                None
            }
            other => {
                let found = found_word(other.type_str());
                let message = format!("`{}` is a table, not {found}", self.what);
                let finding = Diagnostic::error("wrong-type", place, message);
                findings.push(finding.label(format!("this is {found}")));
                None
            }
        }
    }
}

/// Returns the keys of a struct, as serde names them.
pub(super) fn keys_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // The probe always fails: only its list of keys is used.
    let _: Result<T, ProbeError> = T::deserialize(Probe { keys: &mut keys });
    keys
}

/// The finding for an unknown key.
pub(super) fn unknown_key(place: Place, key: &str, what: &str, known: &[&str]) -> Diagnostic {
    let help = match (what, key) {
        ("[[rule]]", "action") => "write `verdict`; `does.actions` is what a request does".into(),
        _ => did_you_mean(key, known),
    };
    Diagnostic::error("unknown-key", place, format!("`{what}` has no key `{key}`"))
        .label("not known here")
        .help(help)
}

/// A table that is read repeatedly, without the errors that were found.
struct Reading<'i, 's> {
    source: &'s Arc<Source>,
    what: &'s str,
    span: Range<usize>,
    table: DeTable<'i>,
    /// Keys that are missing or wrong, and have a placeholder value.
    assumed: Vec<String>,
    findings: &'s mut Vec<Diagnostic>,
}

impl Reading<'_, '_> {
    /// Removes the keys that are not `known`; returns whether there were none.
    fn take_out_unknown(&mut self, known: &[&str]) -> bool {
        let (source, what) = (self.source, self.what);
        let is_unknown = |key: &&Spanned<_>| !known.contains(&key_str(key));
        let unknown: Vec<_> = self.table.keys().filter(is_unknown).cloned().collect();
        for key in &unknown {
            let (place, key) = (Place::new(source, key.span()), key_str(key));
            let mut finding = unknown_key(place, key, what, known);
            // `action = "allow"` means the verdict.
            if let Some(help) = nested(key, known).filter(|_| key != "action") {
                finding = finding.help(help);
            }
            self.findings.push(finding);
            self.table.remove(key);
        }
        let mut sound = unknown.is_empty();
        for (prefix, known) in prefixes().into_iter().filter(|(it, _)| known.contains(it)) {
            let Some(DeValue::Table(inner)) = self.table.get_mut(prefix).map(Spanned::get_mut)
            else {
                continue;
            };
            let is_unknown = |key: &&Spanned<_>| !known.contains(&key_str(key));
            let unknown: Vec<_> = inner.keys().filter(is_unknown).cloned().collect();
            for key in &unknown {
                let (place, key) = (Place::new(source, key.span()), key_str(key));
                self.findings.push(unknown_key(place, key, prefix, known));
                inner.remove(key);
            }
            sound &= unknown.is_empty();
        }
        sound
    }

    fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        // Every round but the last handles one more key, so the number of keys bounds the rounds.
        for _ in 0..=2 * keys_of::<T>().len() {
            let value = Spanned::new(self.span.clone(), DeValue::Table(self.table.clone()));
            let error = match T::deserialize(ValueDeserializer::from(value)) {
                Ok(read) => return self.assumed.is_empty().then_some(read),
                Err(error) => error,
            };
            let settled = match missing_field(error.message()) {
                Some(key) => self.missing(key),
                None => self.wrong(&error),
            };
            if !settled {
                break;
            }
        }
        None
    }

    /// Reports a missing key and adds a placeholder text; `false` if reading cannot continue.
    fn missing(&mut self, key: &str) -> bool {
        if !self.assumed.iter().any(|assumed| assumed == key) {
            let message = format!("`{}` lacks its `{key}`", self.what);
            let place = Place::new(self.source, self.span.clone());
            let finding = Diagnostic::error("missing-key", place, message);
            let help = match key {
                "verdict" => "write `verdict = \"allow\"`, `\"ask\"` or `\"deny\"`".into(),
                _ => format!("write `{key} = …` in this section"),
            };
            let finding = finding.label(format!("`{key}` is missing"));
            self.findings.push(finding.help(help));
        }
        self.assume(key)
    }

    /// Reports a value of a wrong type and replaces or removes it; `false` if reading cannot
    /// continue.
    fn wrong(&mut self, error: &toml::de::Error) -> bool {
        let span = error.span().unwrap_or_else(|| self.span.clone());
        let key = self.key_around(&span);
        if key.as_ref().is_some_and(|key| self.assumed.contains(key)) || span.is_empty() {
            return false;
        }
        let whole = key.as_ref().and_then(|key| value_at(&self.table, key));
        let within = whole.is_some_and(|value| value.span() != span);
        let key_name = key.as_deref().unwrap_or(self.what);
        let place = Place::new(self.source, span);
        self.findings
            .push(wrong_type(place, key_name, within, error.message()));
        let Some(key) = key else { return false };
        remove_at(&mut self.table, &key);
        self.assumed.push(key);
        true
    }

    /// Adds a placeholder text for a missing key; its empty span marks it as a placeholder.
    fn assume(&mut self, key: &str) -> bool {
        let empty = 0..0;
        let value = Spanned::new(empty.clone(), DeValue::String("".into()));
        self.assumed.push(key.to_owned());
        self.table
            .insert(Spanned::new(empty, key.to_owned().into()), value)
            .is_none()
    }

    /// Returns the key whose value contains `span`: `id`, or `to.hosts`.
    fn key_around(&self, span: &Range<usize>) -> Option<String> {
        let around = |value: &Spanned<DeValue<'_>>| {
            value.span().start <= span.start && span.end <= value.span().end
        };
        for (prefix, _) in prefixes() {
            if let Some(DeValue::Table(inner)) = self.table.get(prefix).map(Spanned::get_ref)
                && let Some((key, _)) = inner.iter().find(|(_, value)| around(value))
            {
                return Some(format!("{prefix}.{}", key.get_ref()));
            }
        }
        let (key, _) = self.table.iter().find(|(_, value)| around(value))?;
        Some(key.get_ref().to_string())
    }
}

/// Returns the help for a key that belongs below a prefix, or resembles such a key.
fn nested(key: &str, known: &[&str]) -> Option<String> {
    let prefixes = prefixes()
        .into_iter()
        .filter(|(prefix, _)| known.contains(prefix));
    let all: Vec<_> = prefixes
        .flat_map(|(prefix, keys)| keys.iter().map(move |it| (prefix, *it)))
        .collect();
    let near = closest(key, all.iter().map(|(_, key)| *key))?;
    let (prefix, key) = all.iter().find(|(_, key)| *key == near)?;
    if closest(near, known.iter().copied()).is_some() {
        return None;
    }
    Some(format!("did you mean `{prefix}.{key}`?"))
}

/// Returns the tables within a rule, an exception, a trial or an invariant, with their keys.
fn prefixes() -> [(&'static str, &'static [&'static str]); 5] {
    [
        ("from", keys_of::<source::From>()),
        ("to", keys_of::<source::To>()),
        ("does", keys_of::<source::Does>()),
        ("unless", keys_of::<source::Unless>()),
        ("grant", keys_of::<source::Grant>()),
    ]
}

/// Returns the value of `id` or `to.hosts`.
fn value_at<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
    match key.split_once('.') {
        Some((prefix, key)) => table.get(prefix)?.get_ref().as_table()?.get(key),
        None => table.get(key),
    }
}

fn remove_at(table: &mut DeTable<'_>, key: &str) {
    match key.split_once('.') {
        Some((prefix, key)) => {
            if let Some(DeValue::Table(inner)) = table.get_mut(prefix).map(Spanned::get_mut) {
                inner.remove(key);
            }
        }
        None => drop(table.remove(key)),
    }
}

fn key_str<'k>(key: &'k Spanned<DeString<'_>>) -> &'k str {
    key.get_ref()
}

/// Returns the missing key of serde's message.
fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// The finding for a wrong value of a key, or of a part `within` it, from serde's message.
fn wrong_type(place: Place, key: &str, within: bool, message: &str) -> Diagnostic {
    let subject = if within {
        format!("what is in `{key}`")
    } else {
        format!("`{key}`")
    };
    let sides = message
        .strip_prefix("invalid type: ")
        .and_then(|rest| rest.split_once(", expected "));
    let Some((found, expected)) = sides else {
        return Diagnostic::error("wrong-type", place, format!("{subject}: {message}"));
    };
    let (found, expected) = (found_word(found), expected_word(expected));
    let message = format!("{subject} has to be {expected}, not {found}");
    let finding = Diagnostic::error("wrong-type", place, message).label(format!("this is {found}"));
    match (found, expected) {
        ("a boolean", "a string") if key == "admin" => {
            finding.help("write `admin = \"none\"` for no admin listener")
        }
        ("a list", "a string") => finding.help("write one text, without brackets around it"),
        ("an integer", "a string") => {
            finding.help("put it in quotation marks, with its unit where it has one: `\"10 s\"`")
        }
        (_, "a list") => finding.help("put it in brackets: `[ … ]`"),
        (_, "a string") => finding.help("put it in quotation marks"),
        _ => finding,
    }
}

fn found_word(found: &str) -> &str {
    match found.split(' ').next().unwrap_or_default() {
        "boolean" => "a boolean",
        "float" | "floating" => "a fraction",
        "integer" => "an integer",
        "datetime" => "a date",
        "map" => "a table",
        "sequence" => "a list",
        "string" => "a string",
        _ => found,
    }
}

fn expected_word(expected: &str) -> &str {
    match expected {
        "a boolean" => "`true` or `false`",
        "a map" => "a table",
        "a sequence" => "a list",
        "i64" | "u16" | "u32" | "u64" => "an integer",
        _ => expected,
    }
}

/// A deserializer that only collects the keys that a struct requests.
struct Probe<'k> {
    keys: &'k mut &'static [&'static str],
}

impl<'de> serde::Deserializer<'de> for Probe<'_> {
    type Error = ProbeError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ProbeError> {
        Err(serde::de::Error::custom("nothing to read"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        *self.keys = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::source::{Rule, Trial};

    fn findings_of<T: DeserializeOwned>(text: &str) -> Vec<(&'static str, String, usize)> {
        let source = Arc::new(Source::new("a.toml", text));
        let table = DeTable::parse(text).expect("syntax");
        let value = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
        let mut findings = Vec::new();
        let read = Value {
            source: &source,
            what: "[[rule]]",
            content: value,
        }
        .read::<T>(&mut findings);
        assert_eq!(read.is_some(), findings.is_empty());
        let line = |finding: &Diagnostic| finding.place.as_ref().map_or(0, |at| at.line_column().0);
        findings
            .iter()
            .map(|found| (found.code, found.message.clone(), line(found)))
            .collect()
    }

    #[test]
    fn a_struct_tells_its_keys() {
        assert_eq!(keys_of::<Trial>().len(), 6);
        assert!(keys_of::<Rule>().contains(&"does"));
    }

    #[test]
    fn all_that_is_wrong_in_a_table_is_found_at_once() {
        let text = "id = 5\nto.hosts = \"a\"\nto.hots = []\ngrant.raw = 1\ngrant.inspect = 1\n\
                    to.ports = [\"1\"]\n";
        let found = findings_of::<Rule>(text);
        let codes: Vec<_> = found.iter().map(|(code, _, line)| (*code, *line)).collect();
        for expected in [
            ("unknown-key", 3),
            ("wrong-type", 5),
            ("wrong-type", 1),
            ("wrong-type", 2),
            ("wrong-type", 4),
            ("wrong-type", 6),
            ("missing-key", 1),
        ] {
            assert!(codes.contains(&expected), "{expected:?} in {found:#?}");
        }
        assert_eq!(codes.len(), 7, "{found:#?}");
    }

    #[test]
    fn what_is_right_is_found_right() {
        assert_eq!(
            findings_of::<Rule>("id = \"a\"\nverdict = \"allow\"\nto.ports = [443]\n"),
            []
        );
    }
}
