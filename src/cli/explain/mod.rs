//! `tidegate explain`: what would happen to a flow, or what happened to one, and why.

mod asked;
mod recorded;
mod render;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use crate::app::Loaded;
use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::Allowance;
use crate::policy::{
    self, Attempt, Decision, Exceptions, Explanation, Facts, InForce, Inspect, Policy, Query,
    TierBasis, Verdict, Who, canonical_repository, suggest,
};

use super::records::{self, Missing};
use super::{Answer, load, parents, print};

use asked::{Asked, Flow};
use render::Caller;

/// The hint for other record files: a refusal's text is the same for every reader.
const ELSEWHERE: &str = "\ntidegate: where the gate runs with a configuration, say --config FILE: \
    that names its records";

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// A URL, HOST[:PORT] (a CONNECT), or the id of a flow, as in refusals and records.
    #[arg(value_name = "URL|FLOW")]
    what: String,
    /// The configuration [default: `$TIDEGATE_CONFIG`, /etc/tidegate/tidegate.toml,
    /// ~/.config/tidegate/tidegate.toml, the built-in policy].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Suppose that the caller has this tier.
    #[arg(long)]
    tier: Option<String>,
    /// Suppose that the caller works on this repository (its clone URL).
    #[arg(long)]
    repo: Option<String>,
    /// Suppose that the caller belongs to this group; may be repeated.
    #[arg(long)]
    group: Vec<Arc<str>>,
    /// Suppose that the caller is this user, e.g. `ana@acme.example`.
    #[arg(long)]
    user: Option<String>,
    /// The method of a plain request [default: GET].
    #[arg(long)]
    method: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// Returns `Yes` if the flow passes (or passed).
    pub(super) fn perform(self) -> Answer {
        match self.explain() {
            Ok(answer) | Err(Trouble::Shown(answer)) => answer,
            Err(Trouble::Say(answer, text)) => {
                print::err(&format!("tidegate: {text}\n"));
                answer
            }
        }
    }

    fn explain(&self) -> Result<Answer, Trouble> {
        let wrong = |text| Trouble::Say(Answer::Wrong, text);
        let asked = Asked::parse(&self.what, self.method.as_deref()).map_err(wrong)?;
        let loaded = Loaded::whole(&load::find(self.config.as_deref(), self.json));
        let (config, policy) = loaded.ok_or(Trouble::Shown(Answer::Wrong))?;
        match asked {
            Asked::Flow(flow) => self.future(&flow, &config, &policy),
            Asked::Recorded(id) => self.past(&id, &config, &policy),
        }
    }

    /// Explains a flow that was not attempted yet.
    fn future(&self, flow: &Flow, config: &Config, policy: &Policy) -> Result<Answer, Trouble> {
        let (who, caller) = self.caller(policy)?;
        let mut explanation = judge(policy, &who, flow);
        let seen = lets_in(&explanation.decision).then(|| flow.request_inside());
        let inside = seen.flatten();
        if let Some(inside) = &inside {
            explanation = judge(policy, &who, inside);
        }
        let flow = inside.as_ref().unwrap_or(flow);
        let asked = asked_parents(flow, config, &explanation);
        if self.json {
            let mut value = render::as_json(flow, &explanation, &caller);
            if let Some(object) = value.as_object_mut() {
                object.insert("parents".into(), asked.into());
            }
            print::json(&value);
        } else {
            let mut tree = render::tree(flow, &explanation, &caller);
            if explanation.decision.verdict == Verdict::Allow {
                tree.note("note", addresses(flow, config, &explanation));
            }
            if !asked.is_empty() {
                tree.note("by parent", asked.join(", else "));
            }
            print::out(&tree.draw());
        }
        Ok(Answer::whether(
            explanation.decision.verdict == Verdict::Allow,
        ))
    }

    /// Explains a recorded flow, and what would happen to it now.
    fn past(&self, id: &str, config: &Config, policy: &Policy) -> Result<Answer, Trouble> {
        let lines = records::find(&config.record, id).map_err(|missing| {
            let answer = match missing {
                Missing::Io(_) => Answer::Failed,
                _ => Answer::Wrong,
            };
            let hint = match (&missing, &self.config) {
                (Missing::Unknown(_), None) => ELSEWHERE,
                _ => "",
            };
            Trouble::Say(answer, format!("{}: {missing}{hint}", print::clean(id, 40)))
        })?;
        let past = recorded::Recorded::new(lines);
        let now = past.now(policy);
        if self.json {
            let now = now.as_ref().ok();
            let now = now.map(|(flow, now)| render::as_json(flow, now, &Caller::default()));
            print::json(&json!({
                "decision": past.lines.decision,
                "close": past.lines.close,
                "now": now,
            }));
        } else {
            let now = now.as_ref().map_err(|why| *why);
            let addresses = now.map(|(flow, now)| addresses(flow, config, now));
            print::out(&past.tree(now, &addresses.unwrap_or_default()).draw());
        }
        Ok(Answer::whether(past.text("tidegate.verdict") == "allow"))
    }

    /// Returns the supposed caller, as the policy classifies it; `--tier` overrides the tier.
    fn caller(&self, policy: &Policy) -> Result<(Who, Caller), Trouble> {
        let wrong = |text| Trouble::Say(Answer::Wrong, text);
        let repository = match &self.repo {
            Some(text) => {
                let found = canonical_repository(text);
                let found =
                    found.ok_or_else(|| wrong(format!("--repo {text}: not a clone URL")))?;
                Some(Arc::<str>::from(found))
            }
            None => None,
        };
        if let Some(unknown) = self
            .group
            .iter()
            .find(|group| policy.group(group).is_none())
        {
            return Err(wrong(format!("--group {unknown}: no such group")));
        }
        let mut who = policy.who(&Facts {
            subject: self.user.as_deref().unwrap_or_default(),
            groups: &self.group,
            repository: repository.as_ref(),
            ..Facts::default()
        });
        if let Some(name) = &self.tier {
            who.tier = policy
                .tier(name)
                .ok_or_else(|| wrong(unknown_tier(name, policy)))?;
            who.tier_basis = TierBasis::Listener;
        }
        let caller = Caller {
            repository,
            groups: policy.group_names(who.groups).cloned().collect(),
            tier_supposed: self.tier.is_some(),
        };
        Ok((who, caller))
    }
}

