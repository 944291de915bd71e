//! One rule: from whom, to where, what it does, and the further grants of an allow.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::category::{Categories, Category};
use super::conditions::{Conditions, Met};
use super::flow::{Flow, Recipient};
use super::pattern::Pattern;
use super::query::{Attempt, Who};
use super::verdict::{Named, Reason, Verdict};

/// A `[[rule]]`, or one entry of a list of a tier.
#[derive(Debug)]
pub(super) struct Rule {
    /// The name and location in a record when this rule decides.
    pub(super) named: Arc<Named>,
    pub(super) verdict: Verdict,
    /// The reason of a flow that this rule decides.
    pub(super) reason: Reason,
    /// Whether the rule is an entry of a tier's `ask` or `allow` list, which come after all rules.
    pub(super) is_list: bool,
    pub(super) from: Callers,
    pub(super) to: Destinations,
    pub(super) does: Conditions,
    /// Only in a deny.
    pub(super) unless: Option<Box<Unless>>,
    pub(super) grant: Grant,
    /// The operator's `reason`, for the refusal.
    pub(super) why: Option<Arc<str>>,
}

/// `from`: the callers of a rule.
#[derive(Debug)]
pub(super) struct Callers {
    /// The tiers, a bit each.
    pub(super) tiers: u16,
    /// The groups, a bit each; empty: every caller.
    pub(super) groups: u128,
    /// Empty: callers of every repository and of none.
    pub(super) repositories: Box<[Pattern]>,
    /// Empty: every user, and callers without a name.
    pub(super) subjects: Box<[Pattern]>,
}

/// `to`: the destinations of a rule.
#[derive(Debug)]
pub(super) struct Destinations {
    /// The number of named hosts, which the index maps to the rule. 0: every host.
    pub(super) hosts: usize,
    /// The first hosts, as written, for explanations.
    pub(super) sample: Box<[Box<str>]>,
    /// The networks among the hosts.
    pub(super) networks: Box<[IpNet]>,
    /// Empty: every category.
    pub(super) categories: Categories,
    pub(super) ports: Ports,
}

/// The ports of a rule.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Ports {
    /// Every port.
    Any,
    /// Those of the destination; otherwise 443 for CONNECT and https, 80 for plain HTTP.
    Default,
    /// Those of the destination; otherwise 443; for an unlabelled host as [`Ports::Default`].
    Destination,
    Listed(Box<[u16]>),
}

/// `unless`: a deny does not match if all of this holds.
#[derive(Debug, Default)]
pub(super) struct Unless {
    /// The version of the package has at least this age. An unknown age does not count.
    pub(super) min_age: Option<Duration>,
    /// Every credential of the request is one of these keyed hashes.
    pub(super) credentials: Box<[Box<str>]>,
}

/// `grant`: what a flow may do besides passing.
#[derive(Debug, Default)]
pub(super) struct Grant {
    /// Private networks that may be reached.
    pub(super) addresses: Arc<[IpNet]>,
    /// Whether bytes that are not TLS may pass in a tunnel.
    pub(super) raw: bool,
    /// Whether a request may become another protocol.
    pub(super) upgrade: bool,
    /// Whether TLS is intercepted, if the rule sets it.
    pub(super) inspect: Option<bool>,
    /// The `[upstream.NAME]` with the settings of TLS with the upstream.
    pub(super) upstream: Option<Arc<str>>,
}

/// Whether a flow matches a rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fit {
    Matches,
    /// A deny matches unless the package has at least this age: the registry has the age.
    UnlessOld(Duration),
    Misses(Miss),
}

/// The first condition that a flow does not meet, nearest first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Miss {
    /// Everything else matches.
    Port,
    /// `unless` holds; everything matches.
    Unless,
    /// Everything else matches; servers read the path in two ways.
    Path,
    /// Everything else matches, but not the tool or the method of MCP.
    Tool,
    /// Everything else matches, but not the request facts.
    Request,
    /// Neither port nor request matches.
    PortAndRequest,
    Repository,
    Subject,
    Groups,
    Tier,
    Category,
}

impl Rule {
    /// Returns whether `flow` matches this rule. Hosts are not compared: the index has selected the
    /// rule.
    pub(super) fn fit(&self, flow: &Flow<'_>) -> Fit {
        let outside = self.from.miss(flow.who, self.is_allow());
        if let Some(miss) = outside.or_else(|| self.category_miss(flow)) {
            return Fit::Misses(miss);
        }
        match (
            self.to.ports.hold(flow),
            self.does.met(flow, self.is_allow()),
        ) {
            (true, Met::Yes) => self
                .unless
                .as_deref()
                .map_or(Fit::Matches, |it| it.fit(flow)),
            (false, Met::Yes) => Fit::Misses(Miss::Port),
            (true, Met::ButTool) => Fit::Misses(Miss::Tool),
            (true, Met::ButPath) => Fit::Misses(Miss::Path),
            (true, Met::No) => Fit::Misses(Miss::Request),
            (false, _) => Fit::Misses(Miss::PortAndRequest),
        }
    }

