//! What becomes of the flows of one rule: whether the rule decides some, and where tunnels escape it.

use std::sync::Arc;

use crate::diag::Diagnostic;

use super::compiled::Policy;
use super::decide::Stage;
use super::index::RuleId;
use super::inspection::Inspection;
use super::lint;
use super::pattern::HostPattern;
use super::query::TierId;
use super::regions::{HostGroups, Region, Scope};
use super::rule::{Fit, Rule};
use super::source::{self, Placed};
use super::verdict::{Named, Verdict};

/// The most regions that are looked at for one rule; where they are more, nothing is claimed.
const MAX_REGIONS: usize = 400;

/// The most hosts of a policy whose rules are looked at: the groups of more take too long to load.
const MAX_HOSTS: usize = 50_000;

/// What becomes of the flows of a rule.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    /// The rule decides some flow, or whether it does is not known.
    Decides,
    /// Other rules with the same verdict decide each flow first: the rule makes no difference.
    Shadowed(Arc<Named>),
    /// A deny or an ask decides each flow first.
    Overruled(Arc<Named>, Verdict),
    /// The floor refuses each flow: the address is private, and the rule grants none.
    Floored,
    /// No flow meets the conditions.
    Empty,
}

/// A rule that opaque tunnels of a tier escape.
#[derive(Clone, Debug)]
pub struct Unenforced {
    /// The tier.
    pub tier: Arc<str>,
    /// The rule, or the list of the tier.
    pub rule: Arc<Named>,
    /// A host that such a tunnel reaches.
    pub host: String,
}

/// The rules of a policy, followed through its regions.
#[derive(Debug)]
pub(super) struct Reaches<'p> {
    policy: &'p Policy,
    groups: HostGroups,
}

impl Policy {
    /// The rules that deny or ask by what a request does and that tunnels escape, by tier: TLS is
    /// not inspected there, and the tunnel passes. Nothing for policies that name very many hosts.
    pub fn unenforced(&self) -> Vec<Unenforced> {
        let Some(reaches) = Reaches::new(self) else {
            return Vec::new();
        };
        let ids = 0..u32::try_from(self.rules.len()).unwrap_or(0);
        let rules = ids.flat_map(|id| reaches.unenforced(id));
        let mut found: Vec<Unenforced> = rules.collect();
        found.sort_by_key(|it| self.tier(&it.tier));
        found
    }
}

impl<'p> Reaches<'p> {
    /// `None` where the policy names too many hosts.
    pub(super) fn new(policy: &'p Policy) -> Option<Self> {
        (policy.host_count() <= MAX_HOSTS).then(|| Self {
            policy,
            groups: policy.host_groups(),
        })
    }

    /// What becomes of the flows of a rule.
    pub(super) fn of(&self, id: RuleId) -> Reach {
        let Some(rule) = self.policy.rule(id) else {
            return Reach::Decides;
        };
        let scope = Scope {
            rule: Some(id),
            ..Scope::default()
        };
        let mut first: Option<Reach> = None;
        for (count, region) in self.policy.regions(&self.groups, scope).enumerate() {
            let (Ok(region), true) = (region, count < MAX_REGIONS) else {
                return Reach::Decides;
            };
            let Some(reach) = self.in_region(rule, &region) else {
                continue;
            };
            first = match (first, reach) {
                (_, Reach::Decides) => return Reach::Decides,
                (None | Some(Reach::Shadowed(_)), reach) => Some(reach),
                (first, _) => first,
            };
        }
        first.unwrap_or(Reach::Empty)
    }

    /// What becomes of the witness of a region; `None` where the rule does not match it.
    fn in_region(&self, rule: &Rule, region: &Region) -> Option<Reach> {
        let judgement = region.witness.judge(self.policy);
        let stage = judgement.stage();
        let fit = rule.fit(&judgement.flow);
        match (stage, fit) {
            (Stage::Rule(decides), _) if Arc::ptr_eq(&decides.named, &rule.named) => {
                Some(Reach::Decides)
            }
            (_, Fit::Misses(_)) => None,
            // The age decides, behind the rules.
            (Stage::Rule(decides), Fit::UnlessOld(_)) if decides.verdict != Verdict::Deny => {
                Some(Reach::Decides)
            }
            (Stage::Rule(decides), _) => Some(if decides.verdict == rule.verdict {
                Reach::Shadowed(decides.named.clone())
            } else {
                Reach::Overruled(decides.named.clone(), decides.verdict)
            }),
            (Stage::Floor, _) => Some(Reach::Floored),
            (Stage::Default | Stage::Narrowed, _) => Some(Reach::Decides),
        }
    }

    /// Each tier in which tunnels escape a rule that denies or asks by what a request does.
    pub(super) fn unenforced(&self, id: RuleId) -> Vec<Unenforced> {
        let conditional = |rule: &&Rule| !rule.is_allow() && !rule.does.is_empty();
        let Some(rule) = self.policy.rule(id).filter(conditional) else {
            return Vec::new();
        };
        let tiers = self.policy.tiers.ids();
        tiers
            .filter(|tier| rule.from.tiers & tier.bit() != 0)
            .filter_map(|tier| self.escape(id, rule, tier))
            .collect()
    }

