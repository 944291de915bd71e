//! Finds the effect of each rule: whether it decides any flow, and where tunnels bypass it.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::diag::Diagnostic;

use super::compiled::Policy;
use super::decide::Stage;
use super::index::RuleId;
use super::inspection::Inspection;
use super::lint;
use super::pattern::{HostPattern, TooComplex};
use super::query::TierId;
use super::regions::{HostGroups, Region, Scope};
use super::rule::{Fit, Rule};
use super::source::{self, Placed};
use super::verdict::{Named, Verdict};

/// Maximum number of regions that are examined for one rule; beyond it, the result is unknown.
const MAX_REGIONS: usize = 400;

/// Maximum number of splits for one rule, about 10 µs each; beyond it, the result is unknown.
const MAX_SPLITS_OF_RULE: usize = 20_000;

/// Maximum number of splits for all rules of a policy; a warning names the remaining rules.
const MAX_SPLITS: usize = 400_000;

/// The effect of a rule.
#[derive(Clone, Debug)]
enum Reach {
    /// The rule decides some flow, or the result is unknown.
    Decides,
    /// Other rules with the same verdict decide each flow first: the rule has no effect.
    Shadowed(Arc<Named>),
    /// A deny or an ask decides each flow first.
    Overruled(Arc<Named>, Verdict),
    /// The floor refuses each flow: the address is private, and the rule grants none.
    Floored,
    /// No flow meets the conditions.
    Empty,
}

/// A rule that opaque tunnels of a tier bypass.
#[derive(Clone, Debug)]
pub struct Unenforced {
    /// The tier.
    pub tier: Arc<str>,
    /// The rule, or the list of the tier.
    pub rule: Arc<Named>,
    /// A host that such a tunnel reaches.
    pub host: String,
}

/// Searches the regions of a policy for the effect of its rules.
#[derive(Debug)]
struct Reaches<'p> {
    policy: &'p Policy,
    groups: HostGroups,
    /// The number of remaining splits.
    left: Cell<usize>,
}

impl<'p> Reaches<'p> {
    fn new(policy: &'p Policy) -> Self {
        Self {
            policy,
            groups: policy.host_groups(),
            left: Cell::new(MAX_SPLITS),
        }
    }

    /// Whether the splits for all rules are used up.
    fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    /// Visits the first regions of a scope. `Err` if there are more, or they are too complex.
    fn first_regions(
        &self,
        scope: Scope<'_>,
        mut visit: impl FnMut(Region) -> ControlFlow<()>,
    ) -> Result<(), TooComplex> {
        let scope = Scope {
            max_splits: Some(self.left.get().min(MAX_SPLITS_OF_RULE)),
            ..scope
        };
        let mut regions = self.policy.regions(&self.groups, scope);
        let mut result = Err(TooComplex);
        for _ in 0..MAX_REGIONS {
            let is_done = match regions.next() {
                None => true,
                Some(Err(_)) => break,
                Some(Ok(region)) => visit(region).is_break(),
            };
            if is_done {
                result = Ok(());
                break;
            }
        }
        self.left
            .set(self.left.get().saturating_sub(regions.splits()));
        result
    }

    /// Returns the effect of a rule.
    fn of(&self, id: RuleId) -> Reach {
        let Some(rule) = self.policy.rule(id) else {
            return Reach::Decides;
        };
        let scope = Scope {
            rule: Some(id),
            ..Scope::default()
        };
        let mut first = Reach::Empty;
        let looked = self.first_regions(scope, |region| {
            match (&first, self.in_region(rule, &region)) {
                (_, Some(Reach::Decides)) => {
                    first = Reach::Decides;
                    return ControlFlow::Break(());
                }
                (Reach::Empty | Reach::Shadowed(_), Some(reach)) => first = reach,
                (_, _) => {}
            }
            ControlFlow::Continue(())
        });
        looked.map_or(Reach::Decides, |()| first)
    }

    /// Returns the effect on the witness of a region; `None` if the rule does not match it.
    fn in_region(&self, rule: &Rule, region: &Region) -> Option<Reach> {
        let judgement = region.witness.judge(self.policy);
        let stage = judgement.stage();
        let fit = rule.fit(&judgement.flow);
        match (stage, fit) {
            (Stage::Rule(decides), _) if Arc::ptr_eq(&decides.named, &rule.named) => {
                Some(Reach::Decides)
            }
            (_, Fit::Misses(_)) => None,
            // The age decides, after the rules.
            (Stage::Rule(decides), Fit::UnlessOld(_)) if decides.verdict != Verdict::Deny => {
                Some(Reach::Decides)
            }
            (Stage::Rule(decides), _) => Some(if decides.verdict == rule.verdict {
                Reach::Shadowed(decides.named.clone())
            } else {
                Reach::Overruled(decides.named.clone(), decides.verdict)
            }),
            (Stage::Floor, _) => Some(Reach::Floored),
            (Stage::Exception(_) | Stage::Default | Stage::Narrowed, _) => Some(Reach::Decides),
        }
    }

