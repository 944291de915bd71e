//! One compiled, immutable policy.

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

/// One compiled, immutable policy.
#[derive(Debug)]
pub struct Policy {
    pub(super) tiers: Tiers,
    pub(super) callers: Membership,
    /// Rules in the order in which they were written, then the entries of the tiers' lists.
    pub(super) rules: Vec<Rule>,
    /// How many of them were written as `[[rule]]`.
    pub(super) written: usize,
    pub(super) hosts: HostMap,
    /// Rules without hosts, by tier, then by category; `[[rule]]` before the tier's lists.
    pub(super) hostless: Vec<[Box<[RuleId]>; Category::ALL.len()]>,
    /// Deny rules with networks.
    pub(super) network_denies: Box<[RuleId]>,
    pub(super) destinations: Directory,
    pub(super) catalogue: Catalogue,
    /// The agents in use, where `[catalogue]` names them.
    pub(super) agents: Option<Box<[Arc<str>]>>,
    pub(super) servers: Servers,
    pub(super) routing: TlsRouting,
    pub(super) inspected: Inspected,
    /// Whether some rule has `grant.inspect`.
    pub(super) some_rule_inspects: bool,
    /// What a record names when the floor decides.
    pub(super) floor: Arc<Named>,
    /// What a record names when a session's own limits decide.
    pub(super) narrowed: Arc<Named>,
    pub(super) no_addresses: Arc<[IpNet]>,
    /// The exceptions of the files.
    pub(super) exceptions: Vec<Arc<Exception>>,
    pub(super) trials: Vec<Trial>,
    /// `[[never]]` and `[[always]]`, each with the rule that matches the flows it is about.
    pub(super) invariants: Vec<(Invariant, Selector)>,
}

impl Policy {
    /// Judges an address that a name resolved to (or that was asked for literally), for a flow that
    /// `decision` lets pass.
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

    /// Whether an address may be dialled: as [`Self::judge_address`], except that a denied network
    /// only counts for the record where the tier observes.
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

    /// Where a registry tells how old the version is that a request asks for.
    pub fn published(&self, deed: &RequestFacts, target: &Target, path: &Path) -> Published {
        self.catalogue.services.published(deed, target, path)
    }

    /// The exceptions of the files, also those that have ended.
    pub fn exceptions(&self) -> &[Arc<Exception>] {
        &self.exceptions
    }

    /// Observes in every tier: nothing is enforced any more, but the floor.
    pub fn observe(&mut self) {
        self.tiers.observe();
    }

    /// Whether what the policy does not let a caller do is denied, not only observed.
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

    /// The tier of that name.
    pub fn tier(&self, name: &str) -> Option<TierId> {
        self.tiers.find(name)
    }

    /// The name of a tier.
    pub fn tier_name(&self, tier: TierId) -> &Arc<str> {
        &self.tiers.tier(tier).name
    }

    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<GroupId> {
        self.callers.find(name)
    }

    /// The names of the groups in a set.
    pub fn group_names(&self, groups: GroupSet) -> impl Iterator<Item = &Arc<str>> {
        groups
            .ids()
            .filter_map(|id| Some(&self.callers.groups.get(usize::from(id.0))?.name))
    }

    /// Whether an MCP server without TLS is listed at a target: a loopback address of this machine.
    pub fn has_plain_server(&self, target: &Target) -> bool {
        self.servers.is_plain_at(target)
    }

    /// How many rules were written.
    pub fn rule_count(&self) -> usize {
        self.written
    }

    /// How many flows the examples of rules and the trials name, each for all its callers.
    pub fn trial_count(&self) -> usize {
        self.trials.iter().map(|trial| trial.callers.len()).sum()
    }

    /// How many hosts and networks the rules name.
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

    /// The catalogue that it was compiled over.
    pub fn built_over(&self) -> Catalogue {
        self.catalogue.clone()
    }

    pub(super) fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(id as usize)
    }

    /// Visits the rules that may match a flow: those that name its host, most specific first, then
    /// those without hosts.
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
        // A rule that several categories lead to is visited several times, to the same end.
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
