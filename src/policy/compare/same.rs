//! Branches that two policies decide in the same way, found without visiting their flows.
//!
//! The decision depends on the rules that may match, on the tier, and on the policy's facts about
//! the host. If all three are the same in both policies, no flow differs.

use std::collections::HashMap;
use std::fmt::Write;

use crate::name::{Host, Target};
use crate::policy::compiled::Policy;
use crate::policy::conditions::NamedConditions;
use crate::policy::index::RuleId;
use crate::policy::pattern::Pattern;
use crate::policy::query::{GroupSet, TierId};
use crate::policy::rule::Rule;
use crate::policy::servers::ServerId;

/// The content of rules, as numbers that are equal for equal content.
#[derive(Debug, Default)]
pub(super) struct Meanings {
    /// For each policy and rule: with its callers, and without them.
    rules: Vec<Vec<[u32; 2]>>,
    /// For each policy and tier: with its reviewers, and without them.
    tiers: Vec<Vec<[String; 2]>>,
}

impl Meanings {
    pub(super) fn new(policies: &[&Policy]) -> Self {
        let mut known: HashMap<String, u32> = HashMap::new();
        let mut number = |text: String| {
            let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
            *known.entry(text).or_insert(next)
        };
        let rules = policies.iter().map(|policy| {
            let rules = policy.rules.iter().map(|rule| {
                let bare = requests(policy, rule);
                let whole = format!("{}{bare}", callers(policy, rule));
                [number(whole), number(bare)]
            });
            rules.collect()
        });
        let rules = rules.collect();
        let tiers = policies.iter().map(|policy| {
            let tiers = policy.tiers.ids();
            let of = |tier| {
                let bare = of_tier(policy, tier);
                [format!("{bare}{}", asking(policy, tier)), bare]
            };
            tiers.map(of).collect()
        });
        Self {
            rules,
            tiers: tiers.collect(),
        }
    }

    /// Whether each policy has the same rules in the same order.
    pub(super) fn are_same(&self, rules: &[Vec<RuleId>], with_callers: bool) -> bool {
        let meaning = |side: usize, id: &RuleId| {
            let of = self.rules.get(side).and_then(|all| all.get(*id as usize));
            of.map(|[whole, bare]| if with_callers { *whole } else { *bare })
        };
        let Some((first, others)) = rules.split_first() else {
            return true;
        };
        (1..).zip(others).all(|(side, other)| {
            let first = first.iter().map(|id| meaning(0, id));
            first.eq(other.iter().map(|id| meaning(side, id)))
        })
    }

    /// Whether a tier is the same in each policy. `asks`: the reviewers count.
    pub(super) fn are_same_tiers(&self, tiers: &[TierId], asks: bool) -> bool {
        let of = |(side, tier): (usize, &TierId)| {
            self.tiers
                .get(side)
                .and_then(|all| all.get(usize::from(tier.0)))
                .map(|it| of_meaning(it, asks))
        };
        let mut all = tiers.iter().enumerate().map(of);
        let first = all.next();
        all.all(|it| Some(it) == first)
    }

    /// Whether all tiers are the same in each policy, one after the other. `asks`: the reviewers
    /// count.
    pub(super) fn all_tiers_are_same(&self, asks: bool) -> bool {
        let of = |it| of_meaning(it, asks);
        self.tiers.windows(2).all(|pair| match pair {
            [one, other] => one.iter().map(of).eq(other.iter().map(of)),
            _ => true,
        })
    }
}

/// Whether all policies treat a host in the same way.
pub(super) fn say_the_same_of(policies: &[&Policy], host: &Host) -> bool {
    let mut all = policies.iter().map(|policy| of_host(policy, host));
    let first = all.next();
    all.all(|it| Some(it) == first)
}

