//! A recorded flow: the decision then, and the decision now.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::policy::{self, Explanation, Policy, Verdict};
use crate::proxy::Code;
use crate::replay::{self, Judge, Judged};

use super::super::records::Lines;
use super::super::tree::Tree;
use super::asked::Flow;
use super::render;

const NO_TARGET: &str = "no target was understood, so none can be judged";
const NO_RECORD: &str = "its line is not as this version of tidegate writes it";

/// The lines of a flow.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) lines: Lines,
}

impl Recorded {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines }
    }

    /// Returns a text or number field as text, otherwise an empty text. The `close` line takes
    /// precedence.
    pub(super) fn text(&self, name: &str) -> String {
        let find = |line: &Option<Map<String, Value>>| line.as_ref()?.get(name).cloned();
        match find(&self.lines.close).or_else(|| find(&self.lines.decision)) {
            Some(Value::String(text)) => text,
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    /// Returns the flow and the policy's decision now, from the recorded facts; `Err` is the reason
    /// why it is not judged.
    pub(super) fn now(&self, policy: &Policy) -> Result<(Flow, Explanation), &'static str> {
        let line = self.line().ok_or(NO_TARGET)?;
        let line = replay::Recorded::of(&line).map_err(|_| NO_RECORD)?;
        if let Judged::Undetermined(why) = Judge::new(policy, "").judge(&line) {
            return Err(why.sentence());
        }
        let flow = replay::Flow::of(&line, policy).ok_or(NO_TARGET)?;
        let explanation = policy::explain(policy, &flow.query(&replay::who(&line, policy)));
        Ok((Flow::recorded(flow), explanation))
    }

    /// Returns the line with the facts of the decision.
    fn line(&self) -> Option<Value> {
        let line = self.lines.decision.as_ref().or(self.lines.close.as_ref())?;
        Some(Value::Object(line.clone()))
    }

    /// Whether the flow is a request inside an inspected tunnel.
    fn is_inside(&self) -> bool {
        let plain = self.text("tidegate.tls.mode") == "none";
        !self.text("tidegate.flow.parent").is_empty() && !plain
    }

    /// Draws what happened, and what would happen now.
    pub(super) fn tree(&self, now: Result<&(Flow, Explanation), &str>, addresses: &str) -> Tree {
        let mut tree = Tree::new(self.attempt(), self.verdict());
        tree.stage(
            "flow",
            self.joined(&["tidegate.flow.id", "timestamp"], "   "),
        );
        tree.stage("caller", self.caller());
        tree.stage(
            "tier",
            self.joined(&["tidegate.tier", "tidegate.tier.basis"], "   by "),
        );
        tree.stage("category", self.category());
        tree.stages("does", self.does());
        let own = self.text("tidegate.channel") == "gate";
        let parent = if own { "for flow" } else { "tunnel" };
        tree.stages(parent, some_lines([self.text("tidegate.flow.parent")]));
        tree.stages("rule", self.rule());
        tree.stages("way out", self.way_out());
        tree.stages("end", self.end());
        match now {
            Err(why) => tree.stage("now", format!("not judged anew: {why}")),
            Ok((flow, now)) => {
                let rule = render::named(&now.decision.rule);
                tree.stage(
                    "now",
                    format!("{}   {rule}", render::verdict(&now.decision)),
                );
                flow.notes.iter().for_each(|note| tree.note("note", *note));
                if now.decision.verdict == Verdict::Allow {
                    tree.note("note", addresses);
                }
            }
        }
        if let Some(code) = self.code() {
            tree.note("what it means", code.sentence());
            tree.note("what to do", code.next_step());
        }
        let suggestion = now.ok().and_then(|(_, now)| now.suggestion.as_deref());
        if let Some(suggestion) = suggestion {
            tree.note("to allow it", suggestion);
        }
        tree
    }

    /// Formats `deny  not_allowed`; for an allowed flow that was ended, also the cause.
    fn verdict(&self) -> String {
        let then = match &*self.text("error.type") {
            "" => String::new(),
            error => format!(", then {error}"),
        };
        self.joined(&["tidegate.verdict", "tidegate.reason"], "  ") + &then
    }

    /// Returns why the flow was refused or ended, if the reason is in the closed list.
    fn code(&self) -> Option<Code> {
        // If `error.type` is more specific than a code, `tidegate.reason` has the code.
        let words = [self.text("tidegate.reason"), self.text("error.type")];
        let known = |word: &String| Code::ALL.iter().find(|code| code.as_str() == word).copied();
        words.iter().find_map(known)
    }

    fn attempt(&self) -> String {
        let method = match self.text("http.request.method") {
            method if method.is_empty() => "CONNECT".to_owned(),
            method => method,
        };
        let scheme = if self.is_inside() { "https://" } else { "" };
        format!(
            "{method} {scheme}{}",
            self.joined(&["server.address", "server.port"], ":")
        )
    }

    fn caller(&self) -> String {
        let groups = self.groups().join(", ");
        let parts = [
            ("", self.text("user.id")),
            ("groups ", groups),
            ("", self.text("vcs.repository.url.full")),
            ("session ", self.session()),
            ("from ", self.text("client.address")),
        ];
        listed(&parts, " · ")
    }

    /// Formats the session and its trust; empty if the record names none.
    fn session(&self) -> String {
        match &*self.text("session.id") {
            "" => String::new(),
            session => format!(
                "{session} ({})",
                self.joined(
                    &["tidegate.session.evidence", "tidegate.session.trust"],
                    ", "
                )
            ),
        }
    }

    fn category(&self) -> String {
        let action = Some(self.text("tidegate.action")).filter(|action| !action.is_empty());
        let category = self.joined(&["tidegate.category", "tidegate.category.basis"], "   by ");
        listed(
            &[("", category), ("action ", action.unwrap_or_default())],
            " · ",
        )
    }

    /// Formats what the request does, in terms of its service.
    fn does(&self) -> Vec<String> {
        let service = self.joined(&["tidegate.service", "tidegate.operation"], " ");
        let package = self.joined(&["tidegate.package.name", "tidegate.package.version"], " ");
        let parts = [
            ("", service),
            ("repository ", self.text("tidegate.destination.repository")),
            ("ref ", self.text("tidegate.destination.ref")),
            ("package ", package),
            ("MCP server ", self.text("tidegate.mcp.server")),
            ("", self.text("mcp.method.name")),
            ("tool ", self.text("mcp.tool.name")),
        ];
        some_lines([listed(&parts, " · ")])
    }

    fn rule(&self) -> Vec<String> {
        let policy = [
            (
                "policy ",
                self.text("tidegate.policy.digest")
                    .chars()
                    .take(12)
                    .collect(),
            ),
            ("generation ", self.text("tidegate.policy.generation")),
        ];
        let rule = self.joined(&["security_rule.name", "tidegate.rule.location"], "  ");
        some_lines([rule, self.text("tidegate.detail"), listed(&policy, ", ")])
    }

    fn way_out(&self) -> Vec<String> {
        let parts = [
            ("dialled ", self.text("network.peer.address")),
            ("dns ms ", self.text("tidegate.ms.dns")),
            ("connect ms ", self.text("tidegate.ms.connect")),
            ("TLS names ", self.text("tls.client.server_name")),
            ("upstream ", self.text("tidegate.upstream")),
            ("parent ", self.text("tidegate.parent")),
        ];
        some_lines([listed(&parts, " · ")])
    }

    fn end(&self) -> Vec<String> {
        if self.lines.close.is_none() {
            let open = self.text("tidegate.verdict") == "allow";
            return some_lines([if open { "none on record" } else { "" }.to_owned()]);
        }
        let parts = [
            ("", self.text("tidegate.end")),
            ("blame ", self.text("tidegate.blame")),
            ("", self.text("error.type")),
            ("bytes out ", self.text("tidegate.bytes.out")),
            ("bytes in ", self.text("tidegate.bytes.in")),
            ("total ms ", self.text("tidegate.ms.total")),
        ];
        some_lines([listed(&parts, " · ")])
    }

    fn groups(&self) -> Vec<Arc<str>> {
        let groups = self.lines.decision.as_ref().or(self.lines.close.as_ref());
        let groups = groups.and_then(|line| line.get("user.groups")?.as_array());
        groups
            .into_iter()
            .flatten()
            .filter_map(|group| group.as_str().map(Arc::from))
            .collect()
    }

    /// Joins the fields that are not empty.
    fn joined(&self, names: &[&str], between: &str) -> String {
        some_lines(names.iter().map(|name| self.text(name))).join(between)
    }
}

