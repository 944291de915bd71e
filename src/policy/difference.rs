//! The exact difference of two policies, grouped for a reader.
//!
//! Both policies are split into the same parts (`compare`). For each part that the two decide
//! differently, the outcomes are compared: whether the flow passes, and what it may do besides.
//! Parts with the same two outcomes by the same rules are one [`Change`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::asking::Asking;
use super::compare::{Incomplete, Kind, Outcome, Part, Selectors, Space};
use super::compiled::Policy;
use super::facts::Inspect;
use super::pattern::PortSet;
use super::query::TierId;
use super::regions::Point;
use super::reviewer::NamedReviewer;
use super::verdict::{Decision, Verdict};
use super::witness::Witness;

/// Maximum number of branches of the tree of parts that one comparison visits.
const MAX_BRANCHES: usize = 2_000_000;
/// Maximum number of branches for [`difference_within`] if a gate waits for the result.
pub const QUICK: usize = 50_000;
/// Maximum number of different changes that are kept.
const MAX_CHANGES: usize = 2_000;
/// Maximum number of named hosts, callers and requests of one change.
pub const MAX_NAMED: usize = 4;

/// The difference of two policies.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The relation of the second policy to the first.
    pub relation: Relation,
    /// The changes: those that widen first.
    pub changes: Vec<Change>,
    /// The parts that could not be compared; empty if the comparison is complete.
    pub not_compared: Vec<String>,
}

/// The relation of one policy to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// Every flow has the same decision.
    Equal,
    /// No flow reaches more, some reach less.
    Narrower,
    /// No flow reaches less, some reach more.
    Wider,
    /// Some flows reach more, some less; or flows were not compared, and may do so.
    Both,
    /// Every flow reaches the same, but not in the same way (another `[upstream.NAME]`, or a refusal
    /// that is only observed).
    SameReach,
}

/// Flows with the same change of outcome, by the same rules.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// Whether some flow reaches more.
    pub widens: bool,
    /// Whether some flow reaches less.
    pub narrows: bool,
    /// The outcome of the flows in the first policy.
    pub before: Ruling,
    /// The outcome of the flows in the second policy.
    pub after: Ruling,
    /// Further changes for a flow that passes, e.g. `may reach private addresses in 10.2.0.0/16`.
    pub besides: Vec<String>,
    /// The tiers of the callers, as the second policy names them.
    pub tiers: Vec<Arc<str>>,
    /// The tiers of the same callers in the first policy.
    pub tiers_before: Vec<Arc<str>>,
    /// The callers, unless all are affected; at most [`MAX_NAMED`] are named.
    pub callers: Vec<String>,
    /// The number of host patterns of the flows; 0: only hosts that neither policy names.
    pub host_count: usize,
    /// The first of these patterns.
    pub hosts: Vec<String>,
    /// Whether hosts that neither policy names are affected.
    pub other_hosts: bool,
    /// The ports: `443`, `80, 443`, `all`.
    pub ports: String,
    /// `tunnels`, `https`, `http`: the kinds of flows.
    pub kinds: Vec<Kind>,
    /// Examples of requests; at most [`MAX_NAMED`].
    pub requests: Vec<String>,
    /// One of the flows, with its decision in the second policy.
    pub witness: Witness,
}

/// The outcome of a flow.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Ruling {
    /// The verdict of the rules: `allow`, `ask`, `deny`.
    pub verdict: Verdict,
    /// Whether the refusal is only observed, so that the flow passes.
    pub observed: bool,
    /// The rule, the list or the default of a tier, or the floor.
    pub rule: Arc<str>,
    /// The location of the rule; empty for the floor.
    pub location: Arc<str>,
    /// Whether an uninspected tunnel carries the request.
    pub by_tunnel: bool,
}

/// The changes for the flows of one part.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Delta {
    widens: bool,
    narrows: bool,
    besides: Vec<String>,
}

/// The facts that the parts of one change share.
type Key = (Delta, Ruling, Ruling);

/// The parts of one change.
struct Gathered {
    /// The tiers of the callers, in the first and in the second policy.
    tiers: [BTreeSet<TierId>; 2],
    callers: BTreeSet<String>,
    all_callers: bool,
    hosts: BTreeSet<usize>,
    ports: PortSet,
    kinds: BTreeSet<Kind>,
    requests: BTreeSet<String>,
    witness: Witness,
}

