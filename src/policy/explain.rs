//! Explains a decision: the stages, the compared rules, the nearest allow.
//!
//! Slower than deciding, but bounded: each rule is compared, but only its first few hosts.

use std::cmp::Reverse;
use std::fmt::Write;
use std::sync::Arc;

use crate::name::{AddressClass, Host, HostName, canonical, classify, is_public_suffix};

use super::answer::facts_of;
use super::compiled::Policy;
use super::decide::{self, Judgement};
use super::exception::InForce;
use super::facts::RequestFacts;
use super::query::{Attempt, GroupSet, Query};
use super::rule::{Fit, Miss, Ports, Rule};
use super::verdict::{Basis, Decision, Named, TierBasis, Verdict};

/// Maximum number of compared rules; further ones count as far away.
const MAX_RULES: usize = 2048;
/// Maximum number of shown rules.
const MAX_SHOWN: usize = 5;
/// Maximum length of [`Explanation::nearest`], in bytes of ASCII.
const MAX_NEAREST: usize = 160;

/// The stages of one decision, for a person.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The answer.
    pub decision: Decision,
    /// `nearest rule docs: host docs.rs`; ASCII, at most 160 characters; empty if no rule is near.
    pub nearest: String,
    /// The tier of the caller.
    pub tier: Arc<str>,
    /// The evidence for the tier.
    pub tier_basis: TierBasis,
    /// The source of the category: `catalogue model-api.toml:14`, `rule policy/web.toml:31`, or
    /// empty if there is none.
    pub category_from: String,
    /// The request facts, as far as they were read; `None` in a tunnel.
    pub request_facts: Option<RequestFacts>,
    /// The stage that decided.
    pub stage: Stage,
    /// The rules and lists that nearly match, nearest first; at most five.
    pub looked_at: Vec<Looked>,
    /// The number of further compared rules.
    pub others: usize,
    /// The allow of the most similar flow; `None` if this flow is allowed or no allow is near.
    pub nearest_allow: Option<Looked>,
    /// A `[[rule]]` that would allow exactly this flow, if one could.
    pub suggestion: Option<String>,
}

/// The stage that decided, in the order of a decision.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// An exception.
    Exception,
    /// The rules that no configuration can change.
    Floor,
    /// The limits of the session.
    Narrowed,
    /// A deny rule, or the deny list of the tier.
    Deny,
    /// An ask rule, or the ask list of the tier.
    Ask,
    /// An allow rule, or the allow list of the tier.
    Allow,
    /// The tier's default.
    Default,
}

/// A compared rule or list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Looked {
    /// The name and the location.
    pub rule: Arc<Named>,
    /// The verdict.
    pub verdict: Verdict,
    /// The first condition that the flow does not meet, e.g. `port 8443 not in 443`; `None` if it
    /// matches.
    pub miss: Option<String>,
}

impl Stage {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Default => "default",
            Self::Exception => "exception",
            Self::Deny => "deny",
            Self::Floor => "floor",
            Self::Narrowed => "narrow",
        }
    }
}

/// Explains a decision, without exceptions; slower than deciding, with the same answer.
pub fn explain(policy: &Policy, query: &Query<'_>) -> Explanation {
    explain_with(policy, query, None)
}

/// Like [`explain`], with the exceptions in force.
pub fn explain_with(policy: &Policy, query: &Query<'_>, live: Option<InForce<'_>>) -> Explanation {
    let read = policy.read_for(query);
    let judgement = policy.judge(query, facts_of(query, read.as_ref()), live);
    let decision = judgement.answer(policy);
    let view = View {
        policy,
        query,
        judgement: &judgement,
    };
    let ranked = view.ranked();
    let refused = decision.would.unwrap_or(decision.verdict) != Verdict::Allow;
    let near = ranked.iter().find(|near| refused && near.is_near_allow());
    Explanation {
        nearest: near.map(|near| view.nearest(near)).unwrap_or_default(),
        tier: judgement.tier.name.clone(),
        tier_basis: query.who.tier_basis,
        category_from: view.category_from(),
        request_facts: judgement.flow.request_facts.cloned(),
        stage: stage(&judgement),
        looked_at: ranked
            .iter()
            .take(MAX_SHOWN)
            .map(|near| view.looked(near))
            .collect(),
        others: policy.rules.len().saturating_sub(MAX_SHOWN),
        nearest_allow: near.map(|near| view.looked(near)),
        suggestion: refused.then(|| view.suggestion()).flatten(),
        decision,
    }
}

