//! One decision for every flow: whichever listener it came by and however it asked.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::kit::{Client, Gate, Line, Origin, TIERS, names};

const HOSTS: [&str; 6] = [
    "allowed.example.com",
    "denied.example.com",
    "asked.example.com",
    "unknown.example.com",
    "below.wide.example.net",
    "wide.example.net",
];

fn policy(port: u16, mode: &str) -> String {
    let mut text = format!(
        "[tiers]\norder = [\"only\"]\n[tier.only]\nmode = \"{mode}\"\ndefault = \"deny\"\n{}",
        names(&HOSTS)
    );
    for (id, verdict, host) in [
        ("allowed", "allow", HOSTS[0]),
        ("denied", "deny", HOSTS[1]),
        ("denied-too", "allow", HOSTS[1]),
        ("asked", "ask", HOSTS[2]),
        ("wide", "allow", "*.wide.example.net"),
    ] {
        let addresses = if verdict == "allow" {
            "grant.addresses = [\"127.0.0.0/8\"]"
        } else {
            ""
        };
        let _ = write!(
            text,
            "\n[[rule]]\nid = \"{id}\"\nverdict = \"{verdict}\"\nto.hosts = [\"{host}\"]\n\
             to.ports = [{port}]\n{addresses}\n"
        );
    }
    // More listeners that say nothing of their callers.
    text + "\n[[listener]]\naddress = \"127.0.0.1:0\"\n\n[[listener]]\naddress = \"[::1]:0\"\n"
}

/// Verdict, reason and rule of the decision that one attempt left.
fn outcome(gate: &Gate, known: &mut BTreeSet<String>) -> (String, String, String) {
    let fresh = |line: &&Line| line.is_decision() && !known.contains(line.flow());
    let line = crate::kit::eventually("a decision", || gate.records().iter().find(fresh).cloned());
    known.insert(line.flow().to_owned());
    let text = |field: &str| line.text(field).to_owned();
    (
        text("tidegate.verdict"),
        text("tidegate.reason"),
        text("security_rule.name"),
    )
}

#[test]
fn the_same_target_and_caller_get_the_same_verdict_however_they_ask() {
    let origin = Origin::echo();
    let gate = Gate::with(&policy(origin.port(), "enforce"));
    let mut known = BTreeSet::new();
    let mut verdicts = BTreeSet::new();
    for host in HOSTS {
        let target = format!("{host}:{}", origin.port());
        let shouted = target.to_ascii_uppercase();
        let mut seen = BTreeSet::new();
        for listener in 0..3 {
            let client = || Client::dial(gate.listener(listener));
            client().connect(&target);
            seen.insert(outcome(&gate, &mut known));
            client().connect(&shouted);
            seen.insert(outcome(&gate, &mut known));
            client().get(&format!("http://{target}/"));
            seen.insert(outcome(&gate, &mut known));
            client().request(
                "POST",
                &format!("http://{target}/"),
                "Content-Length: 1\r\n",
                "x",
            );
            seen.insert(outcome(&gate, &mut known));
        }
        assert_eq!(seen.len(), 1, "{host}: {seen:?}");
        verdicts.extend(seen.into_iter().map(|(verdict, ..)| verdict));
    }
    assert_eq!(
        verdicts.len(),
        3,
        "the cases show every verdict: {verdicts:?}"
    );
}

#[test]
fn observe_marks_what_would_be_denied_and_the_floor_holds_all_the_same() {
    let origin = Origin::echo();
    let gate = Gate::with(&policy(origin.port(), "observe"));

    // No allow grants the private address of this host: the floor holds in observe mode too.
    let url = |host: &str| format!("http://{host}:{}/", origin.port());
    let floored = gate.client().get(&url(HOSTS[2]));
    assert_eq!(
        (floored.status(), floored.refusal().as_str()),
        (403, "address_denied")
    );
    let decision = || {
        let mut records = gate.records().into_iter();
        records.find(|line| line.is_decision() && line.text("tidegate.would") == "ask")
    };
    // The decision itself is known before any address is: an approval would have been needed.
    let line = crate::kit::eventually("a decision", decision);
    assert_eq!(line.text("tidegate.mode"), "observe");
    origin.saw_nothing();

    // An allow grants the address of this host, and a deny refuses it: observed, it passes.
    assert_eq!(gate.client().get(&url(HOSTS[1])).status(), 200);
    let denied = crate::kit::eventually("a denial", || {
        let mut records = gate.records().into_iter();
        records.find(|line| line.is_decision() && line.text("tidegate.would") == "deny")
    });
    assert_eq!(denied.text("security_rule.name"), "denied");
}

#[test]
fn observe_records_an_address_in_a_denied_network_and_prefers_any_other() {
    let origin = Origin::echo();
    let port = origin.port();
    let policy = |mode: &str| {
        let tiers = TIERS.replace(
            "[tier.standard]",
            &format!("[tier.standard]\nmode = \"{mode}\""),
        );
        format!(
            "{tiers}[dial]\n\
             hosts = {{ \"denied.example.com\" = [\"127.0.0.1\"], \
             \"both.example.com\" = [\"127.0.0.2\", \"127.0.0.1\"] }}\n\
             [[rule]]\nid = \"inside\"\nverdict = \"allow\"\nto.hosts = [\"*.example.com\"]\n\
             to.ports = [{port}]\ngrant.addresses = [\"127.0.0.0/8\"]\n\
             [[rule]]\nid = \"no-lab\"\nverdict = \"deny\"\nto.hosts = [\"127.0.0.1/32\"]\n"
        )
    };
    let enforcing = Gate::with(&policy("enforce"));
    let url = |host: &str| format!("http://{host}.example.com:{port}/");
    let refused = enforcing.client().get(&url("denied"));
    assert_eq!(
        (refused.status(), refused.refusal().as_str()),
        (403, "denied")
    );
    origin.saw_nothing();

    let observing = Gate::with(&policy("observe"));
    // Twice: no connection is taken from the pool without a record of the refusal.
    for turn in 1..=2 {
        assert_eq!(observing.client().get(&url("denied")).status(), 200);
        crate::kit::eventually("the decisions", || {
            let records = observing.records();
            let would = records
                .iter()
                .filter(|line| line.is_decision() && line.text("tidegate.would") == "deny");
            let named: Vec<_> = would.map(|line| line.text("security_rule.name")).collect();
            (named == vec!["no-lab"; turn]).then_some(())
        });
    }
    // As in `enforce` mode the other address is dialled, where nothing listens.
    assert_eq!(observing.client().get(&url("both")).status(), 502);
}