    /// Returns each tier in which tunnels bypass a rule that denies or asks by request facts.
    fn unenforced(&self, id: RuleId) -> Vec<Unenforced> {
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

    /// Returns a tunnel to the rule's destination that is not inspected and may pass.
    fn escape(&self, id: RuleId, rule: &Rule, tier: TierId) -> Option<Unenforced> {
        let scope = Scope {
            rule: Some(id),
            tier: Some(tier),
            tunnels: true,
            ..Scope::default()
        };
        let is_open = |region: &Region| {
            let judgement = region.witness.judge(self.policy);
            let passes = match judgement.stage() {
                Stage::Rule(decides) => decides.verdict != Verdict::Deny,
                Stage::Default => judgement.tier.default != Verdict::Deny,
                Stage::Exception(_) | Stage::Floor | Stage::Narrowed => false,
            };
            let is_about = rule.reaches(&judgement.flow) && rule.to.ports.hold(&judgement.flow);
            // Without `raw`, a tunnel to port 80 carries no plain HTTP.
            let is_https = judgement.flow.port != 80;
            is_https && passes && is_about && !matches!(judgement.inspection, Inspection::Yes)
        };
        let mut found = None;
        // If not all regions were examined, the examined ones count.
        let _ = self.first_regions(scope, |region| {
            if is_open(&region) {
                found = Some(region);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        Some(Unenforced {
            tier: self.policy.tier_name(tier).clone(),
            rule: rule.named.clone(),
            host: found?.witness.target.host.to_string(),
        })
    }
}

/// Returns the rules that decide no flow, and the rules that tunnels bypass, as warnings; and the
/// second kind also as a list, by tier, with the lists of tiers. Slower than compiling: for
/// `check`. The time is bounded: a warning names the first rule that is not examined.
pub fn reach_findings(
    source: &source::Policy,
    policy: &Policy,
) -> (Vec<Diagnostic>, Vec<Unenforced>) {
    let (mut findings, mut escapes) = (Vec::new(), Vec::new());
    let reaches = Reaches::new(policy);
    for (id, rule) in (0..).zip(&source.rules) {
        if reaches.is_spent() {
            findings.push(not_compared(rule, source.rules.len() - id as usize));
            break;
        }
        let reach = reaches.of(id);
        // `same-rule` already reports twins.
        let mut before = source
            .rules
            .iter()
            .take_while(|other| !std::ptr::eq(*other, rule));
        let mut is_twin = || before.any(|other| lint::same(&other.value, &rule.value));
        if !matches!(reach, Reach::Decides) && !is_twin() {
            findings.push(useless(rule, &reach));
        }
        let found = reaches.unenforced(id);
        findings.extend(unenforced(rule, &found));
        escapes.extend(found);
    }
    let first_list = u32::try_from(source.rules.len()).unwrap_or(u32::MAX);
    let all = u32::try_from(policy.rules.len()).unwrap_or(u32::MAX);
    escapes.extend((first_list..all).flat_map(|id| reaches.unenforced(id)));
    escapes.sort_by_key(|it| policy.tier(&it.tier));
    (findings, escapes)
}

/// The warning that the rules from this one on were not examined.
fn not_compared(rule: &Placed<source::Rule>, count: usize) -> Diagnostic {
    let id = rule.value.id.get_ref();
    let message = match count {
        1 => format!("rule `{id}` was not compared with the others"),
        _ => format!(
            "rule `{id}` and the {} after it were not compared",
            count - 1
        ),
    };
    Diagnostic::warning("not-compared", rule.at(&rule.value.id), message)
        .label("the policy is too large to look for rules that never decide")
        .help("the rules are in force; `tidegate explain URL` shows which one decides")
}

/// The warning about a rule that decides no flow, with the reason.
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

/// Returns the remedy for conditions that exclude each other.
fn excluded(rule: &Placed<source::Rule>) -> String {
    let to = &rule.value.to;
    if to.hosts.is_empty() || to.categories.is_empty() {
        return "remove the condition that excludes the others".into();
    }
    "`to.hosts` and `to.categories` must both hold: leave `to.categories` out, or label the hosts by \
     a `[[destination]]`"
        .into()
}

/// Returns the grant to write for the networks that a rule names.
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

/// The warning about a rule that opaque tunnels of some tiers bypass.
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