fn stage(judgement: &Judgement<'_>) -> Stage {
    match judgement.stage() {
        decide::Stage::Exception(_) => Stage::Exception,
        decide::Stage::Default => Stage::Default,
        decide::Stage::Floor => Stage::Floor,
        decide::Stage::Narrowed => Stage::Narrowed,
        decide::Stage::Rule(rule) => match rule.verdict {
            Verdict::Allow => Stage::Allow,
            Verdict::Ask => Stage::Ask,
            Verdict::Deny => Stage::Deny,
        },
    }
}

/// A rule and its distance from the flow.
#[derive(Debug)]
struct Near<'p> {
    rule: &'p Rule,
    distance: Distance,
}

/// The distance of a rule from a flow, nearest first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Distance {
    Matches,
    /// An allow that matches but grants no private address, which the floor requires.
    NoAddress,
    /// The hosts match, or none are named.
    Misses(Miss),
    /// Another host of the same owner: the number of shared labels, and the index of the rule's
    /// host.
    SameOwner(Reverse<usize>, usize),
    Far,
}

impl Near<'_> {
    fn is_near_allow(&self) -> bool {
        let near = match self.distance {
            Distance::Misses(_) | Distance::NoAddress | Distance::SameOwner(..) => true,
            Distance::Matches | Distance::Far => false,
        };
        near && self.rule.verdict == Verdict::Allow
    }
}

/// One flow before one policy.
struct View<'a> {
    policy: &'a Policy,
    query: &'a Query<'a>,
    judgement: &'a Judgement<'a>,
}

