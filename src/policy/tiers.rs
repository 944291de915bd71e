//! Tiers: their order, their modes, and their lists as clauses.

use std::sync::Arc;

use toml::Spanned;

use crate::diag::Diagnostic;

use super::clause::{Clause, Ports};
use super::compile::{Findings, named, unknown};
use super::conditions::Conditions;
use super::decide::TierId;
use super::passage::{self, Categories};
use super::source::{self, Placed};
use super::verdict::{Mode, Named, Reason, Verdict};
use super::{Action, Category};

/// As many tiers as a policy can have.
pub(super) const MOST_TIERS: usize = 16;

/// The tiers, loosest first. There is always a strictest: what names no tier gets that one.
#[derive(Debug)]
pub(super) struct Tiers {
    pub(super) names: Vec<Arc<str>>,
    pub(super) unattributed: TierId,
    looser: Vec<Tier>,
    strictest: Tier,
}

/// What one tier says apart from its lists.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) name: Arc<str>,
    pub(super) mode: Mode,
    pub(super) default: Verdict,
    /// What a record names when the default decides.
    pub(super) named: Arc<Named>,
    /// Whether allows that need what is not seen match all the same.
    pub(super) opaque: bool,
    /// Whether an opaque tunnel may begin with an encrypted client hello.
    pub(super) ech: bool,
    /// The categories that are inspected.
    pub(super) inspect: Categories,
}

impl Tiers {
    pub(super) fn tier(&self, id: TierId) -> &Tier {
        self.looser
            .get(usize::from(id.0))
            .unwrap_or(&self.strictest)
    }

    /// Enforces nothing any more.
    pub(super) fn observe(&mut self) {
        for tier in self.looser.iter_mut().chain([&mut self.strictest]) {
            tier.mode = Mode::Observe;
        }
    }

    pub(super) fn strictest(&self) -> TierId {
        TierId(u8::try_from(self.looser.len()).unwrap_or(u8::MAX))
    }

