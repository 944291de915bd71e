//! Decides the flows of an exception without the exception.

use std::sync::Arc;

use crate::ledger::Grant;
use crate::name::Target;

use super::caller::Facts;
use super::compiled::Policy;
use super::pattern::HostPattern;
use super::query::{Attempt, Query, Who};
use super::verdict::{Named, Verdict};

/// The decision about one host of an exception, without any exception.
#[derive(Clone, Debug, PartialEq)]
pub struct Retested {
    /// A host and port of the exception.
    pub target: String,
    /// The verdict of the rules.
    pub verdict: Verdict,
    /// The rule that decides.
    pub rule: Arc<Named>,
}

impl Policy {
    /// Decides one tunnel to each host of an exception by the rules alone, for a caller of the
    /// exception. For `*.suffix` and networks, one host represents all.
    pub fn retest(&self, grant: &Grant) -> Vec<Retested> {
        let who = self.caller_of(grant);
        let port = grant.to.ports.first().copied().unwrap_or(443);
        let hosts = grant.to.hosts.iter();
        let targets = hosts.filter_map(|host| {
            let host = match HostPattern::parse(host).ok()? {
                HostPattern::Below(name) => format!("any.{}", name.as_str()),
                HostPattern::Exact(name) => name.as_str().to_owned(),
                HostPattern::Network(network) if network.addr().is_ipv6() => {
                    format!("[{}]", network.addr())
                }
                HostPattern::Network(network) => network.addr().to_string(),
            };
            Target::from_connect(format!("{host}:{port}").as_bytes()).ok()
        });
        targets
            .map(|target| {
                let decision = self.decide(&Query {
                    who: &who,
                    target: &target,
                    attempt: Attempt::Connect,
                });
                Retested {
                    target: target.to_string(),
                    verdict: decision.would.unwrap_or(decision.verdict),
                    rule: decision.rule,
                }
            })
            .collect()
    }

    /// Returns a caller of an exception: in its first tier and group, of its first repository and
    /// subject.
    fn caller_of(&self, grant: &Grant) -> Who {
        let from = &grant.from;
        let groups: Vec<Arc<str>> = from
            .groups
            .iter()
            .take(1)
            .map(|it| it.as_str().into())
            .collect();
        let plain = |text: &&String| !text.contains('*');
        let repository = from.repositories.iter().find(plain);
        let repository: Option<Arc<str>> = repository.map(|it| it.as_str().into());
        let subject = from.subjects.iter().find(plain);
        let who = self.who(&Facts {
            subject: subject.map_or("", String::as_str),
            groups: &groups,
            repository: repository.as_ref(),
            ..Facts::default()
        });
        let tier = from.tiers.iter().find_map(|name| self.tier(name));
        Who {
            tier: tier.unwrap_or(who.tier),
            ..who
        }
    }
}