/// Joins the parts that are not empty, each after its label.
fn listed(parts: &[(&str, String)], between: &str) -> String {
    let said = parts.iter().filter(|(_, text)| !text.is_empty());
    said.map(|(label, text)| format!("{label}{text}"))
        .collect::<Vec<_>>()
        .join(between)
}

fn some_lines(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else {
            panic!("not an object")
        };
        object
    }

    fn policy() -> Policy {
        policy_of("")
    }

    fn policy_of(rules: &str) -> Policy {
        let (config, findings) = crate::config::load_text("a.toml".as_ref(), rules);
        let config = config.unwrap_or_else(|| panic!("{findings:?}"));
        let (policy, findings) = policy::compile(&config.policy, &policy::built_in());
        policy.unwrap_or_else(|| panic!("{findings:?}"))
    }

    fn drawn(recorded: &Recorded) -> String {
        let now = recorded.now(&policy());
        recorded.tree(now.as_ref().map_err(|why| *why), "").draw()
    }

    fn refused() -> Recorded {
        let decision = object(json!({
            "timestamp": "2026-11-22T10:41:07.000001Z",
            "event.name": "decision",
            "tidegate.flow.id": "0195f3c2-0000-7000-8000-000000000001",
            "tidegate.verdict": "deny",
            "tidegate.reason": "not_allowed",
            "tidegate.detail": "nearest rule docs: host docs.rs",
            "security_rule.name": "tier.standard.default",
            "tidegate.rule.location": "tidegate.toml:6",
            "tidegate.tier": "standard",
            "tidegate.tier.basis": "unattributed",
            "tidegate.category": "unknown",
            "session.id": "4f0c\u{1b}[2J",
            "user.id": "ana",
            "user.groups": ["dev", "ops"],
            "server.address": "cdn.example",
            "server.port": 443,
            "network.protocol.name": "connect",
        }));
        Recorded::new(Lines {
            decision: Some(decision),
            ..Lines::default()
        })
    }

    #[test]
    fn a_recorded_refusal_is_told_and_judged_anew() {
        let recorded = refused();
        let (flow, _) = recorded.now(&policy()).expect("judged");
        assert_eq!(flow.show(), "CONNECT cdn.example:443");
        let text = drawn(&recorded);
        for part in [
            "CONNECT cdn.example:443",
            "deny  not_allowed",
            "ana · groups dev, ops · session 4f0c?[2J",
            "standard   by unattributed",
            "tier.standard.default  tidegate.toml:6",
            "nearest rule docs: host docs.rs",
            Code::NotAllowed.sentence(),
            Code::NotAllowed.next_step(),
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(
            !text.contains('\u{1b}') && !text.contains("├ end"),
            "{text}"
        );
    }

    #[test]
    fn a_flow_that_ended_says_how() {
        let mut recorded = refused();
        recorded.lines.close = Some(object(json!({
            "tidegate.verdict": "allow",
            "tidegate.reason": "allowed",
            "tidegate.end": "refused",
            "tidegate.blame": "client",
            "error.type": "sni_missing",
            "tidegate.bytes.out": 12,
        })));
        if let Some(line) = &mut recorded.lines.decision {
            line.insert("server.address".into(), json!("fd00::7"));
            line.insert("server.port".into(), json!(80));
            line.insert("network.protocol.name".into(), json!("http"));
            line.insert("http.request.method".into(), json!("GET"));
        }
        let text = drawn(&recorded);
        for part in [
            "refused · blame client · sni_missing · bytes out 12",
            "allow  allowed, then sni_missing",
            "now        deny  address_denied",
            Code::SniMissing.next_step(),
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        let (flow, _) = recorded.now(&policy()).expect("judged");
        assert_eq!(flow.show(), "GET http://[fd00::7]:80");
    }

    #[test]
    fn a_request_inside_a_tunnel_says_what_it_did_and_is_judged_as_one() {
        let mut recorded = refused();
        let detail = format!(
            "client_certificate_required: {}",
            "the upstream wants one, ".repeat(4)
        );
        if let Some(line) = &mut recorded.lines.decision {
            for (name, value) in [
                (
                    "tidegate.flow.parent",
                    "0195f3c2-0000-7000-8000-000000000000",
                ),
                ("network.protocol.name", "http"),
                ("http.request.method", "POST"),
                ("tidegate.service", "git"),
                ("tidegate.operation", "push"),
                ("tidegate.destination.ref", "refs/heads/main"),
                ("tidegate.upstream", "internal-mtls"),
                ("tidegate.detail", &detail),
            ] {
                line.insert(name.to_owned(), json!(value));
            }
        }
        let (flow, now) = recorded.now(&policy()).expect("judged");
        assert_eq!(flow.show(), "POST https://cdn.example:443");
        let request_facts = now.request_facts.expect("facts");
        assert_eq!(request_facts.operation.as_deref(), Some("push"));
        assert_eq!(request_facts.reference.as_deref(), Some("refs/heads/main"));
        let text = drawn(&recorded);
        for part in [
            "POST https://cdn.example:443",
            "git push · ref refs/heads/main",
            "tunnel     0195f3c2-0000-7000-8000-000000000000",
            "upstream internal-mtls",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(
            !text.contains('…') && text.matches("wants").count() == 4,
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
    }

    #[test]
    fn a_failure_of_tls_is_named_and_says_what_to_do() {
        let mut recorded = refused();
        recorded.lines.close = Some(object(json!({
            "tidegate.verdict": "allow",
            "tidegate.reason": "tls_failed",
            "tidegate.end": "failed",
            "tidegate.blame": "upstream",
            "error.type": "client_certificate_revoked",
        })));
        let text = drawn(&recorded);
        for part in [
            "tls_failed, then client_certificate_revoked",
            Code::TlsFailed.next_step(),
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }

    #[test]
    fn a_target_that_was_not_understood_is_not_judged_anew() {
        let mut recorded = refused();
        if let Some(line) = &mut recorded.lines.decision {
            line.remove("server.address");
        }
        assert!(recorded.now(&policy()).is_err());
        assert!(drawn(&recorded).contains("no target was understood"));
    }

    #[test]
    fn a_flow_that_a_path_decides_is_not_judged_anew_without_its_path() {
        let mut recorded = refused();
        let line = recorded.lines.decision.as_mut().expect("a line");
        line.insert("server.port".into(), json!(80));
        line.insert("network.protocol.name".into(), json!("http"));
        line.insert("http.request.method".into(), json!("GET"));
        let rule = "[[rule]]\nid = \"docs\"\nverdict = \"allow\"\nto.hosts = [\"cdn.example\"]\n\
                    does.paths = [\"/docs/**\"]\n";
        let policy = policy_of(rule);
        assert!(
            recorded
                .now(&policy)
                .is_err_and(|why| why.contains("paths = true"))
        );
        let line = recorded.lines.decision.as_mut().expect("a line");
        line.insert("url.path".into(), json!("/docs/a"));
        let (flow, now) = recorded.now(&policy).expect("judged");
        assert_eq!(now.decision.verdict, Verdict::Allow);
        assert_eq!(flow.show(), "GET http://cdn.example:80/docs/a");
    }
}