    pub(super) fn find(&self, name: &str) -> Option<TierId> {
        let at = self.names.iter().position(|known| **known == *name)?;
        u8::try_from(at).ok().map(TierId)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = TierId> {
        (0..=self.strictest().0).map(TierId)
    }

    /// The tier that a name stands for, or a finding.
    pub(super) fn resolve<T>(
        &self,
        placed: &Placed<T>,
        name: &Spanned<String>,
        findings: &mut Findings,
    ) -> Option<TierId> {
        let found = self.find(name.get_ref());
        if found.is_none() {
            let known = self.names.iter().map(|known| &**known);
            findings.push(unknown("tier", placed.at(name), name.get_ref(), known));
        }
        found
    }
}

/// Compiles `[tiers]` and `[tier.NAME]`; the clauses are the entries of the tiers' lists.
pub(super) fn compile(
    source: &source::Policy,
    findings: &mut Findings,
) -> Option<(Tiers, Vec<Clause>)> {
    let Some(written) = &source.tiers else {
        let (name, tier) = source.tier.first()?;
        let all: Vec<String> = source
            .tier
            .iter()
            .map(|(name, _)| format!("\"{}\"", name.get_ref()))
            .collect();
        findings.push(
            Diagnostic::error(
                "tiers-missing",
                tier.at(name),
                format!("tier `{}` has no place in an order", name.get_ref()),
            )
            .label("no `[tiers]` says how strict it is")
            .help(format!(
                "write `[tiers]` with `order = [{}]`, loosest first",
                all.join(", ")
            )),
        );
        return None;
    };
    refuse_doubles(source, written, findings);
    let mut tiers = Vec::new();
    let mut clauses = Vec::new();
    for (at, name) in written.value.order.iter().enumerate().take(MOST_TIERS) {
        let Some((_, tier)) = source.tier.iter().find(|(known, _)| known == name) else {
            findings.push(
                Diagnostic::error(
                    "tier-missing",
                    written.at(name),
                    format!("tier `{}` is in the order but says nothing", name.get_ref()),
                )
                .label("no table of that name")
                .help(format!("write `[tier.{}]`", name.get_ref())),
            );
            continue;
        };
        let reader = TierReader {
            name: name.get_ref(),
            tier,
            bit: 1 << at,
        };
        tiers.push(reader.tier(findings));
        clauses.extend(reader.clauses(findings));
    }
    let names: Vec<_> = tiers.iter().map(|tier| tier.name.clone()).collect();
    let strictest = tiers.pop()?;
    let mut tiers = Tiers {
        names,
        unattributed: TierId(0),
        looser: tiers,
        strictest,
    };
    tiers.unattributed = match &written.value.unattributed {
        Some(name) => tiers.resolve(written, name, findings)?,
        None => tiers.strictest(),
    };
    Some((tiers, clauses))
}

/// Finds what is wrong with the order as a whole.
fn refuse_doubles(
    source: &source::Policy,
    written: &Placed<source::Tiers>,
    findings: &mut Findings,
) {
    let order = &written.value.order;
    if order.is_empty() {
        findings.push(
            Diagnostic::error(
                "tiers-empty",
                written.place(),
                "a policy needs at least one tier",
            )
            .label("the order is empty")
            .help("write e.g. `order = [\"open\", \"standard\", \"restricted\"]`"),
        );
    }
    if let Some(beyond) = order.get(MOST_TIERS) {
        findings.push(
            Diagnostic::error(
                "too-many-tiers",
                written.at(beyond),
                "there are more than 16 tiers",
            )
            .label("the seventeenth")
            .help("a tier is how much a repository may be exposed: three are usual"),
        );
    }
    for (at, name) in order.iter().enumerate() {
        if let Some(first) = order.iter().take(at).find(|first| *first == name) {
            findings.push(
                Diagnostic::error(
                    "tier-twice",
                    written.at(name),
                    format!("tier `{}` is in the order twice", name.get_ref()),
                )
                .label("again here")
                .related(written.at(first), "first here"),
            );
        }
    }
    for (at, (name, tier)) in source.tier.iter().enumerate() {
        if let Some((first, place)) = source.tier.iter().take(at).find(|(first, _)| first == name) {
            findings.push(
                Diagnostic::error(
                    "tier-twice",
                    tier.at(name),
                    format!("tier `{}` is written twice", name.get_ref()),
                )
                .label("again here")
                .related(place.at(first), "first here"),
            );
        }
        if !order.contains(name) {
            let known = order.iter().map(|name| name.get_ref().as_str());
            let mut finding = unknown("tier", tier.at(name), name.get_ref(), known);
            finding.message = format!("tier `{}` is not in the order", name.get_ref());
            findings.push(finding.related(written.place(), "the order is here"));
        }
    }
}

/// Reads one `[tier.NAME]`.
struct TierReader<'a> {
    name: &'a str,
    tier: &'a Placed<source::Tier>,
    bit: u16,
}

