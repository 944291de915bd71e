//! Request heads that an operation matches, made from its data file.

use std::fmt::Write as _;

use super::super::facts::RequestFacts;
use super::Services;
use super::fields::Field;
use super::operation::Operation;
use super::pattern::{Hole, Pattern, Piece, Segment, last_part};
use super::query::Conditions;

/// The head of a request: method, and path with query.
pub(in crate::policy) type Head = (Box<str>, String);

/// The texts for the variable parts of patterns.
struct Fill<'a> {
    facts: &'a RequestFacts,
    /// The text for a variable part without a fact.
    other: &'a str,
}

impl Services {
    /// Returns heads of requests to a service: of the operation in `facts`, of all operations if there
    /// is none. The names in `facts` fill the captures of the paths, `other` the rest. The caller has
    /// to read each head: another operation may match it first.
    pub(in crate::policy) fn heads(
        &self,
        service: &str,
        facts: &RequestFacts,
        other: &str,
    ) -> Vec<Head> {
        let words = self.words(service);
        let named = |operation: &Operation| {
            facts.operation.as_deref().is_none_or(|wanted| {
                *operation.name == *wanted
                    || words.is_some_and(|words| words.includes(&operation.name, wanted))
            })
        };
        let fill = Fill { facts, other };
        let all = self.with_included(service).flat_map(|of| &of.operations);
        let named = all.filter(|it| named(it));
        named.flat_map(|it| it.heads(&fill)).collect()
    }
}

impl Operation {
    fn heads(&self, fill: &Fill<'_>) -> Vec<Head> {
        let query = self.query.example(fill);
        let paths = self.paths.iter().map(|pattern| pattern.example(fill));
        let urls: Vec<String> = paths.map(|path| format!("{path}{query}")).collect();
        let methods = self.methods.iter();
        let heads = methods.flat_map(|method| urls.iter().map(|url| (method.clone(), url.clone())));
        heads.collect()
    }
}

impl Fill<'_> {
    /// Returns the text for a captured part.
    fn of(&self, field: Field) -> &str {
        let facts = self.facts;
        let known = match field {
            Field::Repository => facts.repository.as_deref(),
            Field::Package => facts.package.as_deref(),
            Field::Version => facts.version.as_deref(),
            Field::File => None,
        };
        match (known, field) {
            (Some(known), _) => known,
            (None, Field::Version) => "1.0.0",
            (None, _) => self.other,
        }
    }
}

impl Pattern {
    /// Returns a path that may match.
    fn example(&self, fill: &Fill<'_>) -> String {
        let mut path = String::new();
        let mut place = 0;
        while let Some(piece) = self.pieces.get(place) {
            let mut groups = self.groups.iter();
            let group = groups.find(|(_, range)| range.start == place);
            place = group.map_or(place + 1, |(_, range)| range.end);
            let text = match (group, piece) {
                (Some((field, _)), _) => fill.of(*field).to_owned(),
                (None, Piece::One(segment)) => segment.example(fill),
                (None, Piece::Many) => String::new(),
            };
            if !text.is_empty() {
                let _ = write!(path, "/{text}");
            }
        }
        if path.is_empty() {
            path.push('/');
        }
        path
    }
}

impl Segment {
    /// Returns a text that may match.
    fn example(&self, fill: &Fill<'_>) -> String {
        let same = self.same.map_or("", |field| last_part(fill.of(field)));
        let hole = match self.hole {
            None => "",
            Some(Hole::Any) => fill.other,
            Some(Hole::Into(field)) => fill.of(field),
        };
        format!("{same}{}{hole}{}", self.prefix, self.suffix)
    }
}

impl Conditions {
    /// Returns a query that may meet the conditions, with its `?`; empty if none is needed.
    fn example(&self, fill: &Fill<'_>) -> String {
        let wanted = self.present.iter().chain(&self.each);
        let mut query = String::new();
        for (key, value) in wanted {
            let mark = if query.is_empty() { '?' } else { '&' };
            let _ = write!(query, "{mark}{key}={}", value.example(fill));
        }
        query
    }
}