/// Compares two policies: what changes from `before` to `after`.
pub fn difference(before: &Policy, after: &Policy) -> Difference {
    difference_within(before, after, MAX_BRANCHES)
}

/// Like [`difference`], with at most `branches` branches: the rest is reported as not compared.
pub fn difference_within(before: &Policy, after: &Policy, branches: usize) -> Difference {
    let selectors = Selectors::default();
    let mut not_compared = Vec::new();
    let mut gathered: BTreeMap<Key, Gathered> = BTreeMap::new();
    let space = match Space::new(&[before, after], &selectors) {
        Ok(space) => space,
        Err(error) => {
            return Difference {
                relation: Relation::Both,
                changes: Vec::new(),
                not_compared: vec![format!("callers: {error}")],
            };
        }
    };
    for part in space.parts(branches, |part| !space.is_same(part)) {
        let part = match part {
            Ok(_) if gathered.len() > MAX_CHANGES => {
                not_compared.push(Incomplete::Rest.to_string());
                break;
            }
            Ok(part) => part,
            Err(error) => {
                let text = error.to_string();
                if !not_compared.contains(&text) {
                    not_compared.push(text);
                }
                continue;
            }
        };
        let (Some(one), Some(other)) = (space.outcome(&part, 0), space.outcome(&part, 1)) else {
            continue;
        };
        if let Some(delta) = delta(&space, &part, &one, &other) {
            gather(&mut gathered, &space, &part, delta, &one, &other);
        }
    }
    let mut changes: Vec<Change> = gathered
        .into_iter()
        .map(|(key, gathered)| change(&space, key, gathered))
        .collect();
    changes.sort_by_key(|change| (!change.widens, !change.narrows));
    Difference {
        relation: relation(&changes, not_compared.is_empty()),
        changes,
        not_compared,
    }
}

impl Difference {
    /// Formats the difference in one line of at most `most` bytes: the relation, then the changes.
    pub fn in_words(&self, most: usize) -> String {
        let mut text = self.relation.as_str().to_owned();
        let changes = self.changes.iter().map(Change::in_words);
        let open = self
            .not_compared
            .iter()
            .map(|it| format!("not compared: {it}"));
        let total = self.changes.len() + self.not_compared.len();
        for (at, words) in changes.chain(open).enumerate() {
            let gap = if at == 0 { ": " } else { "; " };
            if text.len() + gap.len() + words.len() + 12 > most {
                let _ = write!(text, "{gap}{} more", total - at);
                break;
            }
            text.push_str(gap);
            text.push_str(&words);
        }
        text
    }
}

impl Relation {
    /// Returns the word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Narrower => "narrower",
            Self::Wider => "wider",
            Self::Both => "both",
            Self::SameReach => "same-reach",
        }
    }
}

impl Change {
    /// Formats `allow instead of deny for wiki.example at 443 in standard by web
    /// (policy/web.toml:8)`.
    fn in_words(&self) -> String {
        let tiers: Vec<&str> = self.tiers.iter().map(|tier| &**tier).collect();
        let mut hosts = self.hosts.join(", ");
        let more = self.host_count.saturating_sub(self.hosts.len());
        if more > 0 {
            let _ = write!(hosts, " and {more} more");
        }
        if self.other_hosts {
            hosts.push_str(" and hosts that are not named");
        }
        let what = if self.before.verdict == self.after.verdict {
            self.besides.join(", ")
        } else {
            format!("{} instead of {}", self.after.verdict, self.before.verdict)
        };
        let place = match &*self.after.location {
            "" => String::new(),
            location => format!(" ({location})"),
        };
        format!(
            "{what} for {hosts} at {} in {} by {}{place}",
            self.ports,
            tiers.join(", "),
            self.after.rule
        )
    }
}

/// Returns the relation by the changes. Flows that were not compared may reach more, and less.
fn relation(changes: &[Change], is_complete: bool) -> Relation {
    let widens = changes.iter().any(|change| change.widens);
    let narrows = changes.iter().any(|change| change.narrows);
    match (widens || !is_complete, narrows || !is_complete) {
        (true, true) => Relation::Both,
        (true, false) => Relation::Wider,
        (false, true) => Relation::Narrower,
        (false, false) if changes.is_empty() => Relation::Equal,
        (false, false) => Relation::SameReach,
    }
}

