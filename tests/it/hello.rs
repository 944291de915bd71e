//! What a tunnel begins with: hellos that are not well-formed, and hellos that may hide a name.

use crate::kit::{Gate, Hello, Inside, Line, Origin, Pki, TIERS, inspected, loopback};

const HOST: &str = "files.example.net";
const DECODE_ERROR: &[u8] = &[21, 3, 3, 0, 2, 2, 50];
const ACCESS_DENIED: &[u8] = &[21, 3, 3, 0, 2, 2, 49];
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

/// Sends `bytes` in a tunnel: what the client hears, and the line of its end.
#[track_caller]
fn sent(policy: &str, bytes: &[u8]) -> (Vec<u8>, Line) {
    let origin = Origin::bytes();
    let gate = Gate::with(&policy.replace("PORT", &origin.port().to_string()));
    let mut client = gate.client();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(bytes);
    let heard = client.rest();
    let close = gate.last_close();
    assert_eq!(origin.received(), b"", "nothing of it may reach the origin");
    let reason = close.text("error.type").to_owned();
    let labels = [("end", "refused"), ("reason", reason.as_str())];
    let counted = gate.metrics().sum("tidegate_flow_ends_total", &labels);
    assert!((counted - 1.0).abs() < 0.1, "{reason}: {counted}");
    (heard, close)
}

/// The policy of most tests; `lines` stand in the tier of the caller.
fn policy(lines: &str) -> String {
    let tier = format!("[tier.standard]\n{lines}");
    loopback(1)
        .replace("ports = [1]", "ports = [PORT]")
        .replace("[tier.standard]\n", &tier)
}

#[test]
fn a_malformed_hello_gets_decode_error_and_a_reason_of_its_own() {
    let hello = Hello::naming(HOST);
    let whole = hello.bytes();
    let cipher_suites = {
        // The length of the list of cipher suites: an odd one.
        let mut bytes = whole.clone();
        bytes[5 + 4 + 2 + 32 + 1 + 1] = 1;
        bytes
    };
    let trailing = {
        let mut bytes = whole.clone();
        let at = u16::try_from(bytes.len() - 5 + 1)
            .expect("short")
            .to_be_bytes();
        bytes[3..5].copy_from_slice(&at);
        bytes.push(0);
        bytes
    };
    for (what, bytes) in [
        ("a wrong list of cipher suites", cipher_suites),
        ("a byte behind the hello", trailing),
        ("an empty record", vec![22, 3, 1, 0, 0]),
        ("a record that is too long", vec![22, 3, 1, 0xff, 0xff]),
        ("a ServerHello", vec![22, 3, 3, 0, 4, 2, 0, 0, 0]),
        (
            "two of one extension",
            hello
                .clone()
                .extension(0xff01, b"")
                .extension(0xff01, b"")
                .bytes(),
        ),
        (
            "a server name cut short",
            Hello::nameless().extension(0, &[0, 9, 0, 0, 3]).bytes(),
        ),
        (
            "an empty server name",
            Hello::nameless().names(&[(0, b"")]).bytes(),
        ),
    ] {
        let (heard, close) = sent(&policy(""), &bytes);
        assert_eq!(
            close.text("error.type"),
            "bad_client_hello",
            "{what}: {close:?}"
        );
        assert_eq!(close.text("tidegate.end"), "refused", "{what}");
        assert_eq!(close.text("tidegate.blame"), "client", "{what}");
        assert!(
            !close.text("tidegate.detail").is_empty(),
            "{what}: {close:?}"
        );
        assert_eq!(heard, DECODE_ERROR, "{what}");
    }
}

#[test]
fn a_well_formed_hello_of_an_odd_name_is_a_mismatch() {
    let long = "a.".repeat(150);
    for name in [
        "files.example.net.",
        "192.0.2.1",
        "FILES_.example.net",
        &long,
        "files.example.net:443",
    ] {
        let hello = Hello::nameless().names(&[(0, name.as_bytes())]);
        let (heard, close) = sent(&policy(""), &hello.bytes());
        assert_eq!(
            close.text("error.type"),
            "sni_mismatch",
            "{name}: {close:?}"
        );
        assert_eq!(heard, UNRECOGNIZED_NAME, "{name}");
    }
}