impl<'a> View<'a> {
    /// Returns all rules, nearest first; equally near ones in the order of the text.
    fn ranked(&self) -> Vec<Near<'a>> {
        let mut named = Vec::new();
        self.policy
            .hosts
            .each(&self.query.target.host, |id| named.push(id));
        let mut ranked: Vec<Near<'a>> = (0..)
            .zip(&self.policy.rules)
            .take(MAX_RULES)
            .map(|(id, rule)| {
                let reached = rule.to.hosts == 0 || named.contains(&id);
                Near {
                    rule,
                    distance: self.distance(rule, reached),
                }
            })
            .collect();
        ranked.sort_by_key(|near| near.distance);
        ranked
    }

    fn distance(&self, rule: &Rule, reached: bool) -> Distance {
        let flow = &self.judgement.flow;
        if reached {
            let selected = rule.to.categories;
            let other = !selected.is_empty() && !selected.contains(flow.category);
            return match rule.fit(flow) {
                Fit::Matches if self.is_floored() && rule.verdict == Verdict::Allow => {
                    Distance::NoAddress
                }
                Fit::Matches => Distance::Matches,
                Fit::UnlessOld(_) => Distance::Misses(Miss::Unless),
                // The rule does not concern this flow in any tier.
                Fit::Misses(Miss::Category) => Distance::Far,
                Fit::Misses(Miss::Tier) if other => Distance::Far,
                Fit::Misses(miss) => Distance::Misses(miss),
            };
        }
        let shared = rule.to.sample.iter().enumerate().filter_map(|(at, host)| {
            let labels = shared_labels(&self.query.target.host, host)?;
            Some(Distance::SameOwner(Reverse(labels), at))
        });
        shared.min().unwrap_or(Distance::Far)
    }

    fn is_floored(&self) -> bool {
        matches!(self.judgement.stage(), decide::Stage::Floor)
    }

    fn looked(&self, near: &Near<'_>) -> Looked {
        Looked {
            rule: near.rule.named.clone(),
            verdict: near.rule.verdict,
            miss: self.miss(near, &|host| {
                format!("host {host} \u{2260} {}", self.query.target.host)
            }),
        }
    }

    /// Formats `nearest rule docs: host docs.rs`, in ASCII and bounded.
    fn nearest(&self, near: &Near<'_>) -> String {
        let miss = self
            .miss(near, &|host| format!("host {host}"))
            .unwrap_or_default();
        let name = &near.rule.named.name;
        let kind = if name.starts_with("tier.") {
            ""
        } else {
            "rule "
        };
        let text = format!("nearest {kind}{name}: {miss}");
        text.chars()
            .filter(char::is_ascii)
            .take(MAX_NEAREST)
            .collect()
    }

    /// Describes the first condition that is not met.
    fn miss(&self, near: &Near<'_>, host: &dyn Fn(&str) -> String) -> Option<String> {
        let rule = near.rule;
        let first = |at: usize| rule.to.sample.get(at).map_or("", |host| &**host);
        Some(match near.distance {
            Distance::Matches => return None,
            Distance::SameOwner(_, at) => host(first(at)),
            Distance::NoAddress => "addresses do not name it".into(),
            Distance::Far if rule.to.hosts > 0 => host(first(0)),
            Distance::Far | Distance::Misses(Miss::Category) => {
                let selected = rule.to.categories.iter().map(super::Category::as_str);
                format!("category {}", selected.collect::<Vec<_>>().join(", "))
            }
            Distance::Misses(Miss::Repository) => "from.repositories".into(),
            Distance::Misses(Miss::Subject) => "from.subjects".into(),
            Distance::Misses(Miss::Unless) => "unless".into(),
            Distance::Misses(Miss::Path) => "paths, in two readings".into(),
            Distance::Misses(Miss::Groups) => {
                let groups = GroupSet(rule.from.groups);
                let names: Vec<&str> = self
                    .policy
                    .group_names(groups)
                    .map(|name| &**name)
                    .collect();
                format!("groups {}", names.join(", "))
            }
            Distance::Misses(Miss::Port | Miss::PortAndRequest) => self.port_miss(rule),
            Distance::Misses(Miss::Request) => self.request_miss(rule),
            Distance::Misses(Miss::Tool) => "tools".into(),
            Distance::Misses(Miss::Tier) => format!("not for tier {}", self.judgement.tier.name),
        })
    }

    fn port_miss(&self, rule: &Rule) -> String {
        let flow = &self.judgement.flow;
        let ports = match &rule.to.ports {
            Ports::Listed(ports) => ports,
            Ports::Destination if !flow.destination_ports.is_empty() => flow.destination_ports,
            Ports::Any | Ports::Default | Ports::Destination => &[flow.attempt.default_port()],
        };
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        format!("port {} not in {}", flow.port, ports.join(", "))
    }

    fn request_miss(&self, rule: &Rule) -> String {
        let flow = &self.judgement.flow;
        let Attempt::Request { method, .. } = flow.attempt else {
            return "not seen in a tunnel".into();
        };
        let actions = rule.does.actions;
        if !actions.is_empty() && !flow.action.is_some_and(|seen| actions.contains(seen)) {
            return match flow.action {
                Some(action) => format!("action {}", action.as_str()),
                None => format!("actions {}", actions.words()),
            };
        }
        if !rule.does.has_method(method, rule.is_allow()) {
            return format!("methods {}", rule.does.methods.join(", "));
        }
        // The text of the request is not repeated, because it may contain secrets.
        rule.does.key(flow, rule.is_allow()).into()
    }

    fn category_from(&self) -> String {
        let label = &self.judgement.label;
        match label.basis {
            Basis::Host | Basis::Path => format!("catalogue {}", label.location),
            Basis::Content => "messages of MCP".into(),
            Basis::None => String::new(),
            Basis::Rule => format!("destination {}", label.location),
        }
    }

    /// Adds the `does` conditions of the request, if it is seen: the operation of its service, or
    /// otherwise its method. No path: a path may contain a secret.
    fn request_conditions(&self, add: &mut impl FnMut(&str, Option<&str>)) {
        let Attempt::Request { method, .. } = self.query.attempt else {
            return;
        };
        let flow = &self.judgement.flow;
        let nothing = RequestFacts::default();
        let facts = flow.request_facts.unwrap_or(&nothing);
        let call = facts.mcp.as_ref();
        let operation = facts.operation.as_deref().filter(|word| *word != "other");
        match operation {
            Some(word) => add("does.operations", Some(word)),
            None if call.is_none() => add("does.methods", Some(method)),
            None => {}
        }
        add("does.repositories", facts.repository.as_deref());
        add("does.refs", facts.reference.as_deref());
        add("does.packages", facts.package.as_deref());
        let server = call.and_then(|call| call.server.as_deref());
        add("does.servers", server);
        let tool = call.and_then(|call| call.tool.as_deref());
        add("does.tools", tool.filter(|_| server.is_some()));
    }

    /// Returns a rule that would allow exactly this flow; `None` if a deny or the floor is final.
    fn suggestion(&self) -> Option<String> {
        let target = &self.query.target;
        let addresses = match self.judgement.stage() {
            decide::Stage::Default => None,
            decide::Stage::Exception(_) | decide::Stage::Rule(_) | decide::Stage::Narrowed => {
                return None;
            }
            decide::Stage::Floor => Some(private_addresses(&target.host)?),
        };
        let id: String = target
            .host
            .to_string()
            .chars()
            .take(56)
            .map(|letter| {
                if letter.is_ascii_alphanumeric() {
                    letter
                } else {
                    '-'
                }
            })
            .collect();
        let mut text = format!(
            "[[rule]]\nid = \"allow-{}\"\nverdict = \"allow\"\nfrom.tiers = [\"{}\"]\n",
            id.trim_matches('-'),
            self.judgement.tier.name,
        );
        let mut add = |key: &str, value: Option<&str>| {
            if let Some(value) = value.filter(|value| is_plain(value)) {
                let _ = writeln!(text, "{key} = [\"{value}\"]");
            }
        };
        add("from.repositories", self.query.who.repository.as_deref());
        add(
            "to.hosts",
            Some(&target.host.to_string().replace(['[', ']'], "")),
        );
        self.request_conditions(&mut add);
        if target.port != self.judgement.flow.attempt.default_port() {
            let _ = writeln!(text, "to.ports = [{}]", target.port);
        }
        if let Some(addresses) = addresses {
            let _ = writeln!(text, "grant.addresses = [{addresses}]");
        }
        text.push_str("reason = \"\"\n");
        Some(text)
    }
}

/// Whether a text in a list of patterns matches only itself.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"*\"\\".contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}

/// Returns the `addresses` for a host that the floor denied; `None` if no grant helps, or only the
/// operator knows the network.
fn private_addresses(host: &Host) -> Option<String> {
    let Host::Address(address) = host else {
        return None;
    };
    let plain = canonical(*address) == *address;
    match classify(*address) {
        AddressClass::Loopback | AddressClass::Private if plain => Some(format!("\"{address}\"")),
        _ => None,
    }
}

/// Returns how many labels two hosts share at the end, if one owner has the shared name.
fn shared_labels(host: &Host, pattern: &str) -> Option<usize> {
    let Host::Name(name) = host else { return None };
    let pattern = pattern.strip_prefix("*.").unwrap_or(pattern);
    let shared = name
        .as_str()
        .rsplit('.')
        .zip(pattern.rsplit('.'))
        .take_while(|(left, right)| left == right)
        .count();
    let suffix = name
        .suffixes()
        .find(|suffix| suffix.split('.').count() == shared)?;
    let owned = HostName::parse(suffix.as_bytes()).is_ok_and(|suffix| !is_public_suffix(&suffix));
    owned.then_some(shared)
}