impl TierReader<'_> {
    fn tier(&self, findings: &mut Findings) -> Tier {
        let modes = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
        let verdicts = [
            ("deny", Verdict::Deny),
            ("ask", Verdict::Ask),
            ("allow", Verdict::Allow),
        ];
        let written = &self.tier.value;
        let mut word = Words {
            placed: self.tier,
            findings,
        };
        let mode = word.read("mode", written.mode.as_ref(), Mode::Enforce, modes);
        let default = word.read("default", written.default.as_ref(), Verdict::Deny, verdicts);
        let passes = [("allow", true), ("deny", false)];
        let opaque = word.read("opaque", written.opaque.as_ref(), true, passes);
        let ech = word.read("ech", written.ech.as_ref(), true, passes);
        let place = written
            .default
            .as_ref()
            .map_or_else(|| self.tier.place(), |at| self.tier.at(at));
        Tier {
            name: self.name.into(),
            mode,
            default,
            named: named(format!("tier.{}.default", self.name), &place),
            opaque,
            ech,
            inspect: self.inspect(findings),
        }
    }

    fn inspect(&self, findings: &mut Findings) -> Categories {
        let written = &self.tier.value.inspect;
        match written.iter().find(|word| word.get_ref() == "all") {
            Some(_) => Categories::ALL,
            None => passage::categories(self.tier, written, findings),
        }
    }

    fn clauses(&self, findings: &mut Findings) -> Vec<Clause> {
        let written = &self.tier.value;
        let lists = [
            ("deny", Verdict::Deny, &written.deny),
            ("ask", Verdict::Ask, &written.ask),
            ("allow", Verdict::Allow, &written.allow),
        ];
        let mut clauses = Vec::new();
        for (word, verdict, items) in lists {
            let Some(first) = items.first() else { continue };
            let named = named(format!("tier.{}.{word}", self.name), &self.tier.at(first));
            for item in items {
                if let Some((category, action)) = read_item(self.tier, item, findings) {
                    clauses.push(self.clause(named.clone(), verdict, category, action));
                }
            }
        }
        clauses
    }

    fn clause(
        &self,
        named: Arc<Named>,
        verdict: Verdict,
        category: Category,
        action: Option<Action>,
    ) -> Clause {
        Clause {
            named,
            verdict,
            reason: match (verdict, action) {
                (Verdict::Allow, _) => Reason::Allowed,
                (Verdict::Ask, _) => Reason::NeedsApproval,
                (Verdict::Deny, None) => Reason::CategoryDenied,
                (Verdict::Deny, Some(_)) => Reason::ActionDenied,
            },
            tiers: self.bit,
            groups: 0,
            category: Some(category),
            assigns: None,
            ports: if verdict == Verdict::Deny {
                Ports::Any
            } else {
                Ports::Destination
            },
            service: None,
            request: Conditions {
                actions: action.into(),
                ..Conditions::default()
            },
            addresses: Arc::default(),
            raw: false,
            upgrade: false,
            inspect: None,
            upstream: None,
            min_age: None,
            sample: Box::default(),
            hosts: 0,
        }
    }
}

/// Reads keys whose value is one of a few words.
struct Words<'a, T> {
    placed: &'a Placed<T>,
    findings: &'a mut Findings,
}

impl<T> Words<'_, T> {
    fn read<V: Copy, const N: usize>(
        &mut self,
        key: &'static str,
        written: Option<&Spanned<String>>,
        fallback: V,
        known: [(&'static str, V); N],
    ) -> V {
        let Some(written) = written else {
            return fallback;
        };
        if let Some((_, value)) = known.iter().find(|(word, _)| word == written.get_ref()) {
            return *value;
        }
        let words = known.iter().map(|(word, _)| *word);
        self.findings.push(unknown(
            key,
            self.placed.at(written),
            written.get_ref(),
            words,
        ));
        fallback
    }
}

/// Reads `category` or `category:action`.
fn read_item(
    tier: &Placed<source::Tier>,
    item: &Spanned<String>,
    findings: &mut Findings,
) -> Option<(Category, Option<Action>)> {
    let (category, action) = match item.get_ref().split_once(':') {
        Some((category, action)) => (category, Some(action)),
        None => (item.get_ref().as_str(), None),
    };
    let Some(found) = Category::from_word(category) else {
        let known = Category::ALL.iter().map(|category| category.as_str());
        findings.push(unknown("category", tier.at(item), category, known));
        return None;
    };
    let Some(action) = action else {
        return Some((found, None));
    };
    let seen = Action::from_word(action);
    if seen.is_none() {
        let known = Action::ALL.iter().map(|action| action.as_str());
        findings.push(unknown("action", tier.at(item), action, known));
    }
    seen.map(|seen| (found, Some(seen)))
}
