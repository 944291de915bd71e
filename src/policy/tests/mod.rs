//! Tests of the meaning of the policy language.

mod decision;
mod defaults;
mod details;
mod diagnostics;
mod differences;
mod exceptions;
mod explaining;
mod forbidden;
mod invariants;
mod meaning;
mod naive;
mod reaching;
mod requests;
mod tiers;
mod trials;

use std::sync::{Arc, OnceLock};

use crate::diag::{Diagnostic, Severity, Source};
use crate::name::{Target, Url};

use super::verdict::*;
use super::*;

/// Three tiers that allow nothing; tests add rules.
const TIERS: &str = r#"
[tiers]
order = ["open", "standard", "restricted"]
[tier.open]
default = "allow"
[tier.standard]
default = "deny"
allow = ["model-api", "package-registry:read"]
ask = ["source-control:write"]
deny = ["telemetry", "package-registry:write"]
[tier.restricted]
opaque = "deny"
allow = ["package-registry:read"]
"#;

pub(super) fn read(text: &str) -> source::Policy {
    let source = Arc::new(Source::new("test.toml", text));
    compile::default_policy::parse(&source).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

pub(super) fn try_compile(text: &str) -> (Option<Policy>, Vec<Diagnostic>) {
    compile(&read(text), &catalogue())
}

/// Compiles a text that must be without errors.
fn compiled(text: &str) -> Policy {
    let (policy, findings) = try_compile(text);
    policy.unwrap_or_else(|| panic!("{findings:#?}"))
}

/// Compiles rules over [`TIERS`].
fn with_rules(text: &str) -> Policy {
    compiled(&format!("{TIERS}{text}"))
}

fn of_severity(text: &str, severity: Severity) -> Vec<Diagnostic> {
    let (policy, mut findings) = try_compile(text);
    findings.extend(
        policy
            .iter()
            .flat_map(|policy| reach_findings(&read(text), policy).0),
    );
    findings
        .into_iter()
        .filter(|finding| finding.severity == severity)
        .collect()
}

/// Returns a catalogue of four hosts, which is parsed once.
fn catalogue() -> Catalogue {
    static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
    CATALOGUE.get_or_init(parse_catalogue).clone()
}

fn parse_catalogue() -> Catalogue {
    let (catalogue, findings) = Catalogue::parse(&[(
        "small.toml",
        r#"
        dated = "2026-11-22"
        [[destination]]
        category = "model-api"
        domain = "model.example"
        hosts = ["api"]
        paths = [{ category = "telemetry", match = "/events/**" }]
        source = "test"
        [[destination]]
        category = "package-registry"
        domain = "packages.example"
        hosts = ["@", "*"]
        ports = [443, 8443]
        source = "test"
        [[destination]]
        category = "source-control"
        domain = "forge.example"
        hosts = ["@"]
        ports = [80, 443]
        source = "test"
        [[destination]]
        category = "telemetry"
        domain = "report.example"
        hosts = ["@"]
        source = "test"
        "#,
    )]);
    assert!(findings.is_empty(), "{findings:?}");
    catalogue
}

/// A caller that asks a policy.
struct Asking<'p> {
    policy: &'p Policy,
    who: Who,
}

fn asking<'p>(policy: &'p Policy, tier: &str) -> Asking<'p> {
    let who = Who {
        tier: policy.tier(tier).expect("a tier of the policy"),
        ..regions::anyone()
    };
    Asking { policy, who }
}

impl Asking<'_> {
    fn of(mut self, group: &str) -> Self {
        self.who
            .groups
            .insert(self.policy.group(group).expect("a group of the policy"));
        self
    }

    fn connect(&self, authority: &str) -> Decision {
        let target = Target::from_connect(authority.as_bytes()).expect("host:port");
        self.decide(&target, Attempt::Connect)
    }

    fn request(&self, method: &str, url: &str) -> Decision {
        self.judge(method, url, None)
    }

    /// Judges a request with these facts; without facts, they are read from the head.
    fn judge(&self, method: &str, url: &str, facts: Option<&RequestFacts>) -> Decision {
        let url = Url::parse(url.as_bytes()).expect("a URL");
        let attempt = Attempt::Request {
            method,
            path: &url.path,
            upgrade: false,
            tls: url.tls,
            request_facts: facts,
        };
        self.decide(&url.target, attempt)
    }

    fn decide(&self, target: &Target, attempt: Attempt<'_>) -> Decision {
        let query = Query {
            who: &self.who,
            target,
            attempt,
        };
        let decision = self.policy.decide(&query);
        assert_eq!(
            decision,
            explain(self.policy, &query).decision,
            "an explanation differs"
        );
        decision
    }

    fn explain(&self, authority: &str) -> Explanation {
        let target = Target::from_connect(authority.as_bytes()).expect("host:port");
        explain(
            self.policy,
            &Query {
                who: &self.who,
                target: &target,
                attempt: Attempt::Connect,
            },
        )
    }
}

/// Returns the verdict, reason and rule of a decision, for comparison.
fn said(decision: &Decision) -> (Verdict, &'static str, &str) {
    (
        decision.verdict,
        decision.reason.code(),
        &decision.rule.name,
    )
}

fn is_shareable<T: Send + Sync + std::fmt::Debug>() {}

#[test]
fn a_policy_can_be_shared_between_threads() {
    is_shareable::<Policy>();
    is_shareable::<Catalogue>();
}
