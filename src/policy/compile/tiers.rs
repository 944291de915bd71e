//! Compiles `[tiers]` and `[tier.NAME]`: their order, their extensions, and their lists as rules.

use std::sync::Arc;

use toml::Spanned;

use crate::diag::Diagnostic;
use crate::policy::asking::Asking;
use crate::policy::category::{Categories, Category};
use crate::policy::conditions::Conditions;
use crate::policy::query::TierId;
use crate::policy::rule::{Callers, Destinations, Grant, Ports, Rule};
use crate::policy::tiers::{MAX_TIERS, Tier, Tiers};
use crate::policy::verdict::{Mode, Named, Reason, Verdict};
use crate::policy::{Action, source};

use crate::policy::findings::{Findings, unknown};
use crate::policy::source::Placed;

use super::choices::{MODES, PASSES, VERDICTS};

type Written<'a> = (&'a Spanned<String>, &'a Placed<source::Tier>);

/// A tier and the tiers that it extends, in the search order of a key.
struct Layers<'a> {
    name: &'a str,
    bit: u16,
    tiers: Vec<&'a Placed<source::Tier>>,
}

/// Compiles the tiers. The entries of their lists become rules.
pub(super) fn compile(
    source: &source::Policy,
    built_in: &source::Policy,
    findings: &mut Findings,
) -> Option<(Tiers, Vec<Rule>)> {
    let all = || source.tier.iter().map(|(name, tier)| (name, tier));
    refuse_doubles(source, findings);
    let default = built_in.tiers.as_ref()?;
    let is_built_in = |name: &Spanned<String>| default.value.order.contains(name);
    let own = match (&source.tiers, source.tier.as_slice()) {
        (None, [(name, _)]) if !is_built_in(name) => vec![name],
        _ => Vec::new(),
    };
    let (written, order): (_, Vec<_>) = match &source.tiers {
        Some(tiers) => (tiers, tiers.value.order.iter().collect()),
        None if own.is_empty() => (default, default.value.order.iter().collect()),
        None => (default, own),
    };
    // Without `[tiers]`, one finding names all tiers.
    let most = source.tiers.as_ref().map_or(1, |_| usize::MAX);
    for (name, tier) in all().filter(|(name, _)| !order.contains(name)).take(most) {
        findings.push(outside_order(name, tier, source));
    }
    let known: Vec<Written<'_>> = match &source.tiers {
        Some(_) => all().collect(),
        None => all()
            .chain(built_in.tier.iter().map(|(name, tier)| (name, tier)))
            .collect(),
    };
    let mut tiers = Vec::new();
    let mut rules = Vec::new();
    for (at, name) in order.iter().enumerate().take(MAX_TIERS) {
        let Some(layers) = layers(name, 1 << at, &known, findings) else {
            findings.push(
                Diagnostic::error(
                    "tier-missing",
                    written.at(name),
                    format!(
                        "tier `{}` is in the order, but there is no such table",
                        name.get_ref()
                    ),
                )
                .label("no table of that name")
                .help(format!("write `[tier.{}]`", name.get_ref())),
            );
            continue;
        };
        tiers.push(layers.tier(findings));
        rules.extend(layers.rules(findings));
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
        Some(name) if order.contains(&name) => tiers.resolve(written, name, findings)?,
        Some(name) if source.tiers.is_some() => tiers.resolve(written, name, findings)?,
        Some(_) | None => tiers.strictest(),
    };
    Some((tiers, rules))
}