    /// A tunnel that reaches what the rule is about, is not inspected, and may pass.
    fn escape(&self, id: RuleId, rule: &Rule, tier: TierId) -> Option<Unenforced> {
        let scope = Scope {
            rule: Some(id),
            tier: Some(tier),
            tunnels: true,
            ..Scope::default()
        };
        let regions = self.policy.regions(&self.groups, scope).take(MAX_REGIONS);
        let mut open = regions.flatten().filter(|region| {
            let judgement = region.witness.judge(self.policy);
            let passes = match judgement.stage() {
                Stage::Rule(decides) => decides.verdict != Verdict::Deny,
                Stage::Default => judgement.tier.default != Verdict::Deny,
                Stage::Floor | Stage::Narrowed => false,
            };
            let is_about = rule.reaches(&judgement.flow) && rule.to.ports.hold(&judgement.flow);
            // Without `raw` a tunnel to port 80 carries no plain HTTP.
            let is_https = judgement.flow.port != 80;
            is_https && passes && is_about && !matches!(judgement.inspection, Inspection::Yes)
        });
        let region = open.next()?;
        Some(Unenforced {
            tier: self.policy.tier_name(tier).clone(),
            rule: rule.named.clone(),
            host: region.witness.target.host.to_string(),
        })
    }
}

/// The rules that decide no flow, and those that tunnels escape, as warnings. Slower than
/// compiling: for `check`. Nothing for policies that name very many hosts.
pub fn reach_findings(source: &source::Policy, policy: &Policy) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let reaches = (!source.rules.is_empty()).then(|| Reaches::new(policy));
    let Some(reaches) = reaches.flatten() else {
        return findings;
    };
    for (id, rule) in (0..).zip(&source.rules) {
        let reach = reaches.of(id);
        // `same-rule` says it of twins.
        let mut before = source
            .rules
            .iter()
            .take_while(|other| !std::ptr::eq(*other, rule));
        let mut is_twin = || before.any(|other| lint::same(&other.value, &rule.value));
        if !matches!(reach, Reach::Decides) && !is_twin() {
            findings.push(useless(rule, &reach));
        }
        findings.extend(unenforced(rule, &reaches.unenforced(id)));
    }
    findings
}

/// A rule that decides no flow, and why.
fn useless(rule: &Placed<source::Rule>, reach: &Reach) -> Diagnostic {
    let id = rule.value.id.get_ref();
    let (code, is) = match reach {
        Reach::Shadowed(_) => ("shadowed", "makes no difference"),
        _ => ("never-matches", "can never match"),
    };
    let place = |named: &Named| format!("{} ({})", named.name, named.location);
    let (label, help) = match reach {
        Reach::Shadowed(named) => (
            format!("{} says the same first", place(named)),
            "leave it out, or let it name more hosts, ports or requests than the other".into(),
        ),
        Reach::Overruled(named, Verdict::Deny) => (
            format!("denied first by {}", place(named)),
            "a deny is final: narrow it, or leave this rule out".into(),
        ),
        Reach::Overruled(named, _) => (
            format!("{} decides first", place(named)),
            "an ask comes before an allow: narrow it, or leave this rule out".into(),
        ),
        Reach::Floored => (
            "refused by the floor: the destination is private, and no rule grants it".into(),
            granted(rule),
        ),
        Reach::Decides | Reach::Empty => (
            "no caller, host, port and request meets all its conditions".into(),
            excluded(rule),
        ),
    };
    let message = format!("rule `{id}` {is}");
    Diagnostic::warning(code, rule.at(&rule.value.id), message)
        .label(label)
        .help(help)
}

/// What to do about conditions of which each flow misses one.
fn excluded(rule: &Placed<source::Rule>) -> String {
    let to = &rule.value.to;
    if to.hosts.is_empty() || to.categories.is_empty() {
        return "take out the condition that excludes the others".into();
    }
    "`to.hosts` and `to.categories` must both hold: leave `to.categories` out, or label the hosts by \
     a `[[destination]]`"
        .into()
}

/// The grant to write for the networks that a rule names.
fn granted(rule: &Placed<source::Rule>) -> String {
    let hosts = rule.value.to.hosts.iter();
    let networks = hosts.filter(|host| {
        matches!(
            HostPattern::parse(host.get_ref()),
            Ok(HostPattern::Network(_))
        )
    });
    let networks: Vec<String> = networks.map(|it| format!("\"{}\"", it.get_ref())).collect();
    if networks.is_empty() || !rule.value.grant.addresses.is_empty() {
        return "write the private networks of the host: `grant.addresses = [\"10.2.0.0/16\"]`"
            .into();
    }
    format!(
        "write `grant.addresses = [{}]` beside `to.hosts`",
        networks.join(", ")
    )
}

/// A rule that opaque tunnels of some tiers escape.
fn unenforced(rule: &Placed<source::Rule>, found: &[Unenforced]) -> Option<Diagnostic> {
    let first = found.first()?;
    let tiers: Vec<String> = found.iter().map(|it| format!("`{}`", it.tier)).collect();
    let message = format!(
        "rule `{}` is not enforced in {} {}",
        rule.value.id.get_ref(),
        if tiers.len() == 1 { "tier" } else { "tiers" },
        tiers.join(", "),
    );
    let help = format!(
        "write `grant.inspect = true` in the rule that allows {}, or `opaque = \"deny\"` in the tier",
        first.host
    );
    Some(
        Diagnostic::warning("not-enforced", rule.at(&rule.value.id), message)
            .label(format!(
                "a tunnel to {} passes without inspection",
                first.host
            ))
            .help(help),
    )
}