fn callers(policy: &Policy, rule: &Rule) -> String {
    let from = &rule.from;
    let tiers = policy.tiers.ids();
    let tiers = tiers.filter(|tier| from.tiers & tier.bit() != 0);
    let tiers: Vec<&str> = tiers.map(|tier| &**policy.tier_name(tier)).collect();
    let mut groups: Vec<&str> = policy
        .group_names(GroupSet(from.groups))
        .map(|name| &**name)
        .collect();
    groups.sort_unstable();
    format!(
        "{tiers:?}{groups:?}{:?}{:?}",
        from.repositories, from.subjects
    )
}

/// Formats everything in a rule except callers and hosts.
fn requests(policy: &Policy, rule: &Rule) -> String {
    let (to, does) = (&rule.to, &rule.does);
    let unless = rule.unless.as_deref().map(|unless| {
        let credentials = &unless.credentials;
        format!("{:?}{credentials:?}", unless.min_age)
    });
    let paths: Vec<_> = does
        .paths
        .iter()
        .filter_map(|path| path.patterns().next())
        .collect();
    let mut text = format!(
        "{:?}{}{:?}{:?}{:?}{:?}{:?}{paths:?}{unless:?}{:?}",
        rule.verdict,
        rule.is_list,
        to.categories,
        to.ports,
        to.networks,
        does.actions,
        does.methods,
        rule.grant,
    );
    if let Some(named) = does.named.as_deref() {
        let _ = write!(text, "{}", of_names(policy, named));
    }
    text
}

fn of_names(policy: &Policy, named: &NamedConditions) -> String {
    let server = |id: &ServerId| {
        let server = policy.servers.get(*id);
        server.map(|it| {
            (
                it.name.clone(),
                it.target.to_string(),
                it.path.path().to_owned(),
            )
        })
    };
    let servers: Vec<_> = named.servers.iter().map(server).collect();
    format!(
        "{servers:?}{:?}{:?}{:?}{:?}{:?}{:?}",
        named.operations,
        named.repositories,
        named.packages,
        named.refs,
        named.tools,
        named.mcp_methods
    )
}

fn of_meaning([asking, bare]: &[String; 2], asks: bool) -> &str {
    if asks { asking } else { bare }
}

/// Formats the reviewers of a tier, and the limits of their approvals.
fn asking(policy: &Policy, tier: TierId) -> String {
    let reviewers: Vec<_> = policy.reviewers(tier).collect();
    let asking = policy.asking(tier);
    let bounds = (
        asking.approvals,
        asking.not_oneself,
        asking.max_approval,
        asking.hold,
        &asking.first_reader,
    );
    format!("{reviewers:?}{bounds:?}")
}

fn of_tier(policy: &Policy, tier: TierId) -> String {
    let tier = policy.tiers.tier(tier);
    format!(
        "{:?}{:?}{}{}{:?}",
        tier.mode, tier.default, tier.opaque, tier.ech, tier.inspect
    )
}

fn of_host(policy: &Policy, host: &Host) -> String {
    let target = Target {
        host: host.clone(),
        port: 443,
    };
    let label = policy.label(&target);
    let splits = label.entry.map_or(&[][..], |entry| &entry.splits);
    let splits: Vec<_> = splits
        .iter()
        .map(|split| {
            let pattern = split.pattern.patterns().next();
            (split.category, pattern.map(Pattern::as_str), split.upgrade)
        })
        .collect();
    let categories = policy.possible_categories(&target);
    let upstreams: Vec<_> = categories
        .iter()
        .map(|category| policy.routing.upstream(host, category))
        .collect();
    let inspected: Vec<bool> = categories
        .iter()
        .map(|category| policy.routing.inspects(host, category))
        .collect();
    let servers = policy
        .servers
        .all()
        .filter(|server| server.target.host == *host);
    let servers: Vec<_> = servers
        .map(|it| (&it.name, it.target.port, it.path.path()))
        .collect();
    format!(
        "{:?}{:?}{:?}{splits:?}{upstreams:?}{inspected:?}{servers:?}",
        label.category,
        label.ports,
        policy.service_of(&target),
    )
}