impl Tiers {
    /// Returns the tier with a name, or adds a finding.
    pub(in crate::policy) fn resolve<T>(
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

/// Returns a table of a tier, then the tables that it changes or extends. A table with the name of
/// a built-in tier changes that tier key by key.
fn layers<'a>(
    name: &'a Spanned<String>,
    bit: u16,
    known: &[Written<'a>],
    findings: &mut Findings,
) -> Option<Layers<'a>> {
    let tables = |name: &str| -> Vec<&'a Placed<source::Tier>> {
        let tables = known.iter().filter(|(known, _)| known.get_ref() == name);
        tables.map(|(_, tier)| *tier).collect()
    };
    let mut tiers = tables(name.get_ref());
    if tiers.first()?.value.extend.is_some() {
        tiers.truncate(1);
    }
    let mut seen = vec![name.get_ref().as_str()];
    while let Some((from, above)) =
        extended(&tiers).filter(|(_, above)| !seen.contains(&above.get_ref().as_str()))
    {
        let found = tables(above.get_ref());
        if found.is_empty() {
            let known = known.iter().map(|(name, _)| name.get_ref().as_str());
            findings.push(unknown("tier", from.at(above), above.get_ref(), known));
            break;
        }
        seen.push(above.get_ref());
        tiers.extend(found);
    }
    if let Some((from, above)) = extended(&tiers)
        && seen.contains(&above.get_ref().as_str())
        && tiers.last().is_some_and(|last| last.value.extend.is_some())
    {
        let message = format!("tier `{}` extends itself", name.get_ref());
        let finding = Diagnostic::error("extend-cycle", from.at(above), message);
        findings.push(
            finding
                .label("leads back here")
                .help("leave one `extend` out"),
        );
    }
    Some(Layers {
        name: name.get_ref(),
        bit,
        tiers,
    })
}

/// Returns the last `extend` of some layers.
fn extended<'a>(
    tiers: &[&'a Placed<source::Tier>],
) -> Option<(&'a Placed<source::Tier>, &'a Spanned<String>)> {
    let mut layers = tiers.iter().rev();
    layers.find_map(|tier| Some((*tier, tier.value.extend.as_ref()?)))
}

fn outside_order(
    name: &Spanned<String>,
    tier: &Placed<source::Tier>,
    source: &source::Policy,
) -> Diagnostic {
    let text = name.get_ref();
    let message = format!("tier `{text}` is not in the order");
    if let Some(order) = &source.tiers {
        let known = order.value.order.iter().map(|name| name.get_ref().as_str());
        let mut finding = unknown("tier", tier.at(name), text, known);
        finding.message = message;
        return finding.related(order.place(), "the order is here");
    }
    let written = source.tier.iter();
    let all: Vec<_> = written
        .map(|(name, _)| format!("\"{}\"", name.get_ref()))
        .collect();
    let all = all.join(", ");
    Diagnostic::error("tiers-missing", tier.at(name), message)
        .label("no `[tiers]` says how strict it is")
        .help(format!(
            "write `[tiers]` with `order = [{all}]`, loosest first"
        ))
}

/// Checks the order as a whole.
fn refuse_doubles(source: &source::Policy, findings: &mut Findings) {
    for (at, (name, tier)) in source.tier.iter().enumerate() {
        if let Some((first, place)) = source.tier.iter().take(at).find(|(first, _)| first == name) {
            findings.push(twice(
                format!("tier `{}` is written twice", name.get_ref()),
                tier.at(name),
                place.at(first),
            ));
        }
    }
    let Some(written) = &source.tiers else { return };
    let order = &written.value.order;
    if order.is_empty() {
        let message = "a policy needs at least one tier";
        let finding = Diagnostic::error("tiers-empty", written.place(), message);
        let help = "write e.g. `order = [\"open\", \"standard\", \"restricted\"]`";
        findings.push(finding.label("the order is empty").help(help));
    }
    if let Some(beyond) = order.get(MAX_TIERS) {
        let message = "there are more than 16 tiers";
        let finding = Diagnostic::error("too-many-tiers", written.at(beyond), message);
        let help = "a tier is how much a repository may be exposed: three are usual";
        findings.push(finding.label("the seventeenth").help(help));
    }
    for (at, name) in order.iter().enumerate() {
        if let Some(first) = order.iter().take(at).find(|first| *first == name) {
            let message = format!("tier `{}` is in the order twice", name.get_ref());
            findings.push(twice(message, written.at(name), written.at(first)));
        }
    }
}

fn twice(message: String, place: crate::diag::Place, first: crate::diag::Place) -> Diagnostic {
    Diagnostic::error("tier-twice", place, message)
        .label("again here")
        .related(first, "first here")
}

