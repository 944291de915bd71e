//! Rules that decide nothing, but whose flows are distinguished.

use jiff::Timestamp;

use crate::name::Host;
use crate::policy::exception::{Exceptions, InForce};
use crate::policy::index::{HostMap, HostMapBuilder};
use crate::policy::invariant_rule::{Invariant, Selector};
use crate::policy::pattern::HostPattern;
use crate::policy::rule::Rule;

/// Rules that decide nothing, but whose flows are distinguished. Their tiers and groups are those
/// of the first policy.
#[derive(Debug, Default)]
pub(in crate::policy) struct Selectors<'r> {
    pub(super) rules: Vec<&'r Rule>,
    pub(super) hosts: HostMap,
    /// The rules without hosts.
    pub(super) hostless: Vec<u32>,
    excepting: Option<Excepting<'r>>,
}

/// The exceptions in force when the parts are decided.
#[derive(Debug)]
struct Excepting<'r> {
    live: InForce<'r>,
    /// The hosts to compare.
    within: &'r HostMap,
}

impl<'r> Selectors<'r> {
    /// Returns selectors for rules with their hosts.
    pub(in crate::policy) fn new(written: &'r [(Invariant, Selector)]) -> Self {
        Self::of(written, std::iter::empty())
    }

    /// Returns selectors for rules, followed by the rules of the exceptions in force when the parts
    /// are decided. Only hosts in `within` are compared.
    pub(in crate::policy) fn excepting(
        written: &'r [(Invariant, Selector)],
        exceptions: &'r Exceptions,
        within: &'r HostMap,
    ) -> Self {
        let live = InForce {
            exceptions,
            now: Timestamp::UNIX_EPOCH,
            is_open: false,
        };
        let rules = exceptions.iter();
        Self {
            excepting: Some(Excepting { live, within }),
            ..Self::of(written, rules.map(|it| (&*it.rule, it.hosts.as_slice())))
        }
    }

    fn of(
        written: &'r [(Invariant, Selector)],
        more: impl Iterator<Item = (&'r Rule, &'r [HostPattern])>,
    ) -> Self {
        let rules = { written.iter() }.map(|(_, (rule, hosts))| (rule, hosts.as_slice()));
        let rules: Vec<_> = rules.chain(more).collect();
        let mut hosts = HostMapBuilder::with_capacity(rules.len());
        let mut hostless = Vec::new();
        for (at, (rule, patterns)) in rules.iter().enumerate().rev() {
            let Ok(place) = u32::try_from(at) else {
                continue;
            };
            for pattern in *patterns {
                hosts.add(pattern, place);
            }
            // Names may resolve into a network.
            if at < written.len() && (rule.to.hosts == 0 || !rule.to.networks.is_empty()) {
                hostless.push(place);
            }
        }
        Self {
            hosts: hosts.build(),
            rules: rules.into_iter().map(|(rule, _)| rule).collect(),
            hostless,
            excepting: None,
        }
    }

    pub(in crate::policy) fn rule(&self, at: u32) -> Option<&'r Rule> {
        self.rules.get(at as usize).copied()
    }

    /// Returns the hosts to compare; `None`: all.
    pub(super) fn within(&self) -> Option<&'r HostMap> {
        self.excepting.as_ref().map(|it| it.within)
    }

    /// Returns the exceptions in force.
    pub(in crate::policy) fn live(&self) -> Option<InForce<'r>> {
        self.excepting.as_ref().map(|it| it.live)
    }

    /// Whether a rule names the host, or no host.
    pub(in crate::policy) fn names(&self, at: u32, host: &Host) -> bool {
        let mut named = self.rule(at).is_some_and(|rule| rule.to.hosts == 0);
        self.hosts.each(host, |id| named |= id == at);
        named
    }
}
