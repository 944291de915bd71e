//! The hosts of allow rules without a label in a `[[destination]]` or the catalogue.

use crate::name::{Host, HostName, Target};

use super::compiled::Policy;
use super::pattern::HostPattern;
use super::verdict::{Basis, Verdict};

/// The hosts of allow rules without a label: records have `unknown` for them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Unlabelled {
    /// The first hosts, by name, as rules write them.
    pub hosts: Vec<String>,
    /// The number of such hosts.
    pub count: usize,
}

/// Maximum number of hosts that are listed.
const MAX_NAMED: usize = 10;

impl Policy {
    /// Returns the hosts of allow rules without a label. Networks are left out: they stand for
    /// private addresses more often than for a service.
    pub fn unlabelled(&self) -> Unlabelled {
        let patterns = self.hosts.patterns(|_| true);
        let mut hosts: Vec<String> = patterns
            .filter(|pattern| self.is_unlabelled(pattern))
            .map(|pattern| pattern.to_string())
            .collect();
        hosts.sort_unstable();
        let count = hosts.len();
        hosts.truncate(MAX_NAMED);
        Unlabelled { hosts, count }
    }

    fn is_unlabelled(&self, pattern: &HostPattern) -> bool {
        let name = match pattern {
            HostPattern::Exact(name) => Some(name.clone()),
            HostPattern::Below(name) => HostName::parse(format!("x.{name}").as_bytes()).ok(),
            HostPattern::Network(_) => None,
        };
        let Some(host) = name.map(Host::Name) else {
            return false;
        };
        let mut is_allowed = false;
        self.hosts.each(&host, |id| {
            is_allowed |= self
                .rule(id)
                .is_some_and(|rule| rule.verdict == Verdict::Allow);
        });
        let target = Target { host, port: 443 };
        is_allowed && self.label(&target).basis == Basis::None
    }
}

impl Unlabelled {
    /// Returns a `[[destination]]` that labels them. The category is a guess: only the author knows
    /// it.
    pub fn destination(&self) -> String {
        let hosts: Vec<String> = self
            .hosts
            .iter()
            .map(|host| format!("  {host:?},\n"))
            .collect();
        format!(
            "[[destination]]\ncategory = \"webfetch\"\nhosts = [\n{}]\nreason = \"\"\n",
            hosts.concat()
        )
    }
}