#[test]
fn a_tier_may_refuse_an_encrypted_hello() {
    for hello in [
        Hello::naming(HOST).encrypted(),
        // The inner type, data that no server understands, none, and the drafts before RFC 9849.
        Hello::naming(HOST).extension(0xfe0d, &[1]),
        Hello::naming(HOST).extension(0xfe0d, b"grease"),
        Hello::naming(HOST).extension(0xfe0d, b""),
        Hello::naming(HOST).extension(0xffce, b"esni"),
    ] {
        let (heard, close) = sent(&policy("ech = \"deny\"\n"), &hello.in_records(50));
        assert_eq!(close.text("error.type"), "ech_denied", "{close:?}");
        assert_eq!(close.text("tidegate.end"), "refused");
        assert_eq!(close.text("tidegate.blame"), "policy");
        assert_eq!(close["tidegate.tls.ech"], true);
        assert!(
            close.text("tidegate.detail").contains("tier standard"),
            "{close:?}"
        );
        assert_eq!(heard, ACCESS_DENIED);
    }
    // The name comes first: a hello for another name says so.
    let other = Hello::naming("front.example.org").encrypted();
    let (_, close) = sent(&policy("ech = \"deny\"\n"), &other.bytes());
    assert_eq!(close.text("error.type"), "sni_mismatch", "{close:?}");
    assert_eq!(close["tidegate.tls.ech"], true);
}

/// Sends a hello that passes, and gives the line of the tunnel's end.
#[track_caller]
fn passed(lines: &str, hello: &Hello) -> Line {
    let origin = Origin::bytes();
    let gate = Gate::with(&policy(lines).replace("PORT", &origin.port().to_string()));
    let mut client = gate.client();
    let hello = hello.bytes();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(&hello);
    assert_eq!(client.exactly(hello.len()), hello, "passed on as it came");
    drop(client);
    gate.last_close()
}

#[test]
fn an_encrypted_hello_that_passes_is_on_record() {
    let hello = Hello::naming(HOST).encrypted();
    for lines in ["", "ech = \"allow\"\n"] {
        let close = passed(lines, &hello);
        assert_eq!(close["tidegate.tls.ech"], true, "{close:?}");
        assert!(!close.has("tidegate.would"), "{close:?}");
    }
    let plain = passed("ech = \"deny\"\n", &Hello::naming(HOST));
    assert!(!plain.has("tidegate.tls.ech"), "{plain:?}");
    let observed = passed("mode = \"observe\"\nech = \"deny\"\n", &hello);
    assert_eq!(observed.text("tidegate.would"), "deny", "{observed:?}");
    assert_eq!(observed.reason(), "ech_denied", "{observed:?}");
}

#[test]
fn where_tls_ends_at_the_gate_an_encrypted_hello_hides_nothing() {
    let pki = Pki::new();
    let origin = Origin::tls(&pki, &[HOST]);
    let tiers = TIERS.replace("[tier.standard]\n", "[tier.standard]\nech = \"deny\"\n");
    let rules = inspected("files", HOST, origin.port(), "");
    let inside = Inside::start(&pki, &[HOST], &format!("{tiers}{rules}"));
    let mut client = inside.gate.client();
    client
        .tunnel(&format!("{HOST}:{}", origin.port()))
        .send(Hello::naming(HOST).encrypted().bytes());
    // The gate answers with a ServerHello of its own; the inner name is never looked at.
    assert_eq!(client.exactly(1), [22]);
    drop(client);
    let line = inside.gate.line("the tunnel's end", Line::is_close);
    assert_eq!(line["tidegate.tls.ech"], true, "{line:?}");
    assert_ne!(line.text("error.type"), "ech_denied", "{line:?}");
}

#[test]
fn the_built_in_policy_refuses_an_encrypted_hello_in_its_strictest_tier() {
    let text = include_str!("../../config/default.toml");
    let restricted = text
        .split("[tier.")
        .find(|part| part.starts_with("restricted]"));
    assert!(
        restricted
            .expect("a tier")
            .contains("\nech     = \"deny\"\n"),
        "{text}"
    );
    assert_eq!(
        text.matches("\nech ").count(),
        1,
        "the other tiers let it pass"
    );
}