/// Why there is no explanation.
enum Trouble {
    /// A message to print.
    Say(Answer, String),
    /// The message was printed.
    Shown(Answer),
}

/// Whether a tunnel opens and its requests are judged.
fn lets_in(decision: &Decision) -> bool {
    let passes = decision.would.unwrap_or(decision.verdict) == Verdict::Allow;
    passes && decision.inspect == Inspect::Yes
}

/// Returns the parent proxies for a flow that may pass, in order.
fn asked_parents(flow: &Flow, config: &Config, explanation: &Explanation) -> Vec<String> {
    let decision = &explanation.decision;
    if decision.verdict != Verdict::Allow {
        return Vec::new();
    }
    parents::of(config, &flow.target, decision.category)
        .map(|parent| parent.target.to_string())
        .collect()
}

/// Describes which addresses are judged, for a flow that may pass.
fn addresses(flow: &Flow, config: &Config, explanation: &Explanation) -> String {
    match parents::resolving(config, &flow.target, explanation.decision.category) {
        None => render::ADDRESSES.to_owned(),
        Some(parent) => format!(
            "the parent {} resolves the name: its addresses are not judged here",
            parent.target
        ),
    }
}

fn judge(policy: &Policy, who: &Who, flow: &Flow) -> Explanation {
    let attempt = match &flow.request {
        None => Attempt::Connect,
        Some((method, path)) => Attempt::Request {
            method,
            path,
            upgrade: false,
            tls: flow.tls,
            request_facts: flow.recorded.as_deref(),
        },
    };
    let query = Query {
        who,
        target: &flow.target,
        attempt,
    };
    // The ledger of a gate has the spent limits, and is not read here.
    let exceptions = Exceptions::new(policy.exceptions().to_vec());
    for exception in exceptions.iter() {
        exception.set_allowance(Arc::new(Allowance::full(exception.grant.limit)));
    }
    let live = InForce {
        exceptions: &exceptions,
        now: Clock::system().now(),
        is_open: false,
    };
    policy::explain_with(policy, &query, Some(live))
}

