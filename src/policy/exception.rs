//! Exceptions: allows with an owner and an end, between the floor and the denies.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::ledger::{Allowance, From, Grant, Limit};
use crate::name::Host;

use super::exception_index::{ExceptionIndex, Kind, key};
use super::flow::Flow;
use super::index::HostMap;
use super::pattern::{HostPattern, Pattern};
use super::query::{Attempt, Who};
use super::rule::{Fit, Rule};
use super::verdict::{ByException, Named};

/// One exception, compiled for one policy.
#[derive(Debug)]
pub struct Exception {
    /// The id in records, and where the exception is written: a line of a file, or `ledger:12`.
    pub named: Arc<Named>,
    /// What was written or granted.
    pub grant: Grant,
    /// What is left of the budget, where there is a limit. The gate sets it.
    pub(super) allowance: OnceLock<Arc<Allowance>>,
    /// The conditions, as those of an allow.
    pub(super) rule: Arc<Rule>,
    pub(super) hosts: Vec<HostPattern>,
}

/// The exceptions that may hold, by host.
#[derive(Debug, Default)]
pub struct Exceptions {
    all: Vec<Arc<Exception>>,
    index: ExceptionIndex,
    /// Those that were granted and that the policy cannot read or forbids, by id, and why.
    not_in_force: BTreeMap<String, Arc<str>>,
}

/// The exceptions that decide at one time.
#[derive(Clone, Copy, Debug)]
pub struct InForce<'e> {
    /// The exceptions.
    pub exceptions: &'e Exceptions,
    /// The time.
    pub now: Timestamp,
    /// Whether the flow is open already: then a budget of requests that is spent does not end it.
    pub is_open: bool,
}

/// The exceptions that match a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Excepted<'e> {
    /// The one that lets the flow pass.
    pub(super) holds: Option<&'e Arc<Exception>>,
    /// One that would let the flow pass, but that its budget is spent.
    pub(super) spent: Option<&'e Arc<Exception>>,
}

impl<'e> InForce<'e> {
    /// The exceptions that match a flow.
    pub(super) fn of(self, host: &Host, flow: &Flow<'_>) -> Excepted<'e> {
        self.exceptions.of(host, flow, self)
    }
}

impl Exceptions {
    /// Exceptions by their hosts and callers.
    pub fn new(all: Vec<Arc<Exception>>) -> Self {
        Self {
            index: ExceptionIndex::new(all.iter().map(|it| (&*it.hosts, it.caller_keys()))),
            all,
            not_in_force: BTreeMap::new(),
        }
    }

    /// The same, and those that were granted and are not in force: by id, and why.
    #[must_use]
    pub fn without(self, not_in_force: BTreeMap<String, Arc<str>>) -> Self {
        Self {
            not_in_force,
            ..self
        }
    }

    /// Why an exception that was granted is not in force, where the policy cannot read it or forbids it.
    pub fn why_not(&self, id: &str) -> Option<&Arc<str>> {
        self.not_in_force.get(id)
    }