impl<'a> Layers<'a> {
    /// Returns the first layer with a key, and the value.
    fn get<V>(
        &self,
        key: impl Fn(&'a source::Tier) -> Option<&'a V>,
    ) -> Option<(&'a Placed<source::Tier>, &'a V)> {
        let mut layers = self.tiers.iter();
        layers.find_map(|tier| Some((*tier, key(&tier.value)?)))
    }

    fn tier(&self, findings: &mut Findings) -> Tier {
        let default = self.get(|tier| tier.default.as_ref());
        let place = match default {
            Some((placed, default)) => placed.at(default),
            None => self.tiers.first().map_or_else(
                || crate::diag::Place::new(&Arc::new(crate::diag::Source::new("", "")), 0..0),
                |tier| tier.place(),
            ),
        };
        let opaque = self.get(|tier| tier.opaque.as_ref());
        let inspect = self.get(|tier| tier.inspect.as_ref());
        Tier {
            name: self.name.into(),
            mode: word(
                "mode",
                self.get(|it| it.mode.as_ref()),
                Mode::Enforce,
                MODES,
                findings,
            ),
            default: word("default", default, Verdict::Deny, VERDICTS, findings),
            named: Named::at(format!("tier.{}.default", self.name), &place),
            opaque: word("opaque", opaque, true, PASSES, findings),
            ech: word(
                "ech",
                self.get(|tier| tier.ech.as_ref()),
                true,
                PASSES,
                findings,
            ),
            asking: Asking::of(&self.tiers),
            inspect: match inspect {
                Some((_, words)) if words.iter().any(|word| word.get_ref() == "all") => {
                    Categories::ALL
                }
                Some((placed, words)) => super::destinations::categories(placed, words, findings),
                None => Categories::default(),
            },
        }
    }

    fn rules(&self, findings: &mut Findings) -> Vec<Rule> {
        let lists = [
            ("deny", Verdict::Deny, self.get(|tier| tier.deny.as_ref())),
            ("ask", Verdict::Ask, self.get(|tier| tier.ask.as_ref())),
            (
                "allow",
                Verdict::Allow,
                self.get(|tier| tier.allow.as_ref()),
            ),
        ];
        let mut rules = Vec::new();
        for (word, verdict, list) in lists {
            let Some((placed, items)) = list else {
                continue;
            };
            let Some(first) = items.first() else { continue };
            let named = Named::at(format!("tier.{}.{word}", self.name), &placed.at(first));
            for item in items {
                if let Some((category, action)) = read_item(placed, item, findings) {
                    rules.push(self.rule(named.clone(), verdict, category, action));
                }
            }
        }
        rules
    }

    /// Compiles an entry of a list to a rule.
    fn rule(
        &self,
        named: Arc<Named>,
        verdict: Verdict,
        category: Category,
        action: Option<Action>,
    ) -> Rule {
        Rule {
            named,
            verdict,
            reason: match (verdict, action) {
                (Verdict::Allow, _) => Reason::Allowed,
                (Verdict::Ask, _) => Reason::NeedsApproval,
                (Verdict::Deny, None) => Reason::CategoryDenied,
                (Verdict::Deny, Some(_)) => Reason::ActionDenied,
            },
            is_list: true,
            from: Callers {
                tiers: self.bit,
                groups: 0,
                repositories: Box::default(),
                subjects: Box::default(),
            },
            to: Destinations {
                hosts: 0,
                sample: Box::default(),
                networks: Box::default(),
                categories: [category].into_iter().collect(),
                ports: match verdict {
                    Verdict::Deny => Ports::Any,
                    Verdict::Allow | Verdict::Ask => Ports::Destination,
                },
            },
            does: Conditions {
                actions: action.into_iter().collect(),
                ..Conditions::default()
            },
            unless: None,
            grant: Grant::default(),
            why: None,
        }
    }
}

/// Reads a key whose value is one of a few words.
fn word<V: Copy, const N: usize>(
    key: &'static str,
    written: Option<(&Placed<source::Tier>, &Spanned<String>)>,
    fallback: V,
    known: [(&'static str, V); N],
    findings: &mut Findings,
) -> V {
    let Some((placed, written)) = written else {
        return fallback;
    };
    if let Some((_, value)) = known.iter().find(|(word, _)| word == written.get_ref()) {
        return *value;
    }
    let words = known.iter().map(|(word, _)| *word);
    findings.push(unknown(key, placed.at(written), written.get_ref(), words));
    fallback
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
