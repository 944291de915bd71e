//! Exceptions: allows with a reviewer and an expiry, decided after the floor and before the denies.

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

/// An exception, compiled for one policy.
#[derive(Debug)]
pub struct Exception {
    /// The id in records, and the location: a line of a file, or `ledger:12`.
    pub named: Arc<Named>,
    /// The exception as written or granted.
    pub grant: Grant,
    /// The rest of the budget, if there is a limit. Set by the gate.
    pub(super) allowance: OnceLock<Arc<Allowance>>,
    /// The conditions, as in an allow.
    pub(super) rule: Arc<Rule>,
    pub(super) hosts: Vec<HostPattern>,
}

/// Exceptions, indexed by host.
#[derive(Debug, Default)]
pub struct Exceptions {
    all: Vec<Arc<Exception>>,
    index: ExceptionIndex,
    /// Granted exceptions that the policy cannot read or forbids: id and reason.
    not_in_force: BTreeMap<String, Arc<str>>,
}

/// The exceptions, at one point in time.
#[derive(Clone, Copy, Debug)]
pub struct InForce<'e> {
    /// The exceptions.
    pub exceptions: &'e Exceptions,
    /// The time.
    pub now: Timestamp,
    /// Whether the flow is open already. A spent budget of requests does not end an open flow.
    pub is_open: bool,
}

/// The exceptions that match a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Excepted<'e> {
    /// The exception that lets the flow pass.
    pub(super) holds: Option<&'e Arc<Exception>>,
    /// An exception that would let the flow pass if its budget were not spent.
    pub(super) spent: Option<&'e Arc<Exception>>,
}

impl<'e> InForce<'e> {
    /// The exceptions that match a flow.
    pub(super) fn of(self, host: &Host, flow: &Flow<'_>) -> Excepted<'e> {
        self.exceptions.of(host, flow, self)
    }
}

impl Exceptions {
    /// Indexes exceptions by host and caller.
    pub fn new(all: Vec<Arc<Exception>>) -> Self {
        Self {
            index: ExceptionIndex::new(all.iter().map(|it| (&*it.hosts, it.caller_keys()))),
            all,
            not_in_force: BTreeMap::new(),
        }
    }

    /// Adds the granted exceptions that are not in force: id and reason.
    #[must_use]
    pub fn without(self, not_in_force: BTreeMap<String, Arc<str>>) -> Self {
        Self {
            not_in_force,
            ..self
        }
    }

    /// Returns the reason if the policy cannot read a granted exception or forbids it.
    pub fn why_not(&self, id: &str) -> Option<&Arc<str>> {
        self.not_in_force.get(id)
    }

    /// The hosts of the exceptions.
    pub(super) fn hosts(&self) -> &HostMap {
        &self.index.hosts
    }

    /// Whether there are no exceptions.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Iterates over all exceptions.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Exception>> {
        self.all.iter()
    }

    /// Returns the id of the first exception for a tunnel to a host, and the number of checks.
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

    /// Returns the first exception that matches a flow: most specific host first, then as written.
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
    /// The exception without its expiry, limit and session, for a proof: it covers all that the
    /// exception may ever let pass.
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

    /// Returns the part of the exception that a decision holds.
    pub(super) fn passes(&self) -> ByException {
        ByException {
            named: self.named.clone(),
            allowance: self.allowance.get().cloned(),
        }
    }

    /// Whether the exception is in the ledger and not in a file.
    pub fn is_granted(&self) -> bool {
        self.named.location.starts_with("ledger:")
    }

    /// The rest of the budget; `None`: there is no limit, or the gate has not set it.
    pub fn allowance(&self) -> Option<&Arc<Allowance>> {
        self.allowance.get()
    }

    /// Sets the rest of the budget. Only the first call has an effect.
    pub fn set_allowance(&self, allowance: Arc<Allowance>) {
        let _ = self.allowance.set(allowance);
    }

    /// Whether the budget is spent. A limit without an allowance counts as spent.
    pub fn is_spent(&self) -> bool {
        let left = self.allowance.get();
        !self.grant.limit.is_empty() && left.is_none_or(|left| left.is_spent())
    }

    /// Like [`Exception::is_spent`], for an open flow.
    pub fn has_no_bytes(&self) -> bool {
        let left = self.allowance.get();
        !self.grant.limit.is_empty() && left.is_none_or(|left| left.has_no_bytes())
    }

    /// Returns the keys of the named callers; none if some caller is not named in full.
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

    /// Whether the exception covers only some requests and the flow is a tunnel that hides them.
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
