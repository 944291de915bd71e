//! Proves `[[never]]` and `[[always]]` for every caller, host, port and request.
//!
//! An invariant is about flows, told by the words of a rule. The proof looks at each part of them
//! that the policy can tell apart (`compare`), so it is exact: the invariant holds, or a flow breaks
//! it, which the finding names. A policy with an invariant that does not hold, or that takes too long
//! to prove, does not load.
//!
//! What counts is what the rules say, as in trials: a tier in `observe` mode is looked at as if it
//! enforced. A tunnel that is not inspected carries any request and any path of its host, so it
//! counts as each of them. A network stands for the names that may resolve into it as well.
//!
//! A part has each combination of request facts that rules can name, also one that no method and
//! path have. So the proof may find a flow that no client can send, never the reverse. The flow of a
//! finding is decided again with the facts that the policy reads from its method and path; where no
//! such flow is found, the finding says so.

use std::cell::RefCell;

use ipnet::IpNet;

use crate::diag::{Diagnostic, Place};
use crate::name::Host;

use super::compare::{Outcome, Part, Selectors, Space};
use super::compiled::Policy;
use super::decide::Judgement;
use super::facts::Inspect;
use super::floor::Guard;
use super::invariant_rule::{Invariant, Kind};
use super::pattern::{HostPattern, TooComplex};
use super::regions::Point;
use super::rule::{Fit, Rule};
use super::source;
use super::verdict::{Decision, DeniedNetwork, Verdict};
use super::witness::Witness;
use super::{Attempt, Category};

/// Maximum number of branches of the tree of parts in one proof.
pub(super) const MAX_BRANCHES: usize = 200_000;
/// Maximum number of parts in which a request is searched for one broken invariant.
const MAX_SEARCHED: usize = 20;

/// A flow that breaks an invariant.
#[derive(Debug)]
pub(super) struct Broken {
    #[cfg(test)]
    pub(super) point: Point,
    pub(super) witness: Witness,
    decision: Decision,
    how: How,
    /// Whether a client can send the flow, as far as the facts are not in a body.
    pub(super) can_be_sent: bool,
}

/// The search for the flow that breaks one invariant.
#[derive(Default)]
struct Search {
    found: Option<Broken>,
    /// The number of parts that break the invariant by a request that no client is known to send.
    parts: usize,
}

/// The way in which an invariant covers a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum How {
    /// The flow itself.
    Itself,
    /// The tunnel is not inspected, and may carry such a request.
    Carries,
    /// The name may resolve into a network.
    Resolves,
}

/// Returns the broken invariants of a policy, and the exceptions of its files that break one. These
/// findings are errors: the policy must not load.
pub fn invariant_findings(source: &source::Policy, policy: &Policy) -> Vec<Diagnostic> {
    let Some((first, _)) = policy.invariants.first() else {
        return Vec::new();
    };
    let selectors = Selectors::new(&policy.invariants);
    let proof = Proof {
        policy,
        selectors: &selectors,
    };
    let broken = match proof.run() {
        Ok(broken) => broken,
        Err(TooComplex) => return vec![unproved(first)],
    };
    // A flow that rules already let pass is no fault of the exceptions.
    if !broken.is_empty() {
        let broken = broken.iter();
        return broken
            .map(|(invariant, broken)| finding(invariant, broken, source))
            .collect();
    }
    match policy.forbidden(&[], policy.exceptions()) {
        Ok(forbidden) => forbidden.iter().map(|it| it.finding(source)).collect(),
        Err(TooComplex) => vec![unproved(first)],
    }
}

/// Returns the flow that breaks the first broken invariant.
#[cfg(test)]
pub(super) fn first_broken(policy: &Policy) -> Option<Broken> {
    let selectors = Selectors::new(&policy.invariants);
    let proof = Proof {
        policy,
        selectors: &selectors,
    };
    let broken = proof.run().ok()?.into_iter().next();
    broken.map(|(_, broken)| broken)
}

