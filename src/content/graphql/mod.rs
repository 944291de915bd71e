//! GraphQL requests: whether they read or write (GraphQL over HTTP, and common extensions of
//! servers).
//!
//! A request is a read only if every server would treat it as one; any other request is a write.
//! This module refuses nothing: a rule decides.

mod document;
mod lexer;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::name::Path;
use crate::policy::{Action, RequestFacts};

use super::json::{self, Object};
use super::{Fields, essence, form, is_plain, with_action};
use document::{Document, Kind};

/// Maximum number of requests in a batch.
const MAX_REQUESTS: usize = 100;
/// Maximum number of mutation fields that are decided one by one; more fields are one
/// `graphql-mutation`.
const MAX_FIELDS: usize = 100;
/// The keys of a request. Another key may name a stored document, which may be a mutation.
const KEYS: &[&str] = &["query", "operationName", "variables", "extensions"];

/// Reads a whole request.
pub(super) fn read(
    head: &RequestFacts,
    fields: &Fields<'_>,
    method: &str,
    path: &Path,
    body: &[u8],
) -> Vec<RequestFacts> {
    let said = match method {
        "GET" | "HEAD" if body.is_empty() => asked(path.query().unwrap_or_default()),
        "POST" if is_plain(fields) && !has_query(path) => posted(fields, body),
        _ => None,
    };
    said.map_or_else(|| vec![unread(head)], |said| said.facts_list(head))
}

/// Returns the facts of a request that cannot be read.
pub(super) fn unread(head: &RequestFacts) -> RequestFacts {
    with_action(head, Some("graphql-unreadable"), Action::Write)
}

/// The effect of a request.
#[derive(Debug, Default, Eq, PartialEq)]
struct Said {
    /// Whether it has a mutation.
    mutates: bool,
    /// Whether it has a subscription.
    subscribes: bool,
    /// The fields of its mutations; `None` if not all can be determined.
    changes: Option<BTreeSet<Box<str>>>,
}

impl Said {
    /// Reads one document. The selected operation does not matter: if one operation is a mutation,
    /// some server may run it (by the first of two keys, or without a name).
    fn of(text: &str) -> Option<Self> {
        let document = Document::parse(text)?;
        Some(Self {
            mutates: document.has(Kind::Mutation),
            subscribes: document.has(Kind::Subscription),
            changes: document.changes(),
        })
    }

    fn and(self, other: Self) -> Self {
        let changes = self.changes.zip(other.changes);
        Self {
            mutates: self.mutates || other.mutates,
            subscribes: self.subscribes || other.subscribes,
            changes: changes.map(|(some, more)| some.into_iter().chain(more).collect()),
        }
    }

    fn facts_list(self, head: &RequestFacts) -> Vec<RequestFacts> {
        if !self.mutates {
            let operation = if self.subscribes {
                "graphql-subscription"
            } else {
                "graphql-query"
            };
            return vec![with_action(head, Some(operation), Action::Read)];
        }
        match self.changes {
            Some(fields) if (1..=MAX_FIELDS).contains(&fields.len()) => fields
                .iter()
                .map(|field| with_action(head, Some(&format!("mutation:{field}")), Action::Write))
                .collect(),
            _ => vec![with_action(head, Some("graphql-mutation"), Action::Write)],
        }
    }
}

/// Reads the request in the query of a URL. An empty query asks for a page, or for the schema.
fn asked(query: &str) -> Option<Said> {
    let pairs = form::pairs(query)?;
    if pairs.is_empty() {
        return Some(Said::default());
    }
    let mut seen = BTreeSet::new();
    let known = |key: &str| KEYS.contains(&key) && key != "extensions";
    if !pairs.iter().all(|(key, _)| known(key) && seen.insert(key)) {
        return None;
    }
    let text = pairs.iter().find(|(key, _)| key == "query")?;
    Said::of(&text.1)
}

/// Whether the URL of a POST may contain a request as well, which some servers read first.
fn has_query(path: &Path) -> bool {
    let harmless = |key: &str| {
        !key.is_empty()
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && ![
                "query",
                "mutation",
                "operation",
                "extension",
                "variable",
                "id",
                "hash",
                "doc",
            ]
            .iter()
            .any(|word| key.to_ascii_lowercase().contains(word))
    };
    let pairs = form::pairs(path.query().unwrap_or_default());
    !pairs.is_some_and(|pairs| pairs.iter().all(|(key, _)| harmless(key)))
}

fn posted(fields: &Fields<'_>, body: &[u8]) -> Option<Said> {
    let text = str::from_utf8(body).ok()?;
    match &*essence(fields.content_type)? {
        "application/graphql" => Said::of(text),
        "application/json" | "application/graphql+json"
            if text.trim_ascii_start().starts_with('[') =>
        {
            batch(text)
        }
        "application/json" | "application/graphql+json" => request(text),
        _ => None,
    }
}

fn batch(text: &str) -> Option<Said> {
    let elements = json::elements(text)?;
    if !(1..=MAX_REQUESTS).contains(&elements.len()) {
        return None;
    }
    let mut said = elements.iter().map(|element| request(element.get()));
    let first = said.next()??;
    said.try_fold(first, |sum, one| Some(sum.and(one?)))
}

/// Reads one request in JSON.
fn request(text: &str) -> Option<Said> {
    let object = Object::unambiguous(text)?;
    if !object.members().all(|(key, _)| KEYS.contains(&key)) {
        return None;
    }
    let stored = |extensions: &serde_json::value::RawValue| {
        !json::is_null(extensions)
            && Object::unambiguous(extensions.get())
                .is_none_or(|extensions| extensions.get("persistedQuery").is_some())
    };
    if object.get("extensions").is_some_and(stored) {
        return None;
    }
    Said::of(&object.text("query")?)
}
