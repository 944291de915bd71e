//! A flow that is on record: what was decided then, and what would be now.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::name::{Path, Target};
use crate::policy::{Action, Explanation, Facts, McpCall, Policy, RequestFacts, Verdict, Who};
use crate::proxy::Code;

use super::super::records::Lines;
use super::super::tree::Tree;
use super::asked::Flow;
use super::render;

/// What is missing where a request is judged anew.
const NO_PATH: &str = "paths are not on record: judged anew by what it did; a rule that names paths \
    may decide otherwise";

/// The lines of a flow, read as what they say.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) lines: Lines,
}

impl Recorded {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines }
    }

    /// What a field says, where it is a text or number; else nothing. What was learned later counts.
    pub(super) fn text(&self, name: &str) -> String {
        let find = |line: &Option<Map<String, Value>>| line.as_ref()?.get(name).cloned();
        match find(&self.lines.close).or_else(|| find(&self.lines.decision)) {
            Some(Value::String(text)) => text,
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    /// The same flow, to be judged anew; `None` where no target was understood.
    pub(super) fn flow(&self) -> Option<Flow> {
        let (host, port) = (self.text("server.address"), self.text("server.port"));
        let authority = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let target = Target::from_connect(authority.as_bytes()).ok()?;
        if self.is_tunnel() {
            return Some(Flow {
                target,
                request: None,
                inside: None,
                tls: false,
                recorded: None,
                notes: Vec::new(),
            });
        }
        let method = self.text("http.request.method");
        let path = Path::parse(b"/").ok()?;
        Some(Flow {
            target,
            request: Some((method, path)),
            inside: None,
            tls: self.is_inside(),
            recorded: Some(Box::new(self.deed())),
            notes: vec![NO_PATH],
        })
    }

    /// Whether host and port are all that was asked.
    fn is_tunnel(&self) -> bool {
        let method = self.text("http.request.method");
        let protocol = self.text("network.protocol.name");
        let has_method = !method.is_empty() && method != "CONNECT";
        protocol != "http" && !(protocol == "captured" && has_method)
    }

    /// What the request did, as far as the record says.
    fn deed(&self) -> RequestFacts {
        let some = |name| Some(self.text(name)).filter(|text| !text.is_empty());
        let shared = |name| some(name).map(Arc::from);
        let boxed = |name| some(name).map(String::into_boxed_str);
        let action = some("tidegate.action");
        let action = |it: &Action| action.as_deref() == Some(it.as_str());
        let method = boxed("mcp.method.name");
        let server: Option<Arc<str>> = shared("tidegate.mcp.server");
        RequestFacts {
            service: shared("tidegate.service"),
            operation: shared("tidegate.operation"),
            action: Action::ALL.into_iter().find(action),
            repository: boxed("tidegate.destination.repository"),
            package: boxed("tidegate.package.name"),
            version: boxed("tidegate.package.version"),
            reference: boxed("tidegate.destination.ref"),
            mcp: (method.is_some() || server.is_some()).then(|| McpCall {
                server,
                method,
                tool: boxed("mcp.tool.name"),
                tool_use_id: None,
            }),
            ..RequestFacts::default()
        }
    }

    /// Whether the flow, judged anew, is for what it was for: where the path said that, the path is
    /// missed.
    pub(super) fn is_same_category(&self, now: &Explanation) -> bool {
        let was = self.text("tidegate.category");
        self.text("tidegate.category.basis") != "path" || now.decision.category.as_str() == was
    }

    /// Whether it is a request inside a tunnel that is inspected.
    fn is_inside(&self) -> bool {
        let plain = self.text("tidegate.tls.mode") == "none";
        !self.text("tidegate.flow.parent").is_empty() && !plain
    }

    /// The same caller, as far as the record tells; never looser than the tier on record.
    pub(super) fn who(&self, policy: &Policy) -> Who {
        let subject = self.text("user.id");
        let repository = Some(self.text("vcs.repository.url.full")).filter(|text| !text.is_empty());
        let repository = repository.map(Arc::<str>::from);
        let tier = self.text("tidegate.tier");
        policy.who(&Facts {
            subject: &subject,
            groups: &self.groups(),
            repository: repository.as_ref(),
            listener_tier: policy.tier(&tier).map(|_| tier.as_str()),
            ..Facts::default()
        })
    }

    /// What happened, and what would happen now.
    pub(super) fn tree(&self, now: Option<&Explanation>) -> Tree {
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
            None if self.flow().is_some() => tree.stage(
                "now",
                "not judged anew: the path says what it is for, and paths are not on record",
            ),
            None => tree.stage("now", "no target was understood, so none can be judged"),
            Some(now) => {
                let rule = render::named(&now.decision.rule);
                tree.stage(
                    "now",
                    format!("{}   {rule}", render::verdict(&now.decision)),
                );
            }
        }
        self.flow()
            .iter()
            .flat_map(|flow| &flow.notes)
            .for_each(|note| tree.note("note", *note));
        if now.is_some_and(|now| now.decision.verdict == Verdict::Allow) {
            tree.note("note", render::ADDRESSES);
        }
        if let Some(code) = self.code() {
            tree.note("what it means", code.sentence());
            tree.note("what to do", code.next_step());
        }
        if let Some(suggestion) = now.and_then(|now| now.suggestion.as_deref()) {
            tree.note("to allow it", suggestion);
        }
        tree
    }

    /// `deny  not_allowed`; of a flow that was let out and then ended, how that came.
    fn verdict(&self) -> String {
        let then = match &*self.text("error.type") {
            "" => String::new(),
            error => format!(", then {error}"),
        };
        self.joined(&["tidegate.verdict", "tidegate.reason"], "  ") + &then
    }

    /// Why it was refused or ended, where that is in the closed list.
    fn code(&self) -> Option<Code> {
        // An error that says more than its code has that as its reason.
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

    /// The session and how far it is trusted; empty where the record names none.
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

    /// What the request does, in the words of its service.
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

    /// Fields that say something, joined.
    fn joined(&self, names: &[&str], between: &str) -> String {
        some_lines(names.iter().map(|name| self.text(name))).join(between)
    }
}

/// Parts that say something, each behind its label.
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
        assert_eq!(recorded.flow().unwrap().show(), "CONNECT cdn.example:443");
        let text = recorded.tree(None).draw();
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
            "server.address": "fd00::7",
            "server.port": 80,
            "network.protocol.name": "http",
            "http.request.method": "GET",
        })));
        let text = recorded.tree(None).draw();
        for part in [
            "refused · blame client · sni_missing · bytes out 12",
            "allow  allowed, then sni_missing",
            Code::SniMissing.next_step(),
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert_eq!(recorded.flow().unwrap().show(), "GET http://[fd00::7]:80");
        assert!(text.contains("paths are not on record"), "{text}");
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
        let flow = recorded.flow().unwrap();
        assert_eq!(flow.show(), "POST https://cdn.example:443");
        let deed = flow.recorded.unwrap();
        assert_eq!(deed.operation.as_deref(), Some("push"));
        assert_eq!(deed.reference.as_deref(), Some("refs/heads/main"));
        let text = recorded.tree(None).draw();
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
        let text = recorded.tree(None).draw();
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
        assert!(recorded.flow().is_none());
    }
}