/// Returns the changes for the flows of a part; `None` if there are none.
fn delta(space: &Space<'_>, part: &Part, before: &Outcome, after: &Outcome) -> Option<Delta> {
    let (one, other) = (&before.decision, &after.decision);
    let mut delta = Delta {
        narrows: other.verdict > one.verdict,
        widens: other.verdict < one.verdict,
        besides: Vec::new(),
    };
    let observed = |decision: &Decision| decision.would;
    if one.verdict == other.verdict && observed(one) != observed(other) {
        delta.besides.push(match other.would {
            Some(_) => "passes, and its refusal is only observed".to_owned(),
            None => "passes without an observed refusal".to_owned(),
        });
    }
    let both_pass = one.verdict != Verdict::Deny && other.verdict != Verdict::Deny;
    let one_passes = one.verdict != Verdict::Deny || other.verdict != Verdict::Deny;
    if both_pass {
        delta.compare_addresses(one, other);
        delta.compare_flags(part, before, after);
    }
    if one.verdict == Verdict::Ask && other.verdict == Verdict::Ask {
        delta.compare_asking(space, part);
    }
    // A tunnel has the category of its host, a request that of its path.
    let comparable = before.by_tunnel == after.by_tunnel;
    if one_passes && comparable && one.category != other.category {
        delta.widens |= other.verdict != Verdict::Deny;
        delta.narrows |= one.verdict != Verdict::Deny;
        delta.besides.push(format!(
            "category {} instead of {}, for sessions that are narrowed by category",
            other.category, one.category
        ));
    }
    let is_judged = !before.by_tunnel && !after.by_tunnel;
    if let Some(readers) = space.readers(part).filter(|_| is_judged && one_passes) {
        delta.widens |= other.verdict != Verdict::Deny;
        delta.narrows |= one.verdict != Verdict::Deny;
        let [one, other] = readers.map(|it| it.unwrap_or("no service"));
        delta.besides.push(format!(
            "what requests do is read by {other} instead of {one}"
        ));
    }
    (delta != Delta::default()).then_some(delta)
}

impl Delta {
    fn compare_addresses(&mut self, before: &Decision, after: &Decision) {
        let (less, more) = set_change(&before.addresses, &after.addresses);
        self.widen(!more.is_empty(), || {
            format!("may reach private addresses in {}", listed(&more))
        });
        self.narrow(!less.is_empty(), || {
            format!("may no longer reach private addresses in {}", listed(&less))
        });
        let denied = |decision: &Decision| -> Vec<IpNet> {
            let all = decision.denied.iter().flat_map(|all| all.iter());
            all.map(|it| it.network).collect()
        };
        let (opened, closed) = set_change(&denied(before), &denied(after));
        self.widen(!opened.is_empty(), || {
            format!("may resolve into {}", listed(&opened))
        });
        self.narrow(!closed.is_empty(), || {
            format!("may no longer resolve into {}", listed(&closed))
        });
    }

    /// Compares the approvals that reviewers may give to a flow that requires one in both policies.
    fn compare_asking(&mut self, space: &Space<'_>, part: &Part) {
        let sides: Vec<_> = space.policies.iter().zip(&part.tiers).collect();
        let [(before, old), (after, new)] = sides[..] else {
            return;
        };
        let reviewers = [before.reviewers(*old), after.reviewers(*new)];
        let [had, has] = reviewers.map(Iterator::collect::<Vec<_>>);
        let (lost, gained) = (only_in(&had, &has), only_in(&has, &had));
        self.widen(!gained.is_empty(), || {
            format!("reviewers may allow it: {}", gained.join(", "))
        });
        self.narrow(!lost.is_empty(), || {
            format!("reviewers may no longer allow it: {}", lost.join(", "))
        });
        if had.is_empty() || has.is_empty() {
            return;
        }
        let (old, new) = (before.asking(*old), after.asking(*new));
        let needed = || format!("{} approvals instead of {}", new.approvals, old.approvals);
        self.widen(new.approvals < old.approvals, needed);
        self.narrow(new.approvals > old.approvals, needed);
        self.flag(!old.not_oneself, !new.not_oneself, "by one's own approval");
        let seconds = |it: &Asking| it.max_approval.as_secs();
        let max_approval = || {
            format!(
                "approvals of {} s instead of {}",
                seconds(new),
                seconds(old)
            )
        };
        self.widen(new.max_approval > old.max_approval, max_approval);
        self.narrow(new.max_approval < old.max_approval, max_approval);
        self.compare_first_readers(old, new);
        if new.hold != old.hold {
            let (new, old) = (new.hold.as_secs(), old.hold.as_secs());
            self.besides
                .push(format!("waits {new} s for an answer instead of {old}"));
        }
    }

