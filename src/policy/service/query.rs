//! Conditions on a query. An ambiguous spelling meets no condition.
//!
//! Servers differ: some use the first of two parameters of a name, some the last, some decode
//! names, some split at `;`. So a condition holds only if all of them would agree.

use super::fields::{Fields, decode};
use super::pattern::Segment;

/// The conditions on a query.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    /// Parameters that must occur exactly once, with such a value.
    pub(super) present: Box<[(Box<str>, Segment)]>,
    /// Parameters that must occur at least once, each with such a value.
    pub(super) each: Box<[(Box<str>, Segment)]>,
    /// Parameters that must not occur.
    pub(super) absent: Box<[Box<str>]>,
}

impl Conditions {
    /// Whether the conditions hold; returns the captured names.
    pub(super) fn hold<'a>(&self, query: Option<&'a str>, fields: &mut Fields<'a>) -> Option<()> {
        if self.present.is_empty() && self.each.is_empty() && self.absent.is_empty() {
            return Some(());
        }
        if parameters(query).any(|(key, _)| is_doubtful(key)) {
            return None;
        }
        if self
            .absent
            .iter()
            .any(|key| named(query, key).next().is_some())
        {
            return None;
        }
        for (key, expected) in &self.present {
            let mut found = named(query, key);
            let (spelled, value) = found.next()?;
            if found.next().is_some() || *spelled != **key {
                return None;
            }
            has_value(expected, value, fields)?;
        }
        self.each
            .iter()
            .try_for_each(|(key, expected)| every_value(key, expected, query, fields))
    }
}

/// Whether a parameter occurs and each of its values matches. Names are captured only from a single
/// value.
fn every_value<'a>(
    key: &str,
    expected: &Segment,
    query: Option<&'a str>,
    fields: &mut Fields<'a>,
) -> Option<()> {
    let values: Vec<_> = named(query, key).collect();
    if let [(spelled, value)] = values.as_slice() {
        return (*spelled == key).then(|| has_value(expected, value, fields))?;
    }
    let is_expected = |(spelled, value): &(&str, &'a str)| {
        *spelled == key && has_value(expected, value, &mut Fields::default()).is_some()
    };
    (!values.is_empty() && values.iter().all(is_expected)).then_some(())
}

/// Whether a value matches. A literal value is compared as written; a value with a capture is
/// decoded.
fn has_value<'a>(expected: &Segment, value: &'a str, fields: &mut Fields<'a>) -> Option<()> {
    if expected.is_exact() {
        return expected.matches(value, fields);
    }
    let decoded = decode(value).into_owned();
    let mut inner = Fields::default();
    expected.matches(&decoded, &mut inner)?;
    // A part that contains a separator is several parts to the server.
    fields.adopt(&inner, |text| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte))
    })
}

/// Returns the parameters of a query; servers split at `&`, some at `;` as well.
fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.unwrap_or_default().split(['&', ';']);
    parts
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// Returns the parameters of that name, in any case.
fn named<'a>(query: Option<&'a str>, key: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    parameters(query).filter(move |(name, _)| name.eq_ignore_ascii_case(key))
}

/// Whether a server might read a name as another one: escapes, blanks, arrays.
fn is_doubtful(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:$~".contains(&byte);
    key.is_empty() || !key.bytes().all(plain)
}

/// Parameters by which servers and frameworks replace the request's method.
const OVERRIDES: [&str; 6] = [
    "_method",
    "$httpmethod",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "http_method",
];

/// Whether a query replaces the method.
pub(super) fn overrides_method(query: Option<&str>) -> bool {
    parameters(query).any(|(key, _)| {
        let key = decode(key);
        OVERRIDES.iter().any(|name| key.eq_ignore_ascii_case(name))
    })
}