fn unknown_tier(name: &str, policy: &Policy) -> String {
    let names = || policy.tiers().iter().map(|tier| &**tier);
    match suggest(name, names()) {
        Some(near) => format!("--tier {name}: no such tier; is `{near}` meant?"),
        None => {
            format!(
                "--tier {name}: no such tier; there are {}",
                names().collect::<Vec<_>>().join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "[tiers]\norder = [\"open\", \"closed\"]\n\
        [tier.open]\ndefault = \"allow\"\n[tier.closed]\ndefault = \"deny\"\n\
        [group.ops]\n\
        [[repository]]\nmatch = \"github.com/acme/site\"\ntier = \"open\"\n\
        [[destination]]\ncategory = \"webfetch\"\nhosts = [\"docs.example\"]\n[[rule]]\n\
        id = \"docs\"\nverdict = \"allow\"\nto.hosts = [\"docs.example\"]\n";

    fn policy() -> Policy {
        let (config, findings) = crate::config::load_text("a.toml".as_ref(), POLICY);
        let config = config.unwrap_or_else(|| panic!("{findings:?}"));
        let (policy, findings) = policy::compile(&config.policy, &policy::built_in());
        policy.unwrap_or_else(|| panic!("{findings:?}"))
    }

    fn explain(what: &str) -> Explain {
        Explain {
            what: what.to_owned(),
            config: None,
            tier: None,
            repo: None,
            group: Vec::new(),
            method: None,
            user: None,
            json: false,
        }
    }

    fn drawn(explain: &Explain) -> String {
        let policy = policy();
        let Ok(Asked::Flow(flow)) = Asked::parse(&explain.what, explain.method.as_deref()) else {
            panic!("{} is no flow", explain.what)
        };
        let Ok((who, caller)) = explain.caller(&policy) else {
            panic!("no caller")
        };
        render::tree(&flow, &judge(&policy, &who, &flow), &caller).draw()
    }

    #[test]
    fn every_stage_of_a_refused_flow_is_named() {
        let text = drawn(&explain("https://cdn.docs.example/x"));
        for part in [
            "CONNECT cdn.docs.example:443",
            "deny  not_allowed",
            " ├ caller",
            " ├ tier",
            "closed",
            " ├ category",
            " ├ rules",
            "docs  a.toml:",
            " └ verdict",
            "tier.closed.default",
            "[[rule]]",
            "opaque",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= print::WIDTH),
            "{text}"
        );
    }

    #[test]
    fn an_allowed_flow_names_its_rule_and_place() {
        let text = drawn(&explain("docs.example"));
        assert!(text.contains("allow  allowed"), "{text}");
        assert!(text.contains("docs  a.toml:"), "{text}");
        assert!(!text.contains("[[rule]]"), "{text}");
    }

    #[test]
    fn a_supposed_caller_gets_the_tier_of_its_repository_or_the_one_supposed() {
        let mut of_site = explain("http://other.example/a?secret");
        of_site.repo = Some("git@github.com:acme/site.git".to_owned());
        let text = drawn(&of_site);
        assert!(text.contains("GET http://other.example:80"), "{text}");
        assert!(text.contains("github.com/acme/site"), "{text}");
        assert!(text.contains("allow  allowed"), "{text}");
        of_site.tier = Some("closed".to_owned());
        let text = drawn(&of_site);
        assert!(text.contains("deny  not_allowed"), "{text}");
        assert!(text.contains("as supposed"), "{text}");
    }

    #[test]
    fn an_unknown_tier_group_or_repository_is_said() {
        let policy = policy();
        let trouble = |explain: &Explain| match explain.caller(&policy) {
            Err(Trouble::Say(Answer::Wrong, text)) => text,
            _ => panic!("taken"),
        };
        let mut asked = explain("docs.example");
        asked.tier = Some("opn".to_owned());
        assert!(trouble(&asked).contains("is `open` meant?"));
        asked.tier = None;
        asked.group = vec!["dev".into()];
        assert!(trouble(&asked).contains("no such group"));
        asked.group = vec!["ops".into()];
        assert!(asked.caller(&policy).is_ok());
        asked.repo = Some("nonsense".to_owned());
        assert!(trouble(&asked).contains("not a clone URL"));
    }

    #[test]
    fn a_flow_explained_as_json_has_the_same_answer() {
        let policy = policy();
        let Ok(Asked::Flow(flow)) = Asked::parse("a.example:443", None) else {
            panic!()
        };
        let Ok((who, caller)) = explain("a.example:443").caller(&policy) else {
            panic!()
        };
        let value = render::as_json(&flow, &judge(&policy, &who, &flow), &caller);
        assert_eq!(value.get("verdict"), Some(&json!("deny")));
        assert_eq!(value.get("tier"), Some(&json!("closed")));
        assert_eq!(
            value.pointer("/rule/name"),
            Some(&json!("tier.closed.default"))
        );
    }
}