    /// Compares the programs of `first-reader`. A program can only deny, but it runs as the user of the
    /// gate: a new program counts as wider as well as narrower.
    fn compare_first_readers(&mut self, old: &Asking, new: &Asking) {
        let name = |it: &Asking| it.first_reader.as_deref().map(|words| words.join(" "));
        let (old, new) = (name(old), name(new));
        if old == new {
            return;
        }
        self.widens = true;
        self.narrows |= new.is_some();
        let or_none = |it: Option<String>| it.unwrap_or_else(|| "no program".to_owned());
        let (old, new) = (or_none(old), or_none(new));
        self.besides
            .push(format!("read first by {new} instead of {old}"));
    }

    fn compare_flags(&mut self, part: &Part, before: &Outcome, after: &Outcome) {
        let (one, other) = (&before.decision, &after.decision);
        let is_tunnel = part.kind() == Kind::Tunnel;
        if is_tunnel {
            self.flag(one.raw, other.raw, "bytes that are not TLS");
            let sealed = |it: &Decision| it.inspect != Inspect::Yes;
            self.flag(sealed(one), sealed(other), "TLS without inspection");
            let ech = |it: &Outcome| it.ech && sealed(&it.decision);
            if sealed(one) && sealed(other) {
                self.flag(ech(before), ech(after), "an encrypted client hello");
            }
        } else if !before.by_tunnel && !after.by_tunnel {
            self.flag(one.upgrade, other.upgrade, "an upgrade to another protocol");
        }
        let least = |it: &Decision| it.min_age.as_ref().map_or(Duration::ZERO, |age| age.least);
        let (young, old) = (least(one), least(other));
        let days = |age: Duration| age.as_secs() / 86_400;
        self.widen(old < young, || {
            format!("packages of {} days instead of {}", days(old), days(young))
        });
        self.narrow(old > young, || {
            format!(
                "packages only of {} days instead of {}",
                days(old),
                days(young)
            )
        });
        if one.upstream != other.upstream {
            let name = |it: &Decision| it.upstream.clone().unwrap_or_else(|| "the default".into());
            self.besides.push(format!(
                "TLS onward by upstream {} instead of {}",
                name(other),
                name(one)
            ));
        }
    }

    fn flag(&mut self, before: bool, after: bool, what: &str) {
        self.widen(after && !before, || format!("may pass {what}"));
        self.narrow(before && !after, || format!("may no longer pass {what}"));
    }

    fn widen(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if holds {
            self.widens = true;
            self.besides.push(words());
        }
    }

    fn narrow(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if holds {
            self.narrows = true;
            self.besides.push(words());
        }
    }
}

