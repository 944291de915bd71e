//! A compiled, immutable policy.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::name::{Host, Path, Target};

use super::caller::Membership;
use super::catalogue::Catalogue;
use super::category::Category;
use super::directory::Directory;
use super::exception::Exception;
use super::facts::RequestFacts;
use super::floor::Guard;
use super::flow::Flow;
use super::index::{HostMap, RuleId};
use super::invariant_rule::{Invariant, Selector};
use super::query::{GroupId, GroupSet, TierId, Who};
use super::routing::{Inspected, TlsRouting};
use super::rule::Rule;
use super::servers::Servers;
use super::service::Published;
use super::tiers::Tiers;
use super::trial::Trial;
use super::verdict::{AddressRefusal, Decision, Mode, Named};

/// A compiled, immutable policy.
#[derive(Debug)]
pub struct Policy {
    pub(super) tiers: Tiers,
    pub(super) callers: Membership,
    /// Rules in the written order, then the entries of the tiers' lists.
    pub(super) rules: Vec<Rule>,
    /// Number of rules written as `[[rule]]`.
    pub(super) written: usize,
    pub(super) hosts: HostMap,
    /// Rules without hosts, by tier, then by category; `[[rule]]` before the tier's lists.
    pub(super) hostless: Vec<[Box<[RuleId]>; Category::ALL.len()]>,
    /// Deny rules with networks.
    pub(super) network_denies: Box<[RuleId]>,
    pub(super) destinations: Directory,
    pub(super) catalogue: Catalogue,
    /// The agents in use, if `[catalogue]` names them.
    pub(super) agents: Option<Box<[Arc<str>]>>,
    pub(super) servers: Servers,
    pub(super) routing: TlsRouting,
    pub(super) inspected: Inspected,
    /// Whether some rule has `grant.inspect`.
    pub(super) some_rule_inspects: bool,
    /// The name in records if the floor decides.
    pub(super) floor: Arc<Named>,
    /// The name in records if the limits of a session decide.
    pub(super) narrowed: Arc<Named>,
    pub(super) no_addresses: Arc<[IpNet]>,
    /// The exceptions of the files.
    pub(super) exceptions: Vec<Arc<Exception>>,
    pub(super) trials: Vec<Trial>,
    /// `[[never]]` and `[[always]]`, each with the rule that matches its flows.
    pub(super) invariants: Vec<(Invariant, Selector)>,
}

impl Policy {
    /// Judges a resolved or literal address, for a flow that `decision` lets pass.
    pub fn judge_address(
        &self,
        decision: &Decision,
        address: IpAddr,
        port: u16,
        guard: &Guard,
    ) -> Result<(), AddressRefusal> {
        if let Some(rule) = decision.denies(address) {
            return Err(AddressRefusal::Denied(rule.clone()));
        }
        if guard.lets_dial(address, port, &decision.addresses) {
            return Ok(());
        }
        Err(AddressRefusal::Floor)
    }

    /// Whether an address may be dialled: like [`Self::judge_address`], but if the tier observes, a
    /// denied network is only recorded.
    pub fn lets_dial(
        &self,
        decision: &Decision,
        address: IpAddr,
        port: u16,
        guard: &Guard,
    ) -> bool {
        match self.judge_address(decision, address, port, guard) {
            Ok(()) => true,
            Err(AddressRefusal::Denied(_)) => {
                decision.mode == Mode::Observe
                    && guard.lets_dial(address, port, &decision.addresses)
            }
            Err(AddressRefusal::Floor) => false,
        }
    }

    /// Returns where a registry publishes the age of a requested version.
    pub fn published(
        &self,
        request_facts: &RequestFacts,
        target: &Target,
        path: &Path,
    ) -> Published {
        self.catalogue
            .services
            .published(request_facts, target, path)
    }

    /// The exceptions of the files, including expired ones.
    pub fn exceptions(&self) -> &[Arc<Exception>] {
        &self.exceptions
    }

    /// Sets every tier to observe: only the floor is still enforced.
    pub fn observe(&mut self) {
        self.tiers.observe();
    }

    /// Removes the reviewers of every tier: asks are refused at once and file no request.
    pub fn remove_reviewers(&mut self) {
        self.tiers.remove_reviewers();
    }

    /// Whether the policy is enforced for a caller, not only observed.
    pub fn enforces(&self, who: &Who) -> bool {
        who.enforced || self.tiers.tier(who.tier).mode == Mode::Enforce
    }

    /// Whether an opaque tunnel of a tier may begin with an encrypted client hello (RFC 9849).
    pub fn allows_ech(&self, tier: TierId) -> bool {
        self.tiers.tier(tier).ech
    }

    /// The names of the tiers, loosest first.
    pub fn tiers(&self) -> &[Arc<str>] {
        &self.tiers.names
    }

    /// Returns the tier with a name.
    pub fn tier(&self, name: &str) -> Option<TierId> {
        self.tiers.find(name)
    }

    /// The name of a tier.
    pub fn tier_name(&self, tier: TierId) -> &Arc<str> {
        &self.tiers.tier(tier).name
    }

    /// Returns the group with a name.
    pub fn group(&self, name: &str) -> Option<GroupId> {
        self.callers.find(name)
    }

    /// The names of the groups in a set.
    pub fn group_names(&self, groups: GroupSet) -> impl Iterator<Item = &Arc<str>> {
        groups
            .ids()
            .filter_map(|id| Some(&self.callers.groups.get(usize::from(id.0))?.name))
    }

    /// Whether an MCP server without TLS is listed at a target, which is a loopback address.
    pub fn has_plain_server(&self, target: &Target) -> bool {
        self.servers.is_plain_at(target)
    }

    /// Number of written rules.
    pub fn rule_count(&self) -> usize {
        self.written
    }

    /// Number of flows in the examples of rules and in the trials, each for all its callers.
    pub fn trial_count(&self) -> usize {
        self.trials.iter().map(|trial| trial.callers.len()).sum()
    }

    /// Number of hosts and networks in the rules.
    pub fn host_count(&self) -> usize {
        self.rules.iter().map(|rule| rule.to.hosts).sum()
    }

    /// Whether some rule compares credentials (`unless.credentials`).
    pub fn asks_credentials(&self) -> bool {
        let unless = self.rules.iter().filter_map(|rule| rule.unless.as_ref());
        unless
            .into_iter()
            .any(|unless| !unless.credentials.is_empty())
    }

    /// The catalogue of the policy.
    pub fn built_over(&self) -> Catalogue {
        self.catalogue.clone()
    }

    pub(super) fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(id as usize)
    }

    /// Visits the rules that may match a flow: rules for its host, most specific first, then rules
    /// without hosts.
    pub(super) fn each_rule<'p>(
        &'p self,
        host: &Host,
        flow: &Flow<'_>,
        mut visit: impl FnMut(&'p Rule),
    ) {
        self.hosts.each(host, |id| {
            if let Some(rule) = self.rule(id) {
                visit(rule);
            }
        });
        let tier = usize::from(flow.who.tier.0);
        let Some(lists) = self.hostless.get(tier).or(self.hostless.last()) else {
            return;
        };
        // A rule of several categories is visited several times; the result is the same.
        let own = std::iter::once(flow.category);
        let others = flow.categories.iter().filter(|it| *it != flow.category);
        for category in own.chain(others) {
            let list = lists.get(category as usize).map_or(&[][..], |list| list);
            list.iter()
                .filter_map(|id| self.rule(*id))
                .for_each(&mut visit);
        }
    }
}