    /// The hosts that they name.
    pub(super) fn hosts(&self) -> &HostMap {
        &self.index.hosts
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Every exception.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Exception>> {
        self.all.iter()
    }

    /// The id of the first that is for a tunnel to a host, and how many were looked at.
    #[cfg(test)]
    pub(super) fn found_and_asked(&self, host: &str, who: &Who) -> (Option<String>, usize) {
        let host = Host::parse(host.as_bytes()).expect("a host");
        let mut asked = 0;
        let found = self.index.find(&host, who, |place| {
            asked += 1;
            let exception = self.all.get(place as usize);
            exception.is_some_and(|it| it.is_for(who) && it.rule.from.is_for(who))
        });
        let found = found.and_then(|place| self.all.get(place as usize));
        (found.map(|it| it.grant.id.clone()), asked)
    }

    /// The first that matches a flow: of the most specific host, as written.
    fn of(&self, host: &Host, flow: &Flow<'_>, live: InForce<'_>) -> Excepted<'_> {
        let at = |place: u32| self.all.get(place as usize);
        let mut spent = None;
        let holds = self.index.find(host, flow.who, |place| {
            let Some(exception) = at(place).filter(|it| it.matches(flow, live.now)) else {
                return false;
            };
            let is_spent = if live.is_open {
                exception.has_no_bytes()
            } else {
                exception.is_spent()
            };
            if is_spent {
                spent.get_or_insert(exception);
            }
            !is_spent
        });
        Excepted {
            holds: holds.and_then(at),
            spent,
        }
    }
}

impl Exception {
    /// The exception without its end, its limit and its session: what it may let pass at any time,
    /// for a proof.
    pub(super) fn at_its_widest(&self) -> Self {
        let grant = Grant {
            expires: Timestamp::MAX,
            limit: Limit::default(),
            from: From {
                session: None,
                ..self.grant.from.clone()
            },
            ..self.grant.clone()
        };
        Self {
            named: self.named.clone(),
            grant,
            allowance: OnceLock::new(),
            rule: self.rule.clone(),
            hosts: self.hosts.clone(),
        }
    }

    /// What a decision keeps of the exception.
    pub(super) fn passes(&self) -> ByException {
        ByException {
            named: self.named.clone(),
            allowance: self.allowance.get().cloned(),
        }
    }

    /// Whether it stands in the ledger and not in a file.
    pub fn is_granted(&self) -> bool {
        self.named.location.starts_with("ledger:")
    }

    /// What is left of the budget; `None`: there is no limit, or the gate has not set it.
    pub fn allowance(&self) -> Option<&Arc<Allowance>> {
        self.allowance.get()
    }

    /// Sets what is left of the budget. The first one stays.
    pub fn set_allowance(&self, allowance: Arc<Allowance>) {
        let _ = self.allowance.set(allowance);
    }

    /// Whether nothing is left of the budget. Without an allowance nothing of a limit is left.
    pub fn is_spent(&self) -> bool {
        let left = self.allowance.get();
        !self.grant.limit.is_empty() && left.is_none_or(|left| left.is_spent())
    }

    /// As [`Exception::is_spent`], for a flow that is open.
    pub fn has_no_bytes(&self) -> bool {
        let left = self.allowance.get();
        !self.grant.limit.is_empty() && left.is_none_or(|left| left.has_no_bytes())
    }

    /// The keys of the callers that it names; none where it does not name each of them in full.
    fn caller_keys(&self) -> Vec<u64> {
        if let Some(session) = &self.grant.from.session {
            return vec![key(Kind::Session, &session.id)];
        }
        let of = |kind, patterns: &[Pattern]| {
            let texts = patterns.iter().map(Pattern::as_str);
            let keys = texts.map(|text| (!text.contains('*')).then(|| key(kind, text)));
            let keys: Option<Vec<u64>> = keys.collect();
            keys.filter(|keys| !keys.is_empty())
        };
        let from = &self.rule.from;
        let named = of(Kind::Subject, &from.subjects);
        named
            .or_else(|| of(Kind::Repository, &from.repositories))
            .unwrap_or_default()
    }

    fn matches(&self, flow: &Flow<'_>, now: Timestamp) -> bool {
        now < self.grant.expires
            && !self.escapes(flow)
            && self.is_for(flow.who)
            && self.rule.fit(flow) == Fit::Matches
    }

    /// An exception for some requests must not open a tunnel in which no request is seen.
    fn escapes(&self, flow: &Flow<'_>) -> bool {
        let unseen = matches!(flow.attempt, Attempt::Connect) && !flow.inspected;
        unseen && !self.rule.does.is_empty()
    }

    fn is_for(&self, who: &Who) -> bool {
        let Some(scope) = &self.grant.from.session else {
            return true;
        };
        who.session.as_ref().is_some_and(|session| {
            let named = *session.id == *scope.id || session.root.as_deref() == Some(&*scope.id);
            named && (session.verified || !scope.verified)
        })
    }
}