pub(super) struct Proof<'p> {
    pub(super) policy: &'p Policy,
    pub(super) selectors: &'p Selectors<'p>,
}

impl<'p> Proof<'p> {
    /// Returns for each broken invariant the first flow that breaks it and that a client can send;
    /// if there is none, the first flow.
    fn run(&self) -> Result<Vec<(&'p Invariant, Broken)>, TooComplex> {
        let space = Space::new(&[self.policy], self.selectors)?;
        let invariants = &self.policy.invariants;
        let searches: Vec<RefCell<Search>> =
            invariants.iter().map(|_| RefCell::default()).collect();
        let is_open = |at: u32| {
            let search = searches.get(at as usize);
            search.is_some_and(|search| !search.borrow().is_over())
        };
        let keep = |part: &Part| {
            let mut open = part.selectors.iter().filter(|at| is_open(**at));
            open.any(|at| self.may_break(*at, part))
        };
        let mut is_cut = None;
        for part in space.parts(MAX_BRANCHES, keep) {
            let part = match part {
                Ok(part) => part,
                Err(error) => {
                    is_cut = Some(error);
                    break;
                }
            };
            let Some(outcome) = space.outcome(&part, 0) else {
                continue;
            };
            for at in part.selectors.iter().filter(|at| is_open(**at)) {
                let broken = self.breaks(*at, &space, &part, &outcome);
                if let (Some(broken), Some(search)) = (broken, searches.get(*at as usize)) {
                    search.borrow_mut().add(broken);
                }
            }
        }
        let found = searches.into_iter().map(|search| search.into_inner().found);
        let all = invariants.iter().zip(found);
        let broken: Vec<_> = all
            .filter_map(|((invariant, _), it)| Some((invariant, it?)))
            .collect();
        match is_cut {
            Some(error) if broken.is_empty() => Err(error.into()),
            _ => Ok(broken),
        }
    }

    /// Whether some flow of a branch may break an invariant.
    fn may_break(&self, at: u32, part: &Part) -> bool {
        let Some((invariant, _)) = self.policy.invariants.get(at as usize) else {
            return false;
        };
        if !self.selectors.names(at, part.host()) && !self.may_resolve(at, part) {
            return false;
        }
        if (invariant.kind, invariant.verdict) != (Kind::Never, Verdict::Allow) {
            return true;
        }
        if self.policy.has_reviewers() {
            return true;
        }
        let tiers = &self.policy.tiers;
        let allows = |tier| tiers.tier(tier).default == Verdict::Allow;
        let by_default = match part.tiers.first() {
            Some(tier) => allows(*tier),
            None => tiers.ids().any(allows),
        };
        let rules = part.rules.iter().flatten();
        // A request may be carried by its tunnel, whatever rules say of the request.
        by_default || part.is_request() && !part.tunnels.is_empty() || { rules }
            .any(|id| self.policy.rule(*id).is_some_and(Rule::is_allow))
    }

    /// Whether a name of a branch may resolve into a network of an invariant, whatever decides there.
    fn may_resolve(&self, at: u32, part: &Part) -> bool {
        let Some(rule) = self.selectors.rule(at) else {
            return false;
        };
        let rules = part.rules.iter().flatten();
        let rules = rules.filter_map(|id| self.policy.rule(*id));
        let granted: Vec<IpNet> = rules
            .flat_map(|rule| rule.grant.addresses.iter().copied())
            .collect();
        matches!(part.host(), Host::Name(_)) && resolves_into(rule, &[], &granted)
    }