    /// Returns the age that `unless.min-age` requires.
    pub(super) fn min_age(&self) -> Option<Duration> {
        self.unless.as_deref()?.min_age
    }

    /// Whether the rule has a condition on facts that a service reads in a request.
    pub(super) fn has_facts(&self) -> bool {
        let has_names = self.does.named.as_deref().is_some_and(|it| {
            let lists = [&it.operations, &it.repositories, &it.packages, &it.refs];
            lists.iter().any(|list| !list.is_empty())
        });
        has_names || !self.does.actions.is_empty() || self.unless.is_some()
    }

    pub(super) fn is_allow(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// Whether the rule is for this caller and destination, ignoring port and request.
    pub(super) fn reaches(&self, flow: &Flow<'_>) -> bool {
        self.from.miss(flow.who, self.is_allow()).is_none()
            && self.category_miss(flow).is_none()
            && self.does.is_site(flow.site)
    }

    fn category_miss(&self, flow: &Flow<'_>) -> Option<Miss> {
        let selected = self.to.categories;
        let other = match self.verdict {
            Verdict::Allow => !selected.contains(flow.category),
            Verdict::Ask | Verdict::Deny => !selected.intersects(flow.categories),
        };
        let other = other && !selected.is_empty();
        let is_other_recipient = || flow.mcp.is_some_and(|to| !self.speaks_mcp_with(to, flow));
        (other || is_other_recipient()).then_some(Miss::Category)
    }

    /// Whether a rule can apply to a message of MCP. A deny or an ask can apply to every message.
    fn speaks_mcp_with(&self, recipient: Recipient, flow: &Flow<'_>) -> bool {
        let selects = self.to.categories.contains(Category::Mcp);
        !self.is_allow()
            || match recipient {
                Recipient::Listed => selects || self.does.names_server(flow.server),
                Recipient::Known => selects || self.to.hosts > 0,
                Recipient::Unlisted => false,
            }
    }
}

impl Callers {
    /// Returns the first condition that a caller does not meet. A repository that the caller only
    /// claims counts for a deny or an ask.
    fn miss(&self, who: &Who, is_allow: bool) -> Option<Miss> {
        if self.tiers & who.tier.bit() == 0 {
            return Some(Miss::Tier);
        }
        if self.groups != 0 && self.groups & who.groups.0 == 0 {
            return Some(Miss::Groups);
        }
        if !self.has_subject(who) {
            return Some(Miss::Subject);
        }
        let claimed = who.claimed.iter().filter(|_| !is_allow);
        let mut known = who.repository.iter().chain(claimed);
        let meets = self.repositories.is_empty() || known.any(|it| matches(&self.repositories, it));
        (!meets).then_some(Miss::Repository)
    }

    /// Whether an allow is for a caller.
    #[cfg(test)]
    pub(super) fn is_for(&self, who: &Who) -> bool {
        self.miss(who, true).is_none()
    }

    /// Whether the verified user of a caller is among the subjects, if there are any.
    pub(super) fn has_subject(&self, who: &Who) -> bool {
        let subject = who.subject.as_deref();
        self.subjects.is_empty() || subject.is_some_and(|it| matches(&self.subjects, it))
    }

    /// Whether the verified repository of a caller is among the repositories, if there are any.
    pub(super) fn has_repository(&self, who: &Who) -> bool {
        let repository = who.repository.as_deref();
        self.repositories.is_empty() || repository.is_some_and(|it| matches(&self.repositories, it))
    }
}

fn matches(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

impl Ports {
    pub(super) fn hold(&self, flow: &Flow<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Default | Self::Destination if !flow.destination_ports.is_empty() => {
                flow.destination_ports.contains(&flow.port)
            }
            Self::Destination if flow.category != Category::Unknown => {
                flow.port == 443 && flow.attempt.default_port() == 443
            }
            Self::Default | Self::Destination => flow.port == flow.attempt.default_port(),
            Self::Listed(ports) => ports.contains(&flow.port),
        }
    }
}

impl Unless {
    /// Returns whether a flow matches a deny whose other conditions it meets. In an opaque tunnel
    /// nothing of this holds; in an inspected one each request is judged.
    fn fit(&self, flow: &Flow<'_>) -> Fit {
        let Attempt::Request { .. } = flow.attempt else {
            let opaque = !flow.inspected;
            return if opaque {
                Fit::Matches
            } else {
                Fit::Misses(Miss::Unless)
            };
        };
        let shown = flow
            .request_facts
            .map_or(&[][..], |request_facts| &request_facts.credentials);
        let foreign = |shown: &str| !self.credentials.iter().any(|own| **own == *shown);
        match self.min_age {
            _ if !self.credentials.is_empty() && shown.iter().any(|it| foreign(it)) => Fit::Matches,
            Some(age) => Fit::UnlessOld(age),
            None => Fit::Misses(Miss::Unless),
        }
    }
}
