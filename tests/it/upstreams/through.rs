//! The same through the gate: callers have no key, and the gate has one.

use std::sync::Arc;

use rustls::ServerConfig;
use serde_json::Value;

use crate::kit::{Gate, Line, Origin, Pki, Program, TIERS, Visit, allow_more, names};

use super::bench::{Bench, HOST, MTLS};

/// What is at `http://` goes to the port of the upstream.
pub(super) const PLAIN: u16 = 80;

/// A gate with the certificate of the bench, whose rule for HOST says these lines.
fn gate(bench: &Bench, port: u16, asked: u16, lines: &str) -> Gate {
    gate_with(
        bench,
        &Pki::for_leaves(),
        port,
        &rule("internal", asked, lines),
    )
}

/// A rule for HOST, which has a certificate for it.
pub(super) fn rule(id: &str, asked: u16, lines: &str) -> String {
    allow_more(
        id,
        HOST,
        asked,
        &format!("grant.upstream = \"internal\"\n{lines}"),
    )
}

/// A gate with the certificate of the bench and these rules; what is asked for in plain HTTP goes
/// to that port.
pub(super) fn gate_with(bench: &Bench, trust: &Pki, port: u16, rules: &str) -> Gate {
    let text = |name: &str| std::fs::read_to_string(bench.path(name)).expect("a file");
    let policy = format!(
        "{TIERS}{}{rules}\n[upstream.internal]\n{MTLS}port = {port}\n\
         [inspect]\nca-cert = \"inspect.pem\"\nca-key = \"inspect.key\"\n",
        names(&[HOST]),
    );
    let gate = Gate::plan(&policy)
        .file("ca.pem", &text("ca.pem"))
        .file("agent.pem", &text("agent.pem"))
        .file("agent.key", &text("agent.key"))
        .file("inspect.pem", &trust.pem())
        .file("inspect.key", &trust.key_pem());
    gate.start()
}

fn picky(bench: &Bench, revoked: &[u64]) -> Arc<ServerConfig> {
    bench.pki.server_for_certificates(&[HOST], revoked)
}

fn curl(gate: &Gate, url: &str) -> Program {
    Program::new("curl", gate.folder())
        .args(["-sS", "-m", "20", "--cacert", "inspect.pem", url])
        .through(&gate.url())
}

fn mentions(lines: &[Line], word: &str) -> bool {
    lines.iter().any(|line| format!("{line:?}").contains(word))
}

#[test]
fn an_agent_without_a_key_reaches_a_service_that_wants_a_certificate() {
    let bench = Bench::new();
    let origin = Origin::https_with(picky(&bench, &[]), Visit::echo);
    let gate = gate(
        &bench,
        origin.port(),
        origin.port(),
        "grant.inspect = true\n",
    );
    let url = format!("https://{HOST}:{}/report", origin.port());
    let answer = curl(&gate, &url).run().succeeded();
    let seen: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    assert_eq!(seen["target"], "/report");
    assert!(mentions(&gate.records(), "\"internal\""));
}

#[test]
fn a_plain_request_is_made_tls_where_its_rule_names_an_upstream() {
    let bench = Bench::new();
    let origin = Origin::https_with(picky(&bench, &[]), Visit::echo);
    let gate = gate(&bench, origin.port(), PLAIN, "");
    let answer = gate.client().get(&format!("http://{HOST}/report"));
    assert_eq!((answer.status(), origin.last().target()), (200, "/report"));
}

#[test]
fn a_revoked_certificate_gives_a_refusal_that_says_so() {
    let bench = Bench::new();
    bench.agent(66, |_| ());
    let origin = Origin::https_with(picky(&bench, &[66]), Visit::echo);
    let gate = gate(&bench, origin.port(), PLAIN, "");
    let answer = gate.client().get(&format!("http://{HOST}/"));
    assert!((500..600).contains(&answer.status()), "{answer:?}");
    assert!(answer.text().contains("revoked"), "{answer:?}");
    let close = gate.last_close();
    let said = (close.text("error.type"), close.reason());
    assert_eq!(
        said,
        ("client_certificate_revoked", "tls_failed"),
        "{close:?}"
    );
}