    /// Returns the flow of a part, if it breaks an invariant.
    pub(super) fn breaks(
        &self,
        at: u32,
        space: &Space<'_>,
        part: &Part,
        outcome: &Outcome,
    ) -> Option<Broken> {
        let point = space.point(part, 0);
        let how = self.covers(at, &point, outcome)?;
        let confirmed = self.policy.requests_like(&point).find_map(|point| {
            let outcome = Outcome::of_point(self.policy, &point, self.selectors.live());
            let how = self.covers(at, &point, &outcome)?;
            Some((point, outcome, how))
        });
        let can_be_sent = confirmed.is_some();
        let (point, outcome, how) = confirmed.unwrap_or_else(|| (point, outcome.clone(), how));
        Some(Broken {
            witness: Witness::new(self.policy, &point),
            #[cfg(test)]
            point,
            decision: Decision::clone(&outcome.decision),
            how,
            can_be_sent,
        })
    }

    /// Returns the way in which an invariant covers a flow, if the outcome of the flow breaks it.
    fn covers(&self, at: u32, point: &Point, outcome: &Outcome) -> Option<How> {
        let (invariant, _) = self.policy.invariants.get(at as usize)?;
        let is_broken = match invariant.kind {
            Kind::Never => {
                outcome.ruled() == invariant.verdict
                    || invariant.verdict == Verdict::Allow && self.is_approvable(point, outcome)
            }
            Kind::Always => outcome.ruled() != invariant.verdict,
        };
        if !is_broken {
            return None;
        }
        self.how(at, point, &point.judge(self.policy), outcome)
    }

    /// Whether the flow is asked about and a reviewer may let it pass.
    fn is_approvable(&self, point: &Point, outcome: &Outcome) -> bool {
        let reviewed = self.policy.asking(point.who.tier).has_reviewers();
        outcome.ruled() == Verdict::Ask && reviewed
    }

    /// Returns the way in which an invariant covers a flow; `None` if it does not.
    fn how(
        &self,
        at: u32,
        point: &Point,
        judgement: &Judgement<'_>,
        outcome: &Outcome,
    ) -> Option<How> {
        let rule = self.selectors.rule(at)?;
        let flow = &judgement.flow;
        let is_tunnel = matches!(flow.attempt, Attempt::Connect);
        let is_opaque = is_tunnel && outcome.decision.inspect != Inspect::Yes;
        let how = match rule.fit(flow) {
            Fit::Matches => How::Itself,
            _ if is_opaque && self.carries(rule, point, judgement) => How::Carries,
            _ => return None,
        };
        if self.selectors.names(at, &point.target.host) {
            return Some(how);
        }
        if !matches!(point.target.host, Host::Name(_)) {
            return None;
        }
        let passes = outcome.ruled() != Verdict::Deny;
        let decision = &outcome.decision;
        let denied = decision.denied.as_deref().unwrap_or_default();
        let resolves = passes && resolves_into(rule, denied, &decision.addresses);
        resolves.then_some(How::Resolves)
    }

    /// Whether an opaque tunnel may carry a request that the rule covers.
    fn carries(&self, rule: &Rule, point: &Point, judgement: &Judgement<'_>) -> bool {
        let wanted = rule.to.categories;
        let label = self.policy.label(&point.target);
        let splits = label.entry.map_or(&[][..], |entry| &entry.splits);
        let mut possible = splits
            .iter()
            .map(|split| split.category)
            .chain([label.category]);
        let selects =
            wanted.is_empty() || possible.any(|category: Category| wanted.contains(category));
        let hidden = !rule.does.is_empty() || !wanted.is_empty();
        hidden
            && selects
            && rule.does.is_site(judgement.flow.site)
            && rule.to.ports.hold(&judgement.flow)
    }
}

