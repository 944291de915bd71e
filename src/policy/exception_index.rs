//! Finds the exceptions that may match a host and a caller: the time does not grow with their
//! number.
//!
//! Exceptions of one host are separated by session, user or repository. Exceptions that name none
//! of these, or name them with `*`, are checked one after the other.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::name::Host;

use super::index::{HostMap, HostMapBuilder};
use super::pattern::HostPattern;
use super::query::Who;

/// The index of an exception among all.
type Place = u32;

/// Exceptions, indexed by host, then by caller.
#[derive(Debug, Default)]
pub(super) struct ExceptionIndex {
    /// A map from hosts to the lists of their patterns.
    pub(super) hosts: HostMap,
    lists: Vec<OfPattern>,
}

/// The exceptions of one host pattern; each list is in the written order.
#[derive(Debug, Default)]
struct OfPattern {
    by_caller: HashMap<u64, Vec<Place>, FixedState>,
    others: Vec<Place>,
}

/// The property of a caller that an exception names.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Session,
    Subject,
    Repository,
}

impl ExceptionIndex {
    /// Indexes exceptions by their places in the iterator: for each its hosts and the keys of its
    /// callers; no keys if some caller is not named in full.
    pub(super) fn new<'e>(all: impl Iterator<Item = (&'e [HostPattern], Vec<u64>)>) -> Self {
        let mut places: HashMap<HostPattern, usize, FixedState> = HashMap::default();
        let mut lists: Vec<OfPattern> = Vec::new();
        for (place, (patterns, keys)) in (0..).zip(all) {
            for pattern in patterns {
                let at = *places.entry(pattern.clone()).or_insert(lists.len());
                if at == lists.len() {
                    lists.push(OfPattern::default());
                }
                if let Some(list) = lists.get_mut(at) {
                    list.add(place, &keys);
                }
            }
        }
        let mut patterns: Vec<(&HostPattern, usize)> =
            places.iter().map(|(pattern, at)| (pattern, *at)).collect();
        patterns.sort_unstable_by_key(|(_, at)| std::cmp::Reverse(*at));
        let mut hosts = HostMapBuilder::with_capacity(patterns.len());
        for (pattern, at) in patterns {
            if let Ok(at) = u32::try_from(at) {
                hosts.add(pattern, at);
            }
        }
        Self {
            hosts: hosts.build(),
            lists,
        }
    }

    /// Returns the first exception for which `is_meant` is true: most specific host pattern first,
    /// then as written. Exceptions for other callers are not checked.
    pub(super) fn find(
        &self,
        host: &Host,
        who: &Who,
        mut is_meant: impl FnMut(Place) -> bool,
    ) -> Option<Place> {
        let mut found = None;
        self.hosts.each(host, |at| {
            if let (None, Some(list)) = (found, self.lists.get(at as usize)) {
                found = list.first(who, &mut is_meant);
            }
        });
        found
    }
}

impl OfPattern {
    fn add(&mut self, place: Place, keys: &[u64]) {
        if keys.is_empty() {
            self.others.push(place);
        }
        for key in keys {
            let list = self.by_caller.entry(*key).or_default();
            if list.last() != Some(&place) {
                list.push(place);
            }
        }
    }

    fn first(&self, who: &Who, is_meant: &mut impl FnMut(Place) -> bool) -> Option<Place> {
        let mut first = |list: &[Place]| list.iter().copied().find(|place| is_meant(*place));
        let mut found = first(&self.others);
        if self.by_caller.is_empty() {
            return found;
        }
        let session = who.session.as_ref();
        let root = session.and_then(|session| session.root.as_deref());
        let names = [
            (Kind::Session, session.map(|session| &*session.id)),
            (Kind::Session, root),
            (Kind::Subject, who.subject.as_deref()),
            (Kind::Repository, who.repository.as_deref()),
        ];
        for (kind, name) in names {
            let list = name.and_then(|name| self.by_caller.get(&key(kind, name)));
            let own = list.and_then(|list| first(list));
            found = match (found, own) {
                (Some(found), Some(own)) => Some(found.min(own)),
                (found, own) => found.or(own),
            };
        }
        found
    }
}

/// Returns a number for a text in any letter case. Two texts may have the same number, so the
/// exception itself is checked as well.
pub(super) fn key(kind: Kind, text: &str) -> u64 {
    let state = FixedState::with_seed(kind as u64);
    let mut lower = [0; 128];
    match lower.get_mut(..text.len()) {
        Some(lower) => {
            lower.copy_from_slice(text.as_bytes());
            lower.make_ascii_lowercase();
            state.hash_one(&*lower)
        }
        None => state.hash_one(text.to_ascii_lowercase().as_bytes()),
    }
}