/// Returns the reviewers of the first list that are not in the second.
fn only_in<'p>(some: &[NamedReviewer<'p>], others: &[NamedReviewer<'p>]) -> Vec<&'p str> {
    let new = some.iter().filter(|it| !others.contains(it));
    new.map(|(written, _)| *written).collect()
}

/// Returns the networks that only the first, and that only the second list covers.
fn set_change(before: &[IpNet], after: &[IpNet]) -> (Vec<IpNet>, Vec<IpNet>) {
    let before = IpNet::aggregate(&before.to_vec());
    let after = IpNet::aggregate(&after.to_vec());
    let only = |these: &[IpNet], those: &[IpNet]| -> Vec<IpNet> {
        let covered = |net: &&IpNet| those.iter().any(|around| around.contains(*net));
        these.iter().filter(|net| !covered(net)).copied().collect()
    };
    (only(&before, &after), only(&after, &before))
}

fn listed(networks: &[IpNet]) -> String {
    let texts: Vec<String> = networks
        .iter()
        .take(MAX_NAMED)
        .map(ToString::to_string)
        .collect();
    let more = networks.len().saturating_sub(MAX_NAMED);
    if more == 0 {
        return texts.join(", ");
    }
    format!("{} and {more} more", texts.join(", "))
}

fn ruling(outcome: &Outcome) -> Ruling {
    let decision = &outcome.decision;
    Ruling {
        verdict: outcome.ruled(),
        observed: decision.would.is_some(),
        rule: decision.rule.name.clone(),
        location: decision.rule.location.clone(),
        by_tunnel: outcome.by_tunnel,
    }
}

fn gather(
    gathered: &mut BTreeMap<Key, Gathered>,
    space: &Space<'_>,
    part: &Part,
    delta: Delta,
    before: &Outcome,
    after: &Outcome,
) {
    let key = (delta, ruling(before), ruling(after));
    let point = space.point(part, 1);
    let policy = space.policies.get(1).copied();
    let Some(policy) = policy else { return };
    let known = gathered.entry(key).or_insert_with(|| Gathered {
        tiers: Default::default(),
        callers: BTreeSet::new(),
        all_callers: false,
        hosts: BTreeSet::new(),
        ports: PortSet::default(),
        kinds: BTreeSet::new(),
        requests: BTreeSet::new(),
        witness: {
            let sendable = sendable(space, part, before, after);
            Witness::new(policy, sendable.as_ref().unwrap_or(&point))
        },
    });
    for (tiers, tier) in known.tiers.iter_mut().zip(&part.tiers) {
        tiers.insert(*tier);
    }
    match Witness::kind_of_caller(policy, &point.who) {
        Some(kind) => {
            if known.callers.len() <= MAX_NAMED {
                known.callers.insert(kind);
            }
        }
        None => known.all_callers = true,
    }
    known.hosts.insert(part.hosts);
    known.ports = known.ports.union(&part.ports);
    known.kinds.insert(part.kind());
    if part.kind() != Kind::Tunnel && known.requests.len() <= MAX_NAMED {
        known.requests.insert(Witness::request(&point));
    }
}

/// Returns a flow that a client can send and that both policies decide as the flows of a part, if one
/// is found.
fn sendable(space: &Space<'_>, part: &Part, before: &Outcome, after: &Outcome) -> Option<Point> {
    let [one, other] = space.policies[..] else {
        return None;
    };
    let old = space.point(part, 0);
    let is_like = |policy: &Policy, point: &Point, outcome: &Outcome| {
        ruling(&Outcome::of_point(policy, point, None)) == ruling(outcome)
    };
    let new = space.point(part, 1);
    let mut found = other.requests_like(&new);
    found.find(|new| {
        let was = match &new.request {
            Some(request) => one.with_head(&old, &request.method, request.path.clone()),
            None => Some(old.clone()),
        };
        is_like(other, new, after) && was.is_some_and(|old| is_like(one, &old, before))
    })
}

fn change(space: &Space<'_>, key: Key, gathered: Gathered) -> Change {
    let (delta, before, ruled) = key;
    let sets = gathered
        .hosts
        .iter()
        .map(|at| space.hosts.named(*at, MAX_NAMED));
    let (mut host_count, mut hosts, mut other_hosts) = (0, BTreeSet::new(), false);
    for (count, named, others) in sets {
        host_count += count;
        other_hosts |= others;
        hosts.extend(named);
    }
    let sides = space.policies.iter().zip(&gathered.tiers);
    let mut tiers = sides.map(|(policy, tiers)| -> Vec<Arc<str>> {
        let names = tiers.iter().map(|tier| policy.tier_name(*tier).clone());
        names.collect()
    });
    let (tiers_before, tiers) = (tiers.next(), tiers.next());
    let callers = if gathered.all_callers {
        BTreeSet::new()
    } else {
        gathered.callers
    };
    Change {
        widens: delta.widens,
        narrows: delta.narrows,
        before,
        after: ruled,
        besides: delta.besides,
        tiers: tiers.unwrap_or_default(),
        tiers_before: tiers_before.unwrap_or_default(),
        callers: callers.into_iter().take(MAX_NAMED).collect(),
        host_count,
        hosts: hosts.into_iter().take(MAX_NAMED).collect(),
        other_hosts,
        ports: gathered.ports.to_string(),
        kinds: gathered.kinds.into_iter().collect(),
        requests: gathered.requests.into_iter().take(MAX_NAMED).collect(),
        witness: gathered.witness,
    }
}