/// Whether a name may resolve into a network of the rule, at an address that may be dialled: one in no
/// denied network, and public or in a granted one.
fn resolves_into(rule: &Rule, denied: &[DeniedNetwork], granted: &[IpNet]) -> bool {
    let is_denied = |address| denied.iter().any(|it| it.touches(address));
    let denied = denied.iter().map(|it| HostPattern::Network(it.network));
    let closed = crate::name::closed_networks().map(HostPattern::Network);
    let outside: Vec<HostPattern> = denied.chain(closed).collect();
    let special = crate::name::special_networks().map(HostPattern::Network);
    let public: Vec<HostPattern> = outside.iter().cloned().chain(special).collect();
    let guard = Guard::default();
    let may_dial = |host: Option<Host>| match host {
        Some(Host::Address(address)) => {
            !is_denied(address) && guard.lets_dial(address, 443, granted)
        }
        _ => false,
    };
    rule.to.networks.iter().any(|network| {
        let inner = granted.iter().filter_map(|grant| match () {
            () if network.contains(grant) => Some(*grant),
            () if grant.contains(network) => Some(*network),
            () => None,
        });
        let mut inner = inner.map(HostPattern::Network);
        let outside: Vec<&HostPattern> = outside.iter().collect();
        let public: Vec<&HostPattern> = public.iter().collect();
        may_dial(HostPattern::Network(*network).witness_outside(&public))
            || inner.any(|pattern| may_dial(pattern.witness_outside(&outside)))
    })
}

impl Search {
    fn is_over(&self) -> bool {
        let found = self.found.as_ref();
        found.is_some_and(|found| found.can_be_sent) || self.parts >= MAX_SEARCHED
    }

    fn add(&mut self, broken: Broken) {
        self.parts += 1;
        if self.found.is_none() || broken.can_be_sent {
            self.found = Some(broken);
        }
    }
}

impl Broken {
    /// Returns the reason why a flow counts although the invariant does not name it, or although no
    /// client is known to send it.
    pub(super) fn how(&self) -> Option<&'static str> {
        match self.how {
            _ if !self.can_be_sent => Some(
                "no method and path are known that have these facts: the proof takes each \
                 combination of facts that rules can name",
            ),
            How::Itself => None,
            How::Carries => {
                Some("that tunnel is not inspected, and may carry a request that this is about")
            }
            How::Resolves => Some("that name may resolve into a network that this names"),
        }
    }
}

fn finding(invariant: &Invariant, broken: &Broken, source: &source::Policy) -> Diagnostic {
    let ruled = broken.decision.would.unwrap_or(broken.decision.verdict);
    let does = match ruled {
        Verdict::Allow => "reach",
        Verdict::Ask if invariant.verdict == Verdict::Allow => {
            "may be allowed by a reviewer to reach"
        }
        Verdict::Ask => "may ask for",
        Verdict::Deny => "do not reach",
    };
    let decided = &broken.decision.rule;
    let message = format!(
        "{invariant} does not hold: {} {does} {} by {}",
        broken.witness.callers, broken.witness.flow, decided.name
    );
    let label = match broken.how() {
        Some(how) => how.to_owned(),
        None => format!("it says {} `{}`", word(invariant.kind), invariant.verdict),
    };
    let code = match invariant.kind {
        Kind::Always => "always-broken",
        Kind::Never => "never-broken",
    };
    let finding = Diagnostic::error(code, invariant.place.clone(), message)
        .label(label)
        .help(format!("{}; or mend the rule", broken.witness.to_see()));
    match place_of(source, &decided.name) {
        Some(place) => finding.related(place, format!("this rule says {ruled}")),
        None => finding,
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Always => "always",
        Kind::Never => "never",
    }
}

/// Returns the location of a rule.
fn place_of(source: &source::Policy, name: &str) -> Option<Place> {
    let mut rules = source.rules.iter();
    let rule = rules.find(|rule| rule.value.id.get_ref() == name)?;
    Some(rule.at(&rule.value.id))
}

fn unproved(invariant: &Invariant) -> Diagnostic {
    let kind = invariant.kind.as_str();
    let message = format!("the policy is too complex to prove `{kind}` and the like");
    Diagnostic::error("unproved", invariant.place.clone(), message)
        .label("this and the other invariants were not proved")
        .help("name fewer patterns with `*` in the rules that reach the same hosts, or take it out")
}
